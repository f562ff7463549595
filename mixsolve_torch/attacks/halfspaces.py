"""Points of the ball that lie in several half-spaces at once, for many images and many sets.

To first order at a point, classifier k errs on a half-space <n_k, x> >= t_k. A set S of classifiers
can be fooled together, as far as the model goes, where their half-spaces meet the intersection C of
the ball and the box. The point where they do that is nearest to an origin o; where they do not, the
point sought is the one that misses them by least squares:

    min  1/2 ||x - o||^2 + 1/(2 delta) sum_{k in S} max(t_k - <n_k, x>, 0)^2    s.t.  x in C.

If a point x' of C lies in all of them, the solution misses none by more than
sqrt(delta) ||x' - o||. With multipliers c_k >= 0, and 0 for k not in S, the dual is

    max  g(c) = 1/2 ||x(c) - o||^2 + sum_k c_k (t_k - <n_k, x(c)>) - delta/2 ||c||^2,
    x(c) = P_C( o + sum_k c_k n_k ),     dg/dc_k = t_k - <n_k, x(c)> - delta c_k,

where P_C is the Euclidean projection, found by sorting at most. g is strongly concave and its
gradient is piecewise smooth, with the Hessian -(N J N^T + delta I), J the derivative of P_C and N
the rows n_k. It is ascended by a semismooth Newton method with the damping of Levenberg and
Marquardt: multipliers at 0 that a step would lower are held, a step that gains less than a share of
what the quadratic model promises is taken back, and the damping falls with each step that gains.
In a corner of C the Hessian vanishes, and the steps grow as the damping falls.

No network is run here: images and sets are one batch, and an iteration costs a product with the
normals, their transpose and their masked Gram matrix, in float64.

References
----------
Li, Sun, Toh. A Highly Efficient Semismooth Newton Augmented Lagrangian Method for Solving Lasso
Problems. SIAM J. Optim. 2018.
Bertsekas. Projected Newton Methods for Optimization Problems with Simple Constraints. 1982.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mixsolve_torch.attacks.ball import Ball, euclidean_lengths

# The weight delta of the multipliers' squares: what misses a half-space by v costs v^2 / (2 delta).
_SOFT = 1e-10

# The damping: where it starts, how it changes, and the shares of the promised gain above which a
# step is taken and the damping falls.
_DAMPING = 1e-3
_FALLS, _RISES = 0.1, 10.0
_GAINED, _WELL = 1e-3, 0.5


@dataclass(frozen=True)
class HalfSpaces:
    """Half-spaces of n classifiers at each of B images.

    Attributes
    ----------
    origin : torch.Tensor of shape (B, C, H, W)
        The images the model was made at, in the ball.
    normals : torch.Tensor of shape (n, B, D)
        Unit normals in the Euclidean norm, towards the errors; 0 where the gradient vanishes.
    distances : torch.Tensor of shape (n, B)
        Euclidean distances from the origin to the boundaries, negative inside.
    reach : torch.Tensor of shape (n, B)
        How far the ball extends from its center along each normal.
    """

    origin: Tensor
    normals: Tensor
    distances: Tensor
    reach: Tensor

    def where(self, mask: Tensor, other: HalfSpaces) -> HalfSpaces:
        """Return these half-spaces for the images in `mask` (B,) and the others elsewhere."""
        return HalfSpaces(
            torch.where(mask[:, None, None, None], self.origin, other.origin),
            torch.where(mask[:, None], self.normals, other.normals),
            torch.where(mask, self.distances, other.distances),
            torch.where(mask, self.reach, other.reach),
        )

    def slack(self, points: Tensor) -> Tensor:
        """Return how deep points (Q, B, C, H, W) lie in each half-space, (Q, n, B)."""
        moves = (points - self.origin).flatten(2)
        return torch.einsum("nbd,qbd->qnb", self.normals, moves) - self.distances

    def meet(
        self,
        sets: Tensor,
        aim: Tensor,
        multipliers: Tensor,
        origins: Tensor,
        center: Tensor,
        ball: Ball,
        iterations: int,
    ) -> tuple[Tensor, Tensor]:
        """Look for points that lie `aim` deep in all half-spaces of a set.

        Parameters
        ----------
        sets : torch.Tensor of shape (Q, n, B), bool
            Q sets of classifiers for each image.
        aim : torch.Tensor of shape (Q, n, B)
            The depth to be reached.
        multipliers : torch.Tensor of shape (Q, n, B)
            Where to start in the dual; zeros, or those of a smaller set.
        origins : torch.Tensor of shape (Q, B, C, H, W)
            What the points are to be near to.
        center : torch.Tensor of shape (B, C, H, W)
            The centers of the balls.
        ball : Ball
            Their norm and radius.
        iterations : int
            Newton steps in the dual.

        Returns
        -------
        points : torch.Tensor of shape (Q, B, C, H, W)
            Points in the ball and the box, in the dtype of `origins`.
        multipliers : torch.Tensor of shape (Q, n, B), float64
            Their multipliers.
        """
        # A classifier whose gradient vanishes has no say: no point changes its depth.
        moved = self.normals.any(dim=2)
        active = (sets & moved).permute(2, 0, 1)
        dual = _Dual.of(self, aim, origins, center, ball)
        at = dual.at(multipliers.double().permute(2, 0, 1) * active)
        damping = torch.full_like(at.value, _DAMPING)
        for _ in range(iterations):
            at, damping = _ascended(dual, at, active, damping)
        points = at.points.transpose(0, 1).view(origins.shape).to(origins.dtype)
        return points, at.multipliers.permute(1, 2, 0)


class _At(NamedTuple):
    """The dual at some multipliers: (B, Q) problems of n multipliers each."""

    multipliers: Tensor  # (B, Q, n)
    points: Tensor  # (B, Q, D)
    value: Tensor  # (B, Q)
    gradient: Tensor  # (B, Q, n)
    curvature: Tensor  # (B, Q, n, n), of -g

    def where(self, mask: Tensor, other: _At) -> _At:
        """Return these problems where the mask (B, Q) holds, and the others elsewhere."""
        return _At(
            *(
                torch.where(mask.view(*mask.shape, *[1] * (own.dim() - 2)), own, another)
                for own, another in zip(self, other, strict=True)
            )
        )


@dataclass(frozen=True)
class _Dual:
    """The function g of the multipliers, of Q sets for each of B images, in float64."""

    ball: Ball
    normals: Tensor  # (B, n, D)
    origins: Tensor  # (B, Q, D)
    centers: Tensor  # (B, Q, C, H, W)
    thresholds: Tensor  # (B, Q, n), of the moves from the origins

    @classmethod
    def of(
        cls, model: HalfSpaces, aim: Tensor, origins: Tensor, center: Tensor, ball: Ball
    ) -> _Dual:
        """Return the dual of a model, in the shapes of `HalfSpaces.meet`."""
        normals = model.normals.double().transpose(0, 1).contiguous()
        start = origins.double().transpose(0, 1)
        flat = start.flatten(2).contiguous()
        moved = (flat - model.origin.double().flatten(1)[:, None]) @ normals.transpose(1, 2)
        thresholds = (model.distances + aim).double().permute(2, 0, 1) - moved
        return cls(ball, normals, flat, center.double()[:, None].expand_as(start), thresholds)

    def at(self, multipliers: Tensor) -> _At:
        """Return value, gradient and curvature of the dual at multipliers (B, Q, n)."""
        onto = self.normals.transpose(1, 2)
        ahead = (self.origins + multipliers @ self.normals).view_as(self.centers)
        near = self.ball.nearest(ahead.flatten(0, 1), self.centers.flatten(0, 1))
        points = near.point.view(self.origins.shape)
        moves = points - self.origins
        lacking = self.thresholds - moves @ onto
        owed = multipliers * (lacking - 0.5 * _SOFT * multipliers)
        value = 0.5 * moves.square().sum(dim=2) + owed.sum(dim=2)
        free = near.free.view(self.origins.shape)
        # One set after another: the masked normals of all of them would take Q times the memory.
        masked = [(self.normals * free[:, q, None]) @ onto for q in range(free.shape[1])]
        along = near.tangent.view(self.origins.shape) @ onto
        curvature = torch.stack(masked, dim=1) - along[..., None] * along[..., None, :]
        curvature = near.rate.view(value.shape)[..., None, None] * curvature
        curvature.diagonal(dim1=2, dim2=3).add_(_SOFT)
        return _At(multipliers, points, value, lacking - _SOFT * multipliers, curvature)


def _ascended(dual: _Dual, at: _At, active: Tensor, damping: Tensor) -> tuple[_At, Tensor]:
    """Return the problems after one step, where it gains, and the damping (B, Q) of the next."""
    trial = dual.at(_newton_step(at, active, damping))
    step = trial.multipliers - at.multipliers
    promised = (step * (at.gradient - 0.5 * _times(at.curvature, step))).sum(dim=2)
    share = (trial.value - at.value) / promised.clamp(min=torch.finfo(step.dtype).tiny)
    gained = share > _GAINED
    change = torch.where(gained, torch.where(share > _WELL, _FALLS, 1), _RISES)
    return trial.where(gained, at), damping * change


def _newton_step(at: _At, active: Tensor, damping: Tensor) -> Tensor:
    """Return the multipliers (B, Q, n) after a damped Newton step, cut at 0."""
    held = ~active | ((at.multipliers <= 0) & (at.gradient <= 0))
    apart = held[..., None] | held[..., None, :]
    matrix = torch.where(apart, 0, at.curvature)
    matrix = matrix + torch.diag_embed(torch.where(held, 1, damping[..., None]))
    wanted = torch.where(held, 0, at.gradient)
    # The solver's check of the matrix would wait for the device; a failed step is not taken.
    step = torch.linalg.solve_ex(matrix, wanted).result
    return (at.multipliers + step).clamp(min=0)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None])[..., 0]


def half_spaces(origin: Tensor, gaps: Tensor, gradients: Tensor, reaches: Tensor) -> HalfSpaces:
    """Return the half-spaces where gaps (n, B) with gradients (n, B, C, H, W) are at least 0.

    `reaches` (n, B) is what each gap can grow by in the ball: eps times the dual norm.
    """
    lengths = torch.stack([euclidean_lengths(gradient) for gradient in gradients])
    tiny = torch.finfo(lengths.dtype).tiny
    flat = lengths <= tiny
    scale = torch.where(flat, 1, lengths)
    normals = torch.where(flat[..., None], 0, gradients.flatten(2) / scale[..., None])
    # Where the gradient vanishes, the gap itself stands for the distance: no move changes it.
    return HalfSpaces(origin, normals, -gaps / scale, reaches / scale)
