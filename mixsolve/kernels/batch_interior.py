"""The interior point method on a small exact game whose samples lie side by side.

    min_lam  <linear, lam> + sum_i w_i max_j <lam, a_ij>      over the simplex

by the iteration of `mixsolve.small_game.interior_point`, for one thread and without constraints:
with duals q_r of the rows, slacks s_r and D_r = q_r / s_r,

    ( sum_r D_r (a_r - abar_i)(a_r - abar_i)^T + diag(z / lam) ) dlam = rhs + nu 1,  <1, dlam> = 0.

The L x L half is `mixsolve.kernels.schur_system`, the walks over the rows are
`mixsolve.kernels.batch_walks`.

Reference: S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J. Optim.
1992.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels import schur_system
from mixsolve.kernels.batch_table import (
    add_products,
    add_rows,
    blank,
    combine,
    dot,
    highest,
    matrix,
    n_entries,
    total_of,
    vector,
)
from mixsolve.kernels.batch_walks import (
    about_mean,
    centre,
    cut_off,
    direction,
    inverse_step,
    least_of,
    means,
    pull,
    scatter_about,
    take_step,
)
from mixsolve.kernels.constants import (
    CORRECTION,
    INTERIOR_PATIENCE,
    LEAST_MARGIN,
    MOST_MARGIN,
)
from mixsolve.kernels.linear_algebra import OPTIONS, add_outer, copy_into


@kernel(**OPTIONS)
def interior_point(columns, groups, weight, linear, stop, max_iter, gap, weights, dual):
    """Follow the central path of a game from about `gap` down to `stop`.

    columns (L, R), groups (G, 4) and weight (S,) of the samples of more than one row, whose first
    rows are 0; linear (L,). ``weights`` (L,), inside the simplex, is where it starts; it and
    ``dual`` (R,) become the best point found. Returns that point's gap and the number of
    iterations.
    """
    size = weights.size
    n_rows, n_samples = n_entries(groups)
    height = vector(n_samples)
    d_height = vector(n_samples)
    scatter = vector(n_samples)
    shift = vector(n_samples)
    total_here = vector(n_samples)
    mean = matrix(size, n_samples)
    point = vector(size)
    copy_into(point, weights)
    duals = vector(n_rows)
    d_dual = vector(n_rows)
    slack = vector(n_rows)
    d_slack = vector(n_rows)
    product = vector(n_rows)
    ratio = vector(n_rows)
    share = vector(n_rows)
    terms = vector(n_rows)
    block = blank(size, n_rows)
    schur = matrix(1, size * size).reshape((1, size, size))
    towards = matrix(1, size)
    against = matrix(1, size)
    sums = matrix(1, 5)
    kkt = matrix(size, size)
    centred = vector(size)
    d_weights = vector(size)
    d_product = vector(size)
    reduced = vector(size)
    residual = vector(size)
    equal = matrix(1, size)
    equal[:] = 1.0
    multipliers = matrix(1, size)
    gram = matrix(1, 1)
    omega = vector(1)
    steps = vector(2)
    none = np.empty(0)
    no_upper = np.empty((0, size))

    total = 1.0
    for g in range(len(groups)):
        c, n, _, first = groups[g]
        total += c * total_of(weight[first : first + n])
    barrier = gap / total
    combine(columns, point, product)
    highest(groups, product, shift, np.empty(n_samples, dtype=np.int64))
    centre(groups, weight, barrier, product, shift, height, duals, terms, scatter, total_here)
    lowest = np.inf
    for k in range(size):
        reduced[k] = linear[k] + dot(duals, columns[k])
        lowest = min(lowest, reduced[k])
    for k in range(size):
        reduced[k] += barrier - lowest

    dual[:] = 1.0
    best = np.inf
    since = 0
    nit = 0
    while True:
        combine(columns, point, product)
        take_step(
            groups, weight, steps[0], steps[1], product, height, d_height, slack, duals, d_dual,
            ratio,
        )  # fmt: skip
        means(groups, columns, ratio, scatter, mean)
        for r in range(n_rows):
            terms[r] = math.sqrt(ratio[r])
        scatter_about(groups, columns, mean, terms, block)
        schur[0] = 0.0
        add_outer(block, n_rows, schur[0])
        for k in range(size):
            towards[0, k] = dot(weight, mean[k])
        least_of(groups, slack, shift)
        complementarity = dot(duals, slack)
        closest = dot(weight, shift)
        lowest = np.inf
        carried = 0.0
        for k in range(size):
            residual[k] *= 1.0 - steps[1]
        for k in range(size):
            below = reduced[k] + residual[k]
            complementarity += point[k] * reduced[k]
            carried += point[k] * below
            lowest = min(lowest, below)
        barrier = complementarity / total
        gap = complementarity - closest + carried - lowest
        since += 1
        if gap < best:
            best = gap
            since = 0
            copy_into(weights, point)
            copy_into(dual, duals)
        if best <= stop or since > INTERIOR_PATIENCE or nit >= max_iter or not gap < np.inf:
            return best, nit

        # The predictor: ds_r = pbar_i - w_i / scatter_i - p_r, dq_r = -q_r - D_r ds_r.
        schur_system.predictor(
            schur, towards, linear, point, reduced, no_upper, none, none, equal,
            kkt, multipliers, gram, omega, centred, d_weights,
        )  # fmt: skip
        combine(columns, d_weights, product)
        add_products(groups, ratio, product, shift)
        for i in range(n_samples):
            shift[i] = (shift[i] - weight[i]) / scatter[i]
        direction(groups, product, shift, d_slack)
        for r in range(n_rows):
            d_dual[r] = -duals[r] - ratio[r] * d_slack[r]
        sums[0, 0] = inverse_step(groups, d_slack, slack, terms, total_here)
        sums[0, 1] = inverse_step(groups, d_dual, duals, terms, total_here)
        sums[0, 2] = dot(duals, d_slack)
        sums[0, 3] = dot(slack, d_dual)
        sums[0, 4] = dot(d_slack, d_dual)
        cut_off(groups, weight, CORRECTION * barrier, d_slack, d_dual, product)
        for i in range(n_samples):
            shift[i] = 1.0 / scatter[i]
        for g in range(len(groups)):
            c, n, begin, first = groups[g]
            factor = shift[first : first + n]
            for j in range(c):
                at = begin + j * n
                part = share[at : at + n]
                here = ratio[at : at + n]
                for i in range(n):
                    part[i] = here[i] * factor[i]
        for r in range(n_rows):
            terms[r] = product[r] / slack[r]
        about_mean(groups, columns, terms, share, total_here, against[0])
        d_slack[:] = 0.0  # no product
        pull(groups, weight, 1.0, d_slack, slack, terms)
        about_mean(groups, columns, terms, share, total_here, towards[0])

        # The corrector: e_r = (target w_i - product_r) / s_r,
        # dt_i = pbar_i + (sum_r e_r - w_i) / scatter_i, dq_r = e_r - D_r ds_r - q_r.
        target = schur_system.corrector(
            towards, against, sums, total, 1.0 / size, complementarity,
            point, reduced, no_upper, none, none, equal, kkt, multipliers, gram, omega, centred,
            d_product, none, d_weights,
        )  # fmt: skip
        pull(groups, weight, target, product, slack, terms)
        add_rows(groups, terms, total_here)
        combine(columns, d_weights, product)
        add_products(groups, ratio, product, shift)
        for i in range(n_samples):
            d_height[i] = (shift[i] + total_here[i] - weight[i]) / scatter[i]
        direction(groups, product, d_height, d_slack)
        for r in range(n_rows):
            d_dual[r] = terms[r] - ratio[r] * d_slack[r] - duals[r]
        sums[0, 0] = inverse_step(groups, d_slack, slack, terms, total_here)
        sums[0, 1] = inverse_step(groups, d_dual, duals, terms, total_here)
        fraction = 1.0 - min(max(gap, LEAST_MARGIN), MOST_MARGIN)  # quadratic convergence
        schur_system.advance(
            sums, target, 1.0 / size, fraction, d_product, none, d_weights, omega, no_upper,
            point, reduced, none, none, none, steps,
        )  # fmt: skip
        nit += 1
