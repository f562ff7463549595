"""Arrays in Zarr stores and HDF5 files, opened without reading them.

Both store an array in chunks, compressed or not, in groups with names. Their packages are imported
only when such a file is given.

Both can also refer to other files, whose bytes would be read as losses: HDF5 by links, external and
virtual datasets, a Zarr store by symbolic links. These are refused.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mixsolve.base.errors import MissingDependencyError, MixsolveError, shortened

_ZARR_MARKS = ("zarr.json", ".zarray", ".zgroup")  # of version 3, and of version 2
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_ENDINGS = (".h5", ".hdf5")
_MOST_PATHS = 16  # to one group; n links can make 2**n


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr store, or is named like one."""
    if path.is_dir():
        return path.suffix == ".zarr" or any((path / mark).is_file() for mark in _ZARR_MARKS)
    return False


def is_hdf5(path: Path) -> bool:
    """Whether a file begins like HDF5, or is named like it; OSError if it cannot be read."""
    with path.open("rb") as file:
        return path.suffix in _HDF5_ENDINGS or file.read(8) == _HDF5_SIGNATURE


def load_zarr(path: Path, name: str) -> dict[str, Any]:
    """Every array of a Zarr store, by its path there; one without groups is called `name`.

    Raises
    ------
    MixsolveError
        It cannot be opened, or the zarr package is missing.
    """
    zarr = _required("zarr", path)
    _refuse_symbolic_links(path, name)
    try:
        opened = zarr.open(str(path), mode="r")
        found = {name: opened} if isinstance(opened, zarr.Array) else dict(_zarr_arrays(opened, ""))
        for key, array in found.items():
            if any("pickle" in str(codec).casefold() for codec in _codecs(array)):
                raise MixsolveError(
                    f"the {name} file {path} holds {shortened(key, 100)} as pickled objects, and "
                    "to read one is to run the code it names; write it as an array of numbers"
                )
        return found
    except MixsolveError:
        raise
    except Exception as error:  # its stores and codecs raise errors of many kinds
        raise MixsolveError(
            f"the {name} file {path} is not a readable Zarr store: {type(error).__name__}: "
            f"{shortened(str(error))}"
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
        return dict(_hdf5_arrays(h5py.File(path, "r"), h5py))
    except MixsolveError as error:
        raise MixsolveError(f"the {name} file {path} {error}") from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise MixsolveError(
            f"the {name} file {path} is not a readable HDF5 file: {shortened(str(error))}"
        ) from error


def _zarr_arrays(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, array in group.arrays():
        yield prefix + key, array
    for key, inner in group.groups():
        yield from _zarr_arrays(inner, f"{prefix}{key}/")


def _codecs(array: Any) -> Iterator[Any]:
    """Codecs of the chunks of a Zarr array, of either version of the format."""
    yield from getattr(array, "filters", None) or ()
    if hasattr(array, "compressors"):
        yield from array.compressors
        yield array.serializer
    else:  # zarr 2
        yield array.compressor


def _refuse_symbolic_links(path: Path, name: str) -> None:
    """Refuse a store with links: chunks elsewhere, or groups that contain each other."""
    for folder, folders, files in os.walk(path):
        for entry in (*folders, *files):
            if os.path.islink(os.path.join(folder, entry)):
                raise MixsolveError(
                    f"the {name} file {path} holds the symbolic link "
                    f"{shortened(os.path.relpath(os.path.join(folder, entry), path), 200)}, and "
                    "what lies elsewhere is not read as a part of it; copy the store with cp -rL"
                )


def _hdf5_arrays(file: Any, h5py: Any) -> Iterator[tuple[str, Any]]:
    """Every dataset by its path; groups that contain themselves are entered once."""
    groups: list[tuple[str, Any, tuple[int, ...]]] = [("", file, (_hdf5_address(file, h5py),))]
    paths: Counter[int] = Counter()
    while groups:
        prefix, group, within = groups.pop()
        paths[within[-1]] += 1
        if paths[within[-1]] > _MOST_PATHS:
            raise MixsolveError(
                f"has links that lead to one group, {shortened(prefix.rstrip('/'), 100)}, by more "
                f"than {_MOST_PATHS} paths; copy the datasets to a file of their own"
            )
        # Check all links first: one within the file may pass through one that leaves it.
        links = {key: group.get(key, getlink=True) for key in group}
        for key, link in links.items():
            if not isinstance(link, h5py.HardLink | h5py.SoftLink):
                raise _leads_away(prefix + key, f"a link to {getattr(link, 'filename', 'a file')}")
        inner: list[tuple[str, Any, tuple[int, ...]]] = []
        for key in sorted(links, key=lambda key: isinstance(links[key], h5py.SoftLink)):
            item = group.get(key)
            if item is not None and item.file != file:
                raise _leads_away(prefix + key, f"a link to {item.file.filename}")
            if isinstance(item, h5py.Dataset):
                _check_hdf5_storage(prefix + key, item)
                yield prefix + key, item
            elif isinstance(item, h5py.Group):
                address = _hdf5_address(item, h5py)
                if address not in within:
                    inner.append((f"{prefix}{key}/", item, (*within, address)))
        groups += reversed(inner)


def _hdf5_address(group: Any, h5py: Any) -> int:
    return h5py.h5o.get_info(group.id).addr


def _check_hdf5_storage(key: str, dataset: Any) -> None:
    """Refuse a dataset whose numbers are in another file."""
    if dataset.external:
        raise _leads_away(key, f"a dataset whose numbers lie in {dataset.external[0][0]}")
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            if source.file_name != ".":
                raise _leads_away(key, f"a virtual dataset of {source.file_name}")


def _leads_away(key: str, what: str) -> MixsolveError:
    return MixsolveError(
        f"holds {shortened(key, 100)}, {shortened(what, 200)}, and other files are not read in its "
        "place; name that file itself, or copy the dataset into one"
    )


def _required(package: str, path: Path) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} needs the package {package}, which could not be imported ({error}). Install "
            "it with: pip install 'mixsolve[files]'"
        ) from error
