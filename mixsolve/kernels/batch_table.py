"""How one game of a batch lies in memory, and the passes over it: samples side by side.

A game of a batch has few classifiers and few candidates a sample, but many samples: loops over
classifiers or candidates are too short to be worth a vector. So samples of equally many rows lie
together, and the loops that run are those over samples:

- columns (L, R + SPARE) float64: column k holds the losses of classifier k, then zeros;
- groups (G, 4) int64: the samples of count c, n of them, own the entries ``begin : begin + c n`` of
  every column and are numbered from ``first`` on; (c, n, begin, first) is their row. Entry
  ``begin + j n + i`` is row j of sample ``first + i``.

Every loop over entries either sums or writes, never both (`mixsolve.kernels.linear_algebra`).
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.linear_algebra import OPTIONS

_TILE = 1024  # entries combined while they stay in the first cache
_GAP = 32  # numbers
SPARE = 8  # numbers; columns a power of two apart would share a set of the cache


@kernel(**OPTIONS)
def vector(size):
    """Zeros (size,) with unused memory after them.

    Compiled loops check at run time that their arrays do not overlap, by bounds that are rounded
    up. For arrays side by side they would take another branch, with another rounding, so that the
    last bits of a result would depend on where it lies in memory.
    """
    return np.zeros(size + _GAP)[:size]


@kernel(**OPTIONS)
def matrix(n_rows, size):
    """Zeros (n_rows, size) with unused memory after them, as in `vector`."""
    return np.zeros(n_rows * size + _GAP)[: n_rows * size].reshape((n_rows, size))


@kernel(**OPTIONS)
def blank(size, n_rows):
    """Columns (size, n_rows + SPARE) that are still to be filled, but for the spare numbers."""
    columns = np.empty(size * (n_rows + SPARE) + _GAP)[:-_GAP].reshape((size, n_rows + SPARE))
    columns[:, n_rows:] = 0.0
    return columns


@kernel(**OPTIONS)
def arrange(counts):
    """Groups of samples of equally many rows; those of no row are left out.

    counts (n,) int64. Returns the groups, the first entry of each sample, the distance from there
    to its next entry, and its number among the samples.
    """
    most = 0
    for i in range(counts.size):
        most = max(most, counts[i])
    tally = np.zeros(most + 1, dtype=np.int64)
    for i in range(counts.size):
        tally[counts[i]] += 1
    n_groups = 0
    for c in range(1, most + 1):
        n_groups += tally[c] > 0
    groups = np.empty((n_groups, 4), dtype=np.int64)
    group_of = np.zeros(most + 1, dtype=np.int64)
    g = 0
    begin = 0
    first = 0
    for c in range(1, most + 1):
        if tally[c] == 0:
            continue
        groups[g, 0] = c
        groups[g, 1] = tally[c]
        groups[g, 2] = begin
        groups[g, 3] = first
        group_of[c] = g
        begin += c * tally[c]
        first += tally[c]
        tally[c] = 0
        g += 1
    entry = np.empty(counts.size, dtype=np.int64)
    stride = np.empty(counts.size, dtype=np.int64)
    number = np.empty(counts.size, dtype=np.int64)
    for i in range(counts.size):
        c = counts[i]
        if c == 0:
            continue
        g = group_of[c]
        entry[i] = groups[g, 2] + tally[c]
        stride[i] = groups[g, 1]
        number[i] = groups[g, 3] + tally[c]
        tally[c] += 1
    return groups, entry, stride, number


@kernel(**OPTIONS)
def n_entries(groups):
    """Entries and samples of some groups."""
    if len(groups) == 0:
        return 0, 0
    c, n, begin, first = groups[-1]
    return begin + c * n, first + n


@kernel(**OPTIONS)
def dot(left, right):
    """The sum of products of two vectors of one length."""
    total = 0.0
    for r in range(left.size):
        total += left[r] * right[r]
    return total


@kernel(**OPTIONS)
def total_of(values):
    """The sum of a vector."""
    total = 0.0
    for r in range(values.size):
        total += values[r]
    return total


@kernel(**OPTIONS)
def combine(columns, weights, out):
    """``out`` (R,) = sum_k weights_k columns_k."""
    for begin in range(0, out.size, _TILE):
        part = out[begin : begin + _TILE]
        column = columns[0, begin : begin + _TILE]
        w = weights[0]
        for r in range(part.size):
            part[r] = w * column[r]
        for k in range(1, weights.size):
            column = columns[k, begin : begin + _TILE]
            w = weights[k]
            for r in range(part.size):
                part[r] += w * column[r]


@kernel(**OPTIONS)
def add_rows(groups, values, sums):
    """``sums`` (S,) = sum_j values_ij, of the entries of each sample."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        sums_here = sums[first : first + n]
        here = values[begin : begin + n]
        for i in range(n):
            sums_here[i] = here[i]
        for j in range(1, c):
            here = values[begin + j * n : begin + (j + 1) * n]
            for i in range(n):
                sums_here[i] += here[i]


@kernel(**OPTIONS)
def add_products(groups, left, right, sums):
    """``sums`` (S,) = sum_j left_ij right_ij."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        sums_here = sums[first : first + n]
        a = left[begin : begin + n]
        b = right[begin : begin + n]
        for i in range(n):
            sums_here[i] = a[i] * b[i]
        for j in range(1, c):
            a = left[begin + j * n : begin + (j + 1) * n]
            b = right[begin + j * n : begin + (j + 1) * n]
            for i in range(n):
                sums_here[i] += a[i] * b[i]


@kernel(**OPTIONS)
def highest(groups, scores, top, winner):
    """The highest score of each sample, and the first entry that has it."""
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        best = top[first : first + n]
        place = winner[first : first + n]
        here = scores[begin : begin + n]
        for i in range(n):
            best[i] = here[i]
            place[i] = begin
        for j in range(1, c):
            at = begin + j * n
            here = scores[at : at + n]
            for i in range(n):  # in variables, so that it is compiled to blends
                score, before, there = here[i], best[i], place[i]
                above = score > before
                best[i] = score if above else before
                place[i] = at if above else there
        for i in range(n):
            place[i] += i


@kernel(**OPTIONS)
def range_of(groups, columns, low, high):
    """The smallest and the largest loss of each sample."""
    last = len(columns) - 1
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        below = low[first : first + n]
        above = high[first : first + n]
        here = columns[0, begin : begin + n]
        for i in range(n):
            below[i] = here[i]
            above[i] = here[i]
        # Two at a time: a loop that keeps or replaces one number is compiled to masked stores.
        for k in range(0, last + 1, 2):
            for j in range(c):
                here = columns[k, begin + j * n : begin + (j + 1) * n]
                beside = columns[min(k + 1, last), begin + j * n : begin + (j + 1) * n]
                for i in range(n):
                    lowest = below[i]
                    lowest = here[i] if here[i] < lowest else lowest
                    lowest = beside[i] if beside[i] < lowest else lowest
                    below[i] = lowest
                for i in range(n):
                    most = above[i]
                    most = here[i] if here[i] > most else most
                    most = beside[i] if beside[i] > most else most
                    above[i] = most


@kernel(**OPTIONS)
def respond(columns, groups, weight, weights, scores, top, winner, gradient):
    """sum_i w_i max_j <lam, l_ij>; ``gradient`` (L,) = sum_i w_i l_i,winner."""
    combine(columns, weights, scores)
    highest(groups, scores, top, winner)
    for k in range(len(columns)):
        column = columns[k]
        total = 0.0
        for i in range(weight.size):
            total += weight[i] * column[winner[i]]
        gradient[k] = total
    return dot(weight, top)


@kernel(**OPTIONS)
def is_finite(columns):
    """Whether no loss is infinite or a NaN; isfinite does not survive reassociation."""
    total = 0.0
    for k in range(len(columns)):
        column = columns[k]
        for r in range(column.size):
            total += column[r] * 0.0
    return total == 0.0


@kernel(**OPTIONS)
def scale(values, exponent):
    """Multiply a vector by 2^exponent."""
    for r in range(values.size):
        values[r] = math.ldexp(values[r], exponent)
