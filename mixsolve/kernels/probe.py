"""Lower bounds on the mixtures of some classifiers by a few passes over their columns alone.

    F(lam) = sum_i w_i max_j <lam, l_ij>,    g(lam)_k = sum_i w_i l_i,best(lam),k

The best response to lam is an attack: every mixture of the members has at least min_k g_k, and so
has every mean of attacks. On the members' simplex F is minimised by projected steps along -g whose
length is one over the curvature that the last two points show (Barzilai and Borwein): where there
are many samples F is nearly smooth and its members nearly alike, so that a handful of passes brings
the bound near the minimum. The layout is that of `mixsolve.kernels.batch_table`.

Reference: Barzilai and Borwein, Two-point step size gradient methods, IMA J. Numer. Anal. 1988.
"""

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.batch_table import dot, highest, vector
from mixsolve.kernels.linear_algebra import OPTIONS, copy_into

_TILE = 1024  # entries combined while they stay in the first cache
_CUTS = 24  # of the interval that holds the best mean of two attacks


@kernel(**OPTIONS)
def _combine(columns, members, weights, out):
    """``out`` (R,) = sum_a weights_a columns_members[a]."""
    for begin in range(0, out.size, _TILE):
        part = out[begin : begin + _TILE]
        part[:] = 0.0
        for a in range(members.size):
            column = columns[members[a], begin : begin + _TILE]
            w = weights[a]
            for r in range(part.size):
                part[r] += w * column[r]


@kernel(**OPTIONS)
def _best_mean(one, other):
    """Max over s in [0, 1] of min_k (s one_k + (1 - s) other_k), nearly: any s gives a bound."""
    low = 0.0
    high = 1.0
    best = -np.inf
    for _ in range(_CUTS):
        share = 0.5 * (low + high)
        lowest = np.inf
        slope = 0.0
        for k in range(one.size):
            here = share * one[k] + (1.0 - share) * other[k]
            if here < lowest:
                lowest = here
                slope = one[k] - other[k]
        best = max(best, lowest)
        if slope > 0.0:
            low = share
        else:
            high = share
    return best


@kernel(**OPTIONS)
def _project(point):
    """The nearest point of the simplex, in place (Michelot 1986)."""
    free = np.ones(point.size, dtype=np.bool_)
    while True:
        total = -1.0
        count = 0
        for k in range(point.size):
            if free[k]:
                total += point[k]
                count += 1
        level = total / count
        again = False
        for k in range(point.size):
            if free[k] and point[k] <= level:
                free[k] = False
                again = True
        if not again:
            break
    for k in range(point.size):
        point[k] = point[k] - level if free[k] else 0.0


@kernel(**OPTIONS)
def probe(columns, groups, weight, members, n_rows, cutoff, most, curvature, point):
    """Look for a bound of at least `cutoff` on the mixtures of `members` (s,), in `most` passes.

    ``point`` (s,), where it starts, becomes the best weights met. Returns the bound, the value of F
    there, the curvature last seen and the number of passes.
    """
    size = members.size
    scores = np.empty(n_rows)
    top = vector(weight.size)
    winner = np.empty(weight.size, dtype=np.int64)
    gradient = vector(size)
    before = vector(size)
    here = vector(size)
    last = vector(size)
    copy_into(here, point)
    bound = -np.inf
    value = np.inf
    done = 0
    while True:
        _combine(columns, members, here, scores)
        highest(groups, scores, top, winner)
        done += 1
        now = dot(weight, top)
        lowest = np.inf
        mean = 0.0
        for a in range(size):
            column = columns[members[a]]
            total = 0.0
            for i in range(weight.size):
                total += weight[i] * column[winner[i]]
            gradient[a] = total
            lowest = min(lowest, total)
            mean += total / size
        bound = max(bound, lowest)
        if now < value:
            value = now
            copy_into(point, here)
        if done > 1:
            bound = max(bound, _best_mean(gradient, before))
            along = 0.0
            length = 0.0
            for a in range(size):
                along += (gradient[a] - before[a]) * (here[a] - last[a])
                length += (here[a] - last[a]) ** 2
            if along > 0.0 and length > 0.0:
                curvature = along / length
        if bound >= cutoff or done >= most or bound >= value:
            return bound, value, curvature, done
        copy_into(last, here)
        copy_into(before, gradient)
        for a in range(size):
            here[a] -= (gradient[a] - mean) / curvature
        _project(here)
