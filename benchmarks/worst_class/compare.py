"""The mixture against the best tuned snapshot on the worst class, over seeds.

With a_s and b_s the lowest accuracies on a class of mixture and snapshot, seed s = 1, ..., S:

    gain        =  mean_s (a_s - b_s),     error  =  sqrt( var_s (a_s - b_s) / S )
    image error =  sqrt( mean of the bootstrap variances of a_s - b_s over images / S )
    spread      =  standard deviation of a_s, and of b_s
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.worst_class.runs import SIZES, Tested
from mixsolve_torch.training.worst_class import compare_worst_class


@dataclass(frozen=True)
class Row:
    """One seed, with so many validation images, in percent and points.

    Attributes
    ----------
    seed, images : int
        Which seed, and how many validation images.
    mixture, single, gain, error : float
        Lowest accuracies on a class, their difference, and its standard error over images.
    mixture_other, single_other : float
        Of the class that is lowest on half of the test images, on the other half.
    mixture_mean, single_mean : float
        Accuracies on all images.
    members : int
        Snapshots in the mixture.
    promised, held_out : float
        The mixture's lowest accuracy on validation images: where fitted, and on other halves.
    recommended : str
        "mixture" if the gain exceeds its error on the test images, else "single".
    """

    seed: int
    images: int
    mixture: float
    single: float
    gain: float
    error: float
    mixture_other: float
    single_other: float
    mixture_mean: float
    single_mean: float
    members: int
    promised: float
    held_out: float
    recommended: str


@dataclass(frozen=True)
class Total:
    """All seeds, with so many validation images, in percent and points."""

    images: int
    seeds: int
    mixture: float
    single: float
    gain: float
    error: float
    image_error: float
    mean_gain: float
    mixture_spread: float
    single_spread: float


def row(seed: int, cell: Tested, place: int) -> Row:
    """Return the figures of a seed with the validation images of ``SIZES[place]``."""
    weights, single = cell.weights[place], int(cell.singles[place])
    mixed = 1 - (cell.losses @ weights).max(axis=1)
    alone = 1.0 - cell.losses[..., single].max(axis=1)
    worst = compare_worst_class(mixed, alone, cell.labels, seed=seed)
    return Row(
        seed=seed,
        images=SIZES[place],
        mixture=100 * worst.mixture.value,
        single=100 * worst.single.value,
        gain=100 * worst.gain.value,
        error=100 * worst.error,
        mixture_other=100 * worst.mixture_other,
        single_other=100 * worst.single_other,
        mixture_mean=100 * float(mixed.mean()),
        single_mean=100 * float(alone.mean()),
        members=int(np.count_nonzero(weights)),
        promised=100 * float(cell.promised[place]),
        held_out=100 * float(cell.held_out[place]),
        recommended="mixture" if worst.gain.low > 0 else "single",
    )


def total(rows: list[Row]) -> Total:
    """Return the figures over seeds; errors and spreads are NaN with one."""
    gains = np.array([own.gain for own in rows])
    several = len(rows) > 1

    def spread(values: list[float]) -> float:
        return float(np.std(values, ddof=1)) if several else float("nan")

    return Total(
        images=rows[0].images,
        seeds=len(rows),
        mixture=float(np.mean([own.mixture for own in rows])),
        single=float(np.mean([own.single for own in rows])),
        gain=float(gains.mean()),
        error=spread(gains.tolist()) / len(rows) ** 0.5,
        image_error=float(np.sqrt(np.mean([own.error**2 for own in rows]) / len(rows))),
        mean_gain=float(np.mean([own.mixture_mean - own.single_mean for own in rows])),
        mixture_spread=spread([own.mixture for own in rows]),
        single_spread=spread([own.single for own in rows]),
    )


def figures(cells: Mapping[int, Tested]) -> dict[str, Any]:
    """Return all rows and totals of the seeds that are finished, as plain values."""
    by_size = [[row(seed, cell, place) for seed, cell in cells.items()] for place in range(2)]
    return {
        "rows": [asdict(own) for rows in by_size for own in rows],
        "totals": [asdict(total(rows)) for rows in by_size if rows],
    }
