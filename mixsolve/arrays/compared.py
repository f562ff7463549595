"""Results that are equal where all they say is equal, arrays entry by entry."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from mixsolve.arrays.interop import to_numpy


class Compared:
    """Equality and hash of a dataclass by the values of its fields.

    Arrays of any framework are compared as NumPy's, NaN with NaN as equal. Fields declared with
    ``compare=False``, such as measured seconds, do not count. The dataclass is declared with
    ``eq=False``, since its own comparison asks whether an array is true.
    """

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        names = self._compared_fields()
        if not isinstance(other, Compared) or other._compared_fields() != names:
            return NotImplemented
        return all(same(getattr(self, name), getattr(other, name)) for name in names)

    def __hash__(self) -> int:
        return hash(tuple(digest(getattr(self, name)) for name in self._compared_fields()))

    @classmethod
    def _compared_fields(cls) -> list[str]:
        assert is_dataclass(cls)
        return [each.name for each in fields(cls) if each.compare]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, arrays among them."""
    if one is other:
        return True
    if _is_array(one) or _is_array(other):
        if not (_is_array(one) and _is_array(other)):
            return False
        first, second = _values(one), _values(other)
        numbers = first.dtype.kind == "f" and second.dtype.kind == "f"
        return np.array_equal(first, second, equal_nan=numbers)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float) and one != one:
        return other != other
    return bool(one == other)


def digest(value: Any) -> int:
    """A hash that is equal for values that `same` calls equal."""
    if _is_array(value):
        values = _values(value)
        if values.dtype == object:
            return hash((values.shape, *values.flat))
        # As float64, in which equal numbers of different types are equal; 0.0 for -0.0.
        numbers = values.astype(np.float64) + 0.0 if values.dtype.kind in "biuf" else values
        return hash((values.shape, numbers.tobytes()))
    if isinstance(value, list | tuple):
        return hash(tuple(map(digest, value)))
    if isinstance(value, dict):
        return hash(frozenset((key, digest(entry)) for key, entry in value.items()))
    if isinstance(value, float) and value != value:
        return hash("nan")  # Python hashes a NaN by where it lies in memory
    return hash(value)


def _is_array(value: Any) -> bool:
    return not isinstance(value, np.generic) and hasattr(value, "shape") and hasattr(value, "dtype")


def _values(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else to_numpy(array, "a result")
