"""The lowest accuracy on a class, of a mixture and of one network, on the same images.

Accuracies of few images are noisy, and the lowest of several is too low on average:
`evaluation.by_group` has what is measured and why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mixsolve_torch.core.groups import read_groups
from mixsolve_torch.evaluation.bootstrap import Estimate
from mixsolve_torch.evaluation.by_group import on_other_half, resample

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class WorstClass:
    """The lowest accuracy on a class, from 0 to 1.

    Attributes
    ----------
    mixture, single : Estimate
        Of the mixture and of the network that it is compared with.
    mixture_error, single_error : float
        Their standard errors.
    mixture_label, single_label : int
        The classes that have them.
    mixture_other, single_other : float
        Accuracy of the class that is lowest on one half of the images, on the other half.
    gain : Estimate
        The mixture's less the network's, with the interval of the paired difference.
    error : float
        The standard error of `gain`.
    """

    mixture: Estimate
    single: Estimate
    mixture_error: float
    single_error: float
    mixture_label: int
    single_label: int
    mixture_other: float
    single_other: float
    gain: Estimate
    error: float

    def sentences(self, name: str, images: str) -> list[str]:
        """Say who has what on the worst class; `name` is the network, `images` what it was on."""
        return [
            f"Worst class of the mixture: {percent(self.mixture.value)} (standard error "
            f"{100 * self.mixture_error:.2f}, class {self.mixture_label}); of {name} alone: "
            f"{percent(self.single.value)} (standard error {100 * self.single_error:.2f}, class "
            f"{self.single_label}); on {images}. Gain of the mixture: "
            f"{points(self.gain, self.error)}.",
            "The lowest of several measured accuracies is too low on average, more so for a "
            "mixture, which makes classes equal. The class that is lowest on one half of the "
            f"images has on the other half {percent(self.mixture_other)} under the mixture and "
            f"{percent(self.single_other)} under {name}.",
        ]


def compare_worst_class(
    mixed: np.ndarray, alone: np.ndarray, labels: np.ndarray, *, seed: int
) -> WorstClass:
    """Compare the lowest accuracies on a class.

    Parameters
    ----------
    mixed, alone : ndarray of shape (N,)
        Accuracy of the mixture and of the network on each image.
    labels : ndarray of shape (N,), int
        True classes.
    seed : int
        Of the intervals.
    """
    groups = read_groups(labels, torch.from_numpy(labels))
    assert groups is not None
    values = np.stack([mixed, alone], axis=1)
    drawn = resample(values, groups, resamples=RESAMPLES, level=LEVEL, seed=seed)
    lowest, lows = drawn.means.min(axis=0), drawn.lowest
    where = [int(groups.names[place]) for place in drawn.means.argmin(axis=0)]
    other = on_other_half(values, groups, seed=seed)
    gains = lows[:, 0] - lows[:, 1]
    return WorstClass(
        mixture=drawn.estimate(lowest[0], lows[:, 0]),
        single=drawn.estimate(lowest[1], lows[:, 1]),
        mixture_error=float(lows[:, 0].std()),
        single_error=float(lows[:, 1].std()),
        mixture_label=where[0],
        single_label=where[1],
        mixture_other=float(other[0]),
        single_other=float(other[1]),
        gain=drawn.estimate(lowest[0] - lowest[1], gains),
        error=float(gains.std()),
    )


def points(gain: Estimate, error: float) -> str:
    """Return a gain in points, with its interval and error, in words."""
    return (
        f"{100 * gain.value:+.2f} points, paired {100 * LEVEL:g} % interval "
        f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}, standard error {100 * error:.2f}"
    )


def percent(value: float) -> str:
    """Return an accuracy in words."""
    return f"{100 * value:.2f} %"
