"""All mixtures: the probability simplex."""

import numpy as np

from mixsolve.feasible import projection as simplex
from mixsolve.feasible.base import FeasibleSet


class Simplex(FeasibleSet):
    """The simplex itself."""

    def project(self, point: np.ndarray) -> np.ndarray:
        """See `FeasibleSet.project`."""
        return simplex.project(point)

    def lowest(self, gradient: np.ndarray) -> float:
        """See `FeasibleSet.lowest`."""
        return float(gradient.min())

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        """See `FeasibleSet.minimize_quadratic`."""
        from mixsolve.kernels.simplex_qp import minimize_quadratic

        return minimize_quadratic(gradient, hessian, start, ridge)
