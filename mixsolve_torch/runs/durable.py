"""Files that survive a crash: on the disk before they are relied on, and replaced in one step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mixsolve.base.errors import MixsolveError


def flush(file: IO[Any]) -> None:
    """Bring what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def writing(name: str, kept: Callable[[], str]) -> Iterator[None]:
    """Say what could not be written, on a full disk for example, and what is kept."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise MixsolveError(f"{name} could not be written: {why}; {kept()}") from error


@contextmanager
def replaced(
    path: Path, ending: str = ".new", before: Callable[[], None] | None = None
) -> Iterator[IO[bytes]]:
    """Open a file beside `path`, which takes that name once it is complete and on the disk.

    A process killed at any moment leaves the old file or the new one, whole.

    Parameters
    ----------
    path : path
        What the file is to be called; one of that name is replaced.
    ending : str, default ".new"
        Of the file beside it. Its name is fixed: a kill leaves one at most, which the next call
        writes over.
    before : callable, optional
        Called when the new file is on the disk and the old one is still in its place.
    """
    aside = path.with_name(path.name + ending)
    try:
        with aside.open("wb") as file:
            yield file
            flush(file)
        if before is not None:
            before()
        os.replace(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
