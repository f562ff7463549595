"""The set of images that bounds hold for: the ball and the box [0, 1], rounding included.

    Linf:  min over x' of <a, x'>  =  sum_p min(a_p lo_p, a_p hi_p),
    L2:    max over s > 0 of  <a, x> + <a, d> + (|d|^2 - eps^2) / (2 s),
           d_p = clip(-s a_p, lo_p - x_p, hi_p - x_p),

with lo and hi the box that holds the set. The second is the Lagrange dual: each s gives a lower
bound, so that an s that is found inexactly costs tightness and never validity; at the best one,
where |d| = eps, it is the minimum. Points that attacks may return through rounding are in the set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.ball import Ball
from mixsolve_torch.attacks.thresholds import scale

_NEGLIGIBLE = 1e-9  # entries of a slope below this share of the largest stay where they are


@dataclass(frozen=True)
class Region:
    """The sets around B images.

    Attributes
    ----------
    center, low, high : torch.Tensor of shape (B, D), float64
        The images, and the box that holds each set.
    radius : float or None
        Of the Euclidean ball that cuts the box; None where the box is all.
    """

    center: Tensor
    low: Tensor
    high: Tensor
    radius: float | None

    @classmethod
    def around(cls, x: Tensor, ball: Ball) -> Self:
        """Return the sets around images (B, C, H, W), widened by their unit of rounding."""
        if ball.norm not in ("Linf", "L2"):
            raise MixsolveError(f"norm must be 'Linf' or 'L2' to be verified; got {ball.norm!r}")
        unit = torch.finfo(x.dtype).eps
        center = x.flatten(1).double()
        radius = ball.eps + 2 * unit
        if ball.norm == "L2":
            radius = ball.eps + unit * center.shape[1] ** 0.5 * (1 + ball.eps)
        low = (center - radius).clamp(min=-unit)
        high = (center + radius).clamp(max=1 + unit)
        return cls(center, low, high, radius if ball.norm == "L2" else None)

    def select(self, sets: Tensor) -> Region:
        """Return some of the sets (int64)."""
        return Region(self.center[sets], self.low[sets], self.high[sets], self.radius)

    def minimum(self, slopes: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Return lower bounds (R,) of linear functions over the sets `owner` (R,), and points.

        Parameters
        ----------
        slopes : torch.Tensor of shape (R, D), float64
            The functions <a, x'>.
        owner : torch.Tensor of shape (R,), int64
            The set of each.

        Returns
        -------
        tuple of torch.Tensor
            The bounds (R,), and points (R, D) of the sets where they are attained, up to rounding.
        """
        low, high = self.low[owner], self.high[owner]
        corner = torch.where(slopes > 0, low, high)
        value = (slopes * corner).sum(dim=1)
        if self.radius is None:
            return value, corner
        center = self.center[owner]
        sizes, room = slopes.detach().abs(), (corner - center).abs().detach()
        largest = sizes.amax(dim=1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)
        sizes = torch.where(sizes > _NEGLIGIBLE * largest, sizes / largest, 0)
        # At this multiple of the slope every entry that moves has come to its wall.
        most = torch.where(sizes > 0, room / sizes.clamp(min=_NEGLIGIBLE), 0)
        most = most.amax(dim=1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)
        share = scale(sizes * most, room, self.radius)[:, None]
        step = (share * most / largest).clamp(min=1e-300)
        move = torch.minimum(torch.maximum(-step * slopes, low - center), high - center)
        excess = (move.square().sum(dim=1) - self.radius**2) / (2 * step[:, 0])
        dual = (slopes * (center + move)).sum(dim=1) + excess
        return torch.maximum(value, dual), torch.where(share >= 1, corner, center + move.detach())
