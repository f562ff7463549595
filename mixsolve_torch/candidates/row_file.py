"""A .npy file that grows by rows under another name, until it is complete.

    losses.npy.part    header, the rows that count, perhaps rows of a batch that was interrupted

How many rows count stands in the manifest beside it, and in the header when the file is complete.
The header's length does not depend on that number.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.candidates.memory_store import check_dtype
from mixsolve_torch.runs import durable


class RowFile:
    """Rows of one tensor in a file; `dtype` is named as a .npy file does."""

    def __init__(self, path: Path, dtype: str, row_shape: tuple[int, ...]) -> None:
        self.path = path
        self.part = part_of(path)
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._file: IO[bytes] | None = None

    def size(self, rows: int) -> int:
        """Return the bytes of a file of so many rows."""
        return len(self._header(rows)) + rows * int(np.prod(self._row_shape)) * self._dtype.itemsize

    def append(self, rows: np.ndarray, done: int) -> None:
        """Write rows behind those that are done, and bring them to the disk."""
        check_dtype(rows.dtype, self._dtype)
        if rows.shape[1:] != self._row_shape:
            raise MixsolveError(
                f"keep_inputs needs images of one shape; {self.path} holds rows {self._row_shape}, "
                f"and now {rows.shape[1:]} came"
            )
        file = self._open(done)
        file.write(np.ascontiguousarray(rows).data)
        durable.flush(file)

    def seal(self, rows: int) -> None:
        """Write the number of rows into the header, and close the file."""
        file = self._open(rows)
        file.seek(0)
        file.write(self._header(rows))
        durable.flush(file)
        self.close()

    def publish(self) -> None:
        """Give a complete file its name, unless that has been done."""
        if self.part.exists():
            os.replace(self.part, self.path)

    def rows(self, count: int) -> np.ndarray:
        """Return the first rows of the file, complete or not, mapped."""
        path = self.part if self.part.exists() else self.path
        offset = len(self._header(count))
        shape = (count, *self._row_shape)
        return np.memmap(path, self._dtype, mode="c", offset=offset, shape=shape)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _open(self, done: int) -> IO[bytes]:
        """Return the file, open behind the rows that count."""
        if self._file is None:
            self._file = self.part.open("r+b" if self.part.exists() else "x+b")
            self._file.truncate(self.size(done))
            self._file.write(self._header(done))
            self._file.seek(0, os.SEEK_END)
        return self._file

    def _header(self, rows: int) -> bytes:
        head = io.BytesIO()
        fields = {
            "descr": npy_format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (rows, *self._row_shape),
        }
        npy_format.write_array_header_1_0(head, fields)
        return head.getvalue()


def part_of(path: Path) -> Path:
    """Return what a file is called while it grows."""
    return path.with_name(path.name + ".part")


def load_values(path: Path) -> Tensor:
    """Return the tensor in a .npy file, memory-mapped: its entries are read when they are used."""
    try:
        # Private pages: writing to the tensor leaves the file as it is.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except OSError:
        # A system may refuse private pages for more than its memory; shared ones need none.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.load(path, mmap_mode="r", allow_pickle=False))
