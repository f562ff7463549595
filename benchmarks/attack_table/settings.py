"""The mixtures that are attacked: networks that anyone can train in minutes on a CPU.

Digits networks learn plainly or on PGD attacks (AT). Two mixtures hide their gradients: one network
sees images rounded to 8 levels, where the gradient is zero, one returns softmax(100 z), which
saturates. Each mixture plays its networks with equal probabilities, but for those of Algorithm 2,
which have the weights that it found.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mixsolve_torch import PGD, Mixture, digits, digits_cnn, fit, load_data, mnist_cnn, to_unit
from mixsolve_torch.data.arrays import Split
from mixsolve_torch.training import (
    AttackConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    WeightsConfig,
)
from mixsolve_torch.training.loop import train

_EPOCHS = {"digits": 20, "fashion-mnist": 2}
_TRAINED_ON = {"digits": None, "fashion-mnist": 20_000}


class Rounded(nn.Module):
    """A network that sees images rounded to 8 levels: its gradient is zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the rounded images."""
        return self.model((7 * x).round() / 7)


class Saturated(nn.Module):
    """A network that returns softmax(100 z): its gradient vanishes in floating point."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the probabilities."""
        return (100 * self.model(x)).softmax(dim=1)


@dataclass(frozen=True)
class Setting:
    """One column of the table.

    Attributes
    ----------
    norm, eps
        The ball of the attacks; the networks are trained on attacks of it too.
    build : callable
        Makes the mixture, given norm, radius and seed.
    data : {"digits", "fashion-mnist"}
        What the networks are trained on.
    hidden : bool
        Whether a network hides its gradient.
    """

    norm: str
    eps: float
    build: Callable[[str, float, int], Mixture]
    data: str = "digits"
    hidden: bool = False

    def images(self, count: int, seed: int) -> Split:
        """Return the first held-out images and their labels."""
        if self.data == "digits":
            held_out = digits(seed=seed).test
            return Split(held_out.images[:count], held_out.labels[:count])
        found = load_data(self.data, limit=count)
        return Split(to_unit(found.images), found.labels)


@functools.cache
def _training(data: str, seed: int) -> Split:
    if data == "digits":
        return digits(seed=seed).train
    found = load_data(data, split="train", limit=_TRAINED_ON[data])
    return Split(to_unit(found.images), found.labels)


@functools.cache
def _network(
    data: str, norm: str, eps: float, seed: int, number: int, robust: bool, beside: int | None
) -> nn.Module:
    """Train a network; with `beside`, on attacks against it and another one together."""
    draws = 10 * seed + number
    model = digits_cnn(seed=draws) if data == "digits" else mnist_cnn(seed=draws)
    others = () if beside is None else (_network(data, norm, eps, seed, beside, True, None),)
    fit(
        model,
        _training(data, seed),
        epochs=_EPOCHS[data],
        attack=PGD(norm, eps, steps=5, loss="margin") if robust else None,
        alongside=others,
        batch_size=128,
        learning_rate=5e-3 if data == "digits" else 2e-3,
        seed=draws,
    )
    return model.eval()


def _mixed(*members: tuple[int, bool, int | None], data: str = "digits") -> Callable[..., Mixture]:
    """Return what makes the uniform mixture of networks: number, trained on attacks, beside."""

    def build(norm: str, eps: float, seed: int) -> Mixture:
        return Mixture([_network(data, norm, eps, seed, *member) for member in members])

    return build


def _hiding(wrapper: Callable[[nn.Module], nn.Module]) -> Callable[..., Mixture]:
    def build(norm: str, eps: float, seed: int) -> Mixture:
        return Mixture([wrapper(_network("digits", norm, eps, seed, 1, True, None))])

    return build


def _algorithm2(norm: str, eps: float, seed: int) -> Mixture:
    """Train two networks and their weights by Algorithm 2 of the paper."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            method="algorithm2",
            model=ModelConfig(count=2),
            weights=WeightsConfig("oracle", floor=0.0, final="last"),
            attack=AttackConfig(norm=norm, eps=eps, steps=5),
            optimizer=OptimizerConfig(epochs=10),
            evaluation=EvaluationConfig(every=5, final_steps=5, final_restarts=1, final_images=16),
            run=RunConfig(out=Path(folder) / "run", seed=seed),
        )
        return train(config).mixture


_PLAIN, _FIRST, _SECOND, _BESIDE = (
    (0, False, None),
    (1, True, None),
    (2, True, None),
    (3, True, 1),
)
SETTINGS = {
    "one AT network": Setting("Linf", 0.15, _mixed(_FIRST)),
    "two AT networks": Setting("Linf", 0.15, _mixed(_FIRST, _SECOND)),
    "plain + AT": Setting("Linf", 0.15, _mixed(_PLAIN, _FIRST)),
    "plain + two AT": Setting("Linf", 0.15, _mixed(_PLAIN, _FIRST, _SECOND)),
    "second beside first": Setting("Linf", 0.15, _mixed(_FIRST, _BESIDE)),
    "Algorithm 2": Setting("Linf", 0.15, _algorithm2),
    "two on L2": Setting("L2", 0.8, _mixed(_FIRST, _SECOND)),
    "two on L1": Setting("L1", 3.0, _mixed(_FIRST, _SECOND)),
    "Fashion-MNIST": Setting(
        "Linf", 0.1, _mixed(_FIRST, _SECOND, data="fashion-mnist"), data="fashion-mnist"
    ),
    "rounded": Setting("Linf", 0.15, _hiding(Rounded), hidden=True),
    "saturated": Setting("Linf", 0.15, _hiding(Saturated), hidden=True),
}
