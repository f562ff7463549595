"""Gradients through a solved game: its optimal value and its optimal weights as PyTorch functions.

The mathematics is in `mixsolve_torch.gradients.derivatives`.

References
----------
Milgrom, Segal. Envelope Theorems for Arbitrary Choice Sets. Econometrica 70(2), 2002.
Bolte, Pauwels. Conservative set valued fields, automatic differentiation, stochastic gradient
methods and deep learning. Mathematical Programming 188, 2021 (kinks).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mixsolve.base.arguments import check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve.solver.solution import Solution
from mixsolve_torch.gradients.derivatives import OptimalValue, OptimalWeights, TensorGame


def game_value(
    losses: Tensor,
    alpha: Any = 0.0,
    *,
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    tol: float = 1e-9,
    max_iter: int | None = None,
    warm_start: Any = None,
    return_solution: bool = False,
) -> Tensor | tuple[Tensor, Solution]:
    """Return the optimal value of a game, with a gradient in the losses.

    The gradient is ``w_i q_ij lam_k``: of the losses that the attacker plays, those of the
    classifiers that are played. A step against it trains the members for the mixture that is best
    for them, not each for itself. For alpha > 0 the value has derivatives of any order.

    For alpha = 0 the value has kinks, where the optimal weights or the optimal attacks are many:
    with 0/1 losses everywhere. What is returned there is a subgradient in the sense of Clarke, that
    of the weights and the attack the solver came to. Entropy makes the value smooth in the attack;
    kinks are left only where a weight is about to leave or to enter, and only in the second
    derivative.

    Parameters
    ----------
    losses : torch.Tensor of shape (N, m, L), float32 or float64
        ``losses[i, j, k]`` is the loss of classifier k on candidate j of sample i.
    alpha : float or array-like of shape (N,), default 0
        Entropic regularisation, 0 or positive.
    sample_weight, candidate_mask, candidate_prior
        See `mixsolve.solve`. No gradient flows to them.
    tol : float, default 1e-9
        Relative gap of the solve. The gradient belongs to the weights found: for alpha > 0 it errs
        about as much, relatively, as the gap does.
    max_iter, warm_start
        See `mixsolve.solve`.
    return_solution : bool, default False
        Return the solution as well.

    Returns
    -------
    value : torch.Tensor, a scalar
        In the dtype and on the device of `losses`; the solve itself is in float64.
    solution : Solution
        If `return_solution`: the weights, the attacker's strategy and the certificate.

    Raises
    ------
    MixsolveError
        Losses, or other arguments, that `mixsolve.solve` refuses; or, from backward, a second
        derivative for alpha = 0.
    MixsolveTypeError
        Losses that are not a tensor of float32 or float64, or another argument that requires a
        gradient.

    Warns
    -----
    ConvergenceWarning
        The gap is above the tolerance; the value and its gradient are those of the weights found.

    Examples
    --------
    Two classifiers, each fooled by one of two attacks:

    >>> import torch
    >>> losses = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    >>> value = game_value(losses)
    >>> value.backward()
    >>> value.item(), losses.grad
    (0.5, tensor([[[0.2500, 0.2500],
             [0.2500, 0.2500]]]))
    """
    check_flags(return_solution=return_solution)
    game = TensorGame(
        alpha, sample_weight, candidate_mask, candidate_prior, tol, max_iter, warm_start
    )
    losses = game.check(losses)
    value = OptimalValue.apply(losses, OptimalWeights.apply(losses, game), game).to(losses.dtype)
    return (value, game.solution) if return_solution else value


def game_weights(
    losses: Tensor,
    alpha: Any,
    *,
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    tol: float = 1e-9,
    max_iter: int | None = None,
    warm_start: Any = None,
) -> Tensor:
    """Return the optimal weights of an entropic game, with a gradient in the losses.

    For what depends on the optimal mixture otherwise than through its value: its loss on other
    data, say. Weights of 0 stay 0 under small changes of the losses; where one is about to enter,
    the gradient is that of one of the two sides. Where the optimal weights are many the gradient is
    that of the smallest move among them.

    Parameters
    ----------
    alpha : float or array-like of shape (N,)
        Entropic regularisation, positive. Weights of the exact game jump.
    losses, sample_weight, candidate_mask, candidate_prior, tol, max_iter, warm_start
        See `game_value`.

    Returns
    -------
    torch.Tensor of shape (L,)
        In the dtype and on the device of `losses`.

    Raises
    ------
    MixsolveError
        An alpha of 0, or what `mixsolve.solve` refuses.
    MixsolveTypeError
        Losses that are not a tensor of float32 or float64, or another argument that requires a
        gradient.

    Warns
    -----
    ConvergenceWarning
        The gap is above the tolerance.

    Examples
    --------
    >>> import torch
    >>> losses = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    >>> weights = game_weights(losses, alpha=0.1)
    >>> weights[0].backward()
    >>> weights.detach(), losses.grad[0, 0, 0] < 0  # the more it loses, the less it is played
    (tensor([0.5000, 0.5000]), tensor(True))
    """
    game = TensorGame(
        alpha, sample_weight, candidate_mask, candidate_prior, tol, max_iter, warm_start
    )
    losses = game.check(losses)
    weights = OptimalWeights.apply(losses, game)
    if game.alpha is None:
        raise MixsolveError(
            "alpha must be > 0 for game_weights, got 0: the weights of the exact game jump as its "
            "losses change; take mixsolve.solve for the weights alone, or game_value for a gradient"
        )
    return weights.to(losses.dtype)
