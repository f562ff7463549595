"""Algorithm 2 of the article: each step trains one network, drawn at random.

    for t = 1, ..., T:   B_t a batch
        if t mod (T_theta L + 1) != 0:
            k drawn uniformly;  B'_t an attack of B_t on the mixture (lam, theta)
            theta_k  <-  a step of SGD on B'_t
        else:
            lam  <-  the game on B_t, with the attacks found for it, solved or approached

T counts passes over the data: L times the epochs per model. A step trains one model, so each gets
about `epochs` passes, and the learning rate of all follows t / T. With S steps of PGD a step of
every network takes L (L S + 1) passes. With L = 1 there are no weights, and every step trains.

The article attacks the mixture of lam itself, `weights.floor = 0`.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.3.
"""

from __future__ import annotations

import torch

from mixsolve_torch.training.methods.base import Batch, Method


class Algorithm2(Method):
    """One network learns from a batch, or the weights do."""

    @staticmethod
    def passes(count: int) -> int:
        """Return L: each step trains one of the networks."""
        return count

    def step(self, batch: Batch) -> None:
        """Train a network that is drawn, or update the weights."""
        parts, count = self.parts, len(self.parts.networks)
        if parts.updates(batch.t, parts.config.weights.t_theta * count):
            parts.game.update(batch.x, batch.y)
            return
        k = int(torch.randint(count, (), generator=parts.shared))
        (attacked,), errors = parts.attackers.attacked([k], batch.x, batch.y, parts.own)
        loss = parts.networks.descend(k, batch.x, attacked, batch.y, batch.learning_rate)
        parts.networks.note(loss, errors)
