"""What the graph of an exported program may contain, since PyTorch runs parts of it as Python.

Loading a graph evaluates its expressions, looks its operators up as attributes of modules, compiles
its guards and generates code from its names. Of a graph only these parts are accepted and copied:

    operators     aten, torchvision and quantized ones that take no path; arithmetic on sizes
    expressions   symbols, numbers and functions of them, of bounded size
    names         letters, digits, "_", "." and "-"
    containers    tuples, lists and dictionaries around inputs and outputs

Guards, stack traces, other metadata and the boundaries of the original module's parts are dropped,
since no result depends on them.

References
----------
PyTorch. The ``torch.export`` IR specification, and its serialisation schema.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import torch

from mixsolve.base.errors import MixsolveError, shortened

_NAME = re.compile(r"(?!__)[A-Za-z_]\w{0,499}", re.ASCII)
_PATH = re.compile(r"(?!__)(?!.*\.__)[\w.+-]{0,1000}", re.ASCII)
_SYMBOL = re.compile(r"[a-z]{1,5}\d{1,6}", re.ASCII)
# Of a value in the graph: generated code calls these.
_TAKEN = {"torch", "self", "getattr", "device", "inf", "nan", "fx_pytree", "pytree", "NoneType"}

_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)", re.ASCII)
_LIBRARIES = ("aten", "torchvision", "quantized_decomposed")
_PATH_ARGUMENT = re.compile(r"file|path|dir(ectory)?$|folder|url")
_ON_SIZES = {
    *map("_operator.{}".format, ("eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "and_", "or_")),
    *map("_operator.{}".format, ("add", "sub", "mul", "mod", "floordiv", "truediv", "getitem")),
    *map("torch.sym_{}".format, ("not", "int", "float", "ite", "max", "min", "sqrt")),
    *map("math.{}".format, ("trunc", "ceil", "floor")),
    "torch._sym_sqrt",
    "torch.ops.higher_order.cond",
    "torch.ops.higher_order.wrap_with_set_grad_enabled",
    "torch.ops.higher_order.wrap_with_autocast",
}

_EXPRESSION_LENGTH = 2000
_LARGEST_NUMBER = 2**63
_POWERS = 3  # in one expression, each of at most this exponent
_FUNCTIONS = {
    *("Symbol", "Integer", "Rational", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs"),
    *("Eq", "Ne", "Equality", "Unequality", "And", "Or", "Not", "Where", "floor", "ceiling"),
    *("LessThan", "StrictLessThan", "GreaterThan", "StrictGreaterThan", "FloorDiv", "CleanDiv"),
    *("ModularIndexing", "PythonMod", "CeilDiv", "CeilToInt", "FloorToInt", "IntTrueDiv"),
    *("FloatTrueDiv", "TruncToInt", "TruncToFloat", "RoundToInt", "ToFloat", "Identity"),
}
_SYNTAX = (
    *(ast.Expression, ast.Call, ast.Name, ast.Constant, ast.keyword, ast.Load),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    *(ast.UnaryOp, ast.USub, ast.UAdd),
)

_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict")


def checked_graph(text: bytes) -> bytes:
    """Return a program's JSON, without what is not needed, if it says nothing but what it may.

    `text` is ``models/model.json`` of an archive; the result is written from what was read.

    Raises
    ------
    MixsolveError
        It says something else.
    ValueError, RecursionError
        It is no JSON.
    """
    program = json.loads(text)
    if isinstance(program, dict):
        program.pop("guards_code", None)
        graph = program.get("graph_module")
        if isinstance(graph, dict):
            graph.pop("treespec_namedtuple_fields", None)
            graph["module_call_graph"] = graph.get("module_call_graph", [])[:1]
        for symbol in program.get("range_constraints", ()):
            if not _SYMBOL.fullmatch(symbol):  # PyTorch counts up to its number
                raise _refused("a range of", symbol)
    return json.dumps(_checked(program, "")).encode()


def checked_payload(text: bytes, prefix: str) -> tuple[bytes, dict[str, bool]]:
    """Return the JSON that says which tensors a program has, and the parts that hold them.

    `text` is a ``..._config.json`` of an archive; names of its parts begin with `prefix`. The JSON
    is written again; of each part the result says whether PyTorch unpickles it.

    Raises
    ------
    MixsolveError
        An object that is no tensor.
    ValueError, TypeError, KeyError, AttributeError, RecursionError
        It is no JSON, or not of this form.
    """
    entries = json.loads(text)["config"]
    part = re.compile(rf"{prefix}\d{{1,9}}", re.ASCII)
    parts: dict[str, bool] = {}
    for entry in entries.values():
        name = entry["path_name"]
        if not part.fullmatch(name):
            raise _refused("an object called", name)
        parts[name] = parts.get(name, False) or entry["use_pickle"] is not False
    return json.dumps({"config": _checked(entries, "")}).encode(), parts


def _checked(value: Any, key: str) -> Any:
    """Return a part of the program, found under a key, as it may be loaded."""
    if isinstance(value, dict):
        return _checked_mapping(value, key)
    if isinstance(value, list):
        return [_checked(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key in ("target", "as_operator"):
        return _checked_operator(value)
    if key == "expr_str":
        return _checked_expression(value)
    if key in ("in_spec", "out_spec"):
        protocol, spec = json.loads(value)
        return json.dumps([protocol, _checked_containers(spec)])
    if key in ("as_string", "as_strings"):  # of which code is generated with repr
        if len(value) <= 10_000 and value.isprintable():
            return value
        raise _refused("the text", value)
    if key in ("name", "as_name", "forward_arg_names"):
        if (_NAME.fullmatch(value) and value not in _TAKEN) or not value:
            return value
        raise _refused("a value called", value)
    if not _PATH.fullmatch(value):
        raise _refused(f"under {key!r} the text", value)
    return value


def _checked_mapping(value: dict[str, Any], key: str) -> dict[str, Any]:
    if key == "metadata":
        return {}
    if "as_custom_obj" in value or "custom_obj" in value:
        raise _refused("an object of the class", next(iter(value.values())))
    checked = {}
    for inner, item in value.items():
        if not _PATH.fullmatch(inner):
            raise _refused("the name", inner)
        if inner == "name" and "arg" in value and isinstance(item, str):
            # An argument's name, which operators share with what code calls.
            if item and not _NAME.fullmatch(item):
                raise _refused("an argument called", item)
            checked[inner] = item
            continue
        checked[inner] = _checked(item, inner)
    return checked


def _checked_operator(target: str) -> str:
    if target in _ON_SIZES:
        return target
    named = _OPERATOR.fullmatch(target)
    if not named or named[1] not in _LIBRARIES:
        raise _refused("the operator", target)
    library, name, overload = named.groups()
    operator = getattr(getattr(getattr(torch.ops, library), name, None), overload, None)
    if not isinstance(operator, torch._ops.OpOverload):
        raise MixsolveError(
            f"it uses the operator {shortened(target, 100)}, which this PyTorch "
            f"({torch.__version__}) does not have"
        )
    schema = operator._schema
    if schema.name != f"{library}::{name}" or takes_path(schema):
        raise _refused("the operator", target)
    return target


def takes_path(schema: Any) -> bool:
    """Whether an operator takes the name of a file."""
    return any(
        "str" in str(argument.type) and _PATH_ARGUMENT.search(argument.name)
        for argument in schema.arguments
    )


def _checked_expression(text: str) -> str:
    """Return an expression of sizes, written from its syntax tree."""
    try:
        if len(text) > _EXPRESSION_LENGTH:
            raise ValueError("too long")
        tree = ast.parse(text, mode="eval")
        nodes = list(ast.walk(tree))
        if not all(isinstance(node, _SYNTAX) for node in nodes):
            raise ValueError("syntax")
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        if sum(map(_check_call, calls)) > _POWERS:
            raise ValueError("too many powers")
        functions = {id(call.func) for call in calls}
        symbols = {id(call.args[0]) for call in calls if _calls(call, "Symbol") and call.args}
        for node in nodes:
            if isinstance(node, ast.Constant):
                _check_constant(node.value, id(node) in symbols)
            elif isinstance(node, ast.Name) and id(node) not in functions:
                _check_name(node.id)
        return ast.unparse(tree)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise _refused("the expression", text) from None


def _calls(node: ast.Call, function: str) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == function


def _check_call(call: ast.Call) -> int:
    """Refuse another function than those of sizes; return how many powers this is."""
    if not any(_calls(call, function) for function in _FUNCTIONS):
        raise ValueError("a function")
    for keyword in call.keywords:
        flag = isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, bool)
        if keyword.arg is None or not flag or not _calls(call, "Symbol"):
            raise ValueError("a keyword")
    if not _calls(call, "Pow"):
        return 0
    exponent = call.args[1] if len(call.args) == 2 else None
    if isinstance(exponent, ast.Call) and _calls(exponent, "Integer") and exponent.args:
        exponent = exponent.args[0]
    if not isinstance(exponent, ast.Constant) or exponent.value not in range(_POWERS + 1):
        raise ValueError("a power")
    return 1


def _check_name(name: str) -> None:
    if not _SYMBOL.fullmatch(name) and name not in ("true", "false"):
        raise ValueError("a name")


def _check_constant(value: object, is_symbol: bool) -> None:
    if is_symbol:
        if not isinstance(value, str) or not _SYMBOL.fullmatch(value):
            raise ValueError("a symbol")
    elif not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER:
        raise ValueError("a number")


def _checked_containers(spec: Any) -> dict[str, Any]:
    """Return how inputs or outputs are held, of tuples, lists and dictionaries alone."""
    kind, context, children = spec["type"], spec["context"], spec["children_spec"]
    if kind is None:
        return {"type": None, "context": None, "children_spec": []}
    keys = json.loads(context) if isinstance(context, str) else context
    if kind not in _CONTAINERS:
        raise _refused("inputs or outputs of the type", kind)
    if kind == "builtins.dict":
        if not isinstance(keys, list) or not all(
            isinstance(key, int) or (isinstance(key, str) and _NAME.fullmatch(key)) for key in keys
        ):
            raise _refused("inputs or outputs with the keys", keys)
    elif keys is not None:
        raise _refused("inputs or outputs with", keys)
    return {
        "type": kind,
        "context": json.dumps(keys),
        "children_spec": [_checked_containers(child) for child in children],
    }


def _refused(what: str, found: Any) -> MixsolveError:
    return MixsolveError(
        f"it holds {what} {shortened(repr(found), 200)}, which is no part of a network of tensors "
        "and may run code or reach files when loaded or called"
    )
