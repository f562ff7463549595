"""Classifiers from files: TorchScript archives, exported programs, or weights for a known function.

The kind of a file is found from its content, not its name. A pickled module is refused: unpickling
calls any function that the file names, so that opening it is running it. TorchScript archives and
exported programs are programs as well, though of tensors: what in them could run other code or
reach files is refused, and PyTorch is given a copy that holds nothing else. ``module:function``
names code, which is run.

    a.pt                            torch.jit.save, from torch.jit.trace or torch.jit.script
    b.pt2                           torch.export.save
    package.module:function=c.pt    function() builds the network, c.pt holds its state dict

References
----------
PyTorch. Serialization semantics, ``torch.load`` with ``weights_only=True``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import re
import reprlib
import sys
import sysconfig
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mixsolve.base.errors import MixsolveError, named, shortened
from mixsolve_torch.models.archives import Archive, load_tensors
from mixsolve_torch.models.exported import load_exported
from mixsolve_torch.models.script_scan import is_part, is_searched, search

_BUILT = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)=(?P<path>.+)")
_FORMS = (
    "save the model with torch.jit.save(torch.jit.trace(model.eval(), images), FILE), "
    "with torch.export.save, or save model.state_dict() and give module:function=FILE"
)


def load_model(
    spec: str | os.PathLike[str], device: torch.device | str = "cpu", *, trust: bool = False
) -> nn.Module:
    """Load a classifier in eval mode.

    A file that could run other code than a network's, or reach files, is refused. That is no
    sandbox: an untrusted network may still use up the memory or never end.

    Parameters
    ----------
    spec : str or path
        A TorchScript archive; a program saved by `torch.export.save`; or
        ``module:function=FILE``, where ``function()``, found in the importable ``module`` (the
        current directory counts), returns a `torch.nn.Module` and FILE holds its state dict,
        alone or under the key "state_dict".
    device : torch.device or str, default "cpu"
        Where the classifier is to run.
    trust : bool, default False
        Hand a TorchScript archive or an exported program to PyTorch as it is, with all the code in
        it: for your own files that are refused otherwise, such as programs with custom
        operators. Pickled modules are refused all the same.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    MixsolveError
        A file that is missing, broken or of another kind, one that could run code, a function that
        is not there or builds something else, or weights that do not fit it.
    """
    built = _BUILT.fullmatch(os.fspath(spec))
    if built and not Path(spec).exists():
        return _build(built["module"], built["function"], Path(built["path"]), device)
    path = Path(spec)
    kind = _kind(path)
    if kind == "script":
        return _load_script(path, device, trust)
    if kind == "exported":
        return load_exported(path, device, trust=trust)
    state = _load_state(path)
    raise MixsolveError(
        f"{path} holds {_what(state)} and no network to put them in; name the function that builds "
        f"it: module:function={path}"
    )


def _kind(path: Path) -> str:
    """Return "script", "exported" or "state", from the parts of the archive."""
    if not path.is_file():
        raise MixsolveError(
            f"the model {path} {'is a directory' if path.is_dir() else 'does not exist'}; give a "
            "TorchScript archive, an exported program, or module:function=FILE"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            # PyTorch puts everything in a folder named after the file; early exports did not.
            names = {name.partition("/")[2] for name in archive.namelist()} | {*archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return "state"  # pickles of before PyTorch 1.6 are no archives
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "exported"
    return "script" if "constants.pkl" in names else "state"


def _load_script(path: Path, device: torch.device | str, trust: bool) -> nn.Module:
    if trust:
        return _loaded_script(path, path, device)
    with Archive(path) as archive:
        # Searched parts are written as they were when they were searched.
        parts = {p: archive.read(p) if is_searched(p) else None for p in archive if is_part(p)}
        for part, content in parts.items():
            if content is not None:
                try:
                    search(part, content)
                except MixsolveError as error:
                    raise MixsolveError(
                        f"{path} is refused, since loading or calling {error}; if you would run "
                        "any code of whoever made the file, load it with trust=True (--trust)"
                    ) from error
        with archive.fresh(parts, ".pt") as fresh:
            return _loaded_script(path, fresh, device)


def _loaded_script(path: Path, loaded: Path, device: torch.device | str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer PyTorch deprecates the format
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(os.fspath(loaded), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise MixsolveError(
            f"{path} is no readable TorchScript archive: {_first(error)}"
        ) from error


def _load_state(path: Path) -> Any:
    """Read what torch.save wrote, if tensors and plain containers are all there is in it."""
    if not path.is_file():
        raise MixsolveError(f"the weights {path} do not exist: give a file with a state dict")
    try:
        return load_tensors(path)
    except MixsolveError:
        raise
    except Exception as error:
        # PyTorch words a refusal and a broken file much alike.
        raise MixsolveError(
            f"{path} is broken or holds a pickled object, and to load one is to run the code it "
            f"names, so it is refused whoever wrote it; instead {_FORMS}"
        ) from error


def _build(module: str, function: str, path: Path, device: torch.device | str) -> nn.Module:
    """Call the function and give the network the weights of the file."""
    state = _load_state(path)
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise MixsolveError(
            f"{path} must hold a state dict, alone or under the key 'state_dict'; got "
            f"{_what(state)}; write it with torch.save(model.state_dict(), FILE)"
        )
    where = f"{module}:{function}"
    # The weights it draws are replaced, so the caller's random state is kept.
    with torch.random.fork_rng(devices=[]):
        model = call_builder(module, function)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise MixsolveError(
            f"the weights of {path} do not fit the network of {where}: "
            f"{_misfit(model, state) or shortened(str(error))}"
        ) from error
    return model.to(device).eval()


def _misfit(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Say how a state dict differs from the network's: PyTorch's message names every key."""
    own = model.state_dict()
    differing = {
        "Missing key(s) in the file": [key for key in own if key not in state],
        "Unexpected key(s)": [key for key in state if key not in own],
        "Other shapes": [
            f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
            for key, value in own.items()
            if key in state and not is_lazy(value) and state[key].shape != value.shape
        ],
    }
    return "; ".join(f"{how}: {named(keys, len(keys))}" for how, keys in differing.items() if keys)


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

    Returns
    -------
    torch.nn.Module

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


def _what(state: Any) -> str:
    if isinstance(state, Mapping):
        return f"a dictionary of {len(state)} entries ({named(map(_key, state), len(state), 3)})"
    return f"a {type(state).__name__}"


def _key(key: Any) -> str:
    """Return a key as Python writes it; nested tuples may be larger than they look."""
    return reprlib.repr(key)


def _first(error: Exception) -> str:
    """Return the first line of a message that may be very long."""
    return shortened(str(error).strip().partition("\n")[0]) or type(error).__name__
