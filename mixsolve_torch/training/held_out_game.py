"""The game on held-out images: attacks on a mixture and on each network, and the double oracle.

The images were not trained on, so that networks are played by how robust they are. Attacks are
those that epochs are measured with (`training.measure`). What they find is kept in a folder: after
an interruption it is not searched again, and settings that do not fit it begin anew.

References
----------
McMahan, Gordon, Blum. Planning in the Presence of Cost Functions Controlled by an Adversary.
ICML 2003.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixsolve.base.errors import ConvergenceWarning
from mixsolve_torch.attacks.aimed import Aimed
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.game.solution import GameSolution
from mixsolve_torch.game.solve import solve_game
from mixsolve_torch.runs.resumable import part_or_anew
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.measure import measuring_attack

_ROUNDS = 10
_TOL = 2e-3


def attacks_on_each(mixture: Mixture, config: TrainConfig) -> list[Attack]:
    """Return the attack on a mixture, and the same on each of its networks alone."""
    attack = measuring_attack(config)
    alone = torch.eye(len(mixture), dtype=torch.float64)
    members = [Mixture(mixture.models, weights).to(mixture.device) for weights in alone]
    return [attack, *(Aimed(attack, member) for member in members)]


def play_held_out(
    mixture: Mixture,
    images: tuple[Tensor, Tensor],
    attacks: Attack | Sequence[Attack],
    draws: torch.Generator,
    folder: Path,
    *,
    progress: bool = False,
    **options: Any,
) -> GameSolution:
    """Play attacks on held-out images against the weights of a mixture, round after round.

    Parameters
    ----------
    mixture : Mixture
        The networks, and the weights that are attacked first.
    images : tuple of Tensor
        Images and labels.
    attacks : Attack or sequence of them
        Of each round.
    draws : torch.Generator
        Of the attacks.
    folder : path
        For what they find.
    progress : bool, default False
        Show progress bars.
    **options
        Further arguments of `solve_game`.
    """

    def solve(_: bool) -> GameSolution:
        return solve_game(
            mixture,
            images,
            attacks,
            tol=_TOL,
            max_rounds=_ROUNDS,
            generator=draws,
            out=folder,
            progress=progress,
            **options,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the log says how it ended
        return part_or_anew(solve, folder, draws)
