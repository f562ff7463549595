"""The set an attack may move in: a ball around each image, cut by the box [0, 1].

    Linf:  {x' : max_p |x'_p - x_p| <= eps, 0 <= x' <= 1}
    L2:    {x' : ||x' - x||_2      <= eps, 0 <= x' <= 1}

A norm is a class: everything in an attack that depends on the norm is one of its methods. The norm
is taken over the channels and pixels of one image. All methods work on a batch (B, C, H, W), and
their points lie in the set up to the rounding of their dtype.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixsolve.base.arguments import as_length, as_norm
from mixsolve.base.errors import MixsolveError


@dataclass(frozen=True)
class Ball(abc.ABC):
    """Balls of one norm and radius around images; `make_ball` makes one from a norm's name.

    Attributes
    ----------
    eps : float
        The radius, in the unit of the images.
    norm : {"Linf", "L2"}
        The name of the norm.
    """

    eps: float
    norm: ClassVar[str]

    @abc.abstractmethod
    def project(self, point: Tensor, center: Tensor) -> Tensor:
        """Return images in the ball around `center` and in the box, near to `point`.

        Both are batches (B, C, H, W), and the centers lie in the box.
        """

    @abc.abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of unit norm along which a linear function grows fastest.

        A gradient that is zero has the direction zero.
        """

    @abc.abstractmethod
    def lengths(self, perturbation: Tensor) -> Tensor:
        """Return the norm (B,) of each image's perturbation, in its dtype."""

    @abc.abstractmethod
    def dual_lengths(self, gradient: Tensor) -> Tensor:
        """Return the dual norm (B,) of each image's gradient: its growth per unit of the norm."""

    def random_start(self, center: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one point uniformly in the ball around each image, then cut it by the box.

        The draws are made on the generator's device and moved to that of `center`.
        """
        unit = self._uniform(center, generator)
        return self.project(center + self.eps * unit.to(center.device), center)

    def outside(self, points: Tensor, center: Tensor) -> str | None:
        """Return which image left the ball or the box by more than rounding, and how; or None.

        Rounding is that of the coarser dtype of the two, in every entry of an image: the sum of an
        original and a perturbation within the ball may be so far outside.
        """
        unit = max(
            torch.finfo(part.dtype).eps for part in (points, center) if part.is_floating_point()
        )
        shared = torch.promote_types(torch.promote_types(points.dtype, center.dtype), torch.float32)
        points = points.to(center.device, shared)
        lengths, roundings = self._measured(points - center)
        lowest, highest = points.flatten(1).aminmax(dim=1)
        inside = lengths <= self.eps + unit * roundings
        inside &= (lowest >= -unit) & (highest <= 1 + unit)
        if inside.all():  # NaN is not inside
            return None
        i = int((~inside).nonzero()[0])
        length, low, high = float(lengths[i]), float(lowest[i]), float(highest[i])
        if math.isnan(length):
            return f"image {i} of the batch holds NaN"
        if low < -unit or high > 1 + unit:
            return f"image {i} of the batch has entries from {low:.6g} to {high:.6g}"
        return (
            f"image {i} of the batch is {self.norm} {length:.6g} away from the original, "
            f"{length - self.eps:.3g} too far"
        )

    @abc.abstractmethod
    def _uniform(self, center: Tensor, generator: torch.Generator) -> Tensor:
        """Return uniform draws from the ball of radius 1, on the generator's device."""

    @abc.abstractmethod
    def _measured(self, perturbation: Tensor) -> tuple[Tensor, float]:
        """Return lengths (B,), and how many roundings of an entry may be in one of them."""


@dataclass(frozen=True)
class _LinfBall(Ball):
    """The ball of the largest absolute entry; its projection is the Euclidean one."""

    norm: ClassVar[str] = "Linf"

    def project(self, point: Tensor, center: Tensor) -> Tensor:
        lowest, highest = (center - self.eps).clamp(min=0), (center + self.eps).clamp(max=1)
        return torch.minimum(torch.maximum(point, lowest), highest)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def lengths(self, perturbation: Tensor) -> Tensor:
        return perturbation.flatten(1).abs().amax(dim=1)

    def dual_lengths(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().sum(dim=1)

    def _uniform(self, center: Tensor, generator: torch.Generator) -> Tensor:
        home, dtype = generator.device, center.dtype
        return torch.rand(center.shape, generator=generator, device=home, dtype=dtype) * 2 - 1

    def _measured(self, perturbation: Tensor) -> tuple[Tensor, float]:
        return self.lengths(perturbation), 2


@dataclass(frozen=True)
class _L2Ball(Ball):
    """The Euclidean ball.

    A perturbation is shrunk to the ball and then cut by the box: since the center lies in the box,
    the cut shortens every entry of the perturbation, so that the result lies in both sets. A random
    start is a Gaussian direction of length ``eps U^(1/d)``, d the number of entries of an image and
    U uniform in [0, 1].
    """

    norm: ClassVar[str] = "L2"

    def project(self, point: Tensor, center: Tensor) -> Tensor:
        shift = point - center
        length = self.lengths(shift).clamp(min=torch.finfo(shift.dtype).tiny)
        shrink = (self.eps / length).clamp(max=1)
        return (center + shift * shrink[:, None, None, None]).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        tiny = torch.finfo(gradient.dtype).tiny
        # Entries are scaled to at most 1 first: the squares of vanishing gradients would underflow.
        largest = gradient.flatten(1).abs().amax(dim=1)
        scaled = gradient / largest.clamp(min=tiny)[:, None, None, None]
        return scaled / self.lengths(scaled).clamp(min=tiny)[:, None, None, None]

    def lengths(self, perturbation: Tensor) -> Tensor:
        return euclidean_lengths(perturbation)

    def dual_lengths(self, gradient: Tensor) -> Tensor:
        return euclidean_lengths(gradient)

    def _uniform(self, center: Tensor, generator: torch.Generator) -> Tensor:
        home, dtype = generator.device, center.dtype
        direction = torch.randn(center.shape, generator=generator, device=home, dtype=dtype)
        radius = torch.rand(len(center), generator=generator, device=home, dtype=dtype)
        radius = radius ** (1 / center[0].numel())
        return self.steepest(direction) * radius[:, None, None, None]

    def _measured(self, perturbation: Tensor) -> tuple[Tensor, float]:
        flat = perturbation.flatten(1)
        lengths = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
        return lengths, math.sqrt(flat.shape[1]) * (1 + self.eps)


BALLS: dict[str, type[Ball]] = {ball.norm: ball for ball in (_LinfBall, _L2Ball)}  # by norm


def make_ball(norm: object, eps: str | float, *, prefix: str = "") -> Ball:
    """Return the ball of a norm, in any usual spelling, and a radius such as 0.03 or "8/255".

    Parameters
    ----------
    norm : str or float
        "Linf" or "L2"; other spellings such as "inf" or 2 will do.
    eps : str or float
        The radius, at least 0, in the unit of images in [0, 1]; in "Linf" at most 1.
    prefix : str, optional
        What stands before the names of both arguments in messages, such as "--".

    Raises
    ------
    MixsolveError
        Another norm, a negative radius, or a radius in "Linf" beyond that of the whole box, 1:
        bytes are meant.
    MixsolveTypeError
        A radius that is neither a number nor text.
    """
    name = as_norm(f"{prefix}norm", norm)
    radius = as_length(f"{prefix}eps", eps)
    if name == "Linf" and radius > 1:
        raise MixsolveError(
            f"{prefix}eps is in the unit of images in [0, 1], where no Linf radius exceeds 1; "
            f"got {eps}; in units of bytes write {eps}/255"
        )
    return BALLS[name](radius)


def euclidean_lengths(perturbation: Tensor) -> Tensor:
    """Return the Euclidean norm (B,) of each image's perturbation, in its dtype."""
    return torch.linalg.vector_norm(perturbation.flatten(1), dim=1)
