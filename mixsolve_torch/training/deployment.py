"""What is deployed after a run: the mixture, its best network, or one that was trained alone.

The best network of the mixture is chosen on the images that the epoch was selected on, not on those
that all are compared on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.kept import as_mixture, kept_state, read_kept
from mixsolve_torch.training.verdict import Verdict, judge


@dataclass(frozen=True)
class Rival:
    """A network that was trained alone.

    Attributes
    ----------
    name : str
        How the verdict calls it.
    state : dict
        What its file holds.
    mixture : Mixture
        The network, as a mixture of one.
    """

    name: str
    state: dict[str, Any]
    mixture: Mixture


def read_rival(path: str | None, classes: int, device: torch.device) -> Rival | None:
    """Read the network that ``evaluation.compare`` names, if it names one.

    Raises
    ------
    MixsolveError
        A file that is missing, of another kind, or of several networks.
    """
    if path is None:
        return None
    state = read_kept(path)
    if len(state["models"]) != 1:
        raise MixsolveError(
            f"evaluation.compare {path!r} must be of a run with one network; got "
            f"{len(state['models'])}; train one with model.count = 1"
        )
    mixture = as_mixture(state, path, classes).to(device)
    return Rival(f"the network of {path}", {"classes": classes, **state}, mixture)


def decide_on_worst_class(
    mixture: Mixture,
    single: tuple[int, str, np.ndarray],
    losses: np.ndarray,
    labels: np.ndarray,
    record: dict[str, Any],
    config: TrainConfig,
    classes: int,
    mixed: np.ndarray | None = None,
) -> tuple[Verdict, dict[str, Any]]:
    """Compare a mixture with one of its networks on the worst class.

    Parameters
    ----------
    mixture : Mixture
        The networks and their weights.
    single : tuple of int, str and ndarray of shape (N,)
        The place of the network compared with, its name, and its accuracy on each image.
    losses, labels, record, config, classes
        As in `decide`.
    mixed : ndarray of shape (N,), optional
        The accuracy of the mixture on each held-out image, under weights that were not chosen on
        it; else the images are those of the test.
    """
    place, name, alone = single
    weights = mixture.weights.cpu().numpy()
    verdict = judge(
        losses,
        weights,
        {name: alone},
        labels,
        seed=config.run.seed,
        mixed=mixed,
        by_worst_class=True,
    )
    verdict = replace(verdict, split="test" if mixed is None else "held-out")
    if verdict.recommended == "mixture":
        # The network compared with is in the mixture, perhaps of weight 0.
        played = [k for k, weight in enumerate(weights) if weight > 0]
        winner = Mixture([mixture.models[k] for k in played], weights[played])
    else:
        winner = Mixture([mixture.models[place]])
    return verdict, kept_state(config.to_dict(), record, winner, classes)


def decide(
    mixture: Mixture,
    losses: np.ndarray,
    labels: np.ndarray,
    rival: tuple[Rival, np.ndarray] | None,
    record: dict[str, Any],
    config: TrainConfig,
    classes: int,
    split: Literal["test", "held-out"] = "test",
) -> tuple[Verdict, dict[str, Any]]:
    """Compare a mixture with single networks; return what came out, and the file of the winner.

    Parameters
    ----------
    mixture : Mixture
        The networks and their final weights.
    losses : ndarray of shape (N, m, L)
        Their 0/1 losses under the attacks.
    labels : ndarray of shape (N,), int
        True classes of the images.
    rival : pair of Rival and ndarray of shape (N, m', 1), optional
        A network trained alone, and its losses on the same images.
    record : dict
        Of the epoch kept.
    config, classes
        Of the run.
    split : {"test", "held-out"}, default "test"
        What images these are: of the test, or those that epoch and weights were chosen on.
    """
    weights = mixture.weights.cpu().numpy()
    best = int(np.argmax(weights if weights.max() == 1 else record["robust"]["models"]))
    member = "the network" if len(mixture) == 1 else f"network {best + 1}"
    singles = {member: 1.0 - losses[..., best].max(axis=1)}
    if rival is not None:
        singles[rival[0].name] = 1.0 - rival[1][..., 0].max(axis=1)
    verdict = judge(losses, weights, singles, labels, seed=config.run.seed)
    verdict = replace(verdict, split=split)
    if verdict.recommended == "single" and rival is not None and verdict.single == rival[0].name:
        return verdict, rival[0].state
    alone = Mixture([mixture.models[best]])
    winner = mixture if verdict.recommended == "mixture" else alone
    return verdict, kept_state(config.to_dict(), record, winner, classes)
