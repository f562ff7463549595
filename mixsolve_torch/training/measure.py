"""How robust a mixture under training is: its accuracy, and that of each model alone, under APGD.

APGD ascends the expected cross-entropy for half of the steps and, from another start, the expected
hinge for the other half; the stronger point of an image counts. The cross-entropy alone flatters,
and networks trained on attacks on their mixture more than others: its gradient hardly sees an image
that a network is sure of, and goes on pushing the networks that err already.
Against several sets the accuracy is that under APGD in each ball and all points of finite sets.

The mixture and each of its models are attacked on their own, and all are measured on all points
that were found: with e_ijk the error of model k on point j of image i, the accuracy is

    1 - mean_i max_j sum_k lam_k e_ijk,

with lam_k = 1 for a model alone. An attack on the expected loss alone flatters mixtures. The
attacks have the same draws every time, so that epochs and runs can be compared. The accuracy of the
mixture is told for each class too: a mean can rise while whole classes are given up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve_torch.attacks import APGD, Attack
from mixsolve_torch.attacks.ball import Ball
from mixsolve_torch.attacks.exhaustive import in_each
from mixsolve_torch.attacks.strongest import WorstOf
from mixsolve_torch.core.losses import errs
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data import checks
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.images import ImageSet, prepared
from mixsolve_torch.training.ranks import Ranks

_SEED = 0x5EED
_BATCH = 512  # images at a time
_FORGOTTEN = 0.5  # of the best network's accuracy
_ERRORS = 2  # standard errors by which an accuracy must be lower to be told


def measure_epoch(
    mixture: Mixture, data: ImageSet, config: TrainConfig, ranks: Ranks
) -> dict[str, dict[str, Any]]:
    """Return clean and robust accuracy of a mixture and of each of its models.

    Robust is against the worst point found for any of them, or the image itself. The data are the
    same on all ranks; each measures its part. The models' modes are restored.

    Returns
    -------
    dict
        "clean" and "robust", each with the accuracy of the "mixture", a list for the "models", and
        a list of that of the mixture on each of the "classes", None where one has no images.
    """
    count = data.at_most(config.evaluation.images)
    mine = ranks.part(torch.arange(count))
    generator = torch.Generator(ranks.device).manual_seed(_SEED)
    players = _players(mixture)
    everyone = torch.stack([weights.to(ranks.device) for weights in players])
    player = Mixture(mixture.models)
    attack = measuring_attack(config)
    errors = torch.zeros(2, len(players), dtype=torch.float64, device=ranks.device)
    labels = data.labels[:count]
    classes = int(labels.max()) + 1
    by_class = torch.zeros(2, classes, dtype=torch.float64, device=ranks.device)
    for stored, y in data.reader(mine.split(_BATCH)):
        x = prepared(stored)
        found = _found(player, players, attack, x, y, generator)
        both = torch.stack([everyone @ found[0], (everyone @ found).amax(dim=0)])
        errors += both.sum(dim=2)
        by_class.index_add_(1, y, both[:, 0])
    measured = torch.tensor(float(len(mine)), dtype=torch.float64, device=ranks.device)
    accuracies = (1 - ranks.mean(errors) / ranks.mean(measured)).tolist()
    images = labels.bincount(minlength=classes) / ranks.size
    each = (1 - ranks.mean(by_class) / images).tolist()
    present = images.tolist()
    return {
        name: {
            "mixture": own[0],
            "models": own[-len(mixture) :],
            "classes": [a if there else None for a, there in zip(row, present, strict=True)],
        }
        for name, own, row in zip(("clean", "robust"), accuracies, each, strict=True)
    }


def found_losses(mixture: Mixture, data: ImageSet, count: int, config: TrainConfig) -> np.ndarray:
    """Return the 0/1 losses (N, m, L), uint8, of the networks on all points found.

    They are the first `count` images, and the points of the attacks of `measure_epoch` on them.
    """
    generator = torch.Generator(data.labels.device).manual_seed(_SEED)
    player, attack = Mixture(mixture.models), measuring_attack(config)
    players = _players(mixture)
    parts = []
    for stored, y in data.reader(torch.arange(count).split(_BATCH)):
        x = prepared(stored)
        found = _found(player, players, attack, x, y, generator)
        parts.append(found.permute(2, 0, 1).to(torch.uint8))
    return torch.cat(parts).cpu().numpy()


def _players(mixture: Mixture) -> list[Tensor]:
    """Return the weights of those attacked: the mixture, and each network alone."""
    alone = list(torch.eye(len(mixture), dtype=torch.float64))
    return alone if len(mixture) == 1 else [mixture.weights, *alone]


def _found(
    player: Mixture,
    players: Sequence[Tensor],
    attack: Attack,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return the errors (m, L, B) of all networks on the images and on the points found."""
    found = [_errors(player, x, y)]
    for weights in players:
        player.set_weights(weights)
        found.append(_errors(player, attack(player, x, y, generator)[0], y))
    return torch.stack(found)


def measuring_attack(config: TrainConfig) -> Attack:
    """Return the attack of measurements: APGD in each ball, and all points of finite sets.

    Half of the steps ascend the cross-entropy, the others the hinge.
    """
    hinge = -(-config.evaluation.steps // 2)
    steps = {"cross-entropy": max(1, config.evaluation.steps - hinge), "hinge": hinge}
    half = config.run.half is torch.bfloat16

    def in_ball(ball: Ball) -> Attack:
        return WorstOf(
            [
                APGD(ball.norm, ball.eps, loss=loss, steps=own, autocast=half)
                for loss, own in steps.items()
            ]
        )

    return in_each(config.attack.sets, in_ball)


def _errors(mixture: Mixture, x: Tensor, y: Tensor) -> Tensor:
    """Return the errors (L, B) of all models, in float64."""
    with frozen(mixture), torch.no_grad():
        logits = mixture.member_logits(x)
        checks.finite_logits(logits, range(len(mixture)))
        return errs(logits, y).double()


def forgotten(record: dict[str, Any], images: int) -> list[int]:
    """Return the networks whose robust accuracy is below half of the best one's.

    Parameters
    ----------
    record : dict
        Of an epoch, with the accuracies of `measure_epoch`.
    images : int
        How many these are means over; what is within their errors is not told.
    """
    models = record["robust"]["models"]
    half = _FORGOTTEN * max(models)
    return [
        k
        for k, value in enumerate(models)
        if value + _ERRORS * math.sqrt(max(half * (1 - half), 0.0) / images) < half
    ]
