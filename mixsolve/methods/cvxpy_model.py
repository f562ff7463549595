"""Both problems as cvxpy models: the independent reference, and the way to add any constraints.

    alpha = 0:  min sum_i w_i t_i          s.t. <lam, l_r> <= t_i
    alpha > 0:  min sum_i w_i alpha_i u_i  s.t. sum_r p_r exp(<lam, l_r> / alpha_i - u_i) <= 1

over lam in the simplex, r running over the candidates of sample i. With constraints on the weights
no model of the tensor is made: "lp" and "newton" solve their small problems through cvxpy
(`mixsolve.small_game.clarabel`). Losses are shifted and scaled first, so that the solvers' absolute
tolerances mean the same on every game. Where alpha is so small that eq. (7) is the exact risk to
within the tolerance the model is the exact one; where it is so large that eq. (7) is the mean under
the base measure, a linear one.

References: Diamond and Boyd, CVXPY, 2016; Goulart and Chen, Clarabel, 2024.
"""

import warnings
from typing import Any

import numpy as np

from mixsolve.base.compilation import load
from mixsolve.feasible import Simplex
from mixsolve.feasible.simplex import normalize
from mixsolve.methods import METHODS
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Status, Stop
from mixsolve.small_game.clarabel import TOLERANCES

_LIMIT = 0.25  # of the tolerance: what a simpler model may leave out


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Build the model on all candidates, hand it to cvxpy's solver, read both strategies."""
    if not isinstance(problem.feasible, Simplex):
        method = METHODS["lp" if problem.alpha is None else "newton"]
        return method.minimize(problem, start, stop)
    cp = load("cvxpy")
    engine = problem.engine
    samples, candidates = engine.every_candidate()
    weighed = engine.sample_weight[samples] > 0
    samples, candidates = samples[weighed], candidates[weighed]
    exact = problem.alpha is None or problem.smoothing() <= _LIMIT * stop.tolerance
    for _ in stop.iterations(1):
        rows = engine.gather(samples, candidates)
        first = np.flatnonzero(np.diff(samples, prepend=-1))
        owners = np.cumsum(np.diff(samples, prepend=samples[0]) > 0)  # numbers without gaps
        rows = rows - np.minimum.reduceat(rows.min(axis=1), first)[owners, None]
        scale = float(rows.max()) or 1.0
        weights = cp.Variable(engine.n_classifiers, nonneg=True)
        scores = (rows / scale) @ weights
        weight = engine.sample_weight[samples[first]]
        if problem.alpha is None or exact:
            objective, attack_rows = _exact(cp, scores, owners, weight)
        else:
            log_prior = engine.log_prior(samples, candidates)
            alpha = problem.alpha[samples[first]] / scale
            if _bend(alpha, weight) <= _LIMIT * stop.tolerance / scale:
                objective, attack_rows = (weight[owners] * np.exp(log_prior)) @ scores, []
            else:
                objective, attack_rows = _entropic(cp, scores, owners, weight, alpha, log_prior)
        model = cp.Problem(cp.Minimize(objective), [cp.sum(weights) == 1, *attack_rows])
        message, ended = solve_by_clarabel(cp, model, stop)
        stop.status = ended
        if weights.value is None or not 0.0 < weights.value.max() < np.inf:  # or NaN
            return Outcome(start, message=message)
        found = normalize(weights.value)
        if exact:
            mass = np.zeros(weighed.size)
            mass[weighed] = np.maximum(attack_rows[0].dual_value, 0)
            attack = engine.strategy(*engine.every_candidate(), mass)
            lower_bound = problem.feasible.lowest(engine.expected_losses(attack))
            if problem.alpha is not None:
                lower_bound -= problem.divergence(attack)
            stop.record(found, engine.best_response(found).value, lower_bound)
            return Outcome(found, attack, message=message)
        soft = problem.soft_response(found)
        bound = soft.lower_bound(found, problem.feasible.lowest(soft.gradient))
        stop.record(found, soft.value, bound)
        return Outcome(found, message=message)
    return Outcome(start)


def _bend(alpha: np.ndarray, weight: np.ndarray) -> float:
    """How far eq. (7) is at most from the mean of the scores, which are 0 to 1."""
    return float(weight @ (1.0 / alpha)) / 8.0


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
    heights, rules = smooth_heights(cp, scores, samples, alpha, log_prior)
    return sample_weight @ heights, rules


def smooth_heights(
    cp: Any, scores: Any, samples: np.ndarray, alpha: np.ndarray, log_prior: np.ndarray
) -> Any:
    """Eq. (7) of each sample, alpha_i u_i, and the constraints that bound it from below."""
    csr_array = load("scipy.sparse").csr_array
    soft = cp.Variable(alpha.size)
    mass = cp.exp(cp.multiply(1.0 / alpha[samples], scores) + log_prior - soft[samples])
    sums = csr_array((np.ones(samples.size), (samples, np.arange(samples.size))))
    return cp.multiply(alpha, soft), [sums @ mass <= 1]


def solve_by_clarabel(cp: Any, model: Any, stop: Stop) -> tuple[str, Status | None]:
    """Solve with Clarabel; a message, and the status if a limit was hit."""
    options = dict(TOLERANCES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cvxpy's word on accuracy; the certificate says it exactly
        try:
            data, chain, inverse = model.get_problem_data(  # which takes long itself
                cp.CLARABEL, solver_opts=options
            )
            if stop.is_late():
                return "the time limit passed before Clarabel began", Status.TIME_LIMIT
            if stop.seconds_left is not None:
                options["time_limit"] = stop.seconds_left
            model.unpack_results(
                chain.solve_via_data(model, data, solver_opts=options), chain, inverse
            )
        except cp.error.SolverError as error:
            timed_out = stop.seconds_left == 0.0
            return f"Clarabel: {error}", Status.TIME_LIMIT if timed_out else None
    timed_out = model.status == cp.USER_LIMIT and stop.seconds_left == 0.0
    return f"Clarabel: {model.status}", Status.TIME_LIMIT if timed_out else None
