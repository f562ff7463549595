"""Checks of arguments: an error names the argument, what was expected and what came.

`name` is the argument's name, for the message; `value` is what the caller gave.
"""

from __future__ import annotations

import math
import numbers
import re
from typing import Any

import numpy as np

from mixsolve.base.errors import MixsolveError, MixsolveTypeError


def as_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int, or raise naming the argument.

    Parameters
    ----------
    minimum : int, default 1
        Smallest value allowed.

    Raises
    ------
    MixsolveTypeError
        If `value` is not an integer.
    MixsolveError
        If it is smaller than `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise MixsolveTypeError(
            f"{name} must be an integer >= {minimum}, got {value!r} ({type(value).__name__})"
        )
    count = int(value)
    if count < minimum:
        raise MixsolveError(f"{name} must be an integer >= {minimum}, got {count}")
    return count


def check_flags(**given: object) -> None:
    """Refuse flags that are not True or False (of Python or NumPy): "no" is true in Python.

    Raises
    ------
    MixsolveTypeError
        If a value, given by the argument's name, is neither.
    """
    for name, value in given.items():
        if not isinstance(value, bool | np.bool_):
            raise MixsolveTypeError(
                f"{name} must be True or False, got {value!r} ({type(value).__name__})"
            )


def as_array(name: str, given: Any, axes: str, ndim: int) -> np.ndarray:
    """Return finite real numbers with a number of axes, none of them empty, in their own type.

    Parameters
    ----------
    axes : str
        The axes, for the message: "(n_candidates, n_classifiers)".

    Raises
    ------
    MixsolveTypeError
        If they are no real numbers, or a masked array.
    MixsolveError
        If the shape is another, or a number is not finite.
    """
    if isinstance(given, np.ma.MaskedArray):
        raise MixsolveTypeError(f"{name} is a masked array, whose mask would be lost; fill it")
    try:
        array = np.asarray(given)
    except ValueError as error:  # rows of unequal length
        raise MixsolveError(f"{name} must have the shape {axes}: {error}") from None
    if array.dtype.kind not in "biuf":
        raise MixsolveTypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim != ndim or 0 in array.shape:
        raise MixsolveError(
            f"{name} must have the shape {axes} with no empty axis, got {array.shape}"
        )
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise MixsolveError(f"{name} must be finite, got {array[index]} at index {index}")
    return array


def as_real(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return `value` as a finite float inside an interval, or raise naming the argument.

    Parameters
    ----------
    above, below : float, optional
        Strict limits.
    at_least, at_most : float, optional
        Limits that may be reached.

    Raises
    ------
    MixsolveTypeError
        If `value` is not a real number.
    MixsolveError
        If it is not finite or outside the interval.
    """
    limits = {">": above, ">=": at_least, "<": below, "<=": at_most}
    wanted = " and ".join(
        f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None
    )
    expected = f"{name} must be a finite number {wanted}".rstrip()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise MixsolveTypeError(f"{expected}, got {value!r} ({type(value).__name__})")
    number = float(value)
    inside = (
        math.isfinite(number)
        and (above is None or number > above)
        and (at_least is None or number >= at_least)
        and (below is None or number < below)
        and (at_most is None or number <= at_most)
    )
    if not inside:
        raise MixsolveError(f"{expected}, got {number!r}")
    return number


def as_length(name: str, value: object) -> float:
    """Return a length >= 0, written as a number or as text, a fraction such as "8/255" included.

    Raises
    ------
    MixsolveTypeError
        If `value` is neither a real number nor text.
    MixsolveError
        If it is negative or not finite, or text that is no number.

    Examples
    --------
    >>> as_length("eps", "8/255") == 8 / 255
    True
    """
    if not isinstance(value, str):
        return as_real(name, value, at_least=0)
    above, slash, below = value.partition("/")
    try:
        length = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise MixsolveError(
            f"{name} must be a number or a fraction such as 8/255; got {value!r}"
        ) from None
    return as_real(name, length, at_least=0)


def as_norm(name: str, value: object) -> str:
    """Return "Linf", "L2" or "L1" for the usual ways of writing them.

    Parameters
    ----------
    value : object
        "Linf", "L_inf", "l-infinity", "inf" or infinity itself; "L2", "l_2", "2" or 2; "L1", "l_1",
        "1" or 1.

    Raises
    ------
    MixsolveError
        If it is another norm.

    Examples
    --------
    >>> as_norm("norm", "linf"), as_norm("norm", 2), as_norm("norm", "l1")
    ('Linf', 'L2', 'L1')
    """
    given = value
    if isinstance(given, numbers.Real) and not isinstance(given, bool):
        given = f"{float(given):g}"
    if isinstance(given, str):
        plain = re.sub(r"[\s_-]", "", given).lower().removeprefix("l")
        if plain in ("inf", "infinity", "infty", "\N{INFINITY}"):
            return "Linf"
        if plain in ("1", "2"):
            return f"L{plain}"
    raise MixsolveError(f"{name} must be 'Linf', 'L2' or 'L1'; got {value!r}")
