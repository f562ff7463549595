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
from pathlib import Path

import torch
from torch import Tensor

from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.held_out_game import attacks_on_each, play_held_out
from mixsolve_torch.training.images import ImageSet

logger = logging.getLogger(__name__)


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
    game = play_held_out(
        mixture,
        data.batch(torch.arange(count)),
        attacks_on_each(mixture, config),
        torch.Generator().manual_seed(config.run.seed),
        folder,
        progress=progress,
    )
    weights = game.weights.to("cpu", torch.float64)
    logger.info(
        "weights %s by the game on %d held-out images: %s",
        " ".join(f"{weight:.3f}" for weight in weights.tolist()),
        count,
        game.message,
    )
    return weights
