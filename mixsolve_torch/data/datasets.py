"""Whole data sets in memory, by name, from files, or from a torch `Dataset`.

Images are returned as the source holds them, bytes as bytes (a quarter of the memory of float32)
and always NCHW; `to_unit` turns a batch of either kind into floats in [0, 1].
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from mixsolve.base.arguments import as_count, check_flags
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.data import idx_files, image_files, image_folder, pairs, torchvision_sets
from mixsolve_torch.data.arrays import digits
from mixsolve_torch.data.image_files import SPLITS
from mixsolve_torch.data.labelled import LabelledImages

NAMES = ("digits", *idx_files.NAMES, *torchvision_sets.NAMES)


def load_data(
    name_or_path: str | os.PathLike[str] | Dataset[Any],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    split: str | None = None,
    limit: int | None = None,
    size: int | None = None,
) -> LabelledImages:
    """Load a data set into memory.

    Parameters
    ----------
    name_or_path : str, path or torch.utils.data.Dataset
        One of

        - "digits", "mnist", "fashion-mnist", "svhn", "cifar10" or "cifar100";
        - a .npz file with ``images``, (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 from 0 to 255
          or floating in [0, 1], and ``labels``, integers (N,) counted from 0; or, of data in two
          parts, ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``. It may
          hold ``layout``, "NCHW" or "NHWC", which is needed where the shape can be read in both
          ways or has neither 1 nor 3 channels, and ``classes``, the number of classes, where the
          largest label is not the last class;
        - a directory with a folder of image files for each class, or with such folders in
          ``train`` and ``test`` (or ``val``) below it. Classes are numbered by name;
        - a `Dataset` whose items are pairs of an image, a tensor (C, H, W), uint8 or floating in
          [0, 1], or a picture of Pillow, and of a label. It is read once: random transforms are
          drawn once, too.
    data_dir : str or path, optional
        Directory in which torchvision keeps, or is to put, the set of that name; of the two MNIST
        sets, also one that holds their IDX files, packed (.gz) or not. Without it,
        "fashion-mnist" is looked for where Debian's package dataset-fashion-mnist installs it.
    download : bool, default False
        Let torchvision download a set into `data_dir` where it is missing.
    split : {"test", "train"}, optional
        Which images; by default the test images, or those of a source that is one set. The
        digits are those of ``digits()`` with its default seed.
    limit : int, optional
        Keep the first so many images; of a directory of class folders, one of each class in turn.
    size : int, optional
        Bring the images of a directory to ``size`` x ``size`` pixels: the shorter side is scaled,
        bilinearly, and the middle cut out. Without it, images of several sizes are refused.

    Returns
    -------
    LabelledImages
        ``images`` on the CPU, ``labels`` and ``classes``. Bytes come as uint8, all else as float32.

    Raises
    ------
    MissingDependencyError
        torchvision, scikit-learn or Pillow is needed and not installed.
    MixsolveError
        An unknown name, files that are missing, corrupt or ambiguous, a split that a source does
        not have, or a download that failed.
    MixsolveTypeError
        A `Dataset` whose items are no pairs of an image and a label.

    Examples
    --------
    >>> data = load_data("digits", limit=100)
    >>> data.images.shape, data.classes
    (torch.Size([100, 1, 8, 8]), 10)
    """
    check_flags(download=download)
    if split is not None and split not in SPLITS:
        raise MixsolveError(f"split must be 'test' or 'train'; got {split!r}")
    limit = limit if limit is None else as_count("limit", limit)
    size = size if size is None else as_count("size", size)
    if pairs.is_dataset(name_or_path):
        _no_size(size, "a Dataset", "resize in its transform")
        if split is not None:
            raise MixsolveError(
                "split must be left out with a Dataset, which is one set of images; got "
                f"{split!r}; give the Dataset of the {split} part"
            )
        return pairs.read(name_or_path, limit)
    path = _path(name_or_path)
    name = str(path) if str(path) in NAMES else None
    if name is None and path.is_dir():
        return image_folder.read(path, split, size=size, limit=limit)
    _no_size(size, str(path), "leave size out, and resize images of your own before they are saved")
    if name == "digits":
        parts = digits()
        chosen = parts.train if split == "train" else parts.test
        data = LabelledImages(chosen.images, chosen.labels, 10)
    elif name in idx_files.NAMES:
        read = idx_files.read(name, data_dir, download, split)
        data = LabelledImages(*read, idx_files.CLASSES)
    elif name is not None:
        data = torchvision_sets.read(name, data_dir, download, split)
    elif path.suffix == ".npz":
        data = LabelledImages(*image_files.read(path, split))
    else:
        raise _unknown(path)
    return LabelledImages(data.images[:limit], data.labels[:limit], data.classes)


def splits(name_or_path: str | os.PathLike[str] | Dataset[Any]) -> tuple[str, ...]:
    """Return the parts that a data set has, "train" and "test"; none of one that is one set."""
    if pairs.is_dataset(name_or_path):
        return ()
    path = _path(name_or_path)
    if str(path) in NAMES:
        return SPLITS
    if path.is_dir():
        return image_folder.splits(path)
    if path.suffix == ".npz":
        return image_files.splits(path)
    raise _unknown(path)


def _path(name_or_path: Any) -> Path:
    if not isinstance(name_or_path, str | os.PathLike):
        raise MixsolveTypeError(
            "data must be a name, a path or a torch Dataset with a length; got "
            f"{type(name_or_path).__name__}"
        )
    return Path(name_or_path)


def _no_size(size: int | None, source: str, mend: str) -> None:
    if size is not None:
        raise MixsolveError(
            f"size must be left out with {source}: it resizes the image files of a directory; got "
            f"{size}; {mend}"
        )


def _unknown(path: Path) -> MixsolveError:
    known = ", ".join(repr(name) for name in NAMES)
    return MixsolveError(
        f"data must be {known}, a .npz file or a directory of class folders that exists; got "
        f"{str(path)!r}"
    )
