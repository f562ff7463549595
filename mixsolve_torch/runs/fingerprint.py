"""Descriptions of the settings of a call, to compare with those of a later call.

Work that was interrupted is resumed only if everything that its results depend on is the same:
settings become plain JSON values, tensors and networks become digests, functions their names and
code. An object with a method `fingerprint` says itself what they depend on. What cannot be seen
from outside is not compared: a classifier's Python attributes other than its parameters, buffers
and printed form.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import math
import re
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def digest(*parts: Tensor | str) -> str:
    """Return a digest, 32 hexadecimal digits, of tensors (type, shape, entries) and texts."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            state.update(f"text {len(part)} {part}".encode())
        else:
            state.update(f"tensor {part.dtype} {tuple(part.shape)} ".encode())
            flat = part.detach().cpu().contiguous().reshape(-1)
            state.update(flat.view(torch.uint8).numpy().data)
    return state.hexdigest()


def short_digest(description: Any) -> str:
    """Return 12 hexadecimal digits that name the work of these settings, described for JSON."""
    return digest(json.dumps(description, sort_keys=True))[:12]


def describe(value: Any) -> Any:
    """Return a description of settings that JSON can hold, the same in every process.

    They are numbers, texts, tensors, arrays, functions, networks, attacks, or containers of them.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(np.array(value)) if isinstance(value, np.ndarray) else value
        return f"{tensor.dtype} {tuple(tensor.shape)} {digest(tensor)}"
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [describe(entry) for entry in value]
    if isinstance(value, nn.Module):
        return _network(value)
    if isinstance(value, functools.partial):
        return [describe(value.func), describe(value.args), describe(value.keywords)]
    if callable(value) and hasattr(value, "__qualname__"):
        return _function(value)
    own = _own(value)
    fields = own if own is not None else _fields(value)
    if fields is None:
        return _plain(value)
    return {"class": _function(type(value)), **describe(fields)}


def outline(value: Any, depth: int = 2) -> Any:
    """Return a description of a foreign object, as far as `depth` objects deep.

    Of a function it holds the code, the defaults and what its closure holds; of an object its class
    and its attributes. Foreign objects may lead anywhere, loggers and files among them: beyond that
    depth only plain values, arrays and networks count, and of all others the class.
    """
    if isinstance(value, bytes):
        return f"bytes {hashlib.blake2b(value, digest_size=16).hexdigest()}"
    if value is None or isinstance(value, bool | int | float | str | Tensor | np.ndarray):
        return describe(value)
    if isinstance(value, nn.Module | type):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(key): outline(entry, depth) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [outline(entry, depth) for entry in value]
    own = {"class": _function(type(value))}
    if depth == 0 or isinstance(value, logging.Logger):
        return own
    if isinstance(value, types.MethodType):
        return [_function(value), outline(value.__self__, depth - 1)]
    if isinstance(value, types.FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        held = [value.__defaults__, value.__kwdefaults__, cells]
        return [_function(value), outline(held, depth - 1)]
    if isinstance(value, functools.partial):
        return [outline(part, depth) for part in (value.func, value.args, value.keywords)]
    return own | {key: outline(part, depth - 1) for key, part in (_fields(value) or {}).items()}


def _own(value: Any) -> dict[str, Any] | None:
    """Return what an object says its results depend on, None if its class has no such method."""
    return value.fingerprint() if hasattr(type(value), "fingerprint") else None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _fields(value: Any) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(value):
        own = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return own | getattr(value, "__dict__", {})
    return getattr(value, "__dict__", None)


def _function(function: Any) -> str:
    """Return the full name of a function or class, and a digest of its own code if it has any."""
    name = f"{function.__module__}.{function.__qualname__}"
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return name
    return f"{name} {digest(code.co_code.hex(), _plain(code.co_consts), _plain(code.co_names))}"


def _network(network: nn.Module) -> str:
    """Return a digest of a network: its printed form, parameters, buffers, and code it carries."""
    parts: list[Tensor | str] = [_plain(network)]
    for part in network.modules():
        # Programs read from files: two of one form may compute different things.
        own = _own(part)
        if own is not None:
            parts.append(_plain(outline(own)))
        elif isinstance(part, fx.GraphModule):
            parts.append(part.code)
        elif isinstance(part, torch.jit.ScriptModule):
            with suppress(RuntimeError, AttributeError):  # a part that is not called has no code
                code, constants = part.code_with_constants
                parts += [code, _plain(describe(constants.const_mapping))]
    state: Iterable[tuple[str, Any]] = network.state_dict().items()
    for name, entry in state:
        parts += [name, entry if isinstance(entry, Tensor) else _plain(describe(entry))]
    return digest(*parts)


def _plain(value: Any) -> str:
    """Return the printed form without the addresses that differ from process to process."""
    return _ADDRESS.sub("", repr(value))
