"""Both problems as cvxpy models: the independent reference, and the way to add constraints.

    alpha = 0:  min sum_i w_i t_i          s.t. <lam, l_r> <= t_i
    alpha > 0:  min sum_i w_i alpha_i u_i  s.t. sum_r p_r exp(<lam, l_r> / alpha_i - u_i) <= 1

over lam in the simplex and whatever constraints the caller adds, r running over the candidates of
sample i. Losses are shifted and scaled first, so that the solvers' absolute tolerances mean the
same on every game.

References: Diamond and Boyd, CVXPY, 2016; Goulart and Chen, Clarabel, 2024.
"""

import warnings
from typing import Any

import numpy as np

from mixsolve.errors import MixsolveError
from mixsolve.problem import Constraints, Outcome, Problem
from mixsolve.simplex import normalize
from mixsolve.solution import Status
from mixsolve.stopping import Stop

_FEASIBILITY = 1e-6


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Build the model on all candidates, hand it to cvxpy's solver, read both strategies."""
    import cvxpy as cp

    engine = problem.engine
    samples, candidates = engine.every_candidate()
    for _ in stop.iterations(1):
        rows = engine.gather(samples, candidates)
        first = np.flatnonzero(np.diff(samples, prepend=-1))
        rows = rows - np.minimum.reduceat(rows.min(axis=1), first)[samples, None]
        scale = float(rows.max()) or 1.0
        weights = cp.Variable(engine.n_classifiers, nonneg=True)
        scores = (rows / scale) @ weights
        if problem.alpha is None:
            objective, attack_rows = _exact(cp, scores, samples, engine.sample_weight)
        else:
            log_prior = engine.log_prior(samples, candidates)
            alpha = problem.alpha / scale
            objective, attack_rows = _entropic(
                cp, scores, samples, engine.sample_weight, alpha, log_prior
            )
        extra = _call(problem.constraints, weights)
        model = cp.Problem(cp.Minimize(objective), [cp.sum(weights) == 1, *attack_rows, *extra])
        message, ended = _solve(cp, model, stop)
        stop.status = ended
        if model.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
            raise MixsolveError(
                "constraints cannot be met by any weights on the simplex (the solver proved "
                "infeasibility); loosen or drop one"
            )
        if weights.value is None or not np.isfinite(weights.value).all():
            return Outcome(start, message=message, failed=ended is None)
        found = normalize(weights.value)
        violation = _violation(weights, found, extra)
        if violation > _FEASIBILITY:
            message += f"; the weights violate a constraint by {violation:.2g}"
        if problem.alpha is None:
            attack = engine.strategy(samples, candidates, np.maximum(attack_rows[0].dual_value, 0))
            lower_bound = problem.lowest(engine.expected_losses(attack))
            stop.record(found, engine.best_response(found).value, lower_bound)
            return Outcome(found, attack, message=message, failed=violation > _FEASIBILITY)
        soft = problem.soft_response(found)
        bound = soft.lower_bound(found, problem.lowest(soft.gradient))
        stop.record(found, soft.value, bound)
        return Outcome(found, message=message, failed=violation > _FEASIBILITY)
    return Outcome(start)


def minimize_linear(gradient: np.ndarray, constraints: Constraints) -> float:
    """Minimum of ``<gradient, lam>`` over the weights that meet the constraints.

    Parameters
    ----------
    gradient : ndarray of float64, shape (L,)
        Loss of each classifier under some attack.
    constraints : callable
        Maps a cvxpy variable to a sequence of cvxpy constraints.

    Returns
    -------
    float
        As accurate as cvxpy's solver, about 1e-8 of the gradient's spread.
    """
    import cvxpy as cp

    shift, scale = float(gradient.min()), float(np.ptp(gradient)) or 1.0
    weights = cp.Variable(gradient.size, nonneg=True)
    model = cp.Problem(
        cp.Minimize((gradient - shift) / scale @ weights),
        [cp.sum(weights) == 1, *_call(constraints, weights)],
    )
    try:
        optimum = model.solve()
    except cp.error.SolverError:
        optimum = None
    if optimum is None or not np.isfinite(optimum):
        return shift  # the unconstrained minimum: a weaker bound, but a valid one
    return shift + scale * float(optimum)


def _exact(cp: Any, scores: Any, samples: np.ndarray, sample_weight: np.ndarray) -> Any:
    worst = cp.Variable(sample_weight.size)
    return sample_weight @ worst, [scores <= worst[samples]]


def _entropic(
    cp: Any,
    scores: Any,
    samples: np.ndarray,
    sample_weight: np.ndarray,
    alpha: np.ndarray,
    log_prior: np.ndarray,
) -> Any:
    from scipy.sparse import csr_array

    soft = cp.Variable(sample_weight.size)
    mass = cp.exp(cp.multiply(1.0 / alpha[samples], scores) + log_prior - soft[samples])
    sums = csr_array((np.ones(samples.size), (samples, np.arange(samples.size))))
    return (sample_weight * alpha) @ soft, [sums @ mass <= 1]


def _call(constraints: Constraints | None, weights: Any) -> list[Any]:
    if constraints is None:
        return []
    made = constraints(weights)
    try:
        return list(made)
    except TypeError as error:
        raise MixsolveError(
            f"constraints must return a list of cvxpy constraints, got {type(made).__name__}; "
            "wrap a single constraint in a list"
        ) from error


def _solve(cp: Any, model: Any, stop: Stop) -> tuple[str, Status | None]:
    """Solve with Clarabel; say how it ended, and with which limit if one was hit."""
    options = {} if stop.seconds_left is None else {"time_limit": stop.seconds_left}
    tight = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cvxpy's word on accuracy; the certificate says it exactly
        try:
            model.solve(solver=cp.CLARABEL, **options, **tight)
        except cp.error.SolverError as error:
            timed_out = stop.seconds_left == 0.0
            return f"Clarabel: {error}", Status.TIME_LIMIT if timed_out else None
    timed_out = model.status == cp.USER_LIMIT and stop.seconds_left == 0.0
    return f"Clarabel: {model.status}", Status.TIME_LIMIT if timed_out else None


def _violation(variable: Any, weights: np.ndarray, constraints: list[Any]) -> float:
    variable.value = weights
    worst = [float(np.max(constraint.violation())) for constraint in constraints]
    return max(worst, default=0.0)
