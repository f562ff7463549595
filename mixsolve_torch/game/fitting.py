"""Weights for the worst group that hold on other images than those they are fitted on.

The game of N images trusts each group's mean over N / G of them: it makes equal on these images
what is not equal elsewhere, and its value promises too much. How much is measured by fitting on one
half and measuring on the other, and back:

    optimism  =  risk on the other half  -  fitted value

Fits that trust the images less are tried beside the exact one,

    alpha > 0               smoothed candidates, eq. (7) of the article, and groups
    v_g <= c p_g            an attacker who cannot go to one group alone; c = 1 is the mean risk

and the one whose weights have the lowest worst-group risk on the other halves gives the weights,
fitted on all images; of equals the one that trusts the images least. That risk is the worst of the
groups' risks with each image under the weights of the half that it is not in, the mean over some
draws of the halves.

References
----------
Stone. Cross-Validatory Choice and Assessment of Statistical Predictions. JRSS B, 1974.
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.2.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

import mixsolve
from mixsolve.base.errors import ConvergenceWarning
from mixsolve_torch.core.groups import Groups

# What trusts the images least comes first.
FITS: Mapping[str, Mapping[str, Any]] = {
    "the mean": {"group_weight": 1.0},
    "groups up to 1.5 times their share": {"group_weight": 1.5},
    "groups up to 2 times their share": {"group_weight": 2.0},
    "groups up to 3 times their share": {"group_weight": 3.0},
    "alpha 0.1": {"alpha": 0.1},
    "alpha 0.03": {"alpha": 0.03},
    "alpha 0.01": {"alpha": 0.01},
    "exact": {},
}
_LEAST = 4  # images of a group, for halves with two each
_DRAWS = 3  # of the halves
LEVEL = 0.95  # of the bounds


@dataclass(frozen=True)
class Fit:
    """Weights fitted to the worst group's risk, and how far they hold elsewhere.

    Attributes
    ----------
    weights : ndarray of shape (L,)
        Fitted on all images.
    name : str
        The fit that was chosen, one of `FITS`.
    fitted : float
        Worst-group risk on the halves that weights were fitted on, the mean over them.
    held_out : float
        Worst-group risk with each image under the weights of the half that it is not in.
    error : float
        Standard error of `held_out`.
    bounds : ndarray of shape (G,)
        Upper confidence bounds of the groups' risks, all at once with probability `LEVEL`.
    """

    weights: np.ndarray
    name: str
    fitted: float
    held_out: float
    error: float
    bounds: np.ndarray

    @property
    def optimism(self) -> float:
        """How much lower the fitted risk is than that on other images."""
        return self.held_out - self.fitted


def fit_weights(losses: np.ndarray, groups: Groups, *, seed: int = 0) -> Fit:
    """Choose a fit by what it holds on other halves, and return its weights.

    Parameters
    ----------
    losses : ndarray of shape (N, m, L)
        0/1 losses of the classifiers on the candidates.
    groups : Groups
        Of the images. Where one has fewer than four, the exact fit is all that is tried.
    seed : int, default 0
        Of the halves, which are drawn within each group.
    """
    names = list(FITS) if groups.images.min() >= _LEAST else ["exact"]
    found = {name: _crossed(name, losses, groups, seed) for name in names}
    chosen = min(found, key=lambda name: found[name].held_out)  # the first of equals
    return replace(found[chosen], weights=_weights(losses, groups, chosen))


def _weights(losses: np.ndarray, groups: Groups, name: str) -> np.ndarray:
    """Return the weights (L,) of a fit on some images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what they hold is measured
        return np.asarray(mixsolve.solve(losses, groups=groups.index, **FITS[name]).weights)


def _crossed(name: str, losses: np.ndarray, groups: Groups, seed: int) -> Fit:
    """Return what a fit holds on other halves; its weights are those of the last one."""
    fitted, held_out, errors, bounds = [], [], [], []
    sure = NormalDist().inv_cdf(1 - (1 - LEVEL) / len(groups.names))  # all groups at once
    weights = np.empty(losses.shape[2])
    for draw in range(_DRAWS):
        risks = np.empty(len(losses))
        halved = groups.halves(_DRAWS * seed + draw)
        for seen, other in (halved, halved[::-1]):
            weights = _weights(losses[seen], groups.at(seen), name)
            # A smoothed or bounded game has another value than the worst group's risk.
            fitted.append(groups.at(seen).risk((losses[seen] @ weights).max(axis=1)))
            risks[other] = (losses[other] @ weights).max(axis=1)
        means = groups.means(risks)
        spread = np.sqrt(np.maximum(groups.means(risks**2) - means**2, 0) / groups.images)
        worst = int(means.argmax())
        held_out.append(means[worst])
        errors.append(spread[worst])
        bounds.append(means + sure * spread)
    return Fit(
        weights=weights,
        name=name,
        fitted=float(np.mean(fitted)),
        held_out=float(np.mean(held_out)),
        error=float(np.mean(errors)),
        bounds=np.mean(bounds, axis=0),
    )
