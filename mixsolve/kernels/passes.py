"""The passes over the tensor: rows of L losses, sample after sample, each row read once.

Common arguments, for a chunk of n samples:

- rows (R, L), float64, float32 or uint8: row ``offsets[i] - offsets[0] + j`` is candidate j of
  sample i;
- offsets (n + 1,) int64;
- allowed (R,) uint8, or empty where every candidate may be played;
- prior (R,) float64, the base measure up to a factor for each sample, or empty where uniform;
- sample_weight (n,), alpha (n,), weights (L,) float64.

Sums are float64 whatever the type of the rows.
"""

import math

import numpy as np
from numba import njit

from mixsolve.kernels.linear_algebra import BLOCK, OPTIONS, STRIDE, add_outer


@njit(**OPTIONS)
def _score(rows, r, weights):
    score = 0.0
    for k in range(rows.shape[1]):
        score += weights[k] * rows[r, k]
    return score


@njit(**OPTIONS)
def _longest(offsets):
    longest = 0
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest


@njit(**OPTIONS)
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
        value += sample_weight[i] * top
        for k in range(n_classifiers):
            gradient[k] += sample_weight[i] * rows[winner, k]
    return value


@njit(**OPTIONS)
def soft_response(
    rows, offsets, allowed, prior, sample_weight, alpha, weights, cutoff, gradient, hessian
):
    """sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i), its gradient and Hessian.

    With q the softmax of sample i and d_j = l_ij - l_i,best:
        gradient += w_i (l_i,best + E_q d),    hessian += w_i / alpha_i Cov_q d,
    in the upper triangle only; an empty `hessian` is left alone. Differences from the best row
    lose no digits where the candidates hardly differ, nor does the logarithm where alpha is large
    and the sum hardly below the measure's. Candidates more than `cutoff` alpha below the best are
    skipped: exp(-cutoff) is below the rounding of the sum.

    Means and covariances are updated row by row, E += s (d - E) and C += s (1 - s) (d - E)(d - E)'
    with s the row's share of the mass so far; the outer products are added in blocks.

    Memory walk: every row once for its score, the rows within the cutoff once more from cache.
    """
    n_classifiers = rows.shape[1]
    second_order = hessian.size > 0
    masked = allowed.size > 0
    measured = prior.size > 0
    scores = np.empty(_longest(offsets))
    mean = np.empty(n_classifiers)
    block = np.empty((hessian.shape[0], STRIDE))
    filled = 0
    value = 0.0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top = -np.inf
        winner = first
        measure = 0.0
        for r in range(first, last):
            if masked and not allowed[r]:
                scores[r - first] = -np.inf
                continue
            measure += prior[r] if measured else 1.0
            score = _score(rows, r, weights)
            scores[r - first] = score
            if score > top:
                top = score
                winner = r
        total = 0.0
        deficit = 0.0  # measure - total
        threshold = top - cutoff * alpha[i]
        for r in range(first, last):
            share = prior[r] if measured else 1.0
            if scores[r - first] == -np.inf:
                scores[r - first] = 0.0  # masked
                continue
            if scores[r - first] < threshold:
                deficit += share
                scores[r - first] = 0.0
                continue
            exponent = (scores[r - first] - top) / alpha[i]
            if exponent > -0.5:
                less = share * math.expm1(exponent)
                mass = share + less
            else:
                mass = share * math.exp(exponent)
                less = mass - share
            total += mass
            deficit -= less
            scores[r - first] = mass
        if deficit < 0.5 * measure:
            logarithm = math.log1p(-deficit / measure)
        else:
            logarithm = math.log(total / measure)
        value += sample_weight[i] * (top + alpha[i] * logarithm)
        mean[:] = 0.0
        so_far = scores[winner - first]
        curvature = sample_weight[i] / (alpha[i] * total)
        for r in range(first, last):
            mass = scores[r - first]
            if mass == 0.0 or r == winner:
                continue
            share = mass / (so_far + mass)
            scale = math.sqrt(curvature * so_far * share)
            so_far += mass
            for k in range(n_classifiers):
                difference = np.float64(rows[r, k])
                difference -= rows[winner, k]
                difference -= mean[k]
                mean[k] += share * difference
                if second_order:
                    block[k, filled] = scale * difference
            if second_order:
                filled += 1
                if filled == BLOCK:
                    add_outer(block, filled, hessian)
                    filled = 0
        for k in range(n_classifiers):
            gradient[k] += sample_weight[i] * (rows[winner, k] + mean[k])
    if second_order:
        add_outer(block, filled, hessian)
    return value


@njit(**OPTIONS)
def gibbs(
    rows, offsets, allowed, prior, alpha, weights, threshold, counts, candidates, probabilities
):
    """The Gibbs strategy p_ij exp(<lam, l_ij> / alpha_i), normalised within each sample.

    Its counts[i] entries above `threshold` (which the likeliest candidate always is) are written
    to `candidates` and `probabilities`, both (R,), one sample after the other; they sum to 1.
    Returns their number.
    """
    masked = allowed.size > 0
    measured = prior.size > 0
    masses = np.empty(_longest(offsets))
    used = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top = -np.inf
        for r in range(first, last):
            score = _score(rows, r, weights)
            if masked and not allowed[r]:
                score = -np.inf
            masses[r - first] = score
            top = max(top, score)
        total = 0.0
        for r in range(first, last):
            mass = math.exp((masses[r - first] - top) / alpha[i])
            if measured:
                mass *= prior[r]
            masses[r - first] = mass
            total += mass
        begin = used
        kept = 0.0
        for r in range(first, last):
            if masses[r - first] > threshold * total:
                candidates[used] = r - first
                probabilities[used] = masses[r - first]
                kept += masses[r - first]
                used += 1
        for entry in range(begin, used):
            probabilities[entry] /= kept
        counts[i] = used - begin
    return used


@njit(**OPTIONS)
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
    masked = allowed.size > 0
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
        top = -np.inf
        winner = first
        for r in range(first, last):
            score = _score(rows, r, weights)
            if masked and not allowed[r]:
                score = -np.inf
            scores[r - first] = score
            if score > top:
                top = score
                winner = r
        best[i] = winner - first
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
