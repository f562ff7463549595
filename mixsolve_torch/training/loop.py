"""A whole training run: Algorithm 2 step by step, measured, kept, resumed and summed up.

After every epoch (a pass over the data for each model) the mixture and each of its models are
measured under PGD, and everything is written to `last.pt`; the most robust epoch is in `best.pt`.
A run that was ended at any moment goes on from `last.pt` as if nothing had happened. At the end
the best mixture is attacked in earnest, on the test set.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 5.2.
Rice, Wong, Kolter. Overfitting in Adversarially Robust Deep Learning. ICML 2020.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mixsolve.errors import MixsolveError
from mixsolve_torch.datasets import load_data
from mixsolve_torch.evaluation import evaluate
from mixsolve_torch.evaluation_report import Evaluation
from mixsolve_torch.interrupt import Interrupt
from mixsolve_torch.mixture import Mixture
from mixsolve_torch.models import build_model
from mixsolve_torch.training import checkpoint
from mixsolve_torch.training.algorithm import Algorithm2
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.journal import Journal, history_plot
from mixsolve_torch.training.measure import measure
from mixsolve_torch.training.ranks import Ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What a run came to.

    Attributes
    ----------
    mixture : Mixture
        That of the most robust epoch, in eval mode.
    records : list of dict
        Metrics, one record an epoch; what `metrics.jsonl` holds.
    best : dict
        The record of the epoch kept.
    evaluation : Evaluation or None
        The final attacks; None if none were asked for, or on a rank that does not write.
    folder : Path
        Where checkpoints, metrics and pictures lie.
    """

    mixture: Mixture
    records: list[dict[str, Any]]
    best: dict[str, Any]
    evaluation: Evaluation | None
    folder: Path


def train(config: TrainConfig, *, resume: bool = False, progress: bool = False) -> Training:
    """Train a mixture by Algorithm 2.

    Parameters
    ----------
    config : TrainConfig
        What to do.
    resume : bool, default False
        Go on from the last checkpoint in the folder, if there is one. Without it, a folder that
        holds a run is refused.
    progress : bool, default False
        Show a progress bar if stderr is a terminal.

    Returns
    -------
    Training
        The most robust mixture, the metrics, the final evaluation.

    Raises
    ------
    MixsolveError
        Data, models or checkpoints that cannot be read; a run in the way; a loss that is no longer
        finite. Checkpoints written before stay as they are.

    Examples
    --------
    >>> from mixsolve_torch.training import OptimizerConfig, TrainConfig, train
    >>> config = TrainConfig(optimizer=OptimizerConfig(epochs=10))
    >>> training = train(config)  # doctest: +SKIP
    """
    with Ranks(config.run.device) as ranks:
        return _Run(config, ranks, resume, progress).finish()


class _Run:
    """One process of a run."""

    def __init__(self, config: TrainConfig, ranks: Ranks, resume: bool, progress: bool) -> None:
        self._config = config
        self._ranks = ranks
        self._folder = Path(config.run.out)
        self._last, self._best = self._folder / "last.pt", self._folder / "best.pt"
        saved = self._saved(resume)
        options = config.data
        read = partial(load_data, options.name, data_dir=options.dir, download=options.download)
        train_set, test_set = read(split="train", limit=options.limit), read(split="test")
        whole = ImageSet(train_set.images, train_set.labels)
        split = torch.Generator().manual_seed(config.run.seed)
        fitted, validation = whole.split(options.validation, split)
        self._test = ImageSet(test_set.images, test_set.labels).to(ranks.device)
        held_out = validation if config.evaluation.select == "validation" else self._test
        self._measured = held_out.to(ranks.device)
        models = [
            build_model(
                config.model.architecture,
                classes=train_set.classes,
                seed=config.model.count * config.run.seed + k,
            )
            for k in range(config.model.count)
        ]
        if config.run.channels_last:
            models = [model.to(memory_format=torch.channels_last) for model in models]
        models = [model.to(ranks.device) for model in models]
        self._algorithm = Algorithm2(config, models, fitted.to(ranks.device), ranks)
        self._records: list[dict[str, Any]] = []
        self._seconds = 0.0
        if saved is not None:
            own = saved["ranks"][min(ranks.rank, len(saved["ranks"]) - 1)]
            self._algorithm.load_state(saved["algorithm"] | own)
            self._records, self._seconds = saved["records"], saved["seconds"]
        self._began = time.perf_counter()
        self._progress = progress and ranks.first

    def finish(self) -> Training:
        """Make the steps that are left, and the final evaluation."""
        algorithm, config = self._algorithm, self._config
        epoch = len(algorithm.mixture) * algorithm.steps_per_pass * config.evaluation.every
        if self._ranks.first:
            self._folder.mkdir(parents=True, exist_ok=True)
        with (
            Interrupt(self._ranks.size == 1) as interrupt,
            Journal(
                self._folder,
                records=self._records,
                tensorboard=config.run.tensorboard,
                progress=self._progress,
                total=algorithm.steps,
                write=self._ranks.first,
            ) as journal,
        ):
            journal.advance(algorithm.t)
            while not algorithm.done:
                algorithm.step()
                journal.advance(1)
                if algorithm.t % epoch == 0 or algorithm.done:
                    self._close_epoch(journal, -(-algorithm.t // epoch))
                elif config.run.save_every and algorithm.t % config.run.save_every == 0:
                    self._save()
                if interrupt.asked:
                    self._save()
                    logger.warning("interrupted at step %d; saved to %s", algorithm.t, self._last)
                    raise KeyboardInterrupt
        return self._sum_up()

    def _close_epoch(self, journal: Journal, epoch: int) -> None:
        algorithm = self._algorithm
        summary = algorithm.summary()
        if not math.isfinite(summary.get("train_loss", 0.0)):
            raise MixsolveError(
                f"the training loss became {summary['train_loss']} in epoch {epoch}; lower "
                f"optimizer.learning_rate, which was {self._config.optimizer.learning_rate:g}; "
                f"the checkpoint of the epoch before is in {self._last}"
            )
        record = {
            "epoch": epoch,
            "step": algorithm.t,
            "seconds": self._elapsed(),
            "learning_rate": algorithm.learning_rate,
            **summary,
            "weights": algorithm.mixture.weights.tolist(),
            **measure(algorithm.evaluated, self._measured, self._config, self._ranks),
            "split": self._config.evaluation.select,
        }
        self._records.append(record)
        journal.log(record)
        if record is _most_robust(self._records) and self._ranks.first:
            mixture = algorithm.evaluated
            checkpoint.save(
                {
                    "config": self._config.to_dict(),
                    "record": record,
                    "weights": mixture.weights,
                    "models": [model.state_dict() for model in mixture.models],
                },
                self._best,
            )
        self._save()

    def _save(self) -> None:
        state = self._algorithm.state()
        own = self._ranks.collect({name: state.pop(name) for name in ("own", "totals")})
        if self._ranks.first:
            checkpoint.save(
                {
                    "config": self._config.to_dict(),
                    "algorithm": state,
                    "ranks": own,
                    "records": self._records,
                    "seconds": self._elapsed(),
                },
                self._last,
            )
        self._ranks.wait()

    def _saved(self, resume: bool) -> dict[str, Any] | None:
        """Return the last checkpoint to go on from, or refuse to write over one."""
        if not self._last.exists():
            return None
        if not resume:
            raise MixsolveError(
                f"run.out {os.fspath(self._folder)!r} holds a run; go on with it (resume), or "
                "choose another folder: nothing is overwritten"
            )
        saved = checkpoint.load(self._last)
        differing = _differences(saved["config"], self._config.to_dict())
        if differing:
            raise MixsolveError(
                f"run.out {os.fspath(self._folder)!r} was begun with other settings: "
                f"{'; '.join(differing)}; use the same ones to go on, or another folder"
            )
        if len(saved["ranks"]) != self._ranks.size:
            raise MixsolveError(
                f"the run in {os.fspath(self._folder)!r} was begun on {len(saved['ranks'])} "
                f"processes; got {self._ranks.size}: go on with the same number"
            )
        return saved

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._began

    def _sum_up(self) -> Training:
        """Go back to the most robust epoch, attack it in earnest, and write the report."""
        self._ranks.wait()
        kept = checkpoint.load(self._best)
        models = list(self._algorithm.evaluated.models)
        for model, saved in zip(models, kept["models"], strict=True):
            model.load_state_dict(saved)
        mixture = Mixture(models, kept["weights"]).eval()
        evaluation = None
        config = self._config.evaluation
        if self._ranks.first:
            history_plot(self._records, self._folder / "history.png")
            if config.final != "none":
                count = min(config.final_images or len(self._test), len(self._test))
                evaluation = evaluate(
                    mixture,
                    self._test.batch(torch.arange(count)),
                    config.final,
                    norm=self._config.attack.norm,
                    eps=self._config.attack.radius,
                    steps=config.final_steps,
                    restarts=config.final_restarts,
                    seed=self._config.run.seed,
                    out=self._folder,
                    progress=self._progress,
                )
                evaluation.to_json(self._folder / "evaluation.json")
                evaluation.plot(self._folder / "evaluation.png")
        return Training(mixture, self._records, kept["record"], evaluation, self._folder)


def _most_robust(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first record of the highest robust accuracy of the mixture."""
    return max(records, key=lambda record: record["robust"]["mixture"])


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Say in which settings two runs differ, except where they run and how they end."""
    words = []
    for section, values in new.items():
        for name, value in values.items():
            before = old.get(section, {}).get(name)
            free = section == "run" and name in ("out", "tensorboard", "save_every")
            free |= section == "evaluation" and name.startswith("final")
            if before != value and not free:
                words.append(f"{section}.{name} was {json.dumps(before)}, is {json.dumps(value)}")
    return words
