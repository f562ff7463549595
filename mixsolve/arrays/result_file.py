"""Results in .npz files without pickle, the format of `mixsolve solve --out`.

A file holds the fields of a result as arrays of the same names, those of its parts after the part's
name (``attack_candidates``), numbers and words as arrays without axes: ``numpy.load`` reads them.
Two texts besides: ``kind``, the public name of the class, and ``layout``, JSON that says how the
fields are put together again. Records of numbers, such as a history, are an array a column.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from mixsolve.arrays.compared import Compared
from mixsolve.arrays.files import load_arrays
from mixsolve.arrays.interop import to_numpy
from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import write_text, written_aside
from mixsolve.base.plain import json_text

_KIND = re.compile(r"(mixsolve\w*)\.([A-Z]\w*)")
_WORDS = str | int | float | bool


class Kept(Compared):
    """A result that can be compared, written as JSON, and kept in a file.

    A subclass is a dataclass declared with ``eq=False`` and names, in `_parts`, the classes that
    its fields may hold besides arrays, numbers, words, tuples and dictionaries; ``to_dict`` is its
    own. A subclass of it that means no more in a file is kept as `_kept_as`.
    """

    _parts: ClassVar[tuple[type, ...]] = ()
    _kept_as: ClassVar[type | None] = None

    def to_dict(self) -> dict[str, Any]:
        """Return what it says as a dictionary of numbers, words and lists."""
        raise NotImplementedError

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return `to_dict` as JSON, and write it to a file if one is named.

        Parameters
        ----------
        path : str or path, optional
            A file there is replaced.

        Returns
        -------
        str
            One object; a number that is not finite is null.

        Raises
        ------
        MixsolveError
            It cannot be written there.
        """
        text = json_text(self.to_dict(), indent=2)
        if path is not None:
            write_text(Path(path), text + "\n")
        return text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a .npz file, which `mixsolve.load` and ``numpy.load`` read.

        Parameters
        ----------
        path : str or path
            A file that ends in .npz; one that exists is replaced, once the new one is complete.

        Raises
        ------
        MixsolveError
            The name ends otherwise, or it cannot be written there.
        """
        path = Path(path)
        check_npz(path, f"the file {path}")
        arrays: dict[str, Any] = self._arrays()
        try:
            with written_aside(path) as aside, aside.open("xb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise MixsolveError(f"{path} could not be written: {error}") from error

    def _arrays(self) -> dict[str, np.ndarray]:
        """All that the file holds."""
        arrays: dict[str, np.ndarray] = {}
        layout = {
            name: _packed(value, name, arrays, top=True) for name, value in self._entries().items()
        }
        kept = self._kept_as or type(self)
        package = kept.__module__.partition(".")[0]
        return arrays | {
            "kind": np.array(f"{package}.{kept.__name__}"),
            "layout": np.array(json.dumps(layout)),
        }

    def _entries(self) -> dict[str, Any]:
        """The fields to be kept."""
        return _fields_of(self)

    @classmethod
    def _restored(cls, entries: dict[str, Any]) -> Self:
        """The result of these fields."""
        return _made(cls, entries)


def check_npz(path: Path, called: str) -> None:
    """Refuse a name that does not end in .npz; `called` is the user's name for it."""
    if path.suffix != ".npz":
        raise MixsolveError(
            f"{called} must end in .npz, which is the format of results; got {path.name!r}"
        )


def load(path: str | os.PathLike[str]) -> Any:
    """Read a result from a .npz file that ``save`` or the command line wrote.

    Parameters
    ----------
    path : str or path
        The file. Nothing in it is run: it holds arrays and JSON, no pickled objects.

    Returns
    -------
    Solution, CardinalityPath, or what mixsolve_torch saved: Evaluation, GameSolution
        Equal to what was saved; arrays are NumPy's, those of a GameSolution PyTorch's on the CPU.

    Raises
    ------
    MixsolveError
        The file is missing, broken, holds no result, or one of a package or version that is not
        installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import mixsolve
    >>> solution = mixsolve.solve([[[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "solution.npz")
    ...     solution.save(path)
    ...     mixsolve.load(path) == solution
    True
    """
    arrays = load_arrays(path, "result")
    if not {"kind", "layout"} <= arrays.keys():
        raise MixsolveError(
            f"{path} holds no result of mixsolve: it has no arrays 'kind' and 'layout'; losses are "
            "read with numpy.load"
        )
    cls = _class(str(arrays["kind"]), path)
    try:
        layout = json.loads(str(arrays["layout"]))
        parts = {part.__name__: part for part in cls._parts}
        entries = {name: _unpacked(value, arrays, parts) for name, value in layout.items()}
        return cls._restored(entries)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MixsolveError(
            f"{path} holds a {arrays['kind']} that this version cannot read ({error!r}); it is "
            "damaged, or of another version of mixsolve"
        ) from error


def _class(kind: str, path: str | os.PathLike[str]) -> type[Kept]:
    """The class of a kind, which a package of the project exports."""
    named = _KIND.fullmatch(kind)
    cls = None
    if named is not None:
        try:
            cls = getattr(import_module(named[1]), named[2], None)
        except ImportError as error:
            raise MixsolveError(
                f"{path} holds a {kind}, and {named[1]} cannot be imported: {error}"
            ) from error
    if not (isinstance(cls, type) and issubclass(cls, Kept)):
        raise MixsolveError(f"{path} holds {kind!r}, which is no result that mixsolve keeps")
    return cls


def _fields_of(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _made(cls: Any, entries: Mapping[str, Any]) -> Any:
    """An object of a dataclass with these fields, which were checked when it was first made."""
    known = {each.name for each in fields(cls)}
    if not entries.keys() <= known:
        raise ValueError(f"{cls.__name__} has no {', '.join(sorted(entries.keys() - known))}")
    made: Any = object.__new__(cls)
    for each in fields(cls):
        if each.name not in entries and each.default is MISSING:
            raise ValueError(f"{cls.__name__} needs {each.name}")
        object.__setattr__(made, each.name, entries.get(each.name, each.default))
    return made


def _packed(value: Any, name: str, arrays: dict[str, np.ndarray], top: bool = False) -> Any:
    """JSON that says how to make a value again, its arrays put into `arrays`."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        value, kind = value.value, type(value).__name__
        arrays[name] = np.array(value)
        return {"word": name, "part": kind}
    if value is None or isinstance(value, _WORDS):
        if not top or value is None:
            return value
        arrays[name] = np.array(value)
        return {"word": name}
    if isinstance(value, tuple | list):
        rows = _columns(value, name, arrays)
        if rows is not None:
            return rows
        items = [_packed(item, f"{name}_{place}", arrays) for place, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict):
        return {
            "dict": {key: _packed(each, f"{name}_{key}", arrays) for key, each in value.items()}
        }
    if isinstance(value, os.PathLike):
        return {"path": os.fspath(value)}
    if is_dataclass(value):
        entries = value._entries() if isinstance(value, Kept) else _fields_of(value)
        inner = {key: _packed(each, f"{name}_{key}", arrays) for key, each in entries.items()}
        return {"part": type(value).__name__, "fields": inner}
    if not hasattr(value, "shape"):  # a name of some other kind, as pandas has them
        return str(value)
    words = isinstance(value, np.ndarray) and value.dtype.kind == "U"
    arrays[name] = value if words else to_numpy(value, name)
    return {"array": name}


def _columns(rows: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Records of numbers of one class, as an array a field; None for anything else."""
    if len(rows) < 2 or not is_dataclass(rows[0]) or isinstance(rows[0], type):
        return None
    kinds = {type(row) for row in rows}
    if len(kinds) > 1:
        return None
    columns = {}
    for each in fields(rows[0]):
        values = [getattr(row, each.name) for row in rows]
        if len({type(value) for value in values}) > 1 or type(values[0]) not in (int, float, bool):
            return None
        columns[each.name] = np.array(values)
    arrays.update({f"{name}_{key}": column for key, column in columns.items()})
    return {"rows": type(rows[0]).__name__, "columns": {key: f"{name}_{key}" for key in columns}}


def _unpacked(layout: Any, arrays: Mapping[str, Any], parts: Mapping[str, type]) -> Any:
    """The value that `_packed` described."""
    if not isinstance(layout, dict):
        return layout
    if "word" in layout:
        word = np.asarray(arrays[layout["word"]])[()].item()
        return parts[layout["part"]](word) if "part" in layout else word
    if "array" in layout:
        return np.array(arrays[layout["array"]])
    if "path" in layout:
        return Path(layout["path"])
    if "dict" in layout:
        return {key: _unpacked(each, arrays, parts) for key, each in layout["dict"].items()}
    if "rows" in layout:
        part = parts[layout["rows"]]
        names = list(layout["columns"])
        columns = [np.asarray(arrays[place]).tolist() for place in layout["columns"].values()]
        return tuple(
            _made(part, dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)
        )
    if "part" in layout:
        entries = {k: _unpacked(each, arrays, parts) for k, each in layout["fields"].items()}
        part = parts[layout["part"]]
        return part._restored(entries) if issubclass(part, Kept) else _made(part, entries)
    kind = tuple if "tuple" in layout else list
    return kind(_unpacked(item, arrays, parts) for item in layout[kind.__name__])
