"""Notes beside a file of losses: what it is made of, and how far it has come.

They are JSON, written aside and renamed, so that a reader finds the old ones or the new ones whole.
The settings among them name the candidates and say with which attacks they were found.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

_FORMAT = "mixsolve losses 1"
_SHOWN = 40  # characters of a setting that a message shows


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
    """

    settings: dict[str, Any]
    dtype: str = ""
    batches: int = 0
    samples: int = 0
    data: str = ""
    together: int | None = None
    finished: bool = False


def read(path: Path) -> Notes | None:
    """Return notes, or None if there are none that this package wrote."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Notes(**fields) if fields.pop("format") == _FORMAT else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(notes: Notes, path: Path) -> None:
    """Write notes aside and rename them, so that the file has the old ones or these."""
    aside = path.with_name(path.name + ".new")
    with aside.open("w", encoding="utf-8") as file:
        json.dump({"format": _FORMAT, **asdict(notes)}, file, indent=1)
        flush(file)
    os.replace(aside, path)


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
