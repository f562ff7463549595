"""The loss tensor in memory while it is built: once, never twice.

It is allocated whole where the number of samples is known. Where it is not, rows gather in blocks,
which move into the whole one by one at the end: a block's memory goes back to the system before the
pages that the next one fills are taken.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve.base.tuning import tuning


class MemoryStore:
    """Rows of a tensor in memory, batch after batch.

    Parameters
    ----------
    device : torch.device
        Where the tensor is to be.
    samples : int or None
        Rows in all. None if it is not known: rows then gather in host memory and move to the device
        at the end.
    inputs : MemoryStore, optional
        Where the images go whose losses these are, if they are kept.
    """

    together: int | None = None  # images attacked together by an interrupted run: there is none

    def __init__(
        self, device: torch.device, samples: int | None, inputs: MemoryStore | None = None
    ) -> None:
        self._device = device
        self._inputs = inputs
        self._samples = samples
        self._whole: Tensor | None = None
        self._blocks: list[np.ndarray] = []
        self._filled = 0  # rows of the last block
        self._like: Tensor | None = None
        self._done = 0
        self.passes = 0  # runs of a network on an image that the rows took

    def passes_over(self, x: Tensor, y: Tensor) -> bool:
        """Return False: no batch has been done before."""
        return False

    def append(
        self,
        rows: Tensor,
        together: int | None = None,
        points: Tensor | None = None,
        passes: int = 0,
    ) -> None:
        """Add the rows of one batch, of the shape and dtype of all others, and its images."""
        self.passes += passes
        if self._inputs is not None and points is not None:
            self._inputs.append(points)
        end = self._done + len(rows)
        if self._like is None:
            self._like = rows[:0].clone()
            if self._samples is not None:
                self._whole = _allocate((self._samples, *rows.shape[1:]), rows.dtype, self._device)
        check_dtype(rows.dtype, self._like.dtype)
        if self._whole is not None:
            self._whole[self._done : end] = rows
        else:
            flat = rows.cpu().contiguous().reshape(len(rows), -1).view(torch.uint8).numpy()
            while len(flat):
                if not self._blocks or self._filled == len(self._blocks[-1]):
                    room = max(1, tuning.row_bytes // max(1, flat.shape[1]))
                    self._blocks.append(np.empty((room, flat.shape[1]), dtype=np.uint8))
                    self._filled = 0
                block = self._blocks[-1]
                taken = min(len(flat), len(block) - self._filled)
                block[self._filled : self._filled + taken] = flat[:taken]
                self._filled += taken
                flat = flat[taken:]
        self._done = end

    def finish(self) -> Tensor:
        """Return the tensor."""
        if self._whole is not None:
            return self._whole
        assert self._like is not None
        whole = np.empty((self._done, self._blocks[0].shape[1]), dtype=np.uint8)
        done = 0
        while self._blocks:
            block = self._blocks.pop(0)[: self._done - done]
            whole[done : done + len(block)] = block
            done += len(block)
            del block  # its memory goes before the next block moves
        shape = (self._done, *self._like.shape[1:])
        host = torch.from_numpy(whole).view(self._like.dtype).reshape(shape)
        if self._device.type == "cpu":
            return host
        return _allocate(shape, host.dtype, self._device).copy_(host)

    def finish_inputs(self) -> Tensor:
        """Return the images that were kept."""
        assert self._inputs is not None
        return self._inputs.finish()

    def kept(self) -> str:
        """Say that nothing is kept."""
        return "nothing is kept: give out= to go on after an interruption"

    def close(self) -> None:
        """Do nothing: there is no file."""


def check_dtype(came: object, first: object) -> None:
    """Refuse rows of another dtype than those before them."""
    if came != first:
        raise MixsolveError(
            f"loss must return one dtype for all batches; got {first} before and {came} now"
        )


def _allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    try:
        return torch.empty(shape, dtype=dtype, device=device)
    except torch.cuda.OutOfMemoryError as error:
        size = dtype.itemsize * int(np.prod(shape, dtype=object)) / 2**30
        raise MixsolveError(
            f"losses of shape {shape}, {dtype}, take {size:.3g} GiB, more than {device} has left; "
            "keep them elsewhere with device='cpu', or on disk with out='losses.npy'"
        ) from error
