"""What all work that can be interrupted shares: one writer, and errors that say what is kept.

A call that is repeated after an interruption, by Ctrl-C, an error or a kill, finds its finished
parts and makes the rest. Three things make that safe: results are on the disk before anything
relies on them (`mixsolve_torch.runs.durable`), only a call of the same settings finds them
(`mixsolve_torch.runs.manifest`), and a lock keeps other processes away.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.runs import durable
from mixsolve_torch.runs.lock import Lock
from mixsolve_torch.runs.manifest import UnfitError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Resumable:
    """Files that one process at a time writes, until they are closed.

    Parameters
    ----------
    name : str
        What messages call them: "out losses.npy".
    lock : path or None
        The lock file, in a folder that exists. None takes no lock: nothing will be written.
    mend : str
        What to do while another process has them.
    """

    def __init__(self, name: str, lock: Path | None, mend: str) -> None:
        self._name = name
        self._lock = None if lock is None else Lock(lock, name, mend)
        if self._lock is not None:
            self._lock.acquire()

    def kept(self) -> str:
        """Say what is kept, and how to resume."""
        raise NotImplementedError

    def writing(self) -> AbstractContextManager[None]:
        """Return a context that says what is kept where a file cannot be written."""
        return durable.writing(self._name, self.kept)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()


class ResumableFolder(Resumable):
    """A folder for the finished parts of long work, or no folder: all is in memory then.

    Parameters
    ----------
    argument : str
        The argument that names it.
    path : path or None
        The folder; made if it is missing. None for memory.
    name : str, optional
        What messages call it; by default the argument and the path.

    Raises
    ------
    MixsolveError
        A folder that cannot be used, or that another process is writing to.
    """

    def __init__(self, argument: str, path: Path | None, name: str | None = None) -> None:
        self.path = path
        self._argument = argument
        name = name or f"{argument} {path}"
        if path is not None:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = error.strerror or error
                raise MixsolveError(f"{name} cannot be used: {why}") from error
        lock = None if path is None else path / ".lock"
        super().__init__(name, lock, "wait for it to end, or choose another folder")

    def file(self, name: str) -> Path | None:
        """Return the path of a part; None in memory."""
        return None if self.path is None else self.path / name

    def kept(self) -> str:
        """Say what is kept, and how to resume."""
        if self.path is None:
            return f"nothing is kept: give {self._argument}= to go on after an interruption"
        return f"what was finished so far is kept in {self.path}: repeat the call to go on"


def part_or_anew(make: Callable[[bool], T], path: Path | None, generator: torch.Generator) -> T:
    """Make a part of longer work, or read it; anew if what is on the disk does not fit.

    `make` is called with False, and with True to overwrite the file `path`; a folder is deleted
    before. The draws from the generator are the same in both calls.
    """
    before = generator.get_state()
    try:
        return make(False)
    except UnfitError as error:
        if path is None:
            raise
        logger.warning("%s is made anew, since what was kept does not fit: %s", path, error)
        if path.is_dir():
            shutil.rmtree(path)
        generator.set_state(before)
        return make(True)


def as_folder(argument: str, value: object) -> Path:
    """Return the path of a folder, refusing a file and what is no path."""
    if not isinstance(value, str | os.PathLike):
        raise MixsolveTypeError(
            f"{argument} must be the path of a folder; got {type(value).__name__}"
        )
    path = Path(value)
    if path.exists() and not path.is_dir():
        raise MixsolveError(f"{argument} {path} is a file: give the name of a folder")
    return path
