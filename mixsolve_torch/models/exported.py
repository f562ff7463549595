"""Programs saved by `torch.export`, as classifiers that can be attacked.

An exported program is a fixed graph of operators. Two things about it differ from a module. It may
have been exported for one batch size only, and attacks call with many: images are then run in parts
of that size, the last one filled up, and gradients flow through all of it. And train or eval mode
was decided at export: a program with dropout at work, or with batch statistics, is refused.

A program's archive can carry pickles and code, which PyTorch loads without asking. It is therefore
not given the archive: the parts of a program of tensors are looked through, their pickles read as
plain tensors and written again, and PyTorch loads the new archive that these parts make.

References
----------
PyTorch. The ``torch.export`` IR specification and the PT2 archive.
"""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError, shortened
from mixsolve_torch.models.archives import Archive, load_tensors
from mixsolve_torch.models.exported_graph import checked_graph, checked_payload

logger = logging.getLogger(__name__)

_TRUST = "; if you would run any code of whoever made the file, load it with trust=True (--trust)"

# How an archive of PyTorch 2.8 and later, and one of before, are made up.
_GRAPHS = ("models/model.json", "serialized_exported_program.json")
_PAYLOADS = {
    "data/weights/model_weights_config.json": "weight_",
    "data/constants/model_constants_config.json": "tensor_",
}
_PICKLES = (
    "data/weights/model.pt",
    "data/constants/model.pt",
    "serialized_state_dict.pt",
    "serialized_constants.pt",
)
_EXAMPLES = ("data/sample_inputs/model.pt", "serialized_example_inputs.pt")
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,9}", re.ASCII)
_NOTES = {
    "archive_format": rb"pt2",
    "archive_version": rb"\d{1,9}",
    "byteorder": rb"little|big",
    "version": rb"[\d.]{1,20}\s?",
    ".data/version": rb"[\d.]{1,20}\s?",
}
_UNREAD = re.compile(r"extra/.*|extra_files/.*|\.data/serialization_id")


class ExportedClassifier(nn.Module):
    """A program's module with the interface of any other module, for batches of any size.

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
        """Record the mode; that of the program was fixed when it was exported."""
        self.training = mode
        return self


def load_exported(
    path: Path, device: torch.device | str = "cpu", *, trust: bool = False
) -> nn.Module:
    """Load a program saved by `torch.export.save` as a classifier; see `mixsolve_torch.load_model`.

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
    if trust:
        program = _load_program(path, path)
    else:
        with Archive(path) as archive, archive.fresh(_checked(archive), ".pt2") as fresh:
            program = _load_program(path, fresh)
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


def _load_program(path: Path, loaded: Path) -> Any:
    try:
        return torch.export.load(loaded)
    except Exception as error:
        # Of a file of another PyTorch version almost any error may come.
        first = str(error).strip().partition("\n")[0]
        raise MixsolveError(
            f"{path} is no exported program that this PyTorch ({torch.__version__}) can load: "
            f"{shortened(first) or type(error).__name__}"
        ) from error


def _checked(archive: Archive) -> dict[str, bytes | None]:
    """Return the parts of the archive that PyTorch may load, as it may load them."""
    parts: dict[str, bytes | None] = {}
    try:
        for part in archive:
            if part in _GRAPHS:
                parts[part] = checked_graph(archive.read(part))
            elif part in _PAYLOADS:
                parts[part], tensors = checked_payload(archive.read(part), _PAYLOADS[part])
                for name, pickled in tensors.items():
                    tensor = f"{part.rpartition('/')[0]}/{name}"
                    parts[tensor] = _pickled_again(archive, tensor) if pickled else None
            elif part in _PICKLES:
                parts[part] = _pickled_again(archive, part)
            elif part in _EXAMPLES:
                _pickled_again(archive, part)
                parts[part] = b""  # which PyTorch takes for no examples
            elif part in _NOTES:
                if not re.fullmatch(_NOTES[part], archive.read(part)):
                    raise MixsolveError(f"its {part} is none that PyTorch writes")
                parts[part] = archive.read(part)
            elif not _TENSORS.fullmatch(part) and not _UNREAD.fullmatch(part):
                raise MixsolveError(
                    f"it holds {shortened(part, 100)}, which is no part of a program of tensors "
                    "and may run code when loaded"
                )
    except MixsolveError as error:
        raise MixsolveError(
            f"{archive.path} is refused: {error}. Export the network with tensors alone and "
            f"without custom objects{_TRUST}"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MixsolveError(
            f"{archive.path} is no exported program that this PyTorch ({torch.__version__}) can "
            f"load: its {part} is not of the form that PyTorch writes "
            f"({type(error).__name__}: {shortened(str(error))})"
        ) from error
    return parts


def _pickled_again(archive: Archive, part: str) -> bytes:
    """Return what a part holds as `torch.save` writes it, if that is tensors and containers."""
    content = archive.read(part)
    if not content:
        return content
    try:
        held = load_tensors(content)
    except Exception as error:
        raise MixsolveError(
            f"it holds a pickled object in {part}, and to load one is to run the code it names"
        ) from error
    buffer = io.BytesIO()
    torch.save(held, buffer)
    return buffer.getvalue()


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
