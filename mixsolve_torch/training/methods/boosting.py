"""BARRE: each new network learns from attacks on the random ensemble of those before it and itself.

    for k = 1, ..., L:
        theta_k  <-  theta_{k-1}
        for t = 1, ..., T / L:   B_t a batch
            B'_t  <-  an attack of B_t on the uniform mixture of f_1, ..., f_k
            theta_k  <-  a step of SGD on B'_t

The new network learns to be right where the attacker goes who plays against all of them. With S
steps of PGD, a step in stage k takes k S + 1 passes; over all stages that is (L + 1) / 2 times as
much for the attack as L networks apart would take.

In the article the weights are optimised in the course of a stage, by projected subgradients on a
part of the training images under ARC. Here they are uniform until the end, where the game on
held-out images gives the optimal ones. Another choice of this project: the attack is PGD on the
expected loss, or with `boosting.attack = "arc"` the ARC attack.

References
----------
Dbouk, Shanbhag. On the Robustness of Randomized Ensembles to Adversarial Perturbations. ICML 2023.
"""

from __future__ import annotations

from typing import Any

import torch

from mixsolve_torch.attacks import ARC, Attack
from mixsolve_torch.attacks.exhaustive import in_each
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.methods.base import Batch, Parts
from mixsolve_torch.training.methods.staged import Staged


class Boosting(Staged):
    """The network of the stage learns from attacks on those up to it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._adversaries: dict[int, Adversary] = {}

    def learn(self, k: int, batch: Batch) -> None:
        """Train network k on an attack on the mixture up to it."""
        parts = self.parts
        if k not in self._adversaries:
            arc = parts.config.boosting.attack == "arc"
            attack = _arc(parts.config) if arc else None
            self._adversaries = {k: parts.attackers.on(self.uniform(k), attack)}
        (attacked,), errors = parts.attackers.attacked(
            [k], batch.x, batch.y, parts.own, self._adversaries[k]
        )
        loss = parts.networks.descend(k, batch.x, attacked, batch.y, batch.learning_rate)
        parts.networks.note(loss, errors)


def _arc(config: TrainConfig) -> Attack:
    """Return ARC in each ball of a configuration, and all points of finite sets."""
    options: dict[str, Any] = {
        "steps": config.attack.steps,
        "autocast": config.run.half is torch.bfloat16,
    }
    return in_each(config.attack.sets, lambda ball: ARC(ball.norm, ball.eps, **options))
