"""Ctrl-C: what is kept of long work, and waiting for what is under way.

A step may have to be saved whole first, or an exchange between ranks to end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn


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

    Other signals that end a process, such as the SIGTERM of a scheduler, can be heard like it.

    Only the main thread can listen; elsewhere nothing changes. Ranks in training that stop at
    different steps cannot save together: several of them do not listen, end where they are, and go
    on from the last checkpoint.

    Parameters
    ----------
    enabled : bool
        Whether to listen.
    *others : signal.Signals
        What to listen for besides Ctrl-C.

    Attributes
    ----------
    asked : bool
        Whether somebody pressed Ctrl-C, or sent another of the signals.
    """

    def __init__(self, enabled: bool, *others: signal.Signals) -> None:
        self.asked = False
        self._signals = (signal.SIGINT, *others)
        self._heard = signal.SIGINT
        self._enabled = enabled and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interrupt:
        """Listen."""
        if self._enabled:
            self._before = {each: signal.signal(each, self._ask) for each in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        """Do as before."""
        if self._enabled:
            for each, before in self._before.items():
                signal.signal(each, before)

    def let_through(self) -> None:
        """Do now what the Ctrl-C that was held back would have done; listen for the next one."""
        if self.asked:
            self.asked = False
            signal.raise_signal(self._heard)
            signal.signal(self._heard, self._ask)

    def obey(self) -> NoReturn:
        """End, as the signal asks, now that the work is saved.

        Raises
        ------
        KeyboardInterrupt
            It was Ctrl-C.
        SystemExit
            It was another one; its exit code is 128 and the signal's number, as shells have it.
        """
        if self._heard == signal.SIGINT:
            raise KeyboardInterrupt
        if callable(self._before[self._heard]):  # a program's own way to end
            signal.raise_signal(self._heard)
        raise SystemExit(128 + self._heard)

    def _ask(self, number: int, frame: object) -> None:
        self.asked, self._heard = True, signal.Signals(number)
        signal.signal(number, self._before[self._heard])
