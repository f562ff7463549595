"""A progress bar on stderr, shown for work that takes more than two seconds."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_PATIENCE = 2.0  # seconds before the bar appears


class ProgressBar:
    """Counts steps; shows them after two seconds, on a terminal only.

    Parameters
    ----------
    description : str
        The text before the bar.
    total : int or None
        Number of steps, None if it is not known.
    enabled : bool, default False
        Whether to show a bar.

    Examples
    --------
    >>> with ProgressBar("attacking", total=3) as bar:
    ...     for _ in range(3):
    ...         bar.advance()
    """

    def __init__(self, description: str, total: int | None, *, enabled: bool = False) -> None:
        self._description = description
        self._total = total
        self._console = Console(stderr=True)
        self._enabled = enabled and self._console.is_terminal
        self._started = time.monotonic()
        self._done = 0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def advance(self, steps: int = 1) -> None:
        """Count some more steps."""
        self._done += steps
        if not self._enabled:
            return
        if self._bar is None and time.monotonic() - self._started > _PATIENCE:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(self._description, total=self._total)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def describe(self, description: str) -> None:
        """Change the text before the bar."""
        self._description = description
        if self._bar is not None:
            self._bar.update(self._task, description=description)

    def __enter__(self) -> ProgressBar:
        """Start the clock."""
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
