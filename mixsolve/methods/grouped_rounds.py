"""Constraint generation where the attacker also weighs the blocks of samples.

    min_lam  max_{m in W}  sum_b m_b sum_{i in b} share_i max_j <lam, l_ij>

The rounds are those of `mixsolve.methods.exact_rounds`: a pass, the working set, a small game, a
step. A block's samples without working rows are one linear term of the block; the small game
(`mixsolve.small_game.grouped`) chooses the blocks' masses together with the weights, and its dual,
rows and masses, is the attack that proves the bound.

Reference: Blankenship and Falk, Infinitely constrained optimization problems, 1976.
"""

from typing import cast

import numpy as np

from mixsolve.engines.base import Engine
from mixsolve.engines.grouped import GroupedEngine, GroupedResponse
from mixsolve.engines.responses import MixedStrategy
from mixsolve.feasible import FeasibleSet
from mixsolve.methods.exact_rounds import DEFAULT_MAX_ITER, first_radius
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop
from mixsolve.methods.working_set import WorkingSet, trusted_step
from mixsolve.small_game.game import Cuts
from mixsolve.small_game.grouped import solve_grouped
from mixsolve.small_game.grouped_game import GroupedGame, GroupedSolution

_SMALL_TOLERANCE = 1e-10  # of the spread
_SMALL_MAX_ITER = 60
_PLAYED = 1e-7  # share of a sample's dual below which a row is not needed


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Solve the exact grouped problem from `start`."""
    rounds = GroupedRounds(grouped(problem.engine), problem.feasible, stop)
    weights = rounds.run(start, first_radius(problem.engine))
    return Outcome(weights, rounds.attack(), message=rounds.message())


def grouped(engine: Engine) -> GroupedEngine:
    """The engine of a grouped problem."""
    assert isinstance(engine, GroupedEngine)  # checked with the method
    return engine


class SmallGame:
    """The working rows of a pass, block by block, and what the other samples add.

    Parameters
    ----------
    engine : GroupedEngine
        Of the whole game.
    keys : ndarray of int64, shape (r,)
        ``sample * n_rows + candidate`` of the rows, ascending.
    response : GroupedResponse
        The last one.
    """

    def __init__(self, engine: GroupedEngine, keys: np.ndarray, response: GroupedResponse) -> None:
        blocks = engine.blocks
        samples, candidates = np.divmod(keys, engine.n_rows)
        rows = engine.gather(samples, candidates)
        first = np.flatnonzero(np.diff(samples, prepend=-1))
        working = samples[first]
        of_sample = blocks.place()[blocks.block[working]]
        share = blocks.share[working]
        linear = response.sums.copy()
        if working.size:
            winning = np.searchsorted(keys, working * engine.n_rows + response.of(working))
            np.subtract.at(linear, of_sample, share[:, None] * rows[winning])
        # The rows of a block stand together.
        order = np.argsort(of_sample, kind="stable")
        counts = np.diff(np.append(first, samples.size))[order]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        entries = np.repeat(first[order] - offsets[:-1], counts) + np.arange(offsets[-1])
        self.keys = keys
        self.entries = entries  # of the keys, in the order of the rows
        self.rows = np.ascontiguousarray(rows[entries])
        self.offsets = offsets
        self.share = share[order]
        self.bounds = np.searchsorted(of_sample[order], np.arange(blocks.active.size + 1))
        self.linear = linear
        self._engine = engine

    def solve(
        self, feasible: FeasibleSet, earlier: GroupedSolution | None, gap: float, stop: Stop
    ) -> GroupedSolution:
        """Solve it over the feasible weights."""
        rows = feasible.columns(self.rows)
        cuts = Cuts.none(rows.shape[1]) if feasible.cuts is None else feasible.cuts
        assert isinstance(cuts, Cuts)  # checked with the constraints
        unit = self._engine.spread or 1.0
        game = GroupedGame(
            rows,
            self.offsets,
            self.share,
            self.bounds,
            feasible.columns(self.linear),
            self._engine.blocks.masses,
            unit,
            cuts,
        )
        found = solve_grouped(
            game,
            tol=_SMALL_TOLERANCE,
            max_iter=_SMALL_MAX_ITER,
            start=earlier,
            start_gap=1.0 if earlier is None else gap / unit,
            halted=stop.halted,
        )
        return cast(GroupedSolution, feasible.restored(found))  # type: ignore[arg-type]

    def losses(self, found: GroupedSolution) -> np.ndarray:
        """Loss (L,) of each classifier under the dual of a solution."""
        block = np.repeat(np.arange(found.mass.size), np.diff(self.bounds))
        mass = np.repeat(found.mass[block] * self.share, np.diff(self.offsets))
        return np.asarray(found.mass @ self.linear + (mass * found.dual) @ self.rows)

    def shares(self, found: GroupedSolution) -> np.ndarray:
        """Each key's share (r,) of its sample's dual."""
        shares = np.empty(self.keys.size)
        shares[self.entries] = found.dual
        return shares


class GroupedRounds:
    """Constraint generation on a grouped engine."""

    def __init__(self, engine: GroupedEngine, feasible: FeasibleSet, stop: Stop) -> None:
        self._engine = engine
        self._feasible = feasible
        self._stop = stop
        self._working = WorkingSet(cast(Engine, engine))
        self._proof: tuple[np.ndarray, np.ndarray, np.ndarray, GroupedResponse] | None = None
        self._most_rows = 0

    def run(self, weights: np.ndarray, radius: float) -> np.ndarray:
        """Rounds from `weights` (L,) until `stop` is satisfied; the best weights met."""
        engine, stop, working = self._engine, self._stop, self._working
        lower_bound, share = -np.inf, 0.0
        small: GroupedSolution | None = None
        for _ in stop.iterations(DEFAULT_MAX_ITER):
            # 1. A pass: the risk at the weights, and the rows that win near them.
            response = engine.near_response(weights, radius, working.limit)
            if stop.record(weights, response.value, lower_bound):
                break
            # 2. The working set takes in these rows, and those that the small game lacked.
            missing = working.add(response)
            if not missing and share == 1.0 and small is not None and small.converged:
                break  # the small game was the whole one: what gap is left is rounding
            self._most_rows = max(self._most_rows, working.keys.size)
            # 3. The small game of the working set, over the feasible weights and the masses.
            game = SmallGame(engine, working.keys, response)
            small = game.solve(self._feasible, small, response.value - lower_bound, stop)
            # 4. The bound that its dual proves.
            bound = self._feasible.lowest(game.losses(small))
            if bound > lower_bound:
                shares = game.shares(small)
                self._proof = game.keys, shares, small.mass, response
                lower_bound = bound
                working.keep(shares > _PLAYED)
            # 5. A step to its weights, not far beyond where rows were looked for.
            reach = radius if missing else np.inf
            weights, share, radius = trusted_step(weights, small.weights, reach)
        return weights if stop.weights is None else stop.weights

    def whole(self, weights: np.ndarray) -> np.ndarray:
        """One small game of every candidate that can be struck; its weights."""
        engine, stop, blocks = self._engine, self._stop, self._engine.blocks
        for _ in stop.iterations(1):
            samples, candidates = engine.every_candidate()
            struck = (blocks.share > 0.0) & (blocks.place()[blocks.block] >= 0)
            kept = struck[samples]
            keys = samples[kept] * engine.n_rows + candidates[kept]
            self._most_rows = keys.size
            response = engine.best_response(weights)
            game = SmallGame(engine, keys, response)
            small = game.solve(self._feasible, None, engine.spread, stop)
            self._proof = keys, game.shares(small), small.mass, response
            bound = self._feasible.lowest(game.losses(small))
            stop.record(small.weights, engine.best_response(small.weights).value, bound)
        return weights if stop.weights is None else stop.weights

    def attack(self) -> MixedStrategy | None:
        """The attack that proves the best bound; None before there is one."""
        if self._proof is None:
            return None
        engine = self._engine
        keys, shares, mass, response = self._proof
        played = shares > 0.0
        working, rows = np.divmod(keys[played], engine.n_rows)
        counts = np.bincount(working, minlength=engine.n_samples)
        mixed = np.repeat(counts > 0, np.maximum(counts, 1))
        samples = np.repeat(np.arange(counts.size), np.maximum(counts, 1))
        candidates = response.candidates[samples]
        candidates[mixed] = rows
        masses = np.ones(samples.size)
        masses[mixed] = shares[played]
        attack: MixedStrategy = engine.strategy(samples, candidates, masses)
        return attack.weighed(engine.blocks.struck(mass))

    def message(self) -> str:
        """Rounds and rows."""
        return (
            f"{self._stop.nit} rounds, {self._most_rows} of {self._engine.n_rows} rows at most, "
            f"{self._working.keys.size} at the end"
        )
