"""The epochs of a run: their records, which one is kept, and networks that are warned about.

The most robust epoch is written to `best.pt` when it ends; with the objective "worst-group" that of
the highest accuracy on its worst class, and snapshots beside it. Where networks are added one after
another, one with more networks ranks above one with fewer, however robust. Networks are warned
about, each once, that lost their robustness, and that have learned nothing in two epochs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor

from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.kept import kept_state
from mixsolve_torch.training.measure import forgotten
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.run_folder import RunFolder
from mixsolve_torch.training.snapshots import is_due, write_snapshot
from mixsolve_torch.training.unlearned import said_of, unlearned

logger = logging.getLogger(__name__)


class Epochs:
    """The records so far, and the best of them.

    Parameters
    ----------
    config : TrainConfig
        The settings.
    folder : RunFolder
        Where the most robust epoch is written.
    ranks : Ranks
        This process among those of the run.
    classes : int
        Number of classes.
    labels : torch.Tensor of shape (N,), int64
        Of the images that accuracies are measured on.

    Attributes
    ----------
    records : list of dict
        One an epoch.
    """

    def __init__(
        self, config: TrainConfig, folder: RunFolder, ranks: Ranks, classes: int, labels: Tensor
    ) -> None:
        self._config = config
        self._folder = folder
        self._ranks = ranks
        self._classes = classes
        self._labels = labels.cpu()
        self._warned: set[int] = set()
        self._unlearned: set[int] = set()
        self._kept: dict[str, Any] | None = None
        self.records: list[dict[str, Any]] = []

    def restore(
        self, records: list[dict[str, Any]], step: int, mixture: Callable[[], Mixture]
    ) -> None:
        """Continue after these records; if the file of the best is lost, it is replaced.

        Parameters
        ----------
        records : list of dict
            Those of the checkpoint.
        step : int
            How many steps were made.
        mixture : callable
            Returns the networks as they are then.
        """
        self.records = records
        self._kept = self._ranks.lead(lambda: self._folder.kept(records))
        if not records or self._kept is not None:
            return
        record = records[-1]
        lost = max(records, key=self._place)["epoch"]
        words = f"{self._folder.best} is lost or damaged, and with it epoch {lost}"
        if record["step"] == step:
            self._keep(record, mixture())
            logger.warning("%s; epoch %d, the last one, takes its place", words, record["epoch"])
        else:
            logger.warning("%s; the most robust one of those to come takes its place", words)

    def add(
        self, record: dict[str, Any], mixture: Mixture, unfinished: set[int], *, last: bool = False
    ) -> None:
        """Add the record of an epoch, and keep its networks if they are the best so far.

        Networks that lost their robustness or learned nothing are warned about once, but not
        `unfinished` ones; the `last` epoch counts for two.
        """
        self.records.append(record)
        self._warn_of_unlearned(unfinished, last)
        for k in set(forgotten(record, len(self._labels))) - self._warned - unfinished:
            self._warned.add(k)
            models = record["robust"]["models"]
            logger.warning(
                "network %d, of weight %.2f, has %.1f %% robust accuracy, less than half of the "
                "best one's %.1f %%: the mixture is hardly more than the others; take "
                "weights.update = 'none' or a larger weights.floor or attack.own_share, or train "
                "it longer",
                *(k + 1, record["weights"][k], 100 * models[k], 100 * max(models)),
            )
        if self._kept is None or self._place(record) > self._place(self._kept):
            self._keep(record, mixture)
        if self._ranks.first and is_due(record["epoch"], self._config):
            state = kept_state(self._config.to_dict(), record, mixture, self._classes)
            write_snapshot(self._folder.path, record["epoch"], state)

    def _warn_of_unlearned(self, unfinished: set[int], last: bool) -> None:
        """Warn of networks that the most frequent class alone is as good as, in two epochs."""
        present = self.records[-1]["clean"]["models"]
        lately = set(unlearned(present, self._labels))
        if not last:
            before = self.records[-2]["clean"]["models"] if len(self.records) > 1 else []
            lately &= set(unlearned(before, self._labels))
        for k in sorted(lately - self._unlearned - unfinished):
            self._unlearned.add(k)
            logger.warning("%s", said_of(k, present[k], f" by epoch {self.records[-1]['epoch']}"))

    def _keep(self, record: dict[str, Any], mixture: Mixture) -> None:
        """Write the best checkpoint."""
        self._kept = record
        if self._ranks.first:
            state = kept_state(self._config.to_dict(), record, mixture, self._classes)
            checkpoint.save(state, self._folder.best)

    def _place(self, record: dict[str, Any]) -> tuple[int, float, float]:
        """Return what epochs are ranked by: the networks that are trained, then robust accuracy."""
        robust = record["robust"]
        told = [each for each in robust.get("classes", ()) if each is not None]
        worst = min(told, default=0.0) if self._config.objective == "worst-group" else 0.0
        return len(record.get("weights", ())), worst, robust["mixture"]
