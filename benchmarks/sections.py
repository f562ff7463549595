"""A page of named sections, each with a limit of its own: what one of them does harms no other.

A section yields rows as it finds them. It ends early at its limit, at the limit of the whole page,
or where it fails, and keeps the rows it has; the page is written after every section, so that a run
that is cut leaves all that was measured.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.report import markdown_table, save

_LEAST = 1.0  # seconds that must be left for a section to begin

Row = dict[str, Any]
Measure = Callable[[Any], Iterator[Row | str]]


@dataclass(frozen=True)
class Section:
    """What is measured under one heading.

    Attributes
    ----------
    name : str
        For the command line.
    title, note : str
        The heading, and what the columns mean.
    seconds : float
        When it is stopped.
    measure : callable
        Given the setting of the run, yields rows, dictionaries by column, and remarks.
    """

    name: str
    title: str
    note: str
    seconds: float
    measure: Measure


@dataclass
class Outcome:
    """What came of a section.

    Attributes
    ----------
    state : str
        "done", "stopped at its limit", or what went wrong.
    rows, remarks : list
        What it yielded.
    seconds : float
        How long it took.
    where : list of str
        The last calls of a failure.
    """

    state: str = "not begun"
    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    where: list[str] = field(default_factory=list)


class TimeUp(BaseException):
    """A section has had its time; not an Exception, so that what it calls does not handle it."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `TimeUp` in the main thread after some seconds; elsewhere rows are counted alone."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def run_section(section: Section, setting: Any, seconds: float) -> Outcome:
    """Run one section, for at most its own limit and `seconds`."""
    outcome, limit = Outcome(), min(section.seconds, seconds)
    if limit < _LEAST:
        outcome.state = "not begun: no time was left"
        return outcome
    began = time.perf_counter()
    try:
        with _alarm(limit):
            for found in section.measure(setting):
                if isinstance(found, str):
                    outcome.remarks.append(found)
                else:
                    outcome.rows.append(found)
                if time.perf_counter() - began > limit:
                    raise TimeUp
        outcome.state = "done"
    except TimeUp:
        outcome.state = f"stopped at its limit of {limit:.0f} s"
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        outcome.state = f"failed: {type(error).__name__}: {first}"
        outcome.where = traceback.format_exc().splitlines()[-12:]
    outcome.seconds = time.perf_counter() - began
    return outcome


def run_sections(
    sections: Sequence[Section],
    setting: Any,
    seconds: float,
    *,
    head: Sequence[str],
    out: Path,
    name: str,
    say: Callable[[str], None],
) -> dict[str, Outcome]:
    """Run sections one after another and write the page after each.

    Parameters
    ----------
    sections : sequence of Section
        In order.
    setting : object
        Given to each.
    seconds : float
        For all together.
    head : sequence of str
        Lines of the page before its sections.
    out, name : Path, str
        See `benchmarks.report.save`.
    say : callable
        Told the state of each section.

    Returns
    -------
    dict of str to Outcome
    """
    began = time.perf_counter()
    outcomes = {section.name: Outcome() for section in sections}
    for section in sections:
        left = seconds - (time.perf_counter() - began)
        outcomes[section.name] = outcome = run_section(section, setting, left)
        say(f"{section.name}: {outcome.state} ({outcome.seconds:.1f} s)")
        numbers = {key: asdict(found) for key, found in outcomes.items()}
        save(out, name, [*head, *_page(sections, outcomes)], numbers)
    return outcomes


def _page(sections: Sequence[Section], outcomes: dict[str, Outcome]) -> Iterator[str]:
    states = [(own.title, outcomes[own.name]) for own in sections]
    cells = [(title, f"{found.seconds:.1f}", _cell(found.state)) for title, found in states]
    yield from ["", *markdown_table(("section", "seconds", "state"), cells)]
    for section in sections:
        found = outcomes[section.name]
        if found.state == "not begun":
            continue
        yield from ["", f"## {section.title}", "", section.note]
        if found.rows:
            columns = list(dict.fromkeys(key for row in found.rows for key in row))
            lines = [[_cell(row.get(key)) for key in columns] for row in found.rows]
            yield from ["", *markdown_table(columns, lines)]
        for remark in found.remarks:
            yield from ["", remark]
        if found.where:
            yield from ["", "```text", *found.where, "```"]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value).replace("|", "/")  # which would end the cell
