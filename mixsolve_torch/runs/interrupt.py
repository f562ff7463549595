"""Ctrl-C and SIGTERM in long work: what is kept is told, and an interrupt may wait for a step.

A step may have to be saved first, or an exchange between ranks to end.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

logger = logging.getLogger(__name__)


@contextmanager
def explained(words: Callable[[], str]) -> Iterator[None]:
    """Add to a Ctrl-C a note of what is kept and how to resume.

    A SIGTERM, which schedulers send, ends the work as a Ctrl-C does, so that files are closed and
    locks released; the note is in the log, and the exit code 143. A program that handles the signal
    itself goes on to do so.

    Parameters
    ----------
    words : callable
        Returns the note. Of nested work the outermost note counts: it is for the call that the user
        can repeat.
    """
    handles = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if handles:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.__notes__ = [words()]
        raise
    except _TerminatedError:
        if handles:
            logger.warning("ended by SIGTERM; %s", words())
        raise
    finally:
        if handles:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _TerminatedError(SystemExit):
    """SIGTERM was received."""


def _terminate(number: int, frame: object) -> None:
    raise _TerminatedError(128 + number)


class Interrupt:
    """Holds back the first Ctrl-C until the work allows it; the second one interrupts at once.

    Other signals that end a process, such as the SIGTERM of a scheduler, can be held back too.

    Only the main thread can handle signals; elsewhere nothing changes.

    Parameters
    ----------
    enabled : bool
        Whether to hold signals back.
    *others : signal.Signals
        Which, besides Ctrl-C.
    repeated : bool, default False
        Hold back all of them, not the first alone: ranks under a launcher get a Ctrl-C from the
        terminal and once more from the launcher, which ends what does not answer.

    Attributes
    ----------
    pending : bool
        Whether a signal is held back.
    """

    def __init__(self, enabled: bool, *others: signal.Signals, repeated: bool = False) -> None:
        self.pending = False
        self._repeated = repeated
        self._signals = (signal.SIGINT, *others)
        self._received = signal.SIGINT
        self._enabled = enabled and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interrupt:
        """Install the handlers."""
        if self._enabled:
            self._before = {each: signal.signal(each, self._hold) for each in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers from before."""
        if self._enabled:
            for each, before in self._before.items():
                signal.signal(each, before)

    @property
    def number(self) -> int:
        """The number of the signal that is held back, 0 if there is none."""
        return int(self._received) if self.pending else 0

    def deliver(self) -> None:
        """Raise the signal that was held back, if there is one; hold back the next one."""
        if self.pending:
            self.pending = False
            signal.raise_signal(self._received)
            signal.signal(self._received, self._hold)

    def end(self, number: int | None = None) -> NoReturn:
        """End as the signal demands, now that the work is saved.

        Parameters
        ----------
        number : int, optional
            The signal, if another process received it.

        Raises
        ------
        KeyboardInterrupt
            The signal was Ctrl-C.
        SystemExit
            It was another one; the exit code is 128 plus the signal's number, as in shells.
        """
        received = self._received if number is None else signal.Signals(number)
        if received == signal.SIGINT:
            raise KeyboardInterrupt
        before = self._before.get(received) if self._enabled else None
        if callable(before):  # the program's own handler
            signal.signal(received, before)
            signal.raise_signal(received)
        raise SystemExit(128 + received)

    def _hold(self, number: int, frame: object) -> None:
        self.pending, self._received = True, signal.Signals(number)
        if not self._repeated:
            signal.signal(number, self._before[self._received])
