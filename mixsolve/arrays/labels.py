"""Names that arrays bring for their axes and for the entries along them, and matching by them.

pandas names rows and columns, polars and pyarrow columns, xarray axes and entries, Zarr and HDF5
axes. Nothing that is named is taken by position where the names disagree:

- axes are found by name where they are called samples, candidates and classifiers (or the like, see
  `_WORDS`) and by position where no name contradicts it;
- where two arrays name the entries of an axis, one is brought into the order of the other, or
  refused if they name others;
- where only one does, position counts; unless it counts its entries from 0 in another order, which
  says that rows were moved, and not whether the other array's were too.

The index that pandas makes by itself, 0 to n - 1, names nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
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
_AXES = {
    form: axis for axis, words in _WORDS.items() for word in words for form in (word, f"{word}s")
}


@dataclass(frozen=True)
class Labelled:
    """An array apart from the names it came with.

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
        """The same with its axes in an order that is asked for.

        Parameters
        ----------
        wanted : sequence of str
            Of "games", "samples", "candidates", "classifiers".
        name : str
            The argument's, for messages.
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
    """Which axis of an array is the first, second, ... of those wanted."""
    claims = [_AXES.get(str(axis).lower()) for axis in axes]
    known = [claim for claim in claims if claim is not None]
    expected = f"{name} must have the axes ({', '.join(wanted)})"
    if len(set(known)) < len(known) or not set(known) <= set(wanted):
        raise MixsolveError(f"{expected}, got dimensions named {tuple(axes)}; rename them")
    missing = [axis for axis in wanted if axis not in known]
    if len(missing) <= 1:  # the one left over is known too
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
    """Take an array apart from its names; None for one that has none.

    Parameters
    ----------
    array : object
        Anything.
    name : str
        The argument's, for messages.

    Raises
    ------
    MixsolveTypeError
        If it is a table of a kind that is not known, whose names would be lost, or has missing
        values.
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


def _of_pandas(array: Any, name: str) -> Labelled:
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


# Module to look for, its class, and how to take it apart.
_KINDS = (
    ("pandas", "DataFrame", _of_pandas),
    ("pandas", "Series", _of_pandas),
    ("polars", "DataFrame", _of_columns),
    ("polars", "Series", _of_polars_series),
    ("pyarrow", "Table", _of_columns),
    ("pyarrow", "RecordBatch", _of_columns),
    ("xarray", "DataArray", _of_xarray),
    ("zarr", "Array", _of_zarr),
    ("h5py", "Dataset", _of_h5py),
)


def nested(items: Any) -> bool:
    """Whether a list has anything in it but numbers, which may bring names or masks."""
    return any(not issubclass(kind, (int, float)) for kind in set(map(type, items)))


def moves(known: Names, given: Names, what: str) -> np.ndarray | None:
    """Which entries of an array, in order, are those that another array has.

    Parameters
    ----------
    known, given : tuple or None
        Names of the entries of the other array and of this one.
    what : str
        Begins a message: "sample_weight names samples", say.

    Returns
    -------
    ndarray of int64 or None
        None where they stand as they should.

    Raises
    ------
    MixsolveError
        If both name their entries and these are not the same, or it cannot be told.
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


@dataclass
class GameLabels:
    """Names of a game's samples, candidates and classifiers, as its losses give them.

    What the losses leave without names gets those of the first argument that has some: another one
    in another order is then refused, since it cannot be told which of them the losses are in.

    Attributes
    ----------
    names : dict of str to tuple
        By axis.
    items : list of dict
        For losses in a list, the names of each of its items, by axis.
    """

    names: dict[str, tuple[Hashable, ...]] = field(default_factory=dict)
    items: list[dict[str, Names]] = field(default_factory=list)
    _lent: dict[str, tuple[str, Names]] = field(default_factory=dict)

    def fresh(self) -> GameLabels:
        """The same for another solve, in which other arguments may lend names."""
        return GameLabels(self.names, self.items)

    def item(self, place: int) -> GameLabels:
        """Those of one game, for losses in a list of games."""
        here = self.items[place] if place < len(self.items) else {}
        named = {axis: names for axis, names in here.items() if names is not None}
        return GameLabels(self.names | named)

    def aligned(self, array: Any, axes: Sequence[str], name: str) -> Any:
        """An argument without names, its entries in the order of the losses'.

        Parameters
        ----------
        array : array_like, list of array_like, or None
            What was given.
        axes : sequence of str
            What its axes stand for.
        name : str
            The argument's.
        """
        if isinstance(array, (list, tuple)) and nested(array):
            check_masks(array, name)
            if len(axes) < 2:
                return array
            return [
                self._row(item, place, axes[1:], f"{name}[{place}]")
                for place, item in enumerate(array)
            ]
        found = labelled(array, name)
        if found is None:
            return array
        found = found.ordered(axes, name)
        if len(found.entries) != len(axes):
            return found.values  # of a wrong shape, which is said when it is checked
        values = found.values
        for axis, (what, given) in enumerate(zip(axes, found.entries, strict=True)):
            if what == "candidates" and any(item.get(what) for item in self.items):
                return self._each(values, given, name)
            order = self.order_of(what, given, name)
            values = values if order is None else _taken(values, order, axis)
        return values

    def _row(self, item: Any, place: int, axes: Sequence[str], name: str) -> Any:
        known = self.items[place].get("candidates") if place < len(self.items) else None
        if axes[0] != "candidates" or known is None:
            return self.aligned(item, axes, name)
        found = labelled(item, name)
        if found is None or len(found.entries) != 1:
            return item
        order = moves(known, found.entries[0], f"{name} names candidates")
        return found.values if order is None else _taken(found.values, order, 0)

    def _each(self, values: Any, given: Names, name: str) -> list[Any]:
        """Rows of a table (samples, candidates) for samples that name their own candidates."""
        rows = []
        for place, (row, item) in enumerate(zip(values, self.items, strict=False)):
            known = item.get("candidates")
            order = moves(known, given, f"{name} names candidates of sample {place}")
            rows.append(row if order is None else _taken(row, order, 0))
        return [*rows, *values[len(rows) :]]

    def order_of(self, axis: str, given: Names, name: str) -> np.ndarray | None:
        """Which entries of an argument are those of an axis, in order; see `moves`."""
        if axis in self.names:
            return moves(self.names[axis], given, f"{name} names {axis}")
        lender, lent = self._lent.get(axis, ("losses", None))
        order = moves(lent, given, f"{name} names {axis}")
        if order is not None:
            raise MixsolveError(
                f"{name} names the {axis} in another order than {lender}, and losses does not name "
                "them, so that it cannot be told which order is theirs; bring both into one"
            )
        if lent is None and given is not None:
            self._lent[axis] = name, given
        return None


def read_losses(
    losses: Any, axes: Sequence[str] = (), name: str = "losses"
) -> tuple[Any, GameLabels]:
    """Losses without names, and the names.

    Parameters
    ----------
    losses : array_like, or list of array_like
        Of the axes given; in a list, which stands for the first of them, each of the others.
    axes : sequence of str
        "samples", "candidates", "classifiers", and possibly "games" before.
    name : str
        The argument's.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        If names disagree, or there is a mask somewhere.
    """
    labels = GameLabels()
    found = labelled(losses, name)
    if found is not None:
        found = found.ordered(axes, name)
        if len(found.entries) == len(axes):
            named = zip(axes, found.entries, strict=True)
            labels.names = {axis: names for axis, names in named if names is not None}
        return found.values, labels
    if isinstance(losses, (list, tuple)) and nested(losses):
        losses = _List(labels).plain(losses, axes, name, top=True)
    return losses, labels


class _List:
    """A list of arrays, brought into the order in which the first of them names classifiers."""

    def __init__(self, labels: GameLabels) -> None:
        self._labels = labels
        self._moved = self._bare = ""  # items whose order is another, and is not known

    def plain(
        self, items: Sequence[Any], axes: Sequence[str], name: str, top: bool = False
    ) -> list[Any]:
        """The items without names; `top` for the list of samples, or of games."""
        made = []
        for place, item in enumerate(items):
            here = f"{name}[{place}]"
            refuse_mask(item, here)
            named: dict[str, Names] = {}
            found = labelled(item, here)
            if found is not None and found.entries:
                found = found.ordered(axes[1:], here)
                named = dict(zip(axes[1:-1], found.entries, strict=False))
                item = self._like_first(found, here)
            elif isinstance(item, (list, tuple)) and nested(item):
                item = self.plain(item, axes[1:], here)
            elif not isinstance(item, (int, float)):
                self._bare = self._bare or here
            if top:
                self._labels.items.append(named)
            made.append(item)
            if self._moved and self._bare:
                raise MixsolveError(
                    f"{self._moved} names classifiers in another order than those before it, and "
                    f"{self._bare} does not name them, so that it cannot be told which order is "
                    "its own; name them everywhere, or bring all into one order"
                )
        return made

    def _like_first(self, found: Labelled, name: str) -> Any:
        known, given = self._labels.names.get("classifiers"), found.entries[-1]
        if given is None:
            self._bare = self._bare or name
        elif known is None and not self._bare:
            self._labels.names["classifiers"] = given
        order = moves(known, given, f"{name} names classifiers")
        if order is None:
            return found.values
        self._moved = self._moved or name
        return _taken(found.values, order, found.values.ndim - 1)


def _taken(values: Any, order: np.ndarray, axis: int) -> Any:
    if isinstance(values, Reordered) or type(values).__module__.startswith(("zarr", "h5py")):
        values = np.asarray(values)
    return values[(*(slice(None),) * axis, order)]


def check_masks(items: Sequence[Any], name: str) -> None:
    """Refuse a list with a masked array in it, however deep: NumPy would drop the mask."""
    for place, item in enumerate(items):
        refuse_mask(item, f"{name}[{place}]")
        if isinstance(item, (list, tuple)) and nested(item):
            check_masks(item, f"{name}[{place}]")


def refuse_mask(array: Any, name: str) -> None:
    """Refuse a masked array.

    Raises
    ------
    MixsolveTypeError
        It is one.
    """
    of_torch = getattr(sys.modules.get("torch.masked"), "MaskedTensor", np.ma.MaskedArray)
    if isinstance(array, (np.ma.MaskedArray, of_torch)):
        mend = (
            "and candidate_mask (True where a candidate exists)"
            if name.startswith("losses")
            else "with what is to stand in the masked places"
        )
        raise MixsolveTypeError(
            f"{name} is a masked array, whose mask would be lost; pass its data, {mend}"
        )


def matched(first: Any, second: Any, name: str, other: str) -> Any:
    """An array with its rows in the order of another one's, without names.

    Parameters
    ----------
    first, second : array_like
        Rows of the second are brought into the order of the first.
    name, other : str
        The arguments' names.
    """
    found, known = labelled(second, other), labelled(first, name)
    if found is None or known is None or not found.entries or not known.entries:
        return second
    order = moves(known.entries[0], found.entries[0], f"{other} names the rows of {name}")
    return found.values if order is None else _taken(found.values, order, 0)
