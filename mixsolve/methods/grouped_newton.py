"""Newton's method on eq. (7) where the attacker also weighs the blocks of samples.

    min_lam  max_{m in W}  sum_b m_b F_b(lam),

F_b being eq. (7) on block b: a maximum of smooth convex functions. A step minimises the model

    max_{m in W}  sum_b m_b (F_b + <g_b, d>)  +  1/2 d' H d,    H = sum_b m_b H_b,

over the feasible weights (`mixsolve.small_game.grouped`), H taken with the masses of the step
before, and is cut back until the objective has decreased enough. It is sequential quadratic
programming for a minimax, with quadratic convergence where masses and weights are unique. The
masses m of a step prove, by convexity,

    optimum  >=  sum_b m_b (F_b - <lam, g_b>) + min <sum_b m_b g_b, .>.

With a temperature of the groups the objective is smooth, and Newton's method runs as it is.

References: Meunier et al., ICML 2021, section 4.1; Han, Variable metric methods for minimizing a
class of nondifferentiable functions, Mathematical Programming, 1981.
"""

import numpy as np

from mixsolve.engines.grouped import GroupedEngine, SoftBlocks
from mixsolve.feasible import FeasibleSet, simplex
from mixsolve.kernels.constants import (
    ARMIJO,
    CUT_BACK,
    DAMPING,
    LEAST_DAMPING,
    MAX_CUT_BACK,
    NARROWER,
    NEARLY_EXACT,
    NEWTON_PATIENCE,
    ROUNDING,
    TINY,
)
from mixsolve.methods import newton
from mixsolve.methods.exact_rounds import first_radius
from mixsolve.methods.grouped_rounds import GroupedRounds, grouped
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop
from mixsolve.small_game.game import Cuts
from mixsolve.small_game.grouped import solve_grouped
from mixsolve.small_game.grouped_game import Bend, GroupedGame, GroupedSolution

_TOLERANCE = 1e-11  # of a step's model
_MAX_ITER = 100
_MOST_TRIALS = 40  # along a step
_CUT = 0.4  # of its length


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Minimise from `start`."""
    engine, alpha, feasible = grouped(problem.engine), problem.alpha, problem.feasible
    assert alpha is not None
    if engine.blocks.temperature > 0.0:
        weights = newton.descend(problem.engine, alpha, feasible, start, stop)
        return Outcome(weights, proof=stop.proof, message=f"{stop.nit} iterations")
    if float(alpha.max()) <= NEARLY_EXACT * engine.spread:
        start = _exact(engine, feasible, start, stop.part(float(alpha.min())))
    steps = _Steps(engine, alpha, feasible, stop)
    weights = steps.run(start)
    proof, mass = steps.proof
    attack = engine.inner.gibbs(proof, alpha).weighed(engine.blocks.struck(mass))
    return Outcome(weights, attack, message=f"{stop.nit} iterations")


def _exact(
    engine: GroupedEngine, feasible: FeasibleSet, start: np.ndarray, stop: Stop
) -> np.ndarray:
    return GroupedRounds(engine, feasible, stop).run(start, first_radius(engine.inner))


class _Steps:
    """Steps to the minimum of the model.

    Attributes
    ----------
    proof : tuple of ndarray
        Weights (L,) and masses (A,) that gave the best bound.
    """

    def __init__(
        self, engine: GroupedEngine, alpha: np.ndarray, feasible: FeasibleSet, stop: Stop
    ) -> None:
        self._engine = engine
        self._alpha = alpha
        self._feasible = feasible
        self._stop = stop

    def run(self, weights: np.ndarray) -> np.ndarray:
        """Step from `weights` (L,) until `stop` is satisfied; the best weights met."""
        engine, stop, masses = self._engine, self._stop, self._engine.blocks.masses
        soft = engine.soft_blocks(weights, self._alpha)
        value, mass = masses.support(soft.values)
        self.proof = weights, mass
        narrowest, since, cuts = np.inf, 0, 0
        for _ in stop.iterations(newton.DEFAULT_MAX_ITER):
            bound = self._bound(soft, weights, mass)
            if bound > stop.lower_bound:
                self.proof = weights, mass
            if stop.record(weights, value, bound):
                break
            since += 1
            if stop.gap < NARROWER * narrowest:
                narrowest, since = stop.gap, 0
            if since > NEWTON_PATIENCE:
                break  # what gap is left is rounding
            found = self._model(soft, weights, mass, value - bound)
            mass = found.mass
            again = self._bound(soft, weights, mass)
            if again > stop.lower_bound:  # the step's masses prove more, at the same weights
                self.proof = weights, mass
                stop.lower_bound = again
                if stop.gap <= stop.tolerance:
                    stop.record(weights, value, again)
                    break
            weights, soft, value, length = self._search(weights, value, found)
            cuts += length < CUT_BACK
            if cuts == MAX_CUT_BACK:
                # The model misses kinks on the way: alpha is small for this game.
                part = stop.part(float(self._alpha.min()))
                exact = _exact(engine, self._feasible, weights, part)
                there = engine.soft_blocks(exact, self._alpha)
                lower, _ = masses.support(there.values)
                if lower < value:
                    weights, soft, value = exact, there, lower
                cuts += 1
        return weights if stop.weights is None else stop.weights

    def _bound(self, soft: SoftBlocks, weights: np.ndarray, mass: np.ndarray) -> float:
        gradient = mass @ soft.gradients
        tangent = float(mass @ soft.values - weights @ gradient)
        return tangent + self._feasible.lowest(gradient)

    def _model(
        self, soft: SoftBlocks, weights: np.ndarray, mass: np.ndarray, gap: float
    ) -> GroupedSolution:
        """Minimise the model about `weights`, over the feasible weights."""
        feasible, engine = self._feasible, self._engine
        bend = engine.bend(weights, self._alpha, mass)
        largest = float(bend.diagonal().max())
        bend = bend + np.eye(weights.size) * max(DAMPING * gap, LEAST_DAMPING * largest, TINY)
        # Weights sum to 1, so that the constant of a linear term can stand in each coefficient.
        linear = soft.gradients + (soft.values - soft.gradients @ weights)[:, None]
        used = np.arange(weights.size) if feasible.used is None else feasible.used
        cuts = Cuts.none(used.size) if feasible.cuts is None else feasible.cuts
        assert isinstance(cuts, Cuts)  # checked with the constraints
        game = GroupedGame(
            np.empty((0, used.size)),
            np.zeros(1, dtype=np.int64),
            np.empty(0),
            np.zeros(mass.size + 1, dtype=np.int64),
            feasible.columns(linear),
            engine.blocks.masses,
            max(engine.spread, TINY),
            cuts,
            Bend(np.ascontiguousarray(bend[np.ix_(used, used)]), weights[used]),
        )
        found = solve_grouped(game, tol=_TOLERANCE, max_iter=_MAX_ITER, halted=self._stop.halted)
        return feasible.restored(found)  # type: ignore[return-value, arg-type]

    def _search(
        self, weights: np.ndarray, value: float, found: GroupedSolution
    ) -> tuple[np.ndarray, SoftBlocks, float, float]:
        """The first point between the model's minimum and `weights` that is low enough."""
        masses = self._engine.blocks.masses
        step = found.weights - weights
        promised = min(found.value - value, 0.0)
        noise = ROUNDING * abs(value)
        length = 1.0
        for cut in range(_MOST_TRIALS):
            point = simplex.normalize(weights + length * step)
            soft = self._engine.soft_blocks(point, self._alpha)
            there, _ = masses.support(soft.values)
            if there <= value + ARMIJO * length * promised + noise:
                break
            if cut and self._stop.is_late():
                break
            length *= _CUT
        return point, soft, there, length
