"""Arrays that bring names for their axes and for the entries along them, taken apart.

pandas names rows and columns, polars and pyarrow columns, xarray axes and entries, Zarr and HDF5
axes. Axes are found by name where they are called samples, candidates and classifiers (or the
like, see `_WORDS`), and by position where no name contradicts it. The index that pandas makes by
itself, 0 to n - 1, names nothing. Masked arrays are refused here too: NumPy drops the mask.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.base.errors import MixsolveError, MixsolveTypeError

Names = tuple[Hashable, ...] | None  # of the entries along an axis

_WORDS = {
    "games": {"game"},
    "samples": {"sample", "image", "example", "point"},
    "candidates": {"candidate", "attack"},
    "classifiers": {"classifier", "model", "member"},
}
AXES = {
    form: axis for axis, words in _WORDS.items() for word in words for form in (word, f"{word}s")
}


@dataclass(frozen=True)
class Labelled:
    """An array and its names, taken apart.

    Attributes
    ----------
    values : array
        Without names.
    entries : tuple of (tuple or None)
        Names of the entries along each axis.
    axes : tuple of str or None
        Names of the axes, where they have some.
    """

    values: Any
    entries: tuple[Names, ...]
    axes: tuple[str | None, ...] | None = None

    def ordered(self, wanted: Sequence[str], name: str) -> Labelled:
        """The same with its axes in another order.

        Parameters
        ----------
        wanted : sequence of str
            Of "games", "samples", "candidates", "classifiers".
        """
        if self.axes is None or len(self.axes) != len(wanted):
            return self
        order = _order(self.axes, wanted, name)
        if order == tuple(range(len(order))):
            return self
        entries = tuple(self.entries[axis] for axis in order)
        return Labelled(_transposed(self.values, order), entries)


class Reordered:
    """An array in a file, read with its axes in another order.

    Parameters
    ----------
    array : array
        With ``shape``, ``dtype`` and slicing.
    order : tuple of int
        Which of its axes comes first, second and so on.
    """

    def __init__(self, array: Any, order: tuple[int, ...]) -> None:
        self._array, self._order = array, order
        self.shape = tuple(array.shape[axis] for axis in order)
        self.dtype = array.dtype
        chunks = getattr(array, "chunks", None)
        self.chunks = None if chunks is None else tuple(chunks[axis] for axis in order)
        self.ndim = len(order)

    def __getitem__(self, key: slice | tuple[slice, ...]) -> np.ndarray:
        wanted = dict(zip(self._order, key if isinstance(key, tuple) else (key,), strict=False))
        taken = tuple(wanted.get(axis, slice(None)) for axis in range(self.ndim))
        return np.asarray(self._array[taken]).transpose(self._order)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[()], dtype)


def _order(axes: Sequence[str | None], wanted: Sequence[str], name: str) -> tuple[int, ...]:
    """Axis of an array that is the first, second, ... of those wanted."""
    claims = [AXES.get(str(axis).lower()) for axis in axes]
    known = [claim for claim in claims if claim is not None]
    expected = f"{name} must have the axes ({', '.join(wanted)})"
    if len(set(known)) < len(known) or not set(known) <= set(wanted):
        raise MixsolveError(f"{expected}, got dimensions named {tuple(axes)}; rename them")
    missing = [axis for axis in wanted if axis not in known]
    if len(missing) <= 1:  # then the remaining one is known too
        claims = [claim or missing[0] for claim in claims]
    elif any(claim not in (None, axis) for claim, axis in zip(claims, wanted, strict=True)):
        raise MixsolveError(
            f"{expected}, got dimensions named {tuple(axes)}, which are in another order and not "
            "all known; rename them to these"
        )
    else:
        return tuple(range(len(wanted)))
    return tuple(claims.index(axis) for axis in wanted)


def _transposed(values: Any, order: tuple[int, ...]) -> Any:
    if type(values).__module__.partition(".")[0] in ("zarr", "h5py"):
        return Reordered(values, order)
    return values.transpose(order)


def labelled(array: Any, name: str = "losses") -> Labelled | None:
    """Separate an array from its names; None for one that has none.

    Raises
    ------
    MixsolveTypeError
        If it is a table of an unknown kind, whose names would be lost, or has missing values.
    """
    root = type(array).__module__.partition(".")[0]
    if root in ("numpy", "builtins"):
        return None
    for module_name, class_name, read in _KINDS:
        kind = getattr(sys.modules.get(module_name), class_name, None)
        if isinstance(kind, type) and isinstance(array, kind):
            return read(array, name)
    if hasattr(array, "__dataframe__") or (hasattr(array, "columns") and hasattr(array, "dtypes")):
        raise MixsolveTypeError(
            f"{name} is a table of {root} ({type(array).__name__}), whose names would be lost; "
            "pass its values as an array"
        )
    return None


def of_pandas(array: Any, name: str) -> Labelled:
    """Values and names of a DataFrame or a Series, whose numbers may be of pandas' own types."""
    pandas = sys.modules["pandas"]
    values = array.to_numpy()
    if values.dtype == object:  # columns of several types, or pandas' own types
        types = list(array.dtypes) if array.ndim == 2 else [array.dtype]
        if all(pandas.api.types.is_numeric_dtype(each) for each in types):
            if array.isna().to_numpy().any():
                raise MixsolveError(f"{name} has missing values; fill them, or leave them out")
            boolean = all(pandas.api.types.is_bool_dtype(each) for each in types)
            values = values.astype(np.bool_ if boolean else np.float64)
    return Labelled(values, tuple(_of_index(index, pandas) for index in array.axes))


def _of_index(index: Any, pandas: Any) -> Names:
    made = isinstance(index, pandas.RangeIndex) and index.start == 0 and index.step == 1
    return None if made else tuple(index.tolist())


def _of_columns(table: Any, name: str) -> Labelled:
    """Of polars or pyarrow, which name columns only."""
    columns = getattr(table, "column_names", None) or table.columns
    parts = [np.asarray(table[column]) for column in columns]
    values = np.stack(parts, axis=1) if parts else np.empty((0, 0))
    return Labelled(values, (None, tuple(columns)))


def _of_polars_series(series: Any, name: str) -> Labelled:
    return Labelled(series.to_numpy(), (None,))


def _of_xarray(array: Any, name: str) -> Labelled:
    entries = tuple(
        tuple(array.indexes[dim].tolist()) if dim in array.indexes else None for dim in array.dims
    )
    return Labelled(array.data, entries, tuple(map(str, array.dims)))


def _of_zarr(array: Any, name: str) -> Labelled | None:
    names = getattr(getattr(array, "metadata", None), "dimension_names", None)
    return _of_file(array, names or array.attrs.get("_ARRAY_DIMENSIONS"))


def _of_h5py(dataset: Any, name: str) -> Labelled | None:
    if not dataset or not dataset.ndim:
        return None
    names = []
    for dimension in dataset.dims:
        scale = dimension[0].name.rpartition("/")[2] if len(dimension) else ""
        names.append(dimension.label or scale or None)
    return _of_file(dataset, names)


def _of_file(array: Any, names: Any) -> Labelled | None:
    if not isinstance(names, Sequence) or len(names) != array.ndim or not any(names):
        return None
    return Labelled(array, (None,) * array.ndim, tuple(names))


# Module to look for, its class, and how to separate its names.
_KINDS = (
    ("pandas", "DataFrame", of_pandas),
    ("pandas", "Series", of_pandas),
    ("polars", "DataFrame", _of_columns),
    ("polars", "Series", _of_polars_series),
    ("pyarrow", "Table", _of_columns),
    ("pyarrow", "RecordBatch", _of_columns),
    ("xarray", "DataArray", _of_xarray),
    ("zarr", "Array", _of_zarr),
    ("h5py", "Dataset", _of_h5py),
)


def moves(known: Names, given: Names, what: str) -> np.ndarray | None:
    """Which entries of an array, in order, are those that another array has.

    Parameters
    ----------
    known, given : tuple or None
        Names of the entries of the other array and of this one.
    what : str
        First words of the message: "sample_weight names samples", say.

    Returns
    -------
    ndarray of int64 or None
        None where the order is right already.

    Raises
    ------
    MixsolveError
        If both name their entries and the names differ, or the order is ambiguous.
    """
    if known == given:
        return None
    mend = "; bring both into one order, or pass its values without names to go by position"
    if known is None or given is None:
        named = given if known is None else known
        assert named is not None
        if set(named) == set(range(len(named))) and named != tuple(range(len(named))):
            raise MixsolveError(
                f"{what} by numbers from 0 in another order on one side only, "
                f"{_few(named)}, so that it cannot be told what belongs together{mend}"
            )
        return None
    places = {entry: place for place, entry in enumerate(given)}
    if len(places) < len(given) or len(set(known)) < len(known):
        raise MixsolveError(
            f"{what} by names that are not all different: {_few(given)}, {_few(known)}{mend}"
        )
    if places.keys() != set(known):
        odd = next(entry for entry in (*given, *known) if (entry in places) != (entry in known))
        raise MixsolveError(
            f"{what} that are not the same as those known already: {odd!r} is on one side only, "
            f"of {_few(given)} and {_few(known)}{mend}"
        )
    return np.array([places[entry] for entry in known], dtype=np.int64)


def _few(names: Sequence[Hashable]) -> str:
    shown = ", ".join(map(repr, names[:4]))
    return f"({shown}, ...)" if len(names) > 4 else f"({shown})"


def nested(items: Any) -> bool:
    """Whether a list holds anything but numbers, which may have names or masks."""
    return any(not issubclass(kind, (int, float)) for kind in set(map(type, items)))


def check_masks(items: Sequence[Any], name: str) -> None:
    """Refuse a list with a masked array in it, however deep: NumPy would drop the mask."""
    for place, item in enumerate(items):
        refuse_mask(item, f"{name}[{place}]")
        if isinstance(item, (list, tuple)) and nested(item):
            check_masks(item, f"{name}[{place}]")


def refuse_mask(array: Any, name: str) -> None:
    """Refuse a masked array."""
    of_torch = getattr(sys.modules.get("torch.masked"), "MaskedTensor", np.ma.MaskedArray)
    if isinstance(array, (np.ma.MaskedArray, of_torch)):
        mend = (
            "and candidate_mask (True where a candidate exists)"
            if name.startswith("losses")
            else "with values for the masked places"
        )
        raise MixsolveTypeError(
            f"{name} is a masked array, whose mask would be lost; pass its data, {mend}"
        )
