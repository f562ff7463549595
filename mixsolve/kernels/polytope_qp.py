"""A convex quadratic over a polytope in the simplex: a dense primal-dual interior point method.

    min_x  <g, x> + 1/2 (x - x0)' H (x - x0)
    s.t.   K x = (1, 0, .., 0),  C x + u = 0,  x >= 0,  u >= 0,

the first row of K being ones. With multipliers w of K (any sign), y of C and z of x (>= 0),

    g + H (x - x0) + C' y - K' w - z = 0,    x_k z_k = 0,    u_r y_r = 0.

Everything but x, w and the multipliers of the rows A that seem to bind (y far above u) is
eliminated. With the other rows B,

    (H + Z/X + C_B' (Y/U)_B C_B) dx - K' dw + C_A' dy_A = right-hand side,
    K dx = what is missing,   -C_A dx + (U/Y)_A dy_A = right-hand side:

eliminated like the others, a binding row would drown all else in the matrix, in rounding. The same
method serves many: H = 0 is a linear program, H = I a projection.

Reference: Nocedal and Wright, Numerical Optimization, 2006, sections 14.2 and 16.6.
"""

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.constants import (
    POLYTOPE_BINDING,
    POLYTOPE_MAX_ITER,
    POLYTOPE_PATIENCE,
    POLYTOPE_ROUNDING,
)
from mixsolve.kernels.linear_algebra import copy_into, factorise, solve


@kernel()
def minimize_quadratic(gradient, hessian, centre, upper, equal, start):
    """Solve from `start`, positive and of sum 1.

    Parameters
    ----------
    gradient : float64 (L,)
        g, of magnitude about 1.
    hessian : float64 (L, L)
        H, symmetric and positive semidefinite, of magnitude at most about 1.
    centre : float64 (L,)
        x0.
    upper, equal : float64 (p, L), (1 + q, L)
        C and K; the rows of K independent.
    start : float64 (L,)
        Where to begin; need not satisfy C and K beyond the sum.

    Returns
    -------
    point : float64 (L,)
        x > 0.
    prices, levels : float64 (p,), (1 + q,)
        y > 0 and w.
    error : float64
        Complementarity and residuals together.
    """
    size, n_upper, n_equal = gradient.size, upper.shape[0], equal.shape[0]
    x = start.copy()
    u = np.maximum(-(upper @ x), 1e-2)
    y = np.full(n_upper, 0.1)
    w = np.zeros(n_equal)
    slope = gradient + hessian @ (x - centre) + upper.T @ y
    w[0] = slope.min() - 0.1
    z = slope - w[0]
    target = np.zeros(n_equal)
    target[0] = 1.0
    best_error = np.inf
    best = (x.copy(), y.copy(), w.copy())
    since = 0
    for _ in range(POLYTOPE_MAX_ITER):
        dual_residual = gradient + hessian @ (x - centre) + upper.T @ y - equal.T @ w - z
        primal_residual = -(upper @ x) - u
        missing = target - equal @ x
        gap = x @ z + u @ y
        error = gap + np.abs(dual_residual).max() + np.abs(missing).max()
        if n_upper:
            error += np.abs(primal_residual).max()
        since += 1
        if error < best_error:
            if error < 0.9 * best_error:
                since = 0
            best_error = error
            best = (x.copy(), y.copy(), w.copy())
        if best_error <= POLYTOPE_ROUNDING or since > POLYTOPE_PATIENCE or not np.isfinite(error):
            break
        matrix = hessian.copy()
        binding = y > POLYTOPE_BINDING * u
        rows = np.empty((n_equal + np.count_nonzero(binding), size))
        for e in range(n_equal):
            copy_into(rows[e], equal[e])
        n_rows = n_equal
        for r in range(n_upper):
            if binding[r]:
                copy_into(rows[n_rows], -upper[r])
                n_rows += 1
                continue
            ratio = y[r] / u[r]
            for a in range(size):
                for b in range(a + 1):
                    matrix[a, b] += ratio * upper[r, a] * upper[r, b]
        for k in range(size):
            matrix[k, k] += z[k] / x[k]
        factorise(matrix)
        columns = rows.copy()
        for e in range(n_rows):
            solve(matrix, columns[e])
        gram = rows @ columns.T
        place = n_equal
        for r in range(n_upper):
            if binding[r]:
                gram[place, place] += u[r] / y[r]
                place += 1
        factorise(gram)
        mu = gap / (size + n_upper)
        along_x, along_u = np.zeros(size), np.zeros(n_upper)
        sigma = 0.0
        for stage in range(2):
            pull_x = (sigma * mu - along_x) / x - z
            pull_u = (sigma * mu - along_u) / u - y
            eliminated = pull_u - y / u * primal_residual
            eliminated[binding] = 0.0
            dx = pull_x - dual_residual - upper.T @ eliminated
            solve(matrix, dx)
            move = -(rows @ dx)
            for e in range(n_equal):
                move[e] += missing[e]
            place = n_equal
            for r in range(n_upper):
                if binding[r]:
                    move[place] += u[r] / y[r] * pull_u[r] - primal_residual[r]
                    place += 1
            solve(gram, move)
            dx += columns.T @ move
            dw = move[:n_equal]
            du = primal_residual - upper @ dx
            dz = pull_x - z / x * dx
            dy = pull_u - y / u * du
            place = n_equal
            for r in range(n_upper):
                if binding[r]:
                    dy[r] = move[place]
                    place += 1
            primal, dual = 1.0, 1.0
            for k in range(size):
                if dx[k] < 0.0:
                    primal = min(primal, -x[k] / dx[k])
                if dz[k] < 0.0:
                    dual = min(dual, -z[k] / dz[k])
            for r in range(n_upper):
                if du[r] < 0.0:
                    primal = min(primal, -u[r] / du[r])
                if dy[r] < 0.0:
                    dual = min(dual, -y[r] / dy[r])
            if stage == 0:
                left = (x + primal * dx) @ (z + dual * dz) + (u + primal * du) @ (y + dual * dy)
                sigma = min(max(left / gap, 0.0), 1.0) ** 3
                along_x, along_u = dx * dz, du * dy
        # A quadratic moves both sides together; a linear program may move each as far as it goes.
        keep = 1.0 - min(0.005, max(error, 1e-9))
        primal, dual = min(1.0, keep * primal), min(1.0, keep * dual)
        if hessian.any():
            primal = dual = min(primal, dual)
        x += primal * dx
        u += primal * du
        z += dual * dz
        y += dual * dy
        w += dual * dw
    return best[0], best[1], best[2], best_error
