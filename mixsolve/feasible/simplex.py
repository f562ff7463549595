"""What methods need of the set of feasible weights; all mixtures, the probability simplex.

The simplex is {lam >= 0, sum lam = 1}; other sets are parts of it.

References: Held, Wolfe and Crowder, Validation of subgradient optimization, 1974; Duchi et al.,
Efficient projections onto the l1-ball, ICML 2008.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixsolve.arrays.compared import Compared
from mixsolve.uncompiled.choice import loops

if TYPE_CHECKING:
    from mixsolve.feasible.constraints import LinearConstraints
    from mixsolve.small_game.game import ConvexCuts, Cuts, SmallSolution


@dataclass(frozen=True, eq=False)
class Infeasibility(Compared):
    """Why no weights meet the constraints.

    Attributes
    ----------
    clash : tuple of str
        Constraints that cannot be met together, each of which is needed for that: without any one
        of them the others can be met.
    upper, equal : ndarray of float64, shape (p,), (q,)
        The certificate: with y = upper >= 0 and v = equal, every weights on the simplex have
        ``y' (A_ub lam - b_ub) + v' (A_eq lam - b_eq) >= excess``, and feasible ones would have at
        most 0. Empty for constraints that are not arrays, and where ``max_models`` is part of the
        clash.
    excess : float
        Positive; NaN in the same cases.
    """

    clash: tuple[str, ...]
    upper: np.ndarray
    equal: np.ndarray
    excess: float


@dataclass(frozen=True, eq=False)
class Prices(Compared):
    """The multipliers of linear constraints: what one more unit of each is worth.

    They prove the lower bound. A limit that does not bind may have a positive one, of the size of
    the gap over its slack; `Solution.sensitivity` leaves these out.

    Attributes
    ----------
    upper, equal : ndarray of float64, shape (p,), (q,)
        By how much the value falls when an entry of ``b_ub`` (non-negative) or of ``b_eq`` rises,
        to first order.
    """

    upper: np.ndarray
    equal: np.ndarray


class FeasibleSet(ABC):
    """A closed convex part of the simplex in R^L."""

    infeasibility: Infeasibility | None = None
    """Why the set is empty; None where it is not. Nothing else of an empty set is defined."""

    used: np.ndarray | None = None
    """Classifiers that may have a weight, ascending; None for all. No others' losses count."""

    cuts: "Cuts | ConvexCuts | None" = None
    """The constraints of a small game of the used classifiers; None for the simplex."""

    linear: "LinearConstraints | None" = None
    """The constraints that make it, where they are linear."""

    @abstractmethod
    def project(self, point: np.ndarray) -> np.ndarray:
        """The nearest feasible weights; `point` any finite vector of shape (L,)."""

    @abstractmethod
    def lowest(self, gradient: np.ndarray) -> float:
        """A lower bound on ``<gradient, lam>`` over the set, exact to rounding where it can be."""

    @abstractmethod
    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        """Weights that minimise the quadratic model about `start`, its Hessian raised by `ridge`.

        Parameters
        ----------
        gradient, start : ndarray of float64, shape (L,)
            Slope at `start`, which is feasible.
        hessian : ndarray of float64, shape (L, L)
            Positive semidefinite.
        ridge : float
            Positive.
        """

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """Losses of a small game under `cuts`: of rows (R, L), the used columns, C-contiguous."""
        return rows if self.used is None else np.ascontiguousarray(rows[:, self.used])

    def restored(self, found: "SmallSolution") -> "SmallSolution":
        """The solution of a small game of some `columns`, with feasible weights of shape (L,).

        Value and bound stay those of the game that was solved.
        """
        return found

    def prices(self, gradient: np.ndarray) -> Prices | None:
        """Multipliers of linear constraints where ``<gradient, lam>`` is lowest.

        None where the constraints are not linear.
        """
        return Prices(np.empty(0), np.empty(0))


class Simplex(FeasibleSet):
    """The simplex itself."""

    def project(self, point: np.ndarray) -> np.ndarray:
        return project(point)

    def lowest(self, gradient: np.ndarray) -> float:
        return float(gradient.min())

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        kernels = loops("simplex_qp")
        found: np.ndarray = kernels.minimize_quadratic(gradient, hessian, start, ridge)
        return found


def project(point: np.ndarray) -> np.ndarray:
    """Euclidean projection of a finite vector (L,) onto the simplex: >= 0, of sum 1.

    Examples
    --------
    >>> project(np.array([0.4, 0.4, -1.0]))
    array([0.5, 0.5, 0. ])
    """
    point = point - point.max()  # moves no projection, and keeps large entries from rounding
    descending = np.sort(point)[::-1]
    excess = np.cumsum(descending) - 1.0
    support = np.arange(1, point.size + 1)
    last = np.flatnonzero(descending * support > excess)[-1]
    return normalize(point - excess[last] / (last + 1))


def normalize(weights: np.ndarray) -> np.ndarray:
    """Clip rounding noise of nearly feasible weights (L,) below zero and divide by the sum."""
    clipped = np.maximum(weights, 0.0)
    return clipped / clipped.sum()


def uniform(n_classifiers: int) -> np.ndarray:
    """The centre of the simplex, as float64 of shape (L,)."""
    return np.full(n_classifiers, 1.0 / n_classifiers)
