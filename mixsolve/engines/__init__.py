"""Engines: the only code that touches the tensor, one for each place it can live.

`open_losses` finds the place. Losses that this process can read, and small ones from anywhere, are
read by the memory engine. For an array that is elsewhere, `mixsolve.arrays.interop` names the
module of the engine that runs there; it is imported only then, and its ``open_source(source)``
returns `Losses`. To use an engine of another kind, pass `Losses` of your own to `mixsolve.solve`.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from mixsolve.arrays.interop import ArraySource, array_source, check_dtype, losses_source
from mixsolve.arrays.labels import GameLabels, read_losses
from mixsolve.arrays.tensor import LossTensor
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.engines.base import Engine, Losses
from mixsolve.engines.memory import MemoryEngine

__all__ = ["Engine", "Losses", "MemoryLosses", "as_loss_tensor", "open_losses"]


class MemoryLosses(Losses):
    """Losses that this process reads, in place or block by block.

    `source` restores weights as the caller's kind of array.
    """

    def __init__(self, tensor: LossTensor, source: ArraySource) -> None:
        super().__init__(tensor.offsets, tensor.n_classifiers)
        self._tensor = tensor
        self._source = source

    def engine(
        self, sample_weight: np.ndarray, allowed: np.ndarray, prior: np.ndarray
    ) -> MemoryEngine:
        return MemoryEngine(self._tensor, sample_weight, allowed, prior)

    @property
    def held(self) -> bool:
        """Whether they are in memory as the kernels read them."""
        return self._tensor.held

    def restore(self, weights: np.ndarray) -> Any:
        return self._source.restore(weights)


def open_losses(losses: Any) -> Losses:
    """Check the `losses` argument of `mixsolve.solve` and find the engine for it.

    A tensor on a device is solved there, unless it is so small (16 MB in a type the kernels read)
    that the memory engine keeps a copy: that copy takes a few milliseconds, about as long as two
    passes of a dozen kernel launches on the device.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        If the type, the number of axes or an axis' length cannot be a loss tensor.
    """
    if isinstance(losses, Losses):
        return losses
    labels = GameLabels()
    if type(losses) is not np.ndarray:  # which has no names
        losses, labels = read_losses(losses, ("samples", "candidates", "classifiers"))
    tensor, source = as_loss_tensor(losses)
    if source.engine is None or tensor.held:
        opened: Losses = MemoryLosses(tensor, source)
    else:
        opened = import_module(source.engine).open_source(source)
    opened.labels = labels
    return opened


def as_loss_tensor(losses: Any) -> tuple[LossTensor, ArraySource]:
    """Read the `losses` argument of `mixsolve.solve`.

    Returns
    -------
    LossTensor
    ArraySource
        Of the array given (of the first one, for a list): its `restore` returns results.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        If the type, the number of axes or an axis' length cannot be a loss tensor.
    """
    if isinstance(losses, (list, tuple)) and losses and _is_table(losses[0]):
        return _from_list(losses)
    if np.isscalar(losses) and not isinstance(losses, (str, bytes)):
        raise MixsolveTypeError(
            f"losses must be an array of numbers, got {type(losses).__name__}; pass one of shape "
            "(samples, candidates, classifiers)"
        )
    source = losses_source(losses)
    return LossTensor.from_source(source), source


def _is_table(item: Any) -> bool:
    """Whether an item of a list is one sample's array (or nested list of rows)."""
    if isinstance(item, (list, tuple)):
        return (bool(item) and isinstance(item[0], (list, tuple))) or _is_table_of_rows(item)
    return getattr(item, "ndim", None) is not None


def _is_table_of_rows(item: Sequence[Any]) -> bool:
    return bool(item) and getattr(item[0], "ndim", 0) == 1


def _from_list(losses: Sequence[Any]) -> tuple[LossTensor, ArraySource]:
    parts: list[np.ndarray] = []
    first = array_source(losses[0], "losses[0]")
    for i, item in enumerate(losses):
        name = f"losses[{i}]"
        source = array_source(item, name)
        part = source.to_numpy(source.data)
        check_dtype(part.dtype, name)
        if part.ndim == 1:  # the losses of one candidate
            part = part[None]
        if part.ndim != 2:
            raise MixsolveError(
                f"{name} must be a table (candidates, classifiers), got an array of shape "
                f"{part.shape}; a list holds one table per sample"
            )
        if part.shape[0] == 0 or part.shape[1] == 0:
            raise MixsolveError(
                f"{name} is empty: its shape is {part.shape}, and every sample needs at least "
                "one candidate and one classifier; leave the sample out, or add its clean point"
            )
        if parts and part.shape[1] != parts[0].shape[1]:
            raise MixsolveError(
                f"{name} has losses of {part.shape[1]} classifiers, but losses[0] of "
                f"{parts[0].shape[1]}; every sample needs the same classifiers, in the same order"
            )
        parts.append(part)
    if len({part.shape for part in parts}) == 1 and isinstance(losses[0], (list, tuple)):
        return LossTensor.from_source(array_source(np.array(parts))), first
    return LossTensor.from_tables(parts), first
