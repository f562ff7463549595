"""The dual of the nearest point in several half-spaces, ascended by a semismooth Newton method.

With origin o, unit normals n_k, thresholds t_k, C the intersection of the ball and the box, and P_C
the Euclidean projection on it, the problem of `attacks.halfspaces` has the dual

    max  g(c) = 1/2 ||x(c) - o||^2 + sum_k c_k (t_k - <n_k, x(c)>) - delta/2 ||c||^2,   c >= 0,
    x(c) = P_C( o + sum_k c_k n_k ),     dg/dc_k = t_k - <n_k, x(c)> - delta c_k.

g is strongly concave and its gradient is piecewise smooth, with the Hessian -(N J N^T + delta I),
J the derivative of P_C and N the rows n_k. It is ascended by a semismooth Newton method with the
damping of Levenberg and Marquardt: multipliers at 0 that a step would lower are held, a step that
gains less than a share of what the quadratic model promises is taken back, and the damping falls
with each step that gains. In a corner of C the Hessian vanishes, and the steps grow as the damping
falls.

Images and sets are one batch of problems in float64; an iteration costs a product with the normals,
their transpose and the products of pairs of them, which are made once. A problem whose gradient has
become 0 stays as it is.

References
----------
Li, Sun, Toh. A Highly Efficient Semismooth Newton Augmented Lagrangian Method for Solving Lasso
Problems. SIAM J. Optim. 2018.
Bertsekas. Projected Newton Methods for Optimization Problems with Simple Constraints. 1982.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mixsolve_torch.attacks.ball import Ball, Nearest

# The weight delta of the multipliers' squares: what misses a half-space by v costs v^2 / (2 delta).
_SOFT = 1e-10

# A problem is settled where no multiplier's gradient exceeds this share of the depth asked for: it
# is met that closely.
_SETTLED = 1e-4

# The damping: where it starts, how it changes, and the shares of the promised gain above which a
# step is taken and the damping falls.
_DAMPING = 1e-3
_FALLS, _RISES = 0.01, 10.0
_GAINED, _WELL = 1e-3, 0.5


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

    def of(self, images: Tensor) -> _At:
        """Return the problems of some images."""
        return _At(*(own[images] for own in self))

    def put(self, images: Tensor, new: _At) -> _At:
        """Return all problems, those of some images replaced."""
        return _At(*(a.index_copy(0, images, b) for a, b in zip(self, new, strict=True)))


class _State(NamedTuple):
    """What is known of (B, Q) problems besides where they are."""

    active: Tensor  # (B, Q, n), multipliers of classifiers of the set
    rounding: Tensor  # (B, Q, n), gradients that count as 0
    damping: Tensor  # (B, Q)
    settled: Tensor  # (B, Q)

    def of(self, images: Tensor) -> _State:
        """Return what is known of the problems of some images."""
        return _State(*(own[images] for own in self))


@dataclass(frozen=True)
class Dual:
    """The function g of the multipliers, of Q sets for each of B images, in float64."""

    normals: Tensor  # (B, n, D)
    onto: Tensor  # (B, D, n), the same
    products: Tensor  # (B, D, n (n + 1) / 2), of the entries of two normals
    places: Tensor  # (n, n), where the product of two normals is among these
    origins: Tensor  # (B, Q, D)
    thresholds: Tensor  # (B, Q, n), of the moves from the origins
    centers: Tensor  # (B, Q, C, H, W)
    ball: Ball
    nearest: Callable[[Tensor], Nearest]  # of images (B Q, C, H, W)

    @classmethod
    def of(
        cls, normals: Tensor, thresholds: Tensor, origins: Tensor, center: Tensor, ball: Ball
    ) -> Dual:
        """Return the dual of Q sets for each of B images.

        Parameters
        ----------
        normals : torch.Tensor of shape (B, n, D), float64
            Unit normals, or 0.
        thresholds : torch.Tensor of shape (B, Q, n), float64
            How far moves from the origins are to go along them.
        origins : torch.Tensor of shape (B, Q, C, H, W), float64
            What the points are to be near to.
        center : torch.Tensor of shape (B, C, H, W), float64
            The centers of the balls.
        ball : Ball
            Their norm and radius.
        """
        normals = normals.contiguous()
        count = normals.shape[1]
        first, second = torch.triu_indices(count, count, device=normals.device)
        places = torch.empty(count, count, dtype=torch.int64, device=normals.device)
        places[first, second] = places[second, first] = torch.arange(
            pairs(count), device=normals.device
        )
        centers = center[:, None].expand_as(origins)
        return cls(
            normals=normals,
            onto=normals.mT,
            products=(normals[:, first] * normals[:, second]).mT,
            places=places,
            origins=origins.flatten(2).contiguous(),
            thresholds=thresholds,
            centers=centers,
            ball=ball,
            nearest=ball.nearest_to(centers.flatten(0, 1)),
        )

    def of_images(self, images: Tensor) -> Dual:
        """Return the function of the multipliers of some images."""
        normals, centers = self.normals[images], self.centers[images]
        return replace(
            self,
            normals=normals,
            onto=normals.mT,
            products=self.products[images],
            origins=self.origins[images],
            thresholds=self.thresholds[images],
            centers=centers,
            nearest=self.ball.nearest_to(centers.flatten(0, 1)),
        )

    def at(self, multipliers: Tensor) -> _At:
        """Return value, gradient and curvature of the dual at multipliers (B, Q, n)."""
        ahead = torch.baddbmm(self.origins, multipliers, self.normals)
        near = self.nearest(ahead.view(self.centers.shape).flatten(0, 1))
        points = near.point.view(ahead.shape)
        moves = points - self.origins
        lacking = torch.baddbmm(self.thresholds, moves, self.onto, alpha=-1)
        gradient = torch.add(lacking, multipliers, alpha=-_SOFT)
        owed = multipliers * (lacking + gradient)
        value = 0.5 * (moves.square().sum(dim=2) + owed.sum(dim=2))
        # Entries that are at no bound, of all products of two normals at once.
        curvature = (near.free.view(ahead.shape).double() @ self.products)[..., self.places]
        if near.tangent is not None:
            along = near.tangent.view(ahead.shape) @ self.onto
            curvature = curvature - along[..., None] * along[..., None, :]
        if near.rate is not None:
            curvature = near.rate.view(value.shape)[..., None, None] * curvature
        curvature.diagonal(dim1=2, dim2=3).add_(_SOFT)
        return _At(multipliers, points, value, gradient, curvature)


def ascend(
    dual: Dual, multipliers: Tensor, active: Tensor, aim: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Return the points (B, Q, D) and the multipliers (B, Q, n) after so many Newton steps.

    Parameters
    ----------
    dual : Dual
        The problems.
    multipliers : torch.Tensor of shape (B, Q, n), float64
        Where to start.
    active : torch.Tensor of shape (B, Q, n), bool
        The others stay as they are.
    aim : torch.Tensor of shape (B, Q, n), float64
        The depths that were asked for: a share of them is met closely enough.
    iterations : int
        Steps at most.
    """
    at = dual.at(multipliers)
    damping = torch.full_like(at.value, _DAMPING)
    settled = torch.zeros_like(damping, dtype=torch.bool)
    at = _solved(dual, at, _State(active, _SETTLED * aim, damping, settled), iterations)
    return at.points, at.multipliers


def _solved(dual: Dual, at: _At, state: _State, iterations: int) -> _At:
    """Return the problems after so many steps, or as many as each needs."""
    active, rounding, damping, settled = state
    for done in range(iterations):
        held = ~active | ((at.multipliers <= 0) & (at.gradient <= 0))
        wanted = torch.where(held, 0, at.gradient)
        settled = settled | (wanted.abs() <= rounding).all(dim=2)
        # Settled problems stay as they are, and are left out where that can be asked for free.
        if asking_is_free(settled.device):
            left = (~settled.all(dim=1)).nonzero().flatten()
            if len(left) == 0:
                break
            if 2 * len(left) <= len(settled):
                state = _State(active, rounding, damping, settled).of(left)
                rest = _solved(dual.of_images(left), at.of(left), state, iterations - done)
                return at.put(left, rest)
        at, damping = _ascended(dual, at, wanted, held, settled, damping)
    return at


def asking_is_free(device: torch.device) -> bool:
    """Return whether the entries of a tensor can be read without a wait for its device."""
    return device.type == "cpu"


def _ascended(
    dual: Dual, at: _At, wanted: Tensor, held: Tensor, settled: Tensor, damping: Tensor
) -> tuple[_At, Tensor]:
    """Return the problems after one step, where it gains, and the damping (B, Q) of the next.

    `wanted` (B, Q, n) is the gradient of the multipliers that are not `held`.
    """
    trial = dual.at(_newton_step(at, wanted, held, damping))
    step = trial.multipliers - at.multipliers
    promised = (step * (at.gradient - 0.5 * _times(at.curvature, step))).sum(dim=2)
    share = (trial.value - at.value) / promised.clamp(min=torch.finfo(step.dtype).tiny)
    gained = share > _GAINED
    change = torch.where(gained, torch.where(share > _WELL, _FALLS, 1), _RISES)
    return trial.where(gained & ~settled, at), damping * change


def _newton_step(at: _At, wanted: Tensor, held: Tensor, damping: Tensor) -> Tensor:
    """Return the multipliers (B, Q, n) after a damped Newton step, cut at 0."""
    own = torch.where(held, 1, damping[..., None])
    if held.shape[2] == 1:
        step = wanted / torch.where(held, own, own + at.curvature[..., 0])
    else:
        apart = held[..., None] | held[..., None, :]
        matrix = torch.where(apart, 0, at.curvature)
        matrix.diagonal(dim1=2, dim2=3).add_(own)
        # The solver's check of the matrix would wait for the device; a failed step is not taken.
        step = torch.linalg.solve_ex(matrix, wanted).result
    return (at.multipliers + step).clamp(min=0)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None])[..., 0]


def pairs(count: int) -> int:
    """Return the number of pairs of normals, those of a normal with itself included."""
    return count * (count + 1) // 2
