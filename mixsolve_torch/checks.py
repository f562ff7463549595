"""Checks of images, labels and logits; each error names the argument, what came, and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mixsolve.errors import MixsolveError, MixsolveTypeError


def first_index(mask: Tensor) -> tuple[int, ...]:
    """Return the index of the first True in `mask`."""
    return tuple(int(i) for i in mask.nonzero()[0])


def images(argument: str, x: Any) -> Tensor:
    """Return `x` if it is a batch of images: floating, (B, C, H, W), not empty, in [0, 1]."""
    if not isinstance(x, Tensor):
        raise MixsolveTypeError(
            f"{argument} must be a torch.Tensor of images (B, C, H, W); "
            f"got {type(x).__name__}; convert it with torch.as_tensor"
        )
    if x.ndim != 4 or x.numel() == 0:
        raise MixsolveError(
            f"{argument} must have shape (B, C, H, W) without an empty axis; got {tuple(x.shape)}; "
            f"add the axes that are missing, e.g. a channel axis with {argument}[:, None]"
        )
    if not x.is_floating_point():
        raise MixsolveTypeError(
            f"{argument} must hold floating-point images in [0, 1]; got {x.dtype}; "
            f"for bytes use {argument}.float() / 255"
        )
    outside = ~((x >= 0) & (x <= 1))
    if outside.any():
        index = first_index(outside)
        raise MixsolveError(
            f"{argument} must lie in [0, 1]; got {x[index].item():.6g} at index {index}; "
            "scale the images and leave their normalisation to the model's first layer"
        )
    return x


def labels(argument: str, y: Any, count: int) -> Tensor:
    """Return `y` as int64 if it holds `count` labels, none of them negative."""
    if not isinstance(y, Tensor):
        raise MixsolveTypeError(
            f"{argument} must be a torch.Tensor of class indices (B,); "
            f"got {type(y).__name__}; convert it with torch.as_tensor"
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise MixsolveTypeError(
            f"{argument} must hold integer class indices; got {y.dtype}; use {argument}.long()"
        )
    if tuple(y.shape) != (count,):
        raise MixsolveError(
            f"{argument} must have shape ({count},), one label an image; got {tuple(y.shape)}"
        )
    if (y < 0).any():
        index = first_index(y < 0)
        raise MixsolveError(
            f"{argument} must hold class indices from 0 on; got {int(y[index])} at index {index[0]}"
        )
    return y.long()


def finite_logits(logits: Tensor, members: Sequence[int]) -> None:
    """Refuse logits (L, B, classes) of the classifiers `members` unless all are finite."""
    finite = logits.isfinite()
    if not finite.all():
        index = first_index(~finite)
        raise MixsolveError(
            f"models[{members[index[0]]}] must return finite logits; got {logits[index].item()} "
            f"for image {index[1]} of the batch, class {index[2]}; "
            "look for overflow (half precision?) or a diverged classifier"
        )


def label_range(argument: str, largest: int, classes: int) -> None:
    """Refuse labels that the `classes` logits do not know."""
    if largest >= classes:
        raise MixsolveError(
            f"{argument} must be below the number of classes; the largest label is {largest}, "
            f"the classifiers return {classes} logits: count labels from 0, or use a larger model"
        )
