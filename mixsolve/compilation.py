"""Seconds that Numba spends compiling kernels, told apart from the seconds of work."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class CompileTime:
    """Filled in when the timed block ends.

    Attributes
    ----------
    seconds : float
        Spent compiling; kernels read from the cache on disk count as 0.
    """

    seconds: float = 0.0


@contextmanager
def compile_timer() -> Iterator[CompileTime]:
    """Time the compilations inside a ``with`` block."""
    from numba.core import event

    spent = CompileTime()

    def add(seconds: float) -> None:
        spent.seconds += seconds

    with event.install_timer("numba:compile", add):
        yield spent
