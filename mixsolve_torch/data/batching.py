"""Images and labels as callers hold them: a pair of tensors, or an iterable of batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import Any

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.data import checks
from mixsolve_torch.data.arrays import batches

Data = tuple[Tensor, Tensor] | Iterable[Sequence[Tensor]]


def in_batches(
    data: Data, batch_size: int
) -> tuple[int | None, int | None, Iterable[Sequence[Tensor]]]:
    """Return the number of batches and of samples, where they are known, and the batches."""
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor):
        x, y = pair(data, 0)
        checks.labels("y", y, len(checks.images("x", x)))
        return -(-len(x) // batch_size), len(x), batches(x, y, batch_size)
    if not isinstance(data, Iterable):
        raise MixsolveTypeError(
            "data must be a pair of tensors (images, labels) or an iterable of such batches; "
            f"got {type(data).__name__}"
        )
    try:
        return (len(data) if isinstance(data, Sized) else None), None, data
    except TypeError:  # a DataLoader of an iterable dataset has a len() that refuses to answer
        return None, None, data


def gather(data: Data) -> tuple[Tensor, Tensor]:
    """Return all images (N, C, H, W) and labels (N,) of some data, read once."""
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


def pair(batch: Any, number: int) -> tuple[Tensor, Tensor]:
    """Return the images and labels of batch `number`, refusing what is not such a pair."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise MixsolveTypeError(
            "data must be a pair of tensors (images, labels) or give such pairs; "
            f"batch {number} is a {type(batch).__name__}; convert arrays with torch.as_tensor"
        )
    return batch[0], batch[1]
