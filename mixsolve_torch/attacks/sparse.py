"""APGD on L1 balls: sparse steps whose sparsity and length follow the best point, image by image.

    x_{t+1} = P( x_t + eta sign(g_t) / k  on the k entries of largest |g_t|,  0 elsewhere ),

with P the projection on the ball and the box, exact, and g_t the gradient of the loss. The number
of entries is a share of the image, 0.2 at first. After every 0.04 T steps, with n the number of
entries in which the point of largest loss differs from the image, and n' that number at the check
before (at first all entries),

    k = n / 1.5;
    n / n' < 0.95:  eta = r, and the search continues from the point of largest loss;
    otherwise:      eta = max(eta / 1.5, r / 10),

for r the radius of the ball. The steps are spent in three balls, 0.3 of them for the radius 3 eps,
0.3 for 2 eps, the rest for eps: each ascent starts from the projection of the point of largest loss
that the one before has found, and its first k is n / 1.5 of that point. Only points of the ball of
radius eps are results.

References
----------
Croce, Hein. Mind the box: l1-APGD for sparse adversarial attacks on image classifiers. ICML 2021.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mixsolve_torch.attacks.ball import Ball, make_ball
from mixsolve_torch.attacks.objective import Objective, Score

_RADII = (3, 2, 1)  # of the balls, in eps
_FIRST_SHARE = 0.2  # of the entries in a step
_REDUCTION = 1.5  # of the entries that differ, and of the step
_SHORTEST = 0.1  # the least step, as a share of the radius
_SPARSER = 0.95  # less of the entries than this at the check before count as progress


def sparse_visits(steps: int) -> int:
    """Return how many points `sparse_ascent` yields."""
    return 2 + _budgets(steps)[-1]


def sparse_ascent(
    objective: Objective, start: Tensor, center: Tensor, y: Tensor, ball: Ball, steps: int
) -> Iterator[tuple[Tensor, Score]]:
    """Yield the start, and the points of the ascent in the L1 ball, with their scores.

    `start` and `center` (B, C, H, W) are points of the ball and the images at its center; `steps`
    counts those in all three balls together.
    """
    yield start, objective.score(start, y)
    point, first = start, True
    for factor, budget in zip(_RADII, _budgets(steps), strict=True):
        if not budget:
            continue
        wide = make_ball(ball.norm, factor * ball.eps)
        begin = top = wide.project(point, center)
        top_value = torch.full(y.shape, -torch.inf, dtype=torch.float64, device=y.device)
        for visited, score in _ascent(objective, begin, center, y, wide, budget, fresh=first):
            if factor == 1:
                yield visited, score
            top = torch.where(_images(score.value > top_value), visited, top)
            top_value = torch.maximum(top_value, score.value)
        point, first = top, False


def _budgets(steps: int) -> list[int]:
    """Return the steps in each ball; the last has at least one."""
    part = 3 * steps // 10
    return [part, part, steps - 2 * part]


def _ascent(
    objective: Objective,
    point: Tensor,
    center: Tensor,
    y: Tensor,
    ball: Ball,
    steps: int,
    *,
    fresh: bool,
) -> Iterator[tuple[Tensor, Score]]:
    """Yield the points of the ascent in one ball; a fresh one knows nothing of sparsity yet."""
    every = max(1, 4 * steps // 100)
    entries = point[0].numel()
    score, gradient = objective.score_and_gradient(point, y)
    yield point, score
    top, top_value, top_gradient = point, score.value, gradient
    known = torch.full_like(y, entries) if fresh else _changed(point, center)
    count = torch.full_like(top_value, _FIRST_SHARE * entries) if fresh else known / _REDUCTION
    length = torch.full_like(top_value, ball.eps)
    for t in range(1, steps + 1):
        move = _sparse_sign(gradient, count) * _images(length).to(point.dtype)
        point = ball.project(point + move, center)
        if t == steps:
            yield point, objective.score(point, y)
            return
        score, gradient = objective.score_and_gradient(point, y)
        yield point, score
        better = score.value > top_value
        top = torch.where(_images(better), point, top)
        top_gradient = torch.where(_images(better), gradient, top_gradient)
        top_value = torch.where(better, score.value, top_value)
        if t % every == 0:
            changed = _changed(top, center)
            sparser = changed < _SPARSER * known
            shorter = (length / _REDUCTION).clamp(min=_SHORTEST * ball.eps)
            length = torch.where(sparser, ball.eps, shorter)
            count, known = changed / _REDUCTION, changed
            point = torch.where(_images(sparser), top, point)
            gradient = torch.where(_images(sparser), top_gradient, gradient)


def _sparse_sign(gradient: Tensor, wanted: Tensor) -> Tensor:
    """Return the signs of the largest entries of the gradient, divided by their number.

    The number wanted (B,) is rounded up, at least one; ties of the smallest are all taken.
    """
    sizes = gradient.flatten(1).abs()
    entries = sizes.shape[1]
    rank = (entries - wanted).long().clamp(0, entries - 1)
    least = sizes.sort(dim=1).values.gather(1, rank[:, None])
    signs = torch.where(sizes >= least, gradient.flatten(1).sign(), 0)
    count = signs.count_nonzero(dim=1).clamp(min=1)
    return (signs / count[:, None]).view(gradient.shape)


def _changed(point: Tensor, center: Tensor) -> Tensor:
    return (point != center).flatten(1).sum(dim=1)


def _images(values: Tensor) -> Tensor:
    return values[:, None, None, None]
