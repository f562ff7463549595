"""The arguments of `solve_batch`: B games, what differs between them, and what they share.

Every argument has an axis of games, of length B or 1, or none: what lacks it is the same in all
games. So one tensor stands for a thousand resamples that differ in `sample_weight` alone, and is
not copied. Games of different sizes come as lists, one entry a game.

Whole stacks are checked at once; only where something is wrong does the check of `mixsolve.solve`
read that game again, for its message.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixsolve.arrays import interop
from mixsolve.arrays.checks import numbers
from mixsolve.arrays.interop import ArraySource, array_source, check_dtype
from mixsolve.arrays.labels import read_losses
from mixsolve.arrays.named_arrays import check_masks
from mixsolve.arrays.tensor import Shape, even_offsets
from mixsolve.base.errors import MixsolveError
from mixsolve.solver import validation

Table = np.ndarray | list[np.ndarray]  # an entry a game: stacked, or of different sizes

_AXES = ("samples", "candidates", "classifiers")
_GAMES = ("games", *_AXES)


class BatchLosses:
    """Losses of B games, read a few games at a time.

    Parameters
    ----------
    losses : array_like of shape (B, N, m, L) or (N, m, L), or list of (N_b, m_b, L) arrays
        See `mixsolve.solve_batch`.

    Attributes
    ----------
    n_given : int or None
        Games that `losses` holds; None where it has no axis of games.
    n_classifiers : int
        L.
    even : bool
        Whether all games have one size.
    """

    def __init__(self, losses: Any) -> None:
        losses, self.labels = read_losses(losses, _axes_of(losses))
        self._sources = _sources(losses)
        self.even = not isinstance(losses, (list, tuple)) or len(self._sources) == 1
        first = self._sources[0]
        shape = tuple(map(int, first.data.shape))
        self._stacked = len(shape) == 4
        self.n_given: int | None = len(self._sources)
        if self._stacked:
            self.n_given = shape[0]
        elif not isinstance(losses, (list, tuple)):
            self.n_given = None
        self.n_classifiers = shape[-1]
        self._shapes = np.array([source.data.shape[-3:-1] for source in self._sources])
        self.restore = first.restore

    def shapes(self, first: int, last: int) -> np.ndarray:
        """Samples and candidates of the games first:last, int64 of shape (n, 2)."""
        if self.even:
            return np.broadcast_to(self._shapes, (last - first, 2))
        return self._shapes[first:last]

    def rows(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the games first:last as float64 (R, L), and where each game begins, (n,)."""
        counts = self.shapes(first, last).prod(axis=1)
        if not self.even:
            parts = [self._read(source, slice(None)) for source in self._sources[first:last]]
            return np.concatenate(parts), np.cumsum(counts) - counts
        source = self._sources[0]
        if not self._stacked or self.n_given == 1:
            return self._read(source, slice(None)), np.zeros(last - first, dtype=np.int64)
        return self._read(source, slice(first, last)), np.cumsum(counts) - counts

    def _read(self, source: ArraySource, part: slice) -> np.ndarray:
        block = source.to_numpy(source.data[part]).reshape(-1, self.n_classifiers)
        return _as_kernels_read(block, np.float64)

    def game(self, place: int) -> np.ndarray:
        """Losses of one game, float64 of shape (N_b, m_b, L)."""
        rows, _ = self.rows(place, place + 1)
        return rows.reshape(*self.shapes(place, place + 1)[0], self.n_classifiers)


def _axes_of(losses: Any) -> tuple[str, ...]:
    """What the axes of the losses stand for."""
    stacked = isinstance(losses, (list, tuple)) or getattr(losses, "ndim", 4) != 3
    return _GAMES if stacked else _AXES


def _is_game(item: Any) -> bool:
    """Whether an item of a list is an array, or an object that has one of a game."""
    return hasattr(item, "ndim") or hasattr(type(item), "__mixsolve_losses__")


def _sources(losses: Any) -> list[ArraySource]:
    """One source, or one a game for a list of arrays; all checked for axes and types."""
    listed = isinstance(losses, (list, tuple)) and bool(losses) and _is_game(losses[0])
    if not listed:
        source = array_source(losses)
        shape = tuple(source.data.shape)
        check_dtype(source.data.dtype, "losses")
        if len(shape) not in (3, 4):
            mend = "; for one matrix game pass losses[None, None]" if len(shape) == 2 else ""
            raise MixsolveError(
                "losses must have four axes (games, samples, candidates, classifiers), or three "
                f"where all games share them, got an array of shape {shape}{mend}"
            )
        _check_axes("losses", shape)
        return [source]
    sources: list[ArraySource] = []
    for place, item in enumerate(losses):
        name = f"losses[{place}]"
        source = array_source(item, name)
        shape = tuple(source.data.shape)
        check_dtype(source.data.dtype, name)
        if len(shape) != 3:
            raise MixsolveError(
                f"{name} must have three axes (samples, candidates, classifiers), got an array of "
                f"shape {shape}; a list holds one tensor per game"
            )
        _check_axes(name, shape)
        known = int((sources[0] if sources else source).data.shape[2])
        if shape[2] != known:
            raise MixsolveError(
                f"{name} has losses of {shape[2]} classifiers, but losses[0] of "
                f"{known}; games of one batch have equally many: solve the others in "
                "a batch of their own"
            )
        sources.append(source)
    return sources


def _check_axes(name: str, shape: tuple[int, ...]) -> None:
    for axis, length in zip(_AXES, shape[-3:], strict=True):
        if not length:
            raise MixsolveError(
                f"{name} has no {axis}: its shape is {shape}, and every axis but that of the games "
                "needs at least one entry"
            )


class GameBatch:
    """Checked games.

    Parameters
    ----------
    losses, alpha, sample_weight, candidate_mask, candidate_prior
        See `mixsolve.solve_batch`.

    Attributes
    ----------
    n_games : int
        B.
    """

    def __init__(
        self,
        losses: Any,
        alpha: Any,
        sample_weight: Any,
        candidate_mask: Any,
        candidate_prior: Any,
    ) -> None:
        self.losses = BatchLosses(losses)
        even = self.losses.even
        alpha = self._unnamed(alpha, "alpha", 0)
        tables = {
            "sample_weight": (sample_weight, 1),
            "candidate_mask": (candidate_mask, 2),
            "candidate_prior": (candidate_prior, 2),
        }
        given: dict[str, Table | None] = {"alpha": _alpha_table(alpha, even)}
        for name, (values, n_axes) in tables.items():
            given[name] = _table(self._unnamed(values, name, n_axes), name, n_axes, even)
        self.n_games = self._count(given)
        shapes = self.losses.shapes(0, self.n_games)
        for name, table in given.items():
            n_axes = 2 if name.startswith("candidate") else 1
            if table is not None and not (name == "alpha" and np.shape(table[:1])[1:] == (1,)):
                _check_sizes(name, table, shapes[:, :n_axes])
        self._mask = self._checked_mask(given["candidate_mask"])
        self._prior = self._checked_prior(given["candidate_prior"])
        self._weight = self._checked_weight(given["sample_weight"])
        self._alpha = self._checked_alpha(given["alpha"])

    def _unnamed(self, values: Any, name: str, n_axes: int) -> Any:
        """An argument without names, in the order of the losses; see `mixsolve.arrays.labels`."""
        labels = self.losses.labels
        if isinstance(values, (list, tuple)):
            check_masks(values, name)
            return [
                labels.item(place).aligned(
                    item, _GAMES[1 : 1 + getattr(item, "ndim", 0)], f"{name}[{place}]"
                )
                for place, item in enumerate(values)
            ]
        axes = _GAMES[: getattr(values, "ndim", 0)]
        if n_axes and len(axes) == n_axes:  # shared by all games, which may each have their order
            axes = _GAMES[1 : 1 + n_axes]
            if any(labels.items):
                places = range(len(labels.items))
                return [labels.item(place).aligned(values, axes, name) for place in places]
        return labels.aligned(values, axes, name)

    def _count(self, given: dict[str, Table | None]) -> int:
        counts = {name: len(table) for name, table in given.items() if table is not None}
        counts = {name: count for name, count in counts.items() if count != 1}
        if self.losses.n_given is not None and self.losses.n_given != 1:
            counts = {"losses": self.losses.n_given, **counts}
        if len(set(counts.values())) > 1:
            words = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise MixsolveError(
                f"arguments hold different numbers of games: {words}; give each B, 1, or no axis "
                "of games"
            )
        if not counts and self.losses.n_given is None:
            raise MixsolveError(
                "losses has three axes, those of one game, and no other argument an axis of games; "
                "pass losses[None] for a batch of one, or take mixsolve.solve"
            )
        return next(iter(counts.values()), 1)

    def shape(self, place: int) -> Shape:
        """Samples, candidates and classifiers of one game."""
        n_samples, n_candidates = map(int, self.losses.shapes(place, place + 1)[0])
        return Shape(even_offsets(n_samples, n_candidates), self.losses.n_classifiers)

    def alphas(self, first: int, last: int) -> np.ndarray:
        """Regularisation of the samples of the games first:last, one after the other."""
        if isinstance(self._alpha, np.ndarray) and self._alpha.shape[1] == 1:
            counts = self.losses.shapes(first, last)[:, 0]
            return np.repeat(self._part(self._alpha, first, last), counts)
        return self._part(self._alpha, first, last)

    def sample_weights(self, first: int, last: int) -> np.ndarray:
        """Weights of the samples of the games first:last, of sum 1 in each."""
        if self._weight is not None:
            return self._part(self._weight, first, last)
        counts = self.losses.shapes(first, last)[:, 0]
        return np.repeat(1.0 / counts, counts)

    def allowed(self, first: int, last: int) -> np.ndarray:
        """Whether the rows of the games first:last may be played, as uint8; empty for all."""
        if self._mask is None:
            return np.empty(0, dtype=np.uint8)
        return self._part(self._mask, first, last).view(np.uint8)

    def priors(self, first: int, last: int) -> np.ndarray:
        """Base measure of the rows of the games first:last; empty for uniform."""
        return np.empty(0) if self._prior is None else self._part(self._prior, first, last)

    def alpha_table(self) -> Table:
        """Regularisation of each sample, (B, N), or a list of (N_b,)."""
        return self._each(self.alphas)

    def weight_table(self) -> Table:
        """Weight of each sample, (B, N), or a list of (N_b,)."""
        return self._each(self.sample_weights)

    def _each(self, read: Callable[[int, int], np.ndarray]) -> Table:
        if not self.losses.even:
            return [read(place, place + 1) for place in range(self.n_games)]
        n_samples = int(self.losses.shapes(0, 1)[0, 0])
        return read(0, self.n_games).reshape(self.n_games, n_samples)

    def _part(self, table: Table, first: int, last: int) -> np.ndarray:
        """The entries of the games first:last, in one contiguous row."""
        if isinstance(table, list):
            return np.concatenate([item.reshape(-1) for item in table[first:last]])
        part = table[first:last]
        if len(table) == 1:
            part = np.broadcast_to(table, (last - first, *table.shape[1:]))
        return _as_kernels_read(part, part.dtype).reshape(-1)

    def _checked_weight(self, table: Table | None) -> Table | None:
        if table is None:
            return None
        checked: list[np.ndarray] = []
        for stack in _stacks(table):
            valid = np.isfinite(stack).all(axis=1) & (stack >= 0).all(axis=1)
            largest = stack.max(axis=1, keepdims=True)
            valid &= largest[:, 0] > 0
            if not valid.all():
                place = len(checked) if isinstance(table, list) else int(np.argmin(valid))
                game = np.asarray(table[place])
                _explain(place, lambda: validation.check_sample_weight(game, game.size))  # noqa: B023
            scaled = stack / largest  # so that no sum overflows or vanishes
            checked.append(scaled / scaled.sum(axis=1, keepdims=True))
        return _like(table, checked)

    def _checked_alpha(self, table: Table | None) -> Table:
        assert table is not None
        checked: list[np.ndarray] = []
        for stack in _stacks(table):
            valid = np.isfinite(stack).all(axis=1) & (stack >= 0).all(axis=1)
            valid &= (stack > 0).all(axis=1) | (stack == 0).all(axis=1)
            if not valid.all():
                place = len(checked) if isinstance(table, list) else int(np.argmin(valid))
                game = np.asarray(table[place])
                wanted = float(game[0]) if game.size == 1 else game
                _explain(place, lambda: validation.check_alpha(wanted, game.size))  # noqa: B023
            checked.append(stack)
        return _like(table, checked)

    def _checked_mask(self, table: Table | None) -> Table | None:
        if table is None:
            return None
        checked: list[np.ndarray] = []
        for stack in _stacks(table):
            allowed = stack.astype(np.bool_)
            valid = np.all(allowed.any(axis=2), axis=1)
            if stack.dtype != np.bool_:
                valid &= (allowed == stack).all(axis=(1, 2))
            if not valid.all():
                place = len(checked) if isinstance(table, list) else int(np.argmin(valid))
                self._check_candidates(place, np.asarray(table[place]))
            checked.append(allowed)
        return _like(table, checked)

    def _checked_prior(self, table: Table | None) -> Table | None:
        if table is None:
            return None
        given, mask = table, self._mask
        if isinstance(mask, np.ndarray) and isinstance(table, np.ndarray):
            table = np.where(mask, table, 1.0)  # whatever stood there
        elif mask is not None:
            table = [
                np.where(mask[place % len(mask)], table[place % len(table)], 1.0)
                for place in range(self.n_games)
            ]
        for place, stack in enumerate(_stacks(table)):
            good = np.all(np.isfinite(stack) & (stack > 0), axis=(1, 2))
            if not good.all():
                game = place if isinstance(table, list) else int(np.argmin(good))
                there = None if mask is None else mask[game % len(mask)]
                self._check_candidates(game, there, np.asarray(given[game % len(given)]))
        return table

    def _check_candidates(
        self, place: int, mask: np.ndarray | None = None, prior: np.ndarray | None = None
    ) -> None:
        shape = self.shape(place)

        def check() -> None:
            allowed = validation.check_candidate_mask(mask, shape)
            validation.check_candidate_prior(prior, shape, allowed)

        _explain(place, check)


def _table(values: Any, name: str, n_axes: int, even: bool) -> Table | None:
    """An argument with its axis of games: an array, or a list of arrays where `losses` is one."""
    if values is None:
        return None
    if isinstance(values, (list, tuple)) and not even:
        listed = [_numbers(item, f"{name}[{place}]") for place, item in enumerate(values)]
        if any(np.ndim(item) for item in listed) or n_axes > 1:
            return listed
    array = _numbers(values, name)
    if array.ndim == n_axes:
        return array[None]
    if array.ndim != n_axes + 1:
        inner = "samples" if n_axes == 1 else "samples, candidates"
        raise MixsolveError(
            f"{name} must have the axes ({inner}), or (games, {inner}); got shape {array.shape}"
        )
    return array


def _alpha_table(alpha: Any, even: bool) -> Table:
    """Regularisation with its axis of games, of length 1 along samples where all have the same."""
    if alpha is None or isinstance(alpha, str):
        validation.check_alpha(alpha, 1)  # says what is wrong with it
    if np.ndim(alpha) == 0 and not hasattr(alpha, "__len__"):
        return _numbers(alpha, "alpha").reshape(1, 1)
    listed = isinstance(alpha, (list, tuple)) and any(np.ndim(item) for item in alpha)
    if listed and not even:
        table = _table(alpha, "alpha", 1, even)
        assert table is not None
        return table
    array = _numbers(alpha, "alpha")
    if array.ndim > 2:
        raise MixsolveError(
            "alpha must be a number, one per game, or of shape (games, samples); got shape "
            f"{array.shape}"
        )
    return array.reshape(-1, 1) if array.ndim < 2 else array


def _numbers(values: Any, name: str) -> np.ndarray:
    if name.startswith("candidate_mask"):
        return interop.to_numpy(values, name)
    return numbers(values, name, booleans=name.startswith("sample_weight"))


def _check_sizes(name: str, table: Table, shapes: np.ndarray) -> None:
    """Each game's entry must be as large as the game."""
    for place in range(len(shapes)):
        came, wanted = np.shape(table[place % len(table)]), tuple(map(int, shapes[place]))
        if came != wanted:
            raise MixsolveError(
                f"{name} must hold an array of shape {wanted} for game {place}, got shape {came}"
            )
        if isinstance(table, np.ndarray) and not shapes.strides[0]:
            return  # all games are alike


def _as_kernels_read(array: np.ndarray, dtype: Any) -> np.ndarray:
    # Writable, although no kernel writes: Numba would compile all kernels again for other arrays.
    return np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])


def _stacks(table: Table) -> Sequence[np.ndarray]:
    return [item[None] for item in table] if isinstance(table, list) else [table]


def _like(table: Table, checked: list[np.ndarray]) -> Table:
    return [item[0] for item in checked] if isinstance(table, list) else checked[0]


def _explain(place: int, check: Callable[[], object]) -> None:
    """Raise what the check of one game says, with the game's number."""
    try:
        check()
    except MixsolveError as error:
        raise type(error)(f"game {place}: {error}") from None
    raise AssertionError("a check of all games refused what the check of one game takes")
