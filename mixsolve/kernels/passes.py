"""The passes of the exact problem: rows of L losses, sample after sample, each row read once.

`extremes` checks the losses, `best_response` and `near_response` play them. Common arguments, for a
chunk of n samples:

- rows (R, L), float64, float32 or uint8: row ``offsets[i] - offsets[0] + j`` is candidate j of
  sample i;
- offsets (n + 1,) int64;
- allowed (R,) uint8, or empty where every candidate may be played;
- sample_weight (n,), weights (L,) float64.

Sums are float64 whatever the type of the rows. Samples of weight 0 are left out of all sums: their
losses may be so large that a product with 0 is a NaN.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.linear_algebra import OPTIONS

_BITS = {"f": np.int32, "d": np.int64, "B": np.uint8}


@kernel(**OPTIONS)
def _key_range(bits, shift, turn):
    """Smallest and largest key of some bits (n,), n > 0, as a pair of the same type."""
    extremes = np.empty(2, dtype=bits.dtype)
    low = bits[0] ^ ((bits[0] >> shift) & turn)
    high = low
    for r in range(bits.size):
        key = bits[r] ^ ((bits[r] >> shift) & turn)
        low = min(low, key)
        high = max(high, key)
    extremes[0] = low
    extremes[1] = high
    return extremes


def extremes(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest value; one of them is not finite where any value is not.

    The bits of floating-point numbers, read as integers, order as the numbers do once those of
    negative numbers are turned round. Minima of integers vectorise, and a NaN comes out as an
    extreme.

    Parameters
    ----------
    values : ndarray of float64, float32 or uint8, shape (n,)
        Contiguous. Without values the answer is (inf, -inf).
    """
    if values.size == 0:
        return np.inf, -np.inf
    bits = values.view(_BITS[values.dtype.char])
    largest = np.iinfo(bits.dtype).max if bits.dtype.kind == "i" else 0
    shift, turn = bits.dtype.type(8 * bits.itemsize - 1), bits.dtype.type(largest)
    keys = _key_range(bits, shift, turn)
    low, high = (keys ^ ((keys >> shift) & turn)).view(values.dtype)
    return float(low), float(high)


@kernel(**OPTIONS)
def _score(rows, r, weights):
    score = 0.0
    for k in range(rows.shape[1]):
        score += weights[k] * rows[r, k]
    return score


@kernel(**OPTIONS)
def most_rows(offsets):
    """Rows of the sample that has the most."""
    most = 0
    for i in range(offsets.size - 1):
        most = max(most, offsets[i + 1] - offsets[i])
    return most


@kernel(**OPTIONS)
def score_all(rows, first, last, allowed, weights, scores):
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
    scores = np.empty(most_rows(offsets))
    near = np.empty(most_rows(offsets), dtype=np.int64)
    taken = np.empty(most_rows(offsets), dtype=np.bool_)
    lead = np.empty((2, n_classifiers))
    leader = np.empty((2, n_classifiers), dtype=np.int64)
    value = 0.0
    found = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        top, winner = score_all(rows, first, last, allowed, weights, scores)
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
