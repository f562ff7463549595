"""Fused passes of the interior point method over the rows of a small game.

Sample ``i`` owns the rows ``offsets[i]:offsets[i + 1]`` and has the weight ``w_i``. Every kernel
walks the samples ``lo:hi`` in memory order and writes the partial sums of that chunk, which are its
last arguments (`mixsolve.base.threads.run_kernel`). A row enters as its difference to the first row
of its sample, times ``inverse`` (one over the unit of the losses): ``a_r = (l_r - l_first) /
unit``. So a constant added to one sample cannot cost digits, and a sample with a single row adds
nothing.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.constants import LEAST_SHARE, LEAST_SLACK
from mixsolve.kernels.linear_algebra import BLOCK, OPTIONS, STRIDE, add_outer


@kernel(**OPTIONS)
def spread_and_reference(rows, offsets, weight, lo, hi, reference, sums):
    """Sum what the rows of one sample share, and how far they spread.

    ``reference`` = sum_i w_i (l_first - l_first[0]), ``sums`` = [sum_i w_i (max_i - min_i),
    sum_i w_i l_first[0]].
    """
    n_classifiers = rows.shape[1]
    for k in range(n_classifiers):
        reference[k] = 0.0
    spread = 0.0
    constant = 0.0
    for i in range(lo, hi):
        first = offsets[i]
        base = rows[first, 0]
        low = base
        high = base
        for r in range(first, offsets[i + 1]):
            for k in range(n_classifiers):
                low = min(low, rows[r, k])
                high = max(high, rows[r, k])
        spread += weight[i] * (high - low)
        constant += weight[i] * base
        for k in range(n_classifiers):
            reference[k] += weight[i] * (rows[first, k] - base)
    sums[0] = spread
    sums[1] = constant


@kernel(**OPTIONS)
def certificate_sums(rows, offsets, weight, weights, dual, lo, hi, gradient, sums):
    """Scale the duals of each sample to its weight, and sum both sides of the certificate.

    ``sums[0]`` = sum_i w_i max_r <lam, l_r - l_first>, ``gradient`` = sum_r q_r (l_r - l_first).
    """
    n_classifiers = rows.shape[1]
    for k in range(n_classifiers):
        gradient[k] = 0.0
    value = 0.0
    for i in range(lo, hi):
        first = offsets[i]
        last = offsets[i + 1]
        mass = 0.0
        for r in range(first, last):
            mass += dual[r]
        best = 0.0
        for r in range(first, last):
            dual[r] = dual[r] / mass * weight[i]
            product = 0.0
            for k in range(n_classifiers):
                product += weights[k] * (rows[r, k] - rows[first, k])
            best = max(best, product)
            if dual[r] != 0.0:
                for k in range(n_classifiers):
                    gradient[k] += dual[r] * (rows[r, k] - rows[first, k])
        value += weight[i] * best
    sums[0] = value


@kernel(**OPTIONS)
def centre(rows, offsets, weight, inverse, weights, barrier, height, dual, lo, hi, gradient):
    """Put the samples on the central path of the barrier parameter mu, for fixed weights.

    Solves ``T(t_i) = sum_r mu / (t_i - <lam, a_r>) = 1`` by Newton's method on the concave 1 / T,
    from the left, then ``q_r = w_i mu / s_r``, scaled to the sum w_i. ``gradient`` = sum_r q_r a_r.
    """
    n_classifiers = rows.shape[1]
    for k in range(n_classifiers):
        gradient[k] = 0.0
    for i in range(lo, hi):
        first = offsets[i]
        last = offsets[i + 1]
        if last - first == 1:
            dual[first] = weight[i]
            continue
        best = 0.0
        for r in range(first, last):
            product = 0.0
            for k in range(n_classifiers):
                product += weights[k] * (rows[r, k] - rows[first, k])
            dual[r] = product * inverse  # holds <lam, a_r> until the end of this sample
            best = max(best, dual[r])
        above = barrier
        for _ in range(10):
            total = 0.0
            slope = 0.0
            for r in range(first, last):
                term = barrier / (above + (best - dual[r]))
                total += term
                slope += term * term
            change = barrier * total * (total - 1.0) / slope
            above += change
            if change <= 1e-2 * above:
                break
        height[i] = best + above
        total = 0.0
        for r in range(first, last):
            dual[r] = barrier / (above + (best - dual[r]))
            total += dual[r]
        for r in range(first, last):
            dual[r] *= weight[i] / total
            for k in range(n_classifiers):
                gradient[k] += dual[r] * ((rows[r, k] - rows[first, k]) * inverse)


@kernel(**OPTIONS)
def factor(
    rows, offsets, weight, inverse, weights, primal_step, dual_step,
    height, d_height, slack, dual, d_dual, lo, hi, schur, centred, sums,
):  # fmt: skip
    """Take the step, then sum the Schur matrix and what the predictor needs, in one walk.

    With ``D_r = q_r / s_r`` and ``abar_i`` the mean of the rows of sample i under D,

        schur   = sum_r D_r (a_r - abar_i)(a_r - abar_i)^T     (upper triangle)
        centred = sum_i w_i abar_i
        sums    = [sum_r q_r s_r, sum_i w_i min_r s_r]

    The scatter of m rows about their mean is summed as m - 1 rank-one terms about the running mean.
    The slack is recomputed from the rows, so it never drifts away from the weights.
    """
    n_classifiers = rows.shape[1]
    block = np.empty((n_classifiers, STRIDE))
    mean = np.empty(n_classifiers)
    for a in range(n_classifiers):
        centred[a] = 0.0
        for b in range(n_classifiers):
            schur[a, b] = 0.0
    complementarity = 0.0
    closest = 0.0
    filled = np.int64(0)  # a literal 0 would compile the update twice
    for i in range(lo, hi):
        first = offsets[i]
        last = offsets[i + 1]
        if last - first == 1:
            continue
        height[i] += primal_step * d_height[i]
        for k in range(n_classifiers):
            mean[k] = 0.0
        least = np.inf
        scatter = 0.0
        for r in range(first, last):
            product = 0.0
            for k in range(n_classifiers):
                product += weights[k] * (rows[r, k] - rows[first, k])
            q = max(dual[r] + dual_step * d_dual[r], LEAST_SHARE * weight[i])
            s = max(height[i] - product * inverse, LEAST_SLACK)
            dual[r] = q
            slack[r] = s
            least = min(least, s)
            complementarity += q * s
            ratio = q / s
            before = scatter
            scatter += ratio
            if r > first:
                share = ratio / scatter
                scale = math.sqrt(before * share)
                for k in range(n_classifiers):
                    difference = (rows[r, k] - rows[first, k]) * inverse - mean[k]
                    mean[k] += share * difference
                    block[k, filled] = scale * difference
                filled += 1
                if filled == BLOCK:
                    add_outer(block, filled, schur)
                    filled = np.int64(0)
        closest += weight[i] * least
        for k in range(n_classifiers):
            centred[k] += weight[i] * mean[k]
    add_outer(block, filled, schur)
    sums[0] = complementarity
    sums[1] = closest


@kernel(**OPTIONS)
def predict(
    rows, offsets, weight, inverse, d_weights, limit, slack, dual, product,
    lo, hi, towards, against, sums,
):  # fmt: skip
    """Follow the predictor's direction and sum what the corrector's right-hand side needs.

    With ``p_r = <dlam, a_r>``, ``pbar_i`` its mean under D and ``c_i = -w_i / sum_r D_r``,

        ds_r     = c_i - (p_r - pbar_i),        dq_r = -q_r - D_r ds_r,
        product  = ds_r dq_r, cut off at +- limit w_i
        towards  = sum_r (w_i / s_r) (a_r - abar_i)
        against  = sum_r (product_r / s_r) (a_r - abar_i)
        sums     = [max -ds/s, max -dq/q, sum q ds, sum s dq, sum ds dq]
    """
    n_classifiers = rows.shape[1]
    for k in range(n_classifiers):
        towards[k] = 0.0
        against[k] = 0.0
    primal_limit = 0.0
    dual_limit = 0.0
    q_ds = 0.0
    s_dq = 0.0
    ds_dq = 0.0
    for i in range(lo, hi):
        first = offsets[i]
        last = offsets[i + 1]
        if last - first == 1:
            continue
        scatter = 0.0
        pbar = 0.0
        for r in range(first, last):
            p = 0.0
            for k in range(n_classifiers):
                p += d_weights[k] * (rows[r, k] - rows[first, k])
            p *= inverse
            product[r] = p  # until the next loop
            ratio = dual[r] / slack[r]
            scatter += ratio
            pbar += ratio * p
        shift = (pbar - weight[i]) / scatter
        total_towards = 0.0
        total_against = 0.0
        for r in range(first, last):
            s = slack[r]
            q = dual[r]
            ds = shift - product[r]
            dq = -q - q / s * ds
            primal_limit = max(primal_limit, -ds / s)
            dual_limit = max(dual_limit, -dq / q)
            q_ds += q * ds
            s_dq += s * dq
            ds_dq += ds * dq
            bound = limit * weight[i]
            product[r] = max(min(ds * dq, bound), -bound)
            total_towards += weight[i] / s
            total_against += product[r] / s
        for r in range(first + 1, last):
            share = dual[r] / (slack[r] * scatter)
            up = (weight[i] / slack[r] - total_towards * share) * inverse
            down = (product[r] / slack[r] - total_against * share) * inverse
            for k in range(n_classifiers):
                difference = rows[r, k] - rows[first, k]
                towards[k] += up * difference
                against[k] += down * difference
    sums[0] = primal_limit
    sums[1] = dual_limit
    sums[2] = q_ds
    sums[3] = s_dq
    sums[4] = ds_dq


@kernel(**OPTIONS)
def correct(
    rows, offsets, weight, inverse, d_weights, target, slack, dual, product, d_height, d_dual,
    lo, hi, sums,
):  # fmt: skip
    """Turn the corrector's direction of the weights into those of the heights and the duals.

    ``product`` is the predictor's ds_r dq_r. With ``e_r = (target w_i - product_r) / s_r`` and
    ``c_i = (sum_r e_r - w_i) / sum_r D_r``,

        dt_i = pbar_i + c_i,    ds_r = dt_i - p_r,    dq_r = e_r - D_r ds_r - q_r,

    ``sums`` = [max -ds/s, max -dq/q].
    """
    n_classifiers = rows.shape[1]
    primal_limit = 0.0
    dual_limit = 0.0
    for i in range(lo, hi):
        first = offsets[i]
        last = offsets[i + 1]
        if last - first == 1:
            continue
        scatter = 0.0
        pbar = 0.0
        total = 0.0
        for r in range(first, last):
            p = 0.0
            for k in range(n_classifiers):
                p += d_weights[k] * (rows[r, k] - rows[first, k])
            p *= inverse
            d_dual[r] = p  # until the next loop
            ratio = dual[r] / slack[r]
            scatter += ratio
            pbar += ratio * p
            total += (target * weight[i] - product[r]) / slack[r]
        dt = (pbar + total - weight[i]) / scatter
        d_height[i] = dt
        for r in range(first, last):
            s = slack[r]
            q = dual[r]
            ds = dt - d_dual[r]
            dq = (target * weight[i] - product[r] - q * ds) / s - q
            d_dual[r] = dq
            primal_limit = max(primal_limit, -ds / s)
            dual_limit = max(dual_limit, -dq / q)
    sums[0] = primal_limit
    sums[1] = dual_limit


@kernel(**OPTIONS)
def select(
    rows, offsets, weight, inverse, dual, share,
    index, kept_offsets, owners, linear, decided,
):  # fmt: skip
    """List the rows worth keeping: those that hold at least ``share`` of their sample's dual.

    The row with the largest dual comes first in its sample. A sample left with one row is decided:
    it is dropped, ``decided`` puts its weight on that row (all else in it is zero), and ``linear``
    gains sum_i w_i (l_best - l_first) / unit over all samples. Returns the number of samples kept.
    """
    n_classifiers = rows.shape[1]
    for r in range(len(decided)):
        decided[r] = 0.0
    n_kept = 0
    filled = 0
    for i in range(len(offsets) - 1):
        first = offsets[i]
        last = offsets[i + 1]
        best = first
        for r in range(first + 1, last):
            if dual[r] > dual[best]:
                best = r
        begin = filled
        index[filled] = best
        filled += 1
        for r in range(first, last):
            if r != best and dual[r] >= share * weight[i]:
                index[filled] = r
                filled += 1
        if filled - begin == 1:
            filled = begin
            decided[best] = weight[i]
        else:
            owners[n_kept] = i
            n_kept += 1
            kept_offsets[n_kept] = filled
        if best != first:
            for k in range(n_classifiers):
                linear[k] += weight[i] * ((rows[best, k] - rows[first, k]) * inverse)
    return n_kept
