"""The engine for a loss tensor on a device: every pass runs there, in chunks, summed in float64.

What comes back to the host from a pass over an (N, m, L) tensor, N m L numbers, is

- `soft_response`: 1 + L + L^2 numbers, one transfer;
- `best_response`: 1 + L numbers; the N best candidates stay on the device until they are read
  (by Algorithm 1 in each iteration, by the certificate once): a pass over a GPU's memory is so fast
  that two bytes a sample, copied and compared on the host, would take about as long;
- `near_response`: besides, the near rows, which join the working set of "lp" and "newton" in host
  memory: a few percent of the rows at most, bounded by `limit`;
- `gather`, `gibbs`: chosen rows, and the final strategy, which is part of the answer;
- `in_memory`, `distinct`: the sample of about 4096 rows that presolve tries, and, if it pays, each
  sample's distinct sets of classifiers fooled.

Besides the tensor the device holds sample weights, alpha, a mask and a base measure if there are
any, and a few float64 copies of one chunk. "interior-point" and "cvxpy" gather every row.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve.arrays.interop import ArraySource, array_source, check_axes
from mixsolve.arrays.tensor import LossTensor, even_offsets
from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.engines.base import Losses
from mixsolve.engines.memory import MemoryEngine
from mixsolve_torch.engine.chunks import TorchEngine

_HOST_CHUNK = 1 << 18  # losses at once: what a cache holds
_DEVICE_CHUNK = 1 << 24  # enough to keep a GPU busy; 128 MB as float64


class TorchLosses(Losses):
    """A loss tensor that `mixsolve.solve` solves on its own device.

    `mixsolve.solve` wraps CUDA tensors above 16 MB in this class by itself. Wrap one of any size,
    on any device that has float64, to have it solved there. On the CPU compiled kernels read the
    tensor's own memory, several times faster than PyTorch's operations, which pass over chunks
    where `chunk` is given, or where NumPy lacks the type (bfloat16).

    Parameters
    ----------
    tensor : torch.Tensor of shape (samples, candidates, classifiers), or (samples, classifiers)
        Dense, of any real or boolean type. Never modified, never copied or converted whole.
    chunk : int, optional
        How many losses are read at once, in whole samples. Temporary memory is 8 to 12 bytes
        for each; 70 where every candidate may win. By default 2^24 on a GPU, 2^18 on the CPU.

    Raises
    ------
    MixsolveError
        If an axis is missing or empty, or the device has no float64.
    MixsolveTypeError
        If it is not a dense tensor of real numbers.

    Examples
    --------
    >>> import mixsolve
    >>> import torch
    >>> losses = torch.eye(3, device="cpu").expand(5, 3, 3)
    >>> mixsolve.solve(TorchLosses(losses)).weights
    tensor([0.3333, 0.3333, 0.3333], dtype=torch.float64)
    """

    def __init__(self, tensor: Tensor, chunk: int | None = None) -> None:
        if not isinstance(tensor, Tensor):
            raise MixsolveTypeError(
                f"losses must be a torch.Tensor, got {type(tensor).__name__}; give it to "
                "mixsolve.solve as it is, which reads any array"
            )
        self._source = array_source(tensor)
        check_axes(self._source)
        _check_float64(tensor.device)
        self._by_kernels = chunk is None and self._source.is_numpy
        if chunk is None:
            chunk = _HOST_CHUNK if tensor.device.type == "cpu" else _DEVICE_CHUNK
        self._chunk = as_count("chunk", chunk)
        self._tensor = tensor.detach() if tensor.ndim == 3 else tensor.detach()[:, None]
        n_samples, n_candidates, n_classifiers = self._tensor.shape
        super().__init__(even_offsets(n_samples, n_candidates), n_classifiers)

    def engine(
        self, sample_weight: np.ndarray, allowed: np.ndarray, prior: np.ndarray
    ) -> TorchEngine | MemoryEngine:
        if self._by_kernels:
            tensor = LossTensor.from_source(self._source)
            return MemoryEngine(tensor, sample_weight, allowed, prior)
        return TorchEngine(self._tensor, sample_weight, allowed, prior, self._chunk)

    def restore(self, weights: np.ndarray) -> Any:
        return self._source.restore(weights)


def open_source(source: ArraySource) -> TorchLosses:
    """Losses of a tensor; `mixsolve.engines.open_losses` calls this."""
    return TorchLosses(source.data)


def _check_float64(device: torch.device) -> None:
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError) as error:
        raise MixsolveError(
            f"losses on device {str(device)!r} cannot be solved there: it has no float64, in which "
            "certificates are summed; give the tensor itself to mixsolve.solve, which reads it on "
            "the host"
        ) from error
