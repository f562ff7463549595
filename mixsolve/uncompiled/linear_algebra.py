"""`mixsolve.kernels.linear_algebra` in NumPy: a Cholesky factor that skips lost pivots."""

import numpy as np

from mixsolve.kernels.constants import LEAST_PIVOT, LOST_PIVOT


def factorise(matrix: np.ndarray) -> None:
    """Cholesky factor in place, lower triangle from the lower triangle."""
    for b in range(matrix.shape[0]):
        known = matrix[b, :b]
        total = matrix[b, b] - known @ known
        pivot = np.sqrt(total) if total > LEAST_PIVOT * matrix[b, b] else LOST_PIVOT
        matrix[b, b] = pivot
        matrix[b + 1 :, b] -= matrix[b + 1 :, :b] @ known
        matrix[b + 1 :, b] /= pivot


def solve(matrix: np.ndarray, vector: np.ndarray) -> None:
    """Solve in place with the Cholesky factor in the lower triangle."""
    size = matrix.shape[0]
    for a in range(size):
        vector[a] = (vector[a] - matrix[a, :a] @ vector[:a]) / matrix[a, a]
    for a in range(size - 1, -1, -1):
        vector[a] /= matrix[a, a]
        vector[:a] -= matrix[a, :a] * vector[a]
