"""Moves in a box that one number determines: where the threshold lies, by sorting.

An entry p of an image may move by at most its room b_p >= 0 in the direction at hand. Four
problems over the moves 0 <= d_p <= b_p have answers that depend on one threshold, found exactly
among the sorted places where some entry reaches a bound:

    shrink:   min ||d - s||_2^2  s.t.  sum_p d_p <= r         d_p = min(max(s_p - mu, 0), b_p)
    scale:    min ||d - s||_2^2  s.t.  ||d||_2 <= r           d_p = min(c s_p, b_p),  c <= 1
    fill:     max sum_p g_p d_p  s.t.  sum_p d_p <= r         the largest g_p first, each to b_p
    level:    the least c with  sum_p h_p min(c, b_p) >= a    a sum that is concave in c

All take and return one row for each image, non-negative, and count in float64: the sums run over
all entries of an image.

References
----------
Duchi, Shalev-Shwartz, Singer, Chandra. Efficient Projections onto the l1-Ball for Learning in High
Dimensions. ICML 2008.
Croce, Hein. Mind the box: l1-APGD for sparse adversarial attacks on image classifiers. ICML 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shrink(sizes: Tensor, rooms: Tensor, total: float) -> Tensor:
    """Return the nearest moves (B, D) to `sizes` in the rooms, with a sum of at most `total`.

    `sizes` and `rooms` (B, D) are the wanted moves and the largest ones, at least 0. The sums of
    the moves, in float64, exceed `total` by no more than rounding.
    """
    sizes, rooms = sizes.double(), rooms.double()
    entries = sizes.shape[1]
    # As mu falls, an entry begins to grow at its size and stops where its room is used up.
    marks, order = torch.cat([sizes, sizes - rooms], dim=1).sort(dim=1, descending=True)
    growing = torch.where(order < entries, 1, -1).cumsum(dim=1)
    steps = growing[:, :-1] * (marks[:, :-1] - marks[:, 1:])
    sums = torch.nn.functional.pad(steps.cumsum(dim=1), (1, 0))
    last = (sums <= total).sum(dim=1, keepdim=True).clamp(min=1) - 1
    missing = total - sums.gather(1, last)
    mu = marks.gather(1, last) - missing / growing.gather(1, last).clamp(min=1)
    moves = torch.minimum((sizes - mu.clamp(min=0)).clamp(min=0), rooms)
    # Sizes may be so large that their differences are lost to rounding.
    tiny = torch.finfo(moves.dtype).tiny
    return moves * (total / moves.sum(dim=1, keepdim=True).clamp(min=tiny)).clamp(max=1)


def scale(sizes: Tensor, rooms: Tensor, radius: float) -> Tensor:
    """Return the largest c (B,) in [0, 1] with ``||min(c sizes, rooms)||_2 <= radius``, float64.

    Parameters
    ----------
    sizes, rooms : torch.Tensor of shape (B, D)
        Wanted moves and the largest ones, at least 0.
    radius : float
        The largest Euclidean length of a row.
    """
    sizes, rooms = sizes.double(), rooms.double()
    tiny = torch.finfo(sizes.dtype).tiny
    # An entry meets its room at this c; those that never do before c = 1 are last.
    marks, order = torch.where(sizes > rooms, rooms / sizes.clamp(min=tiny), 1).sort(dim=1)
    squares = sizes.square().gather(1, order)
    growing = squares.flip(1).cumsum(dim=1).flip(1)
    stopped = torch.nn.functional.pad((marks.square() * squares).cumsum(dim=1), (1, 0))[:, :-1]
    # At each mark: those before it have stopped, the others have grown up to it.
    within = stopped + marks.square() * growing <= radius**2
    at = within.sum(dim=1, keepdim=True).clamp(max=marks.shape[1] - 1)
    left = (radius**2 - stopped.gather(1, at)).clamp(min=0)
    reached = (left / growing.gather(1, at).clamp(min=tiny)).sqrt()
    return torch.where(within.all(dim=1), 1, reached[:, 0].clamp(max=1))


def fill(gains: Tensor, rooms: Tensor, total: float | Tensor) -> Tensor:
    """Return the moves (B, D) of the largest gain within the rooms and a sum of at most `total`.

    Parameters
    ----------
    gains, rooms : torch.Tensor of shape (B, D)
        What an entry gains for each unit that it moves, and its largest move, at least 0.
    total : float or torch.Tensor of shape (B, 1)
        The largest sum of a row.

    Returns
    -------
    torch.Tensor of shape (B, D), float64
        The moves; 0 where nothing is gained.
    """
    rooms = torch.where(gains > 0, rooms, 0).double()
    order = gains.argsort(dim=1, descending=True, stable=True)
    ranked = rooms.gather(1, order)
    before = ranked.cumsum(dim=1) - ranked
    taken = torch.minimum((total - before).clamp(min=0), ranked)
    return torch.zeros_like(rooms).scatter(1, order, taken)


def fill_to(gains: Tensor, rooms: Tensor, gain: Tensor) -> Tensor:
    """Return the moves (B, D) of least sum that gain `gain` (B,), or as much as the rooms allow."""
    gains, rooms = gains.double(), rooms.double()
    order = gains.argsort(dim=1, descending=True, stable=True)
    ranked, each = rooms.gather(1, order), gains.gather(1, order)
    gained = ranked * each
    before = gained.cumsum(dim=1) - gained
    tiny = torch.finfo(each.dtype).tiny
    missing = (gain.double()[:, None] - before).clamp(min=0) / each.clamp(min=tiny)
    taken = torch.where(each > 0, torch.minimum(missing, ranked), 0)
    return torch.zeros_like(rooms).scatter(1, order, taken)


def level(gains: Tensor, bounds: Tensor, gain: Tensor) -> Tensor:
    """Return the least c (B,) with ``sum_p gains_p min(c, bounds_p) >= gain``, float64.

    Where no c is large enough, the largest of the bounds that count: more of it gains nothing.

    Parameters
    ----------
    gains, bounds : torch.Tensor of shape (B, D)
        At least 0; bounds may be infinite where nothing is gained.
    gain : torch.Tensor of shape (B,)
        What is to be gained.
    """
    gains = gains.double()
    bounds = torch.where(gains > 0, bounds.double(), 0)
    marks, order = bounds.sort(dim=1)
    each = gains.gather(1, order)
    # Between two marks the entries whose bound lies above both still gain.
    rates = each.flip(1).cumsum(dim=1).flip(1)
    lengths = torch.diff(marks, dim=1, prepend=torch.zeros_like(marks[:, :1]))
    gained = (rates * lengths).cumsum(dim=1)
    wanted = gain.double()[:, None]
    at = (gained < wanted).sum(dim=1, keepdim=True).clamp(max=marks.shape[1] - 1)
    excess = (gained.gather(1, at) - wanted).clamp(min=0)
    tiny = torch.finfo(rates.dtype).tiny
    return (marks.gather(1, at) - excess / rates.gather(1, at).clamp(min=tiny)).clamp(min=0)[:, 0]
