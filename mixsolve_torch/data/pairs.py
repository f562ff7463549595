"""A torch `Dataset` of (image, label) pairs as tensors: read once, in its order."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.data import checks
from mixsolve_torch.data.labelled import LabelledImages
from mixsolve_torch.data.pictures import is_picture, pixels


def is_dataset(data: Any) -> TypeGuard[Dataset[Any]]:
    """Return whether `data` is a `Dataset` with a length and an item for each index."""
    return (
        isinstance(data, Dataset)
        and not isinstance(data, IterableDataset)
        and hasattr(data, "__len__")
    )


def read(dataset: Dataset[Any], limit: int | None = None) -> LabelledImages:
    """Read a `Dataset`, or its first items up to a limit, into memory.

    Its items are as `mixsolve_torch.load_data` says, all images of one shape; (H, W) is taken, too.

    Returns
    -------
    LabelledImages
        Bytes as they are, floats as float32. The number of classes is that of the attribute
        ``classes`` if the `Dataset` has it, else the largest label and one.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        Items that are no such pairs.
    """
    count = _length(dataset) if limit is None else min(limit, _length(dataset))
    images, labels = stacked(dataset, 0, count)
    if images.dtype != torch.uint8:
        images = checks.images("the images of the Dataset", images).float()
    classes = max(2, int(labels.max()) + 1)
    stated = getattr(dataset, "classes", None)
    if isinstance(stated, list | tuple):
        if len(stated) < classes:
            raise MixsolveError(
                f"the labels of the Dataset must be below the number of its classes, "
                f"{len(stated)}; got {int(labels.max())}"
            )
        classes = len(stated)
    return LabelledImages(images, labels, classes)


def batches_of(dataset: Dataset[Any], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images, uint8 or floating, and labels of a `Dataset`, batch by batch."""
    count = _length(dataset)
    for start in range(0, count, batch_size):
        yield stacked(dataset, start, min(start + batch_size, count))


def stacked(dataset: Dataset[Any], start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Return the images (B, C, H, W) and labels (B,) of the items from `start` to before `stop`."""
    return chosen(dataset, range(start, stop))


def chosen(dataset: Dataset[Any], items: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the images (B, C, H, W) and labels (B,) of some items."""
    images: list[Tensor] = []
    labels: list[int] = []
    for k in items:
        image, label = _item(dataset[k], k)
        if images and (image.shape != images[0].shape or image.dtype != images[0].dtype):
            raise MixsolveError(
                f"the images of the Dataset must have one shape and dtype; item {k} has "
                f"{tuple(image.shape)} of {image.dtype}, item {items[0]} "
                f"{tuple(images[0].shape)} of {images[0].dtype}; bring them to one form "
                "in its transform, by a Resize say"
            )
        images.append(image)
        labels.append(label)
    return torch.stack(images), torch.tensor(labels, dtype=torch.int64)


def _length(dataset: Any) -> int:
    count = len(dataset)
    if not count:
        raise MixsolveError("the Dataset must hold at least one image; got none")
    return count


def _item(item: Any, index: int) -> tuple[Tensor, int]:
    """Return the image (C, H, W) and the label of an item."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise MixsolveTypeError(
            f"the items of the Dataset must be pairs (image, label); item {index} is a "
            f"{type(item).__name__}; wrap it in a Dataset that returns such pairs"
        )
    image, label = item
    if is_picture(image):
        image = torch.from_numpy(pixels(image, f"image {index} of the Dataset").copy())
    if not isinstance(image, Tensor):
        raise MixsolveTypeError(
            f"the images of the Dataset must be tensors or pictures of Pillow; image {index} is a "
            f"{type(image).__name__}; convert it with torch.as_tensor"
        )
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3:
        raise MixsolveError(
            f"the images of the Dataset must have shape (C, H, W); image {index} has "
            f"{tuple(image.shape)}"
        )
    if isinstance(label, Tensor) and label.ndim == 0:
        label = label.item()
    if not isinstance(label, numbers.Integral) or isinstance(label, bool) or label < 0:
        raise MixsolveTypeError(
            f"the labels of the Dataset must be integers from 0 on; label {index} is {label!r}"
        )
    return image.detach(), int(label)
