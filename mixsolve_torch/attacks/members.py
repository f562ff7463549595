"""The classifiers under attack: logits and gradients in the images, one network at a time.

An attack on a mixture needs, of each classifier f_k of positive weight, its logits and the gradient
of some function of them with respect to the images. The classifiers are run one after another, so
that the memory of one network's graph is enough for a mixture of any size.

Failures are counted on the device without synchronising, and `Members.check` reports them once at
the end: logits that are not finite are refused; gradients that vanish or are not finite are signs
of gradient masking (see `attacks.masking`) and give a warning that names the classifier. A
classifier that autograd cannot differentiate has the gradient zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.masking import LOGITS, GradientSigns, sentences, warn
from mixsolve_torch.core.losses import errs
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.core.weights import check_weights
from mixsolve_torch.data import checks
from mixsolve_torch.models.classifiers import run_member
from mixsolve_torch.models.passes import after_run, before_run

# Gradients of a member that are noted before they are counted: some kilobytes each.
_UNCOUNTED = 64

_AS_IT_IS: AbstractContextManager[Any] = nullcontext()

Function = Callable[[Tensor, Tensor], Tensor]


class Slope(NamedTuple):
    """One classifier at some images; nothing of it is under differentiation.

    Attributes
    ----------
    logits : torch.Tensor of shape (B, classes)
        The logits, in float32 or float64.
    wrong : torch.Tensor of shape (B,), bool
        Where the classifier errs; a tie for the top is an error.
    values : torch.Tensor of shape (B,) or (Q, B)
        The function that was differentiated, or Q of them.
    gradient : torch.Tensor of shape (B, C, H, W) or (Q, B, C, H, W)
        Its gradient in the images; entries that are not finite are replaced by 0.
    """

    logits: Tensor
    wrong: Tensor
    values: Tensor
    gradient: Tensor


class Members:
    """The classifiers of positive weight of a mixture that is frozen (see `attacks.base.frozen`).

    They are numbered from 0 to n - 1 here, in the order of the mixture.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and the weights unless others are given.
    labels : torch.Tensor of shape (B,), int64
        All labels of the attack, for a single check against the number of classes.
    weights : array-like of shape (L,), optional
        Weights to attack instead of the mixture's own.
    autocast : bool or torch.dtype, default False
        Run the classifiers in bfloat16, or in this dtype, where PyTorch's autocast deems it safe.
    compile : bool, default False
        Run the classifiers through `torch.compile`.
    runs : sequence of callable of length L, optional
        What runs each classifier instead, such as its compiled form.

    Attributes
    ----------
    indices : list of int
        What number each member has in the mixture.
    weights : list of float
        Its weight, positive.
    total : float
        The expected 0/1 loss of an image on which all of them err: 1 up to the rounding of the sum.

    Raises
    ------
    MixsolveError
        Weights that are not probabilities.
    """

    def __init__(
        self,
        mixture: Mixture,
        labels: Tensor,
        weights: Any = None,
        *,
        autocast: bool | torch.dtype = False,
        compile: bool = False,
        runs: Sequence[Any] | None = None,
    ) -> None:
        chosen = check_weights(mixture.weights if weights is None else weights, len(mixture))
        self.indices = [k for k, weight in enumerate(chosen.tolist()) if weight > 0]
        self.weights = [float(chosen[k]) for k in self.indices]
        self.total = 0.0
        for weight in self.weights:  # in the order of `expected`; sum() rounds otherwise
            self.total += weight
        models = [(mixture.models if runs is None else runs)[k] for k in self.indices]
        self._models: list[Any] = [torch.compile(m) for m in models] if compile else models
        self._autocast = torch.bfloat16 if autocast is True else autocast
        self._largest_label = int(labels.max())
        self._differentiated = [0] * len(models)
        self._missing = [False] * len(models)  # who is known to have no gradient in the images
        self._converted = [False] * len(models)  # whose images or logits need a conversion
        self._runs_without = [False] * len(models)  # who runs only where nothing is differentiated
        # For each member: passes with logits that are not finite; gradients on images that it
        # classifies correctly; those of them that vanish; gradients that are not finite.
        self._counts = torch.zeros(len(models), 4, dtype=torch.int64, device=labels.device)
        # Not yet counted, so that a step need not wait: sums of logits, and where a member errs
        # with the largest entry of its gradients.
        self._sums: list[list[Tensor]] = [[] for _ in models]
        self._slopes: list[list[tuple[Tensor, Tensor]]] = [[] for _ in models]

    def __len__(self) -> int:
        """Return n, the number of classifiers with a positive weight."""
        return len(self._models)

    def logits(self, i: int, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of member i on images, without a graph."""
        with torch.no_grad():
            return self._run(i, x)

    def wrong(self, x: Tensor, y: Tensor) -> Tensor:
        """Return a mask (n, B) of which member errs on which image."""
        return torch.stack([errs(self.logits(i, x), y) for i in range(len(self))])

    def expected(self, losses: Tensor | Sequence[Tensor]) -> Tensor:
        """Return ``sum_i weights_i losses_i`` (B,) in float64, for n losses or masks (B,).

        The sum is taken in the order of the members, whatever the shape: equal losses have equal
        sums to the last bit, and the sum of n ones is `total`.
        """
        value = losses[0].to(torch.float64) * self.weights[0]
        for weight, own in zip(self.weights[1:], losses[1:], strict=True):
            value = torch.add(value, own.to(torch.float64), alpha=weight)
        return value

    def gradient(self, i: int, function: Function, x: Tensor, y: Tensor) -> Slope:
        """Return the gradient in the images of a function of member i's logits.

        Parameters
        ----------
        i : int
            The member.
        function : callable
            ``function(logits, y)`` returns one value an image, (B,), or Q of them, (Q, B); the
            forward pass is then shared by Q backward passes.
        x, y : torch.Tensor of shape (B, C, H, W), (B,)
            Images and labels.

        Returns
        -------
        Slope
            With respect to the images alone: zero where the member has no gradient.

        Raises
        ------
        MixsolveError
            The function has no gradient in the logits.
        """
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            logits = self._run_under_autograd(i, point)
            values = function(logits, y)
            rows = values.unbind() if values.ndim == 2 else (values,)
            parts = [
                self._backward(i, logits, row, point, keep=q < len(rows) - 1)
                for q, row in enumerate(rows)
            ]
        logits = logits.detach()
        wrong = errs(logits, y)
        # One reduction detects both failures: NaN and infinity survive a maximum.
        largest = [part.abs().amax(dim=(1, 2, 3)) for part in parts]
        self._slopes[i].append((wrong, torch.stack(largest) if values.ndim == 2 else largest[0]))
        self._differentiated[i] += len(x)
        if len(self._slopes[i]) == _UNCOUNTED:
            self._count()
        # The points stay finite, so that a NaN met later comes from the classifier.
        parts = [part.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for part in parts]
        gradient = torch.stack(parts) if values.ndim == 2 else parts[0]
        return Slope(logits, wrong, values.detach(), gradient)

    def slope(self, i: int, function: Function, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient (B, C, H, W) of `gradient` alone; nothing of it is noted.

        It is for the steps between points that `gradient` looks at, where the function has one
        value an image.
        """
        # Switching takes as long as an operation on a small batch, and attacks run with it on.
        with _AS_IT_IS if torch.is_grad_enabled() else torch.enable_grad():
            point = x.detach().clone().requires_grad_()  # a classifier may write into it
            logits = self._direct(i, point)
            if logits is None:
                logits = self._run_under_autograd(i, point, noted=False)
            slope = self._backward(i, logits, function(logits, y), point, keep=False)
        return slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    def _direct(self, i: int, point: Tensor) -> Tensor | None:
        """Return plain logits of member i without checks; None for what has to be converted."""
        if self._converted[i]:
            return None
        before = before_run()
        try:
            with self._precision(point):
                logits = self._models[i](point)
        except Exception:  # those of its own are raised again by the checked way
            logits = None
        if type(logits) is Tensor and logits.ndim == 2 and logits.is_floating_point():
            after_run(before, logits)
            return logits if logits.dtype == point.dtype else logits.to(point.dtype)
        self._converted[i] = True
        return None

    def check(self, followed: str = LOGITS) -> None:
        """Report failures so far; to be called once at the end, since it waits for the device.

        Parameters
        ----------
        followed : str, optional
            The name of the loss that was differentiated; differences of logits by default.

        Raises
        ------
        MixsolveError
            Logits of a member that were not finite.

        Warns
        -----
        GradientWarning
            A member's gradient was not finite on some images, missing, or exactly zero on a tenth
            or more of those that it classifies correctly.
        """
        warn(sentences(self.signs(), followed), stacklevel=3)

    def signs(self) -> dict[int, GradientSigns]:
        """Return what was seen of the members' gradients so far, by their numbers in the mixture.

        It waits for the device, and refuses logits that were not finite.
        """
        self._count()
        signs: dict[int, GradientSigns] = {}
        for i, (k, row) in enumerate(zip(self.indices, self._counts.tolist(), strict=True)):
            diverged, right, vanished, broken = row
            if diverged:
                raise MixsolveError(
                    f"models[{k}] must have finite logits; got NaN or infinity under attack; "
                    "look for overflow (half precision?) or a diverged classifier"
                )
            signs[k] = GradientSigns(
                self._differentiated[i], right, vanished, broken, self._missing[i]
            )
        return signs

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        """Return the context that classifiers run in."""
        if self._autocast:
            return torch.autocast(x.device.type, dtype=self._autocast)
        return _AS_IT_IS

    def _run_under_autograd(self, i: int, point: Tensor, noted: bool = True) -> Tensor:
        """Return the logits of member i, in a graph if it can be run in one."""
        if not self._runs_without[i]:
            try:
                return self._run(i, point, noted)
            except (MixsolveError, torch.cuda.OutOfMemoryError):
                raise
            except Exception as error:
                # Such as a call of .numpy(), which refuses what is under differentiation.
                try:
                    logits = self.logits(i, point.detach())
                except Exception:
                    raise error from None
                self._runs_without[i] = True
                return logits
        return self.logits(i, point.detach())

    def _run(self, i: int, x: Tensor, noted: bool = True) -> Tensor:
        with self._precision(x):
            logits = run_member(self._models[i], self.indices[i], x)
        checks.label_range("y", self._largest_label, logits.shape[1])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if noted:  # one NaN or infinity makes the sum one
            self._sums[i].append(logits.detach().sum())
        return logits

    def _count(self) -> None:
        """Count what was noted so far, without waiting for the device."""
        for i, (sums, slopes) in enumerate(zip(self._sums, self._slopes, strict=True)):
            if sums:
                self._counts[i, 0] += (~torch.stack(sums).isfinite()).sum()
            if slopes:
                right = ~torch.cat([wrong for wrong, _ in slopes])
                largest = torch.cat([own.reshape(-1, own.shape[-1]).T for _, own in slopes])
                vanished = right & (largest == 0).all(dim=1)
                broken = ~largest.isfinite().all(dim=1)
                self._counts[i, 1:] += torch.stack([right, vanished, broken]).sum(dim=1)
            sums.clear()
            slopes.clear()

    def _backward(
        self, i: int, logits: Tensor, values: Tensor, point: Tensor, keep: bool
    ) -> Tensor:
        """Return the gradient of values (B,) in the images; zero where member i has none."""
        own = None
        if values.requires_grad:
            try:
                (own,) = torch.autograd.grad(
                    values, point, torch.ones_like(values), retain_graph=keep, allow_unused=True
                )
            except RuntimeError as error:
                # NotImplementedError among them: an operation without a derivative.
                if "implement" not in str(error):
                    raise
        elif logits.requires_grad:
            raise MixsolveError(
                "loss of an attack must have a gradient with respect to the logits; got none; "
                "look for a loss that rounds, detaches or runs without gradients"
            )
        if own is None:
            self._missing[i] = True
            return torch.zeros_like(point)
        return own
