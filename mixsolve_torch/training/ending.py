"""What comes after the last step: final weights, strong attacks, and the choice of what to deploy.

The most robust epoch gets its final weights, is attacked on the test set, and is compared with
single networks: the one that wins is in `deploy.pt`. Without final attacks they are compared on
held-out images, under the attacks that epochs are measured with. With the objective "worst-group"
the mixture is of the run's snapshots, and the best snapshot is what it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mixsolve import plots
from mixsolve.plots.history import training_history
from mixsolve_torch.attacks.registry import Attacks
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.evaluation.evaluate import evaluate
from mixsolve_torch.evaluation.report import Evaluation
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.deployment import Rival, decide, decide_on_worst_class
from mixsolve_torch.training.final_weights import solve_weights
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.measure import found_losses
from mixsolve_torch.training.networks import as_run
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.snapshot_weights import Chosen, choose, find_candidates
from mixsolve_torch.training.snapshots import Pool, read_snapshots
from mixsolve_torch.training.verdict import Verdict


@dataclass(frozen=True)
class Training:
    """The result of a run.

    Attributes
    ----------
    mixture : Mixture
        That of the most robust epoch, with its final weights, in eval mode.
    records : list of dict
        Metrics, one record an epoch; what `metrics.jsonl` holds.
    best : dict
        The record of the epoch kept.
    evaluation : Evaluation or None
        Under the final attacks; None if there were none, or on a rank that does not write.
    folder : Path
        Of checkpoints, metrics and pictures.
    verdict : Verdict or None
        Whether the mixture or a single network is to be deployed; None on a rank that does not
        write.
    deploy : Path or None
        The file of the one to deploy, for `load_trained`; None where `verdict` is.
    """

    mixture: Mixture
    records: list[dict[str, Any]]
    best: dict[str, Any]
    evaluation: Evaluation | None
    folder: Path
    verdict: Verdict | None = None
    deploy: Path | None = None


@dataclass(frozen=True)
class Ending:
    """What the end of a run works with.

    Attributes
    ----------
    config : TrainConfig
        The settings.
    ranks : Ranks
        This process among those of the run.
    folder : Path
        Of the run.
    validation : ImageSet
        Images that were not trained on, for the weights.
    test : ImageSet or None
        Those of the final attacks.
    classes : int
        Number of classes.
    rival : Rival or None
        A network that was trained alone.
    final : str, Attack, callable, or iterable of them, optional
        The final attacks, in place of those that the settings name.
    progress : bool
        Show progress bars.
    """

    config: TrainConfig
    ranks: Ranks
    folder: Path
    validation: ImageSet
    test: ImageSet | None
    classes: int
    rival: Rival | None = None
    final: Attacks | None = None
    progress: bool = False

    def reach(
        self, models: Sequence[nn.Module], records: list[dict[str, Any]], kept: dict[str, Any]
    ) -> Training:
        """Evaluate the networks kept, and write down what came out and what to deploy.

        Parameters
        ----------
        models : sequence of torch.nn.Module of length L
            Those that the parameters of the epoch kept are loaded into.
        records : list of dict
            Of all epochs.
        kept : dict
            What the file of that epoch holds.
        """
        if self.config.objective == "worst-group":
            return self._from_snapshots(records, kept["record"])
        for model, saved in zip(models, kept["models"], strict=True):
            model.load_state_dict(saved)
        mixture = Mixture(models, kept["weights"]).eval()
        if len(models) > 1 and self.config.weights.final == "game":
            mixture.set_weights(self.ranks.lead(lambda: self._solved(mixture)))
        evaluation = verdict = deploy = None
        if self.ranks.first:
            plots.save(training_history(records), self.folder / "history.png")
            if self.final is not None or self.config.evaluation.final != "none":
                evaluation = self._attacked(mixture)
                evaluation.to_json(self.folder / "evaluation.json")
                evaluation.plot(self.folder / "evaluation.png")
            verdict, deploy = self._decide(mixture, evaluation, kept["record"])
        return Training(mixture, records, kept["record"], evaluation, self.folder, verdict, deploy)

    def _decide(
        self, mixture: Mixture, evaluation: Evaluation | None, record: dict[str, Any]
    ) -> tuple[Verdict, Path]:
        """Compare the mixture with single networks, and write down the one that wins."""
        rival = None if self.rival is None else self.rival.mixture
        split: Literal["test", "held-out"] = "held-out" if evaluation is None else "test"
        if evaluation is None:
            losses, labels = self._held_out(mixture)
            alone = None if rival is None else self._held_out(rival)[0]
        else:
            assert self.test is not None
            losses = evaluation.losses
            labels = self.test.labels.cpu().numpy()[evaluation.images]
            alone = None if rival is None else self._attacked(rival).losses
        compared = None if self.rival is None or alone is None else (self.rival, alone)
        verdict, winner = decide(
            mixture, losses, labels, compared, record, self.config, self.classes, split
        )
        verdict.to_json(self.folder / "verdict.json")
        checkpoint.save(winner, self.folder / "deploy.pt")
        return verdict, self.folder / "deploy.pt"

    def _from_snapshots(self, records: list[dict[str, Any]], record: dict[str, Any]) -> Training:
        """Mix the snapshots of the run for the worst class, and compare with the best of them."""
        pool = read_snapshots(self.folder, self.ranks.device)
        picked = self.ranks.lead(lambda: self._picked(pool))
        mixture = pool.mixture(picked.kept, picked.weights)
        evaluation = verdict = deploy = None
        if self.ranks.first:
            plots.save(training_history(records), self.folder / "history.png")
            place = picked.kept.index(picked.single)
            name = f"the snapshot of epoch {pool.epochs[picked.single]}"
            if self.final is not None or self.config.evaluation.final != "none":
                evaluation = self._attacked(mixture, [pool.name(k) for k in picked.kept])
                evaluation.to_json(self.folder / "evaluation.json")
                evaluation.plot(self.folder / "evaluation.png")
                assert self.test is not None
                losses, mixed = evaluation.losses, None
                labels = self.test.labels.cpu().numpy()[evaluation.images]
                alone = 1.0 - losses[..., place].max(axis=1)
            else:
                losses, labels = picked.losses[..., picked.kept], picked.labels
                mixed, alone = picked.crossed(self.config)
            verdict, winner = decide_on_worst_class(
                *(mixture, (place, name, alone), losses, labels, record),
                *(self.config, self.classes, mixed),
            )
            deploy = self.folder / "deploy.pt"
            verdict.to_json(self.folder / "verdict.json")
            checkpoint.save(winner, deploy)
        return Training(mixture, records, record, evaluation, self.folder, verdict, deploy)

    def _picked(self, pool: Pool) -> Chosen:
        """Choose snapshots and weights on held-out images."""
        uniform = self._as_run(pool.mixture(range(len(pool.models))))
        count = self.validation.at_most(self.config.worst_group.images)
        losses, labels = find_candidates(
            *(uniform, self.validation, count, self.config, self.folder / "attacks" / "weights"),
            progress=self.progress,
        )
        return choose(losses, labels, self.config)

    def _solved(self, mixture: Mixture) -> list[float]:
        folder = self.folder / "attacks" / "weights"
        return solve_weights(
            self._as_run(mixture), self.validation, self.config, folder, progress=self.progress
        ).tolist()

    def _as_run(self, mixture: Mixture) -> Mixture:
        """Return a mixture whose networks are compiled, if configured; they are the same."""
        return Mixture(as_run(list(mixture.models), self.config), mixture.weights).eval()

    def _held_out(self, mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
        """Return losses (N, m, L) and labels (N,) of images that were not trained on."""
        count = self.validation.at_most(self.config.evaluation.images)
        losses = found_losses(self._as_run(mixture), self.validation, count, self.config)
        return losses, self.validation.labels[:count].cpu().numpy()

    def _attacked(self, mixture: Mixture, names: Sequence[str] | None = None) -> Evaluation:
        """Attack a mixture strongly; the attacks of an interrupted call are not repeated."""
        config = self.config.evaluation
        assert self.test is not None
        count = self.test.at_most(config.final_images)
        x, y = self.test.batch(torch.arange(count))
        return evaluate(
            self._as_run(mixture),
            (x, y),
            config.final if self.final is None else self.final,
            **self.config.attack.declared,
            steps=config.final_steps,
            restarts=config.final_restarts,
            seed=self.config.run.seed,
            names=names,
            groups="class" if self.config.objective == "worst-group" else None,
            held_out=False,  # networks and mixture did not see these images; all are reported on
            out=self.folder / "attacks",
            progress=self.progress,
        )
