"""Paired comparisons of mixtures with the best single network of equal cost, on the same images.

For a mixture with accuracies a_i and a single network with b_i on images i = 1, ..., N, seed s:

    gain_s = mean_i (a_i - b_i),   image error = sqrt( var_i (a_i - b_i) / N ),

    gain = mean_s gain_s,          seed error  = sqrt( var_s (gain_s) / S ),   S > 1.

Under the worst of everything it has two parts: what its networks alone have on their weighted mean
beyond the single network, mostly less than 0, and the margin.

The single network is the one of the highest robust accuracy on held-out images among those that
took no more passes than the mixture, but for a twentieth. The verdict of a run is judged on the
first half of the test images and checked on the second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.training_study.measure import Cell
from benchmarks.training_study.settings import RECIPES
from mixsolve_torch.training.verdict import judge

_ROUNDING = 1.05  # of passes: a training set is not a multiple of the batch


@dataclass(frozen=True)
class Gain:
    """A mean of paired differences, in points.

    Attributes
    ----------
    value, image_error : float
        The mean over seeds, and its standard error over images: that of one seed, or of the mean.
    seed_error : float
        The standard error over seeds; NaN with one.
    """

    value: float
    image_error: float
    seed_error: float

    @property
    def sign(self) -> int:
        """Whether it is beyond two standard errors: 1 above 0, -1 below, 0 neither."""
        error = self.image_error if np.isnan(self.seed_error) else self.seed_error
        error = max(error, self.image_error)
        return int(self.value > 2 * error) - int(self.value < -2 * error)


def rival(cells: Mapping[str, Cell], name: str) -> str | None:
    """Return the single network that a recipe is compared with, if one was trained."""
    limit = _ROUNDING * cells[name].passes
    singles = [
        other
        for other, cell in cells.items()
        if other != name and RECIPES[other].networks == 1 and cell.passes <= limit
    ]
    return max(singles, key=lambda other: cells[other].chosen, default=None)


def gain(
    by_seed: Mapping[int, Mapping[str, Cell]], name: str, measure: str
) -> tuple[Gain, tuple[str, ...]] | None:
    """Return the gain of a recipe over its rivals, and their names; None if nothing compares."""
    differences, rivals = [], []
    for cells in by_seed.values():
        other = rival(cells, name) if name in cells else None
        if other is not None:
            rivals.append(other)
            differences.append(cells[name].accuracy(measure) - cells[other].accuracy(measure))
    if not differences:
        return None
    means = np.array([own.mean() for own in differences])
    errors = np.array([own.std(ddof=1) / np.sqrt(len(own)) for own in differences])
    count = len(means)
    over_seeds = float(means.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    over_images = float(np.sqrt((errors**2).sum()) / count)
    own = Gain(100 * float(means.mean()), 100 * over_images, 100 * over_seeds)
    return own, tuple(dict.fromkeys(rivals))


def parts(by_seed: Mapping[int, Mapping[str, Cell]], name: str) -> tuple[float, float]:
    """Return the parts of a gain under the worst of everything, in points: networks, and margin."""
    networks, margins = [], []
    for cells in by_seed.values():
        other = rival(cells, name) if name in cells else None
        if other is not None:
            own = cells[name]
            alone = float(own.members.mean(axis=0) @ own.weights)
            networks.append(alone - float(cells[other].accuracy("worst").mean()))
            margins.append(float(own.accuracy("worst").mean()) - alone)
    return 100 * float(np.mean(networks)), 100 * float(np.mean(margins))


@dataclass(frozen=True)
class Checked:
    """A verdict on one half of the images, and the gain on the other.

    Attributes
    ----------
    mixture : bool
        Whether the mixture was recommended.
    gain, error : float
        Of the mixture on the other half, in points, and its standard error.
    """

    mixture: bool
    gain: float
    error: float

    @property
    def wrong(self) -> bool:
        """Whether a mixture was recommended that is worse by more than one standard error."""
        return self.mixture and self.gain < -self.error


def checked(cells: Mapping[str, Cell], name: str) -> Checked | None:
    """Judge a mixture on the first half of the images, and measure the gain on the second."""
    other = rival(cells, name)
    if other is None:
        return None
    own, single = cells[name], cells[other].accuracy("worst")
    half = len(single) // 2
    said = judge(own.losses[:half], own.weights, {other: single[:half]})
    difference = (own.accuracy("worst") - single)[half:]
    return Checked(
        said.recommended == "mixture",
        100 * float(difference.mean()),
        100 * float(difference.std(ddof=1) / np.sqrt(len(difference))),
    )


def forgotten(cells: Mapping[str, Cell], name: str) -> bool:
    """Return whether a network of a mixture has less than half the accuracy of its rival."""
    other = rival(cells, name)
    if other is None:
        return False
    return bool(cells[name].members.mean(axis=0).min() < cells[other].accuracy("worst").mean() / 2)


def worst_class(cell: Cell) -> float:
    """Return the accuracy on the class of the lowest one, under everything found."""
    accuracy = cell.accuracy("worst")
    return min(float(accuracy[cell.labels == label].mean()) for label in np.unique(cell.labels))
