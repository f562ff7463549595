"""Losses as text: comma-separated values with a line of names.

Either a column for each classifier and a line for each sample, which is one candidate a sample; or
two columns more, ``sample`` and ``candidate`` (or image and attack, see `named_arrays`), and a line
for each pair. Samples may have different candidates.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.arrays.named_arrays import AXES
from mixsolve.arrays.named_forms import LongTable
from mixsolve.base.errors import MixsolveError


@dataclass(frozen=True)
class NamedLosses:
    """Losses, and names of their classifiers, which `mixsolve.solve` takes together.

    Attributes
    ----------
    losses : ndarray of shape (N, m, L) or list of ndarray (m_i, L)
        The losses.
    classifiers : tuple of str
        Their names.
    """

    losses: Any
    classifiers: tuple[str, ...]

    @property
    def __mixsolve_losses__(self) -> Any:
        return self.losses

    @property
    def __mixsolve_names__(self) -> dict[str, tuple[str, ...]]:
        return {"classifiers": self.classifiers}


def read_csv(lines: Iterable[str], called: str) -> NamedLosses:
    """Read a table of losses from lines of text.

    `called` is the user's name for it, for messages.

    Raises
    ------
    MixsolveError
        There is no line of names or of numbers, something is no number, or a pair of sample and
        candidate stands twice.
    """
    heads, rows = _parsed(lines)
    if not rows:
        raise MixsolveError(f"{called} must have a line of names and lines of losses")
    if all(_is_number(cell) for cell in heads):
        raise MixsolveError(
            f"{called} must begin with a line of names, one a column; got {', '.join(heads[:4])}"
        )
    claims = [AXES.get(head.lower()) for head in heads]
    keys = [claims.index(axis) for axis in ("samples", "candidates") if axis in claims]
    values = [column for column in range(len(heads)) if column not in keys]
    names = tuple(heads[column] for column in values)
    if not names or len(set(names)) < len(names):
        raise MixsolveError(f"{called} must name each classifier differently; got {names}")
    table = np.empty((len(rows), len(values)))
    for place, row in enumerate(rows):
        if len(row) != len(heads):
            raise MixsolveError(
                f"{called}: line {place + 2} has {len(row)} columns, the names are {len(heads)}"
            )
        for k, column in enumerate(values):
            if not _is_number(row[column]):
                raise MixsolveError(
                    f"{called}: line {place + 2}, column {heads[column]!r} must be a number; got "
                    f"{row[column]!r}"
                )
            table[place, k] = float(row[column])
    if len(keys) < 2:
        return NamedLosses(table[:, None, :], names)
    return NamedLosses(_grouped(rows, keys, table, names, called), names)


def has_column(lines: Iterable[str], column: str) -> bool:
    """Whether the line of names has this one."""
    return column in _parsed(lines)[0]


def take_column(lines: Iterable[str], column: str, called: str) -> tuple[list[str], np.ndarray]:
    """Take a column of labels, one for each sample, out of a table of losses.

    Returns
    -------
    lines : list of str
        The table without it.
    labels : ndarray of str, shape (N,)
        In the order of the samples' first lines.

    Raises
    ------
    MixsolveError
        There is no such column, or lines of one sample differ in it.
    """
    heads, rows = _parsed(lines)
    if column not in heads:
        raise MixsolveError(
            f"{called} has no column {column!r}, its columns are: {', '.join(heads[:8])}"
        )
    place = heads.index(column)
    claims = [AXES.get(head.lower()) for head in heads]
    key = claims.index("samples") if {"samples", "candidates"} <= set(claims) else None
    labels: dict[str, str] = {}
    for number, row in enumerate(rows):
        if len(row) != len(heads):
            continue  # refused where the losses are read
        sample = str(number) if key is None else row[key]
        label = labels.setdefault(sample, row[place].strip())
        if label != row[place].strip():
            raise MixsolveError(
                f"{called}: line {number + 2} has {column} {row[place].strip()!r}, and sample "
                f"{sample!r} had {label!r} before; a sample is of one group"
            )
    text = io.StringIO()
    kept = ([cell for k, cell in enumerate(row) if k != place] for row in (heads, *rows))
    csv.writer(text).writerows(kept)
    return text.getvalue().splitlines(), np.array(list(labels.values()))


def _grouped(
    rows: list[list[str]], keys: list[int], table: np.ndarray, names: tuple[str, ...], called: str
) -> Any:
    """Losses by sample: an array where all have the same candidates, a list of tables otherwise."""
    places: dict[str, dict[str, int]] = {}
    for place, row in enumerate(rows):
        sample, candidate = row[keys[0]], row[keys[1]]
        own = places.setdefault(sample, {})
        if candidate in own:
            raise MixsolveError(
                f"{called}: sample {sample!r} has the candidate {candidate!r} more than once"
            )
        own[candidate] = place
    long = LongTable(
        tuple(places),
        [tuple(own) for own in places.values()],
        [table[list(own.values())] for own in places.values()],
        names,
    )
    rectangular = long.rectangular()
    return long.tables if rectangular is None else rectangular[0]


def _parsed(lines: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the lines below them; empty lines are skipped."""
    rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    return [cell.strip() for cell in rows[0]] if rows else [], rows[1:]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
