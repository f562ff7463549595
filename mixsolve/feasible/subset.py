"""Mixtures of some classifiers only: a face of the feasible set, where all other weights are 0."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mixsolve.feasible.simplex import FeasibleSet, Prices

if TYPE_CHECKING:
    from mixsolve.small_game.game import SmallSolution


class Restricted(FeasibleSet):
    """Weights that vanish outside some classifiers.

    Parameters
    ----------
    inner : FeasibleSet
        What is left of the feasible set, in the weights of these classifiers alone.
    classifiers : ndarray of int64, shape (s,)
        Ascending.
    """

    def __init__(self, inner: FeasibleSet, classifiers: np.ndarray, n_classifiers: int) -> None:
        from mixsolve.small_game.game import Cuts  # and Numba with it

        self.classifiers = classifiers
        self.infeasibility = inner.infeasibility
        self.inner = inner
        self.used = classifiers if inner.used is None else classifiers[inner.used]
        self.cuts = Cuts.none(classifiers.size) if inner.cuts is None else inner.cuts
        self._size = n_classifiers

    def whole(self, weights: np.ndarray) -> np.ndarray:
        """Weights of these classifiers, (s,), as weights of all, (L,)."""
        placed = np.zeros(self._size)
        placed[self.classifiers] = weights
        return placed

    def project(self, point: np.ndarray) -> np.ndarray:
        return self.whole(self.inner.project(point[self.classifiers]))

    def lowest(self, gradient: np.ndarray) -> float:
        return self.inner.lowest(gradient[self.classifiers])

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        kept = self.classifiers
        bend = np.ascontiguousarray(hessian[np.ix_(kept, kept)])
        return self.whole(self.inner.minimize_quadratic(gradient[kept], bend, start[kept], ridge))

    def restored(self, found: "SmallSolution") -> "SmallSolution":
        found = self.inner.restored(found)
        return replace(found, weights=self.whole(found.weights))

    def prices(self, gradient: np.ndarray) -> Prices | None:
        return self.inner.prices(gradient[self.classifiers])
