"""Which modules and functions of a traced classifier are affine maps of its images' data.

Beside h -> W h + b an affine map has its absolute map, h -> |W| h + |b| for h >= 0: the same
operator with the absolute values of its constants, a difference becoming a sum.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.models.exported import ExportedClassifier

_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_POOLS = (*_AVERAGES, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SHAPES = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("add", "iadd"), operator.add),
    **dict.fromkeys(("sub", "isub"), operator.sub),
    **dict.fromkeys(("mul", "imul"), operator.mul),
    **dict.fromkeys(("div", "truediv", "itruediv"), operator.truediv),
}
_LINEAR = {"linear", "conv1d", "conv2d", "conv3d", "convolution", "addmm", "matmul", "batch_norm"}
_LINEAR |= {"mean", "sum", "cat", "pad", "getitem", "permute", "transpose"}
_LINEAR |= {f"{kind}avg_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3)}
_RESHAPES = {"flatten", "reshape", "view", "squeeze", "unsqueeze", "contiguous", "clone", "dropout"}

Map = Callable[..., Tensor]
Values = Mapping[fx.Node, Any]


class Affine(NamedTuple):
    """An affine map of batches.

    Attributes
    ----------
    call, absolute : callable
        W h + b, and |W| h + |b|.
    terms : float
        How many products are summed in an entry of the result; 0 where nothing is computed.
    """

    call: Map
    absolute: Map
    terms: float


def recorded(model: nn.Module, title: str, x: Tensor) -> tuple[fx.GraphModule, dict[fx.Node, Any]]:
    """Trace a classifier, run it on images, and return it with the result of each node."""
    results: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            results[n] = super().run_node(n)
            # A later step may write into what this one returned.
            held = isinstance(results[n], Tensor) and n.op != "get_attr"
            results[n] = results[n].clone() if held else results[n]
            return results[n]

    try:
        traced = fx.symbolic_trace(
            model.program if isinstance(model, ExportedClassifier) else model
        )
        traced.graph.eliminate_dead_code()
        with torch.no_grad():
            Recorder(traced, garbage_collect_values=False).run(x)
    except Exception as error:  # foreign code may raise anything when it meets a proxy
        first = str(error).strip().partition("\n")[0]
        raise MixsolveError(
            f"{title} ({type(model).__name__}) cannot be verified, since torch.fx does not trace "
            f"it: {type(error).__name__}: {first}; give the network itself or an exported program "
            "(torch.export.save) of any batch size, whose forward does not depend on values"
        ) from error
    return traced, results


def is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is a ReLU."""
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.ReLU)
    return _kind(node) == "relu"


def affine(
    traced: fx.GraphModule, node: fx.Node, read: Sequence[fx.Node], results: Values
) -> Affine | str:
    """Return a node as an affine map of the nodes it reads, or say what it is instead."""
    shape, before = results[node].shape[1:], results[read[0]]
    pooled = 4 * math.ceil(before[0].numel() / max(1, shape.numel()))
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        found = f"{node.target!r} is a {type(module).__name__}"
        kind = "reshape" if isinstance(module, _SHAPES) else ""
        if not type(module).__module__.startswith("torch.nn.") or len(read) > 1:
            return found
        if isinstance(module, _NORMS) and module.running_mean is not None:
            held = (-module.running_mean.abs(), module.running_var, *_weights(module))
            norm, eps = functional.batch_norm, module.eps
            return Affine(module, lambda h: norm(h, *held, eps=eps), 3)
        if isinstance(module, _WEIGHTED):
            weight, bias = _weights(module)
            run: Map = getattr(module, "_conv_forward", functional.linear)
            return Affine(module, lambda h: run(h, weight, bias), weight[0].numel())
        if isinstance(module, _POOLS):
            return Affine(module, module, pooled)
    else:
        kind = _kind(node)
        found = f"{node.name!r} calls {kind}"
    if kind in _RESHAPES:
        if not torch.equal(results[node].flatten(1), before.flatten(1)):
            return f"{found}, which changes values"
        return Affine(*(lambda h: h.reshape(len(h), *shape),) * 2, 0)
    held_abs = {n: _abs(results[n]) for n in node.all_input_nodes}
    if kind in _ARITHMETIC and len(node.args) == 2 and not node.kwargs:
        function = _ARITHMETIC[kind]
        both = all(arg in read for arg in node.args)
        if (function is operator.mul and both) or (
            function is operator.truediv and node.args[1] in read
        ):
            return f"{found} on two results"
        positive = operator.add if function is operator.sub else function
        made = _with(lambda a, b: positive(_abs(a), _abs(b)), node, read, held_abs)
        return Affine(_with(function, node, read, results), made, 2)
    if kind not in _LINEAR or _places(node, read) != {int(kind == "addmm")}:
        return found
    function, terms = _function(node), float(pooled)
    if kind == "batch_norm":
        # Mean and variance are arguments 1 and 2 of the function, 3 and 4 of the exported operator.
        first = 3 if hasattr(node.target, "_schema") else 1
        if node.args[5:6] != (False,):
            return f"{found} with the statistics of the batch"
        mean, variance = node.args[first : first + 2]
        held_abs |= {mean: -held_abs[mean], variance: results[variance]}
    elif kind in ("linear", "addmm", "matmul") or kind.startswith("conv"):
        weight = results[node.args[2 if kind == "addmm" else 1]]
        terms = weight.numel() / (weight.shape[0] if kind[0] in "cl" else weight.shape[-1])
    call = _with(function, node, read, results)
    return Affine(call, _with(function, node, read, held_abs), terms)


def _kind(node: fx.Node) -> str:
    """Return the plain name of a function, method or operator."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name.rpartition(":")[2] if schema else node.target
    return (name if isinstance(name, str) else getattr(name, "__name__", str(name))).strip("_")


def _function(node: fx.Node) -> Callable[..., Any]:
    if callable(node.target):
        return node.target
    name = node.target
    return lambda h, *args, **kwargs: getattr(h, name)(*args, **kwargs)


def _places(node: fx.Node, read: Sequence[fx.Node]) -> set[int]:
    """Return which arguments hold nodes among `read`; -1 stands for those given by name."""
    found = set()
    for place, arg in [*enumerate(node.args), (-1, dict(node.kwargs))]:
        held: list[fx.Node] = []
        fx.node.map_arg(arg, held.append)
        if any(other in read for other in held):
            found.add(place)
    return found


def _with(
    function: Callable[..., Any], node: fx.Node, read: Sequence[fx.Node], held: Values
) -> Map:
    """Return a function of what `node` reads, its other arguments held."""

    def call(*given: Tensor) -> Tensor:
        at = {**held, **dict(zip(read, given, strict=True))}
        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), at.__getitem__)
        result: Tensor = function(*args, **kwargs)
        return result

    return call


def _weights(module: Any) -> tuple[Tensor, Tensor | None]:
    return _abs(module.weight), _abs(module.bias)


def _abs(value: Any) -> Any:
    known = isinstance(value, Tensor | int | float) and not isinstance(value, bool)
    return abs(value.detach() if isinstance(value, Tensor) else value) if known else value
