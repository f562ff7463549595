"""The smallest and the largest loss, at memory speed, and whether all of them are finite.

The bits of floating-point numbers, read as integers, order as the numbers do once those of negative
numbers are turned round. Minima of integers vectorise, and a NaN comes out as an extreme.
"""

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
