"""Two halves of the samples: one to choose on, one to measure on.

Weights that are optimal on some samples look better there than elsewhere. Other samples measure
them fairly. The halves are drawn, since data may be sorted.
"""

from __future__ import annotations

import numpy as np


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, ascending, of the samples to fit on and of those to report on.

    Parameters
    ----------
    count : int
        Number of samples, at least 2.
    seed : int
        Of the draw.

    Returns
    -------
    fitted, reported : ndarray of int
        The first has one place more if the number is odd.

    Examples
    --------
    >>> fitted, reported = halves(7, seed=0)
    >>> len(fitted), len(reported), sorted([*fitted.tolist(), *reported.tolist()])
    (4, 3, [0, 1, 2, 3, 4, 5, 6])
    """
    drawn = np.random.default_rng(seed).permutation(count)
    middle = (count + 1) // 2
    return np.sort(drawn[:middle]), np.sort(drawn[middle:])
