"""The passes of the entropic problem: soft responses, and the Gibbs strategies that they play.

Common arguments are those of `mixsolve.kernels.passes`, and

- prior (R,) float64, the base measure up to a factor for each sample, or empty where uniform;
- alpha (n,) float64.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.exponentials import IN_ORDER, exponentials
from mixsolve.kernels.linear_algebra import BLOCK, OPTIONS, STRIDE, add_outer
from mixsolve.kernels.passes import most_rows, score_all

_LOWEST = -float(np.finfo(np.float64).max)  # above the score of a masked candidate


@kernel(**OPTIONS)
def _find_near(scores, threshold, near):
    """The places of all scores from `threshold` on, and how many there are."""
    found = 0
    for j in range(near.size):
        near[found] = j  # without a branch, which would be mispredicted
        found += scores[j] >= threshold
    return found


@kernel(**OPTIONS)
def _measure_skipped(scores, threshold, first, last, allowed, prior):
    """Base measure of the rows first:last that may be played and score less than `threshold`."""
    skipped = 0.0
    for r in range(first, last):
        if scores[r - first] < threshold and not (allowed.size > 0 and not allowed[r]):
            skipped += prior[r] if prior.size > 0 else 1.0
    return skipped


@kernel(**IN_ORDER)
def _add_differences(rows, first, near, count, mass, origin, total):
    """Total += sum_c mass[c] (rows[first + near[c]] - origin), four rows at a time."""
    fours = count - count % 4
    for c in range(0, fours, 4):
        r0 = first + near[c]
        r1 = first + near[c + 1]
        r2 = first + near[c + 2]
        r3 = first + near[c + 3]
        m0 = mass[c]
        m1 = mass[c + 1]
        m2 = mass[c + 2]
        m3 = mass[c + 3]
        for k in range(total.size):
            base = origin[k]
            part = total[k] + m0 * (rows[r0, k] - base)
            part += m1 * (rows[r1, k] - base)
            part += m2 * (rows[r2, k] - base)
            total[k] = part + m3 * (rows[r3, k] - base)
    for c in range(fours, count):
        for k in range(total.size):
            total[k] += mass[c] * (rows[first + near[c], k] - origin[k])


@kernel(**IN_ORDER)
def _fill_columns(rows, first, near, begin, count, factor, origin, block, place):
    """Columns place:place + count of the block become factor[c] (rows[first + near[c]] - origin).

    c goes from `begin` on; four columns at a time, which are neighbours in memory.
    """
    fours = count - count % 4
    for j in range(0, fours, 4):
        c = begin + j
        r0 = first + near[c]
        r1 = first + near[c + 1]
        r2 = first + near[c + 2]
        r3 = first + near[c + 3]
        f0 = factor[c]
        f1 = factor[c + 1]
        f2 = factor[c + 2]
        f3 = factor[c + 3]
        for k in range(origin.size):
            base = origin[k]
            d0 = f0 * (rows[r0, k] - base)
            d1 = f1 * (rows[r1, k] - base)
            d2 = f2 * (rows[r2, k] - base)
            d3 = f3 * (rows[r3, k] - base)
            block[k, place + j] = d0
            block[k, place + j + 1] = d1
            block[k, place + j + 2] = d2
            block[k, place + j + 3] = d3
    for j in range(fours, count):
        for k in range(origin.size):
            difference = rows[first + near[begin + j], k] - origin[k]
            block[k, place + j] = factor[begin + j] * difference


@kernel(**OPTIONS)
def soft_answer(
    rows,
    offsets,
    allowed,
    prior,
    sample_weight,
    curved,
    alpha,
    weights,
    cutoff,
    gradient,
    hessian,
    best,
    pure,
    counts,
    candidates,
    probabilities,
):
    """sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i), and what is asked for besides.

    With q the softmax of sample i and lbar = l_i,best + E_q[l_ij - l_i,best]:
        gradient += w_i lbar,    hessian += v_i / alpha_i E_q[(l_ij - lbar) (l_ij - lbar)'],
    in the upper triangle only, v being `curved` (n,): w, or weights of some samples alone. An empty
    `hessian` is not written. Differences from the best row lose no digits where the candidates
    hardly differ, nor does the logarithm where alpha is large and the sum hardly below the
    measure's. Candidates more than `cutoff` alpha below the best are skipped: exp(-cutoff) is below
    the rounding of the sum. Outer products are added in blocks of columns.

    best[i] becomes the first candidate of the highest score, and sum_i w_i l_i,best and the risk
    sum_i w_i max_j <lam, l_ij> are added to `pure` (L + 1,). The Gibbs strategy q has counts[i]
    entries, written to `candidates` and `probabilities`, both (R,), one sample after the other;
    they sum to 1. Empty arrays stand for what is not asked for.

    Memory walk: every row once for its score, the rows within the cutoff twice more from cache.
    """
    n_classifiers = rows.shape[1]
    second_order = hessian.size > 0
    played = counts.size > 0
    weighed = allowed.size > 0 or prior.size > 0
    longest = most_rows(offsets)
    scores = np.empty(longest)
    near = np.empty(longest, dtype=np.int64)
    mass = np.empty(longest)
    less = np.empty(longest)
    origin = np.empty(n_classifiers)
    mean = np.empty(n_classifiers)
    block = np.empty((hessian.shape[0], STRIDE))
    filled = 0
    used = 0
    value = 0.0
    for i in range(offsets.size - 1):
        if sample_weight[i] == 0.0 and not played and best.size == 0:
            continue
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top, winner = score_all(rows, first, last, allowed, weights, scores)
        if best.size > 0:
            best[i] = winner - first
        threshold = max(top - cutoff * alpha[i], _LOWEST)
        n_near = _find_near(scores, threshold, near[: last - first])
        skipped = float(last - first - n_near)
        if weighed:
            skipped = _measure_skipped(scores, threshold, first, last, allowed, prior)
        for c in range(n_near):
            scores[c] = scores[near[c]] - top  # near[c] >= c: none is overwritten before its turn
        exponentials(scores, n_near, alpha[i], mass, less)
        measure = skipped + n_near
        if prior.size > 0:
            for c in range(n_near):
                scores[c] = prior[first + near[c]]
            measure = skipped
            for c in range(n_near):
                measure += scores[c]
            for c in range(n_near):
                mass[c] *= scores[c]
                less[c] *= scores[c]
        total = 0.0
        for c in range(n_near):
            total += mass[c]
        if played:
            begin = used
            for c in range(n_near):
                candidates[used] = near[c]
                probabilities[used] = mass[c] / total
                used += mass[c] > 0.0
            counts[i] = used - begin
        if sample_weight[i] == 0.0:
            continue
        deficit = skipped  # measure - total
        for c in range(n_near):
            deficit -= less[c]
        if deficit < 0.5 * measure:
            logarithm = math.log1p(-deficit / measure)
        else:
            logarithm = math.log(total / measure)
        value += sample_weight[i] * (top + alpha[i] * logarithm)
        for k in range(n_classifiers):
            origin[k] = rows[winner, k]
            mean[k] = 0.0
        if best.size > 0:
            pure[n_classifiers] += sample_weight[i] * top
            for k in range(n_classifiers):
                pure[k] += sample_weight[i] * origin[k]
        _add_differences(rows, first, near, n_near, mass, origin, mean)
        for k in range(n_classifiers):
            mean[k] = origin[k] + mean[k] / total
            gradient[k] += sample_weight[i] * mean[k]
        if not second_order or n_near == 1 or curved[i] == 0.0:
            continue
        curvature = curved[i] / (alpha[i] * total)
        for c in range(n_near):
            less[c] = math.sqrt(curvature * mass[c])
        begin = 0
        while begin < n_near:
            count = min(n_near - begin, BLOCK - filled)
            _fill_columns(rows, first, near, begin, count, less, mean, block, filled)
            begin += count
            filled += count
            if filled == BLOCK:
                add_outer(block, filled, hessian)
                filled = 0
    if second_order:
        add_outer(block, filled, hessian)
    return value


@kernel(**OPTIONS)
def soft_response(
    rows, offsets, allowed, prior, sample_weight, alpha, weights, cutoff, gradient, hessian
):
    """`soft_answer` with the value, gradient and Hessian alone."""
    nothing = np.empty(0, dtype=np.int64)
    return soft_answer(
        rows,
        offsets,
        allowed,
        prior,
        sample_weight,
        sample_weight,
        alpha,
        weights,
        cutoff,
        gradient,
        hessian,
        nothing,
        np.empty(0),
        nothing,
        nothing,
        np.empty(0),
    )
