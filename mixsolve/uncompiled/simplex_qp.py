"""`mixsolve.kernels.simplex_qp` in NumPy."""

import numpy as np

from mixsolve.uncompiled.linear_algebra import factorise, solve


def minimize_quadratic(
    gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
) -> np.ndarray:
    """Minimiser of the model about `start` (L,) on the simplex; `ridge` > 0 keeps it unique."""
    size = gradient.size
    point, slope = start.copy(), gradient.copy()
    is_free = point > 0.0
    reach = float(np.abs(gradient).max())
    lift = max(float(hessian.diagonal().max()), 0.0)
    refinements = 0
    for _ in range(20 * size + 20):
        free = np.flatnonzero(is_free)
        matrix = hessian[np.ix_(free, free)] + lift
        matrix.flat[:: free.size + 1] += ridge
        ones, step = np.ones(free.size), slope[free]
        factorise(matrix)
        solve(matrix, ones)
        solve(matrix, step)
        level = float(step.sum() / ones.sum())
        step = level * ones - step
        lengths = np.where(step < 0.0, -point[free] / np.where(step < 0.0, step, -1.0), np.inf)
        blocking = int(lengths.argmin())
        blocked = bool(lengths[blocking] < 1.0)
        length = float(lengths[blocking]) if blocked else 1.0
        point[free] = np.maximum(point[free] + length * step, 0.0)
        if blocked:
            point[free[blocking]] = 0.0
            is_free[free[blocking]] = False
        slope = gradient + hessian @ (point - start) + ridge * (point - start)
        if blocked:
            continue
        below = np.where(is_free, np.inf, slope - level)
        entering = int(below.argmin())
        if below[entering] < -1e-14 * reach:
            is_free[entering] = True
            refinements = 0
        elif refinements == 2:
            break
        else:
            refinements += 1
    found: np.ndarray = point / point.sum()
    return found
