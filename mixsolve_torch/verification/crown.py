"""Linear lower bounds of a classifier over a region: interval bounds and CROWN.

With l <= z <= u the bounds of a pre-activation and l < 0 < u,

    alpha z  <=  max(z, 0)  <=  u (z - l) / (u - l),      0 <= alpha <= 1.

From the rows A of <A, h_i> the steps are walked backwards: an affine step replaces A by A W and
adds <A, b>; a ReLU takes the lower line where A > 0 and the upper one where A < 0. At the images
stand a and b with <A, h_i> >= <a, x'> + b in the region. alpha = 1 where u > -l and 0 else;
optimised, the bound is ascended over alpha for each row alone (alpha-CROWN). The bounds l and u of
a ReLU that intervals leave unstable come from the same walk.

Rounding. An affine step may be off by e = slack (|W| max|h| + |b|) in each entry, see `program`.
So each of them subtracts <|A|, e> from the bound, which then holds for the classifier as it runs in
its own precision, and for the arithmetic of the walk.

References
----------
Zhang, Weng, Chen, Hsieh, Daniel. Efficient Neural Network Robustness Certification with General
Activation Functions. NeurIPS 2018.
Xu, Shi, Zhang, Wang, Chang, Huang, Kailkhura, Lin, Hsieh. Automatic Perturbation Analysis for
Scalable Certified Robustness and Beyond. NeurIPS 2020.
Xu, Zhang, Wang, Wang, Jana, Lin, Hsieh. Fast and Complete: Enabling Complete Neural Network
Verification with Rapid and Massively Parallel Incomplete Verifiers. ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mixsolve_torch.verification.program import Program
from mixsolve_torch.verification.region import Region

_ENTRIES = 1 << 21  # of rows at a step that are walked at once
_RATE = 0.25  # of the ascent over alpha, as a share of its range


class Lines(NamedTuple):
    """Linear lower bounds <a, x'> + b, and their minima over the region.

    Attributes
    ----------
    slopes : torch.Tensor of shape (R, D), float64
    offsets, minima : torch.Tensor of shape (R,), float64
    """

    slopes: Tensor
    offsets: Tensor
    minima: Tensor


@dataclass(frozen=True)
class Bounds:
    """What is known of a program over the B sets of a region.

    Attributes
    ----------
    program, region
        What is bounded, and where.
    low, high : dict of int to torch.Tensor of shape (B, ...)
        Bounds of the pre-activation of each ReLU, by its step.
    logits_low, logits_high : torch.Tensor of shape (B, classes)
        Interval bounds of the logits.
    rounding : dict of int to torch.Tensor of shape (B, ...)
        The rounding e of each affine step.
    """

    program: Program
    region: Region
    low: dict[int, Tensor]
    high: dict[int, Tensor]
    logits_low: Tensor
    logits_high: Tensor
    rounding: dict[int, Tensor]

    @property
    def home(self) -> torch.device:
        """The device of the tensors."""
        return self.logits_low.device

    def select(self, sets: Tensor) -> Bounds:
        """Return copies of the bounds of some sets (int64)."""
        region = self.region.select(sets)
        parts = (self.low, self.high, self.rounding)
        low, high, rounding = ({i: own[sets] for i, own in part.items()} for part in parts)
        ends = self.logits_low[sets], self.logits_high[sets]
        return Bounds(self.program, region, low, high, *ends, rounding)

    def costs(self, i: int, rows: Tensor) -> Tensor:
        """Return how much the lines of a ReLU cost at most, of rows A there, one a set."""
        low, high = self.low[i], self.high[i]
        unstable = (low < 0) & (high > 0)
        above = torch.where(unstable, -low * high / (high - low), 0)
        below = torch.where(unstable, torch.minimum(-low, high), 0)
        return torch.where(rows < 0, -rows * above, rows * below)

    def lines(
        self,
        at: int,
        rows: Tensor,
        owner: Tensor,
        *,
        steps: int = 0,
        seen: dict[int, Tensor] | None = None,
    ) -> Lines:
        """Return lower bounds of <A, h_at> for rows A (R, ...), in the sets `owner` (R,).

        With `steps`, those that are not positive are improved by so many steps of ascent. `seen`
        gets the rows at each ReLU.
        """
        widest = max(math.prod(step.shape) for step in self.program.steps)
        most = max(1, _ENTRIES // widest) if seen is None else max(1, len(rows))
        parts = []
        for some, own in zip(rows.split(most), owner.split(most), strict=True):
            with torch.no_grad():
                slopes, offsets = self._walked(at, some, own, seen=seen)
                found = Lines(slopes, offsets, self.region.minimum(slopes, own)[0] + offsets)
            parts.append(self._ascended(at, some, own, found, steps) if steps else found)
        return Lines(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _walked(
        self,
        at: int,
        rows: Tensor,
        owner: Tensor,
        chosen: Mapping[int, Tensor] | None = None,
        seen: dict[int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return slopes (R, D) and offsets (R,) of one walk; `chosen` has each row's alpha."""
        program, sums = self.program, {at: rows}
        offsets = rows.new_zeros(len(rows), dtype=torch.float64)
        for i in range(at, 0, -1):
            if i not in sums:
                continue
            own, step = sums.pop(i), program.steps[i]
            if step.is_relu:
                if seen is not None:
                    seen[i] = own
                alpha = None if chosen is None else chosen[i]
                lower, upper, lift = self._relaxation(i, owner, alpha)
                negative = own.clamp(max=0)
                offsets = offsets + _dot(negative, lift)
                before: tuple[Tensor, ...] = (own.clamp(min=0) * lower + negative * upper,)
            else:
                offset = program.offsets[i]
                assert offset is not None
                offsets = offsets + _dot(own, offset)
                if i in self.rounding:
                    offsets = offsets - _dot(own.abs(), self.rounding[i][owner])
                before = program.transposed(step, own)
            for j, part in zip(step.inputs, before, strict=True):
                sums[j] = sums[j] + part if j in sums else part
        if 0 not in sums:
            return self.region.center.new_zeros(len(rows), self.region.center.shape[1]), offsets
        return sums[0].flatten(1).double(), offsets

    def _relaxation(
        self, i: int, owner: Tensor, alpha: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the slopes of the lower and the upper line of a ReLU, and the upper offset."""
        low, high = self.low[i], self.high[i]
        unstable, active = (low < 0) & (high > 0), (low >= 0).to(low.dtype)
        upper = torch.where(unstable, high / (high - low), active)
        lift = torch.where(unstable, -low * upper, 0)
        if alpha is None:
            lower = torch.where(unstable, (high > -low).to(low.dtype), active)[owner]
        else:
            lower = torch.where(unstable[owner], alpha, active[owner])
        return lower, upper[owner], lift[owner]

    def _ascended(self, at: int, rows: Tensor, owner: Tensor, found: Lines, steps: int) -> Lines:
        """Return the best lines over alpha, by Adam with a falling rate."""
        todo = (found.minima <= 0).nonzero()[:, 0]
        relus = [i for i in self.low if i < at]
        if not relus or not len(todo):
            return found
        rows, owner = rows[todo], owner[todo]
        best = [part[todo] for part in found]
        alphas = {i: (self.high[i] > -self.low[i]).to(rows.dtype)[owner] for i in relus}
        means = {i: torch.zeros_like(a) for i, a in alphas.items()}
        squares = {i: torch.zeros_like(a) for i, a in alphas.items()}
        for t in range(1, steps + 1):
            given = {i: a.requires_grad_() for i, a in alphas.items()}
            slopes, offsets = self._walked(at, rows, owner, given)
            minima = self.region.minimum(slopes, owner)[0] + offsets
            gradients = torch.autograd.grad(minima.sum(), list(given.values()), allow_unused=True)
            with torch.no_grad():
                better = minima > best[2]
                for k, part in enumerate((slopes, offsets, minima)):
                    best[k][better] = part[better]
                for i, g in zip(relus, gradients, strict=True):
                    g = torch.zeros_like(alphas[i]) if g is None else g
                    means[i].mul_(0.9).add_(g, alpha=0.1)
                    squares[i].mul_(0.99).addcmul_(g, g, value=0.01)
                    rate = _RATE * (1 - (t - 1) / steps) / (1 - 0.9**t)
                    size = (squares[i] / (1 - 0.99**t)).sqrt().clamp(min=1e-30)
                    alphas[i] = (given[i] + rate * means[i] / size).clamp(0, 1).detach()
        for part, own in zip(found, best, strict=True):
            part[todo] = own
        return found


@torch.no_grad()
def bounds_over(program: Program, region: Region) -> Bounds:
    """Return the bounds of a program: intervals, and CROWN for the ReLUs they leave unstable."""
    first, dtype = program.steps[0].shape, program.dtype
    low = {0: region.low.view(-1, *first).to(dtype)}
    high = {0: region.high.view(-1, *first).to(dtype)}
    known = Bounds(program, region, {}, {}, low[0], high[0], {})
    for i, step in enumerate(program.steps[1:], 1):
        if step.call is None:
            (j,) = step.inputs
            known.low[i], known.high[i] = _refined(known, j, low[j], high[j])
            low[i], high[i] = known.low[i].clamp(min=0), known.high[i].clamp(min=0)
            continue
        assert step.absolute is not None
        pairs = [(low[j], high[j]) for j in step.inputs]
        radii = step.absolute(*((top - base) / 2 for base, top in pairs))
        radii = radii - step.absolute(*(torch.zeros_like(base) for base, _ in pairs))
        if step.slack:
            most = step.absolute(*(torch.maximum(base.abs(), top.abs()) for base, top in pairs))
            known.rounding[i] = step.slack * most
            radii = radii + known.rounding[i]
        middle = step.call(*((base + top) / 2 for base, top in pairs))
        low[i], high[i] = middle - radii, middle + radii
    last = len(program.steps) - 1
    return Bounds(program, region, known.low, known.high, low[last], high[last], known.rounding)


def _refined(known: Bounds, at: int, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bounds of a step after CROWN on its entries that may have either sign."""
    low, high = low.clone(), high.clone()
    owner, place = ((low < 0) & (high > 0)).flatten(1).nonzero(as_tuple=True)
    if not len(owner):
        return low, high
    rows = low.new_zeros(len(owner), low[0].numel())
    rows[torch.arange(len(owner), device=rows.device), place] = 1
    rows = rows.view(-1, *low.shape[1:])
    flat = low.view(len(low), -1), high.view(len(high), -1)
    below = known.lines(at, rows, owner).minima.to(low.dtype)
    above = -known.lines(at, -rows, owner).minima.to(low.dtype)
    flat[0][owner, place] = torch.maximum(flat[0][owner, place], below)
    flat[1][owner, place] = torch.minimum(flat[1][owner, place], above)
    return low, high


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the products (R,) of rows, summed in float64."""
    return (a * b).flatten(1).sum(dim=1, dtype=torch.float64)
