"""A whole training run: the steps of a method, measurements, checkpoints and the evaluation.

After every epoch (a pass over the data for each model) the mixture and each of its models are
measured under PGD, and everything is written to `last.pt`; the most robust epoch is in `best.pt`.
A run that was interrupted at any moment resumes from `last.pt` and ends with the same result. At
the end the best mixture gets its final weights, is evaluated under strong attacks on the test set,
and is compared with the best single network: the one that wins is in `deploy.pt`.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 5.2.
Rice, Wong, Kolter. Overfitting in Adversarially Robust Deep Learning. ICML 2020.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mixsolve.base.arguments import check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.registry import Attacks
from mixsolve_torch.data.batching import Data
from mixsolve_torch.models.architectures import build_model
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.fingerprint import describe, digest
from mixsolve_torch.runs.interrupt import Interrupt
from mixsolve_torch.training import held_out
from mixsolve_torch.training.adversary import given_attack
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.deployment import read_rival
from mixsolve_torch.training.ending import Ending, Training
from mixsolve_torch.training.journal import Journal
from mixsolve_torch.training.kept import kept_state
from mixsolve_torch.training.measure import forgotten, measure_epoch
from mixsolve_torch.training.pretrained import read_pretrained
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.run_folder import RunFolder
from mixsolve_torch.training.steps import Steps

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    data: Data | None = None,
    test: Data | None = None,
    attack: Attack | Callable[..., Any] | None = None,
    final: Attacks | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Training:
    """Train a mixture, all networks together or by another method of the configuration.

    Parameters
    ----------
    config : TrainConfig
        What to do.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches, optional
        Images, uint8 or in [0, 1], and labels as `build_losses` takes them, instead of those that
        ``config.data`` names. They are read once, into memory.
    test : as `data`, optional
        Images of the final attacks, instead of those that ``config.data`` names.
    attack : Attack or callable, optional
        What batches are trained on, in place of PGD on the mixture: an attack, a function of images
        and labels, or an attack object of another library (see `External`), in the set that
        ``config.attack`` declares. Of an attack that yields several candidates the first counts.
    final : str, Attack, callable, or iterable of them, optional
        The final attacks, in place of ``config.evaluation.final``; what `evaluate` takes.
    resume : bool, default False
        Resume from the last checkpoint in the folder, if there is one. Without it, a folder that
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
    check_flags(resume=resume, progress=progress)
    with Ranks(config.run.device) as ranks:
        run = _TrainingRun(config, ranks, progress, data, test, attack, final)
        with run.begun(resume):
            return run.finish()


class _TrainingRun:
    """One process of a run."""

    def __init__(
        self,
        config: TrainConfig,
        ranks: Ranks,
        progress: bool,
        data: Data | None = None,
        test: Data | None = None,
        attack: Attack | Callable[..., Any] | None = None,
        final: Attacks | None = None,
    ) -> None:
        self._config = config
        given = None if attack is None else given_attack(attack, config.attack)
        self._fingerprint = None if given is None else describe(given)
        self._ranks = ranks
        self._folder = RunFolder(config.run.out)
        images = held_out.load(config, data, test)
        ranks.agree(images.digests, "data.name must give the same images on every rank")
        self._digests = images.digests
        self._measured = images.measured.to(ranks.device)
        self._warned: set[int] = set()
        self._classes = images.classes
        self._ending = Ending(
            config,
            ranks,
            self._folder.path,
            images.validation.to(ranks.device),
            None if images.test is None else images.test.to(ranks.device),
            images.classes,
            read_rival(config.evaluation.compare, images.classes, ranks.device),
            final,
            progress and ranks.first,
        )
        models = [
            build_model(
                config.model.architecture,
                classes=images.classes,
                seed=config.model.count * config.run.seed + k,
            )
            for k in range(config.model.count)
        ]
        if config.run.channels_last:
            models = [model.to(memory_format=torch.channels_last) for model in models]
        models = [model.to(ranks.device) for model in models]
        self._algorithm = Steps(config, models, images.fitted.to(ranks.device), ranks, given)
        if not self._folder.begun:
            pretrained = read_pretrained(config, images.classes)
            parts = [digest(each) for given in pretrained for each in given.values()]
            ranks.agree(parts, "model.pretrained must give the same networks on every rank")
            self._algorithm.begin(pretrained)
        self._records: list[dict[str, Any]] = []
        self._kept: dict[str, Any] | None = None
        self._saved: int | None = None  # the step of the last checkpoint
        self._seconds = 0.0
        self._began = time.perf_counter()
        self._progress = progress and ranks.first

    @contextmanager
    def begun(self, resume: bool) -> Iterator[None]:
        """Lock the folder, and resume the run in it if there is one."""
        try:
            if self._ranks.lead(lambda: self._folder.open(resume)):
                self._restore()
            yield
        finally:
            self._folder.close()

    def _restore(self) -> None:
        """Load the last checkpoint; check that the best one is there."""
        saved = self._folder.read(self._config, self._digests, self._ranks.size, self._fingerprint)
        own = saved["ranks"][self._ranks.rank]
        try:
            self._algorithm.load_state(saved["algorithm"] | own)
        except (RuntimeError, KeyError, ValueError) as error:
            why = str(error).strip().partition("\n")[0]
            raise MixsolveError(
                f"the checkpoint {self._folder.last} does not fit the networks of "
                f"model.architecture = {self._config.model.architecture!r}: {why}; restore the "
                "code that it was begun with, or choose another folder"
            ) from error
        self._records, self._seconds = saved["records"], saved["seconds"]
        self._saved = self._algorithm.t
        self._kept = self._ranks.lead(lambda: self._folder.kept(self._records))
        if self._records and self._kept is None:
            self._replace_best()

    def _replace_best(self) -> None:
        """Replace the lost checkpoint of the best epoch by the last epoch."""
        record = self._records[-1]
        lost = _most_robust(self._records)["epoch"]
        words = f"{self._folder.best} is lost or damaged, and with it epoch {lost}"
        if record["step"] == self._algorithm.t:
            self._keep(record)
            logger.warning("%s; epoch %d, the last one, takes its place", words, record["epoch"])
        else:
            logger.warning("%s; the most robust one of those to come takes its place", words)

    def finish(self) -> Training:
        """Make the remaining steps, and the final evaluation."""
        algorithm, config = self._algorithm, self._config
        epoch = algorithm.steps_per_epoch * config.evaluation.every
        with (
            Interrupt(True, signal.SIGTERM, repeated=self._ranks.size > 1) as interrupt,
            Journal(
                self._folder.path,
                records=self._records,
                tensorboard=config.run.tensorboard,
                progress=self._progress,
                total=algorithm.steps,
                write=self._ranks.first,
            ) as journal,
        ):
            journal.advance(algorithm.t)
            while not algorithm.done:
                self._step()
                journal.advance(1)
                if algorithm.t % epoch == 0 or algorithm.done:
                    self._close_epoch(journal, -(-algorithm.t // epoch))
                elif config.run.save_every and algorithm.t % config.run.save_every == 0:
                    self._save()
                received = self._ranks.heard(interrupt.number, now=algorithm.done)
                if received:
                    self._interrupted(interrupt, received)
        self._ranks.wait()
        kept = checkpoint.load(self._folder.best)
        return self._ending.reach(list(algorithm.evaluated.models), self._records, kept)

    def _step(self) -> None:
        try:
            self._algorithm.step()
        except MixsolveError as error:
            if not self._algorithm.finite():
                raise self._diverged("the networks are no longer finite") from error
            raise

    def _interrupted(self, interrupt: Interrupt, number: int) -> None:
        """Save, and end as the signal demands: all ranks after the same step."""
        self._save()
        if self._ranks.first:
            logger.warning(
                "interrupted by %s at step %d of %d; saved to %s: resume from there",
                signal.Signals(number).name,
                self._algorithm.t,
                self._algorithm.steps,
                self._folder.last,
            )
        interrupt.end(number)

    def _diverged(self, what: str) -> MixsolveError:
        """Return the error of a run whose losses or networks are no longer finite."""
        kept = (
            "no checkpoint was written before"
            if self._saved is None
            else f"the checkpoint of step {self._saved}, before that, is in {self._folder.last}"
        )
        return MixsolveError(
            f"{what}; lower optimizer.learning_rate, which was "
            f"{self._config.optimizer.learning_rate:g}; {kept}"
        )

    def _close_epoch(self, journal: Journal, epoch: int) -> None:
        algorithm = self._algorithm
        summary = algorithm.summary()
        if not math.isfinite(summary.get("train_loss", 0.0)):
            raise self._diverged(
                f"the training loss became {summary['train_loss']} in epoch {epoch}"
            )
        self._check_finite()
        record = {
            "epoch": epoch,
            "step": algorithm.t,
            "seconds": self._elapsed(),
            "learning_rate": algorithm.learning_rate,
            **summary,
            "weights": algorithm.evaluated.weights.tolist(),
            **self._measured_now(epoch),
            "split": self._config.evaluation.select,
        }
        self._records.append(record)
        journal.log(record)
        self._warn_of_forgotten(record)
        if self._kept is None or _place(record) > _place(self._kept):
            self._keep(record)
        self._save()

    def _warn_of_forgotten(self, record: dict[str, Any]) -> None:
        """Warn once of each network that lost its robustness."""
        count = min(self._config.evaluation.images or len(self._measured), len(self._measured))
        for k in set(forgotten(record, count)) - self._warned - self._algorithm.unfinished:
            self._warned.add(k)
            models = record["robust"]["models"]
            logger.warning(
                "network %d, of weight %.2f, has %.1f %% robust accuracy, less than half of the "
                "best one's %.1f %%: the mixture is hardly more than the others; take "
                "weights.update = 'none' or a larger weights.floor or attack.own_share, or train "
                "it longer",
                *(k + 1, record["weights"][k], 100 * models[k], 100 * max(models)),
            )

    def _keep(self, record: dict[str, Any]) -> None:
        """Write the best checkpoint."""
        self._kept = record
        if self._ranks.first:
            mixture = self._algorithm.evaluated
            checkpoint.save(
                kept_state(self._config.to_dict(), record, mixture, self._classes),
                self._folder.best,
            )

    def _measured_now(self, epoch: int) -> dict[str, dict[str, Any]]:
        try:
            return measure_epoch(
                self._algorithm.measured, self._measured, self._config, self._ranks
            )
        except MixsolveError as error:  # finite parameters, but logits that overflow
            words = f"the networks of epoch {epoch} could not be measured: {error}"
            raise self._diverged(words) from error

    def _check_finite(self) -> None:
        """Refuse, on all ranks, networks that are not finite: they are not written down."""
        broken = torch.tensor(float(not self._algorithm.finite()), device=self._ranks.device)
        if self._ranks.mean(broken):
            raise self._diverged(
                "a loss, or parameters of a network, became NaN or infinite by step "
                f"{self._algorithm.t}"
            )

    def _save(self) -> None:
        self._check_finite()
        state = self._algorithm.state()
        own = self._ranks.collect({name: state.pop(name) for name in ("own", "totals", "passes")})
        if self._ranks.first:
            self._folder.write(
                {
                    "config": self._config.to_dict(),
                    "data": self._digests,
                    "attack": self._fingerprint,
                    "algorithm": state,
                    "ranks": own,
                    "records": self._records,
                    "seconds": self._elapsed(),
                }
            )
        self._saved = self._algorithm.t
        self._ranks.wait()

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._began


def _place(record: dict[str, Any]) -> tuple[int, float]:
    """Return what epochs are ranked by: the networks that are trained, then robust accuracy."""
    return len(record.get("weights", ())), record["robust"]["mixture"]


def _most_robust(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first record of the most networks and the highest robust accuracy."""
    return max(records, key=_place)
