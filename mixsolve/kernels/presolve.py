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

import sys

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mixsolve.base.compilation import kernel

_EMPTY = -1
OTHER_VALUE = -2  # some loss is of neither value
# With how many others a row may be compared, on average: beyond, the passes saved cost less.
_MOST_SETS_COMPARED = 1024
_MOST_ROWS_COMPARED = 256
_LITTLE_ENDIAN = sys.byteorder == "little"
_LOWEST_BITS = np.uint64(0x0101010101010101)
# Times eight bytes of 0 and 1, it moves the lowest bit of byte b to bit 56 + b; no two bits meet.
_TO_TOP = np.uint64(0x0102040810204080)


@intrinsic
def _eight_bytes(typing_context, rows, start):
    """The bytes start:start + 8 of a contiguous array's memory as one number."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        number = context.get_value_type(types.uint64).as_pointer()
        eight = builder.load(cgutils.pointer_add(builder, array.data, arguments[1], number))
        eight.align = 1
        return eight

    return types.uint64(rows, start), generate


@kernel()
def _hash(value, word):
    value = (value ^ word) * np.uint64(0x9E3779B97F4A7C15)
    return value ^ (value >> np.uint64(32))


@kernel()
def _pack(rows, first, last, allowed, low, high, words):
    """Write the words of the rows first:last; whether some loss is neither `low` nor `high`."""
    n_classifiers = rows.shape[1]
    other_value = False
    for r in range(first, last):
        if allowed.size and not allowed[r]:
            continue
        for w in range(words.shape[1]):
            word = np.uint64(0)
            for k in range(64 * w, min(64 * w + 64, n_classifiers)):
                is_high = rows[r, k] == high
                other_value |= not is_high and rows[r, k] != low
                word |= np.uint64(is_high) << np.uint64(k - 64 * w)
            words[r - first, w] = word
    return other_value


@kernel()
def _pack_bytes(rows, first, last, words):
    """`_pack` for bytes 0 and 1, eight at a time; reads up to seven bytes after the last row."""
    n_classifiers = rows.shape[1]
    n_eights = n_classifiers >> 3
    rest = n_classifiers & 7
    of_this_row = (np.uint64(1) << np.uint64(8 * rest)) - np.uint64(1)
    others = np.uint64(0)
    for w in range(words.shape[1]):
        end = min(8 * w + 8, n_eights)
        for r in range(first, last):
            word = np.uint64(0)
            shift = np.uint64(0)
            for b in range(8 * w, end):
                eight = _eight_bytes(rows, r * n_classifiers + 8 * b)
                others |= eight & ~_LOWEST_BITS
                word |= ((eight * _TO_TOP) >> np.uint64(56)) << shift
                shift += np.uint64(8)
            if rest and end < 8 * w + 8:
                eight = _eight_bytes(rows, r * n_classifiers + 8 * end) & of_this_row
                others |= eight & ~_LOWEST_BITS
                word |= ((eight * _TO_TOP) >> np.uint64(56)) << shift
            words[r - first, w] = word
    return others != 0


@kernel()
def _subset(codes, small, large):
    outside = np.uint64(0)
    for w in range(codes.shape[1]):
        outside |= codes[small, w] & ~codes[large, w]
    return outside == 0


@kernel()
def _less(words, entry, codes, other):
    for w in range(codes.shape[1]):
        if words[entry, w] != codes[other, w]:
            return words[entry, w] < codes[other, w]
    return False


@kernel()
def _copy(words, entry, codes, place):
    for w in range(codes.shape[1]):
        codes[place, w] = words[entry, w]


@kernel()
def reduce_bits(rows, offsets, allowed, prior, low, high, dominance, codes, kept, mass, counts):
    """Distinct, and with `dominance` maximal, sets of each sample, in ascending order of words.

    Returns the number of rows kept, -1 if there was no room or too much to compare, -2 if some loss
    is neither `low` nor `high`.

    Memory walk: every row once; a sample's words and the table of its distinct ones stay in cache.
    """
    n_words = codes.shape[1]
    n_whole = 0  # rows after which there are seven bytes
    if _LITTLE_ENDIAN and rows.itemsize == 1 and low == 0 and high == 1 and allowed.size == 0:
        n_whole = rows.shape[0] - 1 - 7 // rows.shape[1]
    longest = 0
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    size = 2
    while size < 2 * longest:
        size *= 2
    table = np.full(size, _EMPTY, dtype=np.int64)
    slots = np.empty(longest, dtype=np.int64)
    words = np.empty((longest, n_words), dtype=np.uint64)
    moving = np.empty((1, n_words), dtype=np.uint64)
    used = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        begin = used
        if last <= n_whole:
            other_value = _pack_bytes(rows, first, last, words)
        else:
            other_value = _pack(rows, first, last, allowed, low, high, words)
        if other_value:
            return OTHER_VALUE
        for r in range(first, last):
            if allowed.size and not allowed[r]:
                continue
            key = np.uint64(0)
            for w in range(n_words):
                key = _hash(key, words[r - first, w])
            share = prior[r] if prior.size else 1.0
            slot = np.int64(key & np.uint64(size - 1))
            while table[slot] != _EMPTY:
                entry = table[slot]
                same = True
                for w in range(n_words):
                    same &= codes[entry, w] == words[r - first, w]
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
            _copy(words, r - first, codes, used)
            kept[used] = r - first
            mass[used] = share
            used += 1
        for entry in range(begin, used):
            table[slots[entry - begin]] = _EMPTY
        if (used - begin) ** 2 > _MOST_SETS_COMPARED * (last - first):
            return -1
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
                    _copy(codes, entry, codes, used)
                    kept[used] = kept[entry]
                    mass[used] = mass[entry]
                    used += 1
        for entry in range(begin + 1, used):  # insertion sort: few rows are left
            _copy(codes, entry, moving, 0)
            candidate = kept[entry]
            share = mass[entry]
            place = entry
            while place > begin and _less(moving, 0, codes, place - 1):
                _copy(codes, place - 1, codes, place)
                kept[place] = kept[place - 1]
                mass[place] = mass[place - 1]
                place -= 1
            _copy(moving, 0, codes, place)
            kept[place] = candidate
            mass[place] = share
        counts[i] = used - begin
    return used


@kernel()
def reduce_values(rows, offsets, allowed, prior, dominance, kept, mass, counts):
    """Distinct, and with `dominance` maximal, rows of each sample, in their own order.

    Returns the number of rows kept, -1 if there was no room or too much to compare.
    """
    n_classifiers = rows.shape[1]
    used = 0
    compared = 0
    for i in range(offsets.size - 1):
        first = offsets[i] - offsets[0]
        last = offsets[i + 1] - offsets[0]
        begin = used
        for r in range(first, last):
            if allowed.size and not allowed[r]:
                continue
            share = prior[r] if prior.size else 1.0
            compared += used - begin
            if compared > _MOST_ROWS_COMPARED * rows.shape[0]:
                return -1
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


@kernel()
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
