"""Run the chunks of one pass on all cores; kernels release the GIL, so threads are enough.

The number of chunks depends on the data alone, and each chunk writes its own partial sums, so a
result does not depend on the number of threads.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from threading import Event
from typing import Any, Generic, TypeVar

import numpy as np

from mixsolve.base.tuning import tuning

logger = logging.getLogger("mixsolve")

_T = TypeVar("_T")

ENVIRONMENT_VARIABLE = "MIXSOLVE_NUM_THREADS"


_NEVER = Event()  # for work on one thread, which is never halted


@cache
def n_threads() -> int:
    """Cores this process may use, or what ``MIXSOLVE_NUM_THREADS`` says."""
    given = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        return os.cpu_count() or 1


@cache
def _pool(process_id: int) -> ThreadPoolExecutor:
    # One pool a process: the threads of a parent do not survive a fork.
    return ThreadPoolExecutor(n_threads() - 1, thread_name_prefix="mixsolve")


def can_be_started() -> bool:
    """Whether this process can start another thread."""
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int)
    except RuntimeError:
        return False
    return True


def chunk_bounds(n_samples: int, n_entries: int) -> np.ndarray:
    """Bounds of equal chunks of samples, at least about 65,000 tensor entries in each.

    `n_entries`, those of all samples, decide how many chunks pay; int64 of shape (n_chunks + 1,).
    """
    n_chunks = max(1, min(tuning.max_chunks, n_entries // tuning.chunk_entries, n_samples))
    if n_chunks == 1:  # frequent in small games, so without overhead
        return np.array([0, n_samples], dtype=np.int64)
    return np.linspace(0, n_samples, n_chunks + 1).astype(np.int64)


def run_chunks(function: Callable[[int], object], n_chunks: int) -> None:
    """Call ``function(c)`` for every c in ``range(n_chunks)``, on all cores; raise what it raises.

    It must release the GIL for the threads to help, and write only what belongs to chunk c.
    """
    if n_chunks == 1:  # frequent in small games, so without overhead
        function(0)
        return

    def share(chunks: range, halted: Event) -> None:
        for chunk in chunks:
            if halted.is_set():
                return
            function(chunk)

    run_shares(share, n_chunks)


def run_kernel(
    kernel: Callable[..., object],
    bounds: np.ndarray,
    shared: tuple[Any, ...],
    partial: tuple[np.ndarray, ...],
) -> None:
    """Call ``kernel(*shared, lo, hi, *(sums[c] for sums in partial))`` on every chunk of samples.

    Parameters
    ----------
    kernel : callable
        Releases the GIL.
    bounds : ndarray of int64, shape (n_chunks + 1,)
        As `chunk_bounds` returns them; `lo` and `hi` are two neighbours of them.
    shared : tuple
        Arguments that all calls have in common; of arrays, each call writes its samples alone.
    partial : tuple of ndarray, shape (n_chunks, ...)
        Where each chunk writes its partial sums.
    """

    def one(c: int) -> None:
        kernel(*shared, bounds[c], bounds[c + 1], *[sums[c] for sums in partial])

    run_chunks(one, len(bounds) - 1)


def run_shares(function: Callable[[range, Event], object], n_chunks: int) -> None:
    """Call ``function(chunks, halted)`` once a core, with all chunks divided between the cores.

    Parameters
    ----------
    function : callable
        Goes through its chunks, and should return soon after the event `halted` is set, which is
        when a share has raised or the user has interrupted the process.

    Raises
    ------
    BaseException
        What a share raises, once all have ended: none continues in the background.
    """
    workers = min(n_threads(), n_chunks)
    if workers <= 1:
        function(range(n_chunks), _NEVER)
        return
    halted = Event()
    waiting = deque(range(workers))  # shares that no thread has begun

    def work() -> None:
        while not halted.is_set():
            try:
                first = waiting.popleft()
            except IndexError:
                return
            try:
                function(range(first, n_chunks, workers), halted)
            except BaseException:
                halted.set()
                raise

    others = _started(work, workers - 1)
    try:
        work()  # everything, where the pool is busy or there is none
        for other in others:
            if not other.cancel():
                other.result()
    finally:
        halted.set()  # an interrupt may have come while this thread waited
        wait([other for other in others if not other.cancel()])


def _started(work: Callable[[], object], n_times: int) -> list[Future[object]]:
    """Submit work to the pool a number of times, or as often as it accepts some."""
    taken: list[Future[object]] = []
    try:
        for _ in range(n_times):
            taken.append(_pool(os.getpid()).submit(work))
    except RuntimeError:  # the interpreter is ending, or the system has no more threads
        logger.debug("no more threads can be started: the others do the work")
    return taken


class _Once(Generic[_T]):
    """A descriptor that stores its value in the object's own dictionary."""

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> _T:
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value


def computed_once(compute: Callable[[Any], _T]) -> _Once[_T]:
    """A property that is computed when it is first read: ``cached_property`` without its lock.

    Before Python 3.12 all objects of a class share that lock: threads wait for each other while one
    computes, and a process that is forked meanwhile waits forever.
    """
    return _Once(compute)
