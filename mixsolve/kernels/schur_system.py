"""The dense half of an interior point iteration: L x L systems and the complementarity of lam.

The Newton system left after eliminating all but the weights is

    (S + diag(z / lam)) dlam = rhs + nu 1,    <1, dlam> = 0,

with S the Schur matrix of the rows. S is nearly singular along lam itself, and only there when the
solution is a vertex; since <1, dlam> = 0, adding rho 1 1^T changes no solution and lends that
direction the curvature rho.
"""

from numba import njit

from mixsolve.kernels.linear_algebra import OPTIONS, factorise, solve


@njit(**OPTIONS)
def _project(direction, ones):
    """Move along the solution for the right-hand side 1 until <1, direction> = 0."""
    mass = 0.0
    total = 0.0
    for k in range(len(direction)):
        mass += direction[k]
        total += ones[k]
    for k in range(len(direction)):
        direction[k] -= mass / total * ones[k]


@njit(**OPTIONS)
def predictor(schurs, centreds, linear, weights, reduced, matrix, ones, centred, d_weights):
    """Sum the chunks, factor the matrix into ``matrix`` and solve for the predictor ``d_weights``.

    Keeps ``ones`` = matrix^-1 1 and ``centred`` = linear + sum_i w_i abar_i for the corrector.
    """
    size = len(weights)
    shared = 0.0
    for a in range(size):
        centred[a] = linear[a]
        for c in range(len(schurs)):
            centred[a] += centreds[c, a]
        for b in range(a, size):
            total = 0.0
            for c in range(len(schurs)):
                total += schurs[c, a, b]
            matrix[b, a] = total
        shared += weights[a] * matrix[a, a]
    for a in range(size):
        for b in range(a):
            matrix[a, b] += shared
        matrix[a, a] += shared + reduced[a] / weights[a]
        ones[a] = 1.0
        d_weights[a] = -centred[a]
    factorise(matrix)
    solve(matrix, ones)
    solve(matrix, d_weights)
    _project(d_weights, ones)


@njit(**OPTIONS)
def corrector(
    towards, against, sums, total_weight, lam_weight, complementarity,
    weights, reduced, matrix, ones, centred, product, d_weights,
):  # fmt: skip
    """Choose sigma from the predictor's step (Mehrotra), solve for the corrector ``d_weights``.

    ``product`` keeps dlam dz of the predictor. Returns sigma mu.
    """
    size = len(weights)
    primal_limit = 0.0
    dual_limit = 0.0
    q_ds = 0.0
    s_dq = 0.0
    ds_dq = 0.0
    for c in range(len(sums)):
        primal_limit = max(primal_limit, sums[c, 0])
        dual_limit = max(dual_limit, sums[c, 1])
        q_ds += sums[c, 2]
        s_dq += sums[c, 3]
        ds_dq += sums[c, 4]
    for k in range(size):
        dz = -reduced[k] - reduced[k] / weights[k] * d_weights[k]
        primal_limit = max(primal_limit, -d_weights[k] / weights[k])
        dual_limit = max(dual_limit, -dz / reduced[k])
        q_ds += reduced[k] * d_weights[k]
        s_dq += weights[k] * dz
        ds_dq += d_weights[k] * dz
        product[k] = d_weights[k] * dz
    primal = 1.0 / max(primal_limit, 1.0)
    dual = 1.0 / max(dual_limit, 1.0)
    reached = complementarity + primal * q_ds + dual * s_dq + primal * dual * ds_dq
    left = max(reached / complementarity, 0.0)
    target = left * left * left * complementarity / total_weight
    for k in range(size):
        total = (target * lam_weight - product[k]) / weights[k] - centred[k]
        for c in range(len(sums)):
            total += against[c, k] - target * towards[c, k]
        d_weights[k] = total
    solve(matrix, d_weights)
    _project(d_weights, ones)
    return target


@njit(**OPTIONS)
def advance(sums, target, lam_weight, fraction, product, d_weights, weights, reduced, steps):
    """Step the weights and their reduced costs; ``steps`` = [primal, dual] step lengths."""
    size = len(weights)
    primal_limit = 0.0
    dual_limit = 0.0
    for c in range(len(sums)):
        primal_limit = max(primal_limit, sums[c, 0])
        dual_limit = max(dual_limit, sums[c, 1])
    for k in range(size):
        dz = (target * lam_weight - product[k] - reduced[k] * d_weights[k]) / weights[k]
        product[k] = dz - reduced[k]
        primal_limit = max(primal_limit, -d_weights[k] / weights[k])
        dual_limit = max(dual_limit, -product[k] / reduced[k])
    primal = min(1.0, fraction / max(primal_limit, fraction))
    dual = min(1.0, fraction / max(dual_limit, fraction))
    mass = 0.0
    for k in range(size):
        weights[k] += primal * d_weights[k]
        reduced[k] += dual * product[k]
        mass += weights[k]
    for k in range(size):
        weights[k] /= mass
    steps[0] = primal
    steps[1] = dual
