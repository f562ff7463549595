"""Masks of disjoint views of one input: bands, quadrants, groups of features.

A patch of p x p pixels lies in p neighbouring columns and p neighbouring rows. Views that are at
least p - 1 pixels apart, along one axis at least, therefore never meet it both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError
from mixsolve.reach.losses import feature_sets

AXES = ("width", "height")


def bands(shape: Sequence[int], count: int, gap: int = 0, axis: str = "width") -> Tensor:
    """Return masks of bands side by side, as equal in width as the pixels allow.

    Parameters
    ----------
    shape : sequence of int
        Of one image, (H, W) or (C, H, W).
    count : int
        Number of bands.
    gap : int, default 0
        Pixels between neighbouring bands that none reads: p - 1 against patches of p x p.
    axis : {"width", "height"}
        The axis along which the bands follow one another: "width" for upright ones.

    Returns
    -------
    torch.Tensor of shape (count, *shape), bool
        True where a view reads.

    Raises
    ------
    MixsolveError
        Bands that would have no pixel.

    Examples
    --------
    >>> bands((1, 5), 2, gap=1).int().tolist()
    [[[1, 1, 0, 0, 0]], [[0, 0, 0, 1, 1]]]
    """
    shape = _image_shape(shape)
    count, gap = as_count("count", count), as_count("gap", gap, 0)
    if axis not in AXES:
        raise MixsolveError(f"axis must be one of {', '.join(map(repr, AXES))}; got {axis!r}")
    place = -1 if axis == "width" else -2
    masks = torch.zeros(count, *shape, dtype=torch.bool)
    for k, (first, last) in enumerate(_strips(shape[place], count, gap, axis)):
        masks[k].narrow(place, first, last - first).fill_(True)
    return masks


def quadrants(shape: Sequence[int], gap: int = 0) -> Tensor:
    """Return masks of the four quarters of an image, `gap` pixels apart.

    Parameters
    ----------
    shape, gap
        As in `bands`.

    Returns
    -------
    torch.Tensor of shape (4, *shape), bool
    """
    upright, lying = (bands(shape, 2, gap, axis) for axis in AXES)
    return torch.stack([a & b for b in lying for a in upright])


def features(shape: Sequence[int], groups: Sequence[Sequence[int]] | Mapping) -> Tensor:
    """Return masks that read groups of features.

    Parameters
    ----------
    shape : sequence of int
        Of one input: (F,), (C, H, W) or any other.
    groups : sequence or mapping of sequences of int
        For each view the features that it reads, by their numbers in the flattened input.

    Returns
    -------
    torch.Tensor of shape (len(groups), *shape), bool
    """
    size = int(np.prod(shape))
    return torch.from_numpy(feature_sets("groups", groups, size)).reshape(-1, *shape)


def families(shape: Sequence[int], gap: int, *, most: int = 4) -> dict[str, Tensor]:
    """Return bands of 2 to `most` along both axes, and quadrants, as far as they have pixels.

    Parameters
    ----------
    shape, gap
        As in `bands`.
    most : int, default 4
        Largest number of bands.

    Returns
    -------
    dict of str to torch.Tensor
        Masks by name, such as "3 bands, width".
    """
    shape = _image_shape(shape)
    gap = as_count("gap", gap, 0)
    found = {
        f"{count} bands, {axis}": bands(shape, count, gap, axis)
        for count in range(2, as_count("most", most, 2) + 1)
        for axis, size in zip(AXES, (shape[-1], shape[-2]), strict=True)
        if size - (count - 1) * gap >= count
    }
    if min(shape[-2:]) - gap >= 2:
        found["quadrants"] = quadrants(shape, gap)
    return found


def _strips(size: int, count: int, gap: int, axis: str) -> list[tuple[int, int]]:
    read = size - (count - 1) * gap
    if read < count:
        raise MixsolveError(
            f"{count} bands with gaps of {gap} need at least {count + (count - 1) * gap} pixels "
            f"along the {axis}; got {size}; take fewer bands or a smaller gap"
        )
    ends = [round((k + 1) * read / count) + k * gap for k in range(count)]
    return list(zip([0, *(end + gap for end in ends[:-1])], ends, strict=True))


def _image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    own = tuple(as_count("shape", size) for size in shape)
    if len(own) not in (2, 3):
        raise MixsolveError(f"shape must be (H, W) or (C, H, W); got {own}")
    return own
