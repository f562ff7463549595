"""All mixtures: the probability simplex {lam >= 0, sum lam = 1}, and projection onto it.

References: Held, Wolfe and Crowder, Validation of subgradient optimization, 1974; Duchi et al.,
Efficient projections onto the l1-ball, ICML 2008.
"""

import numpy as np

from mixsolve.feasible.base import FeasibleSet


class Simplex(FeasibleSet):
    """The simplex itself."""

    def project(self, point: np.ndarray) -> np.ndarray:
        return project(point)

    def lowest(self, gradient: np.ndarray) -> float:
        return float(gradient.min())

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        from mixsolve.kernels.simplex_qp import minimize_quadratic

        return minimize_quadratic(gradient, hessian, start, ridge)


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
