"""The set an attack may move in: a ball around each image, cut by the box [0, 1].

    Linf:  {x' : max_p |x'_p - x_p| <= eps, 0 <= x' <= 1}
    L2:    {x' : ||x' - x||_2      <= eps, 0 <= x' <= 1}

The norm is taken over the channels and pixels of one image. Everything here is batched over the
first axis and keeps results in the set up to the rounding of their dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixsolve.base.arguments import as_length
from mixsolve.base.errors import MixsolveError


def read_radius(argument: str, value: str | float, norm: str) -> float:
    """Return the radius of a ball of images, a number or a fraction such as "8/255".

    Raises
    ------
    MixsolveError
        A negative radius, or one in "Linf" beyond that of the whole box, 1: bytes are meant.
    MixsolveTypeError
        No number and no text.
    """
    eps = as_length(argument, value)
    if norm == "Linf" and eps > 1:
        raise MixsolveError(
            f"{argument} is in the unit of images in [0, 1], where no Linf radius exceeds 1; "
            f"got {value}; in units of bytes write {value}/255"
        )
    return eps


def image_norms(perturbation: Tensor, norm: str) -> Tensor:
    """Return the norm of each image's perturbation.

    Parameters
    ----------
    perturbation : torch.Tensor of shape (B, C, H, W)
        Differences of images.
    norm : {"Linf", "L2"}
        The norm.

    Returns
    -------
    torch.Tensor of shape (B,)
        The norms, in the dtype of `perturbation`.
    """
    flat = perturbation.flatten(1)
    return flat.abs().amax(dim=1) if norm == "Linf" else torch.linalg.vector_norm(flat, dim=1)


def outside(points: Tensor, center: Tensor, norm: str, eps: float) -> str | None:
    """Return which image left the ball or the box by more than rounding, and how; None if none did.

    Rounding is that of the coarser dtype of the two, in every entry of an image: the sum of an
    original and a perturbation within the ball may be so far outside.

    Parameters
    ----------
    points, center : torch.Tensor of shape (B, C, H, W)
        Images, and the originals.
    norm : {"Linf", "L2"}
        The norm of the ball.
    eps : float
        The radius.
    """
    unit = max(torch.finfo(part.dtype).eps for part in (points, center) if part.is_floating_point())
    shared = torch.promote_types(torch.promote_types(points.dtype, center.dtype), torch.float32)
    points = points.to(center.device, shared)
    if norm == "Linf":
        lengths, slack = image_norms(points - center, norm), 2 * unit
    else:
        shift = (points - center).flatten(1)
        lengths = torch.linalg.vector_norm(shift, dim=1, dtype=torch.float64)
        slack = unit * math.sqrt(shift.shape[1]) * (1 + eps)
    lowest, highest = points.flatten(1).aminmax(dim=1)
    inside = (lengths <= eps + slack) & (lowest >= -unit) & (highest <= 1 + unit)
    if inside.all():  # NaN is not inside
        return None
    i = int((~inside).nonzero()[0])
    length, low, high = float(lengths[i]), float(lowest[i]), float(highest[i])
    if math.isnan(length):
        return f"image {i} of the batch holds NaN"
    if low < -unit or high > 1 + unit:
        return f"image {i} of the batch has entries from {low:.6g} to {high:.6g}"
    return (
        f"image {i} of the batch is {norm} {length:.6g} away from the original, "
        f"{length - eps:.3g} too far"
    )


def project(point: Tensor, center: Tensor, norm: str, eps: float) -> Tensor:
    """Bring images back into the ball of radius `eps` around `center` and into the box [0, 1].

    For "Linf" this is the Euclidean projection on the intersection. For "L2" the perturbation is
    shrunk to the ball and then cut by the box: since the center lies in the box, the cut shortens
    every entry of the perturbation, so that the result lies in both sets.

    Parameters
    ----------
    point : torch.Tensor of shape (B, C, H, W)
        Images to bring back.
    center : torch.Tensor of shape (B, C, H, W)
        The originals, in [0, 1].
    norm : {"Linf", "L2"}
        The norm of the ball.
    eps : float
        The radius, in the unit of the images.

    Returns
    -------
    torch.Tensor of shape (B, C, H, W)
        Images in the ball and the box.
    """
    if norm == "Linf":
        lowest, highest = (center - eps).clamp(min=0), (center + eps).clamp(max=1)
        return torch.minimum(torch.maximum(point, lowest), highest)
    shift = point - center
    length = image_norms(shift, norm).clamp(min=torch.finfo(shift.dtype).tiny)
    shrink = (eps / length).clamp(max=1)
    return (center + shift * shrink[:, None, None, None]).clamp(0, 1)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the direction of unit norm along which a linear function grows fastest.

    Parameters
    ----------
    gradient : torch.Tensor of shape (B, C, H, W)
        Gradients; one that is zero has the direction zero.
    norm : {"Linf", "L2"}
        The norm in which the direction has length 1.

    Returns
    -------
    torch.Tensor of shape (B, C, H, W)
        ``sign(gradient)`` for "Linf", ``gradient / ||gradient||_2`` for "L2".
    """
    if norm == "Linf":
        return gradient.sign()
    tiny = torch.finfo(gradient.dtype).tiny
    # Entries are scaled to at most 1 first: the squares of vanishing gradients would underflow.
    scaled = gradient / image_norms(gradient, "Linf").clamp(min=tiny)[:, None, None, None]
    return scaled / image_norms(scaled, norm).clamp(min=tiny)[:, None, None, None]


def uniform_in_ball(center: Tensor, norm: str, eps: float, generator: torch.Generator) -> Tensor:
    """Draw one point uniformly in the ball around each image, then cut it by the box [0, 1].

    For "L2" a Gaussian direction is given the length ``eps U^(1/d)``, d the number of entries of an
    image and U uniform in [0, 1].

    Parameters
    ----------
    center : torch.Tensor of shape (B, C, H, W)
        The originals, in [0, 1].
    norm : {"Linf", "L2"}
        The norm of the ball.
    eps : float
        The radius, in the unit of the images.
    generator : torch.Generator
        Source of the draws; they are made on its device and moved to that of `center`.

    Returns
    -------
    torch.Tensor of shape (B, C, H, W)
        Images in the ball and the box.
    """
    home, dtype = generator.device, center.dtype
    if norm == "Linf":
        unit = torch.rand(center.shape, generator=generator, device=home, dtype=dtype) * 2 - 1
    else:
        direction = torch.randn(center.shape, generator=generator, device=home, dtype=dtype)
        radius = torch.rand(len(center), generator=generator, device=home, dtype=dtype)
        radius = radius ** (1 / center[0].numel())
        unit = steepest(direction, norm) * radius[:, None, None, None]
    return project(center + eps * unit.to(center.device), center, norm, eps)
