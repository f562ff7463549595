"""Groups of images among which the attacker chooses: classes, sites, subpopulations.

    risk of a group   r_g(lam) = mean_{i in g} max_j sum_k lam_k l_ijk
    risk              max_g r_g(lam)  =  max_{v in simplex} sum_g v_g r_g(lam)

the worst group's adversarial risk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError

CLASS = "class"


@dataclass(frozen=True)
class Groups:
    """Which group each image is in.

    Attributes
    ----------
    names : tuple of str
        Of the G groups, in the order of their labels.
    index : ndarray of shape (N,), int64
        The place of each image's group among the names.
    """

    names: tuple[str, ...]
    index: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """How many images are in each group (G,)."""
        return np.bincount(self.index, minlength=len(self.names))

    def at(self, places: np.ndarray) -> Groups:
        """Return the groups of some images."""
        return Groups(self.names, self.index[places])

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places, ascending, of two halves, drawn within each group.

        Those of a group differ by one image at most.
        """
        drawn = np.random.default_rng(seed).permutation(len(self.index))
        # Neighbours in this order are of one group: each second image goes to either half.
        drawn = drawn[np.argsort(self.index[drawn], kind="stable")]
        return np.sort(drawn[::2]), np.sort(drawn[1::2])

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean (G, ...), float64, over the images of each group of values (N, ...).

        That of a group without images is NaN.
        """
        sums = np.zeros((len(self.names), *values.shape[1:]))
        np.add.at(sums, self.index, values)
        images = np.where(self.images > 0, self.images, np.nan)
        return sums / images.reshape(-1, *[1] * (values.ndim - 1))

    def risk(self, risks: np.ndarray) -> float:
        """Return the risk of the worst group that has images, from the risks (N,) of these."""
        return float(np.nanmax(self.means(risks)))

    def deciding(self, risks: np.ndarray, most: np.ndarray) -> np.ndarray:
        """Return a mask (N,) of the images of groups that can still be the worst.

        A group whose risk stays at or below the worst one's even where all its images reach the
        most (N,) that they can lose changes nothing.
        """
        return (self.means(most) > self.risk(risks) + 1e-12)[self.index]


def read_groups(groups: Any, labels: Tensor, *, least: int = 1) -> Groups | None:
    """Return the groups of images: "class" for their labels, or a label for each image.

    Parameters
    ----------
    groups : None, "class" or array-like of shape (N,)
        What is checked: integers, strings or booleans.
    labels : torch.Tensor of shape (N,), int64
        The classes of the images.
    least : int, default 1
        Images that each group must have.

    Raises
    ------
    MixsolveError
        Another word, another number of labels, labels that are missing, or a group that is too
        small.
    MixsolveTypeError
        Something that is no array of labels.
    """
    if groups is None:
        return None
    if isinstance(groups, str):
        if groups != CLASS:
            raise MixsolveError(
                f"groups must be 'class', or an array with a label for each image; got {groups!r}"
            )
        given = labels.cpu().numpy()
    else:
        given = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if given.shape != (len(labels),):
        raise MixsolveError(
            f"groups must hold a label for each of the {len(labels)} images; got shape "
            f"{given.shape}"
        )
    if given.dtype == object and all(isinstance(each, str) for each in given):
        given = given.astype(str)
    if given.dtype.kind not in "iubUS":
        raise MixsolveTypeError(
            "groups must be integers, strings or booleans, and none missing; got dtype "
            f"{given.dtype}"
        )
    found, index = np.unique(given, return_inverse=True)
    read = Groups(tuple(map(str, found.tolist())), index.reshape(-1))
    small = int(read.images.argmin())
    if read.images[small] < least:
        raise MixsolveError(
            f"each group must have at least {least} images, for those that weights are fitted on "
            f"and those reported on; group {read.names[small]!r} has {read.images[small]}"
        )
    return read
