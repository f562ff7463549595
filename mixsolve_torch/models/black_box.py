"""Classifiers that can only be asked: no gradient leads through them to the images.

    logits = function(images), or the log of its probabilities, or 1 for the class that it names

A function, a remote service, a scikit-learn estimator on flattened images, or an ONNX Runtime
session becomes a `torch.nn.Module`, and so a member of a mixture. Attacks that follow gradients see
zeros there; `Square`, which only evaluates the classifiers, and points found on other networks work
as they do elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError, MixsolveTypeError

OUTPUTS = ("logits", "probabilities", "labels")
_ONNX_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}


class BlackBox(nn.Module):
    """A classifier that is called, not differentiated.

    Parameters
    ----------
    function : callable, scikit-learn estimator, or ONNX Runtime session
        A function of images (B, C, H, W), a tensor in [0, 1], that returns logits or probabilities
        (B, classes), or labels (B,), as a tensor or an array. A fitted estimator gets the images as
        rows (B, C * H * W) of an array, and is asked for probabilities, else for the values of its
        decision function, else for labels. A session must have one input and the logits as its
        first output.
    output : {"logits", "probabilities", "labels"}, optional
        What comes back; of functions and sessions by default logits. The 0/1 loss is the same for
        logits and probabilities, other losses are not. A tie for the top counts as an error, as it
        does everywhere; with labels, a classifier's own choice counts.
    classes : int, optional
        The number of classes, needed for labels. An estimator whose classes are not 0, 1, ...
        without a gap has the largest of them plus one by default.
    version : str, optional
        Tells it from what had the same name before, a service that has changed for example, where
        interrupted work is to be resumed.

    Raises
    ------
    MixsolveError
        An unknown `output`, labels without `classes`, a class that is no number from 0 on; when it
        is called, outputs of another form.
    MixsolveTypeError
        Something that cannot be called.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture, UniformSampling, build_losses
    >>> def brightness(images):
    ...     bright = images.mean(dim=(1, 2, 3))
    ...     return torch.stack([1 - bright, bright], dim=1)
    >>> mixture = Mixture([BlackBox(brightness, output="probabilities")])
    >>> data = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> build_losses(mixture, data, UniformSampling("Linf", 0.2, draws=3)).values.shape
    torch.Size([6, 4, 1])
    """

    def __init__(
        self,
        function: Any,
        *,
        output: str | None = None,
        classes: int | None = None,
        version: str | None = None,
    ) -> None:
        super().__init__()
        if output is not None and output not in OUTPUTS:
            names = ", ".join(repr(name) for name in OUTPUTS)
            raise MixsolveError(f"output must be one of {names}; got {output!r}")
        self.classes = None if classes is None else as_count("classes", classes, 2)
        self.function, self.version = function, version
        self._order: np.ndarray | None = None  # the class of each of an estimator's columns
        self._ask: Callable[[Tensor], Any]
        if _is_session(function):
            self._ask, self.output = self._session(function), output or "logits"
        elif callable(getattr(function, "predict", None)) and hasattr(function, "get_params"):
            self._ask, self.output = self._estimator(function, output)
        elif callable(function) and not isinstance(function, type):
            self._ask, self.output = function, output or "logits"
        else:
            raise MixsolveTypeError(
                "function must be a function of images, a fitted scikit-learn estimator, or an "
                f"ONNX Runtime session; got {type(function).__name__}"
            )
        if self.output == "labels" and self.classes is None:
            raise MixsolveError("classes must be given where the output is labels; got None")

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) on the images' device, without a gradient."""
        found = self._ask(x.detach())
        if not isinstance(found, Tensor | np.ndarray):
            found = getattr(found, "logits", found)
        scores = torch.as_tensor(found).detach().to(x.device)
        if self.output == "labels":
            return self._from_labels(scores, len(x))
        if scores.ndim != 2 or len(scores) != len(x):
            raise MixsolveError(
                f"{self.extra_repr()} must return {self.output} of shape ({len(x)}, classes); got "
                f"{tuple(scores.shape)}; labels need output='labels'"
            )
        if not scores.is_floating_point():
            scores = scores.to(x.dtype)
        probable = self.output == "probabilities"
        if probable and not ((scores >= 0) & (scores <= 1 + 1e-3)).all():
            raise MixsolveError(
                f"{self.extra_repr()} must return probabilities from 0 to 1; got entries from "
                f"{float(scores.min()):.6g} to {float(scores.max()):.6g}; use output='logits'"
            )
        scores = self._in_order(scores)
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log() if probable else scores

    def _in_order(self, scores: Tensor) -> Tensor:
        """Put an estimator's columns where their classes belong."""
        if self._order is None:
            return scores
        # Classes that it was not fitted on are never its answer.
        lowest = 0.0 if self.output == "probabilities" else float(scores.min()) - 1
        full = scores.new_full((len(scores), self.classes or 0), lowest)
        full[:, torch.from_numpy(self._order).to(scores.device)] = scores
        return full

    def _from_labels(self, labels: Tensor, count: int) -> Tensor:
        assert self.classes is not None
        labels = labels.reshape(-1) if labels.numel() == count else labels
        whole = labels.ndim == 1 and len(labels) == count and bool((labels == labels.long()).all())
        if not whole or not (0 <= int(labels.min()) <= int(labels.max()) < self.classes):
            raise MixsolveError(
                f"{self.extra_repr()} must return {count} labels from 0 to {self.classes - 1}; got "
                f"{tuple(labels.shape)}, {labels.dtype}"
            )
        return nn.functional.one_hot(labels.long(), self.classes).to(torch.float32)

    def _estimator(self, estimator: Any, output: str | None) -> tuple[Callable[[Tensor], Any], str]:
        """Return how a scikit-learn estimator is asked, and what it returns."""
        methods = {
            "probabilities": "predict_proba",
            "logits": "decision_function",
            "labels": "predict",
        }
        offered = [kind for kind, name in methods.items() if hasattr(estimator, name)]
        kind = offered[0] if output is None else output
        if kind not in offered:
            raise MixsolveError(f"{type(estimator).__name__} has no {methods[kind]}")
        order = np.asarray(getattr(estimator, "classes_", []))
        if order.ndim != 1 or not order.size or order.dtype.kind not in "iu" or order.min() < 0:
            raise MixsolveError(
                f"{type(estimator).__name__} must be fitted on classes numbered from 0; its "
                f"classes_ are {order.tolist()}"
            )
        self.classes = max(self.classes or 0, int(order.max()) + 1)
        if kind != "labels":
            self._order = order.astype(np.int64)
        ask = getattr(estimator, methods[kind])

        def asked(images: Tensor) -> np.ndarray:
            scores = np.asarray(ask(images.flatten(1).cpu().numpy()))
            if kind == "logits" and scores.ndim == 1:  # one score for the second of two classes
                scores = np.stack([np.zeros_like(scores), scores], axis=1)
            return scores

        return asked, kind

    def _session(self, session: Any) -> Callable[[Tensor], Any]:
        """Return how an ONNX Runtime session is asked."""
        (entry, *more) = session.get_inputs()
        if more or entry.type not in _ONNX_DTYPES:
            raise MixsolveError(
                "the session must have one input of floating-point images; got "
                + ", ".join(f"{each.name}: {each.type}" for each in (entry, *more))
            )
        dtype, first = _ONNX_DTYPES[entry.type], session.get_outputs()[0].name
        size = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else None

        def asked(images: Tensor) -> np.ndarray:
            array = images.cpu().numpy().astype(dtype, copy=False)
            if size is None:
                return session.run([first], {entry.name: np.ascontiguousarray(array)})[0]
            # The file is for a fixed number of images: the last part is filled up to it.
            array = array[np.minimum(np.arange(-(-len(array) // size) * size), len(array) - 1)]
            parts = np.split(array, len(array) // size)
            found = [session.run([first], {entry.name: part})[0] for part in parts]
            return np.concatenate(found)[: len(images)]

        return asked

    def extra_repr(self) -> str:
        """Return what is called, for the module's printed form."""
        own = getattr(self.function, "__name__", type(self.function).__name__)
        return f"{own}, output={self.output!r}"

    def fingerprint(self) -> dict[str, Any]:
        """Return what the outputs depend on, as far as it can be seen from outside."""
        return {
            "function": self.function,
            "output": self.output,
            "classes": self.classes,
            "version": self.version,
        }


def _is_session(function: object) -> bool:
    return any(base.__module__.startswith("onnxruntime") for base in type(function).__mro__)
