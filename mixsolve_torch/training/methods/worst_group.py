"""Adversarial training for the worst class: the attacker also chooses whom he strikes.

    min_theta  max_{v in simplex}  sum_g v_g  E_{(x, y) : y = g}  max_{x'} loss( f_theta(x'), y )

With p_g the share of class g among the training images, and v = p at the beginning:

    for t = 1, ..., T:   B_t a batch
        B'_t   <-  an attack of B_t on the network
        theta  <-  a step of SGD on  1/B sum_i  u_{y_i} / p_{y_i}  loss( f_theta(x'_i), y_i ),
                   u = (1 - floor) v + floor p
        e_g    <-  1/B sum_{i : y_i = g} 1[f_theta errs on x'_i] / p_g
        v_g    <-  v_g exp(rate e_g), divided by the sum

which is descent against multiplicative weights (exponentiated gradients): e_g is an unbiased
estimate of the robust error of class g, also for classes that the batch lacks. The errors are those
that the attack saw on its way, so that a step takes S + 1 passes, as without weights. One network
can give up one of two classes that overlap for the other; which one varies from epoch to epoch
with v. Those epochs are the pool that a mixture is made of, see `training.snapshots`.

Choices of this project: the error, which is bounded, moves v, and not the loss; the floor, without
which a class of small weight is forgotten; and classes as groups.

References
----------
Sagawa, Koh, Hashimoto, Liang. Distributionally Robust Neural Networks for Group Shifts. ICLR 2020.
Freund, Schapire. Adaptive Game Playing Using Multiplicative Weights. Games and Economic Behavior,
1999.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixsolve_torch.training.methods.base import Batch, Method, Parts


class WorstGroup(Method):
    """The network learns from attacked images, weighted by class."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        images = parts.images.double()
        self._shares = images / images.sum()
        self._log_weights = self._shares.log()  # of v; -inf where a class has no images

    @staticmethod
    def passes(count: int) -> int:
        """Return 1: each step trains the network."""
        return 1

    @property
    def group_weights(self) -> Tensor:
        """The attacker's distribution v over the classes (G,), float64."""
        return self._log_weights.softmax(dim=0)

    def step(self, batch: Batch) -> None:
        """Train the network on a weighted batch, then move the weights to where it errs."""
        parts, options = self.parts, self.parts.config.worst_group
        (attacked,), errors = parts.attackers.attacked([0], batch.x, batch.y, parts.own)
        u = (1 - options.floor) * self.group_weights + options.floor * self._shares
        share = (u / self._shares)[batch.y].to(batch.x.dtype)
        loss = parts.networks.descend(0, batch.x, attacked, batch.y, batch.learning_rate, share)
        parts.networks.note(loss, errors)
        wrong = torch.zeros_like(self._shares).index_add_(0, batch.y, errors.double())
        rates = parts.ranks.mean(wrong / len(batch.y)) / self._shares
        moved = self._log_weights + options.rate * rates.nan_to_num()  # 0 / 0 without images
        self._log_weights = moved.log_softmax(dim=0)

    def state(self) -> dict[str, Any]:
        """Return the weights of the classes."""
        return {"log_weights": self._log_weights}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self._log_weights = state["log_weights"].to(self._log_weights)
