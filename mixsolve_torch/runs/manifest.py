"""The manifest of work that can be interrupted: its settings, and how far it has come.

A manifest is a JSON file beside the results. Work is resumed only if the settings in it are those
of the call: everything that the results depend on, described by `mixsolve_torch.runs.fingerprint`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.runs.durable import replaced

_SHOWN = 40  # characters of a setting that a message shows
_MISSING = object()


class UnfitError(MixsolveError):
    """What is on the disk belongs to another call, or is damaged."""


class Manifest(Protocol):
    """A dataclass of values that JSON can hold, with the name of its format."""

    FORMAT: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


_M = TypeVar("_M", bound=Manifest)


def read(path: Path, kind: type[_M]) -> _M | None:
    """Return a manifest of a kind, or None if there is none that this package wrote."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return kind(**fields) if fields.pop("format") == kind.FORMAT else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest; a reader finds the old one or the new one whole."""
    with replaced(path) as file:
        file.write(json.dumps({"format": manifest.FORMAT, **asdict(manifest)}, indent=1).encode())


def check_settings(work: str, before: Mapping[str, Any], now: Mapping[str, Any], mend: str) -> None:
    """Refuse to resume work, named as the user does, that was begun with other settings.

    The `UnfitError` says which settings differ, and `mend`, what to do instead.
    """
    differing = other_settings(before, now)
    if differing:
        raise UnfitError(f"{work} {differing}; {mend}")


def other_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return "was begun with other settings" and which, how where that is short; or nothing."""
    parts = []
    for key in sorted({*before, *now}):
        was, new = (settings.get(key, _MISSING) for settings in (before, now))
        if was != new:
            was, new = _shown(was), _shown(new)
            short = max(len(was), len(new)) <= _SHOWN
            parts.append(f"{key} was {was} and is {new}" if short else f"{key} differs")
    return f"was begun with other settings: {', '.join(parts)}" if parts else ""


def _shown(value: Any) -> str:
    return "not set" if value is _MISSING else json.dumps(value)
