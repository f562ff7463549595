"""A mixture as one file: a graph that takes a seed, or TorchScript, which draws by itself.

Graphs, of `torch.export` and of ONNX, are written by `mixsolve_torch.core.export_graph`. A file of
TorchScript has its own source of randomness and state. PyTorch calls TorchScript deprecated, but
writes and reads it as before.

References
----------
PyTorch. The TorchScript language reference, and ``torch.jit.save``.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_count, check_flags
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.files import check_output, written_aside
from mixsolve_torch.core.export_graph import GRAPHS, write_graph
from mixsolve_torch.models.classifiers import Cast, cast_for, frozen, run_member

_DRAWS = ("call", "image", "none")
_MEND = "; give torch.jit.script(model) in its place if it branches on what it sees"


def export(
    models: nn.ModuleList,
    weights: Tensor,
    path: str | os.PathLike[str],
    example: Tensor,
    *,
    draw: str = "call",
    seed: int | None = None,
    replace: bool = False,
) -> None:
    """Write classifiers (L) and their weights (L,) as one file, in the format of its ending.

    `mixsolve_torch.Mixture.export` documents the arguments and the errors.
    """
    check_flags(replace=replace)
    path = Path(path)
    if draw not in _DRAWS:
        raise MixsolveError(f"draw must be one of {', '.join(map(repr, _DRAWS))}; got {draw!r}")
    if seed is not None and as_count("seed", seed, minimum=0) >= 2**63:
        raise MixsolveError(f"seed must be below 2**63, got {seed}")
    if seed is not None and path.suffix in GRAPHS:
        raise MixsolveError(
            f"seed must be left out for a {path.suffix} file, whose graph takes one with each "
            f"call; got {seed}"
        )
    if not isinstance(example, Tensor):
        raise MixsolveTypeError(
            f"example must be a torch.Tensor of images; got {type(example).__name__}"
        )
    if example.ndim < 2 or example.numel() == 0:
        raise MixsolveError(
            f"example must hold at least one image, (B, C, H, W); got {tuple(example.shape)}"
        )
    _check_path(path, replace)
    example = example.detach()
    support = [k for k, weight in enumerate(weights.tolist()) if weight > 0]
    if path.suffix in GRAPHS:
        # A classifier that draws, which is refused, must not move the global generator.
        with frozen(models), torch.no_grad(), torch.random.fork_rng(devices=[]):
            write_graph(models, weights, support, path, example, draw)
        return
    with frozen(models), torch.no_grad(), _quiet():
        served = _served(models, weights, support, example, draw, seed)
        with written_aside(path) as aside:
            try:
                # A file of Python's: PyTorch's own writer ends the process when the disk is full.
                with aside.open("xb") as file:
                    torch.jit.save(served, file)
            except (OSError, RuntimeError) as error:
                raise MixsolveError(f"{path} could not be written: {error}") from error
            copy = torch.jit.load(os.fspath(aside), weights.device)
            _compare(models, support, copy, example)


def _check_path(path: Path, replace: bool) -> None:
    """Refuse, before the work, a file that could not be written after it."""
    mend = "give replace=True to overwrite it"
    check_output(path, f"the file {path}", replace=replace, mend=mend)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the deprecation warnings of TorchScript, which users cannot act on."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", message=r".*torch\.jit", category=category)
        yield


def _served(
    models: nn.ModuleList,
    weights: Tensor,
    support: list[int],
    example: Tensor,
    draw: str,
    seed: int | None,
) -> Any:
    """Return the module to write, its networks in eval mode and their draws not yet begun."""
    from mixsolve_torch.core.served import Served  # its decorators may warn

    networks = [_traced(models[k], k, example) for k in support]
    played = weights[support].tolist()
    served = torch.jit.script(Served(networks, support, played, draw).eval())
    served.set_seed(seed)
    return served


def _traced(model: nn.Module, k: int, example: Tensor) -> nn.Module:
    logits = run_member(model, k, example)  # says what is wrong better than the tracer
    scripted = isinstance(model, torch.jit.ScriptModule)
    if scripted and not hasattr(model, "training"):
        model = _reloaded(model)  # frozen: the compiler takes it as a submodule when loaded only
    dtype = cast_for(model, example)
    if dtype is not None:
        model = Cast(model, dtype, logits.dtype)
    elif scripted:
        return model
    try:
        return torch.jit.trace(model, example.clone(), check_trace=False)
    except Exception as error:
        # The tracer runs the model's own code, which may raise anything.
        first = str(error).strip().partition("\n")[0]
        raise MixsolveError(f"models[{k}] cannot be traced: {first}{_MEND}") from error


def _reloaded(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.jit.save(model, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def _compare(models: nn.ModuleList, support: list[int], served: Any, example: Tensor) -> None:
    """Refuse a file that does not do what the mixture does, for batches of several sizes."""
    for x in (example, example[:1], torch.cat([example, example])):
        for k in support:
            expected = run_member(models[k], k, x)
            try:
                found = served.run(k, x)
                away = float((found - expected).abs().max())
            except (RuntimeError, torch.jit.Error) as error:
                last = str(error).strip().rpartition("\n")[2]
                raise MixsolveError(
                    f"models[{k}], traced with {len(example)} images, fails for {len(x)}: "
                    f"{last}{_MEND}"
                ) from error
            # Rounding alone stays below; a branch that went the other way, or dropout, does not.
            if not away <= torch.finfo(found.dtype).eps ** 0.5 * (1 + float(expected.abs().max())):
                raise MixsolveError(
                    f"models[{k}], traced with {len(example)} images, returns other logits for "
                    f"{len(x)}, by {away:.3g}: it is random in eval mode, or what it does depends "
                    f"on its input{_MEND}"
                )
    served.set_seed(None)
    if len({served.uniform() for _ in range(8)}) < 8:
        raise MixsolveError(
            f"this PyTorch ({torch.__version__}) compiles the draws of the file into constants, "
            "which would not be random; use another version to export"
        )
