"""Points of the ball that lie in several half-spaces at once, for many images and many sets.

To first order at a point, classifier k errs on a half-space <n_k, x> >= t_k. A set S of classifiers
can be fooled together, as far as the model goes, where their half-spaces meet the intersection C of
the ball and the box. The point where they do that is nearest to an origin o is found in the dual:

    x(c) = P_C( o + sum_k c_k n_k ),     c_k >= 0, and 0 for k not in S,

where the multipliers c ascend along t_k - <n_k, x(c)> by accelerated projected gradients with
adaptive restarts. If the half-spaces do not meet in C the multipliers grow without bound and some
constraint stays violated: only the point reached matters, not convergence. Hence the inexact
projection on an L2 ball next to a wall of the box is acceptable.

No network is run here: images and sets are one batch, and an iteration costs a product with the
normals and their transpose.

References
----------
Beck, Teboulle. A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems. 2009.
O'Donoghue, Candès. Adaptive Restart for Accelerated Gradient Schemes. 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixsolve_torch.attacks.ball import Ball, euclidean_lengths


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
    gram : torch.Tensor of shape (n, n, B)
        Absolute values of the inner products of the normals.
    """

    origin: Tensor
    normals: Tensor
    distances: Tensor
    reach: Tensor
    gram: Tensor

    def where(self, mask: Tensor, other: HalfSpaces) -> HalfSpaces:
        """Return these half-spaces for the images in `mask` (B,) and the others elsewhere."""
        return HalfSpaces(
            torch.where(mask[:, None, None, None], self.origin, other.origin),
            torch.where(mask[:, None], self.normals, other.normals),
            torch.where(mask, self.distances, other.distances),
            torch.where(mask, self.reach, other.reach),
            torch.where(mask, self.gram, other.gram),
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
            Iterations in the dual.

        Returns
        -------
        points : torch.Tensor of shape (Q, B, C, H, W)
            Points in the ball and the box.
        multipliers : torch.Tensor of shape (Q, n, B)
            Their multipliers.
        """
        count, _, images = sets.shape
        centers = center.repeat(count, 1, 1, 1)
        active = sets.to(self.gram.dtype)
        # A row sum of the Gram matrix of the set bounds its largest eigenvalue.
        rate = active / torch.einsum("nmb,qmb->qnb", self.gram, active).amax(1, keepdim=True).clamp(
            min=1
        )

        def point(dual: Tensor) -> Tensor:
            moves = torch.einsum("nbd,qnb->qbd", self.normals, dual)
            ahead = origins + moves.view(origins.shape)
            flat = ball.project(ahead.flatten(0, 1), centers)
            return flat.view(origins.shape)

        dual = multipliers * active
        ahead, momentum = dual, torch.zeros(count, 1, images, dtype=dual.dtype, device=dual.device)
        for _ in range(iterations):
            missing = aim - self.slack(point(ahead))
            raised = (ahead + rate * missing).clamp(min=0)
            step = raised - dual
            momentum = torch.where((missing * step).sum(1, keepdim=True) < 0, 0, momentum + 1)
            dual, ahead = raised, raised + momentum / (momentum + 3) * step
        return point(dual), dual


def half_spaces(origin: Tensor, gaps: Tensor, gradients: Tensor, reaches: Tensor) -> HalfSpaces:
    """Return the half-spaces where gaps (n, B) with gradients (n, B, C, H, W) are at least 0.

    `reaches` (n, B) is what each gap can grow by in the ball: eps times the dual norm.
    """
    lengths = torch.stack([euclidean_lengths(gradient) for gradient in gradients])
    tiny = torch.finfo(lengths.dtype).tiny
    flat = lengths <= tiny
    scale = torch.where(flat, 1, lengths)
    normals = torch.where(flat[..., None], 0, gradients.flatten(2) / scale[..., None])
    gram = torch.einsum("nbd,mbd->nmb", normals, normals).abs()
    # Where the gradient vanishes, the gap itself stands for the distance: no move changes it.
    return HalfSpaces(origin, normals, -gaps / scale, reaches / scale, gram)
