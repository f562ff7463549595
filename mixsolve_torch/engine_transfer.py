"""What crosses from a device to the host: sums once they are complete, answers when asked for."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mixsolve.engines.base import BestResponse, NearResponse


class Sum:
    """A sum of tensors that stays on the device until it is received."""

    def __init__(self) -> None:
        self._total: Tensor | None = None

    def add(self, term: Tensor) -> None:
        """Add a fresh tensor, which may be written to."""
        self._total = term if self._total is None else self._total.add_(term)

    def receive(self) -> np.ndarray:
        """Wait for the device and bring the sum to the host."""
        assert self._total is not None
        return receive(self._total)


def receive(tensor: Tensor) -> np.ndarray:
    """Bring numbers to the host: the one place where any cross."""
    return tensor.cpu().numpy()


class _OnDevice:
    """Best candidates that cross to the host when they are first asked for."""

    _found: list[Tensor]

    @cached_property
    def candidates(self) -> np.ndarray:
        return receive(torch.cat(self._found)).astype(np.int64)


class DeviceBestResponse(_OnDevice, BestResponse):
    """A best response whose candidates are on the device, in parts.

    Parameters
    ----------
    sums : ndarray of float64, shape (1 + L,)
        Value and gradient.
    found : list of torch.Tensor
        Best candidates of all samples, in order.
    """

    def __init__(self, sums: np.ndarray, found: list[Tensor]) -> None:
        # The dataclass is frozen, and its own __init__ would want the candidates now.
        vars(self).update(value=float(sums[0]), gradient=sums[1:], _found=found)


class DeviceNearResponse(_OnDevice, NearResponse):
    """The same with the near rows, which are here already.

    Parameters
    ----------
    sums, found
        See `DeviceBestResponse`.
    entries : ndarray of int64, shape (2, n)
        Samples and candidates.
    n_near : int
        How many there were.
    """

    def __init__(
        self, sums: np.ndarray, found: list[Tensor], entries: np.ndarray, n_near: int
    ) -> None:
        vars(self).update(value=float(sums[0]), gradient=sums[1:], _found=found)
        vars(self).update(near_samples=entries[0], near_candidates=entries[1], n_near=n_near)
