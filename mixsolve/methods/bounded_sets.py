"""Bounds on the mixtures of sets of classifiers, and the best mixture of few met on the way.

A set's bound comes from the cheapest source that closes it: rows that lie below F and were found
elsewhere (`mixsolve.methods.minorants`); a probe, where the game is exact, in memory and without
constraints (`mixsolve.methods.probes`); passes at the minimiser of the rows; the method itself on
the set, whose optimal attack is the one row that proves the bound.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from mixsolve.engines.bookkeeping import count_passes
from mixsolve.engines.memory import MemoryEngine
from mixsolve.feasible import Simplex
from mixsolve.feasible.subset import Restricted
from mixsolve.methods import Method, presolve
from mixsolve.methods.minorants import Minorants
from mixsolve.methods.probes import Probed, Probes
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop

CLOSED = 0.9  # of the tolerance: a node is closed when its bound is so near the best value
LEAF = 0.3  # of the tolerance, left to the method on a leaf
PROBED_LEAF, _PROBED_INNER = 8, 3  # passes of a probe of k classifiers, and of more
_INNER = 0.1  # of the gap that is open, left to a node that is branched on anyway

Classifiers = tuple[int, ...]


@dataclass(order=True)
class Node:
    """Mixtures of `allowed` that use all of `used`; no less than `bound`."""

    bound: float
    order: int
    used: Classifiers = field(compare=False)
    allowed: Classifiers = field(compare=False)


@dataclass(frozen=True)
class Solved:
    """What the method found on some classifiers, and the bound its attack proves there."""

    outcome: Outcome
    bound: float


class BoundedSets:
    """Sets of classifiers of one game.

    Parameters
    ----------
    problem : Problem
        The game, with all feasible mixtures.
    method : Method
        Solves it over some classifiers.
    on : callable
        ``on(classifiers)`` returns the feasible mixtures of classifiers, int64 of shape (s,).
    start : ndarray of float64, shape (L,)
        Feasible weights.
    """

    def __init__(
        self,
        problem: Problem,
        method: Method,
        on: Callable[[np.ndarray], Restricted],
        start: np.ndarray,
    ) -> None:
        self._problem = problem
        self._game = presolve.PresolvedGame(problem)
        self._small = Problem(
            self._game.engine, self._game.alpha, problem.feasible, presolve=False, warm=True
        )
        self._probes: Probes | None = None
        if type(problem.feasible) is Simplex and problem.engine.n_classifiers > 2:
            self._probes = Probes.of(self._small)
        self._minimize = method.minimize
        self._make = on
        self._start = start
        self._size = self._game.engine.n_classifiers
        self._sets: dict[Classifiers, Restricted] = {}
        self._minorants = Minorants(self._small)
        self._best: dict[int, tuple[float, np.ndarray]] = {}  # by number of classifiers
        self._proven: dict[Classifiers, float] = {}  # bounds of leaves
        self._solved: dict[Classifiers, Solved] = {}
        self._value, self._weights = np.inf, start
        self._vertices_tried = False
        self._most = 0
        self._stop = Stop(0.0)

    def _take_best(self) -> None:
        for size, (value, weights) in self._best.items():
            if size <= self._most and value < self._value:
                self._value, self._weights = value, weights

    def _touch(self, weights: np.ndarray) -> float:
        value = self._minorants.touch(weights)
        self._offer(weights, value)
        return value

    def _offer(self, weights: np.ndarray, value: float) -> None:
        size = int(np.count_nonzero(weights))
        if value < self._best.get(size, (np.inf,))[0]:
            self._best[size] = value, weights.copy()
            self._take_best()

    def _is_closed(self, bound: float) -> bool:
        return bound >= self._value - CLOSED * self._stop.tolerance

    # Nodes

    def _on(self, classifiers: Classifiers) -> Restricted:
        if classifiers not in self._sets:
            self._sets[classifiers] = self._make(np.array(classifiers))
        return self._sets[classifiers]

    def _try(self, classifiers: Classifiers) -> None:
        """Take the best mixture of some classifiers if it is better than the best so far."""
        self._examine(Node(-np.inf, 0, classifiers, classifiers))

    def _examine(self, node: Node) -> np.ndarray:
        """Raise a node's bound until that closes it or can rise little; weights to branch on."""
        allowed = node.allowed
        leaf = len(allowed) <= self._most
        node.bound = max(node.bound, self._proven.get(allowed, -np.inf))
        classifiers = np.array(allowed)
        single = self._minorants.rows[:, classifiers].min(axis=1).max(initial=-np.inf)
        node.bound = max(node.bound, float(single))
        if self._is_closed(node.bound):
            return self._weights
        if self._probes is not None:
            most = PROBED_LEAF if leaf else _PROBED_INNER
            probed = self._probe([allowed], most)[0]
            node.bound = max(node.bound, probed.bound)
            if leaf and self._is_closed(node.bound):
                self._proven[allowed] = node.bound
            if not leaf or self._is_closed(node.bound):
                return probed.weights
        feasible = self._on(allowed)
        if feasible.infeasibility is not None:
            node.bound = np.inf
            return self._weights
        bound, weights = self._minorants.lowest(classifiers, feasible)
        node.bound = max(node.bound, bound)
        if not self._is_closed(node.bound) and (leaf or not self._is_tight(node, weights)):
            weights = self._solve(node, weights)
        if leaf:
            self._proven[allowed] = node.bound
        elif not self._is_closed(node.bound):
            self._try(largest(weights, node.used, self._most))
        return weights

    def _probe(self, sets: list[Classifiers], most: int) -> list[Probed]:
        """Probe sets of classifiers, and keep the best of the mixtures of few that are met."""
        assert self._probes is not None
        found = self._probes(sets, self._value - CLOSED * self._stop.tolerance, most)
        for probed in found:
            if np.count_nonzero(probed.weights) <= self._most:
                self._offer(probed.weights, probed.value)
        return found

    def _is_tight(self, node: Node, weights: np.ndarray) -> bool:
        """Whether a pass at the weights shows that the bound can rise only a little."""
        value = self._touch(weights)
        return value - node.bound <= _INNER * (self._value - node.bound)

    def _solve(self, node: Node, weights: np.ndarray) -> np.ndarray:
        """Run the method on the allowed classifiers; raise the bound."""
        tolerance = LEAF * self._stop.tolerance
        if self._most < len(node.allowed) < self._size and self._value < np.inf:
            tolerance = max(tolerance, _INNER * (self._value - node.bound))
        solved = self._solved.get(node.allowed)
        if solved is None:
            solved = self._run_method(node.allowed, weights, tolerance, self._value)
        node.bound = max(node.bound, solved.bound)
        return solved.outcome.weights

    def _run_method(
        self, classifiers: Classifiers, weights: np.ndarray, tolerance: float, enough: float
    ) -> Solved:
        """Run the method on some classifiers, until its bound is `enough` to close them."""
        feasible = self._on(classifiers)
        cutoff = enough - CLOSED * self._stop.tolerance
        part = self._stop.part(tolerance, lambda state: state.lower_bound >= cutoff)
        outcome = self._minimize_on(feasible, feasible.project(weights), part)
        row = self._row_of(outcome)
        self._minorants.add(row)
        value = part.value
        if value < self._value:
            value = self._touch(outcome.weights)
        solved = Solved(outcome, feasible.lowest(row))
        if value - solved.bound <= self._stop.tolerance:
            self._solved[classifiers] = solved
        return solved

    def _minimize_on(self, feasible: Restricted, weights: np.ndarray, stop: Stop) -> Outcome:
        """Minimise over some classifiers; on a copy of their losses, where the engine makes one."""
        engine, classifiers = self._small.engine, feasible.classifiers
        part = None
        if classifiers.size < self._size and isinstance(engine, MemoryEngine):
            part = engine.only(classifiers)
        if part is None:
            return self._minimize(replace(self._small, feasible=feasible), weights, stop)
        problem = replace(self._small, engine=part, feasible=feasible.inner)
        outcome = self._minimize(problem, weights[classifiers], stop)
        count_passes(engine, part)
        proof = None if outcome.proof is None else feasible.whole(outcome.proof)
        return replace(outcome, weights=feasible.whole(outcome.weights), proof=proof)

    def _row_of(self, outcome: Outcome) -> np.ndarray:
        """The row of the attack that proves a method's bound."""
        if outcome.attack is not None:
            row = self._small.engine.expected_losses(outcome.attack)
            exact = self._small.alpha is None
            return row if exact else row - self._small.divergence(outcome.attack)
        proof = outcome.weights if outcome.proof is None else outcome.proof
        return self._minorants.at(proof)[1]


def used_by(weights: np.ndarray) -> Classifiers:
    """The classifiers of a mixture."""
    return tuple(np.flatnonzero(weights).tolist())


def largest(weights: np.ndarray, used: Classifiers, most: int) -> Classifiers:
    """The classifiers used, and those of the largest weights besides, `most` in all."""
    others = [k for k in np.argsort(-weights, kind="stable").tolist() if k not in used]
    return tuple(sorted((*used, *others[: most - len(used)])))
