"""CIFAR and SVHN, read and downloaded by torchvision, which compares their files with checksums.

References
----------
Krizhevsky. Learning Multiple Layers of Features from Tiny Images. 2009.
Netzer, Wang, Coates, Bissacco, Wu, Ng. Reading Digits in Natural Images with Unsupervised Feature
Learning. NIPS Workshop on Deep Learning and Unsupervised Feature Learning, 2011.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve_torch.data.labelled import LabelledImages

# The class of torchvision that reads a set, and the number of its classes.
_SETS = {"svhn": ("SVHN", 10), "cifar10": ("CIFAR10", 10), "cifar100": ("CIFAR100", 100)}
NAMES = tuple(_SETS)


def read(
    name: str, data_dir: str | os.PathLike[str] | None, download: bool, split: str | None
) -> LabelledImages:
    """Read one part of "cifar10", "cifar100" or "svhn"; see `mixsolve_torch.load_data`.

    `data_dir` is the directory in which torchvision keeps the set.

    Raises
    ------
    MissingDependencyError
        torchvision is not installed.
    MixsolveError
        No directory, files that are missing or corrupt, or a download that failed.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} is read by torchvision, which cannot be imported ({error}); "
            "install it with: pip install 'mixsolve[torch]'"
        ) from error
    if data_dir is None:
        raise MixsolveError(
            f"data_dir (--data-dir, data.dir) must name the directory that holds {name}; got none"
        )
    kind, classes = _SETS[name]
    source = getattr(datasets, kind)
    root = Path(data_dir)
    part = split or "test"
    chosen = {"split": part} if kind == "SVHN" else {"train": part == "train"}
    try:
        loaded = source(os.fspath(root), download=download, **chosen)
    except (OSError, RuntimeError) as error:
        if download:
            raise MixsolveError(_failed_download(name, source, root, part, error)) from None
        raise MixsolveError(_what_is_wrong(name, source, root, part, error)) from None
    if kind == "SVHN":
        images, labels = loaded.data, loaded.labels
    else:
        images, labels = loaded.data.transpose(0, 3, 1, 2), loaded.targets
    return LabelledImages(
        torch.from_numpy(np.ascontiguousarray(images)),
        torch.as_tensor(labels, dtype=torch.int64),
        classes,
    )


def _failed_download(name: str, source: Any, root: Path, part: str, error: Exception) -> str:
    if name == "svhn":
        url, file, _ = source.split_list[part]
        where = f"download {url} elsewhere and put it there as {root / file}"
    else:
        where = (
            f"download {source.url} elsewhere and unpack it there, so that "
            f"{root / source.base_folder} exists"
        )
    return f"{name} could not be downloaded to {root}: {error}; {where}"


def _what_is_wrong(name: str, source: Any, root: Path, part: str, error: Exception) -> str:
    """Say why torchvision could not load `name`: its own message stands for several causes."""
    from torchvision.datasets.utils import check_integrity

    mend = (
        "download it with download=True (--download, data.download), or give the directory that "
        "has it"
    )
    if name == "svhn":
        folder, sums = root, [source.split_list[part][1:]]
        damaged = "the file"
    else:
        folder = root / source.base_folder
        meta = source.meta["filename"], source.meta["md5"]
        sums = [*source.train_list, *source.test_list, meta]
        damaged = "the folder"
        if not folder.is_dir():
            return (
                f"data_dir must hold {name} in {source.base_folder}; {folder} does not exist; "
                f"{mend}"
            )
    absent = [file for file, _ in sums if not (folder / file).is_file()]
    if absent:
        return f"{name} is incomplete: {folder} lacks {', '.join(absent)}; {mend}"
    corrupt = [file for file, md5 in sums if not check_integrity(folder / file, md5)]
    if corrupt:
        return (
            f"{name} is corrupt: the checksum of {', '.join(corrupt)} in {folder} is not the "
            f"published one; delete {damaged} and download it again with download=True "
            "(--download, data.download)"
        )
    return f"{name} in {folder} could not be read: {error}"
