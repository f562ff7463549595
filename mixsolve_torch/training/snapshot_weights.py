"""The mixture of a run's snapshots, and the best snapshot: both chosen on held-out images.

    candidates   the image itself, what PGD finds on each snapshot alone and on the uniform mixture,
                 and on the mixture of optimal weights, round after round of the double oracle
    single       the snapshot whose worst class has the lowest risk against all candidates
    mixture      weights of the game in which the attacker also chooses the class, by the fit that
                 holds best on other halves (`game.fitting`), of `worst_group.members` snapshots at
                 most: those of the largest weights, fitted again

Each is chosen on all held-out images. How much better they look there is told by halves: chosen on
one, measured on the other.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mixsolve_torch.candidates.build import CandidateLosses, build_losses
from mixsolve_torch.core.groups import read_groups
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.game.fitting import Fit, fit_weights
from mixsolve_torch.runs.resumable import part_or_anew
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.held_out_game import attacks_on_each, play_held_out
from mixsolve_torch.training.images import ImageSet

logger = logging.getLogger(__name__)

_NOTHING = 1e-3  # weights below are not worth a network


@dataclass(frozen=True)
class Chosen:
    """What held-out images say of the snapshots of a run.

    Attributes
    ----------
    weights : ndarray of shape (S,)
        Of the mixture.
    single : int
        The best snapshot.
    fit : Fit
        How the weights were fitted; its weights are those before the number was limited.
    losses : ndarray of shape (N, m, S)
        0/1 losses of all snapshots on all candidates found.
    labels : ndarray of shape (N,)
        Classes of the images.
    """

    weights: np.ndarray
    single: int
    fit: Fit
    losses: np.ndarray
    labels: np.ndarray

    @property
    def kept(self) -> list[int]:
        """The snapshots in the mixture, and the best one."""
        return sorted({*np.flatnonzero(self.weights).tolist(), self.single})

    def crossed(self, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
        """Return accuracies (N,) of mixture and best snapshot, both chosen on other images.

        All is chosen again on each half, and measured on the other one.
        """
        groups = read_groups(self.labels, torch.from_numpy(self.labels))
        mixed, alone = np.empty((2, len(self.losses)))
        assert groups is not None
        halved = groups.halves(config.run.seed)
        for seen, other in (halved, halved[::-1]):
            own, losses = choose(self.losses[seen], self.labels[seen], config), self.losses[other]
            mixed[other] = 1 - (losses @ own.weights).max(axis=1)
            alone[other] = 1.0 - losses[..., own.single].max(axis=1)
        return mixed, alone


def find_candidates(
    pool: Mixture,
    data: ImageSet,
    count: int,
    config: TrainConfig,
    folder: Path,
    *,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Attack snapshots on held-out images; return losses (N, m, S) and labels (N,).

    Parameters
    ----------
    pool : Mixture
        The uniform mixture of the S snapshots.
    data : ImageSet
        Images that were not trained on.
    count : int
        How many of them, the first ones.
    config : TrainConfig
        The attacker's sets, the steps of PGD, and the seed.
    folder : path
        For what the attacks find: after an interruption they are not repeated.
    progress : bool, default False
        Show progress bars.
    """
    x, y = data.batch(torch.arange(count))
    draws = torch.Generator().manual_seed(config.run.seed)
    folder.mkdir(parents=True, exist_ok=True)
    attacks = attacks_on_each(pool, config)

    def build(anew: bool) -> CandidateLosses:
        return build_losses(
            pool,
            (x, y),
            attacks,
            generator=draws,
            out=folder / "start.npy",
            overwrite=anew,
            progress=progress,
        )

    game = play_held_out(
        pool,
        (x, y),
        attacks[0],  # each snapshot alone is attacked once, not every round
        draws,
        folder / "game",
        start=part_or_anew(build, folder / "start.npy", draws),
        start_attacked=True,
        groups="class",
        progress=progress,
    )
    logger.info("attacked %d snapshots on %d held-out images: %s", len(pool), count, game.message)
    return game.losses.values.to(torch.uint8).cpu().numpy(), y.cpu().numpy()


def choose(losses: np.ndarray, labels: np.ndarray, config: TrainConfig) -> Chosen:
    """Choose the best snapshot and the weights of a mixture on the same losses (N, m, S)."""
    groups = read_groups("class", torch.from_numpy(labels))
    assert groups is not None
    alone = groups.means(losses.max(axis=1)).max(axis=0)
    single = int(alone.argmin())
    fit = fit_weights(losses, groups, seed=config.run.seed)
    weights, kept = fit.weights, np.argsort(-fit.weights)[: config.worst_group.members]
    if np.count_nonzero(fit.weights) > len(kept):
        weights = np.zeros_like(fit.weights)
        weights[kept] = fit_weights(losses[..., kept], groups, seed=config.run.seed).weights
    weights = np.where(weights < _NOTHING, 0.0, weights)
    weights /= weights.sum()
    logger.info(
        "snapshots %s, weights %s by %s on %d held-out images, worst class %.1f %%, %.1f %% on "
        "halves not fitted on; the best one alone %.1f %%",
        " ".join(str(k + 1) for k in np.flatnonzero(weights)),
        " ".join(f"{weight:.2f}" for weight in weights[weights > 0]),
        fit.name,
        len(losses),
        100 * (1 - groups.risk((losses @ weights).max(axis=1))),
        100 * (1 - fit.held_out),
        100 * (1 - alone[single]),
    )
    return Chosen(weights, single, fit, losses, labels)
