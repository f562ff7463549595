"""A random classifier as a graph: what it draws is a function of a seed that comes with the images.

Graphs of `torch.export` and ONNX have no state and no source of randomness that an attacker cannot
foresee, so that whoever serves them gives a fresh seed with each call, from the operating system.
Draw n of a seed is the n-th of `mixsolve_torch.core.served` for the same seed, by Philox4x32-10 on
int64. (ONNX divides integers in float32, so that words are taken apart by shifts.)

References
----------
Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve_torch.core.served import philox


def uniform(seed: Tensor, counts: Tensor) -> Tensor:
    """Return the draws of these numbers, from 1 on, for a seed >= 0: float64 in [0, 1)."""
    word, none = 0xFFFFFFFF, torch.zeros_like(counts)
    # The words of int64 tensors follow the same operations as those of numbers.
    key: Any = (seed & word, seed >> 32)
    counter: Any = (counts & word, counts >> 32, none, none)
    first, second, _, _ = philox(key, counter)
    bits: Any = ((first >> 5) << 26) | (second >> 6)
    return bits.to(torch.float64) / float(1 << 53)


class Expected(nn.Module):
    """The log of the expected class probabilities, all classifiers run.

    Parameters
    ----------
    networks : sequence of torch.nn.Module
        The classifiers of positive weight.
    weights : sequence of float
        Their probabilities.
    """

    log_weights: Tensor

    def __init__(self, networks: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("log_weights", torch.tensor(weights, dtype=torch.float64).log())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``log sum_k lam_k softmax(f_k(x))``."""
        outputs = torch.stack([network(x).log_softmax(dim=-1) for network in self.networks])
        shift = self.log_weights.to(outputs.dtype)[:, None, None]
        return torch.logsumexp(outputs + shift, dim=0)


class Drawn(nn.Module):
    """The logits of a classifier that is drawn for the call, the only one that is run.

    Parameters
    ----------
    networks, weights
        As in `Expected`.
    """

    below: Tensor

    def __init__(self, networks: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        # Added up as the file of TorchScript does it, so that both draw the same to the last bit.
        sums, total = [], 0.0
        for weight in weights[:-1]:
            total += weight
            sums.append(total)
        self.register_buffer("below", torch.tensor(sums, dtype=torch.float64))

    def forward(self, x: Tensor, seed: Tensor) -> Tensor:
        """Return logits (B, classes) for images and a seed, int64 of shape (1,) from 0 on."""
        drawn = self.draw(seed, torch.ones_like(seed))
        return self._run(0, drawn, x)

    def draw(self, seed: Tensor, counts: Tensor) -> Tensor:
        """Return the places, among the networks, that these draws of a seed give."""
        u = uniform(seed, counts)
        return (u[:, None] >= self.below[None, :]).to(torch.int64).sum(dim=1)

    def _run(self, k: int, drawn: Tensor, x: Tensor) -> Tensor:
        """Return what network `drawn` says, which is k or a later one."""
        if k == len(self.networks) - 1:
            return self.networks[k](x)
        return torch.cond(
            (drawn == k).reshape(()),
            lambda x, drawn: self.networks[k](x),
            lambda x, drawn: self._run(k + 1, drawn, x),
            (x, drawn),
        )


class DrawnEach(Drawn):
    """The logits of a classifier drawn for each image alone; all classifiers are run on all."""

    def forward(self, x: Tensor, seed: Tensor) -> Tensor:
        """Return logits (B, classes) for images and a seed, int64 of shape (1,) from 0 on."""
        counts = torch.arange(1, x.shape[0] + 1, dtype=torch.int64, device=x.device)
        drawn = self.draw(seed, counts)
        outputs = torch.stack([network(x) for network in self.networks], dim=1)
        places = drawn[:, None, None].expand(-1, 1, outputs.shape[2])
        return outputs.gather(1, places).squeeze(1)
