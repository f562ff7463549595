"""`mixsolve.kernels.polytope_qp` in NumPy."""

import numpy as np

from mixsolve.kernels.constants import (
    POLYTOPE_BINDING,
    POLYTOPE_MAX_ITER,
    POLYTOPE_PATIENCE,
    POLYTOPE_ROUNDING,
)
from mixsolve.uncompiled.linear_algebra import factorise, solve


def minimize_quadratic(
    gradient: np.ndarray,
    hessian: np.ndarray,
    centre: np.ndarray,
    upper: np.ndarray,
    equal: np.ndarray,
    start: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Solve from `start`, positive and of sum 1: point, prices, levels, error."""
    n_upper, n_equal = upper.shape[0], equal.shape[0]
    size = n_upper + gradient.size
    is_quadratic = bool(hessian.any())
    x = start.copy()
    u = np.maximum(-(upper @ x), 1e-2)
    y = np.full(n_upper, 0.1)
    w = np.zeros(n_equal)
    slope = gradient + hessian @ (x - centre) + upper.T @ y
    w[0] = slope.min() - 0.1
    z = slope - w[0]
    target = np.zeros(n_equal)
    target[0] = 1.0
    best_error, best, since = np.inf, (x.copy(), y.copy(), w.copy()), 0
    for _ in range(POLYTOPE_MAX_ITER):
        dual_residual = gradient + hessian @ (x - centre) + upper.T @ y - equal.T @ w - z
        primal_residual = -(upper @ x) - u
        missing = target - equal @ x
        gap = float(x @ z + u @ y)
        residuals = (dual_residual, missing, primal_residual)
        error = gap + float(sum(np.abs(part).max(initial=0.0) for part in residuals))
        since += 1
        if error < best_error:
            since = 0 if error < 0.9 * best_error else since
            best_error, best = error, (x.copy(), y.copy(), w.copy())
        if best_error <= POLYTOPE_ROUNDING or since > POLYTOPE_PATIENCE or not np.isfinite(error):
            break
        binding = y > POLYTOPE_BINDING * u
        others = upper[~binding]
        matrix = hessian + (others * (y / u)[~binding, None]).T @ others
        matrix.flat[:: gradient.size + 1] += z / x
        factorise(matrix)
        rows = np.concatenate([equal, -upper[binding]])
        columns = rows.copy()
        for column in columns:
            solve(matrix, column)
        gram = rows @ columns.T
        gram.flat[n_equal * (len(rows) + 1) :: len(rows) + 1] += (u / y)[binding]
        factorise(gram)
        mu = gap / size
        along_x, along_u, sigma = np.zeros(x.size), np.zeros(n_upper), 0.0
        for stage in range(2):
            pull_x = (sigma * mu - along_x) / x - z
            pull_u = (sigma * mu - along_u) / u - y
            eliminated = np.where(binding, 0.0, pull_u - y / u * primal_residual)
            dx = pull_x - dual_residual - upper.T @ eliminated
            solve(matrix, dx)
            move = -(rows @ dx)
            move[:n_equal] += missing
            move[n_equal:] += (u / y * pull_u - primal_residual)[binding]
            solve(gram, move)
            dx += columns.T @ move
            du = primal_residual - upper @ dx
            dz = pull_x - z / x * dx
            dy = pull_u - y / u * du
            dy[binding] = move[n_equal:]
            primal = _length(np.concatenate([x, u]), np.concatenate([dx, du]))
            dual = _length(np.concatenate([z, y]), np.concatenate([dz, dy]))
            if stage == 0:
                left = (x + primal * dx) @ (z + dual * dz) + (u + primal * du) @ (y + dual * dy)
                sigma = min(max(float(left) / gap, 0.0), 1.0) ** 3
                along_x, along_u = dx * dz, du * dy
        keep = 1.0 - min(0.005, max(error, 1e-9))
        primal, dual = min(1.0, keep * primal), min(1.0, keep * dual)
        if is_quadratic:
            primal = dual = min(primal, dual)
        x += primal * dx
        u += primal * du
        z += dual * dz
        y += dual * dy
        w += dual * move[:n_equal]
    return *best, best_error


def _length(point: np.ndarray, step: np.ndarray) -> float:
    """The share of a step, 1 at most, after which an entry reaches 0."""
    falls = step < 0.0
    return float((-point[falls] / step[falls]).min(initial=1.0))
