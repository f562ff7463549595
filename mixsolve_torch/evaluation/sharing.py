"""What players of an evaluation share: every candidate found for one is tried on all others.

Passes are spent where a risk can still rise. A player is attacked on the images that no candidate
found before brings to the largest risk it can have there. That is 1 for a classifier alone. Where
the attacks are thorough (`Attack.thorough`) and all classifiers were attacked alone, a mixture can
have at most

    sum_k lam_k r_ik,    r_ik = 1 if any candidate on image i fools classifier k, else 0,

since a classifier that no attack on it fooled counts as one that cannot be fooled; an ensemble has
the bound of `Player.most`. On the other images the player has the worst candidate known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixsolve_torch.evaluation.players import ROUNDING, Player


def rising(player: Player, losses: np.ndarray, within: np.ndarray, *, alone: bool) -> np.ndarray:
    """Return the images on which known candidates leave a player a risk that can rise.

    Of several threats, those where it can rise under any of them.

    Parameters
    ----------
    player : Player
        Who is to be attacked.
    losses : ndarray of shape (N, m, L + E), uint8
        0/1 losses on all candidates found.
    within : ndarray of shape (N, m, T), bool
        Which of them lie in the set of which threat.
    alone : bool
        Whether thorough attacks on each classifier alone are among them.
    """
    risks = player.risks(losses)
    rises = np.zeros(len(losses), dtype=bool)
    for t in range(within.shape[2]):
        own = within[..., t]
        worst = np.where(own, risks, 0.0).max(axis=1)
        reach = np.where(own[..., None], losses[..., : len(player.weights)], 0).max(axis=1)
        rises |= worst < (player.most(reach) if alone else 1.0) - ROUNDING
    return np.flatnonzero(rises)


def worst_known(
    player: Player, losses: np.ndarray, within: np.ndarray, places: Sequence[int | None]
) -> np.ndarray:
    """Return which known candidate (N, columns) is the worst for a player, for each new column.

    `places` has the number of each column's threat, whose set the candidate is to lie in, or None.
    """
    risks = player.risks(losses)
    chosen = np.empty((len(losses), len(places)), np.int64)
    for place in set(places):
        own = risks if place is None else np.where(within[..., place], risks, -1.0)
        worst = own.argmax(axis=1)
        chosen[:, [k for k, each in enumerate(places) if each == place]] = worst[:, None]
    return chosen
