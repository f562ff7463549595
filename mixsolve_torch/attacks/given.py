"""Ready-made adversarial images as an attack: what was found elsewhere, by whatever means.

An evaluation attacks images in batches, in parts of batches, and only those that still resist. The
points of an image are therefore found by the image itself: the images that the points are for are
known by the digests of their entries, and an image that is none of them is refused. Of images that
are equal, the first in a batch gets the points of the first, the second those of the second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.threat_list import Threats, declared
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data import checks
from mixsolve_torch.data.arrays import digests
from mixsolve_torch.data.labelled import to_unit
from mixsolve_torch.runs.fingerprint import describe

SUFFIXES = (".npy", ".npz")


class Given(Attack):
    """Adversarial images that are there already: K for each image.

    Parameters
    ----------
    points : torch.Tensor, array or path
        Shape (K, N, C, H, W), or (N, C, H, W) for K = 1; floating in [0, 1], or uint8 from 0 to
        255. A path names a .npy file, which is mapped, or a .npz file that holds one array or one
        called "points".
    images : torch.Tensor of shape (N, C, H, W), optional
        The images that they are for, in the same order. By default those of the data that
        `build_losses`, `evaluate`, `solve_game` or `grow` is called with, in their order, which may
        be fewer than N.
    norm : {"Linf", "L2", "L1"}, optional
        The norm of the set that they are held against.
    eps : float or str, optional
        Its radius, in the unit of the images.
    threats : list, optional
        Sets instead of `norm` and `eps`, see `read_threats`: each point must lie in one of them.
    name : str, optional
        The candidates' title in tables.

    Raises
    ------
    MixsolveError
        Points of another shape, a file that cannot be read, images that do not fit the points, and
        when the attack is called: an image that is none of those, or a point outside the set.
    MixsolveTypeError
        Points that are no array of numbers.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture, build_losses
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> points = torch.stack([(images + 0.1).clamp(max=1), (images - 0.1).clamp(min=0)])
    >>> attack = Given(points, norm="Linf", eps=0.1)
    >>> build_losses(Mixture(models), (images, labels), attack).candidate_names
    ('clean', 'given Linf 0.1 #1', 'given Linf 0.1 #2')
    """

    points: Tensor | np.ndarray
    kind = "given"
    _rows: dict[bytes, list[int]] | None

    def __init__(
        self,
        points: Any,
        images: Tensor | None = None,
        *,
        norm: str | None = None,
        eps: float | str | None = None,
        threats: Threats | None = None,
        name: str | None = None,
    ) -> None:
        self._declare(declared(norm, eps, threats, "the points"), name)
        array = _array(points)
        object.__setattr__(self, "points", array)
        object.__setattr__(self, "_rows", None)
        if images is not None:
            images = to_unit(images) if isinstance(images, Tensor) else images
            checks.images("images", images)
            if len(images) != array.shape[1]:
                raise MixsolveError(
                    f"images must be the {array.shape[1]} that the points are for; got "
                    f"{len(images)}"
                )
            object.__setattr__(self, "_rows", self._known(images, 0))

    def names(self, classifiers: int) -> list[str]:
        """Return one name for each of the K points of an image."""
        title, count = self.label(self.kind), len(self.points)
        return [title] if count == 1 else [f"{title} #{k + 1}" for k in range(count)]

    def bind(self, x: Tensor, first: int = 0) -> Given:
        """Return the attack that knows which images its points are for.

        Parameters
        ----------
        x : torch.Tensor of shape (B, C, H, W)
            Images of the data, which the points from number `first` on are for. They do not matter
            where the images were given.
        first : int, default 0
            How many images of the data come before these.
        """
        if self._rows is not None:
            return self
        bound = object.__new__(Given)
        vars(bound).update(vars(self))
        vars(bound)["_rows"] = self._known(x, first)
        return bound

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the points of these images."""
        if self._rows is None:
            if len(x) != self.points.shape[1]:
                raise MixsolveError(
                    f"there are points for {self.points.shape[1]} images and no word on which "
                    f"{len(x)} of them these are; give Given(points, images=...) the images"
                )
            yield from self.bind(x).generate(mixture, x, y, generator)
            return
        rows = self._found(x, self._rows)
        for points in self.points:
            chosen = points[rows.to(points.device) if isinstance(points, Tensor) else rows.numpy()]
            yield to_unit(torch.as_tensor(chosen)).to(x)

    def _known(self, images: Tensor, first: int) -> dict[bytes, list[int]]:
        """Return the numbers of images by their digests."""
        count, shape = self.points.shape[1], tuple(self.points.shape[2:])
        if tuple(images.shape[1:]) != shape:
            raise MixsolveError(
                f"points must have the shape of the images, {tuple(images.shape[1:])}; got {shape}"
            )
        if first + len(images) > count:
            raise MixsolveError(
                f"points must be given for every image: there are {count} of them and at least "
                f"{first + len(images)} images"
            )
        rows: dict[bytes, list[int]] = {}
        for number, entry in enumerate(_digests(images), first):
            rows.setdefault(entry, []).append(number)
        return rows

    def _found(self, x: Tensor, known: dict[bytes, list[int]]) -> Tensor:
        """Return the numbers (B,) of the images of a batch."""
        seen: dict[bytes, int] = {}
        rows = torch.empty(len(x), dtype=torch.int64)
        for i, entry in enumerate(_digests(x)):
            if entry not in known:
                raise MixsolveError(
                    f"image {i} of the batch is none of the images that there are points for; give "
                    "points for all images of the data in their order, or say with "
                    "Given(points, images=...) which they are for"
                )
            turn = seen[entry] = seen.get(entry, -1) + 1
            rows[i] = known[entry][turn % len(known[entry])]
        return rows

    @cached_property
    def _digest(self) -> Any:
        return describe(self.points)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the results depend on."""
        return {**self.declaration(), "points": self._digest}


def _digests(images: Tensor) -> Iterator[bytes]:
    """Return a digest of each image, the same in every floating dtype that holds it exactly."""
    return digests(images.to(torch.float32) + 0.0)  # a zero has no sign then


def _array(points: Any) -> Tensor | np.ndarray:
    """Return points as an array of shape (K, N, C, H, W)."""
    if isinstance(points, str | os.PathLike):
        points = _read(Path(points))
    if isinstance(points, Tensor):
        points = points.detach()
        plain = points.is_floating_point() or points.dtype == torch.uint8
    elif isinstance(points, np.ndarray):
        plain = points.dtype.kind == "f" or points.dtype == np.uint8
    else:
        raise MixsolveTypeError(
            f"points must be a tensor, an array or a file; got {type(points).__name__}"
        )
    if not plain:
        raise MixsolveTypeError(
            f"points must be floating in [0, 1], or uint8 from 0 to 255; got {points.dtype}"
        )
    if points.ndim == 4:
        points = points[None]
    if points.ndim != 5 or 0 in points.shape:
        raise MixsolveError(
            "points must have shape (N, C, H, W), or (K, N, C, H, W) with K points an image; got "
            f"{tuple(points.shape)}"
        )
    return points


def _read(path: Path) -> np.ndarray:
    """Return the array of a file."""
    if path.suffix not in SUFFIXES:
        raise MixsolveError(f"points must be a .npy or a .npz file; got {path}")
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            name = "points" if "points" in names else names[0] if len(names) == 1 else None
            if name is not None:
                return archive[name]
    except (OSError, ValueError, EOFError) as error:
        raise MixsolveError(f"the points in {path} cannot be read: {error}") from error
    raise MixsolveError(
        f"{path} must hold one array, or one called 'points'; got {', '.join(names) or 'none'}"
    )
