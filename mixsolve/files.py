"""Files that are there whole or not at all: written aside, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mixsolve.errors import MixsolveError


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes that name if nothing went wrong.

    Parameters
    ----------
    path : path
        What the file is to be called; one of that name is replaced.

    Yields
    ------
    path
        In the same directory, with the same ending.
    """
    # Not by the process's number alone: machines may share the directory.
    aside = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it.

    Raises
    ------
    MixsolveError
        It cannot be written there.
    """
    try:
        with written_aside(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MixsolveError(f"{path} could not be written: {error}") from error


def check_folder(out: Path, files: Sequence[str], replace: bool, option: str) -> None:
    """Refuse, before the work, a directory that could not be written to after it.

    Parameters
    ----------
    out : path
        Where the files are to go; it may be missing.
    files : sequence of str
        Their names.
    replace : bool
        Whether files there may be overwritten.
    option : str
        What allows that on the command line, for the message.

    Raises
    ------
    MixsolveError
        If `out` is a file, or holds one of `files` without `replace`.
    """
    if out.exists() and not out.is_dir():
        raise MixsolveError(f"--out {out} is a file: give the name of a directory")
    present = [name for name in files if (out / name).exists()]
    if present and not replace:
        raise MixsolveError(
            f"--out {out} already holds {', '.join(present)}: give {option} to overwrite"
        )
