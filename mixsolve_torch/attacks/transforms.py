"""Finite sets that are ready-made: rotations, shifts, brightness, contrast, noise, blur, mixed.

Each is a `Finite` of a small function whose points depend on the image alone. Noise is drawn from a
generator that is seeded by the digest of the image, so that an image has the same noise in every
batch and at every call.

References
----------
Engstrom, Tran, Tsipras, Schmidt, Madry. Exploring the Landscape of Spatial Robustness. ICML 2019.
Hendrycks, Dietterich. Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations. ICLR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MissingDependencyError
from mixsolve_torch.attacks.threats import Finite
from mixsolve_torch.data.arrays import digests

# The levels of severity 1 to 5 of the corruptions of CIFAR-10-C (Hendrycks, Dietterich).
_NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
_BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
_BRIGHTER = (0.05, 0.1, 0.15, 0.2, 0.3)
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)


def rotations(degrees: float, count: int = 11) -> Finite:
    """Return the set of an image's rotations about its middle, black where nothing is known.

    Parameters
    ----------
    degrees : float
        The largest angle either way, above 0 and at most 180.
    count : int, default 11
        Angles, evenly spaced; an odd number has the image itself among them.
    """
    degrees = as_real("degrees", degrees, above=0, at_most=180)
    angles = _even(-degrees, degrees, as_count("count", count))
    return Finite(_Rotated(angles), name=f"rotations {degrees:g}")


def shifts(pixels: int) -> Finite:
    """Return the set of an image's shifts by whole pixels, black where nothing is known.

    Parameters
    ----------
    pixels : int
        The largest shift p in each direction: ``(2 p + 1)^2`` points.
    """
    pixels = as_count("pixels", pixels)
    return Finite(_Shifted(pixels), name=f"shifts {pixels}")


def brightness(change: float, count: int = 11) -> Finite:
    """Return the set of an image multiplied by numbers around 1, and cut at 1.

    Parameters
    ----------
    change : float
        The factors are from ``1 - change`` to ``1 + change``; above 0 and at most 1.
    count : int, default 11
        Factors, evenly spaced.
    """
    return _adjusted("brightness", change, count)


def contrast(change: float, count: int = 11) -> Finite:
    """Return the set of an image of less and of more contrast, around its mean grey.

    Parameters
    ----------
    change : float
        The factors are from ``1 - change`` to ``1 + change``; above 0 and at most 1.
    count : int, default 11
        Factors, evenly spaced.
    """
    return _adjusted("contrast", change, count)


def _adjusted(what: str, change: float, count: int) -> Finite:
    change = as_real("change", change, above=0, at_most=1)
    factors = _even(1 - change, 1 + change, as_count("count", count))
    return Finite(_Adjusted(f"adjust_{what}", factors), name=f"{what} {change:g}")


def noise(deviation: float, count: int = 10) -> Finite:
    """Return the set of an image with Gaussian noise, cut by the box: draws of its own.

    Parameters
    ----------
    deviation : float
        Standard deviation of an entry, above 0.
    count : int, default 10
        Draws.
    """
    deviation = as_real("deviation", deviation, above=0)
    return Finite(_Noisy(deviation, as_count("count", count)), name=f"noise {deviation:g}")


def blur(deviation: float, count: int = 5) -> Finite:
    """Return the set of an image blurred by Gaussian kernels.

    Parameters
    ----------
    deviation : float
        The largest standard deviation of the kernel in pixels, above 0.
    count : int, default 5
        Kernels, of evenly spaced deviations above 0.
    """
    deviation, count = as_real("deviation", deviation, above=0), as_count("count", count)
    widths = tuple(deviation * (k + 1) / count for k in range(count))
    return Finite(_Blurred(widths), name=f"blur {deviation:g}")


def corruptions(severity: int = 5) -> Finite:
    """Return the set of an image under common corruptions: noise, blur, brightness, contrast.

    Parameters
    ----------
    severity : int, default 5
        From 1 to 5; the set has each corruption at every level of CIFAR-10-C up to this one.
    """
    severity = as_count("severity", severity)
    as_real("severity", severity, at_most=5)
    return Finite(_Corrupted(severity), name=f"corruptions {severity}")


KINDS: dict[str, Callable[..., Finite]] = {
    "rotations": rotations,
    "shifts": shifts,
    "brightness": brightness,
    "contrast": contrast,
    "noise": noise,
    "blur": blur,
    "corruptions": corruptions,
}


@dataclass(frozen=True)
class _Rotated:
    angles: tuple[float, ...]

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        library = _functional()
        for angle in self.angles:
            turned = library.rotate(
                x, angle, interpolation=library.InterpolationMode.BILINEAR, fill=[0.0]
            )
            yield turned.clamp(0, 1)


@dataclass(frozen=True)
class _Shifted:
    pixels: int

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        p, (height, width) = self.pixels, x.shape[-2:]
        wide = torch.nn.functional.pad(x, (p, p, p, p))
        for down in range(2 * p + 1):
            for right in range(2 * p + 1):
                yield wide[..., down : down + height, right : right + width]


@dataclass(frozen=True)
class _Adjusted:
    function: str
    factors: tuple[float, ...]

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        adjust = getattr(_functional(), self.function)
        for factor in self.factors:
            yield adjust(x, factor)


@dataclass(frozen=True)
class _Noisy:
    deviation: float
    count: int

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        generators = [
            torch.Generator().manual_seed(int.from_bytes(entry[:7], "little"))
            for entry in digests(x.to(torch.float32) + 0.0)  # a zero has no sign then
        ]
        for _ in range(self.count):
            drawn = torch.stack([torch.randn(x.shape[1:], generator=own) for own in generators])
            yield (x + self.deviation * drawn.to(x)).clamp(0, 1)


@dataclass(frozen=True)
class _Blurred:
    widths: tuple[float, ...]

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        library = _functional()
        # The image is reflected at its edges, which needs a kernel of less than twice its size.
        most = [2 * size - 1 for size in (x.shape[-1], x.shape[-2])]
        for width in self.widths:
            size = 2 * math.ceil(3 * width) + 1
            kernel = [min(size, limit) for limit in most]
            yield library.gaussian_blur(x, kernel, [width, width]).clamp(0, 1)


@dataclass(frozen=True)
class _Corrupted:
    severity: int

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        for level in range(self.severity):
            yield from _Noisy(_NOISE[level], 1)(x)
            yield from _Blurred((_BLUR[level],))(x)
            yield (x + _BRIGHTER[level]).clamp(0, 1)
            mean = x.mean(dim=(1, 2, 3), keepdim=True)
            yield (mean + _CONTRAST[level] * (x - mean)).clamp(0, 1)


def _even(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return evenly spaced numbers from one end to the other; the upper end if it is one."""
    if count == 1:
        return (high,)
    return tuple(low + (high - low) * k / (count - 1) for k in range(count))


def _functional() -> Any:
    try:
        from torchvision.transforms import functional
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "rotations, brightness, contrast and blur need torchvision, which is not installed; "
            "install it with: pip install 'mixsolve[torch]'"
        ) from error
    return functional
