"""Who is attacked in training: the mixture in which no network is forgotten, and each one alone.

The attacked mixture has the weights

    (1 - floor) lam + floor / L,    floor in [0, 1],

so that a network of small lam_k goes on learning from attacks on itself: one that is not attacked
loses its robustness, and the game then takes its weight away for good. With floor = 0 it is the
mixture of lam itself, with floor = 1 the uniform one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.networks import Networks


class Attackers:
    """The adversary of the mixture, and those of the networks alone.

    Parameters
    ----------
    config : TrainConfig
        What to do.
    networks : Networks
        Those under attack.
    largest_label : int
        The largest of all batches.
    given : Attack, optional
        What images are trained on, in place of PGD.

    Attributes
    ----------
    mixture : Adversary
        Attacks the mixture, with the floor under its weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        networks: Networks,
        largest_label: int,
        given: Attack | None = None,
    ) -> None:
        self._config = config
        self._networks = networks
        self._largest_label = largest_label
        self._given = given
        self.mixture = self._adversary(self._floored())
        self._alone: dict[int, Adversary] = {}

    def refresh(self) -> None:
        """Read the mixture's weights again; to be called when they have changed."""
        self.mixture.refresh(self._floored())

    def alone(self, k: int) -> Adversary:
        """Return the adversary of network k."""
        if k not in self._alone:
            self._alone[k] = self._adversary(torch.eye(len(self._networks)).double()[k])
        return self._alone[k]

    def attacked(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the images (B, C, H, W) that an attack on the mixture finds, and errors (B,)."""
        return self.mixture(x, y, generator)

    def _floored(self) -> Tensor:
        floor, weights = self._config.weights.floor, self._networks.mixture.weights
        return (1 - floor) * weights + floor / len(weights)

    def _adversary(self, weights: Tensor) -> Adversary:
        return Adversary(
            self._networks.mixture,
            self._config.attack,
            trades=self._config.loss.name == "trades",
            largest_label=self._largest_label,
            autocast=self._config.run.autocast,
            weights=weights,
            given=self._given,
        )
