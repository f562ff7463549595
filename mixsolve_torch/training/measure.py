"""How robust a mixture under training is: its accuracy, and that of each model alone, under PGD.

Against several sets the accuracy is that under PGD in each ball and all points of finite sets.

The mixture and each of its models are attacked on their own; the accuracy of the mixture is the
exact expectation over its models. The attacks have the same draws every time, so that epochs and
runs can be compared.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixsolve_torch.attacks import PGD, Attack, Exhaustive, WorstOf
from mixsolve_torch.attacks.threats import Finite, InBall, Threat
from mixsolve_torch.core.losses import expected_loss
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.ranks import Ranks

_SEED = 0x5EED
_BATCH = 512  # images at a time


def measure_epoch(
    mixture: Mixture, data: ImageSet, config: TrainConfig, ranks: Ranks
) -> dict[str, dict[str, Any]]:
    """Return clean and robust accuracy of a mixture and of each of its models.

    The data are the same on all ranks; each measures its part. The models' modes are restored.

    Returns
    -------
    dict
        "clean" and "robust", each with the accuracy of the "mixture" and a list for the "models".
    """
    count = min(config.evaluation.images or len(data), len(data))
    mine = ranks.part(torch.arange(count))
    generator = torch.Generator(ranks.device).manual_seed(_SEED)
    alone = list(torch.eye(len(mixture), dtype=torch.float64))
    players = alone if len(mixture) == 1 else [mixture.weights, *alone]
    player = Mixture(mixture.models)
    attacks = [_attack(threat, config) for threat in config.attack.sets]
    attack = attacks[0] if len(attacks) == 1 else WorstOf(attacks)
    errors = torch.zeros(2, len(players), dtype=torch.float64, device=ranks.device)
    for chosen in mine.split(_BATCH):
        x, y = data.batch(chosen)
        for place, weights in enumerate(players):
            player.set_weights(weights)
            point = attack(player, x, y, generator)[0]
            errors[0, place] += _errors(player, x, y)
            errors[1, place] += _errors(player, point, y)
    measured = torch.tensor(float(len(mine)), dtype=torch.float64, device=ranks.device)
    clean, robust = (1 - ranks.mean(errors) / ranks.mean(measured)).tolist()
    return {
        "clean": {"mixture": clean[0], "models": clean[-len(mixture) :]},
        "robust": {"mixture": robust[0], "models": robust[-len(mixture) :]},
    }


def _attack(threat: Threat, config: TrainConfig) -> Attack:
    """Return the attack in one set."""
    if isinstance(threat, InBall):
        return PGD(
            threat.ball.norm,
            threat.ball.eps,
            steps=config.evaluation.steps,
            autocast=config.run.autocast,
        )
    assert isinstance(threat, Finite)
    return Exhaustive(threat)


def _errors(mixture: Mixture, x: Tensor, y: Tensor) -> Tensor:
    """Return the expected number of errors."""
    with frozen(mixture), torch.no_grad():
        return expected_loss(mixture, x, y).sum()
