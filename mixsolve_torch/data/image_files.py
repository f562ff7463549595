"""Labelled images in a .npz file: one set, or a training and a test part.

Nothing is guessed: a file whose layout, scale or parts can be read in two ways is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve.arrays.files import load_arrays
from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError, named

SPLITS = ("train", "test")
_ARRAYS = ("images", "labels")
_CHANNELS = (1, 3)
_LAYOUTS = ("NCHW", "NHWC")


def splits(path: Path) -> tuple[str, ...]:
    """Return which parts a file has, none if it is one set."""
    return _splits(path, load_arrays(path, "data"))


def read(path: Path, split: str | None) -> tuple[Tensor, Tensor, int]:
    """Read a file.

    Returns
    -------
    images : torch.Tensor of shape (N, C, H, W)
        uint8, or float32 in [0, 1].
    labels : torch.Tensor of shape (N,), int64
    classes : int
        How many there are in all parts.

    Raises
    ------
    MixsolveError
        A file that is missing, broken or ambiguous, or does not have the part.
    """
    arrays = load_arrays(path, "data")
    parts = _splits(path, arrays)
    if not parts:
        for name in _ARRAYS:
            if name not in arrays:
                raise _lacks(path, arrays, "'images' and 'labels'", "images=..., labels=...")
        if split is not None:
            raise MixsolveError(
                f"{path} is one set of images, without a {split} part: leave split out (--split) "
                f"if these are the images you mean, or write the parts with "
                f"np.savez({path.name!r}, train_images=..., train_labels=..., test_images=..., "
                "test_labels=...)"
            )
    else:
        split = split or "test"
        if split not in parts:
            raise MixsolveError(
                f"{path} has no {split} part: its images are those of split={parts[0]!r}; put "
                f"'{split}_images' and '{split}_labels' into it, or read the {parts[0]} part"
            )
    chosen = "" if not parts else f"{split}_"
    images = np.asarray(arrays[f"{chosen}images"])
    pixels = _pixels(path, _channels_first(path, images, arrays.get("layout")))
    labels = _labels(path, arrays, chosen)
    return pixels, torch.from_numpy(labels.astype(np.int64)), _classes(path, arrays, parts)


def _splits(path: Path, arrays: dict[str, Any]) -> tuple[str, ...]:
    found = tuple(split for split in SPLITS if any(f"{split}_{name}" in arrays for name in _ARRAYS))
    for split in found:
        for name in _ARRAYS:
            if f"{split}_{name}" not in arrays:
                raise _lacks(
                    path,
                    arrays,
                    f"'{split}_images' and '{split}_labels'",
                    f"{split}_images=..., {split}_labels=...",
                )
    ambiguous = [name for name in _ARRAYS if name in arrays]
    if found and ambiguous:
        raise MixsolveError(
            f"{path} holds '{found[0]}_images' and '{ambiguous[0]}' too: which images are meant "
            "is ambiguous; write the one set or the parts into a file of their own"
        )
    return found


def _lacks(path: Path, arrays: dict[str, Any], names: str, saved: str) -> MixsolveError:
    found = named(sorted(arrays), len(arrays))
    return MixsolveError(
        f"{path} must hold the arrays {names}; its arrays are: {found}; "
        f"write it with np.savez({path.name!r}, {saved})"
    )


def _labels(path: Path, arrays: dict[str, Any], part: str) -> np.ndarray:
    name = f"{part}labels"
    labels = np.asarray(arrays[name])
    shape = np.shape(arrays[f"{part}images"])[:1]
    if labels.dtype.kind not in "iu" or labels.shape != shape:
        raise MixsolveError(
            f"{path}: {name} must be integers of shape {shape}, one an image; got "
            f"{labels.dtype} of shape {labels.shape}; argmax(axis=1) makes labels of one-hot rows, "
            "reshape(-1) of a column"
        )
    if int(labels.min(initial=0)) < 0:
        raise MixsolveError(f"{path}: {name} must count from 0 on; got {int(labels.min())}")
    return labels


def _classes(path: Path, arrays: dict[str, Any], parts: tuple[str, ...]) -> int:
    """Return the number of classes, which all parts share."""
    classes = 2
    for part in [f"{split}_" for split in parts] or [""]:
        classes = max(classes, int(_labels(path, arrays, part).max(initial=0)) + 1)
    if "classes" in arrays:
        stated = as_count(f"{path}: classes", np.asarray(arrays["classes"]).tolist(), 2)
        if stated < classes:
            raise MixsolveError(
                f"{path}: classes must exceed the largest label; got {stated} and {classes - 1}"
            )
        classes = stated
    return classes


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
        stated = str(np.asarray(layout).tolist())
        if stated not in _LAYOUTS:
            raise MixsolveError(f"{path}: layout must be 'NCHW' or 'NHWC'; got {stated!r}")
    else:
        readings = [k for k, axis in zip(_LAYOUTS, (1, 3), strict=True) if shape[axis] in _CHANNELS]
        if len(readings) != 1:
            why = "both axis 1 and axis 3" if readings else "neither axis 1 nor axis 3"
            raise MixsolveError(
                f"{path}: the channels of images of shape {shape} cannot be told: {why} could hold "
                "1 or 3 of them; save a further array layout='NCHW' or layout='NHWC' in the file"
            )
        stated = readings[0]
    return images if stated == "NCHW" else images.transpose(0, 3, 1, 2)


def _pixels(path: Path, images: np.ndarray) -> Tensor:
    """Return bytes as they are and floats as float32, or refuse an ambiguous scale."""
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
    outside = ~((images >= 0) & (images <= 1))  # a NaN is outside too
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise MixsolveError(
            f"{path}: floating images must lie in [0, 1]; got {images[index]:.6g} at index {index} "
            "(N, C, H, W); divide bytes by 255, undo a normalisation (it belongs in the model)"
        )
    return torch.from_numpy(np.array(images, dtype=np.float32, order="C"))
