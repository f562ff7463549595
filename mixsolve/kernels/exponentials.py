"""exp(x) and exp(x) - 1 of many x <= 0 at once, in a loop that vectorises.

With k the integer nearest x / log 2 and r = x - k log 2, which is at most log(2) / 2 in size,

    exp(x) = 2^k (1 + q),    exp(x) - 1 = (2^k - 1) + 2^k q,    q = exp(r) - 1.

q is Taylor's sum to r^13 / 13!; the rest is at most (log(2) / 2)^13 / 14! = 1.2e-17 of it. Where k
is 0, exp(x) - 1 is q itself: no digits are lost however small x is. log 2 is the sum of two
numbers, of which the first has so few digits that its product with k is exact.

The integer k comes from an addition: numbers near 1.5 * 2^52 are integers, in the lowest bits of
which k is found. The bits of 2^k are those of k + 1023, moved to the place of the exponent.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel

# Sums must not be reordered here: taken together, the addition that rounds would cancel.
IN_ORDER = {"error_model": "numpy", "fastmath": {"contract"}}
_LEAST = -708.0  # below, exp is less than the smallest normal number and counts as 0
_ROUNDER = 1.5 * 2.0**52
_PER_LOG_2 = 1.0 / math.log(2.0)
_LOG_2_HIGH = math.ldexp(math.floor(math.ldexp(math.log(2.0), 32)), -32)
_LOG_2_LOW = 1.9082149292705877e-10
_BIAS, _FRACTION_BITS = 1023, 52
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = (
    1.0 / math.factorial(n) for n in range(2, 14)
)


@kernel(**IN_ORDER)
def exponentials(differences, count, unit, powers, less):
    """powers[c] = exp(x) and less[c] = exp(x) - 1 for c < count, x = differences[c] / unit <= 0.

    Both to an ulp or two of x as rounded; powers below 1e-307 are 0. The arrays must not overlap.
    """
    for c in range(count):
        exponent = differences[c] / unit
        x = max(exponent, _LEAST)
        shifted = x * _PER_LOG_2 + _ROUNDER
        k = shifted - _ROUNDER
        r = (x - k * _LOG_2_HIGH) - k * _LOG_2_LOW
        q = _C13 * r + _C12
        q = q * r + _C11
        q = q * r + _C10
        q = q * r + _C9
        q = q * r + _C8
        q = q * r + _C7
        q = q * r + _C6
        q = q * r + _C5
        q = q * r + _C4
        q = q * r + _C3
        q = q * r + _C2
        q = q * r * r + r
        bits = np.float64(shifted).view(np.int64)
        scale = np.int64((bits + _BIAS) << _FRACTION_BITS).view(np.float64)
        part = scale * q
        powers[c] = scale + part if exponent >= _LEAST else 0.0
        less[c] = (scale - 1.0) + part
