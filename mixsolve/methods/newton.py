"""Newton's method on the entropic objective F of eq. (7), a few full passes in all.

Each step minimises the quadratic model <g, d> + 1/2 d' H d over the feasible weights, exactly, and
is cut back until F has decreased enough. With q the Gibbs strategy,

    g = sum_i w_i E_q[l_i],    H = sum_i (w_i / alpha_i) Cov_q(l_i),

in one fused pass. Forming H takes most of it, and near the optimum H hardly changes: once a step
narrows the gap ten times, the next passes go without, and the H of the step before is corrected by
the change y of the gradient along a step s, with B = H, to (Broyden, Fletcher, Goldfarb, Shanno)

    B + y y' / y's - B s (B s)' / s'B s.

With many classifiers the first H comes from some samples alone, and the second pass goes without.
The convergence stays superlinear. The pass that the last gaps say will be the last gives the whole
certificate. The model only depends on candidates within a few alpha of the best. Where alpha
is small, the optimum is about alpha away from the exact problem's, which constraint generation
gives: from there the model sees all that matters, and the number of steps hardly depends on alpha.
The same start is taken once two steps had to be cut back.

Candidates far more than 40 alpha below the best weigh nothing: as in the exact method, samples left
with one candidate are one linear term, and Newton runs on the small game of a working set. A full
pass then certifies, by convexity,

    F(lam) - F* <= <lam, g> - min_k g_k,

and if the gap is too wide another round begins where the last one ended. With many samples the
rounds begin on a subsample. Where too many candidates count, Newton runs on the tensor itself.

References: Meunier et al., ICML 2021, section 4.1; Nocedal and Wright, Numerical Optimization,
2006, chapters 3, 6 and 16.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mixsolve.arrays.tensor import LossTensor
from mixsolve.engines.base import Engine
from mixsolve.engines.bookkeeping import count_passes
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.responses import NearResponse, SoftResponse
from mixsolve.feasible import FeasibleSet, simplex
from mixsolve.kernels.constants import (
    ARMIJO,
    CUT_BACK,
    CUTOFF,
    DAMPING,
    EPSILON,
    LEAST_DAMPING,
    MAX_CUT_BACK,
    NARROWER,
    NEARLY_EXACT,
    NEGLIGIBLE_SMOOTHING,
    NEWTON_PATIENCE,
    ROUNDING,
    SECANT_LEAST,
    SECANT_MOST,
    TINY,
)
from mixsolve.methods import exact_rounds
from mixsolve.methods.presolve import PresolvedGame
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop
from mixsolve.methods.working_set import WorkingSet, row_limit, subsamples, trusted_step

DEFAULT_MAX_ITER = 200
_NEAR = CUTOFF + 20.0  # in units of alpha: rows that may count once the weights have moved
_MAX_SHARE = 0.2  # of the rows, up to which the small game pays
_FAR = 1.0  # radius about weights that may be anywhere
_SAMPLING_RADIUS = 1.0  # times n^-1/2: where the optimal weights of n samples are looked for
_LEVEL_TOLERANCE = 3e-3  # of the spread, times n^-1/2: a subsample's weights err more than that
_SMALL_TOLERANCE = 0.1  # of the tolerance, left to the small games
_FAST = 0.1  # times the gap before, to which a step brings it where the model is good
_COSTLY = 32  # classifiers, from which on a first Hessian is an estimate, the second pass without
_NEARLY_THERE = 30.0  # times the tolerance: a whole certificate costs little more than the value
_MOST_TRIALS = 65  # along a step, the last one at 1e-10 of it at most


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Minimise eq. (7) from `start`."""
    alpha = problem.alpha
    assert alpha is not None
    least = NEGLIGIBLE_SMOOTHING * stop.tolerance / max(problem.engine.surprise, TINY)
    if (alpha < least).any() and stop.tolerance > 0.0:
        # Some samples are nearly exact: raising their alpha to the least costs next to nothing.
        raised = np.maximum(alpha, least)
        outcome = minimize(
            replace(problem, alpha=raised), start, stop.less(NEGLIGIBLE_SMOOTHING * stop.tolerance)
        )
        proof = outcome.weights if outcome.proof is None else outcome.proof
        return replace(outcome, attack=problem.engine.gibbs(proof, raised))
    game = PresolvedGame(problem, stop.halted)
    engine, alpha = game.engine, game.alpha
    assert alpha is not None
    weights, radius, dense = start, _FAR, False
    nearly_exact = float(alpha.max()) <= NEARLY_EXACT * engine.spread
    for samples in [*([] if problem.warm else subsamples(engine)), None]:
        level = engine if samples is None else engine.subsample(samples)
        if nearly_exact and radius == _FAR:
            exact = stop.part(float(alpha.min()))
            weights = exact_rounds.optimal_weights(level, problem.feasible, weights, exact)
            radius = 0.0
        if samples is None:
            break
        tolerance = _LEVEL_TOLERANCE * level.spread / np.sqrt(level.n_samples)
        rounds = _EntropicRounds(level, alpha[samples], problem.feasible, stop.part(tolerance))
        weights = rounds.run(weights, radius, dense)
        radius = _SAMPLING_RADIUS / np.sqrt(level.n_samples)
        dense = rounds.near_share(weights, radius) > _EntropicRounds.most(engine) / engine.n_rows
        count_passes(engine, level)
        del level, rounds  # copies of part of the tensor
    rounds = _EntropicRounds(engine, alpha, problem.feasible, stop)
    weights = rounds.run(weights, radius, dense)
    return game.outcome(weights, rounds.message, proof=stop.proof)


class _EntropicRounds:
    """Small games of a working set, each certified by a pass over the whole."""

    def __init__(
        self, engine: Engine, alpha: np.ndarray, feasible: FeasibleSet, stop: Stop
    ) -> None:
        self._engine = engine
        self._alpha = alpha
        self._feasible = feasible
        self._stop = stop
        self._working = WorkingSet(engine)
        self._limit = self.most(engine)
        self._scale = float(alpha.max()) / max(engine.spread, TINY)

    @staticmethod
    def most(engine: Engine) -> int:
        """Rows up to which the small game pays."""
        return min(row_limit(engine), int(_MAX_SHARE * engine.n_rows))

    def near_share(self, weights: np.ndarray, radius: float) -> float:
        """The share of rows that count within a radius of some weights."""
        each = radius / np.sqrt(weights.size)
        near = self._engine.near_response(weights, each, 0, _NEAR * self._alpha)
        return near.n_near / self._engine.n_rows

    @property
    def message(self) -> str:
        """Iterations, and the rows they worked on."""
        rows = self._working.keys.size or self._engine.n_rows
        return f"{self._stop.nit} iterations on {rows} of {self._engine.n_rows} rows"

    def run(self, weights: np.ndarray, radius: float, dense: bool) -> np.ndarray:
        """Rounds from `weights`, about `radius` from the optimum, until `stop` is satisfied.

        Where too many rows count, as `dense` expects, Newton runs on all of them.
        """
        if dense or radius == _FAR or _NEAR * self._scale >= 1.0:
            return descend(self._engine, self._alpha, self._feasible, weights, self._stop)
        radius /= np.sqrt(weights.size)
        for _ in self._stop.iterations(DEFAULT_MAX_ITER):
            # 1. A pass: the rows that count near the weights.
            near = self._engine.near_response(weights, radius, self._limit, _NEAR * self._alpha)
            if near.n_near > self._limit:
                self._stop.nit -= 1  # Newton counts its own
                weights = descend(self._engine, self._alpha, self._feasible, weights, self._stop)
                break
            # 2. The working set takes them in. 3. The small game.
            missing = self._working.add(near)
            found = self._solve_small(near, weights)
            # 4. A step to its weights, certified there by a pass.
            reach = max(radius, self._scale) if missing else np.inf
            weights, _, radius = trusted_step(weights, found, reach)
            soft = self._engine.soft_answer(weights, self._alpha).soft
            if self._stop.record(weights, soft.value, _bound(soft, weights, self._feasible)):
                break
        return weights if self._stop.weights is None else self._stop.weights

    def _solve_small(self, near: NearResponse, weights: np.ndarray) -> np.ndarray:
        engine = self._engine
        game = self._working.subproblem(near)
        samples, candidates = np.divmod(game.keys, engine.n_rows)
        prior = np.ones(game.rows.shape[0])
        prior[game.others :] = np.exp(engine.log_prior(samples, candidates))
        first = np.flatnonzero(np.diff(samples, prepend=-1))
        alpha = np.concatenate([np.ones(game.others), self._alpha[samples[first]]])
        small = MemoryEngine(
            LossTensor.from_rows(game.rows, game.offsets),
            game.weight,
            np.empty(0, dtype=np.uint8),
            prior,
        )
        stop = self._stop.part(_SMALL_TOLERANCE * self._stop.tolerance)
        return descend(small, alpha, self._feasible, weights, stop)


def descend(
    engine: Engine, alpha: np.ndarray, feasible: FeasibleSet, weights: np.ndarray, stop: Stop
) -> np.ndarray:
    """Newton on all rows of an engine, alpha (N,) > 0, from some weights (L,); the best weights.

    `stop` records every point.
    """
    costly = engine.n_classifiers >= _COSTLY
    soft = (engine.rough_response if costly else engine.soft_response)(weights, alpha)
    curvature = soft.hessian
    narrowest, since, cuts, before = np.inf, 0, 0, np.inf
    for _ in stop.iterations(DEFAULT_MAX_ITER):
        bound = _bound(soft, weights, feasible)
        if stop.record(weights, soft.value, bound):
            break
        since += 1
        if stop.gap < NARROWER * narrowest:
            narrowest, since = stop.gap, 0
        if since > NEWTON_PATIENCE:
            break  # what gap is left is rounding
        assert curvature is not None
        # Over the whole simplex a curvature below the gap changes the slope by less than the gap:
        # this much damping slows nothing down, and it keeps flat directions apart from rounding.
        model = curvature
        bends = model.diagonal()
        largest = float((bends if feasible.used is None else bends[feasible.used]).max())
        ridge = max(DAMPING * (soft.value - bound), LEAST_DAMPING * largest, TINY)
        if not np.isfinite([ridge, *soft.gradient]).all():
            break
        target = feasible.minimize_quadratic(soft.gradient, model, weights, ridge)
        last, there = weights, soft
        respond = _next_pass(engine, alpha, soft, stop.gap, before, stop)
        before = stop.gap
        weights, soft, length = _line_search(respond, weights, soft, target, stop)
        curvature = soft.hessian
        if curvature is None:
            curvature = _corrected(model, weights - last, soft.gradient - there.gradient)
        if length >= CUT_BACK:
            continue
        cuts += 1
        if cuts == MAX_CUT_BACK:
            # The model misses kinks on the way: alpha is small for this game.
            part = stop.part(float(alpha.min()))
            exact = exact_rounds.optimal_weights(engine, feasible, weights, part)
            there = engine.soft_response(exact, alpha)
            if there.value < soft.value:
                weights, soft, curvature = exact, there, there.hessian
    return weights if stop.weights is None else stop.weights


def _next_pass(
    engine: Engine, alpha: np.ndarray, soft: SoftResponse, gap: float, before: float, stop: Stop
) -> Callable[[np.ndarray], SoftResponse]:
    """How the next point is evaluated, given the gap and that before the last step.

    The latter is infinite where there is none yet.
    """
    ratio = gap / before
    if before == np.inf:
        ratio = 1.0 if engine.n_classifiers < _COSTLY else _FAST
    if not ratio <= _FAST:
        return lambda point: engine.soft_response(point, alpha)
    # Newton's method squares the relative error; with an H corrected it is reduced as before.
    exact = soft.hessian is not None and before < np.inf
    foreseen = gap * (ratio * ratio if exact else ratio)
    if foreseen <= _NEARLY_THERE * stop.tolerance:
        return lambda point: engine.soft_answer(point, alpha).soft
    return lambda point: engine.soft_response(point, alpha, hessian=False)


def _corrected(model: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The model (L, L) with the gradient's change (L,) along a step (L,) taken in."""
    with np.errstate(over="ignore", invalid="ignore"):
        seen, known = float(change @ step), model @ step
        foreseen = float(known @ step)
    if not (seen > EPSILON * foreseen > 0.0):
        return model  # rounding, or beyond the numbers there are
    return model + np.outer(change, change / seen) - np.outer(known, known / foreseen)


def _bound(soft: SoftResponse, weights: np.ndarray, feasible: FeasibleSet) -> float:
    return soft.lower_bound(weights, feasible.lowest(soft.gradient))


def _line_search(
    respond: Callable[[np.ndarray], SoftResponse],
    weights: np.ndarray,
    soft: SoftResponse,
    target: np.ndarray,
    stop: Stop,
) -> tuple[np.ndarray, SoftResponse, float]:
    """The first point between `target` and `weights` that is low enough, F there, and its place.

    Low enough: by Armijo's rule to rounding, or still going down along the step (F is convex, so it
    has only gone down until there).
    """
    step = target - weights
    slope = float(soft.gradient @ step)
    length = 1.0
    noise = ROUNDING * abs(soft.value)
    for cut in range(_MOST_TRIALS):
        point = simplex.normalize(weights + length * step)
        there = respond(point)
        ahead = float(there.gradient @ step)
        wanted = soft.value + ARMIJO * length * min(slope, 0.0) + noise
        if there.value <= wanted or ahead <= 0.0 or (cut and stop.is_late()):
            break
        # The slope's zero by the secant of its two values, kept away from both ends.
        length *= min(max(slope / (slope - ahead), SECANT_LEAST), SECANT_MOST)
    return point, there, length
