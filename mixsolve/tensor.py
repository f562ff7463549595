"""The loss tensor as the kernels see it: rows of L losses, sample after sample, block by block.

Row ``offsets[i] + j`` holds the losses of the L classifiers on candidate j of sample i. A tensor
that already lies so in memory, in a type the kernels read, is used in place. Any other (strided,
of another type, on another device, a list of arrays) is brought into that form one block at a time
in each pass, so it is never copied whole; only a small one is rearranged once and kept.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mixsolve.errors import MixsolveError
from mixsolve.interop import ArraySource, array_source, check_dtype

_KERNEL_DTYPES = (np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.uint8))
_KEEP_BYTES = 16 << 20
_BLOCK_ENTRIES = 1 << 18


def kernel_dtype(dtype: np.dtype) -> np.dtype:
    """The narrowest of float64, float32 and uint8 that holds every value of `dtype` (or nearly).

    64-bit integers and extended floats are rounded to float64.
    """
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    if dtype.newbyteorder("=") in _KERNEL_DTYPES:
        return dtype.newbyteorder("=")
    narrow = dtype.itemsize <= 2  # float16, bfloat16, int8, (u)int16: exact in float32
    return np.dtype(np.float32 if narrow else np.float64)


class LossTensor:
    """Losses of L classifiers on the candidates of N samples, readable in blocks of rows.

    Parameters
    ----------
    source : ArraySource or list of ndarray
        A 3-D array, or N arrays of shape (m_i, L).
    restore : callable
        Turns weights into the caller's kind of array.

    Attributes
    ----------
    offsets : ndarray of int64, shape (N + 1,)
        First row of each sample.
    n_candidates : int
        Length of the candidate axis (the longest, for a ragged tensor).
    """

    def __init__(self, source: ArraySource | list[np.ndarray]) -> None:
        self._parts: list[np.ndarray] | None = None
        if isinstance(source, list):
            self._parts = source
            lengths = np.array([part.shape[0] for part in source], dtype=np.int64)
            self.offsets = np.concatenate([[0], np.cumsum(lengths)])
            self.n_classifiers = source[0].shape[1]
            self.n_candidates = int(lengths.max())
            dtype = np.result_type(*{part.dtype for part in source})
        else:
            self._source = source
            n_samples, self.n_candidates, self.n_classifiers = map(int, source.data.shape)
            self.offsets = np.arange(n_samples + 1, dtype=np.int64) * self.n_candidates
            dtype = source.to_numpy(source.data[:1]).dtype
        self.dtype = kernel_dtype(dtype)
        self._rows = self._in_place()
        if self._rows is None and self.n_entries * self.dtype.itemsize <= _KEEP_BYTES:
            self._rows = self._read(0, self.n_samples)

    @property
    def n_samples(self) -> int:
        """N."""
        return self.offsets.size - 1

    @property
    def n_rows(self) -> int:
        """Candidates of all samples together."""
        return int(self.offsets[-1])

    @property
    def n_entries(self) -> int:
        """Losses of all candidates and classifiers together."""
        return self.n_rows * self.n_classifiers

    @property
    def in_place(self) -> bool:
        """Whether the kernels read the rows where they lie, without a conversion each pass."""
        return self._rows is not None

    def _in_place(self) -> np.ndarray | None:
        if self._parts is not None or not self._source.is_numpy:
            return None
        data = self._source.data
        if data.dtype == np.bool_:
            data = data.view(np.uint8)
        # Written out, because a memory map would stay one through reshape and slow slicing down.
        data = np.asarray(data)
        if data.dtype != self.dtype or not data.flags.c_contiguous or not data.flags.aligned:
            return None
        return data.reshape(-1, self.n_classifiers)

    def _read(self, first: int, last: int) -> np.ndarray:
        """Rows of the samples first:last as a new C-contiguous array of the kernel's type."""
        if self._parts is not None:
            block = np.concatenate(self._parts[first:last])
        else:
            block = self._source.to_numpy(self._source.data[first:last])
            block = block.reshape(-1, self.n_classifiers)
        return np.ascontiguousarray(block, dtype=self.dtype)

    def blocks(self, first: int, last: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Rows of the samples first:last, in blocks.

        Yields
        ------
        start, stop : int
            Samples of the block.
        rows : ndarray of float64, float32 or uint8, shape (n_rows, L)
            C-contiguous; must not be written to.
        """
        if self._rows is not None:
            yield first, last, self._rows[self.offsets[first] : self.offsets[last]]
            return
        per_sample = max(1, self.n_candidates * self.n_classifiers)
        step = max(1, _BLOCK_ENTRIES // per_sample)
        for start in range(first, last, step):
            stop = min(start + step, last)
            yield start, stop, self._read(start, stop)

    def take(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Chosen rows.

        Parameters
        ----------
        samples : ndarray of int64, shape (n,)
            In ascending order.
        candidates : ndarray of int64, shape (n,)
            Candidate of each of them.

        Returns
        -------
        ndarray of float64, shape (n, L)
        """
        if self._rows is not None:
            return self._rows[self.offsets[samples] + candidates].astype(np.float64, copy=False)
        chosen = np.empty((samples.size, self.n_classifiers))
        done = 0
        for start, stop, rows in self.blocks(0, self.n_samples):
            upto = int(np.searchsorted(samples, stop))
            local = self.offsets[samples[done:upto]] + candidates[done:upto] - self.offsets[start]
            chosen[done:upto] = rows[local]
            done = upto
        return chosen


def as_loss_tensor(losses: Any) -> tuple[LossTensor, ArraySource]:
    """Read the `losses` argument of `mixsolve.solve`.

    Parameters
    ----------
    losses : array_like of shape (samples, candidates, classifiers), or list of (m_i, L) arrays
        See `mixsolve.solve`.

    Returns
    -------
    LossTensor
    ArraySource
        Of the array given (of the first one, for a list): its `restore` makes the answer.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        If the type, the number of axes or an axis' length cannot be a loss tensor.
    """
    if isinstance(losses, (list, tuple)) and losses and _is_table(losses[0]):
        return _from_list(losses)
    source = array_source(losses)
    shape = tuple(source.data.shape)
    check_dtype(source.data.dtype, "losses")
    if len(shape) != 3:
        raise MixsolveError(
            "losses must have three axes (samples, candidates, classifiers), got an array of "
            f"shape {shape}{_mend_axes(len(shape))}"
        )
    for axis, length in zip(("samples", "candidates", "classifiers"), shape, strict=True):
        if not length:
            raise MixsolveError(
                f"losses has no {axis}: its shape is {shape}, and every axis needs at least one "
                "entry"
            )
    return LossTensor(source), source


def _mend_axes(n_axes: int) -> str:
    return {
        1: "; one loss a classifier needs losses[None, None, :]",
        2: "; for one sample (a matrix game of candidates x classifiers) pass losses[None], for "
        "one candidate a sample losses[:, None, :]",
    }.get(n_axes, "; flatten or index the extra axes")


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
        return LossTensor(ArraySource(np.array(parts), first.to_numpy, first.restore)), first
    return LossTensor(parts), first
