"""What a way to train is: how long it lasts, and what a step does with its batch.

A method may train its networks in stages, one after another: each stage lasts `optimizer.epochs`
epochs and goes through the whole schedule of the learning rate, and networks whose stage is to
come are neither measured nor kept.

The loop (`training/steps.py`) draws the batches, counts the steps, and sets the learning rate; the
networks have their optimisers and averages. A method combines attacks with steps of descent.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixsolve_torch.training.attackers import Attackers
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.methods.batch_game import BatchGame
from mixsolve_torch.training.networks import Networks
from mixsolve_torch.training.ranks import Ranks


@dataclass(frozen=True)
class Batch:
    """One step's images.

    Attributes
    ----------
    t : int
        The number of the step, from 1 on.
    x, y : torch.Tensor of shape (B, C, H, W), (B,)
        Images in [0, 1] and labels: this rank's part.
    learning_rate : float
        Of this step.
    """

    t: int
    x: Tensor
    y: Tensor
    learning_rate: float


@dataclass(frozen=True)
class Parts:
    """What methods are made of.

    Attributes
    ----------
    config : TrainConfig
        The settings.
    networks : Networks
        The networks and their weights.
    attackers : Attackers
        Attacks on the mixture and on each network alone.
    game : BatchGame
        Updates the weights, and attacks images for its game.
    ranks : Ranks
        This process among those of the run.
    steps : int
        T, the steps of the whole run.
    shared, own : torch.Generator
        Draws that are the same on all ranks, and those of each rank for its own images.
    images : torch.Tensor of shape (classes,), int64
        How many of the training images are of each class, the same on all ranks.
    """

    config: TrainConfig
    networks: Networks
    attackers: Attackers
    game: BatchGame
    ranks: Ranks
    steps: int
    shared: torch.Generator
    own: torch.Generator
    images: Tensor

    def updates(self, t: int, trained: int) -> bool:
        """Whether step t updates the weights: one in `trained` + 1, if there are any to update."""
        plays = len(self.networks) > 1 and self.config.weights.update != "none"
        return plays and t % (trained + 1) == 0


class Method(abc.ABC):
    """Base class of methods.

    Parameters
    ----------
    parts : Parts
        What it works with.

    Attributes
    ----------
    given : int
        How many networks, the first ones, began with parameters from files.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.given = 0

    @staticmethod
    @abc.abstractmethod
    def passes(count: int) -> int:
        """Return the passes over the data in an epoch of each of `count` networks."""

    @staticmethod
    def stages(config: TrainConfig) -> int:
        """Return how many times `optimizer.epochs` epochs the run lasts."""
        return 1

    @abc.abstractmethod
    def step(self, batch: Batch) -> None:
        """Train on a batch, or update the weights on it."""

    def begin(self, given: int) -> None:
        """Take note that the first `given` networks begin with parameters from files."""
        self.given = given

    def progress(self, t: int) -> float:
        """Return the share of the schedule of the learning rate that is done after t steps."""
        return t / self.parts.steps

    def begun(self, t: int) -> int:
        """Return how many networks, the first ones, the mixture has after t steps."""
        return len(self.parts.networks)

    def ended(self, t: int) -> int | None:
        """Return the network whose stage ends with step t, if another stage follows."""
        return None

    def unfinished(self, t: int) -> set[int]:
        """Return the networks too young after t steps to be called weak."""
        return set()

    def state(self) -> dict[str, Any]:
        """Return what else the next step depends on, as tensors and plain values."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state; got {', '.join(state)}")
