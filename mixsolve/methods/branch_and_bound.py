"""The best mixture of at most k classifiers: branch and bound on the game's own bounds.

    min F(lam)  over feasible lam with at most k non-zero weights

A node is a set A of classifiers that may be used and a subset J of those that must count as used.
Its bound is that of a matrix game of rows that lie below F (`mixsolve.methods.minorants`), with
the weights confined to A. Only where that leaves the node open are the rows improved: by passes at
its weights, which add one row each, and in the end by the method itself on A, whose optimal attack
is the one row that proves the bound. Rows hold everywhere, so later nodes begin with those of all
earlier ones.

If the weights of an open node are largest on j_1, ..., j_r outside of J, r = k - |J|, then its
mixtures either do without j_1; or have j_1 and do without j_2; and so on; or are of J and
j_1, ..., j_r alone. Nodes of least bound come first, so at any time the least bound of all nodes,
open and closed, is one on the problem. It takes one attack a closed node to prove it: no single
attack can.

Reference: Land and Doig, An automatic method of solving discrete programming problems, 1960.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.engines.bookkeeping import count_passes
from mixsolve.engines.memory import MemoryEngine
from mixsolve.feasible.subset import Restricted
from mixsolve.methods import Method, presolve
from mixsolve.methods.minorants import Minorants
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop

DEFAULT_MAX_ITER = 1_000_000
_CLOSED = 0.9  # of the tolerance: a node is closed when its bound is so near the best value
_LEAF = 0.3  # of the tolerance, left to the method on a leaf
_INNER = 0.1  # of the gap that is open, left to a node that is branched on anyway

Classifiers = tuple[int, ...]


@dataclass(order=True)
class _Node:
    """Mixtures of `allowed` that use all of `used`; no less than `bound`."""

    bound: float
    order: int
    used: Classifiers = field(compare=False)
    allowed: Classifiers = field(compare=False)


@dataclass(frozen=True)
class _Solved:
    """What the method found on some classifiers, and the bound its attack proves there."""

    outcome: Outcome
    bound: float


class Search:
    """Best mixtures of few classifiers of one game; bounds found for one k serve the next.

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
        self._minimize = method.minimize
        self._make = on
        self._start = start
        self._size = self._game.engine.n_classifiers
        self._sets: dict[Classifiers, Restricted] = {}
        self._minorants = Minorants(self._small)
        self._best: dict[int, tuple[float, np.ndarray]] = {}  # by number of classifiers
        self._proven: dict[Classifiers, float] = {}  # bounds of leaves
        self._solved: dict[Classifiers, _Solved] = {}
        self._value, self._weights = np.inf, start
        self._vertices_tried = False
        self._most = 0
        self._stop = Stop(0.0)

    def run(self, max_models: int, stop: Stop, first: Classifiers = ()) -> Outcome | None:
        """The best mixture of at most so many classifiers.

        Parameters
        ----------
        max_models : int
            k, at least 1.
        stop : Stop
            Records every node.
        first : tuple of int
            Classifiers, k at most, that have a feasible mixture; those of the largest weights at
            the start by default.

        Returns
        -------
        Outcome or None
            Its attack is that on the mixtures of the classifiers it uses, its bound that of all
            nodes. None where no k classifiers have a feasible mixture.

        Raises
        ------
        MixsolveError
            If a limit was hit before a feasible mixture was found.
        """
        self._most, self._stop = max_models, stop
        self._value, self._weights = np.inf, self._start
        self._take_best()
        self._seed(first or _largest(self._start, (), max_models))
        whole = tuple(range(self._size))
        heap = [_Node(-np.inf, 0, (), whole)]
        n_made, closed, bound = 1, np.inf, -np.inf
        for _ in stop.iterations(DEFAULT_MAX_ITER):
            node = heapq.heappop(heap)
            weights = self._begin(node) if node.allowed == whole else self._examine(node)
            if self._is_closed(node.bound) or len(node.allowed) <= max_models:
                closed = min(closed, node.bound)
            else:
                for used, allowed, bound in self._branch(node, weights):
                    heapq.heappush(heap, _Node(bound, n_made, used, allowed))
                    n_made += 1
            bound = min(closed, heap[0].bound if heap else np.inf, self._value)
            if self._value < np.inf:
                stop.record(self._weights, self._value, bound)
            if not heap:
                break
        if self._value == np.inf:
            if not heap:
                return None
            raise MixsolveError(
                f"no mixture of at most {max_models} classifiers that meets the constraints was "
                "found before the limit; raise time_limit or max_iter"
            )
        message = f"{n_made} nodes, {len(heap)} of them open"
        return self._outcome(message, bound)

    # The best mixture so far

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
        return bound >= self._value - _CLOSED * self._stop.tolerance

    # Nodes

    def _on(self, classifiers: Classifiers) -> Restricted:
        if classifiers not in self._sets:
            self._sets[classifiers] = self._make(np.array(classifiers))
        return self._sets[classifiers]

    def _seed(self, classifiers: Classifiers) -> None:
        """A first mixture, so that the search can end at any time."""
        feasible = self._on(classifiers)
        if feasible.infeasibility is None and self._value == np.inf:
            self._touch(feasible.project(self._start))

    def _begin(self, node: _Node) -> np.ndarray:
        """The game of all classifiers, and good mixtures of few of them before the search."""
        weights = self._solve(node, self._start)
        self._try(_largest(weights, (), self._most))
        if self._is_closed(node.bound):
            return weights
        if not self._vertices_tried:
            self._try_vertices()
        if self._most > 1 and not self._is_closed(node.bound):
            self._swap()
        return weights

    def _try_vertices(self) -> None:
        """Each classifier alone."""
        for vertex in np.eye(self._size):
            if self._stop.is_late():
                return
            value, row = self._minorants.at(vertex)
            self._minorants.add(row)
            if np.array_equal(self._problem.feasible.project(vertex), vertex):
                self._offer(vertex, value)
        self._vertices_tried = True

    def _swap(self) -> None:
        """Local search: one classifier is exchanged, or added, while that helps."""
        improved = True
        while improved and not self._stop.is_late():
            before = self._value
            support = _support(self._weights)
            others = [k for k in range(self._size) if k not in support]
            if len(support) < self._most:
                candidates = [(*support, k) for k in others]
            else:
                candidates = [
                    (*support[:place], *support[place + 1 :], k)
                    for place in range(len(support))
                    for k in others
                ]
            for candidate in candidates:
                if self._stop.is_late():
                    break
                self._try(tuple(sorted(candidate)))
            improved = self._value < before - _CLOSED * self._stop.tolerance

    def _try(self, classifiers: Classifiers) -> None:
        """Take the best mixture of some classifiers if it is better than the best so far."""
        self._examine(_Node(-np.inf, 0, classifiers, classifiers))

    def _examine(self, node: _Node) -> np.ndarray:
        """Raise a node's bound until that closes it or can rise little; weights to branch on."""
        allowed = node.allowed
        leaf = len(allowed) <= self._most
        node.bound = max(node.bound, self._proven.get(allowed, -np.inf))
        classifiers = np.array(allowed)
        single = self._minorants.rows[:, classifiers].min(axis=1).max(initial=-np.inf)
        node.bound = max(node.bound, float(single))
        if self._is_closed(node.bound):
            return self._weights
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
            self._try(_largest(weights, node.used, self._most))
        return weights

    def _is_tight(self, node: _Node, weights: np.ndarray) -> bool:
        """Whether a pass at the weights shows that the bound can rise only a little."""
        value = self._touch(weights)
        return value - node.bound <= _INNER * (self._value - node.bound)

    def _solve(self, node: _Node, weights: np.ndarray) -> np.ndarray:
        """Run the method on the allowed classifiers; raise the bound."""
        tolerance = _LEAF * self._stop.tolerance
        if self._most < len(node.allowed) < self._size and self._value < np.inf:
            tolerance = max(tolerance, _INNER * (self._value - node.bound))
        solved = self._solved.get(node.allowed)
        if solved is None:
            solved = self._run_method(node.allowed, weights, tolerance, self._value)
        node.bound = max(node.bound, solved.bound)
        return solved.outcome.weights

    def _run_method(
        self, classifiers: Classifiers, weights: np.ndarray, tolerance: float, enough: float
    ) -> _Solved:
        """Run the method on some classifiers, until its bound is `enough` to close them."""
        feasible = self._on(classifiers)
        cutoff = enough - _CLOSED * self._stop.tolerance
        part = self._stop.part(tolerance, lambda state: state.lower_bound >= cutoff)
        outcome = self._minimize_on(feasible, feasible.project(weights), part)
        row = self._row_of(outcome)
        self._minorants.add(row)
        value = part.value
        if value < self._value:
            value = self._touch(outcome.weights)
        solved = _Solved(outcome, feasible.lowest(row))
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

    def _branch(
        self, node: _Node, weights: np.ndarray
    ) -> Iterator[tuple[Classifiers, Classifiers, float]]:
        """Classifiers used and allowed, and a bound, of the parts of an open node."""
        used, missing = node.used, self._most - len(node.used)
        free = [k for k in np.argsort(-weights).tolist() if k in node.allowed and k not in used]
        if missing == 1:
            bounds = self._minorants.single(np.array(used, dtype=np.int64), np.array(free))
            for k, bound in zip(free, np.maximum(bounds, node.bound).tolist(), strict=True):
                leaf = tuple(sorted((*used, k)))
                yield leaf, leaf, bound
            return
        for k in free[:missing]:
            yield used, tuple(j for j in node.allowed if j != k), node.bound
            used = (*used, k)
        leaf = tuple(sorted(used))
        yield leaf, leaf, node.bound

    def _outcome(self, message: str, bound: float) -> Outcome:
        """The best mixture, and the attack on the classifiers that it uses."""
        support = _support(self._weights)
        solved = self._solved.get(support)
        if solved is None:
            solved = self._run_method(support, self._weights, _LEAF * self._stop.tolerance, np.inf)
        attack = solved.outcome.attack
        if attack is not None:
            lifted = self._game.lift(attack.samples, attack.candidates, attack.probabilities)
            weight = attack.weight  # of the samples, which are not merged where it is chosen
            attack = self._problem.engine.strategy(*lifted)
            attack = attack if weight is None else attack.weighed(weight)
        outcome = self._game.outcome(self._weights, message, attack=attack)
        return replace(
            outcome,
            proof=solved.outcome.proof,
            feasible=self._on(_support(self._weights)),
            lower_bound=bound,
        )


def _support(weights: np.ndarray) -> Classifiers:
    return tuple(np.flatnonzero(weights).tolist())


def _largest(weights: np.ndarray, used: Classifiers, most: int) -> Classifiers:
    """The classifiers used, and those of the largest weights besides, `most` in all."""
    others = [k for k in np.argsort(-weights, kind="stable").tolist() if k not in used]
    return tuple(sorted((*used, *others[: most - len(used)])))
