"""Three measures of one mixture on the same test images, kept when they are finished.

    PGD-20     the worst of the image itself and PGD with 20 steps on the mixture
    APGD       the worst of the image itself and APGD with 100 steps and 5 restarts on the mixture,
               the final attack of the article
    worst      the worst of everything found: both of these and `standard` with 25 steps, which
               attacks members alone too, and on members of weight 0, which it leaves out

The accuracy of an image is 1 - max_j sum_k lam_k l_jk over the candidates j of the measure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.training_study.runs import Trained
from mixsolve_torch import APGD, PGD, Attack, Mixture, Standard, build_losses
from mixsolve_torch.attacks.aimed import Aimed

MEASURES = ("PGD-20", "APGD", "worst")
STANDARD_STEPS = 25


def attacks(norm: str, eps: float) -> dict[str, Attack]:
    """Return the attack of each measure; those of "worst" come on top of the others."""
    return {
        "PGD-20": PGD(norm, eps, steps=20),
        "APGD": APGD(norm, eps, steps=100, restarts=5),
        "worst": Standard(norm, eps, steps=STANDARD_STEPS),
    }


@dataclass(frozen=True)
class Cell:
    """A mixture under all measures.

    Attributes
    ----------
    losses : ndarray of uint8, shape (N, m, L)
        0/1 losses of its networks on all candidates: first the image itself.
    ends : ndarray of int64, shape (3,)
        Where the candidates of each measure end; those of "worst" are all.
    labels : ndarray of int64, shape (N,)
        Of the images.
    weights : ndarray of float64, shape (L,)
        Of the networks.
    chosen : float
        Robust accuracy on held-out images, which a single network is chosen by.
    passes : float
        Runs of a network on an image that the training took, forward and backward.
    seconds : ndarray of float64, shape (2,)
        What the training took, and the attacks.
    """

    losses: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    chosen: float
    passes: float
    seconds: np.ndarray

    def accuracy(self, measure: str) -> np.ndarray:
        """Return the accuracy of the mixture on each image (N,)."""
        place = MEASURES.index(measure)
        begin = 1 if measure == "worst" or not place else int(self.ends[place - 1])
        own = np.concatenate(
            [self.losses[:, :1], self.losses[:, begin : int(self.ends[place])]], axis=1
        )
        return 1 - (own @ self.weights).max(axis=1)

    @property
    def clean(self) -> np.ndarray:
        """The accuracy on each image as it is (N,)."""
        return 1 - self.losses[:, 0] @ self.weights

    @property
    def members(self) -> np.ndarray:
        """The accuracy of each network alone under everything found (N, L)."""
        return 1.0 - self.losses.max(axis=1)


def measured(
    mixture: Mixture, x: Tensor, y: Tensor, suite: Mapping[str, Attack], seed: int
) -> Mapping[str, np.ndarray]:
    """Attack a mixture for each of `MEASURES`; return what a `Cell` holds of it."""
    alone = [
        Aimed(suite["worst"], Mixture([model]))
        for model, weight in zip(mixture.models, mixture.weights.tolist(), strict=True)
        if weight == 0
    ]
    values, ends = [], []
    for attacked in ([suite["PGD-20"]], [suite["APGD"]], [suite["worst"], *alone]):
        for attack in attacked:
            generator = torch.Generator().manual_seed(seed)
            found = build_losses(mixture, (x, y), attack, generator=generator, progress=True)
            own = found.values.to(torch.uint8).cpu().numpy()
            values.append(own if not values else own[:, 1:])  # each begins with the image itself
        ends.append(sum(own.shape[1] for own in values))
    return {
        "losses": np.concatenate(values, axis=1),
        "ends": np.array(ends),
        "labels": y.cpu().numpy(),
        "weights": mixture.weights.cpu().numpy(),
    }


def make_cell(
    trained: Trained, x: Tensor, y: Tensor, suite: Mapping[str, Attack], seed: int
) -> Cell:
    """Attack a mixture by each of `MEASURES`, from a seed."""
    began = time.perf_counter()
    found = measured(trained.mixture, x, y, suite, seed)
    seconds = np.array([trained.seconds, time.perf_counter() - began])
    return Cell(**found, chosen=trained.chosen, passes=trained.passes, seconds=seconds)
