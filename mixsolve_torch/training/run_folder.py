"""The folder of a run: one process writes to it, and what lies there is looked at before the work.

    last.pt    everything that the next step depends on
    best.pt    the most robust epoch so far

Whatever happened to these files is told, and mended as far as can be, when the run begins: a
missing or damaged one is replaced by the one before it, which `checkpoint` keeps.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.lock import Lock
from mixsolve_torch.training.config import TrainConfig

logger = logging.getLogger(__name__)

_FORMAT = 2  # of last.pt: what it holds, and what that means
_LITTER = ("*.pt.part", "*.pt.link", ".*.part.*")
_NEEDED = ("config", "algorithm", "ranks", "records", "seconds")


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
        self._lock = Lock(
            self.path / ".lock", self._name, "wait for it to end, or choose another folder"
        )

    def open(self, resume: bool) -> bool:
        """Lock the folder, and mend what lies there; whether there is a run to go on with.

        Parameters
        ----------
        resume : bool
            Whether to go on with a run; without it, a folder that holds one is refused.

        Raises
        ------
        MixsolveError
            Another process writes there, the folder cannot be made, or it holds a run that is in
            the way or beyond mending.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MixsolveError(f"{self._name} cannot be used: {error}") from error
        self._lock.acquire()
        try:
            return self._find(resume)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others write there."""
        self._lock.release()

    def read(self, config: TrainConfig, digests: dict[str, str], ranks: int) -> dict[str, Any]:
        """Return the last checkpoint, of a run of the same settings, data and processes.

        Raises
        ------
        MixsolveError
            A checkpoint of other settings, other data, another number of processes or another
            version. The message says what differs.
        """
        saved = checkpoint.load(self.last)
        told = saved.get("format", 1)
        lacking = [name for name in _NEEDED if name not in saved]
        if lacking or told not in (1, _FORMAT):
            what = f"it lacks {', '.join(lacking)}" if lacking else f"its format is {told!r}"
            raise MixsolveError(
                f"the checkpoint {self.last} was written by another version of mixsolve "
                f"({saved.get('mixsolve', 'which it does not tell')}), or not by mixsolve train: "
                f"{what}; go on with the version that began it, or choose another folder"
            )
        differing = _differences(saved["config"], config)
        if differing:
            raise MixsolveError(
                f"{self._name} was begun with other settings: {'; '.join(differing)}; use the "
                "same ones to go on, or another folder"
            )
        self._compare(saved.get("data"), digests)
        if len(saved["ranks"]) != ranks:
            raise MixsolveError(
                f"{self._name} was begun on {len(saved['ranks'])} processes; got {ranks}: go on "
                "with the same number"
            )
        return saved

    def write(self, state: dict[str, Any]) -> None:
        """Write the last checkpoint."""
        checkpoint.save({"format": _FORMAT, "mixsolve": mixsolve.__version__, **state}, self.last)

    def kept(self, records: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the record of the best checkpoint, None if it is lost; the one before may serve.

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
                f"{self._name} holds a run ({', '.join(present)}); go on with it (resume), or "
                "choose another folder: nothing is overwritten"
            )
        if checkpoint.recover(self.last) is None:
            raise MixsolveError(
                f"{self._name} holds {self.best.name} of a run but no {self.last.name} to go on "
                "from; put that back, or choose another folder: nothing is overwritten"
            )
        return True

    def _compare(self, saved: dict[str, str] | None, digests: dict[str, str]) -> None:
        if saved is None:
            logger.warning(
                "%s does not tell which images it was trained on, for an earlier version wrote "
                "it: whether they are the same cannot be checked",
                self.last,
            )
            return
        for part, value in digests.items():
            if saved.get(part) != value:
                raise MixsolveError(
                    f"{self._name} was begun on other data: the {part} images or their labels have "
                    "changed; go on with those that it was begun on, or choose another folder"
                )


def _differences(old: dict[str, Any], config: TrainConfig) -> list[str]:
    """Say in which settings two runs differ, except where they run and how they end.

    What an earlier version did not know has its default there.
    """
    words = []
    for section, values in config.to_dict().items():
        defaults = dataclasses.asdict(type(getattr(config, section))())
        before = defaults | old.get(section, {})
        for name in before:
            # Where data lie does not matter: what they are is compared.
            free = section == "run" and name in ("out", "tensorboard", "save_every")
            free |= section == "evaluation" and name.startswith("final")
            free |= section == "data" and name in ("dir", "download", "test")
            if name not in values:
                words.append(f"{section}.{name} was {json.dumps(before[name])}, and is unknown now")
            elif before[name] != values[name] and not free:
                words.append(
                    f"{section}.{name} was {json.dumps(before[name])}, is "
                    f"{json.dumps(values[name])}"
                )
    return words
