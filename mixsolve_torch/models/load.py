"""Classifiers from files: TorchScript archives, exported programs, or weights for a known function.

The kind of a file is found from its content, not its name, but for ONNX. A pickled module is
refused: unpickling calls any function that the file names, so that opening it is running it.
TorchScript archives and exported programs are programs as well, though of tensors: what in them
could run other code or reach files is refused, and PyTorch is given a copy that holds nothing else.
``module:function`` names code, which is run.

    a.pt                            torch.jit.save, from torch.jit.trace or torch.jit.script
    b.pt2                           torch.export.save
    package.module:function=c.pt    function() builds the network, c.pt holds its state dict
    timm:name=d.pt                  timm.create_model(name) builds it
    e.onnx                          run by ONNX Runtime, without gradients; known by its name

References
----------
PyTorch. Serialization semantics, ``torch.load`` with ``weights_only=True``.
"""

from __future__ import annotations

import os
import re
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mixsolve.base.errors import MissingDependencyError, MixsolveError, named, shortened
from mixsolve_torch.models.archives import Archive, load_tensors
from mixsolve_torch.models.builder import call_builder
from mixsolve_torch.models.exported import load_exported
from mixsolve_torch.models.onnx_file import load_onnx
from mixsolve_torch.models.script_scan import is_part, is_searched, search

_BUILT = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)=(?P<path>.+)")
_TIMM = re.compile(r"timm:(?P<name>[\w.-]+)=(?P<path>.+)")
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
        A TorchScript archive; a program saved by `torch.export.save`; an ONNX file, which becomes
        a `BlackBox` on the CPU; ``timm:NAME=FILE``, an architecture of timm and its state dict,
        from which the numbers of classes and of channels are taken; or
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
    timm = _TIMM.fullmatch(os.fspath(spec))
    if timm and not Path(spec).exists():
        return _build_timm(timm["name"], Path(timm["path"]), device)
    built = _BUILT.fullmatch(os.fspath(spec))
    if built and not Path(spec).exists():
        return _build(built["module"], built["function"], Path(built["path"]), device)
    path = Path(spec)
    if path.suffix == ".onnx" and path.is_file():
        return load_onnx(path)
    kind = _kind(path)
    if kind == "script":
        return _load_script(path, device, trust)
    if kind == "exported":
        return load_exported(path, device, trust=trust)
    state = read_tensors(path)
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


def read_tensors(path: Path) -> Any:
    """Read what torch.save wrote, if tensors and plain containers are all there is in it.

    Raises
    ------
    MixsolveError
        A file that is missing or broken, or holds anything else.
    """
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
    state = read_state_dict(path)
    # The weights it draws are replaced, so the caller's random state is kept.
    with torch.random.fork_rng(devices=[]):
        model = call_builder(module, function)
    return load_weights(model, state, path, f"{module}:{function}").to(device).eval()


def _build_timm(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """Build an architecture of timm for as many classes and channels as the weights are for."""
    state = read_state_dict(path)
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"timm:{name} needs timm, which is not installed; install it with: pip install timm"
        ) from error
    with torch.random.fork_rng(devices=[]):
        try:
            model = timm.create_model(name, pretrained=False)
            sizes = _timm_sizes(getattr(model, "default_cfg", {}), state)
            if sizes:
                model = timm.create_model(name, pretrained=False, **sizes)
        except (RuntimeError, TypeError, ValueError) as error:
            raise MixsolveError(f"timm cannot build {name!r}: {_first(error)}") from error
    return load_weights(model, state, path, f"timm:{name}").to(device).eval()


def _timm_sizes(layers: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the classes and channels of weights, by the layers that timm says have them."""
    sizes = {}
    for argument, layer, axis in (("num_classes", "classifier", 0), ("in_chans", "first_conv", 1)):
        names = layers.get(layer)
        weight = state.get(f"{names}.weight") if isinstance(names, str) else None
        if weight is not None and weight.ndim > axis:
            sizes[argument] = weight.shape[axis]
    return sizes


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict, alone or under the key "state_dict".

    Raises
    ------
    MixsolveError
        A file that is missing or broken, or holds anything else.
    """
    state = read_tensors(path)
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise MixsolveError(
            f"{path} must hold a state dict, alone or under the key 'state_dict'; got "
            f"{_what(state)}; write it with torch.save(model.state_dict(), FILE)"
        )
    return state


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], path: Path, where: str
) -> nn.Module:
    """Put a state dict into a network, which is returned.

    Parameters
    ----------
    model : torch.nn.Module
        The network.
    state : mapping
        The state dict.
    path, where
        The file that it came from, and what built the network, for errors.

    Raises
    ------
    MixsolveError
        Parameters that are missing, not known or of other shapes.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise MixsolveError(
            f"the weights of {path} do not fit the network of {where}: "
            f"{_misfit(model, state) or shortened(str(error))}"
        ) from error
    return model


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
