"""Images with their labels, as every reader returns them, and bytes as floats."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
