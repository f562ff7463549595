"""Arrays from .npy and .npz files, memory-mapped where the file allows it.

A .npy file is mapped by NumPy itself. A .npz file is a zip archive of .npy files; those that are
stored uncompressed (`numpy.savez`) are mapped in place, and compressed ones are read.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mixsolve.errors import MixsolveError

__all__ = ["load_array", "load_arrays"]

# A zip member's local header: 26 bytes, then the lengths of its name and of its extra field.
_LOCAL_HEADER = struct.Struct("<26xHH")

_BROKEN = (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile, zlib.error, struct.error)


def load_array(path: str | os.PathLike[str], name: str) -> NDArray:
    """Read one array from a .npy file, or from a .npz file that has one array or one of this name.

    Parameters
    ----------
    path : str or path
        The file.
    name : str
        What the array is: which one to take from a .npz file with several, and how errors call it.

    Returns
    -------
    ndarray
        A read-only memory map where possible.

    Raises
    ------
    MixsolveError
        If the file is missing, broken, or has no such array.
    """
    arrays = load_arrays(path, name)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if name not in arrays:
        found = ", ".join(sorted(arrays)) or "none"
        raise MixsolveError(
            f"{path} must have one array or one named {name!r}, its arrays are: {found}"
        )
    return arrays[name]


def load_arrays(path: str | os.PathLike[str], name: str) -> dict[str, NDArray]:
    """Read every array of a .npz file, or the one of a .npy file.

    Parameters
    ----------
    path : str or path
        The file.
    name : str
        How the array of a .npy file, and errors, call it.

    Returns
    -------
    dict of str to ndarray
        Read-only memory maps where possible.

    Raises
    ------
    MixsolveError
        If the file is missing or broken.
    """
    path = Path(path)
    if path.is_dir():
        raise MixsolveError(f"the {name} file {path} is a directory")
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _load_npz(path, file)
        return {name: _load_npy(path)}
    except FileNotFoundError:
        raise MixsolveError(f"the {name} file {path} does not exist") from None
    except PermissionError:
        raise MixsolveError(f"the {name} file {path} may not be read") from None
    except _BROKEN as error:
        raise MixsolveError(
            f"the {name} file {path} is not a readable .npy or .npz file of numbers: {error}"
        ) from error


def _load_npy(path: Path) -> NDArray:
    with path.open("rb") as file:
        if file.read(len(npy_format.MAGIC_PREFIX)) != npy_format.MAGIC_PREFIX:
            raise ValueError("it does not begin like one")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        # What cannot be mapped (an empty array) can still be read; what is broken raises again.
        return np.load(path, allow_pickle=False)


def _load_npz(path: Path, file: IO[bytes]) -> dict[str, NDArray]:
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                arrays[member.filename.removesuffix(".npy")] = _load_member(path, archive, member)
    return arrays


def _load_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray:
    """Map a stored member at its place in the archive; read a compressed one."""
    with archive.open(member) as stream:
        version = npy_format.read_magic(stream)
        read_header = (
            npy_format.read_array_header_1_0
            if version == (1, 0)
            else npy_format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read_header(stream)
        header_size = stream.tell()
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    mappable = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
    if not mappable or dtype.hasobject or size == 0 or size != member.file_size - header_size:
        with archive.open(member) as stream:
            return npy_format.read_array(stream, allow_pickle=False)
    with path.open("rb") as file:
        file.seek(member.header_offset)
        lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = member.header_offset + _LOCAL_HEADER.size + sum(lengths)
    order: Literal["F", "C"] = "F" if fortran_order else "C"
    return np.memmap(path, dtype, "r", offset=start + header_size, shape=shape, order=order)
