"""A whole training run: the steps of a method, measurements, checkpoints and the evaluation.

After every epoch (a pass over the data for each model) the mixture and each of its models are
measured under APGD, and everything is written to `last.pt`; the most robust epoch is in `best.pt`.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mixsolve.base.arguments import check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve.uncompiled.choice import compiled_alone
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.registry import Attacks
from mixsolve_torch.data.batching import Data
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.fingerprint import describe
from mixsolve_torch.runs.interrupt import Interrupt
from mixsolve_torch.training import held_out
from mixsolve_torch.training.adversary import given_attack
from mixsolve_torch.training.callbacks import Callbacks, Step
from mixsolve_torch.training.checkpoints import Checkpoints
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.deployment import read_rival
from mixsolve_torch.training.ending import Ending, Training
from mixsolve_torch.training.epochs import Epochs
from mixsolve_torch.training.initial import initial_networks, read_pretrained
from mixsolve_torch.training.journal import Journal
from mixsolve_torch.training.measure import measure_epoch
from mixsolve_torch.training.networks import room_to_compile
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.run_folder import RunFolder
from mixsolve_torch.training.steps import Steps

logger = logging.getLogger(__name__)


@compiled_alone()
def train(
    config: TrainConfig,
    *,
    data: Data | None = None,
    test: Data | None = None,
    attack: Attack | Callable[..., Any] | None = None,
    final: Attacks | None = None,
    callbacks: Sequence[Any] = (),
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
        ``config.data`` names. They are read once, into memory; with ``config.data.workers`` those
        of a `Dataset` stay where they are.
    test : as `data`, optional
        Images of the final attacks, instead of those that ``config.data`` names.
    attack : Attack or callable, optional
        What batches are trained on, in place of PGD on the mixture: an attack, a function of images
        and labels, or an attack object of another library (see `External`), in the set that
        ``config.attack`` declares. Of an attack that yields several candidates the first counts.
    final : str, Attack, callable, or iterable of them, optional
        The final attacks, in place of ``config.evaluation.final``; what `evaluate` takes.
    callbacks : list of objects, optional
        Called after steps and epochs and at the end: each has one or more of the methods of
        `Callback`. Of several ranks the first one calls them.
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
    with Ranks(config.run.device) as ranks, room_to_compile(config):
        called = Callbacks(callbacks, ranks.first)
        run = _TrainingRun(config, ranks, progress, called, data, test, attack, final)
        with run.begun(resume):
            training = run.finish()
        called.end(training)
        return training


class _TrainingRun:
    """One process of a run."""

    def __init__(
        self,
        config: TrainConfig,
        ranks: Ranks,
        progress: bool,
        callbacks: Callbacks,
        data: Data | None = None,
        test: Data | None = None,
        attack: Attack | Callable[..., Any] | None = None,
        final: Attacks | None = None,
    ) -> None:
        self._config = config
        self._callbacks = callbacks
        given = None if attack is None else given_attack(attack, config.attack)
        self._ranks = ranks
        self._folder = RunFolder(config.run.out)
        images = held_out.load(config, data, test)
        ranks.agree(images.digests, "data.name must give the same images on every rank")
        self._checkpoints = Checkpoints(
            config,
            self._folder,
            ranks,
            images.digests,
            None if given is None else describe(given),
        )
        self._measured = images.measured.to(ranks.device)
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
        models = initial_networks(config, images.classes, ranks.device)
        self._algorithm = Steps(config, models, images.fitted.to(ranks.device), ranks, given)
        if not self._folder.begun:
            self._algorithm.begin(read_pretrained(config, images.classes, ranks))
        labels = self._measured.labels[: self._measured.at_most(config.evaluation.images)]
        self._epochs = Epochs(config, self._folder, ranks, images.classes, labels)
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
        algorithm = self._algorithm
        records = self._checkpoints.restore(algorithm)
        self._epochs.restore(records, algorithm.t, lambda: algorithm.evaluated)

    def finish(self) -> Training:
        """Make the remaining steps, and the final evaluation."""
        algorithm, config = self._algorithm, self._config
        epoch = algorithm.steps_per_epoch * config.evaluation.every
        with (
            Interrupt(True, signal.SIGTERM, repeated=self._ranks.size > 1) as interrupt,
            Journal(
                self._folder.path,
                records=self._epochs.records,
                tensorboard=config.run.tensorboard,
                progress=self._progress,
                total=algorithm.steps,
                write=self._ranks.first,
            ) as journal,
        ):
            journal.advance(algorithm.t)
            while not algorithm.done:
                rate = algorithm.learning_rate
                self._step()
                journal.advance(1)
                if self._callbacks.watch_steps:
                    step = Step(algorithm.t, algorithm.steps, rate, algorithm.loss)
                    self._callbacks.step(step, self._checkpoints.resumable())
                measured = algorithm.t % epoch == 0 or algorithm.done
                if measured:
                    self._close_epoch(journal, -(-algorithm.t // epoch))
                if algorithm.between_stages:
                    self._close_stage()
                elif (
                    not measured
                    and config.run.save_every
                    and algorithm.t % config.run.save_every == 0
                ):
                    self._save()
                received = self._ranks.heard(interrupt.number, now=algorithm.done)
                if received:
                    self._interrupted(interrupt, received)
        self._ranks.wait()
        kept = checkpoint.load(self._folder.best)
        return self._ending.reach(list(algorithm.evaluated.models), self._epochs.records, kept)

    def _step(self) -> None:
        try:
            self._algorithm.step()
        except MixsolveError as error:
            if not self._algorithm.finite():
                raise self._checkpoints.diverged("the networks are no longer finite") from error
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

    def _close_epoch(self, journal: Journal, epoch: int) -> None:
        algorithm = self._algorithm
        summary = algorithm.summary()
        if not math.isfinite(summary.get("train_loss", 0.0)):
            raise self._checkpoints.diverged(
                f"the training loss became {summary['train_loss']} in epoch {epoch}"
            )
        self._checkpoints.check_finite(algorithm)
        record = {
            "epoch": epoch,
            "step": algorithm.t,
            "seconds": self._checkpoints.seconds,
            "learning_rate": algorithm.learning_rate,
            **summary,
            "weights": algorithm.evaluated.weights.tolist(),
            **self._measured_now(epoch),
            "split": self._config.evaluation.select,
        }
        journal.log(record)
        self._epochs.add(record, algorithm.evaluated, algorithm.unfinished, last=algorithm.done)
        self._save()
        self._callbacks.epoch(record, self._checkpoints.resumable())

    def _close_stage(self) -> None:
        """Put the network whose stage ended back to its most robust epoch, and save."""
        self._ranks.wait()
        if self._folder.best.exists():
            self._algorithm.adopt(checkpoint.load(self._folder.best)["models"])
        self._save()

    def _measured_now(self, epoch: int) -> dict[str, dict[str, Any]]:
        try:
            return measure_epoch(
                self._algorithm.measured, self._measured, self._config, self._ranks
            )
        except MixsolveError as error:  # finite parameters, but logits that overflow
            words = f"the networks of epoch {epoch} could not be measured: {error}"
            raise self._checkpoints.diverged(words) from error

    def _save(self) -> None:
        self._checkpoints.write(self._algorithm, self._epochs.records)
