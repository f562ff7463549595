"""Compiled kernels: how they are made, cached on disk, and timed apart from the solve.

The first call of a kernel compiles it, which takes seconds; importing Numba, SciPy or cvxpy takes a
part of one. None of it is solving: the intervals are recorded, so that a clock can exclude them. In
such an interval signals wait, Ctrl-C too: a package whose import is interrupted, or Numba while it
sets up its compiler, stays unusable for the rest of the process.
"""

import importlib
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

from mixsolve.base.kernel_cache import KernelCache
from mixsolve.base.notice import watch


class Intervals:
    """Stretches of time, by ``time.perf_counter``, that any threads of this process have spent."""

    def __init__(self) -> None:
        self._past: list[tuple[float, float]] = []  # in the order of their ends

    def add(self, began: float) -> None:
        """Record an interval that ends now."""
        self._past.append((began, time.perf_counter()))

    def add_elsewhere(self, seconds: float) -> None:
        """Record the seconds of another process, which this one has just waited for."""
        if seconds > 0.0:
            self.add(time.perf_counter() - seconds)

    def seconds(self, began: float, ended: float) -> float:
        """Seconds between two moments that the intervals cover; overlaps count once."""
        total = 0.0
        for start, stop in reversed(self._past):
            if stop <= began:
                break
            start = max(start, began)
            if start < ended:
                total += max(min(stop, ended) - start, 0.0)
                ended = start
        return total


compiling = Intervals()  # kernels that no cache held
preparing = Intervals()  # these, kernels read from the cache, and imports


def seconds_of_work(began: float, ended: float | None = None) -> float:
    """Seconds between two moments, the second now by default, less those spent on preparing."""
    if ended is None:
        ended = time.perf_counter()
    return ended - began - preparing.seconds(began, ended)


def preparations(*spans: tuple[float, float]) -> dict[str, float]:
    """Seconds of compilation and of loading in some intervals, for a solution's `timings`."""
    compiled = sum(compiling.seconds(*span) for span in spans)
    prepared = sum(preparing.seconds(*span) for span in spans)
    return {"compile": compiled, "load": max(prepared - compiled, 0.0)}


@contextmanager
def preparation() -> Iterator[None]:
    """A ``with`` block whose time does not count as work, and in which signals wait."""
    began = time.perf_counter()
    try:
        with _signals_held():
            yield
    finally:
        preparing.add(began)


def load(name: str) -> ModuleType:
    """Import a module that takes long; the time does not count as work."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        return module
    with preparation():
        return importlib.import_module(name)


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles a function when it is called: ``numba.njit`` without the GIL.

    What was compiled is kept on disk (`mixsolve.base.kernel_cache`). Options are those of numba.
    One form serves arrays that may be written to and others, which a kernel only reads, and numbers
    whether or not they are known when a caller of it is compiled: Numba would compile each apart.
    """
    numba = load("numba")
    types = load("numba.core.types")
    _hold_during_forks(load("numba.core.compiler_lock").global_compiler_lock)

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, **options)(function)
        dispatcher._cache = cache = KernelCache(function)
        compile_or_load = dispatcher.compile

        def compile_and_count(signature: Any) -> Any:
            began, missed = time.perf_counter(), cache.n_missed
            try:
                with preparation(), watch.compiling():
                    general = _generalised(signature, types)
                    found = compile_or_load(general)
                    if general is not signature:  # later calls find it without coming here
                        dispatcher._insert([given._code for given in signature], found, False)
                    return found
            finally:
                if cache.n_missed > missed:
                    compiling.add(began)

        dispatcher.compile = compile_and_count
        return dispatcher

    return decorate


def _generalised(signature: Any, types: ModuleType) -> Any:
    """The argument types that one compiled form is made for; the same object if they are those."""
    if not isinstance(signature, tuple):
        return signature
    general = []
    for given in signature:
        found = types.unliteral(given)
        if isinstance(found, types.Array) and not found.mutable:
            found = found.copy(readonly=False)
        general.append(found)
    return signature if all(map(operator.is_, general, signature)) else tuple(general)


_holding = False  # read by the main thread alone


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let signals that Python handles wait until the end of the block.

    Handlers run in the main thread alone: elsewhere there is nothing to do.
    """
    global _holding
    if _holding or threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: dict[int, None] = {}
    handlers: dict[Any, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        arrived[number] = None

    _holding = True
    try:
        for held in signal.valid_signals():
            handler = signal.getsignal(held)
            if callable(handler):
                handlers[held] = handler
                signal.signal(held, note)
        yield
    finally:
        _holding = False
        for held, handler in handlers.items():
            signal.signal(held, handler)
        for number in arrived:
            signal.raise_signal(number)


_across_forks: set[int] = set()


def _hold_during_forks(lock: Any) -> None:
    """Prevent forks while another thread compiles: the child would never release the lock."""
    if id(lock) in _across_forks or not hasattr(os, "register_at_fork"):
        return
    _across_forks.add(id(lock))
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )
