"""Notes beside long work: what it is made of, and how far it has come.

They are JSON, written aside and renamed, so that a reader finds the old ones or the new ones whole.
Those of a file of losses are `Notes`; its settings name the candidates and say with which attacks
they were found. Other work has notes of its own, read and written in the same way.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, TypeVar

from mixsolve.base.errors import MixsolveError

_SHOWN = 40  # characters of a setting that a message shows


class UnfitError(MixsolveError):
    """What was kept does not belong to this call, or is damaged."""


class Noted(Protocol):
    """A dataclass of values that JSON can hold, with the name of its format."""

    FORMAT: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


_N = TypeVar("_N", bound=Noted)


@dataclass
class Notes:
    """What is known of a file of losses, finished or not.

    Attributes
    ----------
    settings : dict
        What the rows depend on besides the data, in values that JSON can hold.
    dtype : str
        Of the losses, as a .npy file names it; empty before the first batch.
    batches, samples : int
        How many are in the file.
    data : str
        Digest of the batches so far, their images and labels.
    together : int or None
        Images that were attacked together at the end, if not all of a batch.
    finished : bool
        Whether these are all.
    inputs_dtype, inputs_shape
        Of the images in the file beside it, and of a row of them, where they are kept.
    """

    FORMAT: ClassVar[str] = "mixsolve losses 1"

    settings: dict[str, Any]
    dtype: str = ""
    batches: int = 0
    samples: int = 0
    data: str = ""
    together: int | None = None
    finished: bool = False
    inputs_dtype: str = ""
    inputs_shape: list[int] = field(default_factory=list)


def read(path: Path, kind: type[_N]) -> _N | None:
    """Return notes of a kind, or None if there are none that this package wrote."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return kind(**fields) if fields.pop("format") == kind.FORMAT else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(notes: Noted, path: Path) -> None:
    """Write notes aside and rename them, so that the file has the old ones or these."""
    aside = path.with_name(path.name + ".new")  # of one name: a kill leaves one at most
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump({"format": notes.FORMAT, **asdict(notes)}, file, indent=1)
            flush(file)
        os.replace(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def flush(file: IO[Any]) -> None:
    """Bring what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return which settings differ, and how where that is short."""
    parts = []
    for key in sorted({*before, *now}):
        was, new = json.dumps(before.get(key)), json.dumps(now.get(key))
        if was != new:
            short = max(len(was), len(new)) <= _SHOWN
            parts.append(f"{key} was {was} and is {new}" if short else f"{key} differs")
    return ", ".join(parts)
