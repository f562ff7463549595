"""Branch and bound on ReLUs: whether classifiers can err together at one point, decided.

A branch fixes the signs of some pre-activations z. In it, the margins are at most 0, and so is -z
where z >= 0 was fixed and z where z <= 0 was. Linear lower bounds of all these functions together
exclude the branch as in `sets`: the multipliers of the fixed signs are the beta of beta-CROWN. A
branch that stays is split at the ReLU whose relaxation costs most. With all signs fixed the bounds
are the functions themselves, so that the search ends; a point found on the way at which the
classifiers do err ends it at once.

References
----------
Bunel, Lu, Turkaslan, Torr, Kohli, Kumar. Branch and Bound for Piecewise Linear Neural Network
Verification. JMLR 2020.
Wang, Zhang, Xu, Lin, Jana, Hsieh, Kolter. Beta-CROWN: Efficient Bound Propagation with Per-neuron
Split Constraints for Neural Network Robustness Verification. NeurIPS 2021.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mixsolve_torch.verification.crown import Bounds
from mixsolve_torch.verification.sets import joint_minima

_BRANCHES = 32  # bounded at once


@dataclass(frozen=True)
class Split:
    """A fixed sign: z >= 0 or z <= 0 of one entry of one ReLU of one classifier."""

    member: int
    relu: int
    place: int
    positive: bool


Branch = tuple[Split, ...]


def excluded(
    bounds: Mapping[int, Bounds],
    margins: Mapping[int, Tensor],
    fooled: Callable[[Tensor], bool],
    deadline: float,
) -> bool:
    """Return whether some margins are proven never to be at most 0 together.

    Parameters
    ----------
    bounds : dict of int to Bounds
        Of each classifier, over the region of one image.
    margins : dict of int to torch.Tensor of shape (classes,)
        Of each classifier, the row whose product with its logits is the margin.
    fooled : callable
        Told points (R, D); a true value says that one of them settles the matter.
    deadline : float
        When to give up, by `time.monotonic`.
    """
    open_branches: list[Branch] = [()]
    while open_branches:
        if time.monotonic() > deadline:
            return False
        branches = [open_branches.pop() for _ in range(min(_BRANCHES, len(open_branches)))]
        minima, points, splits = _bounded(bounds, margins, branches)
        left = [n for n, value in enumerate(minima.tolist()) if value <= 0]
        if left and fooled(points[left]):
            return False
        for n in left:
            own = splits[n]
            if own is None:  # all signs are fixed, and rounding is what remains
                return False
            open_branches += [(*branches[n], Split(*own, sign)) for sign in (True, False)]
    return True


def _bounded(
    bounds: Mapping[int, Bounds], margins: Mapping[int, Tensor], branches: list[Branch]
) -> tuple[Tensor, Tensor, list[tuple[int, int, int] | None]]:
    """Return joint bounds (N,) and points (N, D) of branches, and where to split each."""
    count, depth = len(branches), max(map(len, branches))
    home = next(iter(margins.values())).device
    each = torch.arange(count, device=home)
    width = len(margins) + depth
    slopes = offsets = torch.empty(0)
    costs: dict[tuple[int, int], tuple[int, Tensor]] = {}
    for place, (k, margin) in enumerate(margins.items()):
        own = _fixed(bounds[k], k, branches)
        seen: dict[int, Tensor] = {}
        lines = own.lines(len(own.program.steps) - 1, margin.repeat(count, 1), each, seen=seen)
        if place == 0:
            # What a branch has not fixed repeats its first margin, which changes nothing.
            slopes = lines.slopes[:, None].repeat(1, width, 1)
            offsets = lines.offsets[:, None].repeat(1, width)
        slopes[:, place], offsets[:, place] = lines.slopes, lines.offsets
        costs.update({(k, i): (place, own.costs(i, rows)) for i, rows in seen.items()})
        for i in own.low:
            found = [
                (n, len(margins) + d, split)
                for n, branch in enumerate(branches)
                for d, split in enumerate(branch)
                if (split.member, split.relu) == (k, i)
            ]
            if not found:
                continue
            (before,) = own.program.steps[i].inputs
            rows = margin.new_zeros(len(found), own.low[i][0].numel())
            for r, (_, _, split) in enumerate(found):
                rows[r, split.place] = -1 if split.positive else 1
            rows = rows.view(-1, *own.low[i].shape[1:])
            at = torch.tensor([n for n, _, _ in found], device=home)
            column = torch.tensor([c for _, c, _ in found], device=home)
            fixed = own.lines(before, rows, at)
            slopes[at, column], offsets[at, column] = fixed.slopes, fixed.offsets
    region = own.region
    minima, mu, points = joint_minima(region, slopes, offsets, each)
    largest = torch.zeros(count, dtype=torch.float64, device=home)
    chosen: list[tuple[int, int, int] | None] = [None] * count
    for (k, i), (place, cost) in costs.items():
        cost, entry = cost.flatten(1).max(dim=1)
        # A margin that mu leaves out may matter after a split.
        cost = cost.double() * (mu[:, place] + 1e-3)
        for n in (cost > largest).nonzero()[:, 0].tolist():
            chosen[n] = (k, i, int(entry[n]))
        largest = torch.maximum(largest, cost)
    return minima, points, chosen


def _fixed(bounds: Bounds, member: int, branches: list[Branch]) -> Bounds:
    """Return copies of the bounds of one image, one a branch, with its signs fixed."""
    copies = bounds.select(torch.zeros(len(branches), dtype=torch.int64, device=bounds.home))
    for n, branch in enumerate(branches):
        for split in branch:
            if split.member == member:
                side = copies.low if split.positive else copies.high
                side[split.relu][n].view(-1)[split.place] = 0
    return copies
