"""First-order peers on eq. (7): what a user writes in some thirty lines, over a pass of choice.

- `mirror`, `fista`: mirror descent and accelerated gradient, in NumPy;
- `fista_numba`: the same over a fused pass compiled by Numba, a share of the samples a thread;
- `fista_jax`: the same over `jax.value_and_grad`, compiled, in float64;
- `lbfgs`: SciPy's L-BFGS-B over the logits of the weights, lam = softmax(v).

References: Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm, 2009; Nemirovski
and Yudin, Problem complexity and method efficiency in optimization, 1983; Byrd, Lu, Nocedal and
Zhu, A limited memory algorithm for bound constrained optimization, 1995.
"""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from mixsolve.feasible import simplex

Answer = tuple[np.ndarray, np.ndarray | None]
Risk = Callable[[np.ndarray], tuple[float, np.ndarray]]  # of weights (L,): value and gradient (L,)


def entropic_risk(losses: np.ndarray, alpha: float, lam: np.ndarray) -> tuple[float, np.ndarray]:
    """Eq. (7) with uniform weights and measure at weights (L,), and its gradient (L,), in NumPy."""
    scores = losses @ lam
    top = scores.max(axis=1, keepdims=True)
    mass = np.exp((scores - top) / alpha)
    totals = mass.sum(axis=1, keepdims=True)
    value = float((top + alpha * np.log(totals / losses.shape[1])).mean())
    return value, np.einsum("ij,ijk->k", mass / totals, losses) / losses.shape[0]


def mirror(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
    """Exponentiated gradient, its step doubled and halved by the descent condition."""
    lam = simplex.uniform(losses.shape[2])
    deadline = time.perf_counter() + time_limit
    accuracy = tol * float(np.ptp(losses))
    step = alpha / max(float(np.ptp(losses)), 1e-300) ** 2
    value, gradient = entropic_risk(losses, alpha, lam)
    while lam @ gradient - gradient.min() > accuracy and time.perf_counter() < deadline:
        trial = lam * np.exp(-step * (gradient - gradient.min()))
        trial /= trial.sum()
        lower, slope = entropic_risk(losses, alpha, trial)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.nansum(trial * np.log(trial / lam))
        if lower <= value + gradient @ (trial - lam) + distance / step + 1e-16:
            lam, value, gradient = trial, lower, slope
            step *= 1.5
        else:
            step *= 0.5
    return lam, None


def _accelerated(risk: Risk, size: int, accuracy: float, time_limit: float) -> Answer:
    """FISTA with backtracking and restart on the function value."""
    lam = ahead = simplex.uniform(size)
    deadline = time.perf_counter() + time_limit
    curvature, theta = 1.0, 1.0
    value, gradient = risk(lam)
    best = value
    while time.perf_counter() < deadline:
        while True:
            trial = simplex.project(ahead - gradient / curvature)
            step = trial - ahead
            lower, slope = risk(trial)
            bound = value + gradient @ step + 0.5 * curvature * step @ step
            if lower <= bound + 1e-14 * abs(bound) or time.perf_counter() > deadline:
                break
            curvature *= 2.0
        if trial @ slope - slope.min() <= accuracy:
            return trial, None
        if lower > best:
            theta, following = 1.0, trial
        else:
            grown = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * theta * theta))
            following = trial + (theta - 1.0) / grown * (trial - lam)
            theta = grown
        lam, ahead, best = trial, following, lower
        value, gradient = risk(ahead)
        curvature *= 0.9
    return lam, None


def fista(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
    """FISTA in NumPy."""

    def risk(lam: np.ndarray) -> tuple[float, np.ndarray]:
        return entropic_risk(losses, alpha, lam)

    return _accelerated(risk, losses.shape[2], tol * float(np.ptp(losses)), time_limit)


@cache
def _fused() -> Any:
    """A pass that Numba compiles: values (N,) and gradients (N, L) of all samples."""
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def fused(losses: Any, alpha: Any, lam: Any, values: Any, gradients: Any) -> None:
        n_samples, n_candidates, size = losses.shape
        for i in numba.prange(n_samples):
            scores = np.empty(n_candidates)
            top = -1e300  # "fastmath" knows no infinity
            for j in range(n_candidates):
                score = 0.0
                for k in range(size):
                    score += lam[k] * losses[i, j, k]
                scores[j] = score
                top = max(top, score)
            total = 0.0
            for j in range(n_candidates):
                scores[j] = math.exp((scores[j] - top) / alpha)
                total += scores[j]
            values[i] = top + alpha * math.log(total / n_candidates)
            gradients[i] = 0.0
            for j in range(n_candidates):
                share = scores[j] / total
                for k in range(size):
                    gradients[i, k] += share * losses[i, j, k]

    return fused


def fista_numba(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
    """FISTA over a fused pass in Numba."""
    fused = _fused()
    values, gradients = np.empty(losses.shape[0]), np.empty(losses.shape[::2])

    def risk(lam: np.ndarray) -> tuple[float, np.ndarray]:
        fused(losses, alpha, lam, values, gradients)
        return float(values.mean()), gradients.mean(axis=0)

    return _accelerated(risk, losses.shape[2], tol * float(np.ptp(losses)), time_limit)


def fista_jax(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
    """FISTA over a pass that JAX differentiates and compiles."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        compiled = _differentiated()
        table = jnp.asarray(losses)

        def risk(lam: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = compiled(lam, table, alpha)
            return float(value), np.asarray(gradient)

        return _accelerated(risk, losses.shape[2], tol * float(np.ptp(losses)), time_limit)


@cache
def _differentiated() -> Any:
    import jax

    def risk(lam: Any, table: Any, alpha: Any) -> Any:
        soft = jax.scipy.special.logsumexp(table @ lam / alpha, axis=1)
        return alpha * (soft.mean() - math.log(table.shape[1]))

    return jax.jit(jax.value_and_grad(risk))


def lbfgs(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
    """L-BFGS-B over logits; a weight of 0 is only reached in the limit."""
    from scipy.optimize import minimize
    from scipy.special import softmax

    deadline = time.perf_counter() + time_limit
    accuracy = tol * float(np.ptp(losses))
    last = simplex.uniform(losses.shape[2])

    def objective(logits: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal last
        last = softmax(logits)
        value, gradient = entropic_risk(losses, alpha, last)
        if last @ gradient - gradient.min() <= accuracy or time.perf_counter() > deadline:
            raise StopIteration
        return value, last * (gradient - last @ gradient)

    options = {"maxiter": 100_000, "maxfun": 100_000, "ftol": 0.0, "gtol": 0.0}
    try:
        found = minimize(
            objective, np.zeros(last.size), jac=True, method="L-BFGS-B", options=options
        )
    except StopIteration:
        return last, None
    return softmax(found.x), None
