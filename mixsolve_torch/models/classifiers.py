"""One classifier run on a batch of images: the only place where a member of a mixture is called.

A member is foreign code, which may write into its inputs and reuse its outputs. Therefore

- it gets a copy of the images: other members and the caller do not see what it writes into them, in
  place, through ``.data`` or through a NumPy view. A copy is one pass over the images, cheap beside
  any network, and no cheaper check detects all these ways of writing;
- its result is copied too, since it may be a buffer that its next call fills again; an object with
  an attribute ``logits``, as networks of Hugging Face return it, stands for these;
- a network whose parameters have another dtype than the images is run on them as they are, and if
  it refuses them, on images in its own dtype; logits are at least as precise as the images.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.models.passes import after_run, before_run

# Networks known to take images in their own dtype only, found by their first refusal.
_CAST: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def run_member(model: nn.Module, k: int, x: Tensor) -> Tensor:
    """Return the logits of one classifier, refusing any that are not of the shape (B, classes).

    Parameters
    ----------
    model : torch.nn.Module
        The classifier, run in the mode it is in.
    k : int
        Its number among the classifiers, for error messages.
    x : torch.Tensor of shape (B, C, H, W)
        Images. Gradients flow to them; the classifier gets a copy.

    Returns
    -------
    torch.Tensor of shape (B, classes)
        In memory of its own, in the more precise dtype of the images' and the network's.

    Raises
    ------
    MixsolveError
        Anything but logits of at least two classes, or a network without numbers to compute with.
    """
    if torch.compiler.is_compiling():
        own = _dtype(model)  # a graph cannot try twice
        return _checked(model(x.clone() if own in (None, x.dtype) else x.to(own)), k, x)
    before = before_run()
    try:
        logits = _run(model, x)
    except Exception as error:
        _explain(model, k, error)
        error.add_note(
            f"raised by models[{k}] for images of shape {tuple(x.shape)}, {x.dtype}, on {x.device}"
        )
        raise
    logits = _checked(logits, k, x)
    after_run(before, logits)
    return logits


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode and no parameter under differentiation, and restore both.

    Gradients are enabled inside, whatever the caller's mode (an attack inside ``torch.no_grad()``
    or ``torch.inference_mode()`` works). Each module's own mode comes back at the end, also after
    an exception: a network that trains with its batch norms in eval mode keeps them so. If
    one part cannot be restored, the others are, and its error is raised at the end.

    Parameters
    ----------
    module : torch.nn.Module
        The mixture or classifier to freeze. Parts whose mode was fixed when they were exported or
        frozen (``ExportedProgram.module()``, `torch.jit.freeze`) stay in it.

    Raises
    ------
    MixsolveError
        A lazy module whose parameters have no shape yet.
    """
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise MixsolveError(
                f"{name} has no shape yet, and no values: run the classifier once on images, and "
                "train it or load its weights"
            )
    with ExitStack() as restored:
        for part in module.modules():
            if hasattr(part, "training"):
                restored.callback(_set_mode, part, part.training)
        _switch_to_eval(module)
        for parameter in module.parameters():
            if parameter.requires_grad:
                restored.callback(parameter.requires_grad_, True)
                parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield


def refuse_random(model: nn.Module, title: str, first: Tensor, again: Tensor) -> None:
    """Refuse a classifier whose logits (B, classes) of the same images differ the second time.

    The game takes one run of a classifier for its behaviour. Sums in another order may differ by
    rounding, which depends on the network's dtype and which deep networks magnify.
    """
    dtypes = (first.dtype, _dtype(model))
    coarse = max((torch.finfo(d).eps for d in dtypes if d and d.is_floating_point), default=0.0)
    away = float((first.double() - again.double()).abs().max())
    if away > math.sqrt(coarse) * (1 + float(first.abs().max())):
        raise MixsolveError(
            f"{title} returns other logits, by {away:.3g}, when it is run again on the same images "
            "in eval mode: it draws random numbers (dropout or noise that stays on?), and what it "
            "was seen to do once would be counted for all times; switch that off in eval mode, or "
            "give copies that keep their draws (a fixed seed or mask each) as classifiers to mix"
        )


def check_repeatable(model: nn.Module, title: str, x: Tensor) -> Tensor:
    """Return the logits (B, classes) of a frozen classifier, run twice to see whether they stay."""
    with torch.no_grad():
        first, again = run_member(model, 0, x), run_member(model, 0, x)
    refuse_random(model, title, first, again)
    return first


class Cast(nn.Module):
    """A classifier that takes its own dtype only, for images of another."""

    def __init__(self, model: nn.Module, taken: torch.dtype, returned: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.taken = taken
        self.returned = returned

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits in the type of the images."""
        return self.model(x.to(self.taken)).to(self.returned)


def cast_for(model: nn.Module, x: Tensor) -> torch.dtype | None:
    """Return the dtype that images are known to need for this classifier, None if their own."""
    own = _dtype(model)
    return own if own != x.dtype and model in _CAST else None


def _run(model: nn.Module, x: Tensor) -> Tensor:
    if model in _CAST:
        own = _dtype(model)
        return model(x.clone() if own in (None, x.dtype) else x.to(own))
    try:
        return model(x.clone())
    except RuntimeError as error:
        own = _dtype(model)
        if own is None or own == x.dtype:
            raise
        try:
            logits = model(x.to(own))
        except Exception:
            raise error from None
        _CAST.add(model)
        return logits


def _dtype(model: nn.Module) -> torch.dtype | None:
    """Return the dtype of the first floating-point parameter that is in memory, if there is one."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return None


def _explain(model: nn.Module, k: int, error: Exception) -> None:
    """Raise an error that says why a network cannot compute at all, if that is what is wrong."""
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta":
            raise MixsolveError(
                f"models[{k}] is on the meta device, where {name!r} has a shape and no numbers; "
                "load its weights: load_state_dict(state, assign=True)"
            ) from error
        if parameter.is_floating_point() and parameter.element_size() == 1:
            raise MixsolveError(
                f"models[{k}] holds {name!r} in {parameter.dtype}, which its operators do not "
                "compute with; convert it with model.bfloat16() or model.float()"
            ) from error


def _checked(logits: Any, k: int, x: Tensor) -> Tensor:
    """Return a copy of logits (B, classes) as plain numbers, refusing anything else."""
    if not isinstance(logits, Tensor):  # Hugging Face wraps them in an object
        logits = getattr(logits, "logits", logits)
    if isinstance(logits, Tensor) and not logits.is_nested:
        logits = logits.to_dense() if logits.layout is not torch.strided else logits
        logits = logits.dequantize() if logits.is_quantized else logits
    plain = isinstance(logits, Tensor) and not (logits.is_nested or logits.is_complex())
    if torch.jit.is_tracing():  # shapes are then part of the trace, and no numbers to compare
        return logits.to(torch.promote_types(logits.dtype, x.dtype))
    if not plain or logits.ndim != 2 or logits.shape[0] != x.shape[0]:
        raise MixsolveError(
            f"models[{k}] must return logits of shape ({x.shape[0]}, classes) for {x.shape[0]} "
            f"images; got {_words(logits)}"
        )
    if logits.shape[1] < 2:
        raise MixsolveError(
            f"models[{k}] must return logits of at least 2 classes; got {tuple(logits.shape)}; "
            "write a binary score s as the two logits (0, s)"
        )
    if logits.device.type == "meta":
        raise MixsolveError(
            f"models[{k}] returns logits on the meta device, which have no numbers; "
            "load its weights: load_state_dict(state, assign=True)"
        )
    if not logits.is_floating_point():
        return logits.clone()
    if logits.element_size() == 1:
        logits = logits.float()
    return logits.to(torch.promote_types(logits.dtype, x.dtype), copy=True)


def _words(logits: Any) -> str:
    if not isinstance(logits, Tensor):
        return type(logits).__name__
    if logits.is_nested:
        return "a nested tensor"
    return f"{tuple(logits.shape)}" + (f", {logits.dtype}" if logits.is_complex() else "")


def _set_mode(part: nn.Module, training: bool) -> None:
    if part.training != training:
        part.training = training


def _switch_to_eval(module: nn.Module) -> None:
    """Put a module in eval mode, part by part, so that one that cannot does not stop the others."""
    own = type(module)
    changed = {"train", "eval"} & vars(module).keys()
    if changed or own.train is not nn.Module.train or own.eval is not nn.Module.eval:
        try:
            module.eval()
            return
        except NotImplementedError:
            pass  # an exported program, or a module that holds one
    if hasattr(module, "training"):  # a frozen TorchScript module has no mode
        module.training = False
    for part in module.children():
        _switch_to_eval(part)
