"""A mixture as a graph: a program of `torch.export` (.pt2), or ONNX (.onnx).

A graph has inputs ``images`` and, where it draws, ``seed``, int64 of shape (1,): whoever serves it
gives one with each call, from the operating system. Files are compared with the classifiers, by
PyTorch and by ONNX Runtime where that is installed, before they are renamed into place.
"""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve.base.files import written_aside
from mixsolve_torch.core.drawn import Drawn, DrawnEach, Expected
from mixsolve_torch.models.classifiers import Cast, cast_for, run_member

GRAPHS = (".pt2", ".onnx")
_FORMS: dict[str, Any] = {"call": Drawn, "image": DrawnEach, "none": Expected}
_SEEDS = (0, 1, 2**40 + 3)  # with which a file is compared


def write_graph(
    models: nn.ModuleList,
    weights: Tensor,
    support: list[int],
    path: Path,
    example: Tensor,
    draw: str,
) -> None:
    """Write classifiers in eval mode as a graph, in the format of the path's ending.

    Raises
    ------
    MixsolveError
        The classifiers make no graph, or one that does not do what they do; or the file cannot be
        written.
    MissingDependencyError
        ONNX is asked for, and what writes it is not installed.
    """
    if path.suffix == ".onnx":
        _require("onnxscript")
    networks = [_cast(models[k], k, example) for k in support]
    module = _FORMS[draw](networks, weights[support].tolist()).to(example.device).eval()
    program = _program(module, _inputs(module, example, 0))
    expected = {seed: module(*_inputs(module, example, seed)) for seed in _SEEDS}
    with written_aside(path) as aside:
        try:
            if path.suffix == ".onnx":
                _write_onnx(program, module, example, aside)
            else:
                torch.export.save(program, os.fspath(aside))
        except OSError as error:
            raise MixsolveError(f"{path} could not be written: {error}") from error
        found = _onnx_outputs if path.suffix == ".onnx" else _program_outputs
        _compare(found(aside, module, example), expected)


def _cast(model: nn.Module, k: int, example: Tensor) -> nn.Module:
    """A classifier that takes images of the example's type."""
    logits = run_member(model, k, example)  # says what is wrong better than the exporter
    dtype = cast_for(model, example)
    return model if dtype is None else Cast(model, dtype, logits.dtype)


def _inputs(module: nn.Module, example: Tensor, seed: int) -> tuple[Tensor, ...]:
    if isinstance(module, Expected):
        return (example,)
    return example, torch.tensor([seed], dtype=torch.int64, device=example.device)


def _program(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """The graph for any number of images."""
    example = inputs[0]
    if len(example) < 2:  # a size of 1 would be taken for a constant
        inputs = (torch.cat([example, example]), *inputs[1:])
    shapes: tuple[Any, ...] = ({0: torch.export.Dim("count")}, *(None for _ in inputs[1:]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about its own inside
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
    except Exception as error:
        # The exporter runs the classifiers' own code, which may raise anything.
        first = str(error).strip().partition("\n")[0]
        raise MixsolveError(
            f"models cannot be exported as a graph: {type(error).__name__}: {first}; export to a "
            ".pt file (TorchScript) instead, or give classifiers that do not branch on their input"
        ) from error


def _write_onnx(program: Any, module: nn.Module, example: Tensor, path: Path) -> None:
    inputs = _inputs(module, example, 0)
    names = ["images", "seed"][: len(inputs)]
    output = "log_probabilities" if isinstance(module, Expected) else "logits"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program,
            inputs,
            path,
            input_names=names,
            output_names=[output],
            dynamo=True,
            external_data=False,  # one file
            verbose=False,
        )


def _program_outputs(path: Path, module: nn.Module, example: Tensor) -> dict[int, Tensor]:
    graph: Any = torch.export.load(os.fspath(path)).module()
    return {seed: graph(*_inputs(module, example, seed)) for seed in _SEEDS}


def _onnx_outputs(path: Path, module: nn.Module, example: Tensor) -> dict[int, Tensor]:
    """What ONNX Runtime makes of the file; nothing where it is not installed."""
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        return {}
    session = runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    feeds = {"images": example.cpu().numpy()}
    outputs = {}
    for seed in _SEEDS:
        drawn = {} if isinstance(module, Expected) else {"seed": np.array([seed], dtype=np.int64)}
        outputs[seed] = torch.from_numpy(session.run(None, feeds | drawn)[0]).to(example.device)
    return outputs


def _compare(found: dict[int, Tensor], expected: dict[int, Tensor]) -> None:
    """Refuse a file that says other than the classifiers."""
    for seed, output in found.items():
        away = float((output - expected[seed]).abs().max())
        largest = float(expected[seed].abs().max())
        if not away <= torch.finfo(output.dtype).eps ** 0.5 * (1 + largest):
            raise MixsolveError(
                f"the file returns other numbers than the classifiers, by {away:.3g} with seed "
                f"{seed}: they are random in eval mode, or not what a graph can hold; export to a "
                ".pt file (TorchScript) instead"
            )


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"an .onnx file needs {package}, which is not installed; install it with: "
            "pip install 'mixsolve[torch,onnx]'"
        ) from error
