"""MNIST and Fashion-MNIST: images and labels in IDX files, packed with gzip or not.

An IDX file is two zero bytes, the type of an entry (8: unsigned byte), the number d of axes, d
lengths as big-endian 32-bit integers, and the entries in C order. A set is four files: images
(N, H, W) and labels (N,) of 60,000 images to train on, and of 10,000 to test on (`t10k`).

References
----------
LeCun, Bottou, Bengio, Haffner. Gradient-based learning applied to document recognition. Proceedings
of the IEEE, 1998.
Xiao, Rasul, Vollgraf. Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms. arXiv:1708.07747, 2017.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import MissingDependencyError, MixsolveError

# The class of torchvision that reads a set, and the name of its folder.
NAMES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
CLASSES = 10

# Debian's package dataset-fashion-mnist puts the four files here.
_INSTALLED = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
_PACKAGE = {"fashion-mnist": "apt install dataset-fashion-mnist (Debian, Ubuntu)"}
_STEMS = {"train": "train", "test": "t10k"}
_BYTE = 8


def read(
    name: str, data_dir: str | os.PathLike[str] | None, download: bool, split: str | None
) -> tuple[Tensor, Tensor]:
    """Read one part of a set.

    Parameters
    ----------
    name : {"mnist", "fashion-mnist"}
        Which set.
    data_dir : str or path or None
        The folder with the files, or the one in which torchvision keeps them.
    download, split
        See `mixsolve_torch.load_data`.

    Returns
    -------
    images : torch.Tensor of shape (N, 1, H, W), uint8
    labels : torch.Tensor of shape (N,), int64

    Raises
    ------
    MissingDependencyError
        A download without torchvision.
    MixsolveError
        Files that are missing or broken, or do not belong together, or a download that failed.
    """
    folder = _folder(name, data_dir, download)
    stem = _STEMS[split or "test"]
    images_path = _file(name, folder, f"{stem}-images-idx3-ubyte")
    labels_path = _file(name, folder, f"{stem}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, axes=3), read_idx(labels_path, axes=1)
    if len(images) != len(labels):
        raise MixsolveError(
            f"{labels_path} holds {len(labels)} labels and {images_path} {len(images)} images: the "
            "files are not of one set; replace both"
        )
    largest = int(labels.max())
    if largest >= CLASSES:
        raise MixsolveError(
            f"{labels_path} must hold labels from 0 to {CLASSES - 1}; got {largest} at index "
            f"{int(labels.argmax())}: this is no file of {name}; replace it, or write images of "
            "other classes into a .npz file"
        )
    return torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64))


def read_idx(path: Path, *, axes: int) -> np.ndarray:
    """Read an IDX file of bytes with so many axes, packed with gzip or not, whatever its name.

    Raises
    ------
    MixsolveError
        A file that cannot be read, is no IDX file of bytes with these axes, is empty, or is
        shorter or longer than its header says.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise MixsolveError(
            f"{path} could not be read ({error}): it is damaged or not all there; replace it"
        ) from error
    begins = 4 + 4 * axes
    expected = bytes([0, 0, _BYTE, axes])
    if content[:4] != expected:
        raise MixsolveError(
            f"{path} must be an IDX file of bytes with {axes} axes, which begins with "
            f"{expected.hex(' ')}; got {content[:4].hex(' ') or 'an empty file'}; replace it"
        )
    if len(content) < begins:
        raise MixsolveError(f"{path} is cut off within its header; replace it")
    shape = tuple(np.frombuffer(content[4:begins], dtype=">u4").tolist())
    entries = len(content) - begins
    if entries != math.prod(shape):
        raise MixsolveError(
            f"{path} is {'cut off' if entries < math.prod(shape) else 'too long'}: its header "
            f"announces {math.prod(shape)} entries, {shape}, and {entries} follow; replace it"
        )
    if not entries:
        raise MixsolveError(f"{path} must hold at least one entry; got shape {shape}; replace it")
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=begins).reshape(shape)


def _folder(name: str, data_dir: str | os.PathLike[str] | None, download: bool) -> Path:
    """Return the folder that holds the files of a set, downloaded if that is asked for."""
    if data_dir is None:
        installed = _INSTALLED.get(name)
        if installed is not None and _holds_some(installed):
            return installed
        where = f", and {installed} does not hold it" if installed is not None else ""
        raise MixsolveError(
            f"data_dir (--data-dir, data.dir) must name the directory that holds {name}; got "
            f"none{where}; {_how_to_get(name)}"
        )
    root = Path(data_dir)
    raw = root / NAMES[name] / "raw"  # where torchvision puts them
    places = (raw, root / name, root)
    for place in places:
        if _holds_some(place):
            return place
    if not download:
        searched = ", ".join(str(place) for place in places)
        raise MixsolveError(
            f"data_dir must hold the IDX files of {name}, packed (.gz) or not, e.g. "
            f"train-images-idx3-ubyte.gz; none is in {searched}; {_how_to_get(name)}"
        )
    _download(name, root)
    return raw


def _holds_some(folder: Path) -> bool:
    return any(
        (folder / f"{stem}-images-idx3-ubyte{ending}").is_file()
        for stem in _STEMS.values()
        for ending in ("", ".gz")
    )


def _file(name: str, folder: Path, stem: str) -> Path:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise MixsolveError(
        f"{name} is incomplete: {folder} has neither {stem} nor {stem}.gz; {_how_to_get(name)}"
    )


def _how_to_get(name: str) -> str:
    package = f"{_PACKAGE[name]} or " if name in _PACKAGE else ""
    return (
        f"get it with {package}download=True (--download, data.download) and a data_dir, or give "
        "the directory that has it"
    )


def _download(name: str, root: Path) -> None:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} is downloaded by torchvision, which cannot be imported ({error}); "
            "install it with: pip install 'mixsolve[torch]'"
        ) from error
    source = getattr(datasets, NAMES[name])
    try:
        source(os.fspath(root), download=True)
    except (OSError, RuntimeError) as error:
        files = ", ".join(file for file, _ in source.resources)
        raise MixsolveError(
            f"{name} could not be downloaded to {root}: {error}; download {files} elsewhere and "
            f"put them into {root}"
        ) from None
