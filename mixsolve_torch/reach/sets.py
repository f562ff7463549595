"""What an attacker can alter: a patch anywhere, or a sensor.

Each kind of set says which classifiers its sets meet, from the masks of what these read; positions
are not listed one by one in the game.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.reach.losses import feature_sets, met
from mixsolve_torch.reach.masked import fits


class Reach(Protocol):
    """A kind of sets, of which the attacker takes `at_most` at once."""

    at_most: int

    def touched(self, reads: Tensor) -> NDArray[np.bool_]:
        """Return (S, L): which sets meet which of L classifiers that read masks (L, C, H, W)."""
        ...


class Patch:
    """A rectangle of pixels, in all channels, at any place in the image.

    Parameters
    ----------
    size : int or (int, int)
        Height and width in pixels.
    at_most : int, default 1
        How many patches the attacker places.

    Raises
    ------
    MixsolveError
        A size that is not positive, or larger than the image (when used).
    """

    def __init__(self, size: int | tuple[int, int], *, at_most: int = 1) -> None:
        pair = size if isinstance(size, tuple | list) else (size, size)
        if len(pair) != 2:
            raise MixsolveError(f"size must be one length or (height, width); got {size!r}")
        self.size = as_count("size", pair[0]), as_count("size", pair[1])
        self.at_most = as_count("at_most", at_most)

    def touched(self, reads: Tensor) -> NDArray[np.bool_]:
        """Return (S, L) for all places in the image, row by row."""
        if reads.ndim != 4:
            raise MixsolveError(
                f"patches need images (C, H, W); the inputs have the shape {tuple(reads.shape[1:])}"
            )
        height, width = reads.shape[-2:]
        if self.size[0] > height or self.size[1] > width:
            raise MixsolveError(
                f"a patch of {self.size[0]} x {self.size[1]} is larger than the image, "
                f"{height} x {width}: nothing can be certified"
            )
        read = reads.any(dim=1).float()[:, None]
        under = functional.max_pool2d(read, self.size, stride=1) > 0
        return under.flatten(1).T.contiguous().numpy()

    def __repr__(self) -> str:
        more = f", at_most={self.at_most}" if self.at_most > 1 else ""
        return f"Patch({self.size[0]} x {self.size[1]}{more})"


class Sensors:
    """Groups of features: channels, regions, or any others.

    Parameters
    ----------
    groups : sequence or mapping
        The groups, each a mask that broadcasts to one input, or numbers of features of the
        flattened input.
    at_most : int, default 1
        How many groups the attacker takes at once.
    """

    def __init__(self, groups: Any, *, at_most: int = 1) -> None:
        self.groups = list(groups.values()) if hasattr(groups, "values") else list(groups)
        self.at_most = as_count("at_most", at_most)
        if not self.groups:
            raise MixsolveError("groups must hold at least one group of features; got none")

    def touched(self, reads: Tensor) -> NDArray[np.bool_]:
        """Return (S, L), a row a group."""
        shape = reads.shape[1:]
        size = int(np.prod(shape))
        taken = np.stack([self._flat(s, own, shape, size) for s, own in enumerate(self.groups)])
        return met(reads.flatten(1).numpy(), taken)

    @staticmethod
    def _flat(s: int, own: Any, shape: Sequence[int], size: int) -> NDArray[np.bool_]:
        given = own if isinstance(own, Tensor) else torch.as_tensor(np.asarray(own))
        if given.dtype != torch.bool:
            return feature_sets(f"groups[{s}] of", [given.numpy()], size)[0]
        if not fits(given, shape):
            raise MixsolveError(
                f"groups[{s}] is a mask of shape {tuple(given.shape)}, which does not fit inputs "
                f"of shape {tuple(shape)}"
            )
        return given.cpu().expand(tuple(shape)).reshape(-1).numpy()

    def __repr__(self) -> str:
        return f"Sensors({len(self.groups)} groups)"


def as_reach(given: Any) -> Reach:
    """Return sets as they are, or groups of features as `Sensors`."""
    if hasattr(given, "touched") and hasattr(given, "at_most"):
        return given
    if isinstance(given, str | int) or not hasattr(given, "__len__"):
        raise MixsolveTypeError(
            "sets must be Patch(size), Sensors(groups) or groups of features; got "
            f"{given!r} ({type(given).__name__})"
        )
    return Sensors(given)


def read_reach(text: str, shape: Sequence[int], *, at_most: int = 1, name: str = "sets") -> Reach:
    """Return the sets that a text names.

    Parameters
    ----------
    text : str
        "patch:4", "patch:4x6" (height x width), "channels", or "sensors:FILE", a .npy file with
        masks (S, H, W) or (S, C, H, W), or with the number of a group for every pixel (H, W).
    shape : sequence of int
        Of one input, (C, H, W).
    at_most : int, default 1
        How many sets the attacker takes.
    name : str, default "sets"
        Of the argument, for messages.

    Raises
    ------
    MixsolveError
        Another text, or a file that has neither.
    """
    kind, _, value = text.partition(":")
    if kind == "patch":
        lengths = value.lower().split("x")
        if not 1 <= len(lengths) <= 2 or not all(part.strip().isdigit() for part in lengths):
            raise MixsolveError(f"{name} patch needs its size, patch:4 or patch:4x6; got {text!r}")
        return Patch((int(lengths[0]), int(lengths[-1])), at_most=at_most)
    if text == "channels":
        return Sensors(
            [torch.arange(shape[0])[:, None, None] == c for c in range(shape[0])], at_most=at_most
        )
    if kind == "sensors" and value:
        return Sensors(_groups(Path(value), name), at_most=at_most)
    raise MixsolveError(f"{name} must be patch:SIZE, channels or sensors:FILE.npy; got {text!r}")


def _groups(path: Path, name: str) -> list[NDArray[np.bool_]]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MixsolveError(f"{name} sensors:{path} cannot be read: {error}") from error
    if found.dtype == bool and found.ndim in (3, 4):
        return list(found)
    if found.dtype.kind in "iu" and found.ndim == 2:
        return [found == group for group in np.unique(found)]
    raise MixsolveError(
        f"{name} sensors:{path} must hold boolean masks (S, H, W) or (S, C, H, W), or the number "
        f"of a group for every pixel (H, W); got {found.dtype} of shape {found.shape}"
    )
