"""Saying once, on stderr, that kernels are being compiled: the first solve waits for that."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE = 1.0  # seconds
TEXT = (
    "mixsolve: compiling kernels for this machine, which takes some seconds; they are kept on disk "
    "for later runs"
)


class _Watch:
    """Counts the seconds that compilation has taken, and tells of it after the first."""

    def __init__(self) -> None:
        self.told = False
        self.silent = False
        self._spent = 0.0

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """A block in which a kernel is compiled or read from the cache."""
        if self.told or self.silent or not _is_watched():
            yield
            return
        began = time.perf_counter()
        timer = threading.Timer(max(0.0, _PATIENCE - self._spent), self.tell)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._spent += time.perf_counter() - began

    def tell(self) -> None:
        """Print the notice, once in a process."""
        if not self.told:
            self.told = True
            print(TEXT, file=sys.stderr, flush=True)


def _is_watched() -> bool:
    """Whether somebody sees stderr: a terminal, or a notebook."""
    return "ipykernel" in sys.modules or bool(sys.stderr and sys.stderr.isatty())


watch = _Watch()


@contextmanager
def silent() -> Iterator[None]:
    """A block in which nothing is said."""
    before, watch.silent = watch.silent, True
    try:
        yield
    finally:
        watch.silent = before
