"""Which rows of a small exact game are worth solving with, and the game that they make.

The layout is that of `mixsolve.kernels.batch_table`; how rows are chosen, that of
`mixsolve.methods.working_set`.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.batch_table import arrange, blank, n_entries, vector
from mixsolve.kernels.linear_algebra import OPTIONS


@kernel(**OPTIONS)
def mark_first_rows(columns, groups, scores, kept):
    """Mark the best responses to the points half way from the uniform weights to the vertices.

    scores (R,) are those of the uniform weights; kept (R,).
    """
    for k in range(len(columns)):
        for g in range(len(groups)):
            c, n, begin, _ = groups[g]
            top = np.empty(n)
            place = np.empty(n, dtype=np.int64)
            for j in range(c):
                at = begin + j * n
                uniform = scores[at : at + n]
                vertex = columns[k, at : at + n]
                for i in range(n):
                    score, before, there = uniform[i] + vertex[i], top[i], place[i]
                    above = score > before or j == 0
                    top[i] = score if above else before
                    place[i] = at if above else there
            for i in range(n):
                kept[place[i] + i] = True


@kernel(**OPTIONS)
def mark_near(columns, groups, scores, top, winner, idle, radius, reach, kept):
    """Mark the rows that may win for weights about `radius` away, and the winners.

    Row r of sample i is near when <lam, l_i,best - l_r> <= radius |l_i,best - l_r|; every
    |l_i,best - l_r| is at most `reach`. Rows equal to the best do not count, and of more than L
    near rows only those are taken that win when one weight changes by radius sqrt(L), up or down.
    """
    size = len(columns)
    near = np.empty(scores.size, dtype=np.int64)
    owner = np.empty(scores.size, dtype=np.int64)
    count = np.zeros(winner.size, dtype=np.int64)
    found = 0
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        for j in range(c):
            for i in range(n):
                r = begin + j * n + i
                margin = top[first + i] - scores[r]
                if margin > radius * reach or idle[first + i]:
                    continue
                best = winner[first + i]
                distance = 0.0
                for k in range(size):
                    distance += (columns[k, r] - columns[k, best]) ** 2
                if distance > 0.0 and margin <= radius * math.sqrt(distance):
                    near[found] = r
                    owner[found] = first + i
                    found += 1
                    count[first + i] += 1
    crowded = 0
    for i in range(winner.size):
        if not idle[i]:
            kept[winner[i]] = True
        if count[i] > size:
            crowded += 1
            count[i] = -crowded
    lead = np.zeros((crowded, 2, size))
    leader = np.full((crowded, 2, size), -1)
    step = radius * math.sqrt(size)
    for entry in range(found):
        r = near[entry]
        at = -count[owner[entry]] - 1
        if at < 0:
            kept[r] = True
            continue
        best = winner[owner[entry]]
        margin = top[owner[entry]] - scores[r]
        for k in range(size):
            change = step * (columns[k, r] - columns[k, best])
            if change - margin > lead[at, 0, k]:
                lead[at, 0, k] = change - margin
                leader[at, 0, k] = r
            if -change - margin > lead[at, 1, k]:
                lead[at, 1, k] = -change - margin
                leader[at, 1, k] = r
    for r in leader.flat:
        if r >= 0:
            kept[r] = True


@kernel(**OPTIONS)
def kept_rows(columns, groups, weight, inverse, kept, linear, dual):
    """The small game of the rows kept, as `interior_point` takes it.

    A row enters as its difference to the first of its sample, times ``inverse``: a constant added
    to one sample cannot cost digits. Samples of a single row have their weight on it in ``dual``
    (R,), all else of which is 0; ``linear`` (L,) becomes the sum of all samples' first rows.
    Returns columns, groups and weights, and the entry that each of its entries was.
    """
    size = len(columns)
    counts = np.zeros(weight.size, dtype=np.int64)
    leading = np.empty(weight.size, dtype=np.int64)
    origin = np.empty(kept.size + 1, dtype=np.int64)
    owner = np.empty(kept.size + 1, dtype=np.int64)
    found = 0
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        for j in range(c):
            at = begin + j * n
            here = kept[at : at + n]
            for i in range(n):  # without a branch, which would be mispredicted
                origin[found] = at + i
                owner[found] = first + i
                found += here[i]
        for j in range(c - 1, -1, -1):
            at = begin + j * n
            here = kept[at : at + n]
            count = counts[first : first + n]
            lead = leading[first : first + n]
            for i in range(n):
                count[i] += here[i]
            for i in range(n):
                before = lead[i]
                lead[i] = at + i if here[i] else before
    dual[:] = 0.0
    for i in range(weight.size):
        if counts[i] == 1:
            dual[leading[i]] = weight[i]
            counts[i] = 0
    for k in range(size):
        column = columns[k]
        total = 0.0
        for i in range(weight.size):
            total += weight[i] * (column[leading[i]] - columns[0, leading[i]])
        linear[k] = inverse * total
    small_groups, entry, stride, number = arrange(counts)
    n_rows, n_samples = n_entries(small_groups)
    small = blank(size, n_rows)
    small_weight = vector(n_samples)
    place = np.empty(n_rows, dtype=np.int64)
    base = np.empty(n_rows, dtype=np.int64)
    for at in range(found):
        i = owner[at]
        if counts[i]:
            place[entry[i]] = origin[at]
            base[entry[i]] = leading[i]
            entry[i] += stride[i]
    for i in range(weight.size):
        if counts[i]:
            small_weight[number[i]] = weight[i]
    for k in range(size):
        column = columns[k]
        for r in range(n_rows):
            small[k, r] = inverse * (column[place[r]] - column[base[r]])
    return small, small_groups, small_weight, place
