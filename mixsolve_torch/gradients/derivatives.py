r"""How the optimal value and the optimal weights of a game follow its losses.

With V(l) = min_lam F(lam, l) the optimal value of a game of losses l, lam the optimal weights and q
the attacker's optimal strategy, the envelope theorem gives

    dV / dl_ijk = w_i q_ij lam_k

wherever both are unique: how lam moves does not matter to first order. To second order it does. For
alpha > 0 it follows from the optimality conditions. With g = grad_lam F and H its Hessian,

    dlam = -K dg,     K = (P H P)^+,

P the projection of the weights that are free (positive, or about to be) onto sum zero. Where H is
regular between the free weights, K is its inverse bordered by the sum constraint. Where it is not,
because classifiers are alike on everything that is played, the optimal weights are many, and the
pseudo-inverse K picks the smallest move among them. Applied to the loss' gradient v in lam, with
u = K v and a_ij = <u, l_ij>,

    - w_i q_ij ( u_k + lam_k (a_ij - sum_j' q_ij' a_ij') / alpha_i )

is the gradient in l_ijk.

References
----------
Milgrom, Segal. Envelope Theorems for Arbitrary Choice Sets. Econometrica 70(2), 2002.
Amos, Kolter. OptNet: Differentiable Optimization as a Layer in Neural Networks. ICML 2017.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

import mixsolve
from mixsolve.arrays.interop import to_numpy
from mixsolve.arrays.labels import GameLabels
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.solver.solution import Solution

_RANK = 1e-10  # curvatures below this share of the largest are rounding


class TensorGame:
    """What surrounds the losses; after `solve`, both players' strategies.

    Attributes
    ----------
    alpha : torch.Tensor of shape (N, 1), or None
        None for the exact game.
    weight : torch.Tensor of shape (N, 1)
        Of the samples, of sum 1.
    base : torch.Tensor of shape (N, m) or (N, 1)
        Logarithms of the base measure, -inf where a candidate may not be played.
    """

    solution: Solution
    alpha: Tensor | None
    weight: Tensor
    base: Tensor
    _attack: Tensor

    def __init__(
        self,
        alpha: Any,
        sample_weight: Any,
        candidate_mask: Any,
        candidate_prior: Any,
        tol: float,
        max_iter: int | None,
        warm_start: Any,
    ) -> None:
        labels, table = GameLabels(), ("samples", "candidates")
        candidate_mask = labels.aligned(candidate_mask, table, "candidate_mask")
        candidate_prior = labels.aligned(candidate_prior, table, "candidate_prior")
        self._mask, self._prior = candidate_mask, candidate_prior
        self._alpha = labels.aligned(alpha, table[:1], "alpha")
        self._options = {
            "sample_weight": labels.aligned(sample_weight, table[:1], "sample_weight"),
            "candidate_mask": candidate_mask,
            "candidate_prior": candidate_prior,
            "tol": tol,
            "max_iter": max_iter,
            "warm_start": warm_start,
        }

    def check(self, losses: Any) -> Tensor:
        """Return losses that a gradient can flow to; those masked are 0, whatever they were."""
        if not isinstance(losses, Tensor):
            raise MixsolveTypeError(
                "losses must be a torch.Tensor (samples, candidates, classifiers) for a gradient; "
                f"got {type(losses).__name__}; convert arrays with torch.as_tensor, pad a list of "
                "samples and mask the padding with candidate_mask"
            )
        if losses.dtype not in (torch.float32, torch.float64):
            raise MixsolveTypeError(
                f"losses must be float32 or float64 for a gradient; got {losses.dtype}; use "
                "losses.float()"
            )
        for name, value in {"alpha": self._alpha, **self._options}.items():
            if isinstance(value, Tensor) and value.requires_grad:
                raise MixsolveTypeError(
                    f"{name} requires a gradient, and none is computed for it; detach it"
                )
        if losses.ndim == 2:
            losses = losses[:, None]  # one candidate a sample
        if self._mask is None or losses.ndim != 3:
            return losses
        allowed = self._allowed(losses)
        if allowed.shape != losses.shape[:2]:
            return losses  # `solve` raises the error
        return torch.where(allowed[:, :, None], losses, 0.0)

    def _allowed(self, losses: Tensor) -> Tensor:
        """Return the mask as a tensor beside the losses."""
        mask = to_numpy(self._mask, "candidate_mask")
        return torch.tensor(mask, dtype=torch.bool, device=losses.device)

    def solve(self, losses: Tensor) -> Tensor:
        """Solve the game; the weights (L,), float64."""
        self.solution = mixsolve.solve(losses, self._alpha, **self._options)
        like: dict[str, Any] = {"dtype": torch.float64, "device": losses.device}
        self.weight = torch.tensor(self.solution.sample_weight, **like)[:, None]
        if not np.any(self.solution.alpha):
            self.alpha = None
            self._attack = torch.tensor(self.solution.attack.dense(), **like)
        else:
            self.alpha = torch.tensor(self.solution.alpha, **like).expand(len(losses))[:, None]
            measure = torch.ones(1, 1, **like)
            if self._prior is not None:
                measure = torch.tensor(to_numpy(self._prior, "candidate_prior"), **like)
            if self._mask is not None:
                measure = torch.where(self._allowed(losses), measure, 0.0)
            self.base = measure.log()
        # A copy: what a function of autograd returns becomes part of its graph.
        return self.solution.weights.to(torch.float64, copy=True)

    def played(self, losses: Tensor, weights: Tensor) -> Tensor:
        """Return ``w_i q_ij`` (N, m): the attacker's best response, which is unique with entropy.

        Parameters
        ----------
        losses : torch.Tensor of shape (N, m, L), float64
            Differentiable, as the result is for alpha > 0.
        weights : torch.Tensor of shape (L,), float64
            Likewise.
        """
        if self.alpha is None:
            return self.weight * self._attack
        return self.weight * (losses @ weights / self.alpha + self.base).softmax(dim=1)

    def inverse_curvature(self, losses: Tensor, weights: Tensor, played: Tensor) -> Tensor:
        """Return K (L, L): how the weights follow a change of their gradient, up to the sign."""
        assert self.alpha is not None
        centred = losses - self.mean(played, losses)
        hessian = torch.einsum("ij,ijk,ijn->kn", played / self.alpha, centred, centred)
        gradient = torch.einsum("ij,ijk->k", played, losses).detach()
        # Which weights are positive, and not by rounding alone: beside 0 either a weight or what
        # playing it would cost is 0, the cost in the unit of the spread.
        excess = (gradient - weights.detach() @ gradient) / (self.solution.spread or 1.0)
        free = (weights.detach() > excess).to(torch.float64)
        free[weights.detach().argmax()] = 1.0
        onto = free.diag() - torch.outer(free, free) / free.sum()
        return torch.linalg.pinv(onto @ hessian @ onto, rtol=_RANK, hermitian=True)

    def mean(self, played: Tensor, values: Tensor) -> Tensor:
        """Return the mean of values (N, m, K) under the attacker's strategy, (N, 1, K)."""
        # Samples of weight 0 are not played, and have no part in what follows.
        mass = torch.where(self.weight > 0, self.weight, 1.0)
        return (played[:, :, None] * values).sum(1, keepdim=True) / mass[:, :, None]


class OptimalWeights(Function):
    """The optimal weights, float64; their derivative by implicit differentiation."""

    @staticmethod
    def forward(losses: Tensor, game: TensorGame) -> Tensor:
        """Solve the game."""
        return game.solve(losses)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, TensorGame], output: Tensor) -> None:
        """Keep losses and weights, which derivatives of derivatives flow through."""
        losses, ctx.game = inputs
        ctx.save_for_backward(losses, output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor | None) -> tuple[Tensor | None, None]:
        """Return the gradient in the losses, for one in the weights."""
        if outputs[0] is None:
            return None, None  # a value's first derivative has no gradient in the weights
        given, weights = ctx.saved_tensors
        game, losses = ctx.game, given.to(torch.float64)
        played = game.played(losses, weights)
        move = game.inverse_curvature(losses, weights, played) @ outputs[0]
        ahead = (losses @ move)[:, :, None]
        pull = (ahead - game.mean(played, ahead)) / game.alpha[:, :, None]
        gradient = -played[:, :, None] * (move + weights * pull)
        return gradient.to(given.dtype), None


class OptimalValue(Function):
    """The optimal value; its derivative by the envelope theorem, the weights held fixed."""

    @staticmethod
    def forward(losses: Tensor, weights: Tensor, game: TensorGame) -> Tensor:
        """Return the value of a game that was solved."""
        return weights.new_tensor(game.solution.value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, TensorGame], output: Tensor) -> None:
        """Keep losses and weights, which second derivatives flow through."""
        losses, weights, ctx.game = inputs
        ctx.save_for_backward(losses, weights)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient in the losses; that in the weights is 0 at the optimum."""
        losses, weights = ctx.saved_tensors
        played = ctx.game.played(losses.to(torch.float64), weights)
        gradient = played[:, :, None] * weights
        if ctx.game.alpha is None:
            gradient = _OnceDifferentiable.apply(gradient, losses)
        return (outputs[0] * gradient).to(losses.dtype), None, None


class _OnceDifferentiable(Function):
    """The gradient of the exact value, whose derivative is an error, not 0."""

    @staticmethod
    def forward(gradient: Tensor, losses: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[None, None]:
        raise MixsolveError(
            "the value of an exact game (alpha = 0) has no second derivative to rely on; "
            "take game_value with alpha > 0"
        )
