"""Checks of scalar arguments: a wrong number is named, and said what it should have been."""

from __future__ import annotations

import math
import numbers

import numpy as np

from mixsolve.errors import MixsolveError, MixsolveTypeError


def as_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int, or raise naming the argument.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
        What the caller gave: any integral number.
    minimum : int, default 1
        Smallest value allowed.

    Returns
    -------
    int

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


def as_flag(name: str, value: object) -> bool:
    """Return `value` as a bool, or raise naming the argument.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
        What the caller gave: True or False, also NumPy's. Nothing else, since a word such as
        "no" counts as true in Python.

    Returns
    -------
    bool

    Raises
    ------
    MixsolveTypeError
        If `value` is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise MixsolveTypeError(
            f"{name} must be True or False, got {value!r} ({type(value).__name__})"
        )
    return bool(value)


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
    name : str
        The argument's name, for the message.
    value : object
        What the caller gave: any real number.
    above, below : float, optional
        Strict limits.
    at_least, at_most : float, optional
        Limits that may be reached.

    Returns
    -------
    float

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
