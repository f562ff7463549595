"""Compiled kernels on disk: a cache whose failures never end a solve.

Numba chooses the folder (``NUMBA_CACHE_DIR``, the package's ``__pycache__``, the user's cache) and
turns compiled code into bytes; its own cache raises where no folder can be written to, the disk is
full or a file is truncated, and two processes may leave one signature's code under another's name.
Here each compiled signature is a file of its own. Its name holds a digest of all that the code
depends on: signature, processor, versions, and the sources of every kernel, since kernels are
compiled into one another. It begins with a digest of the rest, is written aside and renamed. A file
that cannot be read is removed and the kernel compiled again; if none can be written, every process
compiles, and a warning says so once.
"""

import hashlib
import pickle
import platform
import sys
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from mixsolve.base.errors import CacheWarning
from mixsolve.base.files import written_aside

_SUFFIX = ".kernel"
_UNWRITABLE = (
    "every process compiles its kernels again, which takes seconds, until the environment variable "
    "NUMBA_CACHE_DIR names a folder that can be written to"
)
_UNREADABLE = "damaged files of compiled kernels are removed, the kernels compiled again"


class KernelCache:
    """The cache of one kernel, with the interface that Numba's dispatchers expect.

    Attributes
    ----------
    n_missed : int
        How many signatures were not on disk.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        from numba.core.caching import CompileResultCacheImpl

        self.n_missed = 0
        tag = f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"
        self._name = f"{function.__module__}.{function.__qualname__}.{tag}"
        try:
            self._numba: Any = CompileResultCacheImpl(function)
            self._sources = _digest_of_sources(Path(function.__code__.co_filename).parent)
            if not self._sources:  # in an archive or an executable
                stamp = repr(self._numba.locator.get_source_stamp())
                self._sources = hashlib.sha256(stamp.encode()).hexdigest()[:16]
        except Exception as error:  # Numba's RuntimeError: it found no folder to write to
            self._numba = None
            _warn(str(error), _UNWRITABLE)

    @property
    def cache_path(self) -> str | None:
        """The folder, where there is one."""
        return None if self._numba is None else str(self._numba.locator.get_cache_path())

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled code for a signature, or None."""
        target_context.refresh()
        found = None
        if self._numba is not None:
            path = self._path(signature, target_context.codegen())
            try:
                payload = _checked(path.read_bytes())
                found = self._numba.rebuild(target_context, pickle.loads(payload))
            except (FileNotFoundError, NotADirectoryError):
                pass
            except Exception as error:  # a damaged file can raise anything
                _warn(f"{path} cannot be read ({_words(error)})", _UNREADABLE)
                _remove(path)
        self.n_missed += found is None
        return found

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Write the compiled code for a signature, where possible."""
        if self._numba is None or not self._numba.check_cachable(compiled):
            return
        from numba.core.serialize import dumps

        path = self._path(signature, compiled.codegen)
        try:
            self._numba.locator.ensure_cache_path()
            payload = dumps(self._numba.reduce(compiled))
            with written_aside(path) as aside:
                aside.write_bytes(hashlib.sha256(payload).digest() + payload)
            self._remove_outdated(path.parent)
        except Exception as error:
            _warn(f"{path} cannot be written ({_words(error)})", _UNWRITABLE)

    def enable(self) -> None:
        """Do nothing: the cache is always enabled."""

    def disable(self) -> None:
        """Do nothing: Numba never calls it."""

    def flush(self) -> None:
        """Remove every signature; ``recompile`` of a kernel calls it."""
        if self._numba is not None:
            for path in Path(str(self.cache_path)).glob(f"{self._name}-*{_SUFFIX}"):
                _remove(path)

    def _path(self, signature: Any, codegen: Any) -> Path:
        key = repr((signature, codegen.magic_tuple(), _versions()))
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        name = f"{self._name}-{self._sources}-{digest}{_SUFFIX}"
        return Path(str(self.cache_path)) / name

    def _remove_outdated(self, folder: Path) -> None:
        """Remove code compiled from other sources, which this installation cannot use."""
        for path in folder.glob(f"{self._name}-*{_SUFFIX}"):
            if not path.name.startswith(f"{self._name}-{self._sources}-"):
                _remove(path)


@cache
def _digest_of_sources(folder: Path) -> str:
    """Digest of all kernels of a folder; empty where there are no files to read."""
    files = sorted(folder.glob("*.py"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16] if files else ""


@cache
def _versions() -> tuple[str, ...]:
    packages = map(import_module, ("numba", "llvmlite", "numpy"))
    return *(package.__version__ for package in packages), platform.python_version()


def _checked(data: bytes) -> bytes:
    """The bytes behind their digest."""
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[size:]).digest() != data[:size]:
        raise ValueError("it is damaged")
    return data[size:]


def _remove(path: Path) -> None:
    try:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    except OSError:  # a folder with something in it, or one that may not be changed
        return


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


_warned: set[str] = set()


def _warn(what: str, mend: str) -> None:
    """Warn once: what fails for one kernel's file often fails for all of them."""
    if mend not in _warned:
        _warned.add(mend)
        warnings.warn(f"{what}; {mend}", CacheWarning, stacklevel=2)
