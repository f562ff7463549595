"""The passes of the entropic problem: soft responses, and the Gibbs strategies that they play.

Common arguments are those of `mixsolve.kernels.passes`, and

- prior (R,) float64, the base measure up to a factor for each sample, or empty where uniform;
- alpha (n,) float64.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.linear_algebra import BLOCK, OPTIONS, STRIDE, add_outer
from mixsolve.kernels.passes import most_rows, score_all

_LOWEST = -float(np.finfo(np.float64).max)  # above the score of a masked candidate
_NEGLIGIBLE = 1e-12  # share of a sample's mass that its covariance can do without


@kernel(**OPTIONS)
def _find_near(scores, threshold, near):
    """The places of all scores from `threshold` on, and how many there are."""
    found = 0
    for j in range(near.size):
        near[found] = j  # without a branch, which would be mispredicted
        found += scores[j] >= threshold
    return found


@kernel(**OPTIONS)
def soft_response(
    rows, offsets, allowed, prior, sample_weight, alpha, weights, cutoff, gradient, hessian
):
    """sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i), its gradient and Hessian.

    With q the softmax of sample i and lbar = l_i,best + E_q[l_ij - l_i,best]:
        gradient += w_i lbar,    hessian += w_i / alpha_i E_q[(l_ij - lbar) (l_ij - lbar)'],
    in the upper triangle only; an empty `hessian` is not written. Differences from the best row
    lose no digits where the candidates hardly differ, nor does the logarithm where alpha is large
    and the sum hardly below the measure's. Candidates more than `cutoff` alpha below the best are
    skipped: exp(-cutoff) is below the rounding of the sum. The Hessian, which only guides steps,
    leaves out shares below `_NEGLIGIBLE`; its outer products are added in blocks.

    Memory walk: every row once for its score, the rows within the cutoff twice more from cache.
    """
    n_classifiers = rows.shape[1]
    second_order = hessian.size > 0
    masked = allowed.size > 0
    measured = prior.size > 0
    scores = np.empty(most_rows(offsets))
    near = np.empty(scores.size, dtype=np.int64)
    mean = np.empty(n_classifiers)
    block = np.empty((hessian.shape[0], STRIDE))
    filled = 0
    value = 0.0
    for i in range(offsets.size - 1):
        if sample_weight[i] == 0.0:
            continue
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top, winner = score_all(rows, first, last, allowed, weights, scores)
        threshold = max(top - cutoff * alpha[i], _LOWEST)
        n_near = _find_near(scores, threshold, near[: last - first])
        skipped = float(last - first - n_near)
        if masked or measured:
            skipped = 0.0
            for r in range(first, last):
                if scores[r - first] < threshold and not (masked and not allowed[r]):
                    skipped += prior[r] if measured else 1.0
        measure = skipped
        total = 0.0
        deficit = skipped  # measure - total
        for c in range(n_near):
            share = prior[first + near[c]] if measured else 1.0
            exponent = (scores[near[c]] - top) / alpha[i]
            if exponent > -0.5:
                less = share * math.expm1(exponent)
                mass = share + less
            else:
                mass = share * math.exp(exponent)
                less = mass - share
            measure += share
            total += mass
            deficit -= less
            scores[c] = mass
        if deficit < 0.5 * measure:
            logarithm = math.log1p(-deficit / measure)
        else:
            logarithm = math.log(total / measure)
        value += sample_weight[i] * (top + alpha[i] * logarithm)
        mean[:] = 0.0
        for c in range(n_near):
            share = scores[c] / total
            r = first + near[c]
            for k in range(n_classifiers):
                mean[k] += share * (np.float64(rows[r, k]) - np.float64(rows[winner, k]))
        for k in range(n_classifiers):
            mean[k] += rows[winner, k]
            gradient[k] += sample_weight[i] * mean[k]
        if not second_order or n_near == 1:
            continue
        curvature = sample_weight[i] / (alpha[i] * total)
        for c in range(n_near):
            if scores[c] < _NEGLIGIBLE * total:
                continue
            scale = math.sqrt(curvature * scores[c])
            r = first + near[c]
            for k in range(n_classifiers):
                block[k, filled] = scale * (np.float64(rows[r, k]) - mean[k])
            filled += 1
            if filled == BLOCK:
                add_outer(block, filled, hessian)
                filled = 0
    if second_order:
        add_outer(block, filled, hessian)
    return value


@kernel(**OPTIONS)
def gibbs(
    rows,
    offsets,
    allowed,
    prior,
    alpha,
    weights,
    cutoff,
    counts,
    candidates,
    probabilities,
):
    """The Gibbs strategy p_ij exp(<lam, l_ij> / alpha_i), normalised within each sample.

    Its counts[i] entries, of the candidates within `cutoff` alpha of the best as `soft_response`
    has them, are written to `candidates` and `probabilities`, both (R,), one sample after the
    other; they sum to 1. Returns their number.

    Memory walk: every row once, in order.
    """
    measured = prior.size > 0
    scores = np.empty(most_rows(offsets))
    near = np.empty(scores.size, dtype=np.int64)
    used = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top, _ = score_all(rows, first, last, allowed, weights, scores)
        n_near = _find_near(scores, max(top - cutoff * alpha[i], _LOWEST), near[: last - first])
        total = 0.0
        for c in range(n_near):
            mass = math.exp((scores[near[c]] - top) / alpha[i])
            if measured:
                mass *= prior[first + near[c]]
            scores[c] = mass
            total += mass
        begin = used
        kept = 0.0
        for c in range(n_near):
            if scores[c] > 0.0:
                candidates[used] = near[c]
                probabilities[used] = scores[c]
                kept += scores[c]
                used += 1
        for entry in range(begin, used):
            probabilities[entry] /= kept
        counts[i] = used - begin
    return used
