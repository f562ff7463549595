"""Which form of the loops a solve runs: compiled, or in NumPy while that saves waiting.

Importing Numba and reading compiled kernels takes most of a second, compiling them several; a
small game takes NumPy some hundredths. So small games in memory are solved in NumPy until a process
has solved so many of one kind that it seems to need the kernels (`tuning`). What counts are the
calls, not a clock, so that a process that asks the same questions again gets the same answers, bit
for bit. Work that may be resumed by another process, whose calls are others, takes compiled kernels
alone (`compiled_alone`). The form is chosen once a solve: all of its certificate is in one.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from threading import Lock
from types import ModuleType

import numpy as np

from mixsolve.base.tuning import tuning

_in_numpy: ContextVar[bool] = ContextVar("in_numpy", default=False)
_compiled_alone: ContextVar[bool] = ContextVar("compiled_alone", default=False)


def loops(name: str) -> ModuleType:
    """A module of kernels, by its name, in the form of the solve that is running."""
    return _module(f"mixsolve.{'uncompiled' if _in_numpy.get() else 'kernels'}.{name}")


_module = cache(import_module)  # called at each pass: the import system's own look-up takes longer


def runs_in_numpy() -> bool:
    """Whether the solve that is running needs no compiled kernel."""
    return _in_numpy.get()


class _Spent:
    """Losses of the games that this process has solved in NumPy, by the kind of game."""

    def __init__(self) -> None:
        self._entries: dict[str, float] = {}
        self._lock = Lock()

    def allows(self, kind: str, n_entries: int) -> bool:
        """Whether another game is to be solved in NumPy; if not, none of its kind will be again."""
        if _compiled_alone.get():
            return False
        with self._lock:
            if n_entries > tuning.uncompiled_entries:
                self._entries[kind] = float("inf")
                return False
            known = self._entries.get(kind, 0.0)
            self._entries[kind] = known + max(n_entries, tuning.uncompiled_least)
            return known < tuning.uncompiled_entries_in_all

    def has_room(self, kind: str, n_entries: np.ndarray) -> bool:
        """Whether games of so many losses each, in turn, would all be solved in NumPy."""
        if _compiled_alone.get():
            return False
        sizes = np.maximum(n_entries, tuning.uncompiled_least)
        with self._lock:
            known = self._entries.get(kind, 0.0) + float(sizes.sum() - sizes[-1])
        return int(n_entries.max()) <= tuning.uncompiled_entries and (
            known < tuning.uncompiled_entries_in_all
        )


spent = _Spent()


@contextmanager
def form_of(kind: str, n_entries: int, possible: bool) -> Iterator[None]:
    """A solve of one game, whose losses are `n_entries` numbers.

    Parameters
    ----------
    kind : str
        What it needs: games of other kinds do not share its kernels.
    n_entries : int
        Losses of the game.
    possible : bool
        Whether everything that it may call exists in NumPy.
    """
    in_numpy = possible and spent.allows(kind, n_entries)
    token = _in_numpy.set(in_numpy)
    try:
        # Compiled code does not warn of what is not finite either.
        with np.errstate(all="ignore") if in_numpy else nullcontext():
            yield
    finally:
        _in_numpy.reset(token)


@contextmanager
def compiled_alone() -> Iterator[None]:
    """Solves within run compiled kernels, whatever this process has solved before.

    For work that another process may resume and end with the same bits; also as a decorator.
    """
    token = _compiled_alone.set(True)
    try:
        yield
    finally:
        _compiled_alone.reset(token)
