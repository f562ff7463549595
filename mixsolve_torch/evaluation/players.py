"""Who is measured: classifiers alone, mixtures of them, and the deterministic ensembles instead.

A user who does not randomise deploys the best classifier or combines the outputs of all. An
ensemble takes L forward passes an image, a random mixture one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from mixsolve_torch.core.ensemble import RULES, Ensemble
from mixsolve_torch.core.mixture import Mixture

ROUNDING = 1e-9  # risks that differ by less are equal
_SAME = 1e-9  # weights that differ by less are equal


@dataclass(frozen=True)
class Player:
    """A classifier, random or deterministic, that was attacked.

    Attributes
    ----------
    name : str
        Its name.
    kind : {"single", "uniform", "given", "optimal", "ensemble"}
        A classifier alone, which mixture, or a deterministic ensemble.
    weights : ndarray of shape (L,)
        The probabilities of the classifiers, or their weights in the ensemble.
    columns : slice
        Where its candidates are among all.
    groups : tuple of slice
        Where those of each attack are among its own.
    ensemble : Ensemble or None
        The deterministic ensemble.
    place : int
        Its place among the ensembles.
    """

    name: str
    kind: str
    weights: np.ndarray
    columns: slice = field(default_factory=lambda: slice(0, 0))
    groups: tuple[slice, ...] = ()
    ensemble: Ensemble | None = None
    place: int = 0

    def risks(self, losses: np.ndarray) -> np.ndarray:
        """Return the expected 0/1 loss (N, m) from the losses (N, m, L + E) of all."""
        count = len(self.weights)
        if self.ensemble is not None:
            return losses[..., count + self.place].astype(np.float64)
        return losses[..., :count] @ self.weights

    def most(self, reach: np.ndarray) -> np.ndarray:
        """Return the largest risk (...) where classifier k errs only if reach (..., L) is 1.

        A random classifier errs with the probability of those that err at most. An ensemble errs
        only where one of its classifiers does: a label that is the only largest logit of all is
        the only largest mean; and a vote only if they have half of the weight.
        """
        erring = reach @ self.weights
        if self.ensemble is None:
            return erring
        least = 0.5 if self.ensemble.rule == "vote" else 2 * ROUNDING
        return (erring >= least - ROUNDING).astype(np.float64)


def given_players(mixture: Mixture, names: Sequence[str]) -> list[Player]:
    """Return the players whose weights need no game."""
    count = len(mixture)
    rows = zip(names, np.eye(count), strict=True)
    players = [Player(name, "single", weights) for name, weights in rows]
    if count > 1:
        uniform = np.full(count, 1 / count)
        players.append(Player("uniform mixture", "uniform", uniform))
        own = mixture.weights.cpu().numpy()
        if own.max() < 1 and not np.allclose(own, uniform, rtol=0, atol=_SAME):
            players.append(Player("given mixture", "given", own))
    return players


def rivals(models: Iterable[nn.Module], weights: np.ndarray) -> list[Player]:
    """Return the deterministic ensembles: of uniform weights, and of the optimal ones.

    Weights that are uniform are not taken twice; those of one classifier alone make no ensemble,
    and a vote in which one classifier has more than half of the weight is that classifier.
    """
    members = list(models)
    even = np.full(len(members), 1 / len(members))
    sets = [(even, "")]
    if weights.max() < 1 - _SAME and not np.allclose(weights, even, rtol=0, atol=_SAME):
        sets.append((weights, "weighted "))
    chosen = [
        (rule, f"{title}{rule}", own)
        for own, title in sets
        for rule in RULES
        if rule != "vote" or own.max() <= 0.5 + _SAME
    ]
    return [
        Player(title, "ensemble", own, ensemble=Ensemble(members, rule, own), place=place)
        for place, (rule, title, own) in enumerate(chosen)
    ]


def contenders(kinds: Sequence[str], best: int, values: Iterable[float]) -> list[int]:
    """Return the best single classifier, the best ensemble and the mixtures, the best one first.

    Of equals the one that is simpler to deploy comes first.

    Parameters
    ----------
    kinds : sequence of str
        Of the players.
    best : int
        The place of the best single classifier.
    values : iterable of float
        What each is ranked by, more being better.
    """
    own = [round(float(value), 12) for value in values]
    ensembles = [i for i, kind in enumerate(kinds) if kind == "ensemble"]
    chosen = [best]
    if ensembles:
        chosen.append(max(ensembles, key=lambda i: (own[i], -i)))
    chosen += [i for i, kind in enumerate(kinds) if kind not in ("single", "ensemble")]
    return sorted(chosen, key=lambda i: -own[i])
