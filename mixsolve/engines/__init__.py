"""Engines: the only code that touches the tensor, one for each place it can live.

`open_losses` finds the place. Losses that this process can read, and small ones from anywhere, are
read by the memory engine. For an array that is elsewhere, `mixsolve.arrays.interop` names the
module of the engine that runs there; it is imported only then, and its ``open_source(source)``
returns `Losses`. To use an engine of another kind, pass `Losses` of your own to `mixsolve.solve`.
"""

from importlib import import_module
from typing import Any

import numpy as np

from mixsolve.arrays.interop import ArraySource
from mixsolve.arrays.labels import read_losses
from mixsolve.arrays.losses import as_loss_tensor
from mixsolve.arrays.tensor import LossTensor
from mixsolve.engines.base import Engine, Losses
from mixsolve.engines.memory import MemoryEngine

__all__ = ["Engine", "Losses", "MemoryLosses", "open_losses"]


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
    losses, labels = read_losses(losses, ("samples", "candidates", "classifiers"))
    tensor, source = as_loss_tensor(losses)
    if source.engine is None or tensor.held:
        opened: Losses = MemoryLosses(tensor, source)
    else:
        opened = import_module(source.engine).open_source(source)
    opened.labels = labels
    return opened
