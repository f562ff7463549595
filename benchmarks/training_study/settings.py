"""What is trained (settings: network, ball, loss), and ways to spend passes on it (recipes).

Single networks are also trained two and three times as long: a mixture is compared with those that
took no more passes. The networks of "apart" differ by their seeds alone. The recipes stand in the
order in which they are trained: first those of at most two networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from mixsolve_torch.models.architectures import Normalize
from mixsolve_torch.training.config import (
    AttackConfig,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)

DATA = "fashion-mnist"
HELD_OUT = 1_000  # training images that weights are solved and epochs selected on
BATCH = 64
EVERY = 2  # epochs between two measurements
_STEPS = 10
_BALLS = {"Linf": 0.1, "L2": 1.5}
_MEAN, _STD = 0.2860, 0.3530  # of Fashion-MNIST
_MLP = "benchmarks.training_study.settings:mlp"


def mlp(*, classes: int = 10) -> nn.Sequential:
    """Return 128 ReLU units on images averaged to 14 x 14: 26,506 parameters.

    CNNs with 4 or 8 channels in place of 16 stay constant under attacks of this radius.
    """
    return nn.Sequential(
        Normalize([_MEAN], [_STD]),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(14 * 14, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


@dataclass(frozen=True)
class Setting:
    """An architecture, a ball and a loss.

    Attributes
    ----------
    architecture : str
        As `build_model` takes it.
    norm : {"Linf", "L2"}
        Of the ball; its radius follows.
    loss : {"at", "trades"}
        Of the training.
    """

    architecture: str
    norm: str
    loss: str

    @property
    def eps(self) -> float:
        """The radius."""
        return _BALLS[self.norm]


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes
    ----------
    networks : int
        L.
    epochs : int
        Factor of the epochs of the setting.
    options : mapping of str to mapping
        Of `TrainConfig`, by section; "method" by itself.
    apart : bool
        Networks of single runs, put together by the game on held-out images.
    losses : tuple of str
        The losses that it goes with.
    """

    networks: int
    epochs: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    apart: bool = False
    losses: tuple[str, ...] = ("at", "trades")


SETTINGS = {
    f"{name}, {norm}, {loss}": Setting(architecture, norm, loss)
    for name, architecture in (("MLP", _MLP), ("CNN", "mnist-cnn"))
    for norm in _BALLS
    for loss in ("at", "trades")
}

RECIPES = {
    "one": Recipe(1),
    "one, 2x as long": Recipe(1, epochs=2),
    "two together": Recipe(2),
    "two apart": Recipe(2, apart=True),
    "two, boosting": Recipe(2, options={"method": "boosting"}),
    "two, Algorithm 2": Recipe(
        2, options={"method": "algorithm2", "weights": {"update": "oracle"}}
    ),
    "two, DVERGE": Recipe(2, options={"method": "dverge"}),
    "two, MRBoost": Recipe(2, options={"method": "mrboost"}, losses=("at",)),
    "two, half of each batch their own": Recipe(2, options={"attack": {"own_share": 0.5}}),
    "one, bounded loss": Recipe(1, options={"loss": {"member": "error"}}),
    "two together, bounded loss": Recipe(2, options={"loss": {"member": "error"}}),
    "two, grown": Recipe(2, options={"method": "grow"}),
    "one, 3x as long": Recipe(1, epochs=3),
    "three together": Recipe(3),
    "three apart": Recipe(3, apart=True),
    "three, boosting": Recipe(3, options={"method": "boosting"}),
    "three, Algorithm 2": Recipe(
        3, options={"method": "algorithm2", "weights": {"update": "oracle"}}
    ),
}


def recipes(title: str) -> list[str]:
    """Return the recipes that go with the loss of a setting."""
    loss = SETTINGS[title].loss
    return [name for name, recipe in RECIPES.items() if loss in recipe.losses]


def configuration(
    setting: Setting, recipe: Recipe, seed: int, out: Path, *, images: int, epochs: int
) -> TrainConfig:
    """Return the run of a recipe with common training.

    Parameters
    ----------
    setting, recipe
        What and how.
    seed : int
        Of the run.
    out : path
        Its folder.
    images : int
        Training images, from the first on.
    epochs : int
        Of each network, unless the recipe multiplies them.
    """
    options = {name: dict(own) for name, own in recipe.options.items() if name != "method"}
    attack = {"norm": setting.norm, "eps": setting.eps, "steps": _STEPS}
    return TrainConfig(
        data=DataConfig(DATA, limit=images, validation=(HELD_OUT + 0.5) / images),
        model=ModelConfig(setting.architecture, recipe.networks, **options.pop("model", {})),
        loss=LossConfig(**{"name": setting.loss, **options.pop("loss", {})}),
        attack=AttackConfig(**{**attack, **options.pop("attack", {})}),
        optimizer=OptimizerConfig(
            epochs=recipe.epochs * epochs,
            batch_size=BATCH,
            learning_rate=0.05,
            schedule="cyclic",
        ),
        evaluation=EvaluationConfig(images=HELD_OUT, every=EVERY, final="none"),
        run=RunConfig(out=str(out), seed=seed, device="cpu", tensorboard=False, save_every=50),
        **{"method": recipe.options["method"]} if "method" in recipe.options else {},
        **_sections(options),
    )


def _sections(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sections that only some recipes set."""
    plain = TrainConfig()
    return {name: type(getattr(plain, name))(**own) for name, own in options.items()}
