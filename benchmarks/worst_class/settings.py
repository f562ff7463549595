"""Images, network and configurations of the figure: everything that is fixed before it is run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixsolve_torch import load_data
from mixsolve_torch.training import (
    AttackConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    WorstGroupConfig,
)

NORM, EPS = "Linf", 0.1
FITTED, VALIDATION, TEST = 20_000, 10_000, 10_000  # images trained on, chosen on, reported on
FEWER = VALIDATION // 3
RATES = (0.005, 0.02)  # of the weights on classes: which is best is chosen on validation
EPOCHS, FIRST = 10, 3  # the epochs of a run, and of its first snapshot
STEPS = 5  # of PGD in training
_FOUND = 1000  # held-out images of the measurement after each epoch


def small_cnn(*, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Return a network for 14x14 grey images: two convolutions that halve them, 64 hidden units."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 16, 64),
            nn.ReLU(),
            nn.Linear(64, classes),
        )
    finally:
        torch.set_rng_state(generator_state)


@cache
def images(split: str) -> tuple[Tensor, Tensor]:
    """Return Fashion-MNIST, each image the means of its 2x2 pixels, and the labels."""
    count = FITTED + VALIDATION if split == "train" else TEST
    found = load_data("fashion-mnist", split=split, limit=count)
    return functional.avg_pool2d(found.images.float() / 255, 2), found.labels


def configuration(rate: float, seed: int, folder: Path) -> TrainConfig:
    """Return the settings of the run of a rate and a seed."""
    return TrainConfig(
        objective="worst-group",
        worst_group=WorstGroupConfig(rate=rate, first=FIRST),
        data=DataConfig(validation=VALIDATION / (FITTED + VALIDATION)),
        model=ModelConfig(architecture="benchmarks.worst_class.settings:small_cnn", count=1),
        attack=AttackConfig(norm=NORM, eps=EPS, steps=STEPS),
        optimizer=OptimizerConfig(
            epochs=EPOCHS, batch_size=128, learning_rate=0.05, schedule="cyclic"
        ),
        evaluation=EvaluationConfig(steps=10, images=_FOUND, final="none"),
        run=RunConfig(out=str(folder), seed=seed, device="cpu", tensorboard=False),
    )
