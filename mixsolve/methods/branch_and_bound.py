"""The best mixture of at most k classifiers: branch and bound on the game's own bounds.

    min F(lam)  over feasible lam with at most k non-zero weights

A node is a set A of classifiers that may be used and a subset J of those that must count as used.
Its bound is that of a matrix game of rows that lie below F (`mixsolve.methods.minorants`), with
the weights confined to A. Only where that leaves the node open are the rows improved: by passes at
its weights, which add one row each, and in the end by the method itself on A, whose optimal attack
is the one row that proves the bound. Rows hold everywhere, so later nodes begin with those of all
earlier ones. An exact game in memory, without constraints, is probed instead (`mixsolve.methods.
probes`): a few passes over the columns of A give a bound, and only choices of k classifiers that
these leave open go to the method.

If the weights of an open node are largest on j_1, ..., j_r outside of J, r = k - |J|, then its
mixtures either do without j_1; or have j_1 and do without j_2; and so on; or are of J and
j_1, ..., j_r alone. Nodes of least bound come first, so at any time the least bound of all nodes,
open and closed, is one on the problem. It takes one attack a closed node to prove it: no single
attack can.

Reference: Land and Doig, An automatic method of solving discrete programming problems, 1960.
"""

import heapq
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.methods.bounded_sets import (
    CLOSED,
    LEAF,
    PROBED_LEAF,
    BoundedSets,
    Classifiers,
    Node,
    largest,
    used_by,
)
from mixsolve.methods.problem import Outcome
from mixsolve.methods.stopping import Stop

DEFAULT_MAX_ITER = 1_000_000


class Search(BoundedSets):
    """Best mixtures of few classifiers of one game; bounds found for one k serve the next.

    The parameters are those of `mixsolve.methods.bounded_sets.BoundedSets`.
    """

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
        self._seed(first or largest(self._start, (), max_models))
        whole = tuple(range(self._size))
        heap = [Node(-np.inf, 0, (), whole)]
        n_made, closed, bound = 1, np.inf, -np.inf
        for _ in stop.iterations(DEFAULT_MAX_ITER):
            node = heapq.heappop(heap)
            if self._is_closed(node.bound):  # and so are all others, whose bounds are no less
                closed, heap = min(closed, node.bound), []
                bound = min(closed, self._value)
                if self._value < np.inf:
                    stop.record(self._weights, self._value, bound)
                break
            weights = self._begin(node) if node.allowed == whole else self._examine(node)
            if self._is_closed(node.bound) or len(node.allowed) <= max_models:
                closed = min(closed, node.bound)
            else:
                for used, allowed, bound in self._branch(node, weights):
                    heapq.heappush(heap, Node(bound, n_made, used, allowed))
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

    def _seed(self, classifiers: Classifiers) -> None:
        """A first mixture, so that the search can end at any time."""
        feasible = self._on(classifiers)
        if feasible.infeasibility is None and self._value == np.inf:
            self._touch(feasible.project(self._start))

    def _begin(self, node: Node) -> np.ndarray:
        """The game of all classifiers, and good mixtures of few of them before the search."""
        weights = self._solve(node, self._start)
        self._try(largest(weights, (), self._most))
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
            support = used_by(self._weights)
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
            improved = self._value < before - CLOSED * self._stop.tolerance

    def _branch(
        self, node: Node, weights: np.ndarray
    ) -> Iterator[tuple[Classifiers, Classifiers, float]]:
        """Classifiers used and allowed, and a bound, of the parts of an open node."""
        used, missing = node.used, self._most - len(node.used)
        free = [k for k in np.argsort(-weights).tolist() if k in node.allowed and k not in used]
        if missing == 1:
            leaves = [tuple(sorted((*used, k))) for k in free]
            bounds = self._minorants.single(np.array(used, dtype=np.int64), np.array(free))
            bounds = np.maximum(bounds, node.bound)
            if self._probes is not None:
                wanted = [place for place, bound in enumerate(bounds) if not self._is_closed(bound)]
                found = self._probe([leaves[place] for place in wanted], PROBED_LEAF)
                bounds[wanted] = np.maximum(bounds[wanted], [probed.bound for probed in found])
            for leaf, bound in zip(leaves, bounds.tolist(), strict=True):
                yield leaf, leaf, bound
            return
        for k in free[:missing]:
            yield used, tuple(j for j in node.allowed if j != k), node.bound
            used = (*used, k)
        leaf = tuple(sorted(used))
        yield leaf, leaf, node.bound

    def _outcome(self, message: str, bound: float) -> Outcome:
        """The best mixture, and the attack on the classifiers that it uses."""
        support = used_by(self._weights)
        solved = self._solved.get(support)
        if solved is None:
            solved = self._run_method(support, self._weights, LEAF * self._stop.tolerance, np.inf)
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
            feasible=self._on(used_by(self._weights)),
            lower_bound=bound,
        )
