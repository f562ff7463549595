"""Constraint generation on one engine: a pass over the tensor, then a small game, and again.

The linear program min sum_i w_i max_j <lam, l_ij> has a row for every candidate, and hardly any of
them matters. Most samples have one candidate that wins for all weights near the optimum; together
these samples are one linear term. Only the samples of the working set W, of which several
candidates J_i may win, keep rows of their own:

    min_lam  <c, lam> + sum_{i in W} w_i max_{j in J_i} <lam, l_ij>,
    c = sum_{i not in W} w_i l_{i, best(i)}.

over the feasible weights. Its optimum bounds the game's from below, and its multipliers are the
attack that proves it. A pass over the tensor then gives the exact risk at its weights, and the
candidates that were missing: those that win for weights about as far away as the weights moved
last.

Reference: Blankenship and Falk, Infinitely constrained optimization problems, 1976.
"""

import logging

import numpy as np

from mixsolve.engines.base import Engine
from mixsolve.engines.responses import BestResponse
from mixsolve.feasible import FeasibleSet
from mixsolve.kernels.constants import TINY
from mixsolve.methods.stopping import Stop
from mixsolve.methods.working_set import Subproblem, WorkingSet, trusted_step
from mixsolve.small_game.game import SmallSolution
from mixsolve.small_game.solve import solve_small

logger = logging.getLogger("mixsolve")

DEFAULT_MAX_ITER = 100
_FIRST_RADIUS = 0.1  # within which optimal weights are looked for at first, about uniform ones
_PLAIN_ROWS, _PLAIN_CLASSIFIERS = 10_000, 30  # either of a game up to which it is that radius
_SMALL_TOLERANCE = 1e-10  # of a small game's spread
_SMALL_MAX_ITER = 50  # beyond, the next round's rows help more than further iterations


def optimal_weights(
    engine: Engine, feasible: FeasibleSet, start: np.ndarray, stop: Stop
) -> np.ndarray:
    """Weights (L,) for the exact problem of an engine, from `start` until `stop` is satisfied."""
    return ExactRounds(engine, feasible, stop).run(start, first_radius(engine))


def first_radius(engine: Engine) -> float:
    """How far from uniform weights the optimal ones are looked for at first, a coordinate.

    Of many classifiers many rows are near, and weights are trusted beyond the radius: a first small
    game of fewer rows takes less time, and its weights are as good.
    """
    share = np.sqrt(_PLAIN_ROWS / engine.n_rows)
    least = min(1.0, _PLAIN_CLASSIFIERS / engine.n_classifiers)
    return float(_FIRST_RADIUS * np.clip(share, least, 1.0) / np.sqrt(engine.n_classifiers))


class ExactRounds:
    """Constraint generation on one engine."""

    def __init__(self, engine: Engine, feasible: FeasibleSet, stop: Stop) -> None:
        self._engine = engine
        self._feasible = feasible
        self._stop = stop
        self._working = WorkingSet(engine)
        self._proof: tuple[np.ndarray, np.ndarray, BestResponse] | None = None
        self._fallbacks = 0
        self._most_rows = 0

    def run(self, weights: np.ndarray, radius: float) -> np.ndarray:
        """Rounds from `weights` (L,) until `stop` is satisfied; the best weights met.

        `radius` is about how far the optimal weights are, a coordinate.
        """
        stop, working = self._stop, self._working
        lower_bound = -np.inf
        small: SmallSolution | None = None
        share = 0.0
        for _ in stop.iterations(DEFAULT_MAX_ITER):
            # 1. A pass: the risk at the weights, and the rows that win near them.
            response = self._engine.near_response(weights, radius, working.limit)
            if stop.record(weights, response.value, lower_bound):
                break
            # 2. The working set takes in these rows, and those that the small game lacked.
            missing = working.add(response)
            complete = not missing and share == 1.0
            if complete and small is not None and small.converged:
                break  # the small game was the whole one: what gap is left is rounding
            self._most_rows = max(self._most_rows, working.keys.size)
            game = working.subproblem(response)
            # 3. The small game of the working set, over the feasible weights.
            small = self._solve(game, small, response.value - lower_bound, by_highs=complete)
            # 4. The bound that its dual proves. Rows without a dual leave the working set, but only
            #    while the bound rises, so that the rounds cannot cycle.
            bound = self._feasible.lowest(small.dual @ game.rows)
            if bound > lower_bound:
                lower_bound, dual = bound, small.dual[game.others :]
                self._proof = (game.keys, dual, response)
                working.keep(dual > 0.0)
            # 5. A step to its weights, not far beyond where rows were looked for.
            reach = radius if missing else np.inf
            weights, share, radius = trusted_step(weights, small.weights, reach)
        return weights if stop.weights is None else stop.weights

    def _solve(
        self, game: Subproblem, earlier: SmallSolution | None, gap: float, by_highs: bool
    ) -> SmallSolution:
        """Solve the small game; by HiGHS if no row was missing from the one left open earlier."""
        if by_highs:
            assert earlier is not None
            logger.debug("interior point: %s; HiGHS takes over", earlier.message)
            self._fallbacks += 1
        feasible, stop = self._feasible, self._stop
        found = solve_small(
            feasible.columns(game.rows),
            game.offsets,
            game.weight,
            feasible.cuts,
            tol=_SMALL_TOLERANCE,
            max_iter=_SMALL_MAX_ITER,
            start=earlier,
            start_gap=1.0 if earlier is None else gap / max(earlier.spread, TINY),
            halted=stop.halted,
            time_limit=stop.seconds_left,
            unfinished=earlier if by_highs else None,
        )
        return feasible.restored(found)

    def attack(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Samples, candidates and masses that prove the best bound; None before there is one."""
        if self._proof is None:
            return None
        keys, dual, response = self._proof
        played = dual > 0.0
        working, rows = np.divmod(keys[played], self._engine.n_rows)
        counts = np.bincount(working, minlength=self._engine.n_samples)
        has_rows = counts > 0
        np.maximum(counts, 1, out=counts)
        mixed = np.repeat(has_rows, counts)
        samples = np.repeat(np.arange(counts.size), counts)
        candidates = np.repeat(response.candidates, counts)
        candidates[mixed] = rows
        mass = np.repeat(self._engine.sample_weight, counts)
        mass[mixed] = dual[played]
        return samples, candidates, mass

    def message(self) -> str:
        """Rounds, rows, and whether HiGHS had to help."""
        words = (
            f"{self._stop.nit} rounds, {self._most_rows} of {self._engine.n_rows} rows at most, "
            f"{self._working.keys.size} at the end"
        )
        if self._fallbacks:
            words += f"; the interior point gave {self._fallbacks} small game(s) to HiGHS"
        return words
