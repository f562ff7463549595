"""Names of a game's samples, candidates and classifiers, and matching of arguments by them.

Nothing that is named is taken by position where the names disagree:

- where two arrays name the entries of an axis, one is brought into the order of the other, or
  refused if they name others;
- where only one does, position counts; unless it numbers its entries from 0 in another order: then
  its rows were moved, and the other array's may have been moved too or not.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixsolve.arrays.named_arrays import (
    Labelled,
    Names,
    Reordered,
    check_masks,
    labelled,
    moves,
    nested,
    refuse_mask,
)
from mixsolve.arrays.named_forms import TENSOR, LongTable, long_table, of_mapping, of_two_axes
from mixsolve.base.errors import MixsolveError, MixsolveTypeError

_PLAIN = (np.ndarray, float, int)  # types that have neither names nor masks


def check_names(names: Any, n_classifiers: int, what: str = "names") -> tuple[str, ...]:
    """Names of the classifiers: a different word for each.

    Raises
    ------
    MixsolveError
        There are not as many as classifiers, or two are equal.
    MixsolveTypeError
        They are not words.
    """
    try:
        given = tuple(names)
    except TypeError:
        given = ()
    if not given or not all(isinstance(name, str) and name for name in given):
        raise MixsolveTypeError(
            f"{what} must be words, one for each of the {n_classifiers} classifiers; got {names!r}"
        )
    if len(given) != n_classifiers or len(set(given)) < len(given):
        raise MixsolveError(
            f"{what} must be {n_classifiers} different names, one a classifier; got {names!r}"
        )
    return given


def in_words(name: Hashable) -> str:
    """A name as it is written: the entries of a tuple, as pandas has them, with slashes."""
    return "/".join(map(str, name)) if isinstance(name, tuple) else str(name)


@dataclass
class GameLabels:
    """Names of a game's samples, candidates and classifiers, as its losses give them.

    An axis without names in the losses takes those of the first argument that has some: another
    argument in another order is then refused, since either may be the order of the losses.

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
        """The same for another solve, in which names come from other arguments."""
        return GameLabels(self.names, self.items)

    def calling(self, names: Any, n_classifiers: int) -> GameLabels:
        """The same with names of the classifiers that a caller gave; None leaves them.

        Raises
        ------
        MixsolveError
            There are not as many as classifiers, two are equal, or the losses have others.
        MixsolveTypeError
            They are not words.
        """
        if names is None:
            return self
        given = check_names(names, n_classifiers)
        known = self.names.get("classifiers", given)
        if tuple(map(in_words, known)) != given:
            raise MixsolveError(
                f"names must be those by which losses names its classifiers, {known}, in that "
                f"order, or left out; got {given}"
            )
        return GameLabels({**self.names, "classifiers": known}, self.items)

    @property
    def classifiers(self) -> tuple[str, ...] | None:
        """Names of the classifiers, in words, where the losses or another argument named them."""
        known = self.names.get("classifiers") or self._lent.get("classifiers", ("", None))[1]
        if known is None:
            return None
        words = tuple(map(in_words, known))
        # 1 and "1" are different names, and the same word.
        return words if len(set(words)) == len(words) else tuple(map(repr, known))

    def item(self, place: int) -> GameLabels:
        """Those of one game, for losses in a list of games."""
        here = self.items[place] if place < len(self.items) else {}
        named = {axis: names for axis, names in here.items() if names is not None}
        return GameLabels(self.names | named)

    def aligned(self, array: Any, axes: Sequence[str], name: str) -> Any:
        """An argument of these axes, without names, its entries in the order of the losses."""
        if isinstance(array, (list, tuple)) and nested(array):
            check_masks(array, name)
            if len(axes) < 2:
                return array
            return [
                self._row(item, place, axes[1:], f"{name}[{place}]")
                for place, item in enumerate(array)
            ]
        if array is None or type(array) in _PLAIN:
            return array
        long = long_table(array, name) if len(axes) == 2 else None
        if long is not None:
            return self._long(long, axes, name)
        found = labelled(array, name)
        if found is None:
            return array
        found = found.ordered(axes, name)
        if len(found.entries) != len(axes):
            return found.values  # of a wrong shape, which its own check refuses
        values = found.values
        for axis, (what, given) in enumerate(zip(axes, found.entries, strict=True)):
            if what == "candidates" and any(item.get(what) for item in self.items):
                return self._each(values, given, name)
            order = self.order_of(what, given, name)
            values = values if order is None else _taken(values, order, axis)
        return values

    def _long(self, long: LongTable, axes: Sequence[str], name: str) -> Any:
        """Rows of a long table (samples and candidates) in the order of the losses."""
        rectangular = long.rectangular()
        if rectangular is not None and not any(self.items):
            values, candidates = rectangular
            for axis, (what, given) in enumerate(
                zip(axes, (long.samples, candidates), strict=True)
            ):
                order = self.order_of(what, given, name)
                values = values if order is None else _taken(values, order, axis)
            return values
        order = self.order_of("samples", long.samples, name)
        places = range(len(long.tables)) if order is None else order.tolist()
        rows = []
        for sample, place in enumerate(places):
            item = self.items[sample] if sample < len(self.items) else self.names
            known, row = item.get("candidates"), long.tables[place]
            what = f"{name} names candidates of sample {sample}"
            moved = moves(known, long.candidates[place], what)
            rows.append(row if moved is None else row[moved])
        return rows

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

    Raises
    ------
    MixsolveError, MixsolveTypeError
        If names disagree, or there is a mask somewhere.
    """
    labels = GameLabels()
    if type(losses) in _PLAIN:
        return losses, labels
    if hasattr(type(losses), "__mixsolve_losses__"):
        losses, named = losses.__mixsolve_losses__, getattr(losses, "__mixsolve_names__", {})
        losses, labels = read_losses(losses, axes, name)
        return losses, GameLabels({**named, **labels.names}, labels.items)
    if tuple(axes) == TENSOR:
        if isinstance(losses, Mapping):
            losses, named = of_mapping(losses, name)
            return losses, GameLabels({axis: own for axis, own in named.items() if own})
        long = long_table(losses, name)
        if long is not None:
            return _read_long(long)
    found = labelled(losses, name)
    if found is not None:
        if tuple(axes) == TENSOR and len(found.entries) == 2:
            found = of_two_axes(found, name)
        found = found.ordered(axes, name)
        if len(found.entries) == len(axes):
            named = zip(axes, found.entries, strict=True)
            labels.names = {axis: names for axis, names in named if names is not None}
        return found.values, labels
    if isinstance(losses, (list, tuple)) and nested(losses):
        losses = _List(labels).plain(losses, axes, name, top=True)
    return losses, labels


def _read_long(long: LongTable) -> tuple[Any, GameLabels]:
    """Losses of a long table: an array, or a list of tables where candidates differ."""
    named = {"samples": long.samples}
    if long.classifiers is not None:
        named["classifiers"] = long.classifiers
    rectangular = long.rectangular()
    if rectangular is None:
        return long.tables, GameLabels(named, [{"candidates": own} for own in long.candidates])
    losses, candidates = rectangular
    if candidates is not None:
        named["candidates"] = candidates
    return losses, GameLabels(named)


class _List:
    """A list of arrays, brought into the order in which the first of them names classifiers."""

    def __init__(self, labels: GameLabels) -> None:
        self._labels = labels
        self._moved = self._bare = ""  # first items in another order, and without names

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
                if len(found.entries) > 1:  # one axis alone is that of the classifiers
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


def matched(first: Any, second: Any, name: str, other: str) -> Any:
    """An array, without names, with its rows in the order of another one's.

    `name` and `other` are what messages call the first and the second.
    """
    found, known = labelled(second, other), labelled(first, name)
    if found is None or known is None or not found.entries or not known.entries:
        return second
    order = moves(known.entries[0], found.entries[0], f"{other} names the rows of {name}")
    return found.values if order is None else _taken(found.values, order, 0)
