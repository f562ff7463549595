"""Arrays in Zarr stores and HDF5 files, opened and not read.

Both keep an array in chunks, compressed or not, in groups with names. Their packages are imported
only when such a file is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mixsolve.errors import MissingDependencyError, MixsolveError

__all__ = ["is_hdf5", "is_zarr", "load_hdf5", "load_zarr"]

_ZARR_MARKS = ("zarr.json", ".zarray", ".zgroup")  # of version 3, and of version 2
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_ENDINGS = (".h5", ".hdf5")


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr store, or says by its name that it should be one."""
    if path.is_dir():
        return path.suffix == ".zarr" or any((path / mark).is_file() for mark in _ZARR_MARKS)
    return False


def is_hdf5(path: Path) -> bool:
    """Whether a file begins like HDF5, or says by its name that it should.

    Raises
    ------
    OSError
        It is missing, or may not be read.
    """
    with path.open("rb") as file:
        return path.suffix in _HDF5_ENDINGS or file.read(8) == _HDF5_SIGNATURE


def load_zarr(path: Path, name: str) -> dict[str, Any]:
    """Every array of a Zarr store, by its path there; one that is no group is called `name`.

    Raises
    ------
    MixsolveError
        It cannot be opened, or the zarr package is missing.
    """
    zarr = _required("zarr", path)
    try:
        opened = zarr.open(str(path), mode="r")
        if isinstance(opened, zarr.Array):
            return {name: opened}
        return dict(_zarr_arrays(opened, ""))
    except Exception as error:  # its stores and codecs raise errors of many kinds
        raise MixsolveError(
            f"the {name} file {path} is not a readable Zarr store: {type(error).__name__}: {error}"
        ) from error


def load_hdf5(path: Path, name: str) -> dict[str, Any]:
    """Every dataset of an HDF5 file, by its path there. The file stays open while one is used.

    Raises
    ------
    MixsolveError
        It cannot be opened, or the h5py package is missing.
    """
    h5py = _required("h5py", path)
    try:
        return dict(_hdf5_arrays(h5py.File(path, "r"), "", h5py))
    except (OSError, RuntimeError, KeyError) as error:
        raise MixsolveError(
            f"the {name} file {path} is not a readable HDF5 file: {error}"
        ) from error


def _zarr_arrays(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, array in group.arrays():
        yield prefix + key, array
    for key, inner in group.groups():
        yield from _zarr_arrays(inner, f"{prefix}{key}/")


def _hdf5_arrays(group: Any, prefix: str, h5py: Any) -> Iterator[tuple[str, Any]]:
    for key, item in group.items():
        if isinstance(item, h5py.Dataset):
            yield prefix + key, item
        elif isinstance(item, h5py.Group):
            yield from _hdf5_arrays(item, f"{prefix}{key}/", h5py)


def _required(package: str, path: Path) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} needs the package {package}, which could not be imported ({error}). Install "
            "it with: pip install 'mixsolve[files]'"
        ) from error
