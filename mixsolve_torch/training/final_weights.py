"""The weights of a trained mixture: the game on held-out images, with fresh attacks.

    lam  =  argmin over the simplex of   mean_i  max_{j in J_i}  sum_k lam_k 1[f_k errs on x_ij]

J_i are the image itself and what APGD, on the cross-entropy and on the hinge, finds on the mixture
and on each network alone, round after round of the double oracle. The images were not trained on,
so that networks are played by how robust they are, and not by what a weight update on batches has
left of them.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

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
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.measure import measuring_attack

logger = logging.getLogger(__name__)

_ROUNDS = 10
_TOL = 2e-3


def solve_weights(
    mixture: Mixture, data: ImageSet, config: TrainConfig, folder: Path, *, progress: bool = False
) -> Tensor:
    """Return the weights (L,), float64, that the game on held-out images gives a mixture.

    Parameters
    ----------
    mixture : Mixture
        The networks, and the weights that are attacked first.
    data : ImageSet
        Images that were not trained on; as many of them as ``config.evaluation.images``.
    config : TrainConfig
        The attacker's sets, the steps of APGD, and the seed.
    folder : path
        For what the attacks find: after an interruption they are not repeated.
    progress : bool, default False
        Show progress bars.
    """
    count = data.at_most(config.evaluation.images)
    x, y = data.batch(torch.arange(count))
    attack = measuring_attack(config)
    alone = torch.eye(len(mixture), dtype=torch.float64)
    suite: list[Attack] = [attack]
    suite += [Aimed(attack, Mixture(mixture.models, weights)) for weights in alone]
    draws = torch.Generator().manual_seed(config.run.seed)

    def solve(_: bool) -> GameSolution:
        return solve_game(
            mixture,
            (x, y),
            suite,
            tol=_TOL,
            max_rounds=_ROUNDS,
            generator=draws,
            out=folder,
            progress=progress,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the log says how it ended
        game = part_or_anew(solve, folder, draws)
    weights = game.weights.to("cpu", torch.float64)
    logger.info(
        "weights %s by the game on %d held-out images: %s",
        " ".join(f"{weight:.3f}" for weight in weights.tolist()),
        count,
        game.message,
    )
    return weights
