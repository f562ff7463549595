"""The dense half of an interior point iteration: L x L systems and the complementarity of lam.

The Newton system left after eliminating all but the weights is

    (S + C' diag(y / u) C + diag(z / lam)) dlam = rhs + K' omega,    K dlam = 0,

with S the Schur matrix of the rows, C the inequalities of the weights, u = -C lam > 0 their slacks
and y their multipliers, and K the ones and the equalities. S is nearly singular along lam itself,
and only there when the solution is a vertex; since <1, dlam> = 0, adding rho 1 1^T changes no
solution and lends that direction the curvature rho.
"""

from mixsolve.base.compilation import kernel
from mixsolve.kernels.constants import LEAST_SLACK
from mixsolve.kernels.linear_algebra import OPTIONS, factorise, solve


@kernel(**OPTIONS)
def _project(direction, equal, columns, gram, omega):
    """Move along the solutions for the right-hand sides K' until K direction = 0.

    ``omega`` is left with the multipliers of K, the sign turned.
    """
    for e in range(len(equal)):
        total = 0.0
        for k in range(len(direction)):
            total += equal[e, k] * direction[k]
        omega[e] = total
    solve(gram, omega)
    for e in range(len(equal)):
        for k in range(len(direction)):
            direction[k] -= omega[e] * columns[e, k]


@kernel(**OPTIONS)
def predictor(
    schurs, centreds, linear, weights, reduced, upper, room, prices, equal,
    matrix, columns, gram, omega, centred, d_weights,
):  # fmt: skip
    """Sum the chunks, factor the matrix into ``matrix`` and solve for the predictor ``d_weights``.

    ``upper``, ``room`` and ``prices`` are C, u and y. Keeps ``columns`` = matrix^-1 K', the factor
    ``gram`` of K matrix^-1 K', and ``centred`` = linear + sum_i w_i abar_i for the corrector.
    """
    size = len(weights)
    shared = 0.0
    for a in range(size):
        total = linear[a]
        for c in range(len(schurs)):
            total += centreds[c, a]
        centred[a] = total
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
        d_weights[a] = -centred[a]
    for r in range(len(upper)):
        ratio = prices[r] / room[r]
        for a in range(size):
            for b in range(a + 1):
                matrix[a, b] += ratio * upper[r, a] * upper[r, b]
    factorise(matrix)
    for e in range(len(equal)):
        for k in range(size):
            columns[e, k] = equal[e, k]
        solve(matrix, columns[e])
        for f in range(e + 1):
            total = 0.0
            for k in range(size):
                total += columns[e, k] * equal[f, k]
            gram[e, f] = total
    factorise(gram)
    solve(matrix, d_weights)
    _project(d_weights, equal, columns, gram, omega)


@kernel(**OPTIONS)
def corrector(
    towards, against, sums, total_weight, lam_weight, complementarity,
    weights, reduced, upper, room, prices, equal, matrix, columns, gram, omega, centred,
    product, room_product, d_weights,
):  # fmt: skip
    """Choose sigma from the predictor's step (Mehrotra), solve for the corrector ``d_weights``.

    ``product`` keeps dlam dz of the predictor, ``room_product`` du dy. Returns sigma mu.
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
    for k in range(size):
        product[k] = d_weights[k] * (-reduced[k] - reduced[k] / weights[k] * d_weights[k])
    for r in range(len(upper)):
        du = 0.0
        for k in range(size):
            du -= upper[r, k] * d_weights[k]
        dy = -prices[r] - prices[r] / room[r] * du
        primal_limit = max(primal_limit, -du / room[r])
        dual_limit = max(dual_limit, -dy / prices[r])
        q_ds += prices[r] * du
        s_dq += room[r] * dy
        ds_dq += du * dy
        room_product[r] = du * dy
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
    for r in range(len(upper)):
        pull = (target * lam_weight - room_product[r]) / room[r]
        for k in range(size):
            d_weights[k] -= pull * upper[r, k]
    solve(matrix, d_weights)
    _project(d_weights, equal, columns, gram, omega)
    return target


@kernel(**OPTIONS)
def advance(
    sums, target, lam_weight, fraction, product, room_product, d_weights, omega, upper,
    weights, reduced, room, prices, levels, steps,
):  # fmt: skip
    """Step the weights and all multipliers of theirs; ``steps`` = [primal, dual] step lengths.

    ``levels`` are the multipliers of the equalities without the ones. The slacks ``room`` are
    recomputed from the weights, so they never drift away from them.
    """
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
    for r in range(len(upper)):
        du = 0.0
        for k in range(size):
            du -= upper[r, k] * d_weights[k]
        dy = (target * lam_weight - room_product[r] - prices[r] * du) / room[r] - prices[r]
        room_product[r] = dy
        primal_limit = max(primal_limit, -du / room[r])
        dual_limit = max(dual_limit, -dy / prices[r])
    primal = min(1.0, fraction / max(primal_limit, fraction))
    dual = min(1.0, fraction / max(dual_limit, fraction))
    mass = 0.0
    for k in range(size):
        weights[k] += primal * d_weights[k]
        reduced[k] += dual * product[k]
    for k in range(size):
        mass += weights[k]
    for k in range(size):
        weights[k] /= mass
    for r in range(len(upper)):
        prices[r] += dual * room_product[r]
        total = 0.0
        for k in range(size):
            total -= upper[r, k] * weights[k]
        room[r] = max(total, LEAST_SLACK)
    for e in range(len(levels)):
        levels[e] += dual * (omega[e + 1] - levels[e])
    steps[0] = primal
    steps[1] = dual
