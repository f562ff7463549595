"""Names of a game's samples, candidates and classifiers, and matching of arguments by them.

Nothing that is named is taken by position where the names disagree:

- where two arrays name the entries of an axis, one is brought into the order of the other, or
  refused if they name others;
- where only one does, position counts; unless it numbers its entries from 0 in another order: then
  its rows were moved, and the other array's may have been moved too or not.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixsolve.arrays.named_arrays import (
    Labelled,
    Names,
    Reordered,
    check_masks,
    labelled,
    nested,
    refuse_mask,
)
from mixsolve.base.errors import MixsolveError

_PLAIN = (np.ndarray, float, int)  # types that have neither names nor masks


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
