"""Networks that have learned nothing: right no more often than one that always names one class.

With n_c images of class c, a network that is constant is right on one n_c of them, whatever it
says. Adversarial training gets there where the attack is too strong for a network that has just
begun: its loss stays at log K for K classes, that of guessing, and every class is as likely as any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

MEND = (
    "lower optimizer.learning_rate, warm up (optimizer.warmup), or train with a smaller attack.eps "
    "first and go on from there with model.pretrained"
)


def unlearned(accuracies: Sequence[float], labels: ArrayLike) -> list[int]:
    """Return the networks that the most frequent class alone is as good as.

    Of images so few that twice its share n/N is not told from it by two standard errors,
    2 sqrt(n/N (1 - n/N) / N) >= n/N, nothing is said.

    Parameters
    ----------
    accuracies : sequence of float
        Of each network on images as they are.
    labels : array-like of shape (N,), int
        True classes of these images.

    Examples
    --------
    >>> unlearned([0.6, 0.8, 0.2], [0, 0, 0, 1, 2])
    [0, 2]
    >>> unlearned([0.5], [0, 1])
    []
    """
    count = np.bincount(np.asarray(labels))
    images, most = int(count.sum()), int(count.max())
    if most * images <= 4 * (images - most):
        return []
    # Accuracies are means of N zeros and ones: in whole images rounding does not matter.
    return [k for k, own in enumerate(accuracies) if round(own * images) <= most]


def said_of(k: int, accuracy: float, learned_in: str = "") -> str:
    """Return what is to be said of network k."""
    return (
        f"network {k + 1} has learned nothing{learned_in}: it is right on {100 * accuracy:.1f} % "
        "of the images, no more than one that always names the most frequent class; outputs that "
        f"became constant stay so: {MEND}"
    )
