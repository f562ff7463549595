"""Checks of arrays of numbers: an error names the first wrong one and its index."""

from typing import Any

import numpy as np

from mixsolve.arrays import interop
from mixsolve.base.errors import MixsolveError, MixsolveTypeError


def numbers(values: Any, name: str, *, booleans: bool = True) -> np.ndarray:
    """Read numbers as float64.

    Parameters
    ----------
    booleans : bool
        Whether booleans count as 0 and 1: they do where they select, as weights of samples do, and
        are a mistake where a quantity is expected.

    Raises
    ------
    MixsolveTypeError
        If they are not real numbers.
    """
    array = interop.to_numpy(values, name)
    # NumPy would make a number of True in a list with numbers.
    kinds = set(map(type, values)) if isinstance(values, (list, tuple)) else set()
    hidden = not kinds.isdisjoint((bool, np.bool_))
    if not booleans and (hidden or array.dtype == np.bool_):
        raise MixsolveTypeError(
            f"{name} must hold numbers, got booleans; say how much with numbers such as 0.0 and 1.0"
        )
    return np.asarray(array, dtype=np.float64)


def check_each(valid: np.ndarray, values: np.ndarray, name: str, expected: str) -> None:
    """Refuse values of which one is not valid, and name it and its index."""
    if not valid.all():
        where = tuple(int(axis) for axis in np.argwhere(~valid)[0])
        place = where[0] if len(where) == 1 else where
        raise MixsolveError(
            f"{name} must be {expected}, got {values[where]} first at {name}[{place}]"
        )


def check_sample_weight(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Sample weights as (N,) non-negative numbers of sum 1."""
    values = numbers(sample_weight, "sample_weight")
    if values.shape != (n_samples,):
        raise MixsolveError(
            f"sample_weight must hold one number per sample, shape ({n_samples},); got shape "
            f"{values.shape}"
        )
    check_each(np.isfinite(values) & (values >= 0), values, "sample_weight", "finite and >= 0")
    largest = values.max()
    if largest == 0:
        raise MixsolveError(
            "sample_weight must be positive for at least one sample, got all zeros; leave it out "
            "for uniform weights"
        )
    scaled = values / largest  # so that the sum neither overflows nor underflows
    return scaled / scaled.sum()
