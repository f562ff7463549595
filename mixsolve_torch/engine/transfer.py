"""What crosses from a device to the host: sums once they are complete, answers when asked for."""

import numpy as np
import torch
from torch import Tensor


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


class DeviceWinners:
    """Best candidates on the device. See `mixsolve.engines.placed.Winners`.

    Parameters
    ----------
    found : list of torch.Tensor
        Of all samples, in order, in parts.
    """

    def __init__(self, found: list[Tensor]) -> None:
        self._candidates = torch.cat(found)

    def receive(self) -> np.ndarray:
        """See `mixsolve.engines.placed.Winners.receive`."""
        return receive(self._candidates).astype(np.int64)

    def of(self, samples: np.ndarray) -> np.ndarray:
        """See `mixsolve.engines.placed.Winners.of`."""
        where = torch.tensor(samples, device=self._candidates.device)
        return receive(self._candidates[where]).astype(np.int64)

    def moved(self, earlier: "DeviceWinners") -> np.ndarray:
        """See `mixsolve.engines.placed.Winners.moved`."""
        return receive((self._candidates != earlier._candidates).nonzero()[:, 0])
