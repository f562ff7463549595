"""What is copied from a device to the host: complete sums, and best candidates when first read."""

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.threads import computed_once
from mixsolve.engines.responses import BestResponse, NearResponse


class Sum:
    """A sum of tensors that stays on the device until it is received."""

    def __init__(self) -> None:
        self._total: Tensor | None = None

    def add(self, term: Tensor) -> None:
        """Add a fresh tensor, which may be written to."""
        self._total = term if self._total is None else self._total.add_(term)

    def receive(self) -> np.ndarray:
        """Wait for the device and copy the sum to the host."""
        assert self._total is not None
        return receive(self._total)


def receive(tensor: Tensor) -> np.ndarray:
    """Copy numbers to the host; nothing else does."""
    return tensor.cpu().numpy()


class DeviceBestResponse(BestResponse):
    """A best response whose candidates stay on the device until they are read.

    Parameters
    ----------
    sums : ndarray of float64, shape (1 + L,)
        Value and gradient.
    found : torch.Tensor of shape (N,)
        Best candidate of each sample.
    """

    _found: Tensor

    def __init__(self, sums: np.ndarray, found: Tensor) -> None:
        # The dataclass is frozen, and its own __init__ takes the candidates on the host.
        vars(self).update(value=float(sums[0]), gradient=sums[1:], _found=found)

    @computed_once
    def candidates(self) -> np.ndarray:
        return receive(self._found).astype(np.int64)

    def of(self, samples: np.ndarray) -> np.ndarray:
        where = torch.tensor(samples, device=self._found.device)
        return receive(self._found[where]).astype(np.int64)

    def moved(self, earlier: BestResponse) -> np.ndarray:
        if isinstance(earlier, DeviceBestResponse):
            return receive((self._found != earlier._found).nonzero()[:, 0])
        return super().moved(earlier)


class DeviceNearResponse(DeviceBestResponse, NearResponse):
    """The same with the near rows, which are on the host.

    Parameters
    ----------
    sums, found
        See `DeviceBestResponse`.
    samples, candidates : ndarray of int64, shape (n,)
        The near rows.
    n_near : int
        How many there were.
    """

    def __init__(
        self,
        sums: np.ndarray,
        found: Tensor,
        samples: np.ndarray,
        candidates: np.ndarray,
        n_near: int,
    ) -> None:
        super().__init__(sums, found)
        vars(self).update(near_samples=samples, near_candidates=candidates, n_near=n_near)
