"""MRBoost: each new network makes the margins of the ensemble of all so far as large as it can.

An ensemble of networks f_1, ..., f_k, here of equal weight, decides by the mean of their logits

    h_k(x)  =  1/k sum_{j <= k} f_j(x),

and its margin is h_k(x)_y - max_{c != y} h_k(x)_c. The MCE loss (`training.member_loss`) acts on
both sides of it. In stage k, with theta_1, ..., theta_{k-1} fixed:

    J_t    the earlier networks, or `mrboost.sampled` of them drawn at random
    h      the mean of the logits of f_j, j in J_t, and f_k
    B'_t  <-  an attack of B_t that ascends MCE(h)
    theta_k  <-  a step of SGD on   MCE(f_k) on B'_t   ("own")   or   MCE(h) on B'_t   ("ensemble")

The new network is trained where the ensemble is weakest, in the first case to be right there by
itself. A step takes (|J_t| + 1) S + 1 passes, and |J_t| more for "ensemble".

This is training for a deterministic ensemble. The networks come out as a mixture all the same: its
weights are solved at the end, and `evaluate` measures both. The article's analysis draws
perturbations with exponential weights of the margins so far; the attack on the ensemble stands for
these draws, as in its experiments. Choices of this project: equal weights in the ensemble, uniform
draws of J_t, and cross-entropy for the images that `attack.own_share` keeps for the new network.

References
----------
Zhang, Zhang, Courville, Bengio, Ravikumar, Suggala. Building Robust Ensembles via Margin Boosting.
ICML 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.member_loss import margin_cross_entropy
from mixsolve_torch.training.methods.base import Batch, Parts
from mixsolve_torch.training.methods.staged import Staged


class MRBoost(Staged):
    """The network of the stage learns from attacks on the ensemble with those before it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._adversaries: dict[tuple[int, ...], Adversary] = {}

    def learn(self, k: int, batch: Batch) -> None:
        """Train network k on an attack on the ensemble of drawn networks and itself."""
        parts = self.parts
        earlier = self._drawn(k)
        adversary = self._against((*earlier, k))
        (attacked,), errors = parts.attackers.attacked([k], batch.x, batch.y, parts.own, adversary)
        whole = parts.config.mrboost.learns == "ensemble"
        others = self._sum(earlier, attacked) if whole and earlier else None

        def loss(forward: Any) -> Tensor:
            logits = forward(attacked)
            if others is not None:
                logits = (others + logits) / (len(earlier) + 1)
            return margin_cross_entropy(logits, batch.y).mean()

        parts.networks.note(parts.networks.minimize(k, loss, batch.learning_rate), errors)

    def _drawn(self, k: int) -> tuple[int, ...]:
        """Return the networks before network k, or as many of them as are to be drawn."""
        count = self.parts.config.mrboost.sampled
        if count is None or count >= k:
            return tuple(range(k))
        drawn = torch.randperm(k, generator=self.parts.shared)[:count]
        return tuple(sorted(drawn.tolist()))

    def _against(self, networks: tuple[int, ...]) -> Adversary:
        """Return the adversary of the ensemble of some networks."""
        if networks not in self._adversaries:
            adversary = self.parts.attackers.on_mean(networks, margin_cross_entropy)
            self._adversaries[networks] = adversary
        return self._adversaries[networks]

    def _sum(self, networks: tuple[int, ...], x: Tensor) -> Tensor:
        """Return the sum of the logits (B, classes) of some networks that are fixed."""
        mixture = Mixture([self.parts.networks.mixture.models[j] for j in networks])
        half = self.parts.config.run.half
        with (
            frozen(mixture),
            torch.no_grad(),
            torch.autocast(x.device.type, dtype=half, enabled=half is not None),
        ):
            return mixture.member_logits(x).sum(dim=0)
