"""The passes over the tensor: rows of L losses, sample after sample, each row read once.

Common arguments, for a chunk of n samples:

- rows (R, L), float64, float32 or uint8: row ``offsets[i] - offsets[0] + j`` is candidate j of
  sample i;
- offsets (n + 1,) int64;
- allowed (R,) uint8, or empty where every candidate may be played;
- prior (R,) float64, the base measure up to a factor for each sample, or empty where uniform;
- sample_weight (n,), alpha (n,), weights (L,) float64.

Sums are float64 whatever the type of the rows. Samples of weight 0 are left out of all sums: their
losses may be so large that a product with 0 is a NaN.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.linear_algebra import BLOCK, OPTIONS, STRIDE, add_outer

LOWEST = -float(np.finfo(np.float64).max)  # above the score of a masked candidate
NEGLIGIBLE = 1e-12  # share of a sample's mass that its covariance can do without


@kernel(**OPTIONS)
def _score(rows, r, weights):
    score = 0.0
    for k in range(rows.shape[1]):
        score += weights[k] * rows[r, k]
    return score


@kernel(**OPTIONS)
def _longest(offsets):
    longest = 0
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest


@kernel(**OPTIONS)
def _score_all(rows, first, last, allowed, weights, scores):
    """Scores of a sample's rows, -inf where masked; the highest score and the first row with it."""
    masked = allowed.size > 0
    top = -np.inf
    winner = first
    for r in range(first, last):
        score = -np.inf if masked and not allowed[r] else _score(rows, r, weights)
        scores[r - first] = score
        if score > top:
            top = score
            winner = r
    return top, winner


@kernel(**OPTIONS)
def _find_near(scores, threshold, near):
    """The places of all scores from `threshold` on, and how many there are."""
    found = 0
    for j in range(near.size):
        near[found] = j  # without a branch, which would be mispredicted
        found += scores[j] >= threshold
    return found


@kernel(**OPTIONS)
def best_response(rows, offsets, allowed, sample_weight, weights, best, gradient):
    """sum_i w_i max_j <lam, l_ij>; best[i] becomes the first maximiser, gradient += w_i l_i,best.

    Memory walk: every row once, in order; the winners' rows once more, still in cache.
    """
    n_classifiers = rows.shape[1]
    masked = allowed.size > 0
    value = 0.0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top = -np.inf
        winner = first
        for r in range(first, last):
            if masked and not allowed[r]:
                continue
            score = _score(rows, r, weights)
            if score > top:
                top = score
                winner = r
        best[i] = winner - first
        if sample_weight[i] == 0.0:
            continue
        value += sample_weight[i] * top
        for k in range(n_classifiers):
            gradient[k] += sample_weight[i] * rows[winner, k]
    return value


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
    leaves out shares below `NEGLIGIBLE`; its outer products are added in blocks.

    Memory walk: every row once for its score, the rows within the cutoff twice more from cache.
    """
    n_classifiers = rows.shape[1]
    second_order = hessian.size > 0
    masked = allowed.size > 0
    measured = prior.size > 0
    scores = np.empty(_longest(offsets))
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
        top, winner = _score_all(rows, first, last, allowed, weights, scores)
        threshold = max(top - cutoff * alpha[i], LOWEST)
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
            if scores[c] < NEGLIGIBLE * total:
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
    scores = np.empty(_longest(offsets))
    near = np.empty(scores.size, dtype=np.int64)
    used = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top, _ = _score_all(rows, first, last, allowed, weights, scores)
        n_near = _find_near(scores, max(top - cutoff * alpha[i], LOWEST), near[: last - first])
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


@kernel(**OPTIONS)
def near_response(
    rows,
    offsets,
    allowed,
    sample_weight,
    weights,
    radius,
    reach,
    slack,
    best,
    gradient,
    near_samples,
    near_candidates,
):
    """`best_response`, and the candidates that may win for weights about `radius` away.

    Row r of sample i is near when <lam, l_i,best - l_r> <= slack_i + radius |l_i,best - l_r|; every
    |l_i,best - l_r| is at most `reach`. An empty `slack` stands for 0 and pure winners: then rows
    equal to the best do not count, and of more than L near rows only those are taken that win when
    one weight changes by radius sqrt(L), up or down. Samples with a row taken besides the best have
    them all listed, the best one first, as far as `near_samples` and `near_candidates` have room.
    Returns the value and the number of entries that there were.

    Memory walk: every row once for its score, the near ones once or twice more from cache.
    """
    n_classifiers = rows.shape[1]
    step = radius * math.sqrt(n_classifiers)
    pure = slack.size == 0
    scores = np.empty(_longest(offsets))
    near = np.empty(_longest(offsets), dtype=np.int64)
    taken = np.empty(_longest(offsets), dtype=np.bool_)
    lead = np.empty((2, n_classifiers))
    leader = np.empty((2, n_classifiers), dtype=np.int64)
    value = 0.0
    found = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top, winner = _score_all(rows, first, last, allowed, weights, scores)
        best[i] = winner - first
        if sample_weight[i] > 0.0:
            value += sample_weight[i] * top
            for k in range(n_classifiers):
                gradient[k] += sample_weight[i] * rows[winner, k]
        allowance = 0.0 if pure else slack[i]
        threshold = top - allowance - radius * reach
        n_near = 0
        for r in range(first, last):
            if scores[r - first] < threshold or r == winner:
                continue
            distance = 0.0
            for k in range(n_classifiers):
                difference = np.float64(rows[r, k]) - rows[winner, k]
                distance += difference * difference
            if pure and distance == 0.0:
                continue
            if top - scores[r - first] <= allowance + radius * math.sqrt(distance):
                near[n_near] = r
                taken[n_near] = True
                n_near += 1
        if n_near == 0:
            continue
        if pure and n_near > n_classifiers:
            lead[:, :] = 0.0
            leader[:, :] = -1
            for c in range(n_near):
                taken[c] = False
                margin = top - scores[near[c] - first]
                for k in range(n_classifiers):
                    change = step * (np.float64(rows[near[c], k]) - rows[winner, k])
                    if change - margin > lead[0, k]:
                        lead[0, k] = change - margin
                        leader[0, k] = c
                    if -change - margin > lead[1, k]:
                        lead[1, k] = -change - margin
                        leader[1, k] = c
            for k in range(n_classifiers):
                for side in range(2):
                    if leader[side, k] >= 0:
                        taken[leader[side, k]] = True
        before = found
        for c in range(n_near):
            if not taken[c]:
                continue
            if found == before:
                if found < near_samples.size:
                    near_samples[found] = i
                    near_candidates[found] = winner - first
                found += 1
            if found < near_samples.size:
                near_samples[found] = i
                near_candidates[found] = near[c] - first
            found += 1
    return value, found
