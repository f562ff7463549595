"""Classifiers from files: TorchScript archives, exported programs, or weights for a known function.

A file is told by what it holds, not by how it is called. A pickled module is refused: unpickling
calls whatever function the file names, so that opening it is running it. TorchScript archives and
exported programs are programs as well, though of tensors; load those you would run.

    a.pt                            torch.jit.save, from torch.jit.trace or torch.jit.script
    b.pt2                           torch.export.save
    package.module:function=c.pt    function() builds the network, c.pt holds its state dict

References
----------
PyTorch. Serialization semantics, ``torch.load`` with ``weights_only=True``.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.errors import MixsolveError
from mixsolve_torch.exported import load_exported

_BUILT = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)=(?P<path>.+)")
_FORMS = (
    "save the model with torch.jit.save(torch.jit.trace(model.eval(), images), FILE), "
    "with torch.export.save, or save model.state_dict() and give module:function=FILE"
)


def load_model(spec: str | os.PathLike[str], device: torch.device | str = "cpu") -> nn.Module:
    """Load a classifier in eval mode.

    Parameters
    ----------
    spec : str or path
        A TorchScript archive; a program saved by `torch.export.save`; or
        ``module:function=FILE``, where ``function()``, found in the importable ``module`` (the
        current directory counts), returns a `torch.nn.Module` and FILE holds its state dict,
        alone or under the key "state_dict".
    device : torch.device or str, default "cpu"
        Where the classifier is to run.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    MixsolveError
        A file that is missing, broken or of another kind, a pickled object, a function that is
        not there or builds something else, or weights that do not fit it.
    """
    built = _BUILT.fullmatch(os.fspath(spec))
    if built and not Path(spec).exists():
        return _build(built["module"], built["function"], Path(built["path"]), device)
    path = Path(spec)
    kind = _kind(path)
    if kind == "script":
        return _load_script(path, device)
    if kind == "exported":
        return load_exported(path, device)
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


def _load_script(path: Path, device: torch.device | str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer PyTorch deprecates the format
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(os.fspath(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise MixsolveError(
            f"{path} is no readable TorchScript archive: {_first(error)}"
        ) from error


def _load_state(path: Path) -> Any:
    """Read what torch.save wrote, if tensors and plain containers are all there is in it."""
    if not path.is_file():
        raise MixsolveError(f"the weights {path} do not exist: give a file with a state dict")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
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
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise MixsolveError(
            f"{path} must hold a state dict, alone or under the key 'state_dict'; got "
            f"{_what(state)}; write it with torch.save(model.state_dict(), FILE)"
        )
    where = f"{module}:{function}"
    # The weights it draws are replaced: the caller's random numbers need not pay for them.
    with torch.random.fork_rng(devices=[]):
        model = call_builder(module, function)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise MixsolveError(
            f"the weights of {path} do not fit the network of {where}: "
            f"{' '.join(str(error).split())}"
        ) from error
    return model.to(device).eval()


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
        A function that is not there, cannot be called so, or builds something else.
    """
    where = f"{module}:{function}"
    with _current_directory_importable():
        try:
            make = getattr(importlib.import_module(module), function)
        except ImportError as error:
            raise MixsolveError(f"{where}: the module cannot be imported: {error}") from error
        except AttributeError:
            raise MixsolveError(f"{where}: the module has no function {function!r}") from None
        try:
            taken = inspect.signature(make).parameters
            given = {name: value for name, value in (arguments or {}).items() if name in taken}
            model = make(**given)
        except TypeError as error:
            told = ", ".join(f"{name}=..." for name in arguments or {})
            how = f"with {told}, or some of them" if told else "without arguments"
            raise MixsolveError(
                f"{where} must build the network when called {how}: {error}"
            ) from error
    if not isinstance(model, nn.Module):
        raise MixsolveError(f"{where} must return a torch.nn.Module; got {type(model).__name__}")
    return model


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
        shown = ", ".join(repr(key) for key in list(state)[:3])
        return f"a dictionary of {len(state)} entries ({shown}{', ...' * (len(state) > 3)})"
    return f"a {type(state).__name__}"


def _first(error: Exception) -> str:
    """Return the first line of a message that may go on for a screen."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
