"""Random draws that are a function of a seed and a counter, for each row of a batch on its own.

Draw n of seed s is mix(s + (n + 1) g) with g = 0x9E3779B97F4A7C15 and mix the finaliser of
SplitMix64, in integers modulo 2^64. No state is kept: a row draws the same numbers whatever the
other rows, their order, or the device.

References
----------
Steele, Lea, Flood. Fast splittable pseudorandom number generators. OOPSLA 2014.
Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)

# Draws of one step; each step has a range of the counter of its own.
_PER_STEP = 2**20

# The first draws of a step are made at once.
_AHEAD = 8


def seeds_of(values: Tensor) -> Tensor:
    """Return one seed (B,), int64, for each row of floating values (B, ...), from all its bits."""
    bits = values.flatten(1).to(torch.float64).view(torch.int64)
    places = torch.arange(bits.shape[1], device=bits.device)
    return _mix((_mix(bits) * (2 * _mix(places) + 1)).sum(dim=1))


class Draws:
    """The draws of one step for int64 seeds (B,), one for each row; each step has its own."""

    def __init__(self, seeds: Tensor, step: int, ahead: Tensor | None = None) -> None:
        self._seeds = seeds[:, None]
        self._first = step * _PER_STEP
        self._drawn = 0
        self._ahead = self._made(0, _AHEAD) if ahead is None else ahead

    @classmethod
    def of(cls, seeds: Tensor, steps: range) -> list[Draws]:
        """Return the draws of several steps, whose first ones are made together."""
        begins = torch.arange(steps.start, steps.stop, device=seeds.device) * _PER_STEP
        numbers = begins[:, None, None] + torch.arange(_AHEAD, device=seeds.device)
        ahead = _uniform(seeds[:, None], numbers)
        return [cls(seeds, step, own) for step, own in zip(steps, ahead.unbind(), strict=True)]

    def uniform(self, count: int) -> Tensor:
        """Return `count` draws (B, count), float64, uniform in [0, 1)."""
        begin, self._drawn = self._drawn, self._drawn + count
        if self._drawn <= _AHEAD:
            return self._ahead[:, begin : self._drawn]
        return self._made(begin, self._drawn)

    def _made(self, begin: int, end: int) -> Tensor:
        numbers = torch.arange(self._first + begin, self._first + end, device=self._seeds.device)
        return _uniform(self._seeds, numbers)

    def integers(self, below: int) -> Tensor:
        """Return one draw (B,), int64, uniform in 0 ... below - 1."""
        return (self.uniform(1)[:, 0] * below).long()

    def signs(self, count: int) -> Tensor:
        """Return `count` draws (B, count), float64, of -1 and 1."""
        return 1.0 - 2.0 * (self.uniform(count) < 0.5)


def _uniform(seeds: Tensor, numbers: Tensor) -> Tensor:
    """Return the draws of these numbers, float64 in [0, 1)."""
    return _shifted(_mix(seeds + (numbers + 1) * _STEP), 11).to(torch.float64) * 2.0**-53


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Return bits shifted to the right, with zeros from the left."""
    return (bits >> by) & (2 ** (64 - by) - 1)
