"""The set an attack may move in: a ball around each image, cut by the box [0, 1].

    Linf:  {x' : max_p |x'_p - x_p| <= eps, 0 <= x' <= 1}
    L2:    {x' : ||x' - x||_2      <= eps, 0 <= x' <= 1}
    L1:    {x' : ||x' - x||_1      <= eps, 0 <= x' <= 1}

A norm is a class: everything in an attack that depends on the norm is one of its methods. The norm
is taken over the channels and pixels of one image. All methods work on a batch (B, C, H, W), and
their points lie in the set up to the rounding of their dtype.

A steepest step in L1 moves one entry by the whole radius, and the box leaves little of it. What is
to be a direction of a step or a distance therefore counts the box there: `direction` and `growth`
belong to the farthest point of the ball and the box together.

References
----------
Croce, Hein. Mind the box: l1-APGD for sparse adversarial attacks on image classifiers. ICML 2021.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mixsolve.base.arguments import as_length, as_norm
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.thresholds import fill, fill_to, level, scale, shrink

# A move that is shorter than its room by less than this share ends at the wall, but for rounding.
_AT_WALL = 1e-12


class Nearest(NamedTuple):
    """The Euclidean projection on the ball and the box, and its derivative.

    The derivative is rate (diag(free) - u u^T), u the tangent: entries at a bound stay, and where
    the ball is reached, the others move along its surface.

    Attributes
    ----------
    point : torch.Tensor of shape (B, C, H, W)
        The projections.
    free : torch.Tensor of shape (B, D), bool
        Entries that are at no bound of their own.
    tangent : torch.Tensor of shape (B, D) or None
        A unit vector in the free entries; zero where the ball is not reached. None is zero.
    rate : torch.Tensor of shape (B,) or None
        The factor. None is 1.
    """

    point: Tensor
    free: Tensor
    tangent: Tensor | None
    rate: Tensor | None


@dataclass(frozen=True)
class Ball(abc.ABC):
    """Balls of one norm and radius around images; `make_ball` makes one from a norm's name.

    Attributes
    ----------
    eps : float
        The radius, in the unit of the images.
    norm : {"Linf", "L2", "L1"}
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
    def nearest_to(self, center: Tensor) -> Callable[[Tensor], Nearest]:
        """Return `nearest` for one batch of centers, to be called on many points."""

    def nearest(self, point: Tensor, center: Tensor) -> Nearest:
        """Return the image in the ball and the box that is nearest in the Euclidean norm."""
        return self.nearest_to(center)(point)

    def projection(self, center: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `project` for one batch of centers, to be called on many points."""
        return lambda point: self.project(point, center)

    def mover(self, center: Tensor, length: float) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function of points and gradients (B, C, H, W) that makes one step of ascent.

        It is for many steps around one batch of centers, and may write into the gradient.
        """

        def move(point: Tensor, gradient: Tensor) -> Tensor:
            ahead = torch.add(point, self.direction(gradient, center), alpha=length)
            return self.project(ahead, center)

        return move

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

    @abc.abstractmethod
    def shortest(self, gain: Tensor, gradient: Tensor, point: Tensor) -> Tensor:
        """Return the shortest moves in the box along which a linear function grows by `gain` (B,).

        Where the box does not allow as much, the moves grow by all that it allows. No move is
        needed for a gain below 0.
        """

    def distance(self, gap: Tensor, gradient: Tensor, point: Tensor) -> Tensor:
        """Return how far (B,) each point is from where a linear gap (B,) becomes 0.

        It is negative where the gap is positive, and infinite where the gap cannot change.
        """
        slope = self.dual_lengths(gradient)
        tiny = torch.finfo(slope.dtype).tiny
        never = torch.where(gap < 0, torch.inf, -torch.inf).to(gap.dtype)
        return torch.where(slope > tiny, -gap / slope.clamp(min=tiny), never)

    def direction(self, gradient: Tensor, point: Tensor) -> Tensor:
        """Return the direction of at most unit norm for a step from `point`, in the box."""
        return self.steepest(gradient)

    def growth(self, gradient: Tensor, point: Tensor) -> Tensor:
        """Return the growth (B,) per unit of the norm along `direction`."""
        return self.dual_lengths(gradient)

    def random_start(self, center: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one point uniformly in the ball around each image, then cut it by the box.

        The draws are made on the generator's device and moved to that of `center`.
        """
        unit = self._uniform(center, generator)
        return self.project(center + self.eps * unit.to(center.device), center)

    def check_entries(self, entries: int) -> None:
        """Refuse an L1 radius beyond that of the whole box of so many entries: bytes are meant."""
        if self.norm == "L1" and self.eps > entries:
            raise MixsolveError(
                "eps is in the unit of images in [0, 1], where no L1 radius exceeds the number of "
                f"entries of an image, here {entries}; got {self.eps:g}; divide bytes by 255"
            )

    def contains(self, points: Tensor, center: Tensor) -> Tensor:
        """Return a mask (B,) of the points in the ball and in the box, up to rounding.

        Rounding is that of the coarser dtype of the two, in every entry of an image: the sum of an
        original and a perturbation within the ball may be so far outside.
        """
        return self._held(points, center)[0]

    def _held(self, points: Tensor, center: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        """Return the mask, lengths, lowest and highest entries (B,), and the unit of rounding."""
        unit = max(
            torch.finfo(part.dtype).eps for part in (points, center) if part.is_floating_point()
        )
        shared = torch.promote_types(torch.promote_types(points.dtype, center.dtype), torch.float32)
        points = points.to(center.device, shared)
        lengths, roundings = self._measured(points - center)
        lowest, highest = points.flatten(1).aminmax(dim=1)
        inside = lengths <= self.eps + unit * roundings
        inside &= (lowest >= -unit) & (highest <= 1 + unit)  # NaN is not inside
        return inside, lengths, lowest, highest, unit

    def outside(self, points: Tensor, center: Tensor) -> str | None:
        """Return which image left the ball or the box by more than rounding, and how; or None."""
        inside, lengths, lowest, highest, unit = self._held(points, center)
        if inside.all():
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
    def _measured(self, perturbation: Tensor) -> tuple[Tensor, float | Tensor]:
        """Return lengths (B,), and how many roundings of an entry may be in one of them."""


@dataclass(frozen=True)
class _LinfBall(Ball):
    """The ball of the largest absolute entry; its projection is the Euclidean one."""

    norm: ClassVar[str] = "Linf"

    def project(self, point: Tensor, center: Tensor) -> Tensor:
        return self.projection(center)(point)

    def projection(self, center: Tensor) -> Callable[[Tensor], Tensor]:
        lowest, highest = self._bounds(center)
        return lambda point: torch.clamp(point, lowest, highest)

    def mover(self, center: Tensor, length: float) -> Callable[[Tensor, Tensor], Tensor]:
        lowest, highest = self._bounds(center)

        def move(point: Tensor, gradient: Tensor) -> Tensor:
            ahead = torch.add(point, gradient.sign_(), alpha=length, out=gradient)
            return ahead.clamp_(lowest, highest)

        return move

    def _bounds(self, center: Tensor) -> tuple[Tensor, Tensor]:
        return (center - self.eps).clamp_(min=0), (center + self.eps).clamp_(max=1)

    def nearest_to(self, center: Tensor) -> Callable[[Tensor], Nearest]:
        project = self.projection(center)

        def nearest(point: Tensor) -> Nearest:
            found = project(point)
            return Nearest(found, (found == point).flatten(1), None, None)

        return nearest

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def lengths(self, perturbation: Tensor) -> Tensor:
        return perturbation.flatten(1).abs().amax(dim=1)

    def dual_lengths(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().sum(dim=1)

    def shortest(self, gain: Tensor, gradient: Tensor, point: Tensor) -> Tensor:
        sizes, rooms = _sizes_and_rooms(gradient, point)
        size = level(sizes, rooms, gain)[:, None].to(rooms.dtype)
        return _signed(torch.minimum(size, rooms), gradient)

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

    def nearest_to(self, center: Tensor) -> Callable[[Tensor], Nearest]:
        def nearest(point: Tensor) -> Nearest:
            shift = point - center
            sizes, rooms = _sizes_and_rooms(shift, center)
            rate = scale(sizes, rooms, self.eps).to(sizes.dtype)
            moves = torch.minimum(rate[:, None] * sizes, rooms)
            free = (moves < rooms) | (sizes == 0)
            around = torch.where(free & (rate < 1)[:, None], shift.flatten(1), 0)
            return Nearest(_moved(center, moves, shift), free, _unit(around), rate)

        return nearest

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

    def shortest(self, gain: Tensor, gradient: Tensor, point: Tensor) -> Tensor:
        # The move min(c |g_p|, room) meets the conditions of the optimum, for the c of the gain.
        sizes, rooms = _sizes_and_rooms(gradient, point)
        tiny = torch.finfo(sizes.dtype).tiny
        bounds = torch.where(sizes > tiny, rooms / sizes.clamp(min=tiny), 0)
        rate = level(sizes.double().square(), bounds, gain)[:, None]
        return _signed(torch.minimum((rate * sizes).to(rooms.dtype), rooms), gradient)

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


@dataclass(frozen=True)
class _L1Ball(Ball):
    """The ball of the sum of absolute entries; its projection is the Euclidean one.

    The projection on the ball and the box is sign(s_p) min(max(|s_p| - mu, 0), b_p) beyond the
    center, for the shift s and the rooms b in its direction. A random start has the sizes
    E_p / (E_1 + ... + E_{d+1}) of independent exponential draws, and random signs.
    """

    norm: ClassVar[str] = "L1"

    def project(self, point: Tensor, center: Tensor) -> Tensor:
        shift = point - center
        sizes, rooms = _sizes_and_rooms(shift, center)
        moves = shrink(sizes, rooms, self.eps).to(center.dtype)
        return _moved(center, moves, shift)

    def nearest_to(self, center: Tensor) -> Callable[[Tensor], Nearest]:
        def nearest(point: Tensor) -> Nearest:
            shift = point - center
            sizes, rooms = _sizes_and_rooms(shift, center)
            moves = shrink(sizes, rooms, self.eps).to(center.dtype)
            # Within the ball only the box cuts an entry, and one that does not move is free.
            cut = torch.minimum(sizes, rooms).sum(dim=1, keepdim=True) > self.eps
            below = moves < rooms * (1 - _AT_WALL)
            free = torch.where(cut, (moves > 0) & below, below | (sizes == 0))
            around = torch.where(free & cut, shift.flatten(1).sign(), 0)
            return Nearest(_moved(center, moves, shift), free, _unit(around), None)

        return nearest

    def steepest(self, gradient: Tensor) -> Tensor:
        sizes = gradient.flatten(1).abs()
        top = sizes.argmax(dim=1, keepdim=True)
        chosen = torch.zeros_like(sizes).scatter(1, top, 1)
        return _signed(chosen, gradient)

    def lengths(self, perturbation: Tensor) -> Tensor:
        return perturbation.flatten(1).abs().sum(dim=1)

    def dual_lengths(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().amax(dim=1)

    def distance(self, gap: Tensor, gradient: Tensor, point: Tensor) -> Tensor:
        move = self.shortest(-gap, gradient, point)
        short = gap + (gradient * move).flatten(1).sum(dim=1)
        rounding = 4 * torch.finfo(gap.dtype).eps * gap.abs()
        within = torch.where(short < -rounding, torch.inf, self.lengths(move))
        return torch.where(gap < 0, within, super().distance(gap, gradient, point))

    def direction(self, gradient: Tensor, point: Tensor) -> Tensor:
        sizes, rooms = _sizes_and_rooms(gradient, point)
        moves = fill(sizes, rooms, self.eps) / max(self.eps, torch.finfo(sizes.dtype).tiny)
        return _signed(moves.to(sizes.dtype), gradient)

    def growth(self, gradient: Tensor, point: Tensor) -> Tensor:
        return (gradient * self.direction(gradient, point)).flatten(1).sum(dim=1)

    def shortest(self, gain: Tensor, gradient: Tensor, point: Tensor) -> Tensor:
        sizes, rooms = _sizes_and_rooms(gradient, point)
        return _signed(fill_to(sizes, rooms, gain).to(rooms.dtype), gradient)

    def _uniform(self, center: Tensor, generator: torch.Generator) -> Tensor:
        home, dtype = generator.device, center.dtype
        shape = (len(center), center[0].numel())
        sizes = torch.empty(shape[0], shape[1] + 1, device=home, dtype=torch.float64)
        sizes.exponential_(generator=generator)
        signs = torch.randint(2, shape, generator=generator, device=home) * 2 - 1
        moves = sizes[:, :-1] / sizes.sum(dim=1, keepdim=True) * signs
        return moves.to(dtype).view(center.shape)

    def _measured(self, perturbation: Tensor) -> tuple[Tensor, float | Tensor]:
        flat = perturbation.flatten(1)
        lengths = torch.linalg.vector_norm(flat, ord=1, dim=1, dtype=torch.float64)
        # An entry that has not moved is not rounded.
        moved = flat.count_nonzero(dim=1).double()
        return lengths, moved + self.eps * math.sqrt(flat.shape[1])


BALLS: dict[str, type[Ball]] = {ball.norm: ball for ball in (_LinfBall, _L2Ball, _L1Ball)}


def make_ball(norm: object, eps: str | float, *, prefix: str = "") -> Ball:
    """Return the ball of a norm, in any usual spelling, and a radius such as 0.03 or "8/255".

    Parameters
    ----------
    norm : str or float
        "Linf", "L2" or "L1"; other spellings such as "inf" or 2 will do.
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


def _sizes_and_rooms(slope: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Return |slope| and how far the box lets each entry move in its direction, both (B, D)."""
    slope, point = slope.flatten(1), point.flatten(1)
    return slope.abs(), torch.where(slope > 0, 1 - point, point).clamp(min=0)


def _signed(moves: Tensor, slope: Tensor) -> Tensor:
    """Return moves (B, D) with the signs and the shape of `slope`."""
    return moves.view(slope.shape) * slope.sign()


def _moved(center: Tensor, moves: Tensor, slope: Tensor) -> Tensor:
    """Return images moved from the center by `moves` (B, D) with the signs of `slope`."""
    return (center + _signed(moves, slope)).clamp(0, 1)


def _unit(rows: Tensor) -> Tensor:
    """Return rows (B, D) of Euclidean length 1, or 0."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny)
