"""Row walks of the interior point method where the attacker also chooses the mass of each block.

Samples stand block by block: block b owns the samples ``blocks[b]:blocks[b + 1]``. Sample i has the
share ``share[i]`` of its block, whose mass m_b is a variable: the duals of its rows sum to
``share_i m_b``. The path is q_r s_r = mu share_i path_b, with fixed ``path``. Rows enter as in
`mixsolve.kernels.interior_point`. With D_r = q_r / s_r, S_i = sum_r D_r, abar_i the mean of the
rows under D and e_r = (target share_i path_b - product_r) / s_r, a step of the weights and the
masses moves the height of a sample by

    dt_i = <abar_i, dlam> + (sum_r e_r - share_i (m_b + dm_b)) / S_i.
"""

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels import interior_point as kernels
from mixsolve.kernels.linear_algebra import OPTIONS


@kernel(**OPTIONS)
def centre(rows, offsets, share, blocks, inverse, weights, barriers, mass, height, dual):
    """Put the samples of each block on the path of its own barrier, for fixed weights."""
    ignored = np.empty(weights.size)
    for b in range(mass.size):
        kernels.centre(
            rows, offsets, share, inverse, weights, barriers[b], height, dual,
            blocks[b], blocks[b + 1], ignored,
        )  # fmt: skip
        for r in range(offsets[blocks[b]], offsets[blocks[b + 1]]):
            dual[r] *= mass[b]


@kernel(**OPTIONS)
def heights(share, blocks, offsets, height, linear, weights, level):
    """``level_b = <linear_b, lam> + sum_i share_i t_i``; a sample of one row adds nothing."""
    for b in range(level.size):
        total = 0.0
        for k in range(weights.size):
            total += linear[b, k] * weights[k]
        for i in range(blocks[b], blocks[b + 1]):
            if offsets[i + 1] - offsets[i] > 1:
                total += share[i] * height[i]
        level[b] = total


@kernel(**OPTIONS)
def factor(
    rows, offsets, share, blocks, inverse, weights, primal_step, dual_step,
    height, d_height, slack, dual, d_dual, linear, mass,
    schur, slopes, curvature, closest, gradient,
):  # fmt: skip
    """Take the step, then sum the Schur matrix and each block's slope and curvature.

        schur       = sum_r D_r (a_r - abar_i)(a_r - abar_i)^T       (upper triangle)
        slopes_b    = linear_b + sum_i share_i abar_i
        curvature_b = sum_i share_i^2 / S_i
        closest_b   = sum_i share_i min_r s_r
        gradient    = sum_b m_b linear_b + sum_r q_r a_r

    Returns sum_r q_r s_r.
    """
    size = weights.size
    part = np.empty((size, size))
    centred = np.empty(size)
    sums = np.empty(2)
    complementarity = 0.0
    for a in range(size):
        gradient[a] = 0.0
        for b in range(size):
            schur[a, b] = 0.0
    for b in range(mass.size):
        first = blocks[b]
        last = blocks[b + 1]
        curvature[b] = 0.0
        closest[b] = 0.0
        for k in range(size):
            slopes[b, k] = linear[b, k]
            gradient[k] += mass[b] * linear[b, k]
        if offsets[last] - offsets[first] == last - first:
            continue  # no sample with several rows
        kernels.factor(
            rows, offsets, share, inverse, weights, primal_step, dual_step,
            height, d_height, slack, dual, d_dual, first, last, part, centred, sums,
        )  # fmt: skip
        complementarity += sums[0]
        closest[b] = sums[1]
        for k in range(size):
            slopes[b, k] += centred[k]
            for j in range(k, size):
                schur[k, j] += part[k, j]
        for i in range(first, last):
            begin = offsets[i]
            end = offsets[i + 1]
            if end - begin == 1:
                continue
            scatter = dual[begin] / slack[begin]
            for r in range(begin + 1, end):
                scatter += dual[r] / slack[r]
                for k in range(size):
                    gradient[k] += dual[r] * ((rows[r, k] - rows[begin, k]) * inverse)
            curvature[b] += share[i] * share[i] / scatter
    return complementarity


@kernel(**OPTIONS)
def predict(
    rows, offsets, share, blocks, inverse, d_weights, new_mass, path, limit, slack, dual, product,
    towards, against, up, down, sums,
):  # fmt: skip
    """Follow the predictor's direction and sum what the corrector's right-hand side needs.

        product    = ds_r dq_r of the predictor, cut off at +- limit share_i path_b
        towards    = sum_r (share_i path_b / s_r) (a_r - abar_i)
        against    = sum_r (product_r / s_r) (a_r - abar_i)
        up_b       = sum_i share_i (sum_r share_i path_b / s_r) / S_i
        down_b     = sum_i share_i (sum_r product_r / s_r) / S_i
        sums       = [max -ds/s, max -dq/q, sum q ds, sum s dq, sum ds dq]

    ``new_mass`` is m + dm.
    """
    size = d_weights.size
    for k in range(size):
        towards[k] = 0.0
        against[k] = 0.0
    for place in range(5):
        sums[place] = 0.0
    for b in range(new_mass.size):
        up[b] = 0.0
        down[b] = 0.0
        for i in range(blocks[b], blocks[b + 1]):
            first = offsets[i]
            last = offsets[i + 1]
            if last - first == 1:
                continue
            weight = share[i] * path[b]
            bound = limit * weight
            scatter = 0.0
            pbar = 0.0
            for r in range(first, last):
                p = 0.0
                for k in range(size):
                    p += d_weights[k] * (rows[r, k] - rows[first, k])
                p *= inverse
                product[r] = p  # until the next loop
                ratio = dual[r] / slack[r]
                scatter += ratio
                pbar += ratio * p
            shift = (pbar - share[i] * new_mass[b]) / scatter
            total_towards = 0.0
            total_against = 0.0
            for r in range(first, last):
                s = slack[r]
                q = dual[r]
                ds = shift - product[r]
                dq = -q - q / s * ds
                sums[0] = max(sums[0], -ds / s)
                sums[1] = max(sums[1], -dq / q)
                sums[2] += q * ds
                sums[3] += s * dq
                sums[4] += ds * dq
                product[r] = max(min(ds * dq, bound), -bound)
                total_towards += weight / s
                total_against += product[r] / s
            up[b] += share[i] * total_towards / scatter
            down[b] += share[i] * total_against / scatter
            for r in range(first + 1, last):
                part = dual[r] / (slack[r] * scatter)
                more = (weight / slack[r] - total_towards * part) * inverse
                less = (product[r] / slack[r] - total_against * part) * inverse
                for k in range(size):
                    difference = rows[r, k] - rows[first, k]
                    towards[k] += more * difference
                    against[k] += less * difference


@kernel(**OPTIONS)
def correct(
    rows, offsets, share, blocks, inverse, d_weights, new_mass, path, target, slack, dual, product,
    d_height, d_dual, sums,
):  # fmt: skip
    """Turn the corrector's direction of weights and masses into that of heights and duals.

    ``sums`` = [max -ds/s, max -dq/q].
    """
    size = d_weights.size
    sums[0] = 0.0
    sums[1] = 0.0
    for b in range(new_mass.size):
        for i in range(blocks[b], blocks[b + 1]):
            first = offsets[i]
            last = offsets[i + 1]
            if last - first == 1:
                continue
            weight = target * share[i] * path[b]
            scatter = 0.0
            pbar = 0.0
            total = 0.0
            for r in range(first, last):
                p = 0.0
                for k in range(size):
                    p += d_weights[k] * (rows[r, k] - rows[first, k])
                p *= inverse
                d_dual[r] = p  # until the next loop
                ratio = dual[r] / slack[r]
                scatter += ratio
                pbar += ratio * p
                total += (weight - product[r]) / slack[r]
            dt = (pbar + total - share[i] * new_mass[b]) / scatter
            d_height[i] = dt
            for r in range(first, last):
                s = slack[r]
                q = dual[r]
                ds = dt - d_dual[r]
                dq = (weight - product[r] - q * ds) / s - q
                d_dual[r] = dq
                sums[0] = max(sums[0], -ds / s)
                sums[1] = max(sums[1], -dq / q)
