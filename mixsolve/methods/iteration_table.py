"""The table of iterations that ``verbose=True`` prints, as solvers of the field do."""

from __future__ import annotations

import sys

_HEADS = ("iter", "value", "lower bound", "gap", "seconds")
_WIDTHS = (5, 16, 16, 10, 9)
_REPEATED = 40  # lines after which the heads stand again


class IterationTable:
    """Prints a line an iteration on standard output, as it happens.

    Parameters
    ----------
    title : str
        What is solved, printed before the first line.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._lines = 0

    def add(self, nit: int, value: float, lower_bound: float, gap: float, seconds: float) -> None:
        """Print one iteration."""
        if not self._lines:
            self._print(self._title)
        if self._lines % _REPEATED == 0:
            self._print(_aligned(_HEADS))
        self._lines += 1
        numbers = f"{nit}", f"{value:.9g}", f"{lower_bound:.9g}", f"{gap:.2e}", f"{seconds:.3f}"
        self._print(_aligned(numbers))

    def end(self, outcome: str) -> None:
        """Print how it ended."""
        if not self._lines:
            self._print(self._title)
        self._print(outcome)

    def _print(self, line: str) -> None:
        print(line, file=sys.stdout, flush=True)  # of the moment: a caller may redirect it


def _aligned(cells: tuple[str, ...]) -> str:
    return " ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
