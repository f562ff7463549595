"""What a training run says of itself while it goes: one record of metrics an epoch.

A record becomes a line of `metrics.jsonl`, points in TensorBoard's curves, the text before the
progress bar and a line of the log. The records of the checkpoint that a run goes on from are the
truth: `metrics.jsonl` is written anew from them, so that epochs done twice stand there once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mixsolve import plots
from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import written_aside
from mixsolve.plots.history import training_history
from mixsolve_torch.runs.progress import ProgressBar

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class Journal:
    """The records of a run, written wherever somebody may look.

    Parameters
    ----------
    folder : str or path
        Where `metrics.jsonl` and the folder `tensorboard` are put; it exists.
    records : sequence of dict, optional
        What an earlier part of the run has logged.
    tensorboard : bool, default True
        Write event files for TensorBoard too. If it is not installed, the log says so.
    progress : bool, default False
        Show a progress bar if stderr is a terminal.
    total : int, optional
        Steps of the whole run, for the bar.
    write : bool, default True
        False makes a journal that writes and shows nothing: of a run on several processes, one
        writes.

    Raises
    ------
    MixsolveError
        A file that cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        records: Sequence[dict[str, Any]] = (),
        tensorboard: bool = True,
        progress: bool = False,
        total: int | None = None,
        write: bool = True,
    ) -> None:
        self._path = Path(folder) / "metrics.jsonl"
        self._write = write
        self._bar = ProgressBar("Training", total, enabled=progress and write)
        self._events: SummaryWriter | None = None
        if not write:
            return
        if records:
            self._bar.describe(f"Training: {summary(records[-1])}")
        with self._clear_errors():
            with written_aside(self._path) as aside:
                aside.write_text("".join(map(_line, records)), encoding="utf-8")
            if tensorboard:
                self._events = _event_writer(
                    self._path.parent / "tensorboard",
                    records[-1]["epoch"] + 1 if records else 0,
                )

    def advance(self, steps: int = 1) -> None:
        """Count some more steps of the run, or those that an earlier part of it made."""
        self._bar.advance(steps)

    def log(self, record: dict[str, Any]) -> None:
        """Write down the metrics of an epoch.

        Parameters
        ----------
        record : dict
            "epoch", counted from 1, and numbers by name; "weights" of the classifiers; "clean" and
            "robust", each with the accuracy of the "mixture" and those of the "models".

        Raises
        ------
        MixsolveError
            A file that cannot be written.
        """
        if not self._write:
            return
        text = summary(record)
        logger.info("%s", text)
        self._bar.describe(f"Training: {text}")
        with self._clear_errors():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(record))
            if self._events is not None:
                for name, value in _scalars(record):
                    self._events.add_scalar(name, value, record["epoch"])
                self._events.flush()

    def __enter__(self) -> Journal:
        """Start the clock of the bar."""
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away and close the files."""
        self._bar.__exit__(kind, error, trace)
        if self._events is not None:
            with self._clear_errors():
                self._events.close()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MixsolveError(
                f"the metrics in {self._path.parent} could not be written: {error}; the last "
                "checkpoint is not touched: mend that and go on from there"
            ) from error


def summary(record: dict[str, Any]) -> str:
    """Return a record in a line.

    Parameters
    ----------
    record : dict
        As `Journal.log` takes it; what is missing is left out.

    Returns
    -------
    str

    Examples
    --------
    >>> summary({"epoch": 3, "train_loss": 1.234, "weights": [0.75, 0.25],
    ...          "clean": {"mixture": 0.98}, "robust": {"mixture": 0.712}})
    'epoch 3, loss 1.234, weights 0.75 0.25, clean 98.0 %, robust 71.2 %'
    """
    parts = [f"epoch {record['epoch']}"]
    if "train_loss" in record:
        parts.append(f"loss {record['train_loss']:.3f}")
    if len(record.get("weights", ())) > 1:
        parts.append("weights " + " ".join(f"{weight:.2f}" for weight in record["weights"]))
    for name in ("clean", "robust"):
        if name in record:
            parts.append(f"{name} {100 * record[name]['mixture']:.1f} %")
    return ", ".join(parts)


def history_plot(records: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw accuracies and weights over the epochs of a run into a file.

    Parameters
    ----------
    records : sequence of dict
        As `Journal.log` takes them.
    path : str or path
        Where to; the ending says the format. A file there is replaced.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    MixsolveError
        No records, or a file that cannot be written.
    """
    plots.save(training_history(records), path)


def _event_writer(folder: Path, epoch: int) -> SummaryWriter | None:
    """Return TensorBoard's writer, which takes back the events of `epoch` and later ones."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info(
            "no event files are written, as TensorBoard is not installed; "
            "install it with: pip install 'mixsolve[train]'"
        )
        return None
    return SummaryWriter(os.fspath(folder), purge_step=epoch)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _scalars(record: dict[str, Any], group: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record: "train_loss", "weights/0", "robust/mixture", ..."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{group}{name}/")
        elif isinstance(value, list):
            yield from _scalars(
                {str(place): part for place, part in enumerate(value)}, f"{group}{name}/"
            )
        elif isinstance(value, int | float) and name != "epoch":
            yield f"{group}{name}", float(value)
