r"""The optimal value of a game as a JAX function: under jit, vmap, and derivatives of any order.

The solve itself runs on the host, in float64. Derivatives are those of `mixsolve_torch.game_value`:
with lam the optimal weights and q the attacker's optimal strategy, the envelope theorem gives

    dV = sum_ijk w_i q_ij lam_k dl_ijk,

and for alpha > 0 the optimality conditions give, with H the Hessian of eq. (7) in lam and P the
projection of the free weights onto sum zero,

    dlam = -(P H P)^+ sum_ij w_i q_ij ( dl_ij + (l_ij - E_q[l_i]) <lam, dl_ij> / alpha_i ).

They are written as rules for tangents (``jax.custom_jvp``), which JAX transposes: forward and
reverse derivatives both come from them.

References
----------
Milgrom, Segal. Envelope Theorems for Arbitrary Choice Sets. Econometrica 70(2), 2002.
Blondel et al. Efficient and Modular Implicit Differentiation. NeurIPS 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixsolve.arrays.interop import to_numpy
from mixsolve.arrays.labels import read_losses
from mixsolve.arrays.tensor import Shape, even_offsets
from mixsolve.base.errors import MissingDependencyError, MixsolveError, MixsolveTypeError
from mixsolve.solver import validation
from mixsolve.solver.solve import solve

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise MissingDependencyError(
        "mixsolve.jax needs JAX, which is not installed; install it with: pip install "
        "'mixsolve[jax]'"
    ) from error

__all__ = ["game_value", "game_weights"]


def game_value(
    losses: Any,
    alpha: Any = 0.0,
    *,
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    tol: float = 1e-9,
) -> Any:
    """Return the optimal value of a game, differentiable in the losses.

    For alpha > 0 it has derivatives of any order; for alpha = 0 one, which is a subgradient where
    the optimal weights or attacks are not unique: that of the solution found. Under ``vmap`` games
    are solved one after the other.

    Parameters
    ----------
    losses : jax.Array of shape (N, m, L), floating
        ``losses[i, j, k]`` is the loss of classifier k on candidate j of sample i.
    alpha : float or array_like of shape (N,), default 0
        Entropic regularisation, 0 or positive.
    sample_weight, candidate_mask, candidate_prior
        See `mixsolve.solve`. They and `alpha` are constants: no gradient flows to them, and under
        ``jit`` they may not be traced.
    tol : float, default 1e-9
        Relative gap of the solve, and about the relative error of the gradient.

    Returns
    -------
    jax.Array, a scalar
        In the dtype of `losses`.

    Raises
    ------
    MixsolveError
        What `mixsolve.solve` refuses; errors in the losses, such as a NaN, are wrapped in an error
        of JAX. A second derivative for alpha = 0.
    MixsolveTypeError
        Losses that are not floating, or a traced argument among the constants.

    Warns
    -----
    ConvergenceWarning
        The gap is above the tolerance; value and gradient are those of the weights found.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> losses = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> value, gradient = jax.value_and_grad(game_value)(losses)
    >>> print(value, gradient.ravel())
    0.5 [0.25 0.25 0.25 0.25]
    """
    losses, game = _check(losses, alpha, sample_weight, candidate_mask, candidate_prior, tol)
    return game.value(losses)


def game_weights(
    losses: Any,
    alpha: Any,
    *,
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    tol: float = 1e-9,
) -> Any:
    """Return the optimal weights of an entropic game, differentiable in the losses.

    Where the optimal weights are many, because classifiers are alike on everything that is played,
    the derivative is that of the smallest move among them.

    Parameters
    ----------
    alpha : float or array_like of shape (N,)
        Positive. Weights of the exact game jump.
    losses, sample_weight, candidate_mask, candidate_prior, tol
        See `game_value`.

    Returns
    -------
    jax.Array of shape (L,)
        In the dtype of `losses`.

    Raises
    ------
    MixsolveError
        An alpha of 0, or what `mixsolve.solve` refuses.
    MixsolveTypeError
        Losses that are not floating, or a traced argument among the constants.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> losses = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> print(game_weights(losses, alpha=0.1))
    [0.5 0.5]
    """
    losses, game = _check(losses, alpha, sample_weight, candidate_mask, candidate_prior, tol)
    if not game.entropic:
        raise MixsolveError(
            "alpha must be > 0 for game_weights, got 0: the weights of the exact game jump as its "
            "losses change; take mixsolve.solve for the weights alone, or game_value for a gradient"
        )
    return game.solution(losses)[1]


def _check(
    losses: Any, alpha: Any, sample_weight: Any, mask: Any, prior: Any, tol: float
) -> tuple[Any, _Solver]:
    losses, labels = read_losses(losses, ("samples", "candidates", "classifiers"))
    losses = jnp.asarray(losses)
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise MixsolveTypeError(
            f"losses must be floating for a gradient; got {losses.dtype}; use losses.astype(float)"
        )
    if losses.ndim == 2:
        losses = losses[:, None]  # one candidate a sample
    if losses.ndim != 3 or not losses.size:
        raise MixsolveError(
            "losses must have the shape (samples, candidates, classifiers) without an empty axis; "
            f"got {losses.shape}; map over further axes with jax.vmap"
        )
    constants = {
        "alpha": alpha,
        "sample_weight": sample_weight,
        "candidate_mask": mask,
        "candidate_prior": prior,
    }
    for name, value in constants.items():
        if isinstance(value, jax.core.Tracer):
            raise MixsolveTypeError(
                f"{name} must be a constant; got a traced value: close over it, or name it in "
                "static_argnames"
            )
        axes = ("samples", "candidates")[: 2 if name.startswith("candidate") else 1]
        value = constants[name] = labels.aligned(value, axes, name)
        if value is not None and np.ndim(value):
            constants[name] = to_numpy(value, name)
    n_samples, n_candidates, n_classifiers = losses.shape
    shape = Shape(even_offsets(n_samples, n_candidates), n_classifiers)
    validation.check_alpha(constants["alpha"], n_samples)
    validation.check_sample_weight(constants["sample_weight"], n_samples)
    allowed = validation.check_candidate_mask(constants["candidate_mask"], shape)
    validation.check_candidate_prior(constants["candidate_prior"], shape, allowed)
    if mask is not None:
        losses = jnp.where(constants["candidate_mask"].astype(bool)[:, :, None], losses, 0.0)
    return losses, _Solver(constants, tol)


class _Solver:
    """The game's constants, and the functions of the losses with their rules for tangents."""

    def __init__(self, constants: dict[str, Any], tol: float) -> None:
        self._constants, self._tol = constants, tol
        self.entropic = bool(np.any(constants["alpha"]))
        self.solution = jax.custom_jvp(self._solution)
        self.solution.defjvp(self._moved)
        self.value = jax.custom_jvp(lambda losses: self.solution(losses)[0])
        self.value.defjvp(self._envelope)

    def _solution(self, losses: Any) -> Any:
        """Return the value, the weights (L,) and ``w_i q_ij`` (N, m), from the host."""
        kind = losses.dtype
        shapes = [jax.ShapeDtypeStruct(s, kind) for s in ((), losses.shape[2:], losses.shape[:2])]

        def solved(given: Any) -> tuple[np.ndarray, ...]:
            solution = solve(np.asarray(given), tol=self._tol, **self._constants)
            played = solution.sample_weight[:, None] * solution.attack.dense()
            found = (np.asarray(solution.value), solution.weights, played)
            return tuple(np.asarray(each, dtype=kind) for each in found)

        return jax.pure_callback(solved, tuple(shapes), losses, vmap_method="sequential")

    def _envelope(self, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        """Return the value and its tangent: neither player's move matters to first order."""
        (losses,), (moved,) = primals, tangents
        value, weights, played = self.solution(losses)
        return value, jnp.einsum("ij,ijk,k->", played, moved, weights)

    def _moved(self, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        """Return the solution and its tangent, by the optimality conditions."""
        if not self.entropic:
            raise MixsolveError(
                "the value of an exact game (alpha = 0) has no second derivative to rely on; "
                "take game_value with alpha > 0"
            )
        (losses,), (moved,) = primals, tangents
        value, weights, played = self.solution(losses)
        alpha = jnp.broadcast_to(jnp.asarray(self._constants["alpha"], losses.dtype), len(losses))
        mass = played.sum(1, keepdims=True)
        shares = played / jnp.where(mass > 0, mass, 1.0)
        centred = losses - jnp.einsum("ij,ijk->ik", shares, losses)[:, None]
        pull = played / alpha[:, None]
        hessian = jnp.einsum("ij,ijk,ijn->kn", pull, centred, centred)
        ahead = moved @ weights
        gradient = jnp.einsum("ij,ijk->k", played, moved)
        gradient += jnp.einsum("ij,ij,ijk->k", pull, ahead, centred)
        onto = self._free(losses, weights, played)
        # Curvatures that are rounding: 4e-10 of the largest in float64, 7e-5 in float32.
        rank = float(jnp.finfo(losses.dtype).eps) ** 0.6
        inverse = jnp.linalg.pinv(onto @ hessian @ onto, rtol=rank, hermitian=True)
        weights_moved = -inverse @ gradient
        ahead += losses @ weights_moved
        level = (shares * ahead).sum(1, keepdims=True)
        played_moved = pull * (ahead - level)
        value_moved = jnp.einsum("ij,ijk,k->", played, moved, weights)
        return (value, weights, played), (value_moved, weights_moved, played_moved)

    def _free(self, losses: Any, weights: Any, played: Any) -> Any:
        """Return the projection of the free weights onto sum zero, a constant (L, L)."""
        losses, weights, played = map(jax.lax.stop_gradient, (losses, weights, played))
        gradient = jnp.einsum("ij,ijk->k", played, losses)
        # Beside 0 either a weight or what playing it would cost is 0, the cost in the unit of the
        # spread.
        spread = losses.max() - losses.min()
        excess = (gradient - weights @ gradient) / jnp.where(spread > 0, spread, 1.0)
        free = (weights > excess) | (jnp.arange(len(weights)) == weights.argmax())
        free = free.astype(losses.dtype)
        return jnp.diag(free) - jnp.outer(free, free) / free.sum()
