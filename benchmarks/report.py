"""What every benchmark leaves in `benchmarks/results/`: a page for people, and its numbers."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mixsolve
from mixsolve.base.files import write_text

RESULTS = Path(__file__).parent / "results"


def origin(program: str, *others: str) -> str:
    """Which command wrote a page, when, with what; without a full stop.

    Parameters
    ----------
    program : str
        Below `benchmarks`, with its arguments.
    *others : str
        Versions and devices that matter besides.
    """
    versions = [f"mixsolve {mixsolve.__version__}", f"Python {platform.python_version()}", *others]
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    day = time.strftime("%Y-%m-%d")
    return f"Written by `python -m benchmarks.{program}` on {day}: {', '.join(versions)}, {machine}"


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    rows = [f"| {' | '.join(cells)} |" for cells in (head, *lines)]
    return [rows[0], "|" + "---|" * len(head), *rows[1:]]


def save(out: Path, name: str, page: Iterable[str], numbers: Any) -> None:
    """Write a page, line by line, and its numbers.

    Parameters
    ----------
    out : Path
        Folder, made if there is none.
    name : str
        Of the two files, without their endings.
    page : iterable of str
        In Markdown.
    numbers : object
        What JSON takes.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{name}.md", "\n".join(page) + "\n")
    write_text(out / f"{name}.json", json.dumps(numbers, indent=1) + "\n")
