"""The sets that an attacker may move in around an image, of any kind, and their union.

    ball      {x' : ||x' - x|| <= eps, 0 <= x' <= 1}, in a norm of `mixsolve_torch.attacks.ball`
    finite    {t_1(x), ..., t_K(x)}, by a function that yields transformed images
    union     the points that lie in one of several sets

The game needs no more of a set than that points can be found in it: the risk of weights lam under
the union of sets S_1, ..., S_T is

    mean_i max_t max_{x' in S_t(x_i)} sum_k lam_k loss(f_k(x'), y_i),

at least the risk under each set alone. All points of a finite set can be tried, so that its part
of the risk is exact.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 2.
Tramer, Boneh. Adversarial Training and Robustness for Multiple Perturbations. NeurIPS 2019.
Maini, Wong, Kolter. Adversarial Robustness Against the Union of Multiple Perturbation Models.
ICML 2020.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.ball import Ball
from mixsolve_torch.runs.fingerprint import outline

Transform = Callable[[Tensor], Iterable[Tensor]]

_ROUNDINGS = 8  # of the images' dtype, that two computations of one transformed image may differ by


class Threat(abc.ABC):
    """A set around each image.

    Attributes
    ----------
    exact : bool
        Whether all its points can be tried.
    label : str
        What it is called in reports.
    title : str
        What it is called in names of candidates.
    declared : str
        How an error names it, after "must stay in".
    """

    exact: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What the set is called in reports."""

    @property
    def title(self) -> str:
        """What the set is called in names of candidates."""
        return self.label

    @property
    @abc.abstractmethod
    def declared(self) -> str:
        """How an error names the set, after "must stay in"."""

    @abc.abstractmethod
    def contains(self, points: Tensor, center: Tensor) -> Tensor:
        """Return a mask (B,) of the points (B, C, H, W) that lie in it, up to rounding."""

    def check_entries(self, entries: int) -> None:  # noqa: B027  (most sets have no limit)
        """Refuse a size that no image of so many entries can make use of."""

    def outside(self, points: Tensor, center: Tensor) -> str | None:
        """Return which image left the set, and how; None if all points lie in it."""
        inside = self.contains(points, center)
        if inside.all():
            return None
        return f"image {int((~inside).nonzero()[0])} of the batch lies outside"


@dataclass(frozen=True)
class InBall(Threat):
    """A ball, cut by the box [0, 1]."""

    ball: Ball

    @property
    def label(self) -> str:
        """Norm and radius, as in "Linf 8/255"."""
        return f"{self.ball.norm} {radius(self.ball.eps)}"

    @property
    def title(self) -> str:
        """Norm and radius, as in "Linf 0.0313725"."""
        return f"{self.ball.norm} {self.ball.eps:g}"

    @property
    def declared(self) -> str:
        """How an error names the ball."""
        ball = self.ball
        return (
            f"the ball that it declares, {ball.norm} of radius {ball.eps:g}, and in the box [0, 1]"
        )

    def contains(self, points: Tensor, center: Tensor) -> Tensor:
        """Return which points lie in the ball and in the box, up to the rounding of `outside`."""
        return self.ball.contains(points, center)

    def check_entries(self, entries: int) -> None:
        """Refuse a radius that is beyond the whole box of images of so many entries."""
        self.ball.check_entries(entries)

    def outside(self, points: Tensor, center: Tensor) -> str | None:
        """Return which image left the ball or the box by more than rounding, and how."""
        return self.ball.outside(points, center)


class Finite(Threat):
    """A finite set: the images that a function yields.

    Parameters
    ----------
    transform : callable
        Takes images (B, C, H, W) in [0, 1] and yields tensors of the same shape, one a point. The
        points of an image depend on that image alone, and are the same at every call.
    name : str, optional
        What it is called in tables; the function's name by default.

    Raises
    ------
    MixsolveTypeError
        Something that cannot be called.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Finite, Mixture, evaluate
    >>> mirrored = Finite(lambda images: [images.flip(3), images.flip(2)], name="mirrored")
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> report = evaluate(Mixture(models), data, threats=[mirrored])
    >>> report.threat
    'mirrored'
    """

    exact: ClassVar[bool] = True

    def __init__(self, transform: Transform, *, name: str | None = None) -> None:
        if not callable(transform) or isinstance(transform, type):
            raise MixsolveTypeError(
                "a finite set is given by a function that takes images (B, C, H, W) and yields "
                f"transformed ones; got {transform!r}"
            )
        self.transform = transform
        own = getattr(transform, "__name__", type(transform).__name__).strip("<>")
        self.name = own if name is None else str(name)

    def __repr__(self) -> str:
        """The set's name."""
        return f"Finite({self.name!r})"

    @property
    def label(self) -> str:
        """The set's name."""
        return self.name

    @property
    def declared(self) -> str:
        """How an error names the set."""
        return f"the finite set that it declares, {self.name}"

    def points(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the transformed images (B, C, H, W), in the dtype of the images and checked.

        Raises
        ------
        MixsolveError
            Images of another shape, outside [0, 1] or not finite, or none at all.
        MixsolveTypeError
            Anything but tensors.
        """
        count = 0
        for count, point in enumerate(self.transform(x.clone()), 1):
            if not isinstance(point, Tensor):
                raise MixsolveTypeError(
                    f"{self.name} must yield tensors of images; got {type(point).__name__}"
                )
            if point.shape != x.shape:
                raise MixsolveError(
                    f"{self.name} must yield images of shape {tuple(x.shape)}, that of its "
                    f"argument; point {count} has shape {tuple(point.shape)}"
                )
            point = point.detach().to(x)
            rounding = _ROUNDINGS * torch.finfo(x.dtype).eps
            if not ((point >= -rounding) & (point <= 1 + rounding)).all():  # NaN is not inside
                raise MixsolveError(
                    f"{self.name} must yield images in [0, 1]; point {count} has entries from "
                    f"{float(point.min()):.6g} to {float(point.max()):.6g}; cut them "
                    "with clamp(0, 1)"
                )
            yield point
        if count == 0:
            raise MixsolveError(f"{self.name} must yield one point at least; got none")

    def check(self, x: Tensor) -> None:
        """Refuse a function that is random, or mixes the images of a batch.

        Raises
        ------
        MixsolveError
            The points of the first image differ when it is transformed alone.
        """
        together, alone = list(self.points(x[:2])), list(self.points(x[:1]))
        same = len(together) == len(alone) and all(
            torch.allclose(a[:1], b, rtol=0, atol=1e-4)
            for a, b in zip(together, alone, strict=True)
        )
        if not same:
            raise MixsolveError(
                f"{self.name} must yield the same points of an image at every call and in every "
                "batch; those of the first image changed: draw from a generator that is seeded by "
                "the image, and leave other images out of it"
            )

    def contains(self, points: Tensor, center: Tensor) -> Tensor:
        """Return which images are points of the set, by trying all of them."""
        allowed = _ROUNDINGS * torch.finfo(center.dtype).eps
        inside = torch.zeros(len(center), dtype=torch.bool, device=center.device)
        for own in self.points(center):
            inside |= (own - points.to(center)).flatten(1).abs().amax(dim=1) <= allowed
        return inside

    def fingerprint(self) -> dict[str, Any]:
        """Return what the points depend on, as far as it can be seen from outside."""
        return {"name": self.name, "transform": outline(self.transform)}


class Union(Threat):
    """The points that lie in one of several sets."""

    def __init__(self, threats: Sequence[Threat]) -> None:
        self.threats = tuple(threats)

    @property
    def label(self) -> str:
        """The names of all."""
        return " or ".join(threat.label for threat in self.threats)

    @property
    def title(self) -> str:
        """The names of all."""
        return " or ".join(threat.title for threat in self.threats)

    @property
    def declared(self) -> str:
        """How an error names the union."""
        return f"one of the sets that are declared, {self.label}"

    def contains(self, points: Tensor, center: Tensor) -> Tensor:
        """Return which points lie in one of the sets."""
        inside = torch.zeros(len(points), dtype=torch.bool, device=center.device)
        for threat in self.threats:
            rows = (~inside).nonzero().squeeze(1)
            if len(rows):
                inside[rows] = threat.contains(points.to(center.device)[rows], center[rows])
        return inside

    def check_entries(self, entries: int) -> None:
        """Refuse what one of the sets refuses."""
        for threat in self.threats:
            threat.check_entries(entries)

    def outside(self, points: Tensor, center: Tensor) -> str | None:
        """Return which image lies in none of the sets by more than rounding, and why."""
        points = points.to(center.device)
        for i in (~self.contains(points, center)).nonzero().flatten().tolist():
            one = slice(i, i + 1)
            reasons = [threat.outside(points[one], center[one]) for threat in self.threats]
            if None not in reasons:
                why = "; ".join(
                    f"{threat.label}: {str(reason).replace('image 0 of the batch', 'it')}"
                    for threat, reason in zip(self.threats, reasons, strict=True)
                )
                return f"image {i} of the batch lies in none of them ({why})"
        return None

    def fingerprint(self) -> dict[str, Any]:
        """Return what the union is made of."""
        return {"threats": list(self.threats)}


def united(threats: Iterable[Threat]) -> Threat:
    """Return the union of sets, or the only one of them."""
    flat = [
        part
        for threat in threats
        for part in (threat.threats if isinstance(threat, Union) else (threat,))
    ]
    different = list(dict.fromkeys(flat))
    return different[0] if len(different) == 1 else Union(different)


def radius(eps: float) -> str:
    """Return a radius in its usual form: a short decimal where that is exact, else in 255ths.

    Examples
    --------
    >>> radius(0.5), radius(8 / 255)
    ('0.5', '8/255')
    """
    decimal = f"{eps:g}"
    steps = round(255 * eps)
    exact = float(decimal) == eps or not 0 < steps < 255 or steps / 255 != eps
    return decimal if exact else f"{steps}/255"
