"""Losses whose form says what is what: dictionaries, long tables, tables of one candidate.

A dictionary holds an array (samples, candidates) for each classifier. A long table of pandas has a
row for each sample and candidate, which its MultiIndex names, and a column for each classifier. An
array of two axes holds the losses of one candidate a sample, the clean one say.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.arrays.named_arrays import (
    AXES,
    Labelled,
    Names,
    Reordered,
    labelled,
    moves,
    of_pandas,
)
from mixsolve.base.errors import MixsolveError

TENSOR = ("samples", "candidates", "classifiers")


def of_mapping(losses: Mapping[Any, Any], name: str) -> tuple[Any, dict[str, Names]]:
    """Losses (N, m, L) of arrays (N, m) or (N,) by classifier, and the names of each axis.

    Arrays in lists, whose samples have different numbers of candidates, make a list of N tables.

    Raises
    ------
    MixsolveError
        There are no arrays, their shapes differ, or they name samples or candidates differently.
    """
    if not losses:
        raise MixsolveError(f"{name} is an empty dictionary; give an array for each classifier")
    names: dict[str, Names] = {}
    parts = []
    for key, array in losses.items():
        here = f"{name}[{key!r}]"
        found = labelled(array, here)
        if found is not None:
            found = found.ordered(TENSOR[: len(found.entries)], here)
            array = found.values
            for axis, (what, given) in enumerate(zip(TENSOR[:2], found.entries, strict=False)):
                if given is None:
                    continue
                order = moves(names.setdefault(what, given), given, f"{here} names {what}")
                array = array if order is None else array[(slice(None),) * axis + (order,)]
        parts.append(array)
    names["classifiers"] = tuple(losses)
    if _ragged(parts[0]):
        return _stacked_rows(parts, list(losses), name), names
    arrays = [part if hasattr(part, "shape") else np.asarray(part) for part in parts]
    shapes = {tuple(part.shape) for part in arrays}
    if len(shapes) > 1 or len(arrays[0].shape) not in (1, 2):
        told = ", ".join(
            f"{key!r}: {tuple(part.shape)}" for key, part in zip(losses, arrays, strict=True)
        )
        raise MixsolveError(
            f"{name} must hold an array (samples, candidates) for each classifier, all of one "
            f"shape; got {told}"
        )
    if len(arrays[0].shape) == 1:
        arrays = [part[:, None] for part in arrays]
    return _namespace(arrays[0]).stack(arrays, -1), names


def _ragged(rows: Any) -> bool:
    lengths = {np.shape(row) for row in rows} if isinstance(rows, list | tuple) else set()
    return len(lengths) > 1


def _stacked_rows(parts: Sequence[Any], keys: Sequence[Any], name: str) -> list[np.ndarray]:
    """One table (m_i, L) for each sample, of lists of rows (m_i,)."""
    shapes = [[np.shape(row) for row in part] for part in parts]
    for key, own in zip(keys, shapes, strict=True):
        if own != shapes[0]:
            raise MixsolveError(
                f"{name}[{key!r}] must have as many samples and candidates as {name}[{keys[0]!r}]"
            )
    return [np.stack([np.asarray(row) for row in rows], -1) for rows in zip(*parts, strict=True)]


def _namespace(array: Any) -> Any:
    """The module that stacks arrays of this kind, on their device."""
    root = type(array).__module__.partition(".")[0]
    wanted = {"torch": "torch", "jax": "jax.numpy", "jaxlib": "jax.numpy", "dask": "dask.array"}
    return sys.modules.get(wanted.get(root, root if root == "cupy" else "numpy"), np)


@dataclass(frozen=True)
class LongTable:
    """A long table taken apart.

    Attributes
    ----------
    samples : tuple
        Their names, in the order in which they first appear.
    candidates : list of tuple
        Names of the candidates of each sample.
    tables : list of ndarray
        Values of each sample, (m_i, ...).
    classifiers : tuple or None
        Names of the columns.
    """

    samples: tuple[Any, ...]
    candidates: list[tuple[Any, ...]]
    tables: list[np.ndarray]
    classifiers: Names

    def rectangular(self) -> tuple[np.ndarray, Names] | None:
        """Values (N, m, ...) and the candidates, in the order of the first sample's.

        None where samples have different candidates.
        """
        first = self.candidates[0]
        if any(set(own) != set(first) for own in self.candidates):
            return None
        parts = []
        for own, table in zip(self.candidates, self.tables, strict=True):
            order = moves(first, own, "the index names candidates") if own != first else None
            parts.append(table if order is None else table[order])
        return np.stack(parts), first


def long_table(table: Any, name: str) -> LongTable | None:
    """A pandas object with two levels in its index taken apart; None for anything else.

    Raises
    ------
    MixsolveError
        A pair of sample and candidate stands twice.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(table, (pandas.DataFrame, pandas.Series)):
        return None
    index = table.index
    if not isinstance(index, pandas.MultiIndex):
        return None
    claims = [AXES.get(str(level).lower()) for level in index.names]
    levels = (1, 0) if claims in (["candidates", "samples"], ["candidates", None]) else (0, 1)
    if index.nlevels != 2 or not {*claims} <= {None, "samples", "candidates"}:
        raise MixsolveError(
            f"{name} must have an index of two levels, sample and candidate; got the levels "
            f"{tuple(index.names)}"
        )
    if index.has_duplicates:
        twice = index[index.duplicated()][0]
        raise MixsolveError(f"{name} has {twice!r}, a sample and its candidate, more than once")
    codes, samples = pandas.factorize(index.get_level_values(levels[0]))
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(samples)))[:-1]
    found = of_pandas(table, name)
    named = np.empty(len(order), dtype=object)
    named[:] = index.get_level_values(levels[1]).tolist()
    columns = found.entries[1] if len(found.entries) > 1 else None
    return LongTable(
        tuple(samples.tolist()),
        [tuple(part) for part in np.split(named[order], ends)],
        np.split(found.values[order], ends),
        columns,
    )


def of_two_axes(found: Labelled, name: str) -> Labelled:
    """Add the axis that is missing: that of the candidates, or the samples where names say so."""
    claims = {AXES.get(str(axis).lower()) for axis in found.axes or ()}
    missing = "samples" if "candidates" in claims else "candidates"
    found = found.ordered([axis for axis in TENSOR if axis != missing], name)
    place = TENSOR.index(missing)
    entries = (*found.entries[:place], None, *found.entries[place:])
    return Labelled(with_axis(found.values, place), entries)


def with_axis(array: Any, place: int) -> Any:
    """An array of two axes with one of length 1 more, without reading it."""
    stored = type(array).__module__.partition(".")[0] in ("zarr", "h5py")
    if stored or isinstance(array, Reordered):
        return _Extended(array, place)
    return array[(*(slice(None),) * place, None)]


class _Extended(Reordered):
    """An array in a file with an axis of length 1 added."""

    def __init__(self, array: Any, place: int) -> None:
        self._array, self._place = array, place
        self.shape = _with(array.shape, place, 1)
        self.dtype = array.dtype
        chunks = getattr(array, "chunks", None)
        self.chunks = None if chunks is None else _with(chunks, place, 1)
        self.ndim = len(self.shape)

    def __getitem__(self, key: slice | tuple[slice, ...]) -> np.ndarray:
        given = key if isinstance(key, tuple) else (key,)
        taken = (*given, *(slice(None),) * (self.ndim - len(given)))
        inner = tuple(part for axis, part in enumerate(taken) if axis != self._place)
        block = np.expand_dims(np.asarray(self._array[inner]), self._place)
        return block[(*(slice(None),) * self._place, taken[self._place])]


def _with(items: Sequence[int], place: int, item: int) -> tuple[int, ...]:
    return (*items[:place], item, *items[place:])
