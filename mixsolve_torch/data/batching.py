"""Images and labels as callers hold them: tensors, a torch `Dataset`, or an iterable of batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.data import checks, pairs
from mixsolve_torch.data.arrays import batches
from mixsolve_torch.data.labelled import LabelledImages, to_unit

Data = tuple[Tensor, Tensor] | LabelledImages | Dataset[Any] | Iterable[Sequence[Tensor]]


def is_pair(data: Any) -> TypeGuard[tuple[Tensor, Any]]:
    """Return whether `data` is images and labels, rather than batches of them."""
    return isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor)


def in_batches(
    data: Data, batch_size: int
) -> tuple[int | None, int | None, Iterable[Sequence[Tensor]]]:
    """Return the number of batches and of samples, where they are known, and the batches.

    What `load_data` returns and the items of a `Dataset` may be bytes; they become floats in
    [0, 1].
    """
    if isinstance(data, LabelledImages):
        data = (to_unit(data.images), data.labels)
    if is_pair(data):
        x, y = pair(data, 0)
        checks.labels("y", y, len(checks.images("x", x)))
        return -(-len(x) // batch_size), len(x), batches(x, y, batch_size)
    if pairs.is_dataset(data):
        samples = len(data)  # type: ignore[arg-type]
        read = ((to_unit(x), y) for x, y in pairs.batches_of(data, batch_size))
        return -(-samples // batch_size), samples, read
    if not isinstance(data, Iterable):
        raise MixsolveTypeError(
            "data must be a pair of tensors (images, labels), a Dataset of (image, label) pairs or "
            "an iterable of batches; "
            f"got {type(data).__name__}"
        )
    loader = cast(Iterable[Sequence[Tensor]], data)
    try:
        return (len(loader) if isinstance(loader, Sized) else None), None, loader
    except TypeError:  # a DataLoader of an iterable dataset has a len() that refuses to answer
        return None, None, loader


def gather(data: Data) -> tuple[Tensor, Tensor]:
    """Return all images (N, C, H, W) and labels (N,) of some data, read once."""
    if pairs.is_dataset(data):
        data = pairs.read(data)
    if isinstance(data, LabelledImages):
        data = (to_unit(data.images), data.labels)
    _, samples, loader = in_batches(data, 1)
    if samples is not None:
        x, y = pair(data, 0)
        return x, checks.labels("y", y, len(x))
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for number, batch in enumerate(loader):
        x, y = pair(batch, number)
        # Copies, since the next batch may come in the same memory.
        images.append(checks.images("x", x).clone())
        labels.append(checks.labels("y", y, len(x)).clone())
    if not images:
        raise MixsolveError("data must hold at least one batch; got none")
    return torch.cat(images), torch.cat(labels)


def in_memory(data: Data, limit: int | None = None) -> LabelledImages:
    """Return the first `limit` images, bytes as bytes, and labels of some data, read once."""
    if pairs.is_dataset(data):
        return pairs.read(data, limit)
    if isinstance(data, LabelledImages):
        x, y, classes = data
    else:
        x, y = data if is_pair(data) else gather(data)
        classes = max(2, int(checks.labels("y", y, len(x)).max()) + 1)
    return LabelledImages(x[:limit], checks.labels("y", y, len(x))[:limit], classes)


def pair(batch: Any, number: int) -> tuple[Tensor, Tensor]:
    """Return the images and labels of batch `number`, refusing what is not such a pair."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise MixsolveTypeError(
            "data must be a pair of tensors (images, labels) or give such pairs; "
            f"batch {number} is a {type(batch).__name__}; convert arrays with torch.as_tensor"
        )
    return batch[0], batch[1]
