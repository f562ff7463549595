"""Checks of images, labels and logits; errors name the argument, what it got, and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError


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
    _refuse_special(argument, x)
    if x.ndim != 4 or x.numel() == 0:
        raise MixsolveError(
            f"{argument} must have shape (B, C, H, W) without an empty axis; got {tuple(x.shape)}; "
            f"{_mend_shape(argument, x)}"
        )
    if not x.is_floating_point():
        raise MixsolveTypeError(
            f"{argument} must hold floating-point images in [0, 1]; got {x.dtype}; "
            f"for bytes use {argument}.float() / 255"
        )
    if x.element_size() == 1:
        raise MixsolveTypeError(
            f"{argument} must hold images in a dtype to compute with; got {x.dtype}; "
            f"use {argument}.float()"
        )
    outside = ~((x >= 0) & (x <= 1))
    if outside.any():
        index = first_index(outside)
        digits = 17 if x.dtype == torch.float64 else 9  # enough to identify the number
        raise MixsolveError(
            f"{argument} must lie in [0, 1]; got {_beyond(x[index].item(), index, digits)}"
        )
    return x


def _refuse_special(argument: str, tensor: Tensor) -> None:
    """Refuse tensors that are no plain array of numbers, saying how to make one."""
    found = None
    if tensor.is_nested:
        found = "a nested tensor", "torch.stack its parts, brought to one size"
    elif tensor.layout is not torch.strided:
        found = f"a tensor of layout {tensor.layout}", f"use {argument}.to_dense()"
    elif tensor.device.type == "meta":
        found = "a tensor on the meta device, which has no values", "make it on a device that has"
    elif tensor.is_quantized:
        found = f"a quantized tensor ({tensor.dtype})", f"use {argument}.dequantize()"
    if found is not None:
        raise MixsolveTypeError(f"{argument} must be a plain tensor; got {found[0]}; {found[1]}")


def _mend_shape(argument: str, x: Tensor) -> str:
    """Return how what is no batch of images becomes one."""
    if x.ndim and len(x) == 0:
        return "there is no image in it: look at how it was selected"
    if x.numel() == 0:
        return "its images have no pixels"
    if x.ndim == 2:
        return (
            f"rows of numbers are images of one row, {argument}[:, None, None, :], for a "
            "classifier that begins with torch.nn.Flatten"
        )
    if x.ndim == 3:
        return (
            f"add a channel axis to grey images with {argument}[:, None], or a batch axis to a "
            f"single image with {argument}[None]"
        )
    if x.ndim == 5:
        return (
            f"volumes (B, C, D, H, W) go as {argument}.flatten(2, 3), for a classifier that begins "
            f"with torch.nn.Unflatten(2, {tuple(x.shape[2:4])})"
        )
    return "bring each sample into the form (C, H, W), and let the classifier unfold it"


def _beyond(value: float, index: tuple[int, ...], digits: int) -> str:
    """Return what an entry outside [0, 1] is, by how much, and what to do about it."""
    excess = max(value - 1, -value)
    if not excess < 1e-3:  # NaN too
        found = f"{value:.6g} at index {index}"
        return f"{found}; scale the images and leave their normalisation to the model's first layer"
    side = "above 1" if value > 1 else "below 0"
    found = f"{value:.{digits}g} at index {index}, {excess:.3g} {side}"
    return f"{found}; cut rounding off with clamp(0, 1)"


def labels(argument: str, y: Any, count: int) -> Tensor:
    """Return `y` as int64 if it holds `count` labels, none of them negative."""
    if not isinstance(y, Tensor):
        raise MixsolveTypeError(
            f"{argument} must be a torch.Tensor of class indices (B,); "
            f"got {type(y).__name__}; convert it with torch.as_tensor"
        )
    _refuse_special(argument, y)
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise MixsolveTypeError(
            f"{argument} must hold integer class indices; got {y.dtype}; use {argument}.long()"
        )
    if tuple(y.shape) != (count,):
        raise MixsolveError(
            f"{argument} must have shape ({count},), one label an image; got {tuple(y.shape)}"
        )
    y = y.long()  # first: PyTorch compares no unsigned integers but bytes
    if (y < 0).any():
        index = first_index(y < 0)
        raise MixsolveError(
            f"{argument} must hold class indices from 0 on; got {int(y[index])} at index {index[0]}"
        )
    return y


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
    """Refuse labels without a logit among `classes`."""
    if largest >= classes:
        raise MixsolveError(
            f"{argument} must be below the number of classes; the largest label is {largest}, "
            f"the classifiers return {classes} logits: count labels from 0, or use a larger model"
        )
