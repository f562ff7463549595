"""Square: random search by squares of the image, without gradients.

A step proposes a change in one random square of each image, and takes it unless it lowers the
exact expected 0/1 loss or, where that stays the same, the expected hinge (see `attacks.hinge`): a
classifier that errs already counts no further. The side of the square is sqrt(p H W), with p a
share of the image that is halved at fixed shares of the steps.

    Linf:  the start is x + eps s with s one random sign a column and channel; in the square the
           perturbation becomes +eps or -eps, one random sign a channel.
    Lq:    (q = 2 or 1) the start is a sum of tiles of random sign; the perturbation of a second
           square, and what the ball has left, is spent on the first one:
               u' = e (u / ||u|| + r h) / ||u / ||u|| + r h||,  r a random sign,  h the tile,
           a pair of bumps of opposite sign, and e^q = ||u||^q + ||v||^q + (eps^q - ||all||^q) / C
           for u and v the perturbations of both squares in one of the C channels; in L1 the new
           perturbation is C times as long, since the projection on ball and box shortens it.

A step costs one run of each classifier, a query, and no gradient: it needs nothing but logits, so
that classifiers may be rounded, detached or any function. An image on which every classifier errs
is not run any further.

The random draws of an image are a function of its start and the number of the step (a counter based
generator): they do not depend on the other images, nor on how these are split into passes.

References
----------
Andriushchenko, Croce, Flammarion, Hein. Square Attack: a query-efficient black-box adversarial
attack via random search. ECCV 2020.
Croce, Hein. Mind the box: l1-APGD for sparse adversarial attacks on image classifiers. ICML 2021,
the L1 version.
Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from mixsolve.base.arguments import as_real
from mixsolve_torch.attacks.ball import Ball
from mixsolve_torch.attacks.counter import Draws, seeds_of
from mixsolve_torch.attacks.objective import Objective, Score
from mixsolve_torch.attacks.search import SearchAttack
from mixsolve_torch.core.losses import LossFunction

# The share p is halved after these steps of 10,000.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# After how many equal parts of the steps images that are lost are left out.
_PARTS = 10

# Steps whose random draws are made at once, at most.
_BLOCK = 64

# Makes trials (B, C, H, W) from points.
Proposal = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Square(SearchAttack):
    """The random search of Andriushchenko et al. on the expected loss.

    Parameters
    ----------
    steps : int, default 5000
        Queries of each restart after its start: runs of every classifier of positive weight.
    share : float, default 0.8
        The share p of the image that the first squares cover, in (0, 1].
    **options
        Those of `SearchAttack`, norm, eps and name included. Without a random start the search
        begins at the image.
    """

    _: KW_ONLY
    steps: int = 5000
    share: float = 0.8

    kind: ClassVar[str] = "square"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        object.__setattr__(self, "share", as_real("share", self.share, above=0, at_most=1))

    def ascended(self) -> str | LossFunction:
        """Return the loss that breaks ties of the expected 0/1 loss."""
        return "hinge"

    def starts(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the starts (restarts B, C, H, W), one restart after another."""
        if not self.random_start:
            return x
        return torch.cat([self._start(x, generator) for _ in range(self.restarts)])

    def visit(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> Iterator[tuple[Tensor, Score]]:
        """Yield the start and the best point after each query, with their scores."""
        best, best_score = start, objective.score(start, y)
        yield best, best_score
        seeds, rows = seeds_of(start - center), torch.arange(len(y), device=y.device)
        for part in range(_PARTS):
            rows = rows[best_score.errors[rows] < objective.members.total]
            steps = range(part * self.steps // _PARTS, (part + 1) * self.steps // _PARTS)
            if len(rows) == 0:
                yield from itertools.repeat((best, best_score), len(steps))
                continue
            here, own, labels = best[rows], best_score.at(rows), y[rows]
            for propose in self._proposals(center[rows], seeds[rows], steps):
                trial = propose(here)
                score = objective.score(trial, labels)
                # What is neither better nor worse is taken too: plateaus are crossed.
                taken = ~own.beats(score)
                here = torch.where(taken[:, None, None, None], trial, here)
                own = score.where(taken, own)
                if len(rows) == len(y):
                    best, best_score = here, own
                else:
                    best, best_score = best.index_copy(0, rows, here), best_score.put(rows, own)
                yield best, best_score

    def strongest(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> tuple[Tensor, Score, Tensor]:
        """Return the last point visited: no step lowers its score."""
        for point, score in self.visit(objective, start, center, y):
            last, last_score = point, score
        return last, last_score, last

    def _proposals(self, center: Tensor, seeds: Tensor, steps: range) -> Iterator[Proposal]:
        """Yield for each step what proposes trials (B, C, H, W) from points."""
        for first in range(steps.start, steps.stop, _BLOCK):
            block = range(first, min(first + _BLOCK, steps.stop))
            windows = [self._window(step, center) for step in block]
            yield from _PROPOSALS[self.norm](center, windows, self.ball, Draws.of(seeds, block))

    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return stripes (Linf) or tiles (L2, L1) of random signs around each image."""
        count, channels, height, width = x.shape
        if self.norm == "Linf":
            return self.ball.project(
                x + self.eps * _signs((count, channels, 1, width), x, generator), x
            )
        side = max(1, min(height, width) // 5)
        tile = _bump(side, side, x)
        shape = (-(-height // side), -(-width // side))
        signs = _signs((count, channels, *shape), x, generator)
        tiled = signs.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
        tiled = (tiled * tile.repeat(shape))[:, :, :height, :width]
        unit = tiled / self.ball.lengths(tiled)[:, None, None, None]
        return self.ball.project(x + self.eps * unit, x)

    def _window(self, step: int, x: Tensor) -> tuple[int, int]:
        """Return height and width of the square of a step; it is cut where the image is smaller."""
        done = 10_000 * step / self.steps
        share = self.share / 2 ** sum(done > mark for mark in _HALVINGS)
        height, width = x.shape[2:]
        # A pair of bumps needs some pixels, as far as the image has them.
        least = 1 if self.norm == "Linf" else min(3, max(1, min(height, width) // 3))
        side = max(least, round(math.sqrt(share * height * width)))
        return min(side, height), min(side, width)


def _linf_proposals(
    center: Tensor, windows: Sequence[tuple[int, int]], ball: Ball, draws: Sequence[Draws]
) -> Iterator[Proposal]:
    """Yield proposals of another perturbation, +eps or -eps, in one window of each image."""
    lowest, highest = (ball.project(center + ball.eps * sign, center) for sign in (-1, 1))
    height, width = center.shape[2:]
    rows = _within(height, [own.uniform(1) for own in draws], [side for side, _ in windows])
    columns = _within(width, [own.uniform(1) for own in draws], [side for _, side in windows])
    ups = torch.stack([own.uniform(center.shape[1]) for own in draws]) >= 0.5
    for down, right, up in zip(rows, columns, ups[..., None, None], strict=True):
        inside = down[:, None, :, None] & right[:, None, None, :]
        trial, other = torch.where(up, highest, lowest), torch.where(up, lowest, highest)
        yield partial(_either, inside, trial, other)


def _within(length: int, draws: Sequence[Tensor], sides: Sequence[int]) -> Tensor:
    """Return which of so many places (S, B, length) lie in windows of S steps."""
    drawn = torch.stack(list(draws))  # (S, B, 1)
    side = torch.tensor(sides, device=drawn.device)[:, None, None]
    place = torch.arange(length, device=drawn.device) - (drawn * (length - side + 1)).long()
    return (place >= 0) & (place < side)


def _either(inside: Tensor, first: Tensor, second: Tensor, here: Tensor) -> Tensor:
    """Return points that are `first` inside, or `second` where that would change nothing."""
    trial, other = torch.where(inside, first, here), torch.where(inside, second, here)
    same = (trial == here).flatten(1).all(dim=1)
    return torch.where(same[:, None, None, None], other, trial)


def _lq_proposals(
    center: Tensor,
    windows: Sequence[tuple[int, int]],
    ball: Ball,
    draws: Sequence[Draws],
    *,
    q: int,
) -> Iterator[Proposal]:
    """Yield proposals that spend the perturbation of one window of each image on another one."""
    for window, own in zip(windows, draws, strict=True):
        yield partial(_exchange, center, window, ball, own, q)


def _exchange(
    center: Tensor, window: tuple[int, int], ball: Ball, draws: Draws, q: int, here: Tensor
) -> Tensor:
    shift = here - center
    tiny = torch.finfo(shift.dtype).tiny
    first, down, right = _placed(here, window, draws)
    second, _, _ = _placed(here, window, draws)
    pairs = torch.stack([_pair(*window, here, q), _pair(*window[::-1], here, q).T])
    turned = draws.integers(2)[:, None, None]
    pattern = pairs[turned, down[:, :, None], right[:, None, :]][:, None] * first
    signs = draws.signs(here.shape[1])[:, :, None, None].to(here.dtype)
    own, channels = shift * first, here.shape[1]
    ahead = own / _lengths(own, q).clamp(min=tiny) + signs * pattern
    left = (ball.eps**q - shift.abs().pow(q).sum(dim=(1, 2, 3), keepdim=True)).clamp(min=0)
    room = (shift * (first | second)).abs().pow(q).sum(dim=(2, 3), keepdim=True)
    spent = (room + left / channels).sqrt() if q == 2 else channels * room + left
    ahead = ahead / _lengths(ahead, q).clamp(min=tiny) * spent
    moved = torch.where(first, ahead, torch.where(second, 0, shift))
    return ball.project(center + moved, center)


_PROPOSALS: dict[str, Callable[..., Iterator[Proposal]]] = {
    "Linf": _linf_proposals,
    "L2": partial(_lq_proposals, q=2),
    "L1": partial(_lq_proposals, q=1),
}


def _placed(x: Tensor, window: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Return a mask (B, 1, H, W) of one window an image, and rows and columns counted in it.

    Rows (B, H) and columns (B, W) outside the window are cut to its border.
    """
    places, insides = [], []
    for axis, side in zip((2, 3), window, strict=True):
        first = draws.integers(x.shape[axis] - side + 1)
        place = torch.arange(x.shape[axis], device=x.device) - first[:, None]
        places.append(place.clamp(0, side - 1))
        insides.append((place >= 0) & (place < side))
    inside = insides[0][:, None, :, None] & insides[1][:, None, None, :]
    rows, columns = places
    return inside, rows, columns


def _pair(height: int, width: int, like: Tensor, q: int) -> Tensor:
    """Return two bumps of opposite sign, one above the other, of Lq length 1 together."""
    if height < 2:
        both = _bump(height, width, like)
    else:
        both = torch.cat(
            [_bump(height // 2, width, like), -_bump(height - height // 2, width, like)]
        )
    return both / torch.linalg.vector_norm(both.flatten(), ord=q)


def _bump(height: int, width: int, like: Tensor) -> Tensor:
    """Return a bump: sum_{k=0}^{M} 1 / (n + 1 - k)^2, with M from 0 at the border to n inside."""
    n = max(height, width) // 2
    down = (torch.arange(height, device=like.device) - height // 2).abs()
    right = (torch.arange(width, device=like.device) - width // 2).abs()
    ring = torch.maximum(down[:, None], right[None, :])
    terms = torch.arange(n + 1, 0, -1, device=like.device, dtype=like.dtype).square().reciprocal()
    return terms.cumsum(0)[n - ring]


def _lengths(x: Tensor, q: int) -> Tensor:
    return torch.linalg.vector_norm(x, ord=q, dim=(2, 3), keepdim=True)


def _signs(shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    draws = torch.randint(2, shape, generator=generator, device=generator.device)
    return (2 * draws - 1).to(x.device, x.dtype)
