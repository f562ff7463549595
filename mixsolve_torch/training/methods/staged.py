"""Networks that are trained one after another: the stages that such methods share.

    stage k:   theta_k  <-  theta_{k-1}, or random initial weights, or those of `model.pretrained`
               E epochs that train theta_k, with a schedule of the learning rate of their own
               theta_1, ..., theta_{k-1} are fixed

The first `boosting.fixed` networks, which `model.pretrained` gives, have no stage. Until stage k
ends, the mixture is one of the first k networks, uniform unless a method says otherwise: it is
measured, and the most robust epoch of the last stage is kept. All weights are solved at the end, by
the game on held-out images.

When a stage ends, its network is put back to the most robust epoch of the stage, if one was
measured. With moving averages, the average takes the network's place, so that those that come after
it meet what is deployed.
"""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor

from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.methods.base import Batch, Method, Parts


class Staged(Method):
    """Base class of methods that add one network after another.

    Attributes
    ----------
    fixed : int
        How many networks, the first ones, are not trained.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.fixed = parts.config.boosting.fixed
        self._per_stage = parts.steps // self.stages(parts.config)

    @staticmethod
    def stages(config: TrainConfig) -> int:
        """Return the number of networks that are trained."""
        return config.model.count - config.boosting.fixed

    @staticmethod
    def passes(count: int) -> int:
        """Return 1: an epoch is a pass over the data for the network of the stage."""
        return 1

    def progress(self, t: int) -> float:
        """Return the share of the stage that is done after t steps."""
        return t % self._per_stage / self._per_stage

    def begun(self, t: int) -> int:
        """Return the number of networks up to that of the stage of step t."""
        return self.learner(max(t, 1)) + 1

    def ended(self, t: int) -> int | None:
        """Return the network whose stage ends with step t, if another stage follows."""
        between = t % self._per_stage == 0 and 0 < t < self.parts.steps
        return self.learner(t) if between else None

    def unfinished(self, t: int) -> set[int]:
        """Return the network of the stage, until it ends."""
        return {self.learner(t)} if t % self._per_stage else set()

    def learner(self, t: int) -> int:
        """Return the network that step t trains."""
        return self.fixed + (t - 1) // self._per_stage

    def step(self, batch: Batch) -> None:
        """Train the network of the stage."""
        k = self.learner(batch.t)
        if (batch.t - 1) % self._per_stage == 0:
            self._begin(k)
        self.learn(k, batch)

    def state(self) -> dict[str, Any]:
        """Return how many networks were given."""
        return {"given": self.given}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self.given = state["given"]

    @abc.abstractmethod
    def learn(self, k: int, batch: Batch) -> None:
        """Train network k on a batch, beside those before it."""

    def weights(self, k: int) -> Tensor:
        """Return the weights (L,) that the mixture has when the stage of network k begins."""
        return self.uniform(k)

    def uniform(self, k: int) -> Tensor:
        """Return the weights (L,), float64, of the uniform mixture of the networks up to k."""
        weights = torch.zeros(len(self.parts.networks), dtype=torch.float64)
        weights[: k + 1] = 1 / (k + 1)
        return weights

    def _begin(self, k: int) -> None:
        """Fix the network before network k, and begin this one."""
        networks = self.parts.networks
        if k > self.fixed:
            networks.finish(k - 1)
        if k >= max(self.given, 1) and self.parts.config.boosting.start == "previous":
            networks.start(k, networks.mixture.models[k - 1].state_dict())
        networks.mixture.set_weights(self.weights(k))
