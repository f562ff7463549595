"""One process at a time: a lock of the operating system on what a long run writes.

The lock is on a small file beside the results, which says which process holds it. The system
releases it when the process ends, however that happens: a lock file that a kill left behind is
taken over. A holder removes its file before it releases the lock; a process that has opened the
removed file opens the new one.

References
----------
flock(2): locks belong to open files, so two runs in one process exclude each other too.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

from mixsolve.base.errors import MixsolveError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
_FAR = 1 << 20  # the byte that Windows locks: past the text, which other processes can read


class Lock:
    """The right to write somewhere, until it is released or the process ends.

    Parameters
    ----------
    path : str or path
        The lock file, in a folder that exists. It is there while the lock is held.
    what : str
        What is locked, for messages: "run.out 'runs/digits'".
    mend : str, default "wait for it to end, or choose another name"
        What to do while another run holds it, for the message.

    Examples
    --------
    >>> with Lock("runs/digits/.lock", "run.out 'runs/digits'"):  # doctest: +SKIP
    ...     ...
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        what: str,
        mend: str = "wait for it to end, or choose another name",
    ) -> None:
        self._path = Path(path)
        self._what = what
        self._mend = mend
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        MixsolveError
            Another run holds it, which the message names, or the file cannot be made.
        """
        while True:
            try:
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise MixsolveError(
                    f"{self._what} could not be locked: {error}; choose a place that can be "
                    "written to"
                ) from error
            try:
                self._take(handle)
            except BaseException:
                os.close(handle)
                raise
            if self._is_there(handle):
                break
            os.close(handle)  # its holder removed it in the meantime
        self._handle = handle
        _held.add(self)
        words = f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}"
        with suppress(OSError):  # on a full disk no holder is named, but the lock holds
            os.ftruncate(handle, 0)
            os.write(handle, words.encode())

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._handle is None:
            return
        if sys.platform != "win32":  # where a file that is open cannot be removed
            with suppress(OSError):
                if self._is_there(self._handle):
                    self._path.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the file without removing it: in a child, whose parent keeps the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            _held.discard(self)

    def __enter__(self) -> Lock:
        """Take the lock."""
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self.release()

    def _take(self, handle: int) -> None:
        try:
            if sys.platform == "win32":
                os.lseek(handle, _FAR, os.SEEK_SET)
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                os.lseek(handle, 0, os.SEEK_SET)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise MixsolveError(
                    f"{self._what} is in use by {self._holder(handle)}; {self._mend}"
                ) from error
            # Some network file systems have no locks; a run without one is better than none.
            logger.warning(
                "%s is not protected from other processes: %s", self._what, error.strerror
            )

    def _is_there(self, handle: int) -> bool:
        """Whether the lock file is still the one that was opened."""
        if sys.platform == "win32":
            return True
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self._path))
        except FileNotFoundError:
            return False

    @staticmethod
    def _holder(handle: int) -> str:
        try:
            os.lseek(handle, 0, os.SEEK_SET)
            return os.read(handle, 300).decode(errors="replace") or "another process"
        except OSError:
            return "another process"


# A child that is forked has the parent's open files, and with them its locks.
_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
