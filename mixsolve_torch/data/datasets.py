"""Whole data sets in memory: the digits, MNIST, CIFAR through torchvision, or a .npz file.

Images are returned as the file holds them, bytes as bytes (a quarter of the memory of float32) and
always NCHW; `to_unit` turns a batch of either kind into floats in [0, 1].

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

from mixsolve.base.arguments import as_count, check_flags
from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve_torch.data import idx_files, image_files
from mixsolve_torch.data.arrays import digits
from mixsolve_torch.data.image_files import SPLITS

_CIFAR = {"cifar10": ("CIFAR10", 10), "cifar100": ("CIFAR100", 100)}


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
    split: str | None = None,
    limit: int | None = None,
) -> LabelledImages:
    """Load a data set into memory.

    Parameters
    ----------
    name_or_path : str or path
        "digits", "mnist", "fashion-mnist", "cifar10", "cifar100", or a .npz file. The file holds
        ``images``, (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 from 0 to 255 or floating in
        [0, 1], and ``labels``, integers (N,) counted from 0; or, of data in two parts,
        ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``. It may hold
        ``layout``, "NCHW" or "NHWC", which is needed where the shape can be read in both ways or
        has neither 1 nor 3 channels, and ``classes``, the number of classes, where the largest
        label is not the last class.
    data_dir : str or path, optional
        Directory in which torchvision keeps, or is to put, CIFAR and MNIST; of the two MNIST sets,
        also one that holds their IDX files, packed (.gz) or not. Without it, "fashion-mnist" is
        looked for where Debian's package dataset-fashion-mnist installs it.
    download : bool, default False
        Let torchvision download a set into `data_dir` where it is missing.
    split : {"test", "train"}, optional
        Which images; by default the test images, or those of a .npz file that is one set. The
        digits are those of ``digits()`` with its default seed.
    limit : int, optional
        Keep the first so many images.

    Returns
    -------
    LabelledImages
        ``images`` on the CPU, ``labels`` and ``classes``. CIFAR and MNIST come as uint8.

    Raises
    ------
    MissingDependencyError
        torchvision or scikit-learn is needed and not installed.
    MixsolveError
        An unknown name, files that are missing, corrupt or ambiguous, a split that a file does not
        have, or a download that failed.

    Examples
    --------
    >>> data = load_data("digits", limit=100)
    >>> data.images.shape, data.classes
    (torch.Size([100, 1, 8, 8]), 10)
    """
    check_flags(download=download)
    if split is not None and split not in SPLITS:
        raise MixsolveError(f"split must be 'test' or 'train'; got {split!r}")
    if limit is not None:
        limit = as_count("limit", limit)
    if name_or_path == "digits":
        parts = digits()
        chosen = parts.train if split == "train" else parts.test
        data = LabelledImages(chosen.images, chosen.labels, 10)
    elif name_or_path in idx_files.NAMES:
        read = idx_files.read(str(name_or_path), data_dir, download, split)
        data = LabelledImages(*read, idx_files.CLASSES)
    elif name_or_path in _CIFAR:
        data = _cifar(str(name_or_path), data_dir, download, split)
    elif Path(name_or_path).suffix == ".npz":
        data = LabelledImages(*image_files.read(Path(name_or_path), split))
    else:
        raise _unknown(name_or_path)
    return LabelledImages(data.images[:limit], data.labels[:limit], data.classes)


def splits(name_or_path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the parts that a data set has, "train" and "test"; none of a file that is one set.

    Parameters
    ----------
    name_or_path : str or path
        As `load_data` takes it.

    Raises
    ------
    MixsolveError
        An unknown name, or a file that is missing or broken.
    """
    if name_or_path in ("digits", *idx_files.NAMES, *_CIFAR):
        return SPLITS
    if Path(name_or_path).suffix == ".npz":
        return image_files.splits(Path(name_or_path))
    raise _unknown(name_or_path)


def _unknown(name_or_path: str | os.PathLike[str]) -> MixsolveError:
    known = ", ".join(repr(name) for name in ("digits", *idx_files.NAMES, *_CIFAR))
    return MixsolveError(f"data must be {known} or a .npz file; got {str(name_or_path)!r}")


def _cifar(
    name: str, data_dir: str | os.PathLike[str] | None, download: bool, split: str | None
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
