"""The metrics of a training run, one record an epoch.

A record becomes a line of `metrics.jsonl`, points in TensorBoard's curves, the text before the
progress bar and a line of the log. A resumed run writes `metrics.jsonl` anew from its
checkpoint, so that each epoch is in it once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixsolve.base.files import written_aside
from mixsolve_torch.runs import durable
from mixsolve_torch.runs.progress import ProgressBar

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class Journal:
    """Writes the records of a run to files, the log and the progress bar, or says why it cannot.

    Parameters
    ----------
    folder : str or path
        Where `metrics.jsonl` and the folder `tensorboard` are put; it exists.
    records : sequence of dict, optional
        Those of an earlier part of the run.
    tensorboard : bool, default True
        Write event files for TensorBoard too. If it is not installed, the log says so.
    progress : bool, default False
        Show a progress bar if stderr is a terminal.
    total : int, optional
        Steps of the whole run, for the bar.
    write : bool, default True
        False makes a journal that writes and shows nothing: only one process of a run writes.
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
        with self._writing():
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
        """Write the metrics of an epoch.

        Parameters
        ----------
        record : dict
            "epoch", counted from 1, and numbers by name; "weights" of the classifiers; "clean" and
            "robust", each with the accuracy of the "mixture" and those of the "models", and
            optionally those of the mixture on the "classes".
        """
        if not self._write:
            return
        text = summary(record)
        logger.info("%s", text)
        self._bar.describe(f"Training: {text}")
        with self._writing():
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

    def __exit__(self, *raised: object) -> None:
        """Remove the bar and close the files."""
        self._bar.__exit__(*raised)
        if self._events is not None:
            with self._writing():
                self._events.close()

    def _writing(self) -> AbstractContextManager[None]:
        return durable.writing(
            f"the metrics in {self._path.parent}",
            lambda: "the last checkpoint is not touched: mend that and resume from there",
        )


def summary(record: dict[str, Any]) -> str:
    """Return a record, as `Journal.log` takes it, in a line; what is missing is left out.

    Examples
    --------
    >>> summary({"epoch": 3, "train_loss": 1.234, "weights": [0.75, 0.25],
    ...          "clean": {"mixture": 0.98}, "robust": {"mixture": 0.712}})
    'epoch 3, loss 1.234, weights 0.75 0.25, clean 98.0 %, robust 71.2 %'
    >>> summary({"epoch": 3, "robust": {"mixture": 0.7, "classes": [0.8, 0.6]}})
    'epoch 3, robust 70.0 % (class 1, the worst: 60.0 %)'
    """
    parts = [f"epoch {record['epoch']}"]
    if "train_loss" in record:
        parts.append(f"loss {record['train_loss']:.3f}")
    if len(record.get("weights", ())) > 1:
        parts.append("weights " + " ".join(f"{weight:.2f}" for weight in record["weights"]))
    for name in ("clean", "robust"):
        if name in record:
            parts.append(f"{name} {100 * record[name]['mixture']:.1f} %")
    worst = worst_class(record)
    return ", ".join(parts) + (f" ({worst})" if worst else "")


def worst_class(record: dict[str, Any]) -> str:
    """Return which class of a record has the lowest robust accuracy, and how much; "" if untold."""
    told = record.get("robust", {}).get("classes", ())
    classes = {k: value for k, value in enumerate(told) if value is not None}
    if not classes:
        return ""
    worst = min(classes, key=classes.__getitem__)
    return f"class {worst}, the worst: {100 * classes[worst]:.1f} %"


def _event_writer(folder: Path, epoch: int) -> SummaryWriter | None:
    """Return TensorBoard's writer, which removes the events of `epoch` and later ones."""
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
