"""Linear functions below the objective, and what they prove about mixtures of some classifiers.

By duality every attack q bounds the objective of every mixture from below,

    F(lam) >= <g, lam> - sum_i w_i alpha_i KL(q_i || p_i),    g = sum_i w_i E_{q_i}[l_i],

without the last sum for alpha = 0. Weights sum to 1, so the constant can stand in the row: with
r = g - constant, F(lam) >= <r, lam> on the whole simplex. The best response to lam, or its Gibbs
strategy, gives the row that touches F at lam, for one pass. Rows found anywhere hold everywhere:

    min over a set of F  >=  min over the set of max_t <r_t, lam>,

a matrix game of L columns, which costs no pass at all.

Reference: Kelley, The cutting-plane method for solving convex programs, 1960.
"""

import numpy as np

from mixsolve.base.tuning import tuning
from mixsolve.feasible import FeasibleSet
from mixsolve.methods.problem import Problem
from mixsolve.small_game.solve import solve_small

_NEAREST = 24  # rows of a matrix game that are highest at its centre
_TOLERANCE = 1e-10  # of a matrix game's spread
_MAX_ITER = 50


class Minorants:
    """Rows r (L,) with ``F(lam) >= <r, lam>`` on the simplex, F the objective of the problem."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._rows = np.empty((tuning.minorants, problem.engine.n_classifiers))
        self._count = 0

    @property
    def rows(self) -> np.ndarray:
        """The rows found so far, (T, L)."""
        return self._rows[: self._count]

    def touch(self, weights: np.ndarray) -> float:
        """F at `weights` of shape (L,), on the simplex; adds the row found there. One pass."""
        value, row = self.at(weights)
        self.add(row)
        return value

    def at(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """F at `weights`, and the row that touches it there."""
        if self._problem.alpha is None:
            response = self._problem.engine.best_response(weights)
            return response.value, response.gradient
        soft = self._problem.soft_response(weights)
        return soft.value, soft.gradient + (soft.value - float(weights @ soft.gradient))

    def add(self, row: np.ndarray) -> None:
        """Add a row; the oldest ones are dropped when there are too many."""
        if self._count == len(self._rows):
            kept = tuning.kept_minorants
            self._rows[:kept] = self._rows[len(self._rows) - kept :]
            self._count = kept
        self._rows[self._count] = row
        self._count += 1

    def single(self, fixed: np.ndarray, one_of: np.ndarray) -> np.ndarray:
        """Bounds (n,) on mixtures of fixed classifiers with each of n others, by single rows."""
        base = self.rows[:, fixed].min(axis=1, initial=np.inf)[:, None]
        return np.minimum(base, self.rows[:, one_of]).max(axis=0, initial=-np.inf)

    def lowest(self, classifiers: np.ndarray, feasible: FeasibleSet) -> tuple[float, np.ndarray]:
        """A lower bound on F over the mixtures of some classifiers, and the rows' minimiser."""
        columns = self.rows[:, classifiers]
        highest = np.argsort(columns.sum(axis=1))[-_NEAREST:]
        chosen = np.union1d(columns.argmax(axis=0), highest)
        rows = self.rows[chosen]
        small = solve_small(
            feasible.columns(rows),
            np.array([0, chosen.size]),
            np.ones(1),
            feasible.cuts,
            tol=_TOLERANCE,
            max_iter=_MAX_ITER,
        )
        found = feasible.restored(small)
        return feasible.lowest(found.dual @ rows), found.weights
