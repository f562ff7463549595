"""What every subcommand prints: a table or one JSON object on stdout, or nothing; never both."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mixsolve.base.plain import json_text


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
