"""Solvers to compare with, set up as a user would, on a dense game in memory.

A peer takes losses (N, m, L) float64, alpha (0 for the exact problem), a tolerance relative to
the spread of the losses and a time limit in seconds. It returns weights (L,) and, where it has
them, the attacker's masses (N, m); the certificate is computed afterwards, the same way for all.

- "highs-ds", "highs-ipm": HiGHS' dual simplex and interior point on the full linear program.
- "cutting-planes": rounds of best responses, HiGHS' interior point on the rows found so far.
- "clarabel", "scs", "pdlp": through cvxpy, on the linear program or the exponential cones.
- "slsqp", "trust-constr": SciPy's, on eq. (7) with exact gradients.
- "mirror", "fista", "fista-numba", "fista-jax", "lbfgs": `mixsolve.bench.first_order`.
"""

import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.bench import first_order
from mixsolve.bench.first_order import Answer, entropic_risk
from mixsolve.feasible import simplex
from mixsolve.small_game import highs


@dataclass(frozen=True)
class Peer:
    """A solver to compare with.

    Attributes
    ----------
    run : callable
        ``run(losses, alpha, tol, time_limit)``, returns weights and masses or None.
    exact, entropic : bool
        Whether it solves alpha = 0, alpha > 0.
    requires : str
        The module it comes from.
    """

    run: Callable[[np.ndarray, float, float, float], Answer]
    exact: bool
    entropic: bool
    requires: str = "scipy"

    @property
    def installed(self) -> bool:
        """Whether its module can be imported."""
        return importlib.util.find_spec(self.requires) is not None


def _highs(solver: str) -> Callable[[np.ndarray, float, float, float], Answer]:
    def run(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
        n_samples, n_candidates, n_classifiers = losses.shape
        result = highs.solve_rows(
            losses.reshape(-1, n_classifiers),
            np.arange(n_samples + 1) * n_candidates,
            np.full(n_samples, 1.0 / n_samples),
            solver=solver,
            time_limit=time_limit,
        )
        if result.weights is None or result.dual is None:
            raise MixsolveError(f"HiGHS found no solution: {result.message}")
        return result.weights, result.dual.reshape(n_samples, n_candidates)

    return run


def _cutting_planes(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
    """Kelley's method: the best responses to each classifier alone, then to the weights so far."""
    n_samples, n_candidates, n_classifiers = losses.shape
    deadline = time.perf_counter() + time_limit
    every = np.arange(n_samples)
    share = np.full(n_samples, 1.0 / n_samples)
    known = np.zeros((n_samples, n_candidates), dtype=bool)
    for k in range(n_classifiers):
        known[every, losses[:, :, k].argmax(axis=1)] = True
    accuracy = tol * float(np.ptp(losses))
    while True:
        result = highs.solve_rows(
            losses[known],
            np.append(0, np.cumsum(known.sum(axis=1))),
            share,
            solver="highs-ipm",
            time_limit=max(deadline - time.perf_counter(), 0.0),
        )
        if result.weights is None or result.dual is None:
            raise MixsolveError(f"HiGHS found no solution: {result.message}")
        mass = np.zeros(known.shape)
        mass[known] = result.dual
        scores = losses @ result.weights
        best = scores.argmax(axis=1)
        bound = np.einsum("ij,ijk->k", mass, losses).min()
        missing = not known[every, best].all()
        closed = scores[every, best].mean() - bound <= accuracy
        if closed or not missing or time.perf_counter() > deadline:
            return result.weights, mass
        known[every, best] = True


def _cvxpy(solver: str) -> Callable[[np.ndarray, float, float, float], Answer]:
    def run(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
        import cvxpy as cp

        n_samples, n_candidates, n_classifiers = losses.shape
        scale = float(np.ptp(losses)) or 1.0
        rows = (losses - losses.min()).reshape(-1, n_classifiers) / scale
        weights = cp.Variable(n_classifiers, nonneg=True)
        scores = cp.reshape(rows @ weights, (n_samples, n_candidates), order="C")
        if alpha == 0.0:
            worst = cp.Variable((n_samples, 1))
            rule = scores <= worst @ np.ones((1, n_candidates))
            objective, constraints = cp.sum(worst) / n_samples, [rule]
        else:
            smooth = alpha / scale
            soft = cp.log_sum_exp(scores / smooth, axis=1) - math.log(n_candidates)
            objective, constraints = smooth * cp.sum(soft) / n_samples, []
        model = cp.Problem(cp.Minimize(objective), [*constraints, cp.sum(weights) == 1])
        options: dict[str, Any] = {
            "CLARABEL": {"time_limit": time_limit, "tol_gap_abs": tol, "tol_gap_rel": tol},
            "SCS": {"time_limit_secs": time_limit, "eps_abs": tol, "eps_rel": tol},
            "PDLP": {"time_limit_sec": time_limit},
        }[solver]
        if solver == "SCS":
            options["max_iters"] = 10_000_000
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on its accuracy, which the certificate measures
            model.solve(solver=solver, **options)
        if weights.value is None or not np.isfinite(weights.value).all():
            raise MixsolveError(f"{solver} found no solution: {model.status}")
        mass = None
        if alpha == 0.0 and constraints[0].dual_value is not None:
            mass = np.maximum(constraints[0].dual_value, 0.0)
        return simplex.normalize(weights.value), mass

    return run


def _scipy(method: str) -> Callable[[np.ndarray, float, float, float], Answer]:
    def run(losses: np.ndarray, alpha: float, tol: float, time_limit: float) -> Answer:
        from scipy.optimize import Bounds, LinearConstraint, minimize

        size = losses.shape[2]
        deadline = time.perf_counter() + time_limit
        best = (math.inf, simplex.uniform(size))

        def objective(lam: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal best
            value, gradient = entropic_risk(losses, alpha, lam)
            if lam.min() >= -1e-9 and value < best[0]:
                best = (value, lam.copy())
            if time.perf_counter() > deadline:
                raise TimeoutError
            return value, gradient

        tolerances = {"ftol": 1e-16} if method == "SLSQP" else {"gtol": tol, "xtol": 1e-14}
        total = LinearConstraint(np.ones((1, size)), 1.0, 1.0)
        try:
            result = minimize(
                objective,
                simplex.uniform(size),
                jac=True,
                method=method,
                bounds=Bounds(0.0, 1.0),
                constraints=[total],
                options={"maxiter": 100_000, **tolerances},
            )
        except TimeoutError:
            return simplex.normalize(best[1]), None
        return simplex.normalize(result.x), None

    return run


PEERS = {
    "highs-ds": Peer(_highs("highs-ds"), exact=True, entropic=False),
    "highs-ipm": Peer(_highs("highs-ipm"), exact=True, entropic=False),
    "cutting-planes": Peer(_cutting_planes, exact=True, entropic=False),
    "clarabel": Peer(_cvxpy("CLARABEL"), exact=True, entropic=True, requires="clarabel"),
    "scs": Peer(_cvxpy("SCS"), exact=True, entropic=True, requires="scs"),
    "pdlp": Peer(_cvxpy("PDLP"), exact=True, entropic=False, requires="ortools"),
    "slsqp": Peer(_scipy("SLSQP"), exact=False, entropic=True),
    "trust-constr": Peer(_scipy("trust-constr"), exact=False, entropic=True),
    "mirror": Peer(first_order.mirror, exact=False, entropic=True),
    "fista": Peer(first_order.fista, exact=False, entropic=True),
    "fista-numba": Peer(first_order.fista_numba, exact=False, entropic=True, requires="numba"),
    "fista-jax": Peer(first_order.fista_jax, exact=False, entropic=True, requires="jax"),
    "lbfgs": Peer(first_order.lbfgs, exact=False, entropic=True),
}
