"""Percentile intervals of means, by resampling images.

    theta_b = sum_i c_bi v_i / N,   c_b ~ Multinomial(N; 1/N, ..., 1/N),   b = 1 ... R

The same R resamples serve every column of `values`, so that a difference of two columns is itself a
column and gets a paired interval. Drawing counts instead of indices makes a resample of any number
of columns one row of a matrix product.

References
----------
Efron, Tibshirani. An Introduction to the Bootstrap. 1993, chapter 13.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.tuning import tuning


@dataclass(frozen=True)
class Estimate:
    """A mean over images with a percentile interval.

    Attributes
    ----------
    value : float
        The mean.
    low, high : float
        The ends of the interval.
    """

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Return the estimate in percent, as "61.2 [58.4, 64.0]"."""
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def bootstrap(
    values: NDArray[np.float64], *, resamples: int, level: float, seed: int
) -> list[Estimate]:
    """Return the mean of each column and its percentile bootstrap interval.

    Parameters
    ----------
    values : ndarray of shape (N, columns)
        One row an image.
    resamples : int
        R, at least 1.
    level : float
        Coverage aimed at, e.g. 0.95.
    seed : int
        Of the generator, which is NumPy's and its own.

    Returns
    -------
    list of Estimate
        One a column.

    Examples
    --------
    >>> import numpy as np
    >>> (estimate,) = bootstrap(np.tile([[0.0], [1.0]], (50, 1)), resamples=500, level=0.9, seed=0)
    >>> estimate.value, estimate.low < 0.45, estimate.high > 0.55
    (0.5, True, True)
    """
    rng = np.random.default_rng(seed)
    count = len(values)
    even = np.full(count, 1 / count)
    block = max(1, tuning.resampled_counts // count)
    means = np.concatenate(
        [
            rng.multinomial(count, even, size=min(block, resamples - first)) @ values / count
            for first in range(0, resamples, block)
        ]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    rows = zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return [Estimate(*row) for row in rows]
