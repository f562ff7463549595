"""What the commands that evaluate classifiers print: progress on stderr, the outcome on stdout."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from mixsolve_torch.evaluation.report import Evaluation


@contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Print to stderr which classifier or mixture was attacked."""
    logger = logging.getLogger("mixsolve_torch.evaluation.evaluate")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def show(
    report: Evaluation,
    out: Path,
    files: Sequence[str],
    seconds: float,
    *,
    warnings: Sequence[str] = (),
) -> None:
    """Print the table, the sentences and the warnings of an evaluation, and where its files are."""
    console = Console()
    console.print(report.table())
    for text in (*report.sentences(), *(f"Warning: {warning}" for warning in warnings)):
        console.print(f"\n{text}", markup=False, highlight=False)
    say(f"\nWrote {', '.join(files)} to {out} in {seconds:.0f} s.")


def say(line: str) -> None:
    """Print a line that may hold paths: it is neither marked up nor wrapped."""
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
