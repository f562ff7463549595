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

# Plain loops over L, p and q numbers: array expressions take far longer to compile.
_OPTIONS = {"error_model": "numpy"}


@kernel(**_OPTIONS)
def _dot(one, other):
    total = 0.0
    for k in range(one.size):
        total += one[k] * other[k]
    return total


@kernel(**_OPTIONS)
def _multiply(matrix, vector, product):
    """``product[:] = matrix @ vector``."""
    for r in range(matrix.shape[0]):
        product[r] = _dot(matrix[r], vector)


@kernel(**_OPTIONS)
def _pull(matrix, sign, multipliers, sums):
    """``sums += sign * matrix.T @ multipliers``."""
    for r in range(matrix.shape[0]):
        for k in range(sums.size):
            sums[k] += sign * matrix[r, k] * multipliers[r]


@kernel(**_OPTIONS)
def _pull_back(matrix, vector, sums):
    """``sums -= matrix @ vector``."""
    for r in range(matrix.shape[0]):
        sums[r] -= _dot(matrix[r], vector)


@kernel(**_OPTIONS)
def _slope(gradient, hessian, centre, point, slope):
    """``slope[:] = gradient + hessian @ (point - centre)``."""
    for k in range(slope.size):
        total = gradient[k]
        for h in range(slope.size):
            total += hessian[k, h] * (point[h] - centre[h])
        slope[k] = total


@kernel(**_OPTIONS)
def _largest(vector):
    most = 0.0
    for k in range(vector.size):
        size = abs(vector[k])
        if not size <= most:  # a NaN stays
            most = size
    return most


@kernel(**_OPTIONS)
def _length(point, step, most):
    """The share of a step, `most` at most, after which an entry of the point reaches 0."""
    for k in range(point.size):
        if step[k] < 0.0:
            most = min(most, -point[k] / step[k])
    return most


@kernel(**_OPTIONS)
def _move(point, share, step):
    for k in range(point.size):
        point[k] += share * step[k]


@kernel(**_OPTIONS)
def _after(point, share, step, other, other_share, other_step):
    """<point, other> once both have taken a share of their steps."""
    total = 0.0
    for k in range(point.size):
        total += (point[k] + share * step[k]) * (other[k] + other_share * other_step[k])
    return total


@kernel(**_OPTIONS)
def _eliminate(hessian, upper, equal, x, z, u, y, matrix):
    """Factor the ``matrix`` in x, then that in the multipliers of K and of rows that bind.

    Returns K and these rows, the solutions for them as right-hand sides, and the second factor.
    """
    size = x.size
    n_equal = equal.shape[0]
    n_rows = n_equal
    for r in range(upper.shape[0]):
        n_rows += y[r] > POLYTOPE_BINDING * u[r]
    rows = np.empty((n_rows, size))
    columns = np.empty((n_rows, size))
    gram = np.empty((n_rows, n_rows))
    for e in range(n_equal):
        copy_into(rows[e], equal[e])
    for a in range(size):
        for b in range(a + 1):
            matrix[a, b] = hessian[a, b]
        matrix[a, a] += z[a] / x[a]
    place = n_equal
    for r in range(upper.shape[0]):
        if y[r] > POLYTOPE_BINDING * u[r]:
            for k in range(size):
                rows[place, k] = -upper[r, k]
            place += 1
            continue
        ratio = y[r] / u[r]
        for a in range(size):
            for b in range(a + 1):
                matrix[a, b] += ratio * upper[r, a] * upper[r, b]
    factorise(matrix)
    for e in range(n_rows):
        copy_into(columns[e], rows[e])
        solve(matrix, columns[e])
    for e in range(n_rows):
        for f in range(e + 1):
            gram[e, f] = _dot(columns[e], rows[f])
    place = n_equal
    for r in range(upper.shape[0]):
        if y[r] > POLYTOPE_BINDING * u[r]:
            gram[place, place] += u[r] / y[r]
            place += 1
    factorise(gram)
    return rows, columns, gram


@kernel(**_OPTIONS)
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
    size = gradient.size
    n_upper = upper.shape[0]
    n_equal = equal.shape[0]
    x = np.empty(size)
    copy_into(x, start)
    z = np.empty(size)
    dx = np.empty(size)
    dz = np.empty(size)
    pull_x = np.empty(size)
    along_x = np.empty(size)
    dual_residual = np.empty(size)
    u = np.empty(n_upper)
    y = np.empty(n_upper)
    du = np.empty(n_upper)
    dy = np.empty(n_upper)
    pull_u = np.empty(n_upper)
    along_u = np.empty(n_upper)
    primal_residual = np.empty(n_upper)
    eliminated = np.empty(n_upper)
    w = np.zeros(n_equal)
    missing = np.empty(n_equal)
    matrix = np.empty((size, size))
    best_x = np.empty(size)
    best_y = np.empty(n_upper)
    best_w = np.empty(n_equal)

    is_quadratic = False
    for a in range(size):
        is_quadratic = is_quadratic or _largest(hessian[a]) > 0.0
    _multiply(upper, x, primal_residual)
    for r in range(n_upper):
        u[r] = max(-primal_residual[r], 1e-2)
        y[r] = 0.1
    _slope(gradient, hessian, centre, x, z)
    _pull(upper, 1.0, y, z)
    w[0] = z.min() - 0.1
    for k in range(size):
        z[k] -= w[0]
    best_error = np.inf
    since = 0
    for _ in range(POLYTOPE_MAX_ITER):
        _slope(gradient, hessian, centre, x, dual_residual)
        _pull(upper, 1.0, y, dual_residual)
        _pull(equal, -1.0, w, dual_residual)
        for k in range(size):
            dual_residual[k] -= z[k]
        _multiply(upper, x, primal_residual)
        for r in range(n_upper):
            primal_residual[r] = -primal_residual[r] - u[r]
        _multiply(equal, x, missing)
        for e in range(n_equal):
            missing[e] = (1.0 if e == 0 else 0.0) - missing[e]
        gap = _dot(x, z) + _dot(u, y)
        error = gap + _largest(dual_residual) + _largest(missing) + _largest(primal_residual)
        since += 1
        if error < best_error:
            if error < 0.9 * best_error:
                since = 0
            best_error = error
            copy_into(best_x, x)
            copy_into(best_y, y)
            copy_into(best_w, w)
        if best_error <= POLYTOPE_ROUNDING or since > POLYTOPE_PATIENCE or not np.isfinite(error):
            break
        rows, columns, gram = _eliminate(hessian, upper, equal, x, z, u, y, matrix)
        move = np.empty(rows.shape[0])
        mu = gap / (size + n_upper)
        sigma = 0.0
        primal = dual = 0.0
        for k in range(size):
            along_x[k] = 0.0
        for r in range(n_upper):
            along_u[r] = 0.0
        for stage in range(2):
            for k in range(size):
                pull_x[k] = (sigma * mu - along_x[k]) / x[k] - z[k]
                dx[k] = pull_x[k] - dual_residual[k]
            for r in range(n_upper):
                pull_u[r] = (sigma * mu - along_u[r]) / u[r] - y[r]
                eliminated[r] = 0.0
                if not y[r] > POLYTOPE_BINDING * u[r]:
                    eliminated[r] = pull_u[r] - y[r] / u[r] * primal_residual[r]
            _pull(upper, -1.0, eliminated, dx)
            solve(matrix, dx)
            place = n_equal
            for r in range(n_upper):
                if y[r] > POLYTOPE_BINDING * u[r]:
                    move[place] = u[r] / y[r] * pull_u[r] - primal_residual[r]
                    place += 1
            for e in range(n_equal):
                move[e] = missing[e]
            _pull_back(rows, dx, move)
            solve(gram, move)
            _pull(columns, 1.0, move, dx)
            _multiply(upper, dx, du)
            for k in range(size):
                dz[k] = pull_x[k] - z[k] / x[k] * dx[k]
            place = n_equal
            for r in range(n_upper):
                du[r] = primal_residual[r] - du[r]
                dy[r] = pull_u[r] - y[r] / u[r] * du[r]
                if y[r] > POLYTOPE_BINDING * u[r]:
                    dy[r] = move[place]
                    place += 1
            primal = _length(u, du, _length(x, dx, 1.0))
            dual = _length(y, dy, _length(z, dz, 1.0))
            if stage == 0:
                left = _after(x, primal, dx, z, dual, dz) + _after(u, primal, du, y, dual, dy)
                sigma = min(max(left / gap, 0.0), 1.0) ** 3
                for k in range(size):
                    along_x[k] = dx[k] * dz[k]
                for r in range(n_upper):
                    along_u[r] = du[r] * dy[r]
        # A quadratic moves both sides together; a linear program may move each as far as it goes.
        keep = 1.0 - min(0.005, max(error, 1e-9))
        primal = min(1.0, keep * primal)
        dual = min(1.0, keep * dual)
        if is_quadratic:
            primal = dual = min(primal, dual)
        _move(x, primal, dx)
        _move(u, primal, du)
        _move(z, dual, dz)
        _move(y, dual, dy)
        _move(w, dual, move)
    return best_x, best_y, best_w, best_error
