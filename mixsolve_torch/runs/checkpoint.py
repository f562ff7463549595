"""Checkpoints that survive a crash: while one is written, the one before it stays whole.

A checkpoint is written under another name in the same folder, brought to the disk, and renamed,

    last.pt.part  ->  last.pt,     and the one it replaces is  last.pt.previous,

in one step: a process killed at any moment leaves either the old file or the new one. A checkpoint
holds tensors and plain values only, so that reading one runs no code, and its parts have checksums,
which are compared when it is read.

References
----------
PyTorch. Serialization semantics, ``torch.load`` with ``weights_only=True``.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.files import check_regular
from mixsolve_torch.models.archives import load_tensors
from mixsolve_torch.runs.durable import replaced

logger = logging.getLogger(__name__)

_PLAIN = (int, float, bool, str, bytes, type(None))
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OVERHEAD = 1 << 16  # bytes of a checkpoint besides its tensors, roughly


def save(state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint; the one it replaces is kept beside it.

    Parameters
    ----------
    state : dict
        Tensors, numbers, strings and None, in dictionaries, lists and tuples.
    path : str or path
        Where to. What is there is renamed to ``path.previous``, where the file system knows links.

    Raises
    ------
    MixsolveTypeError
        Something in `state` that could not be read back.
    MixsolveError
        The file cannot be written: a full disk, a folder that is missing. What was there before
        is still there.
    """
    path = Path(path)
    check_regular(path, f"the checkpoint {path}")
    needed = _OVERHEAD + _bytes_of(state)
    try:
        with replaced(path, ".part", before=lambda: _keep(path)) as file:
            torch.save(state, file)
        _settle(path.parent)
    except (OSError, RuntimeError) as error:
        raise MixsolveError(_what_is_wrong(path, needed, error)) from error


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint that `save` wrote, its tensors on the CPU.

    Raises
    ------
    MixsolveError
        A file that is missing, cut short, damaged, or no checkpoint. The message names the
        checkpoint before it, if there is one.
    """
    path = Path(path)
    if not path.is_file():
        raise MixsolveError(f"the checkpoint {path} does not exist{_way_out(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # PyTorch does not compare checksums
        if damaged is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        state = load_tensors(path)
    except Exception as error:
        # PyTorch words a refusal and a broken file much alike, and raises errors of many kinds.
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MixsolveError(
            f"the checkpoint {path} is damaged, or not one: {why}{_way_out(path)}"
        ) from error
    if not isinstance(state, dict):
        raise MixsolveError(
            f"the checkpoint {path} must hold a dictionary; got a {type(state).__name__}"
        )
    return state


def recover(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read a checkpoint; one that is missing or damaged is replaced by the one before it.

    The log says so. None if there never was one.

    Raises
    ------
    MixsolveError
        A damaged one, and none from before that is whole.
    """
    path = Path(path)
    if not (path.exists() or previous(path).exists()):
        return None
    try:
        return load(path)
    except MixsolveError as error:
        if not previous(path).exists():
            raise
        before = load(previous(path))  # raises if this one is damaged too
        go_back(path)
        logger.warning("%s; resuming from the checkpoint before it", str(error).partition(";")[0])
        return before


def check_complete(
    state: dict[str, Any], path: Path, entries: Sequence[str], writer: str, fault: str = ""
) -> None:
    """Refuse a checkpoint that `writer` of this version cannot have written.

    It lacks some of the entries, or has another fault.
    """
    lacking = [name for name in entries if name not in state]
    if lacking:
        fault = f"it lacks {', '.join(lacking)}"
    if fault:
        version = state.get("mixsolve")
        raise MixsolveError(
            f"the checkpoint {path} was written by another version of mixsolve"
            f"{f' ({version})' if version else ''}, or not by {writer}: {fault}; resume with the "
            "version that began it, or choose another folder"
        )


def go_back(path: str | os.PathLike[str]) -> None:
    """Replace a missing or damaged checkpoint by the one before; a damaged one is set aside.

    Otherwise the next `save` would keep the damaged one, and drop the one that is whole.
    """
    path = Path(path)
    if path.exists():
        os.replace(path, path.with_name(path.name + ".damaged"))
    os.replace(previous(path), path)


def previous(path: str | os.PathLike[str]) -> Path:
    """Return where the checkpoint is kept that was at `path` before."""
    path = Path(path)
    return path.with_name(path.name + ".previous")


def _keep(path: Path) -> None:
    """Give the present file a second name: at no moment is the first one without a file."""
    aside = path.with_name(path.name + ".link")
    try:
        aside.unlink(missing_ok=True)  # of a process that was killed
        os.link(path, aside)
        os.replace(aside, previous(path))
    except FileNotFoundError:
        pass  # the first checkpoint
    except OSError as error:
        logger.debug("the checkpoint before %s is not kept: %s", path, error)
    finally:
        # Renaming one link of a file to another one does nothing, and leaves both.
        aside.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Bring the renaming to the disk, where folders can be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _what_is_wrong(path: Path, needed: int, error: Exception) -> str:
    if not path.parent.is_dir():
        return f"the checkpoint {path} could not be written: the folder {path.parent} is missing"
    free = shutil.disk_usage(path.parent).free
    full = free < needed or any(
        isinstance(cause, OSError) and cause.errno in _FULL for cause in _causes(error)
    )
    why = "the disk is full" if full else (str(error).partition("\n")[0] or type(error).__name__)
    if path.is_file():
        left = f"the checkpoint written before is intact in {path}"
    else:
        left = "there is none from before"
    mend = "; make room and resume from there" if full else ""
    return (
        f"the checkpoint {path} could not be written: {why}; it needs about {needed:,} bytes, "
        f"{free:,} are free; {left}{mend}"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: PyTorch's archive writer hides that a write failed."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _way_out(path: Path) -> str:
    before = previous(path)
    if not before.is_file():
        return "; there is none from before"
    return f"; to resume from the one before, rename {before} to {path.name}"


def _bytes_of(state: object) -> int:
    """Return the bytes of all tensors; refuse what `load` would refuse."""
    seen: dict[int, int] = {}
    todo: list[tuple[str, object]] = [("state", state)]
    while todo:
        where, value = todo.pop()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()  # shared ones are written once, views whole
            seen[storage.data_ptr()] = storage.nbytes()
        elif type(value) in (dict, OrderedDict):
            for key, part in value.items():  # type: ignore[attr-defined]
                todo += [(f"{where}[{key!r}]", part), (f"a key of {where}", key)]
        elif type(value) in (list, tuple):
            parts = enumerate(value)  # type: ignore[var-annotated,arg-type]
            todo += [(f"{where}[{place}]", part) for place, part in parts]
        elif type(value) not in _PLAIN:
            raise MixsolveTypeError(
                f"{where} must be a tensor, a plain value, a dict, a list or a tuple to be read "
                f"back from a checkpoint; got {type(value).__module__}.{type(value).__name__}; "
                "convert numbers with .item(), arrays with torch.as_tensor"
            )
    return sum(seen.values())
