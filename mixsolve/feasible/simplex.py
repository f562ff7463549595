"""All mixtures: the probability simplex."""

from typing import TYPE_CHECKING

import numpy as np

from mixsolve.feasible import projection as simplex
from mixsolve.feasible.base import FeasibleSet, SmallSolver

if TYPE_CHECKING:
    from mixsolve.small_game.game import SmallSolution


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

    def solve_small(
        self,
        solver: SmallSolver,
        rows: np.ndarray,
        offsets: np.ndarray,
        weight: np.ndarray,
        time_limit: float | None = None,
    ) -> "SmallSolution":
        """See `FeasibleSet.solve_small`."""
        return solver(rows, offsets, weight)
