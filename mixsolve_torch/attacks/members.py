"""The classifiers under attack: logits and gradients in the images, one network at a time.

An attack on a mixture needs, of each classifier f_k of positive weight, its logits and the gradient
of some function of them with respect to the images. The classifiers are run one after another, so
that the memory of one network's graph is enough for a mixture of any size.

Failures are noted (see `attacks.noted`), and `Members.check` reports them once at the end: logits
that are not finite are refused; gradients that vanish or are not finite give a warning that names
the classifier. A classifier that autograd cannot differentiate has the gradient zero.

A step of an attack on small networks takes as long for what is done around a network as for the
network. Therefore functions whose derivatives in the logits are written out (`attacks.derived`) are
not differentiated by autograd; see `attacks.member_runs`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.derived import Derived
from mixsolve_torch.attacks.masking import LOGITS, GradientSigns, sentences, warn
from mixsolve_torch.attacks.member_runs import MemberRuns
from mixsolve_torch.attacks.noted import Noted
from mixsolve_torch.core.losses import errs
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.core.weights import check_weights

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
        models = [torch.compile(model) for model in models] if compile else models
        self._runs = MemberRuns(models, self.indices, int(labels.max()), autocast)
        self._noted = Noted(self.indices, labels.device)

    def __len__(self) -> int:
        """Return n, the number of classifiers with a positive weight."""
        return len(self._runs)

    def logits(self, i: int, x: Tensor) -> Tensor:
        """Return the logits (B, classes) of member i on images, without a graph."""
        logits = self._runs.logits(i, x)
        self._noted.logits(i, logits)
        return logits

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
            forward pass is then shared by Q backward passes. Autograd differentiates it unless it
            is a `Derived`.
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
            point = x.detach().clone().requires_grad_()  # a classifier may write into it
            logits = self._runs.graph(i, point)
            self._noted.logits(i, logits)
            if isinstance(function, Derived):
                values, wrong, slopes = function.derived(logits.detach(), y)
                several = slopes.unbind() if slopes.ndim == 3 else (slopes,)
                ends: list[tuple[Tensor, Tensor | None]] = [(logits, own) for own in several]
            else:
                values, wrong = function(logits, y), errs(logits, y)
                ends = [(own, None) for own in (values.unbind() if values.ndim == 2 else (values,))]
            parts = [
                self._backward(i, logits, end, slopes, point, keep=q < len(ends) - 1)
                for q, (end, slopes) in enumerate(ends)
            ]
        # One reduction detects both failures: NaN and infinity survive a maximum.
        largest = [torch.linalg.vector_norm(part, torch.inf, dim=(1, 2, 3)) for part in parts]
        self._noted.gradient(i, wrong, torch.stack(largest))
        # The points stay finite, so that a NaN met later comes from the classifier.
        parts = [part.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for part in parts]
        gradient = torch.stack(parts) if values.ndim == 2 else parts[0]
        return Slope(logits.detach().clone(), wrong, values.detach(), gradient)

    def slope(self, i: int, function: Function, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient (B, C, H, W) of `gradient` alone; nothing of it is noted.

        It is for the steps between points that `gradient` looks at, where the function has one
        value an image.
        """
        # Switching takes as long as an operation on a small batch, and attacks run with it on.
        with _AS_IT_IS if torch.is_grad_enabled() else torch.enable_grad():
            point = x.detach().clone().requires_grad_()  # a classifier may write into it
            logits = self._runs.graph(i, point)
            if isinstance(function, Derived):
                _, _, slopes = function.derived(logits.detach(), y)
                slope = self._backward(i, logits, logits, slopes, point, keep=False)
            else:
                slope = self._backward(i, logits, function(logits, y), None, point, keep=False)
        return slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

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
        return self._noted.signs()

    def _backward(
        self,
        i: int,
        logits: Tensor,
        end: Tensor,
        slopes: Tensor | None,
        point: Tensor,
        keep: bool,
    ) -> Tensor:
        """Return the gradient in the images of `end`; zero where member i has none.

        `end` is values (B,), or the logits (B, classes) with the slopes in them.
        """
        own = None
        if end.requires_grad:
            try:
                (own,) = torch.autograd.grad(
                    end,
                    point,
                    torch.ones_like(end) if slopes is None else slopes,
                    retain_graph=keep,
                    allow_unused=True,
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
            self._noted.missing(i)
            return torch.zeros_like(point)
        return own
