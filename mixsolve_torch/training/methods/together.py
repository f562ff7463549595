"""Adversarial training of all networks on one attacked batch.

    for t = 1, ..., T:   B_t a batch
        B'_t  <-  an attack of B_t on the mixture
        theta_k  <-  a step of SGD on B'_t,    k = 1, ..., L

With S steps of PGD on L networks that is L S passes for the attack and L for the descent: L (S + 1)
for a step of every network, where Algorithm 2 takes L (L S + 1). Networks differ by their initial
weights, and by images of their own if `attack.own_share` is positive. T counts `epochs` passes
over the data.

With `weights.update`, one step in T_theta + 1 updates the weights on its batch instead, as in
Algorithm 2.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.3.
"""

from __future__ import annotations

import torch

from mixsolve_torch.training.methods.base import Batch, Method


class Together(Method):
    """Every network learns from every batch."""

    @staticmethod
    def passes(count: int) -> int:
        """Return 1: each step trains all networks."""
        return 1

    def step(self, batch: Batch) -> None:
        """Train all networks on one attack, or update the weights."""
        parts = self.parts
        if parts.updates(batch.t, parts.config.weights.t_theta):
            parts.game.update(batch.x, batch.y)
            return
        trained = range(len(parts.networks))
        attacked, errors = parts.attackers.attacked(trained, batch.x, batch.y, parts.own)
        losses = [
            parts.networks.descend(k, batch.x, points, batch.y, batch.learning_rate)
            for k, points in zip(trained, attacked, strict=True)
        ]
        parts.networks.note(torch.stack(losses).mean(), errors)
