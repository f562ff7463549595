"""A classifier that reads part of its input; the rest is replaced by a constant before it.

    Masked(f, mask)(x) = f( x where mask, fill elsewhere )

The mask is applied to the input itself, before any normalisation, since that stands inside the
network. What is hidden reaches nothing: neither as a value (NaN and infinity included) nor as a
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_real
from mixsolve.base.errors import MixsolveError, MixsolveTypeError


class Masked(nn.Module):
    """A classifier that reads the pixels of a mask, and no others.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier of whole inputs, (B, C, H, W) to logits (B, classes). It is held, not copied.
    mask : array-like of bool
        True where the input is read: (H, W), (C, H, W), or the shape of any one input.
    fill : float, default 0.0
        What hidden pixels are replaced by, in the unit of the input.

    Attributes
    ----------
    model : torch.nn.Module
        The classifier inside.
    mask : torch.Tensor of bool
        A buffer: it is saved with the module and moves between devices with it.
    fill : float
        The constant.

    Raises
    ------
    MixsolveError
        A mask that reads nothing, or that does not fit the input (when run).
    MixsolveTypeError
        A model that is no module, or a mask that is not boolean.

    Examples
    --------
    >>> import torch
    >>> left = Masked(torch.nn.Flatten(), torch.tensor([[True, False]]))
    >>> left(torch.tensor([[[[0.25, 0.5]]]]))
    tensor([[0.2500, 0.0000]])
    """

    if TYPE_CHECKING:  # TorchScript cannot read annotations that are kept as strings
        mask: Tensor

    def __init__(self, model: nn.Module, mask: Any, fill: float = 0.0) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise MixsolveTypeError(
                f"model must be a torch.nn.Module; got {type(model).__name__}; wrap a function, an "
                "estimator or a session in BlackBox"
            )
        self.model = model
        self.fill = as_real("fill", fill)
        self.register_buffer("mask", as_mask("mask", mask))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of the classifier inside for what is read of `x`."""
        if not torch.jit.is_tracing() and not fits(self.mask, x.shape[1:]):
            raise MixsolveError(
                f"the mask of shape {tuple(self.mask.shape)} does not fit inputs of shape "
                f"{tuple(x.shape[1:])}"
            )
        return self.model(torch.where(self.mask, x, self.fill))

    def extra_repr(self) -> str:
        """Return what is read, for the module's printed form."""
        return f"reads {int(self.mask.sum())} of {self.mask.numel()}, fill={self.fill:g}"


def read_by(model: nn.Module, shape: Sequence[int]) -> Tensor:
    """Return the mask, of the shape of one input, of what a classifier reads.

    Only `Masked` itself is known to hide anything: any other classifier, a subclass or a wrapper of
    `Masked` included, counts as reading the whole input.
    """
    if type(model) is not Masked:
        return torch.ones(tuple(shape), dtype=torch.bool)
    if not fits(model.mask, shape):
        raise MixsolveError(
            f"a mask of shape {tuple(model.mask.shape)} does not fit inputs of shape {tuple(shape)}"
        )
    return model.mask.cpu().expand(tuple(shape)) & read_by(model.model, shape)


def fits(mask: Tensor, shape: Sequence[int]) -> bool:
    """Return whether a mask broadcasts to inputs of a shape, and does not enlarge them."""
    own, whole = tuple(mask.shape), tuple(shape)
    return len(own) <= len(whole) and all(
        a in (1, b) for a, b in zip(reversed(own), reversed(whole), strict=False)
    )


def as_mask(name: str, given: Any) -> Tensor:
    """Return a mask as a boolean tensor in memory of its own."""
    tensor = given if isinstance(given, Tensor) else torch.as_tensor(np.array(given))
    if tensor.dtype != torch.bool:
        raise MixsolveTypeError(
            f"{name} must be boolean, True where the input is read; got {tensor.dtype}"
        )
    if not tensor.any():
        raise MixsolveError(f"{name} must have something to read; got False everywhere")
    return tensor.detach().clone()
