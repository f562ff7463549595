"""The loss tensor as the kernels see it: rows of L losses, sample after sample, block by block.

Row ``offsets[i] + j`` holds the losses of the L classifiers on candidate j of sample i. A tensor in
memory in this layout, in a type the kernels read, is used in place; a memory map likewise, block by
block. Any other (strided, of another type, on another device, a list of arrays, stored in chunks)
is converted one block at a time in each pass, so it is never copied whole; only a small one is
converted once and kept. Files are read one block ahead of the computation.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mixsolve.arrays.interop import ArraySource
from mixsolve.arrays.read_ahead import MappedFile, read_ahead
from mixsolve.base.errors import MixsolveError
from mixsolve.base.threads import chunk_bounds, run_chunks
from mixsolve.base.tuning import tuning

_KERNEL_DTYPES = (np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.uint8))
_LARGEST_CHUNK_BYTES = 64 << 20  # of a file; larger ones are read in parts, several times a pass
LARGEST_SCALED = 2.0**1000  # larger ones belong to candidates that are never played

Block = tuple[int, int, np.ndarray]


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


class Shape:
    """Samples, their candidates and the classifiers, wherever the losses are.

    Parameters
    ----------
    offsets : ndarray of int64, shape (N + 1,)
        First row of each sample, a row being one candidate.
    n_classifiers : int
        L.

    Attributes
    ----------
    n_candidates : int
        Length of the candidate axis (the longest, for a ragged tensor).
    """

    def __init__(self, offsets: np.ndarray, n_classifiers: int) -> None:
        self.offsets = offsets
        self.n_classifiers = n_classifiers
        self.n_candidates = int(np.diff(offsets).max())

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

    def row_indices(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All rows of some samples, and where each of these samples begins among them."""
        lengths = np.diff(self.offsets)[samples]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        within = np.repeat(self.offsets[samples] - offsets[:-1], lengths)
        return within + np.arange(offsets[-1]), offsets


class LossTensor(Shape):
    """Losses of L classifiers on the candidates of N samples, readable in blocks of rows.

    Parameters
    ----------
    offsets, n_classifiers
        As in `Shape`.
    dtype : dtype
        Of the losses as they are stored.
    read : callable
        ``read(first, last)`` returns the losses of the samples first:last as an array that
        reshapes to rows.
    rows : ndarray, shape (n_rows, L), optional
        All rows, where they are in memory as the kernels read them.
    stored_together : int
        Samples of one chunk of the file that is read, 1 where it has no chunks; 0 in memory.

    Attributes
    ----------
    dtype : dtype
        Of the rows as the kernels see them: float64, float32 or uint8.
    """

    def __init__(
        self,
        offsets: np.ndarray,
        n_classifiers: int,
        dtype: np.dtype,
        read: Callable[[int, int], np.ndarray],
        rows: np.ndarray | None = None,
        stored_together: int = 0,
    ) -> None:
        super().__init__(offsets, n_classifiers)
        self.dtype = kernel_dtype(dtype)
        self._read = read
        self._rows = rows
        self._in_file = stored_together > 0
        self._stored_together = stored_together
        small = self.n_entries * self.dtype.itemsize <= tuning.kept_bytes
        self._file = None
        if rows is not None and self._in_file and not small:
            self._file = MappedFile.of(rows)
        if rows is None and small:
            self._rows = self._arranged((0, self.n_samples))
        self._unit, self._step = self._block_sizes(dtype, stored_together)

    @classmethod
    def from_rows(cls, rows: np.ndarray, offsets: np.ndarray) -> "LossTensor":
        """A tensor of rows in memory: C-contiguous (R, L) of a kernel's type, (N + 1,) int64."""
        return cls(
            offsets, rows.shape[1], rows.dtype, lambda i, j: rows[offsets[i] : offsets[j]], rows
        )

    @classmethod
    def from_source(cls, source: ArraySource) -> "LossTensor":
        """A tensor of three axes, from any kind of array."""
        n_samples, n_candidates, n_classifiers = map(int, source.data.shape)
        dtype = source.data.dtype  # of NumPy or of a framework
        if not isinstance(dtype, np.dtype):
            dtype = source.to_numpy(source.data[:1, :1, :1]).dtype
        return cls(
            even_offsets(n_samples, n_candidates),
            n_classifiers,
            dtype,
            lambda i, j: source.to_numpy(source.data[i:j]),
            _rows_in_place(source),
            source.stored_together,
        )

    @classmethod
    def from_tables(cls, tables: list[np.ndarray]) -> "LossTensor":
        """A ragged tensor: one (m_i, L) array per sample."""
        lengths = [table.shape[0] for table in tables]
        return cls(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            tables[0].shape[1],
            np.result_type(*{table.dtype for table in tables}),
            lambda i, j: np.concatenate(tables[i:j]),
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle rows in memory alone."""
        if self._rows is None:
            return super().__reduce_ex__(protocol)
        return LossTensor.from_rows, (self._rows, self.offsets)

    @property
    def held(self) -> bool:
        """Whether all rows are in memory as the kernels read them, so that no pass copies any."""
        return self._rows is not None

    @property
    def elsewhere(self) -> bool:
        """Whether the losses are in a file, and too many to be kept in memory."""
        return self._file is not None or (self._rows is None and self._in_file)

    def _block_sizes(self, dtype: np.dtype, stored_together: int) -> tuple[int, int]:
        """Samples whose multiples blocks begin at, and samples in a block."""
        per_sample = max(1, self.n_candidates * self.n_classifiers)
        if self._rows is not None and self._file is None:
            return 1, self.n_samples
        if not self._in_file:
            return 1, max(1, tuning.block_entries // per_sample)
        stored_bytes = per_sample * dtype.itemsize
        unit = stored_together if stored_together * stored_bytes <= _LARGEST_CHUNK_BYTES else 1
        return unit, unit * max(1, tuning.file_block_bytes // (unit * stored_bytes))

    def aligned(self, bounds: np.ndarray) -> np.ndarray:
        """Bounds of about the same chunks of samples, at which no chunk of the file is cut."""
        if self._unit == 1:
            return bounds
        within = np.rint(bounds[1:-1] / self._unit).astype(np.int64) * self._unit
        return np.unique(np.concatenate([bounds[:1], within.clip(0, bounds[-1]), bounds[-1:]]))

    def _arranged(self, samples: tuple[int, int]) -> np.ndarray:
        """Rows of the samples first:last as a C-contiguous array of the kernel's type."""
        first, last = samples
        try:
            block = self._read(first, last).reshape(-1, self.n_classifiers)
            if block.dtype == np.bool_:
                block = block.view(np.uint8)
            return np.ascontiguousarray(block, dtype=self.dtype)
        except Exception as error:
            if not self._in_file or isinstance(error, MixsolveError | MemoryError):
                raise
            raise MixsolveError(
                f"losses of the samples {first} to {last - 1} could not be read from their file: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _rows_of(self, wanted: Iterable[tuple[int, int]]) -> Generator[np.ndarray, None, None]:
        """Rows of ranges of samples, each no longer than a block, one range ahead of the caller."""
        if self._rows is None:
            if self._in_file:
                yield from read_ahead(wanted, self._arranged)
            else:
                yield from map(self._arranged, wanted)
            return
        views = (self._rows[self.offsets[first] : self.offsets[last]] for first, last in wanted)
        if self._file is None:
            yield from views
            return
        due = next(views, None)
        while due is not None:
            following = next(views, None)
            if following is not None:
                self._file.expect(following)
            self._file.check()
            yield due
            due = following

    def walk(
        self, bounds: np.ndarray, chunks: Iterable[int]
    ) -> Generator[tuple[int, *Block], None, None]:
        """Rows of some chunks of samples, in blocks; close it if it is not exhausted.

        Parameters
        ----------
        bounds : ndarray of int64, shape (n_chunks + 1,)
            Of the chunks, `aligned`.
        chunks : iterable of int
            Which of them.

        Yields
        ------
        chunk : int
        start, stop : int
            Samples of the block.
        rows : ndarray of float64, float32 or uint8, shape (n_rows, L)
            C-contiguous; must not be written to.
        """
        wanted = [
            (chunk, start, min(start + self._step, int(bounds[chunk + 1])))
            for chunk in chunks
            for start in range(int(bounds[chunk]), int(bounds[chunk + 1]), self._step)
        ]
        with closing(self._rows_of((start, stop) for _, start, stop in wanted)) as blocks:
            for place, rows in zip(wanted, blocks, strict=True):
                yield *place, rows

    def blocks(self, first: int, last: int) -> Generator[Block, None, None]:
        """Rows of the samples first:last, in blocks.

        Yields
        ------
        start, stop : int
            Samples of the block.
        rows : ndarray of float64, float32 or uint8, shape (n_rows, L)
            C-contiguous; must not be written to.
        """
        with closing(self.walk(np.array([first, last]), [0])) as blocks:
            for _, start, stop, rows in blocks:
                yield start, stop, rows

    def _blocks_with(self, samples: np.ndarray) -> Generator[Block, None, None]:
        """The blocks that hold any of some samples, int64 of shape (n,) and ascending."""
        starts = np.unique(samples // self._step) * self._step
        wanted = [(int(start), min(int(start) + self._step, self.n_samples)) for start in starts]
        with closing(self._rows_of(wanted)) as blocks:
            for (start, stop), rows in zip(wanted, blocks, strict=True):
                yield start, stop, rows

    def share_read(self, samples: np.ndarray) -> float:
        """The share of the tensor that is read for rows, of ascending samples (n,)."""
        if not self.elsewhere or self._rows is not None:
            return samples.size / self.n_rows
        starts = np.unique(samples // self._step) * self._step
        return float(np.minimum(starts + self._step, self.n_samples).sum() - starts.sum()) / (
            self.n_samples
        )

    def scaled(self, exponent: int) -> "LossTensor":
        """The losses times 2^exponent, exact but for underflow; scaled as blocks are read.

        Losses that would overflow, which can only be ones that are never played, stay finite.
        """

        def read(first: int, last: int) -> np.ndarray:
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                block = np.ldexp(np.asarray(self._read(first, last), np.float64), exponent)
            return np.clip(block, -LARGEST_SCALED, LARGEST_SCALED, out=block)

        together = self._stored_together
        dtype = np.dtype(np.float64)
        return LossTensor(self.offsets, self.n_classifiers, dtype, read, stored_together=together)

    def only(self, classifiers: np.ndarray) -> "LossTensor":
        """A copy of the losses of some classifiers alone, int64 of shape (s,); rows in memory."""
        assert self._rows is not None
        return LossTensor.from_rows(np.take(self._rows, classifiers, axis=1), self.offsets)

    def subsample(self, samples: np.ndarray) -> "LossTensor":
        """A copy of a few samples alone, int64 of shape (n,), in the same type."""
        if self._rows is not None and self.n_rows == self.n_samples * self.n_candidates:
            tables = self._rows.reshape(self.n_samples, -1)
            rows = _gathered(tables, samples, self.dtype).reshape(-1, self.n_classifiers)
            return LossTensor.from_rows(rows, even_offsets(samples.size, self.n_candidates))
        wanted, offsets = self.row_indices(samples)
        if self._rows is not None:
            return LossTensor.from_rows(_gathered(self._rows, wanted, self.dtype), offsets)
        parts = []
        for start, stop, rows in self._blocks_with(samples):
            here = slice(*offsets[np.searchsorted(samples, (start, stop))])
            parts.append(rows[wanted[here] - self.offsets[start]])
        return LossTensor.from_rows(np.concatenate(parts), offsets)

    def take(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Chosen rows, float64 (n, L): of samples (n,), ascending, the candidates (n,)."""
        if self._rows is not None:
            return _gathered(self._rows, self.offsets[samples] + candidates, np.float64)
        chosen = np.empty((samples.size, self.n_classifiers))
        for start, stop, rows in self._blocks_with(samples):
            here = slice(*np.searchsorted(samples, (start, stop)))
            local = self.offsets[samples[here]] + candidates[here] - self.offsets[start]
            chosen[here] = rows[local]
        return chosen


def _gathered(table: np.ndarray, wanted: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Chosen rows of a table, on all cores."""
    found = np.empty((wanted.size, table.shape[1]), dtype)
    bounds = chunk_bounds(wanted.size, found.size)

    def gather(chunk: int) -> None:
        part = slice(bounds[chunk], bounds[chunk + 1])
        # Indices are valid; clipping avoids the buffer that checking them needs.
        if table.dtype == found.dtype:
            np.take(table, wanted[part], axis=0, out=found[part], mode="clip")
        else:
            found[part] = np.take(table, wanted[part], axis=0, mode="clip")

    run_chunks(gather, bounds.size - 1)
    return found


def even_offsets(n_samples: int, n_candidates: int) -> np.ndarray:
    """First row of each of N samples with m candidates each, int64 of shape (N + 1,)."""
    return np.arange(n_samples + 1, dtype=np.int64) * n_candidates


def _rows_in_place(source: ArraySource) -> np.ndarray | None:
    """All rows without a copy, if the array is in memory as the kernels read it."""
    if not source.is_numpy:
        return None
    data = np.asarray(source.data)
    if data.dtype == np.bool_:
        data = data.view(np.uint8)
    usable = data.dtype == kernel_dtype(data.dtype) and data.dtype.isnative
    if not usable or not data.flags.c_contiguous or not data.flags.aligned:
        return None
    return data.reshape(-1, data.shape[2])
