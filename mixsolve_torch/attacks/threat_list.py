"""Lists of threats as users write them: ("Linf", "8/255"), "L2:0.5", "rotations:15", a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.ball import BALLS, Ball, make_ball
from mixsolve_torch.attacks.threats import Finite, InBall, Threat, united
from mixsolve_torch.attacks.transforms import KINDS

# What functions of this package take as one threat.
OneThreat = str | tuple[Any, ...] | Threat | Ball | Callable[..., Any]
Threats = OneThreat | Iterable[OneThreat]


def read_threats(threats: Threats, *, name: str = "threats") -> tuple[Threat, ...]:
    """Return the sets of a list.

    Parameters
    ----------
    threats : str, tuple, Finite, callable, or list of them
        Each a ball, ``("Linf", "8/255")`` or ``"Linf:8/255"``; a ready-made finite set,
        ``("rotations", 15)`` or ``"rotations:15"``, with the number of its points after that,
        ``"rotations:15:31"`` ("rotations", "shifts", "brightness", "contrast", "noise", "blur",
        "corruptions"); a `Finite`, or a function as `Finite` takes it.
    name : str, default "threats"
        How messages call the list.

    Returns
    -------
    tuple of Threat
        At least one, all different.

    Raises
    ------
    MixsolveError
        A set that is not known, a size out of range, one that comes twice, or none at all.
    MixsolveTypeError
        Something that is no set.

    Examples
    --------
    >>> [threat.label for threat in read_threats([("Linf", "8/255"), "L2:0.5", "rotations:15"])]
    ['Linf 8/255', 'L2 0.5', 'rotations 15']
    """
    several = isinstance(threats, Iterable) and not _is_one(threats)
    listed: list[object] = list(threats) if several else [threats]  # type: ignore[arg-type]
    if not listed:
        raise MixsolveError(f"{name} must name at least one set; got none; e.g. {_EXAMPLE}")
    read = tuple(_read(entry, name) for entry in listed)
    labels = [threat.label for threat in read]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise MixsolveError(
            f"{name} must be different sets of different names; got {twice!r} twice; leave one "
            "out, or give a Finite another name"
        )
    return read


def read_alone(threats: Threats, norm: str | None, eps: float | str | None) -> tuple[Threat, ...]:
    """Return the sets of a list that norm and radius must not stand beside."""
    if norm is not None or eps is not None:
        raise MixsolveError(
            "norm and eps must be left out with threats, which have their own; got "
            f"norm={norm!r}, eps={eps!r}"
        )
    return read_threats(threats)


def declared(
    norm: str | None, eps: float | str | None, threats: Threats | None, what: str
) -> Threat:
    """Return the set that norm and radius, or a list of threats, declare for some points.

    Refuses both or neither of them, and what is not understood.
    """
    if threats is not None:
        return united(read_alone(threats, norm, eps))
    if norm is None or eps is None:
        raise MixsolveError(
            f"{what} need norm and eps, or threats, to be held against; got norm={norm!r}, "
            f"eps={eps!r}; e.g. norm='Linf', eps=8 / 255"
        )
    return InBall(make_ball(norm, eps))


_EXAMPLE = "threats=[('Linf', '8/255'), ('L2', 0.5), ('rotations', 15)]"


def _is_one(threats: object) -> bool:
    """Whether this is one set and no list of them: a text, or a tuple that begins with a name."""
    if isinstance(threats, tuple) and threats and isinstance(threats[0], str):
        return ":" not in threats[0]
    return isinstance(threats, str | Threat)


def _read(entry: object, name: str) -> Threat:
    if isinstance(entry, Threat):
        return entry
    if isinstance(entry, Ball):
        return InBall(entry)
    if isinstance(entry, str):
        return _named(entry, [part.strip() for part in entry.split(":")], name)
    if isinstance(entry, tuple | list) and entry:
        return _named(entry, list(entry), name)
    if callable(entry) and not isinstance(entry, type):
        return Finite(entry)
    raise MixsolveTypeError(
        f"{name} must be a list of balls, finite sets and functions of images, e.g. {_EXAMPLE}; "
        f"got {entry!r}"
    )


def _named(entry: object, parts: list[Any], name: str) -> Threat:
    """Return the set of a name and its numbers."""
    kind, *numbers = parts
    try:
        if kind in KINDS:
            if len(numbers) in (1, 2) and "" not in numbers:
                return KINDS[kind](*map(_number, numbers))
            raise MixsolveError(f"it takes a size, and perhaps the number of points: {kind}:15")
        ball = None if isinstance(kind, bool) else _norm(kind)
        if ball is None:
            known = ", ".join([*BALLS, *KINDS])
            raise MixsolveError(f"a set is one of {known} with its size, e.g. {_EXAMPLE}")
        if len(numbers) != 1 or numbers[0] == "":
            raise MixsolveError(f"a ball takes one radius: {ball}:8/255")
        return InBall(make_ball(ball, numbers[0]))
    except (MixsolveError, TypeError) as error:
        # A keyword that a set does not take is a wrong list, not a fault of the function.
        raise MixsolveError(f"{name} {entry!r} is not understood: {error}") from error


def _norm(kind: object) -> str | None:
    """Return the name of a norm, None if it is none."""
    try:
        return make_ball(kind, 0).norm
    except MixsolveError:
        return None


def _number(value: object) -> object:
    """Return a number that stands in text as one; what is none is refused where it is used."""
    if not isinstance(value, str):
        return value
    for make in (int, float):
        try:
            return make(value)
        except ValueError:
            continue
    top, slash, bottom = value.partition("/")
    try:
        return float(top) / float(bottom) if slash else value
    except (ValueError, ZeroDivisionError):
        return value
