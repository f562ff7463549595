"""Points of the ball that lie in several half-spaces at once, for many images and many sets.

To first order at a point, classifier k errs on a half-space <n_k, x> >= t_k. A set S of classifiers
can be fooled together, as far as the model goes, where their half-spaces meet the intersection C of
the ball and the box. The point where they do that is nearest to an origin o; where they do not, the
point sought is the one that misses them by least squares:

    min  1/2 ||x - o||^2 + 1/(2 delta) sum_{k in S} max(t_k - <n_k, x>, 0)^2    s.t.  x in C.

If a point x' of C lies in all of them, the solution misses none by more than
sqrt(delta) ||x' - o||. It is found in the dual, see `attacks.dual`; no network is run.

Where C is a box, l <= x <= u, and the set has one half-space, it needs no search: the point nearest
to an origin in C is x(c) = o + sign(n) min(c |n|, r), r the room of each entry in the direction of
n, with the least c such that <n, x(c)> = t, or all the room if that is not enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixsolve_torch.attacks.ball import Ball, euclidean_lengths
from mixsolve_torch.attacks.dual import Dual, ascend, pairs
from mixsolve_torch.attacks.thresholds import level

# Numbers of one kind that are held at a time: on a CPU no more than pays, elsewhere enough to keep
# the device busy.
_ENTRIES, _ENTRIES_ON_DEVICE = 2**23, 2**26


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
            Newton steps in the dual at most.

        Returns
        -------
        points : torch.Tensor of shape (Q, B, C, H, W)
            Points in the ball and the box, in the dtype of `origins`.
        multipliers : torch.Tensor of shape (Q, n, B), float64
            Their multipliers.
        """
        # In parts, so that the memory taken does not grow with the number of images.
        entries = self.normals.shape[2] * max(len(sets), pairs(len(self.normals)))
        limit = _ENTRIES if center.device.type == "cpu" else _ENTRIES_ON_DEVICE
        size = max(1, limit // max(1, entries))
        if size < len(center):
            parts = [slice(first, first + size) for first in range(0, len(center), size)]
            met = [
                self._part(rows).meet(
                    sets[..., rows],
                    aim[..., rows],
                    multipliers[..., rows],
                    origins[:, rows],
                    center[rows],
                    ball,
                    iterations,
                )
                for rows in parts
            ]
            each, raised = zip(*met, strict=True)
            return torch.cat(each, dim=1), torch.cat(raised, dim=2)
        # A classifier whose gradient vanishes has no say: no point changes its depth.
        moved = self.normals.any(dim=2)
        active = (sets & moved).permute(2, 0, 1)
        normals, start = self.normals.double().transpose(0, 1), origins.double().transpose(0, 1)
        ahead = start.flatten(2) - self.origin.double().flatten(1)[:, None]
        thresholds = (self.distances + aim).double().permute(2, 0, 1) - ahead @ normals.mT
        if len(self.normals) == 1 and ball.norm == "Linf":
            found, multipliers = _met_in_box(
                normals, thresholds, active, start, center.double(), ball
            )
        else:
            found, multipliers = ascend(
                Dual.of(normals, thresholds, start, center.double(), ball),
                multipliers.double().permute(2, 0, 1) * active,
                active,
                aim.double().permute(2, 0, 1),
                iterations,
            )
        points = found.transpose(0, 1).view(origins.shape).to(origins.dtype)
        return points, multipliers.permute(1, 2, 0)

    def _part(self, rows: slice) -> HalfSpaces:
        return HalfSpaces(
            self.origin[rows], self.normals[:, rows], self.distances[:, rows], self.reach[:, rows]
        )


def _met_in_box(
    normals: Tensor, thresholds: Tensor, active: Tensor, origins: Tensor, center: Tensor, ball: Ball
) -> tuple[Tensor, Tensor]:
    """Return what `ascend` does where ball and box are one box: points (B, Q, D), multipliers.

    `normals` (B, 1, D), `thresholds` and `active` (B, Q, 1), and the origins (B, Q, C, H, W), which
    lie in the box, are those of `Dual.of`.
    """
    lowest, highest = (
        ball.project(torch.full_like(center, bound), center).flatten(1)[:, None]
        for bound in (-torch.inf, torch.inf)
    )
    start = origins.flatten(2)
    rooms = torch.where(normals > 0, highest - start, start - lowest).clamp(min=0)
    sizes = normals.abs().expand_as(rooms)
    bounds = torch.where(sizes > 0, rooms / sizes, 0)
    wanted = torch.where(active, thresholds, 0).flatten()
    rate = level(sizes.square().flatten(0, 1), bounds.flatten(0, 1), wanted).view(active.shape)
    points = start + normals.sign() * torch.minimum(rate * sizes, rooms)
    return torch.clamp(points, lowest, highest), rate


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
