"""What the commands that evaluate classifiers print: progress on stderr, the outcome on stdout."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from rich.console import Console

from mixsolve_torch.evaluation.report import Evaluation


@contextmanager
def logged(name: str, handler: logging.Handler) -> Iterator[None]:
    """Give a logger a handler and the level INFO; it is left as it was found."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def progress_on_stderr() -> AbstractContextManager[None]:
    """Print to stderr which classifier or mixture was attacked."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    return logged("mixsolve_torch.evaluation.evaluate", handler)


def show(
    report: Evaluation,
    out: Path,
    files: Sequence[str],
    seconds: float,
    *,
    warnings: Sequence[str] = (),
    more: Sequence[str] = (),
) -> None:
    """Print the table, the sentences and the warnings of an evaluation, and where its files are.

    `more` are sentences on what else was done.
    """
    console = Console()
    console.print(report.table())
    if report.by_group is not None:
        console.print(report.table_by_group())
    warned = (f"Warning: {warning}" for warning in warnings)
    for text in (*report.sentences(), *warned, *more):
        console.print(f"\n{text}", markup=False, highlight=False)
    say(f"\nWrote {', '.join(files)} to {out} in {seconds:.0f} s.")


def say(line: str) -> None:
    """Print a line that may hold paths: it is neither marked up nor wrapped."""
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
