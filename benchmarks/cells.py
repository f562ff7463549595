"""Finished cells of a table, kept in files of their own so that an interrupted run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mixsolve.base.files import written_aside

T = TypeVar("T")


def kept(path: Path, kind: type[T]) -> T | None:
    """Return a cell, a dataclass of arrays and numbers, that was finished earlier, or None."""
    if not path.exists():
        return None
    with np.load(path) as found:
        entries = {name: found[name] for name in found.files}
    return kind(**{name: own if own.ndim else own.item() for name, own in entries.items()})


def keep(path: Path, cell: Any) -> None:
    """Write a finished cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **vars(cell))
