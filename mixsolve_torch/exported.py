"""Programs saved by `torch.export`, as classifiers that can be attacked.

An exported program is a fixed graph of operators. Two things about it differ from a module. It may
have been exported for one batch size only, and attacks call with many: images are then run in parts
of that size, the last one filled up, and gradients flow through all of it. And train or eval mode
was decided at export: a program with dropout at work, or with batch statistics, is refused.

A program's archive can carry pickles, which PyTorch loads without asking. Its parts are therefore
looked through first, and what is neither a known part nor loadable as plain tensors is refused.

References
----------
PyTorch. The ``torch.export`` IR specification and the PT2 archive.
"""

from __future__ import annotations

import fnmatch
import io
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.errors import MixsolveError

logger = logging.getLogger(__name__)

_PICKLES = ("data/sample_inputs/*.pt", "serialized_*.pt")
_HARMLESS = (
    "data/weights/*",
    "data/constants/tensor_*",
    "data/constants/*_config.json",
    "models/*.json",
    "archive_format",
    "archive_version",
    "byteorder",
    "version",
    ".data/*",
    "extra/*",
    "serialized_exported_program.json",
)


class ExportedClassifier(nn.Module):
    """A program's module behind the manners of any other one.

    Parameters
    ----------
    program : torch.nn.Module
        ``ExportedProgram.module()``.
    least : int
        The smallest batch it takes.
    most : int or None
        The largest batch it takes; None if there is none.
    """

    def __init__(self, program: nn.Module, least: int, most: int | None) -> None:
        super().__init__()
        self.program = program
        self.least = least
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of images (B, C, H, W), for any B."""
        return torch.cat([self._part(part) for part in x.split(self.most or len(x))])

    def _part(self, x: Tensor) -> Tensor:
        missing = self.least - len(x)
        if missing <= 0:
            return self.program(x)
        filling = x[:1].detach().expand(missing, *x.shape[1:])
        return self.program(torch.cat([x, filling]))[: len(x)]

    def train(self, mode: bool = True) -> ExportedClassifier:
        """Note the mode; the program has its own from when it was exported."""
        self.training = mode
        return self


def load_exported(path: Path, device: torch.device | str = "cpu") -> nn.Module:
    """Load a program saved by `torch.export.save` as a classifier.

    Parameters
    ----------
    path : path
        The archive.
    device : torch.device or str, default "cpu"
        Where it is to run.

    Returns
    -------
    ExportedClassifier
        In eval mode. ``least`` and ``most`` are equal if the program has a fixed batch size.

    Raises
    ------
    MixsolveError
        An archive with pickled objects or unknown parts, a broken one, a program that does not
        take images alone, or one exported in train mode.
    """
    _refuse_pickles(path)
    try:
        program = torch.export.load(path)
    except Exception as error:
        # Of a file of another PyTorch version almost any error may come.
        raise MixsolveError(
            f"{path} is no exported program that this PyTorch ({torch.__version__}) can load: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error
    inputs = [
        node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs
    ]
    if len(inputs) != 1 or len(getattr(inputs[0].meta.get("val"), "shape", ())) != 4:
        raise MixsolveError(
            f"{path} must be a program of one tensor of images (B, C, H, W); it takes "
            f"{len(inputs)} inputs{_shapes(inputs)}"
        )
    _refuse_train_mode(path, program)
    least, most = _batch_sizes(program, inputs[0].meta["val"].shape[0])
    if least == most:
        logger.warning(
            "%s was exported for batches of exactly %d images: others are cut and filled up to "
            "that, which costs time; export it with dynamic_shapes to let the first axis vary",
            path,
            least,
        )
    if torch.device(device).type != "cpu":
        try:
            from torch.export.passes import move_to_device_pass
        except ImportError:
            raise MixsolveError(
                f"{path} cannot be moved to {device}: this PyTorch ({torch.__version__}) does not "
                "move exported programs; use a newer one, or --device cpu"
            ) from None
        program = move_to_device_pass(program, str(torch.device(device)))
    return ExportedClassifier(program.module(), least, most).eval()


def _refuse_pickles(path: Path) -> None:
    """Let only an archive pass whose pickles hold plain tensors and containers."""
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        inside = all("/" in name for name in members)
        parts = {name.partition("/")[2] if inside else name: name for name in members}
        pickled = {part for part in parts if _matches(part, _PICKLES)}
        for part, name in parts.items():
            if not _matches(part, _PICKLES + _HARMLESS):
                raise MixsolveError(
                    f"{path} holds {part}, which is no part of a program of tensors and may run "
                    "code when loaded; export the network without custom objects"
                )
            if part.endswith("_config.json"):
                entries = json.loads(archive.read(name)).get("config", {}).values()
                folder = os.path.dirname(part)
                pickled |= {f"{folder}/{e['path_name']}" for e in entries if e.get("use_pickle")}
        for part in sorted(pickled & set(parts)):
            content = archive.read(parts[part])
            if not content:
                continue
            try:
                torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            except Exception as error:
                raise MixsolveError(
                    f"{path} holds a pickled object in {part}, and to load one is to run the code "
                    "it names, so it is refused; export the network with tensors alone as inputs"
                ) from error


def _batch_sizes(program: Any, size: Any) -> tuple[int, int | None]:
    """Return the smallest and the largest batch that the program was exported for."""
    if isinstance(size, int):
        return size, size
    limits = program.range_constraints.get(size.node.expr)
    if limits is None:
        return 1, None
    # An open end is one of sympy's infinities, which compare and do not convert.
    most = int(limits.upper) if limits.upper < 2**31 else None
    return max(1, int(limits.lower)), most


def _matches(part: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(part, pattern) for pattern in patterns)


def _refuse_train_mode(path: Path, program: Any) -> None:
    """Refuse dropout at work and batch norms that use the statistics of the batch."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
        random = "dropout" in schema.name and given.get("train") is True
        if random or ("batch_norm" in schema.name and given.get("training") is True):
            raise MixsolveError(
                f"{path} was exported in train mode ({schema.name} is at work), and a program "
                "keeps its mode; export it again after model.eval()"
            )


def _shapes(inputs: list[Any]) -> str:
    shapes = [tuple(getattr(node.meta.get("val"), "shape", ())) for node in inputs]
    return f" of shapes {', '.join(map(str, shapes))}" if shapes else ""
