"""Who is attacked in training: the mixture in which no network is forgotten, and each one alone.

The attacked mixture has the weights

    (1 - floor) lam + floor / L,    floor in [0, 1],

so that a network of small lam_k goes on learning from attacks on itself: one that is not attacked
loses its robustness, and the game then takes its weight away for good. With floor = 0 it is the
mixture of lam itself, with floor = 1 the uniform one.

Of each batch, the share `attack.own_share` is attacked for the networks alone, each with points of
its own, and the rest for the mixture: with S steps that takes L S passes in all for L networks,
whatever the share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.core.ensemble import Ensemble
from mixsolve_torch.core.losses import LossFunction
from mixsolve_torch.core.mixture import Mixture
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
        self._all: list[Adversary] = []
        self.mixture = self.on(self._floored())
        self._alone: dict[int, Adversary] = {}

    def refresh(self) -> None:
        """Read the mixture's weights again; to be called when they have changed."""
        self.mixture.refresh(self._floored())

    def alone(self, k: int) -> Adversary:
        """Return the adversary of network k."""
        if k not in self._alone:
            self._alone[k] = self.on(torch.eye(len(self._networks)).double()[k])
        return self._alone[k]

    def on(self, weights: Tensor, attack: Attack | None = None) -> Adversary:
        """Return a new adversary of the mixture of these weights (L,).

        It makes the attack that the run was given, or else `attack`, or else PGD.
        """
        self._all.append(
            Adversary(
                self._networks.mixture,
                self._config.attack,
                trades=self._config.loss.name == "trades",
                largest_label=self._largest_label,
                autocast=self._config.run.half,
                weights=weights,
                given=attack if self._given is None else self._given,
                runs=self._networks.runs,
            )
        )
        return self._all[-1]

    def on_mean(self, networks: Sequence[int], loss: LossFunction) -> Adversary:
        """Return a new adversary of the deterministic ensemble that has the mean of the logits.

        Parameters
        ----------
        networks : sequence of int
            Those in the ensemble.
        loss : callable
            The loss of its logits that PGD ascends; an attack that the run was given is made
            instead.
        """
        ensemble = Ensemble([self._networks.runs[k] for k in networks], "mean of logits")
        self._all.append(
            Adversary(
                Mixture([ensemble]),
                self._config.attack,
                trades=False,
                largest_label=self._largest_label,
                autocast=self._config.run.half,
                given=self._given,
                loss=loss,
            )
        )
        return self._all[-1]

    def attacked(
        self,
        trained: Sequence[int],
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
        mixture: Callable[..., tuple[Tensor, Tensor]] | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Attack a batch for the networks that are to be trained on it.

        Parameters
        ----------
        trained : sequence of int
            The networks.
        x, y : torch.Tensor of shape (B, C, H, W), (B,)
            Images and labels.
        generator : torch.Generator
            Source of the starts.
        mixture : callable, optional
            Attacks what is attacked besides the networks alone, called as an `Adversary` is;
            that of the mixture by default.

        Returns
        -------
        attacked : list of torch.Tensor of shape (B, C, H, W)
            For each of these networks the images to train it on.
        errors : torch.Tensor of shape (B',)
            Expected 0/1 losses of the mixture on the images attacked for it; where there are none,
            of the networks on their own.
        """
        mixture = self.mixture if mixture is None else mixture
        first = len(x) - round(self._config.attack.own_share * len(x))
        if first == len(x):
            points, errors = mixture(x, y, generator)
            return [points] * len(trained), errors
        own = [self.alone(k)(x[first:], y[first:], generator) for k in trained]
        if not first:
            return [points for points, _ in own], torch.cat([errors for _, errors in own])
        shared, errors = mixture(x[:first], y[:first], generator)
        return [torch.cat([shared, points]) for points, _ in own], errors

    def check(self) -> None:
        """Refuse logits of a classifier that diverged, and warn of gradients that vanished."""
        for adversary in self._all:
            adversary.check()

    def _floored(self) -> Tensor:
        floor, weights = self._config.weights.floor, self._networks.mixture.weights
        return (1 - floor) * weights + floor / len(weights)
