"""The settings of a training run: typed sections, read from a TOML file and the command line.

The article fixes the data sets, ResNet-18, eps = 8/255, PGD with 10 steps, batches of 1024 and 200
epochs per model. It leaves open the learning rate and its schedule, T_theta, T_lambda, the
candidates that the weights are updated on and how: those defaults are this project's choices.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.training.settings import (
    AttackConfig,
    BoostingConfig,
    DataConfig,
    DvergeConfig,
    EvaluationConfig,
    GrowConfig,
    LossConfig,
    ModelConfig,
    MRBoostConfig,
    OptimizerConfig,
    RunConfig,
    WeightsConfig,
    WorstGroupConfig,
)


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Parameters
    ----------
    data : DataConfig
        The images.
    model : ModelConfig
        The classifiers.
    loss : LossConfig
        What they are trained on.
    attack : AttackConfig
        The attack during training; its ball, or its threats, are those of all evaluations.
    weights : WeightsConfig
        How the mixture is updated.
    optimizer : OptimizerConfig
        The descent.
    evaluation : EvaluationConfig
        What is measured.
    run : RunConfig
        Where and how it runs.
    boosting : BoostingConfig
        Of methods that add one network after another.
    mrboost : MRBoostConfig
        Of "mrboost".
    dverge : DvergeConfig
        Of "dverge".
    grow : GrowConfig
        Of "grow".
    worst_group : WorstGroupConfig
        Of the objective "worst-group".
    method : {"together", "algorithm2", "boosting", "mrboost", "grow", "dverge"}
        "together": every step trains all networks on one attack on the mixture. "algorithm2": every
        step trains one network, drawn at random, as in the article. "boosting": one network after
        another, each on attacks on the mixture of those up to it. "mrboost": one after another,
        each on attacks on the ensemble of those up to it, to raise its margins. "grow": one after
        another, each on the attacker's equilibrium strategy against those before it. "dverge":
        every step trains all networks, each on images with the features that the others rely on
        too.
    objective : {"mean", "worst-group"}
        "mean": the accuracy on all images. "worst-group": that on the worst class. One network is
        trained with weights on the classes, and a mixture of its own snapshots is compared with the
        best of them.

    Raises
    ------
    MixsolveError
        A value that is out of its range; the message names it as the configuration file does.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    run: RunConfig = field(default_factory=RunConfig)
    boosting: BoostingConfig = field(default_factory=BoostingConfig)
    mrboost: MRBoostConfig = field(default_factory=MRBoostConfig)
    dverge: DvergeConfig = field(default_factory=DvergeConfig)
    grow: GrowConfig = field(default_factory=GrowConfig)
    worst_group: WorstGroupConfig = field(default_factory=WorstGroupConfig)
    method: Literal["together", "algorithm2", "boosting", "mrboost", "grow", "dverge"] = "together"
    objective: Literal["mean", "worst-group"] = "mean"

    def __post_init__(self) -> None:
        """Check the values."""
        _check_choices("", self)
        for section in SECTIONS:
            values = getattr(self, section)
            values.check()
            _check_choices(f"{section}.", values)
        self._check_method()

    def _check_method(self) -> None:
        """Refuse settings that do not go with the method, or with the objective."""
        if self.objective == "worst-group":
            self._check_worst_group()
        if self.method == "dverge" and self.model.count < 2:
            raise MixsolveError(
                "method = 'dverge' trains networks on the features of the others: model.count must "
                f"be at least 2; got {self.model.count}"
            )
        if self.method == "mrboost" and (self.loss.name, self.loss.member) != PLAIN:
            raise MixsolveError(
                "method = 'mrboost' has a loss of its own, of both sides of the margin: leave out "
                f"loss.name and loss.member; got {self.loss.name!r} and {self.loss.member!r}"
            )
        if self.method not in STAGED:
            return
        if self.weights.update != "none":
            raise MixsolveError(
                f"weights.update must be 'none' with method = {self.method!r}, which adds one "
                f"network after another and has their weights solved at the end; got "
                f"{self.weights.update!r}"
            )
        if self.boosting.fixed >= self.model.count:
            raise MixsolveError(
                f"boosting.fixed must be less than model.count, {self.model.count}; got "
                f"{self.boosting.fixed}, which leaves no network to train"
            )
        if self.boosting.fixed and not self.model.pretrained:
            raise MixsolveError(
                f"boosting.fixed = {self.boosting.fixed} needs networks that are trained already: "
                "name their files in model.pretrained"
            )

    def _check_worst_group(self) -> None:
        """Refuse settings that do not go with one network and its snapshots."""
        fixed = {
            "method": (self.method, "together"),
            "model.count": (self.model.count, 1),
            "attack.own_share": (self.attack.own_share, 0.0),
            "evaluation.compare": (self.evaluation.compare, None),
        }
        for name, (value, only) in fixed.items():
            if value != only:
                raise MixsolveError(
                    "objective = 'worst-group' trains one network by a method of its own and "
                    f"compares a mixture of its snapshots with the best of them: {name} must be "
                    f"{only!r}; got {value!r}"
                )
        measured = -(-self.optimizer.epochs // self.evaluation.every)
        if self.worst_group.first > measured:
            raise MixsolveError(
                f"worst_group.first must be at most {measured}, the number of epochs measured, for "
                f"a snapshot to be kept; got {self.worst_group.first}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the sections as plain dictionaries, paths as strings."""
        return _plain(dataclasses.asdict(self))


STAGED = ("boosting", "mrboost", "grow")
PLAIN = ("at", "cross-entropy")
SECTIONS = tuple(
    entry.name
    for entry in dataclasses.fields(TrainConfig)
    if entry.default_factory is not dataclasses.MISSING
)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _check_choices(prefix: str, values: Any) -> None:
    for name, hint in get_type_hints(type(values)).items():
        value = getattr(values, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            words = ", ".join(repr(word) for word in get_args(hint))
            raise MixsolveError(f"{prefix}{name} must be one of {words}; got {value!r}")
