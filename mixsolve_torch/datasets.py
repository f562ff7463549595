"""Whole data sets in memory: the bundled digits, CIFAR through torchvision, or a file of one's own.

Images come back as the file holds them, bytes as bytes (a quarter of the memory of float32) and
always NCHW; `to_unit` turns a batch of either kind into floats in [0, 1]. A guess that could be
wrong is not made: a file whose layout or scale can be read in two ways is refused.

References
----------
Krizhevsky. Learning Multiple Layers of Features from Tiny Images. 2009.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixsolve.arguments import as_count
from mixsolve.commands.arrays import load_arrays
from mixsolve.errors import MissingDependencyError, MixsolveError
from mixsolve_torch.data import digits

_CIFAR = {"cifar10": ("CIFAR10", 10), "cifar100": ("CIFAR100", 100)}
_SPLITS = ("test", "train")
_CHANNELS = (1, 3)
_LAYOUTS = ("NCHW", "NHWC")


class LabelledImages(NamedTuple):
    """A data set.

    Attributes
    ----------
    images : torch.Tensor of shape (N, C, H, W)
        uint8 from 0 to 255, or float32 in [0, 1].
    labels : torch.Tensor of shape (N,), int64
        Classes, counted from 0.
    classes : int
        How many classes there are.
    """

    images: Tensor
    labels: Tensor
    classes: int


def to_unit(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return images as floats in [0, 1]: bytes are divided by 255, floats returned as they are.

    Parameters
    ----------
    images : torch.Tensor
        uint8, or floating.
    dtype : torch.dtype, default torch.float32
        Of the result, where `images` are bytes.

    Returns
    -------
    torch.Tensor

    Examples
    --------
    >>> to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images


def load_data(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    split: str = "test",
    limit: int | None = None,
) -> LabelledImages:
    """Load a data set into memory.

    Parameters
    ----------
    name_or_path : str or path
        "digits", "cifar10", "cifar100", or a .npz file. The file holds ``images``, (N, H, W),
        (N, C, H, W) or (N, H, W, C), uint8 from 0 to 255 or floating in [0, 1], and ``labels``,
        integers (N,) counted from 0. It may hold ``layout``, "NCHW" or "NHWC", which is needed
        where the shape can be read in both ways or has neither 1 nor 3 channels, and ``classes``,
        the number of classes, where the largest label is not the last class.
    data_dir : str or path, optional
        Directory in which torchvision keeps, or is to put, CIFAR. Needed for CIFAR alone.
    download : bool, default False
        Let torchvision download CIFAR where it is missing.
    split : {"test", "train"}, default "test"
        Which images. The digits are those of ``digits()`` with its default seed. A .npz file is one
        set of images, returned for either.
    limit : int, optional
        Keep the first so many images.

    Returns
    -------
    LabelledImages
        ``images`` on the CPU, ``labels`` and ``classes``. CIFAR comes as uint8.

    Raises
    ------
    MissingDependencyError
        torchvision or scikit-learn is needed and not installed.
    MixsolveError
        An unknown name, files that are missing, corrupt or ambiguous, or a download that failed.

    Examples
    --------
    >>> data = load_data("digits", limit=100)
    >>> data.images.shape, data.classes
    (torch.Size([100, 1, 8, 8]), 10)
    """
    if split not in _SPLITS:
        raise MixsolveError(f"split must be 'test' or 'train'; got {split!r}")
    if limit is not None:
        limit = as_count("limit", limit)
    if name_or_path == "digits":
        parts = digits()
        chosen = parts.train if split == "train" else parts.test
        data = LabelledImages(chosen.images, chosen.labels, 10)
    elif name_or_path in _CIFAR:
        data = _cifar(str(name_or_path), data_dir, download, split)
    elif Path(name_or_path).suffix == ".npz":
        data = _from_file(Path(name_or_path))
    else:
        raise MixsolveError(
            "data must be 'digits', 'cifar10', 'cifar100' or a .npz file; "
            f"got {str(name_or_path)!r}"
        )
    return LabelledImages(data.images[:limit], data.labels[:limit], data.classes)


def _cifar(
    name: str, data_dir: str | os.PathLike[str] | None, download: bool, split: str
) -> LabelledImages:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} is read by torchvision, which cannot be imported ({error}); "
            "install it with: pip install 'mixsolve[torch]'"
        ) from error
    if data_dir is None:
        raise MixsolveError(
            f"data_dir (--data-dir) must name the directory that holds {name}; got none"
        )
    kind, classes = _CIFAR[name]
    source = getattr(datasets, kind)
    try:
        loaded = source(os.fspath(data_dir), train=split == "train", download=download)
    except (OSError, RuntimeError) as error:
        raise MixsolveError(_what_is_wrong(name, source, Path(data_dir), download, error)) from None
    images = torch.from_numpy(np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2)))
    return LabelledImages(images, torch.tensor(loaded.targets, dtype=torch.int64), classes)


def _what_is_wrong(name: str, source: Any, root: Path, download: bool, error: Exception) -> str:
    """Say why torchvision could not load `name`: its own message stands for several causes."""
    if download:
        return (
            f"{name} could not be downloaded to {root}: {error}; download {source.url} elsewhere "
            f"and unpack it there, so that {root / source.base_folder} exists"
        )
    from torchvision.datasets.utils import check_integrity

    folder = root / source.base_folder
    mend = "download it with download=True (--download), or give the directory that has it"
    if not folder.is_dir():
        return f"data_dir must hold {name} in {source.base_folder}; {folder} does not exist; {mend}"
    sums = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    absent = [file for file, _ in sums if not (folder / file).is_file()]
    if absent:
        return f"{name} is incomplete: {folder} lacks {', '.join(absent)}; {mend}"
    corrupt = [file for file, md5 in sums if not check_integrity(folder / file, md5)]
    if corrupt:
        return (
            f"{name} is corrupt: the checksum of {', '.join(corrupt)} in {folder} is not the "
            "published one; delete the folder and download it again with download=True (--download)"
        )
    return f"{name} in {folder} could not be read: {error}"


def _from_file(path: Path) -> LabelledImages:
    arrays = load_arrays(path, "data")
    for name in ("images", "labels"):
        if name not in arrays:
            found = ", ".join(sorted(arrays)) or "none"
            raise MixsolveError(
                f"{path} must hold the arrays 'images' and 'labels'; its arrays are: {found}; "
                f"write it with np.savez({path.name!r}, images=..., labels=...)"
            )
    images, labels = np.asarray(arrays["images"]), np.asarray(arrays["labels"])
    pixels = _pixels(path, _channels_first(path, images, arrays.get("layout")))
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise MixsolveError(
            f"{path}: labels must be integers of shape ({len(images)},), one an image; got "
            f"{labels.dtype} of shape {labels.shape}; argmax(axis=1) makes labels of one-hot rows"
        )
    if int(labels.min()) < 0:
        raise MixsolveError(f"{path}: labels must count from 0 on; got {int(labels.min())}")
    classes = max(int(labels.max()) + 1, 2)
    if "classes" in arrays:
        told = as_count(f"{path}: classes", np.asarray(arrays["classes"]).tolist(), 2)
        if told < classes:
            raise MixsolveError(
                f"{path}: classes must exceed the largest label; got {told} and {classes - 1}"
            )
        classes = told
    return LabelledImages(pixels, torch.from_numpy(labels.astype(np.int64)), classes)


def _channels_first(path: Path, images: np.ndarray, layout: np.ndarray | None) -> np.ndarray:
    """Return the images as (N, C, H, W), or refuse a shape that can be read in two ways."""
    shape = images.shape
    if images.ndim not in (3, 4) or not images.size:
        raise MixsolveError(
            f"{path}: images must have shape (N, H, W), (N, C, H, W) or (N, H, W, C) without an "
            f"empty axis; got {shape}"
        )
    if images.ndim == 3:
        return images[:, None]
    if layout is not None:
        told = str(np.asarray(layout).tolist())
        if told not in _LAYOUTS:
            raise MixsolveError(f"{path}: layout must be 'NCHW' or 'NHWC'; got {told!r}")
    else:
        readings = [k for k, axis in zip(_LAYOUTS, (1, 3), strict=True) if shape[axis] in _CHANNELS]
        if len(readings) != 1:
            why = "both axis 1 and axis 3" if readings else "neither axis 1 nor axis 3"
            raise MixsolveError(
                f"{path}: the channels of images of shape {shape} cannot be told: {why} could hold "
                "1 or 3 of them; save a further array layout='NCHW' or layout='NHWC' in the file"
            )
        told = readings[0]
    return images if told == "NCHW" else images.transpose(0, 3, 1, 2)


def _pixels(path: Path, images: np.ndarray) -> Tensor:
    """Return bytes as they are and floats as float32, or refuse a scale that cannot be told."""
    if images.dtype == np.uint8:
        if int(images.max()) <= 1:
            raise MixsolveError(
                f"{path}: images of uint8 must run from 0 to 255; the largest pixel is "
                f"{int(images.max())}: if 1 is white, save them with images.astype(np.float32)"
            )
        return torch.from_numpy(np.array(images, order="C"))
    if images.dtype.kind != "f":
        raise MixsolveError(
            f"{path}: images must be uint8 from 0 to 255 or floating in [0, 1]; got "
            f"{images.dtype}; convert bytes held in wider integers with images.astype(np.uint8)"
        )
    outside = ~((images >= 0) & (images <= 1))  # a NaN lies outside too
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise MixsolveError(
            f"{path}: floating images must lie in [0, 1]; got {images[index]:.6g} at index {index} "
            "(N, C, H, W); divide bytes by 255, undo a normalisation (it belongs in the model)"
        )
    return torch.from_numpy(np.array(images, dtype=np.float32, order="C"))
