"""All mixtures: the probability simplex."""

import numpy as np

from mixsolve.feasible import projection as simplex
from mixsolve.feasible.base import FeasibleSet


class Simplex(FeasibleSet):
    """The simplex itself."""

    def project(self, point: np.ndarray) -> np.ndarray:
        return simplex.project(point)

    def lowest(self, gradient: np.ndarray) -> float:
        return float(gradient.min())

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        from mixsolve.kernels.simplex_qp import minimize_quadratic

        return minimize_quadratic(gradient, hessian, start, ridge)
