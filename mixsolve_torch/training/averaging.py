"""An exponential moving average of a network over its training.

    average_n = d_n average_{n-1} + (1 - d_n) network_n,     d_n = min(decay, n / (9 + n))

for parameters and for the statistics of batch norms. The average forgets quickly while it is young:
with a constant decay of 0.999, a third of it would still be the initial weights after 1000 steps.
`torch.optim.swa_utils.AveragedModel` has a constant decay, and synchronises the host with the
accelerator in every update.

References
----------
Izmailov, Podoprikhin, Garipov, Vetrov, Wilson. Averaging Weights Leads to Wider Optima and Better
Generalization. UAI 2018.
TensorFlow. ``tf.train.ExponentialMovingAverage``, ``num_updates``: the decay of a young average.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import nn

from mixsolve.base.arguments import as_real


class MovingAverage:
    """The average of one network.

    Parameters
    ----------
    model : torch.nn.Module
        The network; it is copied.
    decay : float
        Weight of the average in an update, in [0, 1), after many updates.

    Attributes
    ----------
    module : torch.nn.Module
        The averaged network, in eval mode and without gradients.
    updates : int
        Updates made.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = as_real("decay", decay, at_least=0, below=1)
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average in the present parameters of the network."""
        self.updates += 1
        decay = min(self._decay, self.updates / (9 + self.updates))
        averages, values = [], []
        for average, value in zip(
            chain(self.module.parameters(), self.module.buffers()),
            chain(model.parameters(), model.buffers()),
            strict=True,
        ):
            if average.is_floating_point():
                averages.append(average)
                values.append(value.detach())
            else:
                average.copy_(value)  # a count has no average
        if averages:
            torch._foreach_lerp_(averages, values, 1 - decay)

    def restart(self, model: nn.Module) -> None:
        """Forget the past of the average, and begin with the network as it is."""
        self.updates = 0
        self.module.load_state_dict(model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of updates, as tensors and plain values."""
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.updates = state["updates"]
        self.module.load_state_dict(state["module"])
