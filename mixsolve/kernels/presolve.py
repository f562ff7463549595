"""Rows that cannot matter, found within one sample at a time, and samples that are the same.

Two-valued losses are packed into bits: row r becomes the set of classifiers with the high loss, in
ceil(L / 64) unsigned 64-bit words. A hash table keeps the distinct sets of a sample, so that only
these few are compared. Rows of other values are compared as they are.

Common arguments are those of `mixsolve.kernels.passes`. With `dominance` a row goes when another of
its sample is at least as high for every classifier (it can never be the better attack); without,
only repeated rows go, and their masses add up.

For each sample i, counts[i] rows are kept: their candidates (kept), masses (mass) and, for bits,
words (codes) are written one sample after the other. -1 is returned when they do not fit.
"""

import numpy as np
from numba import njit

_EMPTY = -1


@njit(nogil=True, cache=True)
def _hash(value, word):
    value = (value ^ word) * np.uint64(0x9E3779B97F4A7C15)
    return value ^ (value >> np.uint64(32))


@njit(nogil=True, cache=True)
def _subset(codes, small, large):
    outside = np.uint64(0)
    for w in range(codes.shape[1]):
        outside |= codes[small, w] & ~codes[large, w]
    return outside == 0


@njit(nogil=True, cache=True)
def _less(words, codes, entry):
    for w in range(words.size):
        if words[w] != codes[entry, w]:
            return words[w] < codes[entry, w]
    return False


@njit(nogil=True, cache=True)
def reduce_bits(
    rows, offsets, allowed, prior, low, high, dominance, codes, kept, mass, counts, partial
):
    """Distinct, and with `dominance` maximal, sets of each sample, in ascending order of words.

    Returns the number of rows kept, -1 if there was no room, -2 if some loss is neither `low` nor
    `high`. `partial` is scratch for one row's words.

    Memory walk: every row once; the table of a sample's distinct sets stays in cache.
    """
    n_classifiers = rows.shape[1]
    n_words = codes.shape[1]
    longest = 0
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    size = 2
    while size < 2 * longest:
        size *= 2
    table = np.full(size, _EMPTY, dtype=np.int64)
    slots = np.empty(longest, dtype=np.int64)
    used = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        begin = used
        for r in range(first, last):
            if allowed.size and not allowed[r]:
                continue
            strange = False
            key = np.uint64(0)
            for w in range(n_words):
                word = np.uint64(0)
                for k in range(64 * w, min(64 * w + 64, n_classifiers)):
                    is_high = rows[r, k] == high
                    strange |= not is_high and rows[r, k] != low
                    word |= np.uint64(is_high) << np.uint64(k - 64 * w)
                partial[w] = word
                key = _hash(key, word)
            if strange:
                return -2
            share = prior[r] if prior.size else 1.0
            slot = np.int64(key & np.uint64(size - 1))
            while table[slot] != _EMPTY:
                entry = table[slot]
                same = True
                for w in range(n_words):
                    same &= codes[entry, w] == partial[w]
                if same:
                    break
                slot = (slot + 1) & (size - 1)
            if table[slot] != _EMPTY:
                mass[table[slot]] += share
                continue
            if used == kept.size:
                return -1
            table[slot] = used
            slots[used - begin] = slot
            codes[used] = partial
            kept[used] = r - first
            mass[used] = share
            used += 1
        for entry in range(begin, used):
            table[slots[entry - begin]] = _EMPTY
        if dominance:
            end = used
            used = begin
            for entry in range(begin, end):
                maximal = True
                for other in range(begin, end):
                    if other != entry and _subset(codes, entry, other):
                        maximal = False
                        break
                slots[entry - begin] = 1 if maximal else 0
            for entry in range(begin, end):
                if slots[entry - begin]:
                    codes[used] = codes[entry]
                    kept[used] = kept[entry]
                    mass[used] = mass[entry]
                    used += 1
        for entry in range(begin + 1, used):  # insertion sort: few rows are left
            partial[:] = codes[entry]
            candidate = kept[entry]
            share = mass[entry]
            place = entry
            while place > begin and _less(partial, codes, place - 1):
                codes[place] = codes[place - 1]
                kept[place] = kept[place - 1]
                mass[place] = mass[place - 1]
                place -= 1
            codes[place] = partial
            kept[place] = candidate
            mass[place] = share
        counts[i] = used - begin
    return used


@njit(nogil=True, cache=True)
def reduce_values(rows, offsets, allowed, prior, dominance, kept, mass, counts):
    """Distinct, and with `dominance` maximal, rows of each sample, as they come.

    Returns the number of rows kept, -1 if there was no room.
    """
    n_classifiers = rows.shape[1]
    used = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        begin = used
        for r in range(first, last):
            if allowed.size and not allowed[r]:
                continue
            share = prior[r] if prior.size else 1.0
            covered = False
            left = begin
            for entry in range(begin, used):
                other = first + kept[entry]
                below = True
                above = True
                for k in range(n_classifiers):
                    below = below and rows[r, k] <= rows[other, k]
                    above = above and rows[r, k] >= rows[other, k]
                    if not below and not above:
                        break
                if below and (dominance or above):
                    mass[entry] += share
                    covered = True
                    break
                if not (above and dominance):
                    kept[left] = kept[entry]
                    mass[left] = mass[entry]
                    left += 1
            if covered:
                continue
            used = left
            if used == kept.size:
                return -1
            kept[used] = r - first
            mass[used] = share
            used += 1
        counts[i] = used - begin
    return used


@njit(nogil=True, cache=True)
def group(words, offsets, alpha, mass, table, groups):
    """groups[i] = number of the first sample's group that has the same rows, masses and alpha.

    `words` (R, n_words) uint64 holds the kept rows of all samples; `alpha` and `mass` are empty
    where they do not count, float64 otherwise; `table` (a power of two, at least 2 n) starts filled
    with -1. Returns the number of groups; group g's first sample is the first i with
    groups[i] == g.
    """
    size = np.uint64(table.size - 1)
    alpha_bits = alpha.view(np.uint64)
    mass_bits = mass.view(np.uint64)
    n_groups = 0
    for i in range(offsets.size - 1):
        value = np.uint64(offsets[i + 1] - offsets[i])
        if alpha.size:
            value = _hash(value, alpha_bits[i])
        for r in range(offsets[i], offsets[i + 1]):
            for w in range(words.shape[1]):
                value = _hash(value, words[r, w])
            if mass.size:
                value = _hash(value, mass_bits[r])
        slot = np.int64(value & size)
        while table[slot] != _EMPTY:
            other = table[slot]
            start = offsets[other]
            same = offsets[other + 1] - start == offsets[i + 1] - offsets[i]
            if same and alpha.size:
                same = alpha[i] == alpha[other]
            for r in range(offsets[i], offsets[i + 1]):
                if not same:
                    break
                for w in range(words.shape[1]):
                    same = same and words[r, w] == words[start + r - offsets[i], w]
                if mass.size:
                    same = same and mass[r] == mass[start + r - offsets[i]]
            if same:
                break
            slot = (slot + 1) & np.int64(size)
        if table[slot] == _EMPTY:
            table[slot] = i
            groups[i] = n_groups
            n_groups += 1
        else:
            groups[i] = groups[table[slot]]
    return n_groups
