"""Snapshots of a run: what its network was after some epochs, the pool that a mixture is made of.

    run.out/snapshots/epoch-0003.pt ...    files as `training.kept` describes

Two classes that overlap allow one network accuracies (a, 0) or (0, b), and a mixture of two such
networks (a/2, b/2). Training for the worst class goes from the one to the other, so that its own
snapshots are such networks, at no cost of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.kept import as_mixture

_FOLDER, _PATTERN = "snapshots", "epoch-*.pt"


def is_due(epoch: int, config: TrainConfig) -> bool:
    """Whether a run keeps a snapshot of this measured epoch."""
    options = config.worst_group
    late = epoch - options.first
    return config.objective == "worst-group" and late >= 0 and late % options.every == 0


def write_snapshot(folder: Path, epoch: int, state: dict[str, Any]) -> None:
    """Write what the network of a run in `folder` is after an epoch."""
    (folder / _FOLDER).mkdir(exist_ok=True)
    checkpoint.save(state, folder / _FOLDER / f"epoch-{epoch:04d}.pt")


@dataclass(frozen=True)
class Pool:
    """The snapshots of a run.

    Attributes
    ----------
    epochs : tuple of int
        After which they were kept.
    models : tuple of torch.nn.Module
        The networks.
    """

    epochs: tuple[int, ...]
    models: tuple[nn.Module, ...]

    def name(self, k: int) -> str:
        """Return how snapshot k is called."""
        return f"epoch {self.epochs[k]}"

    def mixture(self, places: Sequence[int], weights: np.ndarray | None = None) -> Mixture:
        """Return a mixture of some snapshots, in eval mode.

        Parameters
        ----------
        places : sequence of int
            Which ones.
        weights : ndarray of shape (S,), optional
            Of all snapshots, 0 for those left out; uniform by default.
        """
        own = None if weights is None else weights[list(places)]
        return Mixture([self.models[k] for k in places], own).eval()


def read_snapshots(folder: Path, device: torch.device | str = "cpu") -> Pool:
    """Return all snapshots of a run.

    Raises
    ------
    MixsolveError
        A file that is damaged or does not fit its architecture.
    """
    paths = sorted((folder / _FOLDER).glob(_PATTERN))
    states = [checkpoint.load(path) for path in paths]
    parts = zip(states, paths, strict=True)
    models = tuple(as_mixture(state, path).models[0].to(device) for state, path in parts)
    return Pool(tuple(state["record"]["epoch"] for state in states), models)
