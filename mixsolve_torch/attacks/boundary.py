"""The nearest decision boundary of a classifier, to first order.

Classifier f errs where it prefers another class: where the gap f_c - f_y of some rival c != y is at
least 0. To first order at x', with the norm ||.|| of the ball and its dual norm ||.||_*,

    distance to the boundary of rival c:    -(f_c - f_y)(x') / ||grad (f_c - f_y)(x')||_*,

negative where the classifier errs already; it is reached along the steepest ascent of the gap. In
L1 the distance counts the box as well, which one entry would soon leave. The nearest of the rivals
is the one that counts, as in DeepFool. A backward pass is needed for each rival, so that only those
with the largest logits are tried.

References
----------
Moosavi-Dezfooli, Fawzi, Frossard. DeepFool: a simple and accurate method to fool deep neural
networks. CVPR 2016.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mixsolve_torch.attacks.ball import Ball
from mixsolve_torch.attacks.derived import Derived, LogitSlopes
from mixsolve_torch.attacks.members import Members


class Boundary(NamedTuple):
    """The boundary of one classifier that is nearest to each image.

    Attributes
    ----------
    logits : torch.Tensor of shape (B, classes)
        The classifier's logits.
    wrong : torch.Tensor of shape (B,), bool
        Where it errs already.
    gap : torch.Tensor of shape (B,)
        Logit of the nearest rival minus that of the true class, in the images' dtype.
    gradient : torch.Tensor of shape (B, C, H, W)
        The gradient of the gap in the images.
    distance : torch.Tensor of shape (B,)
        Signed distance to the boundary in the norm of the ball: negative where the classifier errs,
        infinite where the gradient vanishes.
    """

    logits: Tensor
    wrong: Tensor
    gap: Tensor
    gradient: Tensor
    distance: Tensor


def nearest_boundary(
    members: Members, i: int, x: Tensor, y: Tensor, ball: Ball, rivals: int
) -> Boundary:
    """Return the boundary of member i that is nearest to each image, in the norm of the ball.

    The member is run once, with one backward pass for each of the `rivals`: so many classes other
    than the true one are tried, those of the largest logits.
    """
    slope = members.gradient(i, _gaps(rivals), x, y)
    gaps = slope.values.to(x.dtype)
    distances = torch.stack(
        [
            ball.distance(gap, gradient, x)
            for gap, gradient in zip(gaps, slope.gradient, strict=True)
        ]
    )
    distance, nearest = distances.min(dim=0)
    rows = torch.arange(len(x), device=x.device)
    return Boundary(
        slope.logits, slope.wrong, gaps[nearest, rows], slope.gradient[nearest, rows], distance
    )


def _gaps(rivals: int) -> Derived:
    """Return the gaps (Q, B) of the rivals with the largest logits, the largest first."""

    def ranked(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        own = logits.gather(1, y[:, None])
        others = logits.scatter(1, y[:, None], -torch.inf)
        top, classes = others.topk(min(rivals, logits.shape[1] - 1), dim=1)
        return (top - own).T, classes.T

    def judged(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        gaps, _ = ranked(logits, y)
        return gaps, ~(gaps[0] < 0)

    def derived(logits: Tensor, y: Tensor) -> LogitSlopes:
        gaps, classes = ranked(logits, y)
        slopes = logits.new_zeros(*gaps.shape, logits.shape[1])
        slopes.scatter_(2, classes[..., None], 1.0)
        slopes.scatter_(2, y[None, :, None].expand(len(gaps), -1, 1), -1.0)
        return LogitSlopes(gaps, ~(gaps[0] < 0), slopes)

    return Derived(judged, derived)
