"""The folder of a run: one process writes to it, and its files are checked before the work.

    last.pt    everything that the next step depends on
    best.pt    the most robust epoch so far

A file that is missing or damaged is reported when the run begins, and replaced by the one before
it, which `checkpoint` keeps.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.manifest import check_settings
from mixsolve_torch.runs.resumable import ResumableFolder
from mixsolve_torch.training.config import SECTIONS, TrainConfig

logger = logging.getLogger(__name__)

_FORMAT = 3  # of last.pt: what it holds, and what that means
_LITTER = ("*.pt.part", "*.pt.link", ".*.part.*")
_ENTRIES = ("config", "algorithm", "ranks", "records", "seconds")
# What a resumed run may change: where it runs and how it ends. Of the data, what they are counts.
_FREE = (
    *("run.out", "run.tensorboard", "run.save_every"),
    *("data.dir", "data.download", "data.workers", "data.test"),
    *("weights.final", "evaluation.compare", "model.pretrained"),
    *("worst_group.images", "worst_group.members"),
)


class RunFolder:
    """Where a run keeps its checkpoints.

    Parameters
    ----------
    path : str or path
        The folder; it may be missing.

    Attributes
    ----------
    path, last, best : path
        The folder and its two checkpoints.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.last, self.best = self.path / "last.pt", self.path / "best.pt"
        self._name = f"run.out {os.fspath(path)!r}"
        self._locked: ResumableFolder | None = None

    @property
    def begun(self) -> bool:
        """Whether the folder holds checkpoints of a run."""
        return self.last.exists() or checkpoint.previous(self.last).exists()

    def open(self, resume: bool) -> bool:
        """Lock the folder, and repair its files; whether there is a run to resume.

        Parameters
        ----------
        resume : bool
            Whether to resume a run; without it, a folder that holds one is refused.

        Raises
        ------
        MixsolveError
            Another process writes there, the folder cannot be made, or it holds a run that is in
            the way or cannot be repaired.
        """
        self._locked = ResumableFolder("run.out", self.path, self._name)
        try:
            return self._find(resume)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock, if this process has it."""
        if self._locked is not None:
            self._locked.close()

    def read(
        self,
        config: TrainConfig,
        digests: dict[str, str],
        ranks: int,
        attack: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the last checkpoint, of a run of the same settings, data and processes.

        Raises
        ------
        MixsolveError
            A checkpoint of other settings, other data, another number of processes or another
            version. The message says what differs.
        """
        saved = checkpoint.load(self.last)
        version = saved.get("format", 1)
        fault = "" if version in (1, 2, _FORMAT) else f"its format is {version!r}"
        checkpoint.check_complete(saved, self.last, _ENTRIES, "mixsolve train", fault)
        if version != _FORMAT and saved["records"]:
            logger.warning(
                "%s was written by an earlier version, which measured epochs under attacks on the "
                "mixture alone: their accuracies are higher than those of the epochs to come",
                self.last,
            )
        known = saved.get("data")
        if known is None:
            logger.warning(
                "%s was written by an earlier version, which did not record its images: whether "
                "they are the same cannot be checked",
                self.last,
            )
            known = digests
        check_settings(
            self._name,
            _settings(saved["config"], known, len(saved["ranks"]), saved.get("attack")),
            _settings(config.to_dict(), digests, ranks, attack),
            "use the same ones to resume it, or another folder",
        )
        return saved

    def write(self, state: dict[str, Any]) -> None:
        """Write the last checkpoint."""
        checkpoint.save({"format": _FORMAT, "mixsolve": mixsolve.__version__, **state}, self.last)

    def kept(self, records: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the record of the best checkpoint, or of the one before it; None if both are lost.

        Parameters
        ----------
        records : list of dict
            Of the epochs that are done. A checkpoint of a later epoch was written just before the
            run ended; that epoch is done again.
        """
        if not records:
            return None
        reasons = []
        for path in (self.best, checkpoint.previous(self.best)):
            try:
                record = checkpoint.load(path).get("record")
            except MixsolveError as error:
                reasons.append(str(error))
                continue
            if record in records:
                if path != self.best and reasons:
                    checkpoint.go_back(self.best)
                    logger.warning(
                        "%s; the most robust epoch before it, epoch %d, takes its place",
                        reasons[0].partition(";")[0],
                        record["epoch"],
                    )
                return record
        return None

    def _find(self, resume: bool) -> bool:
        for pattern in _LITTER:  # of a process that was killed while it wrote
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)
        before = checkpoint.previous(self.last)
        present = [path.name for path in (self.last, before, self.best) if path.exists()]
        if not present:
            return False
        if not resume:
            raise MixsolveError(
                f"{self._name} holds a run ({', '.join(present)}); resume it, or "
                "choose another folder: nothing is overwritten"
            )
        if checkpoint.recover(self.last) is None:
            raise MixsolveError(
                f"{self._name} holds {self.best.name} of a run but no {self.last.name} to resume "
                "from; put that back, or choose another folder: nothing is overwritten"
            )
        return True


def _settings(
    config: dict[str, Any],
    digests: dict[str, str],
    processes: int,
    attack: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what a resumed run must not change, by the names of the configuration file.

    A setting that an earlier version did not know has its default.
    """
    settings: dict[str, Any] = {"number of processes": processes, "attack": attack}
    settings |= {f"data ({part} images and labels)": value for part, value in digests.items()}
    config = config if "method" in config else _before_methods(config)
    for entry in dataclasses.fields(TrainConfig):
        if entry.name not in SECTIONS:
            settings[entry.name] = config.get(entry.name, entry.default)
            continue
        values = dataclasses.asdict(entry.default_factory()) | config.get(entry.name, {})  # type: ignore[operator]
        settings |= {f"{entry.name}.{name}": value for name, value in values.items()}
    return {
        name: value
        for name, value in settings.items()
        if name not in _FREE and not name.startswith("evaluation.final")
    }


def _before_methods(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run begun when Algorithm 2 was all there was, on lam itself."""
    weights = {"floor": 0.0, "update": "oracle", **config.get("weights", {})}
    return {**config, "method": "algorithm2", "weights": weights}
