"""Two halves of the images: one to choose on, one to measure on.

Weights that are optimal on some images, and the classifier that is best on them, look better there
than elsewhere. Other images measure them fairly. The halves are drawn, since data may be sorted.
"""

from __future__ import annotations

import numpy as np

from mixsolve.base.halves import halves as plain_halves
from mixsolve_torch.core.groups import Groups


def halves(count: int, seed: int, groups: Groups | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, ascending, of the images to fit on and of those to report on.

    Parameters
    ----------
    count : int
        Number of images, at least 2.
    seed : int
        Of the draw.
    groups : Groups, optional
        Each is divided by itself, into halves that differ by one image at most.

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
    if groups is not None:
        return groups.halves(seed)
    return plain_halves(count, seed)
