"""Ctrl-C: what is kept of long work, and waiting for what is under way.

A step may have to be saved whole first, or an exchange between ranks to end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def explained(words: Callable[[], str]) -> Iterator[None]:
    """Note on a Ctrl-C what is kept and how to go on.

    Parameters
    ----------
    words : callable
        Says so. Of nested work the outermost is heard: it is what the caller can repeat.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.__notes__ = [words()]
        raise


class Interrupt:
    """Turns the first Ctrl-C into a wish, heard when the work is done; the second one interrupts.

    Only the main thread can listen; elsewhere nothing changes. Ranks in training that stop at
    different steps cannot save together: several of them do not listen, end where they are, and go
    on from the last checkpoint.

    Parameters
    ----------
    enabled : bool
        Whether to listen.

    Attributes
    ----------
    asked : bool
        Whether somebody pressed Ctrl-C.
    """

    def __init__(self, enabled: bool) -> None:
        self.asked = False
        self._enabled = enabled and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interrupt:
        """Listen."""
        if self._enabled:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Do as before."""
        if self._enabled:
            signal.signal(signal.SIGINT, self._before)

    def let_through(self) -> None:
        """Do now what the Ctrl-C that was held back would have done; listen for the next one."""
        if self.asked:
            self.asked = False
            signal.raise_signal(signal.SIGINT)
            signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)
