"""Files that are never half written: written aside, then renamed; and what may be unpacked.

Outputs are regular files, never a device, a pipe or an input, so that no data of the user is lost.
A symbolic link stays, and the file that it points to is written.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mixsolve.base.errors import MixsolveError

# What an archive may unpack to: zip stores a thousand zeros in a byte.
UNPACKED_BYTES = 1 << 30
UNPACKED_RATIO = 20


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it is renamed to `path` if nothing went wrong.

    It has the same ending. A file that exists is replaced.

    Raises
    ------
    MixsolveError
        If `path` exists and is not a regular file.
    """
    path = Path(os.path.realpath(path))
    check_regular(path, str(path))
    # The process's number is not enough: machines may share the directory.
    aside = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def check_unpacked(path: Path, n_bytes: int) -> None:
    """Refuse an archive that would unpack, to `n_bytes`, to far more than its own size.

    Raises
    ------
    MixsolveError
        More than `UNPACKED_BYTES`, and more than `UNPACKED_RATIO` times the size of the file.
    """
    packed = path.stat().st_size
    cap = max(UNPACKED_BYTES, UNPACKED_RATIO * packed)
    if n_bytes > cap:
        raise MixsolveError(
            f"{path} takes {packed:,} bytes and would unpack to {n_bytes:,}, above the cap of "
            f"{cap:,} ({UNPACKED_BYTES >> 30} GiB, or {UNPACKED_RATIO} times the file if that is "
            "more); to store that much, write it uncompressed (numpy.savez for arrays)"
        )


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


def check_regular(path: Path, called: str) -> None:
    """Refuse to write where a device, a pipe, a socket or a directory is.

    `called` is the user's name for it, for the message.

    Raises
    ------
    MixsolveError
        `path` exists and is not a regular file.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or writing will say what is
        return
    if stat.S_ISDIR(mode):
        raise MixsolveError(f"{called} is a directory: give the name of a file")
    if not stat.S_ISREG(mode):
        raise MixsolveError(
            f"{called} is a device, a pipe or a socket, which a file would replace: give the name "
            "of a file"
        )


def check_output(
    path: Path, called: str, *, replace: bool, mend: str, inputs: Iterable[Path | None] = ()
) -> None:
    """Refuse, before long work, an output file that could not or must not be written.

    Parameters
    ----------
    called : str
        The user's name for it: "--out solution.npz", say.
    replace : bool
        Whether a file there may be overwritten.
    mend : str
        How to allow that, for the message: "give --replace to overwrite it".
    inputs : iterable of path or None
        Files and directories that the work reads; those that are missing do not matter.

    Raises
    ------
    MixsolveError
        If it is not a regular file, its directory does not exist, it exists without `replace`, or
        it is one of the inputs, under any name, or inside one of them.
    """
    check_regular(path, called)
    if not path.parent.is_dir():
        raise MixsolveError(f"{called}: the directory {path.parent} does not exist")
    for source in inputs:
        if source is not None and _is_part_of(path, source):
            raise MixsolveError(
                f"{called} is {source}, which is read: it would be lost; give another name"
            )
    if os.path.lexists(path) and not replace:
        raise MixsolveError(f"{called} exists: {mend}")


def _is_part_of(path: Path, source: Path) -> bool:
    """Whether a path leads to a file that is read, or into a directory that is."""
    try:
        if path.exists() and path.samefile(source):  # hard links too
            return True
        return source.is_dir() and path.resolve().is_relative_to(source.resolve())
    except (OSError, ValueError):
        return False


def check_folder(
    out: Path, files: Sequence[str], replace: bool, option: str, inputs: Iterable[Path | None] = ()
) -> None:
    """Refuse, before long work, an output directory that could not be written to.

    Parameters
    ----------
    out : path
        The directory; it may be missing.
    files : sequence of str
        Their names.
    replace, inputs
        As in `check_output`.
    option : str
        The option that allows to replace, for the message.

    Raises
    ------
    MixsolveError
        If `out` is a file, holds one of `files` without `replace`, or one of these is an input or
        not a regular file.
    """
    if out.exists() and not out.is_dir():
        raise MixsolveError(f"--out {out} is a file: give the name of a directory")
    present = [name for name in files if os.path.lexists(out / name)]
    read = list(inputs)
    for name in present:
        check_output(out / name, f"--out {out / name}", replace=True, mend=option, inputs=read)
    if present and not replace:
        raise MixsolveError(
            f"--out {out} already holds {', '.join(present)}: give {option} to overwrite"
        )
