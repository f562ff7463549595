"""What every subcommand prints: a table or one JSON object on stdout, or nothing; never both."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mixsolve.base.plain import json_text

_PATIENCE = 2.0  # seconds


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json`` and ``--quiet``."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object on stdout and no progress; errors are one, too, with 'error'",
    )
    how.add_argument(
        "--quiet", action="store_true", help="print nothing but errors; the exit code tells"
    )


def print_json(fields: dict[str, Any]) -> None:
    """Print one line of JSON; a number that is not finite is null."""
    sys.stdout.write(json_text(fields) + "\n")


def is_silent(args: argparse.Namespace) -> bool:
    """Whether progress and notices would disturb."""
    return bool(args.json or args.quiet)


@contextmanager
def waiting(text: str, *, silent: bool = False) -> Iterator[None]:
    """A block whose steps cannot be counted: after two seconds a terminal shows what is done."""
    if silent or not (sys.stderr and sys.stderr.isatty()):
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(text)
    lock, done = threading.Lock(), False

    def show() -> None:
        with lock:
            if not done:
                status.start()

    timer = threading.Timer(_PATIENCE, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            done = True
            status.stop()
