"""Networks that a function of the caller's code builds, named as ``module:function``.

The name is code, which is imported and run. Python's own modules and what builds no network are
refused before anything is called.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from mixsolve.base.errors import MixsolveError, shortened


def call_builder(
    module: str, function: str, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the network that a function of an importable module builds.

    Parameters
    ----------
    module, function : str
        Where it is; the current directory counts.
    arguments : mapping, optional
        Keyword arguments; those that the function does not name are kept from it.

    Raises
    ------
    MixsolveError
        A function that is not there, cannot be called so, or builds something else; one of
        Python's own modules, which is not called.
    Exception
        Whatever the function raises.
    """
    where = f"{module}:{function}"
    with _current_directory_importable():
        if _is_part_of_python(module.partition(".")[0]):
            raise MixsolveError(
                f"{where} must be a function of yours that builds a torch.nn.Module; {module} is "
                "part of Python, which builds none"
            )
        try:
            imported = importlib.import_module(module)
        except ImportError as error:
            raise MixsolveError(f"{where}: the module cannot be imported: {error}") from error
        make = getattr(imported, function, None)
        if make is None:
            raise MixsolveError(f"{where}: the module has no function {function!r}")
        if not _builds_networks(make):
            raise MixsolveError(
                f"{where} must build the network when called, as a function of yours or a class of "
                f"networks does; it is {shortened(repr(make), 100)}, which is not called"
            )
        taken = inspect.signature(make).parameters
        given = {name: value for name, value in (arguments or {}).items() if name in taken}
        try:
            inspect.signature(make).bind(**given)
        except TypeError as error:
            names = ", ".join(f"{name}=..." for name in arguments or {})
            how = f"with {names}, or some of them" if names else "without arguments"
            raise MixsolveError(
                f"{where} must build the network when called {how}: {error}"
            ) from error
        try:
            model = make(**given)  # its errors keep their traceback
        except SystemExit as error:
            raise MixsolveError(
                f"{where} must return a torch.nn.Module; it ended the program (SystemExit: "
                f"{error.code})"
            ) from error
    if not isinstance(model, nn.Module):
        raise MixsolveError(f"{where} must return a torch.nn.Module; got {type(model).__name__}")
    return model


def _is_part_of_python(package: str) -> bool:
    """Whether an import finds a package of the standard library, not another of its name."""
    if package not in sys.stdlib_module_names:
        return False
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.has_location or spec.origin is None:  # built in, or frozen
        return True
    roots = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    return any(Path(spec.origin).is_relative_to(root) for root in roots)


def _builds_networks(make: Any) -> bool:
    """Whether something may be called to build a network: a class of them, or Python code."""
    if isinstance(make, type):
        return issubclass(make, nn.Module)
    if isinstance(make, functools.partial):
        return _builds_networks(make.func)
    code = make if inspect.isroutine(make) else type(make).__call__
    return inspect.isfunction(inspect.unwrap(code)) or inspect.ismethod(code)


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """Let a module of the current directory be imported, as ``python -m`` would."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before
