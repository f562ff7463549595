"""The exact problem by constraint generation: a few passes, and a small game after each.

The linear program min sum_i w_i max_j <lam, l_ij> has a row for every candidate, and hardly any of
them matters. Most samples have one candidate that wins for all weights near the optimum; together
these samples are one linear term. Only samples whose winner is in doubt keep rows of their own:

    min_lam  <c, lam> + sum_{i in doubt} w_i max_{j in J_i} <lam, l_ij>,
    c = sum_{i not in doubt} w_i l_{i, best(i)}.

over the feasible weights. Its optimum bounds the game's from below, and its multipliers are the
attack that proves it. A pass over the tensor then gives the exact risk at its weights, and the
candidates that were missing. Candidates are in doubt if they win for weights about as far away as
the weights moved last. With many samples the rounds begin on a subsample, whose optimal weights are
near those of the whole, so that the whole tensor is seen two or three times.

Reference: Blankenship and Falk, Infinitely constrained optimization problems, 1976.
"""

import logging
from dataclasses import replace
from functools import partial

import numpy as np

from mixsolve.engines.base import BestResponse, Engine, count_passes
from mixsolve.feasible import FeasibleSet
from mixsolve.methods import presolve
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop
from mixsolve.methods.working_set import Doubt, Subproblem, subsamples, trusted_step
from mixsolve.small_game import highs
from mixsolve.small_game.crossover import solve_small_game
from mixsolve.small_game.game import Cuts, SmallSolution

logger = logging.getLogger("mixsolve")

DEFAULT_MAX_ITER = 100
_LEVEL_TOLERANCE = 1e-4  # of the spread: a subsample's weights need not be exact
_FIRST_RADIUS = 0.1  # within which optimal weights are looked for at first, about uniform ones
_SAMPLING_RADIUS = 1.0  # times n^-1/2: the same about the optimal weights of a subsample of n
_TINY = float(np.finfo(np.float64).tiny)
_SMALL_TOLERANCE = 1e-10  # of a small game's spread
_SMALL_MAX_ITER = 50  # beyond, the next round's rows help more than further iterations


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Solve the exact problem from `start`."""
    game = presolve.PresolvedGame(problem, lambda: stop.is_late)
    engine = game.engine
    rounds = _ExactRounds(engine, problem.feasible, stop)
    weights, radius = start, _first_radius(engine)
    if not problem.warm:
        for samples in subsamples(engine):
            level = engine.subsample(samples)
            part = stop.part(_LEVEL_TOLERANCE * level.spread)
            weights = _ExactRounds(level, problem.feasible, part).run(weights, radius)
            radius = _SAMPLING_RADIUS / np.sqrt(level.n_samples * engine.n_classifiers)
            count_passes(engine, level)
            del level  # a copy of part of the tensor
    weights = rounds.run(weights, radius)
    message, played = rounds.message(), rounds.attack()
    del rounds  # what it holds a sample is needed no more, and much in a large game
    attack = None if played is None else problem.engine.strategy(*game.lift(*played))
    return game.outcome(weights, message, attack=attack)


def optimal_weights(
    engine: Engine, feasible: FeasibleSet, start: np.ndarray, stop: Stop
) -> np.ndarray:
    """Weights (L,) for the exact problem of an engine, from `start` until `stop` is satisfied."""
    return _ExactRounds(engine, feasible, stop).run(start, _first_radius(engine))


def _first_radius(engine: Engine) -> float:
    return _FIRST_RADIUS / np.sqrt(engine.n_classifiers)


class _ExactRounds:
    """Constraint generation on one engine."""

    def __init__(self, engine: Engine, feasible: FeasibleSet, stop: Stop) -> None:
        self._engine = engine
        self._feasible = feasible
        self._stop = stop
        self._doubt = Doubt(engine)
        self._proof: tuple[np.ndarray, np.ndarray, BestResponse] | None = None
        self._fallbacks = 0
        self._most_rows = 0

    def run(self, weights: np.ndarray, radius: float) -> np.ndarray:
        """Rounds from `weights` until `stop` is satisfied; the best weights met.

        Parameters
        ----------
        weights : ndarray of float64, shape (L,)
            On the simplex.
        radius : float
            How far from the optimal weights they are thought to be, a coordinate.
        """
        lower_bound = -np.inf
        small: SmallSolution | None = None
        share = 0.0
        for _ in self._stop.iterations(DEFAULT_MAX_ITER):
            response = self._engine.near_response(weights, radius, self._doubt.limit)
            if self._stop.record(weights, response.value, lower_bound):
                break
            missing = self._doubt.add(response)
            complete = not missing and share == 1.0
            if complete and small is not None and small.converged:
                break  # the small game was the whole one: what gap is left is rounding
            self._most_rows = max(self._most_rows, self._doubt.keys.size)
            game = self._doubt.game(response)
            if complete:
                small = self._ask_highs(game, small)
            else:
                small = self._solve(game, small, response.value - lower_bound)
            bound = self._feasible.lowest(small.dual @ game.rows)
            if bound > lower_bound:
                # Rows are only dropped while the bound rises, so no round can come back.
                lower_bound, dual = bound, small.dual[game.others :]
                self._proof = (game.keys, dual, response)
                self._doubt.keep(dual > 0.0)
            reach = radius if missing else np.inf
            weights, share, radius = trusted_step(weights, small.weights, reach)
        return weights if self._stop.weights is None else self._stop.weights

    def _solve(self, game: Subproblem, earlier: SmallSolution | None, gap: float) -> SmallSolution:
        solver = partial(
            solve_small_game,
            tol=_SMALL_TOLERANCE,
            max_iter=_SMALL_MAX_ITER,
            start=earlier,
            start_gap=1.0 if earlier is None else gap / max(earlier.spread, _TINY),
            halted=lambda: self._stop.is_late,
        )
        return self._feasible.solve_small(
            solver, game.rows, game.offsets, game.weight, self._stop.seconds_left
        )

    def _ask_highs(self, game: Subproblem, unfinished: SmallSolution | None) -> SmallSolution:
        """Where no row is missing and the gap is open, it was the interior point's fault."""
        assert unfinished is not None
        logger.debug("interior point: %s; HiGHS takes over", unfinished.message)
        self._fallbacks += 1

        def solver(
            rows: np.ndarray, offsets: np.ndarray, weight: np.ndarray, cuts: Cuts | None = None
        ) -> SmallSolution:
            limit = self._stop.seconds_left
            found = highs.solve_rows(rows, offsets, weight, cuts, time_limit=limit)
            if found.weights is None or found.dual is None:
                dual = np.zeros(rows.shape[0])
                dual[offsets[:-1]] = weight
                weights = unfinished.weights if cuts is None else cuts.centre
                return replace(unfinished, weights=weights, dual=dual, converged=True)
            return replace(unfinished, weights=found.weights, dual=found.dual, converged=True)

        return self._feasible.solve_small(
            solver, game.rows, game.offsets, game.weight, self._stop.seconds_left
        )

    def attack(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Samples, candidates and masses that prove the best bound; None before there is one."""
        if self._proof is None:
            return None
        keys, dual, response = self._proof
        played = dual > 0.0
        doubted, rows = np.divmod(keys[played], self._engine.n_rows)
        counts = np.bincount(doubted, minlength=self._engine.n_samples)
        has_doubt = counts > 0
        np.maximum(counts, 1, out=counts)
        in_doubt = np.repeat(has_doubt, counts)
        samples = np.repeat(np.arange(counts.size), counts)
        candidates = np.repeat(response.candidates, counts)
        candidates[in_doubt] = rows
        mass = np.repeat(self._engine.sample_weight, counts)
        mass[in_doubt] = dual[played]
        return samples, candidates, mass

    def message(self) -> str:
        """Rounds, rows, and whether HiGHS had to help."""
        words = (
            f"{self._stop.nit} rounds, {self._most_rows} of {self._engine.n_rows} rows at most, "
            f"{self._doubt.keys.size} at the end"
        )
        if self._fallbacks:
            words += f"; the interior point gave {self._fallbacks} small game(s) to HiGHS"
        return words
