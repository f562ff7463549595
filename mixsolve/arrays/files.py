"""Arrays from files of every kind, without reading large ones into memory.

A .npy file is mapped. A .npz file is a zip archive of .npy files; those that are stored as they are
(`numpy.savez`) are mapped in place, and compressed ones are unpacked to an unnamed temporary file,
which the system removes when it is no longer used. Zarr stores and HDF5 files are opened by
`mixsolve.arrays.stores`.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mixsolve.arrays import stores
from mixsolve.base.errors import MixsolveError, named, shortened
from mixsolve.base.files import check_unpacked

# Options of `mixsolve.solve` that a file can hold, as arrays of a .npz or in files of their own.
ARRAY_OPTIONS = ("sample_weight", "candidate_mask", "candidate_prior")

# A zip member's local header: 26 bytes, then the lengths of its name and of its extra field.
_LOCAL_HEADER = struct.Struct("<26xHH")

_COPIED_TOGETHER = 1 << 20  # bytes

_BROKEN = (
    ValueError,
    EOFError,
    KeyError,
    OSError,
    NotImplementedError,  # a zip member of an unsupported compression
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def load_array(path: str | os.PathLike[str], name: str) -> Any:
    """Read one array from a file that has one array or one of this name, also used in errors.

    Raises
    ------
    MixsolveError
        If the file is missing, broken, or has no such array; see `load_arrays`.
    """
    return choose(load_arrays(path, name), path, name)


def choose(arrays: dict[str, Any], path: str | os.PathLike[str], name: str) -> Any:
    """The only array of a file, or the one of this name; see `load_array`."""
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if name not in arrays:
        raise MixsolveError(
            f"{path} must have one array or one named {name!r}, its arrays are: "
            f"{named(sorted(arrays), len(arrays))}"
        )
    return arrays[name]


def load_arrays(path: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """Open every array of a .npz file, a Zarr store or an HDF5 file, or the one of a .npy file.

    Parameters
    ----------
    path : str or path
        The file, or a Zarr store's directory.
    name : str
        Name of an array that has none, and for errors.

    Returns
    -------
    dict of str to ndarray, zarr.Array or h5py.Dataset
        Read-only memory maps where possible; arrays in groups are named by their path, "a/b".

    Raises
    ------
    MixsolveError
        If the file is missing or broken, or needs a package that is not installed.
    """
    path = Path(path)
    try:
        if stores.is_zarr(path):
            return stores.load_zarr(path, name)
        if path.is_dir():
            raise MixsolveError(f"the {name} file {path} is a directory")
        if path.exists() and not path.is_file():  # a pipe may block, a device never ends
            raise MixsolveError(f"the {name} file {path} is a device, a pipe or a socket")
        if stores.is_hdf5(path):
            return stores.load_hdf5(path, name)
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _load_npz(path, file)
            return {name: _load_npy(path, file)}
    except FileNotFoundError:
        raise MixsolveError(f"the {name} file {path} does not exist") from None
    except PermissionError:
        raise MixsolveError(f"the {name} file {path} may not be read") from None
    except MixsolveError:
        raise
    except _BROKEN as error:
        raise MixsolveError(
            f"the {name} file {path} is not a readable .npy or .npz file of numbers: "
            f"{shortened(str(error))}"
        ) from error


@dataclass(frozen=True)
class _Header:
    """The header of a .npy file."""

    shape: tuple[int, ...]
    order: Literal["F", "C"]
    dtype: np.dtype
    size: int  # of the header itself

    @classmethod
    def read(cls, stream: IO[bytes]) -> _Header:
        version = npy_format.read_magic(stream)
        read = (
            npy_format.read_array_header_1_0
            if version == (1, 0)
            else npy_format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read(stream)
        # NumPy's reader takes negative numbers, and True, which is an int in Python.
        if any(isinstance(length, bool) or length < 0 for length in shape):
            raise ValueError(f"its header says the shape {shape}")
        if max(shape, default=0) > np.iinfo(np.intp).max:
            raise ValueError(f"its header says the shape {shape}, which no array can have")
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not read from files")
        return cls(shape, "F" if fortran_order else "C", dtype, stream.tell())

    @property
    def n_bytes(self) -> int:
        """Size of the numbers."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=object))

    def check(self, n_bytes: int) -> None:
        """Refuse fewer bytes after the header than the array takes."""
        if n_bytes < self.n_bytes:
            raise ValueError(
                f"it is truncated: an array of shape {self.shape} and type {self.dtype} takes "
                f"{self.n_bytes} bytes, and there are {max(0, n_bytes)}"
            )

    def map(self, file: Path | IO[bytes], start: int) -> NDArray:
        """The array whose numbers begin at byte `start` of a file."""
        if self.n_bytes == 0:  # an empty array cannot be mapped
            return np.empty(self.shape, self.dtype)
        return np.memmap(file, self.dtype, "r", offset=start, shape=self.shape, order=self.order)


def _load_npy(path: Path, file: IO[bytes]) -> NDArray:
    file.seek(0)
    beginning = file.read(len(npy_format.MAGIC_PREFIX))
    if beginning[:2] == b"PK":
        raise ValueError("it begins like a .npz file and does not end like one: it is truncated")
    if beginning != npy_format.MAGIC_PREFIX:
        raise ValueError("it does not begin like one")
    file.seek(0)
    header = _Header.read(file)
    header.check(os.fstat(file.fileno()).st_size - header.size)
    return header.map(path, header.size)


def _load_npz(path: Path, file: IO[bytes]) -> dict[str, Any]:
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        check_unpacked(path, sum(member.file_size for member in members if _is_packed(member)))
        for member in members:
            arrays[member.filename.removesuffix(".npy")] = _load_member(path, archive, member)
    return arrays


def _is_packed(member: zipfile.ZipInfo) -> bool:
    """Whether a member has to be unpacked, or decrypted, before it can be mapped."""
    return member.compress_type != zipfile.ZIP_STORED or bool(member.flag_bits & 1)


def _load_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray:
    """Map a stored member at its place in the archive, a compressed one where it is unpacked."""
    with archive.open(member) as stream:
        header = _Header.read(stream)
        header.check(member.file_size - header.size)
    if _is_packed(member):
        return header.map(_unpacked(archive, member), header.size)
    with path.open("rb") as file:
        file.seek(member.header_offset)
        lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = member.header_offset + _LOCAL_HEADER.size + sum(lengths) + header.size
    if start + header.n_bytes > path.stat().st_size:
        raise ValueError(f"it is truncated within {member.filename}")
    return header.map(path, start)


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """An unnamed temporary file of a member's content, removed with its last map."""
    target = tempfile.TemporaryFile(prefix="mixsolve-")  # noqa: SIM115 (maps need it open)
    try:
        with archive.open(member) as stream:
            shutil.copyfileobj(stream, target, _COPIED_TOGETHER)
        target.flush()
    except OSError as error:
        target.close()
        raise MixsolveError(
            f"{member.filename} takes {member.file_size} bytes unpacked, which could not be "
            f"written to {tempfile.gettempdir()}: {error}; set TMPDIR to a directory with room, "
            "or store the array uncompressed (numpy.savez)"
        ) from error
    return target
