"""What all attacks share: checked inputs, frozen classifiers, and the shape of the result.

An attack is a small object that holds its threat model (norm and radius) and its effort. Called
on a mixture and a batch it returns K attacked copies of the batch, (K, B, C, H, W), each within
the ball and the box. A subclass writes `names` and `generate`; one that goes step by step also
says which points it visits on the way, in `trajectory_names` and `trajectory`. `candidates` checks
each image that these yield against the set that the attack declares: a ball, or what an attack that
is not tied to one calls its `threat`.

Classifiers are attacked in eval mode, gradients are taken with respect to the images alone, and the
mode of each module is restored, also after an error. Random draws come from a
`torch.Generator`; PyTorch's global one is neither read nor seeded.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.ball import Ball, make_ball
from mixsolve_torch.attacks.threats import InBall, Threat
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data import checks
from mixsolve_torch.models.classifiers import frozen


def check_mixture(mixture: object) -> None:
    """Refuse what is not a mixture."""
    if not isinstance(mixture, Mixture):
        raise MixsolveTypeError(
            f"mixture must be a Mixture; got {type(mixture).__name__}; "
            "a single classifier is Mixture([classifier])"
        )


def default_generator(generator: torch.Generator | None) -> torch.Generator:
    """Return `generator`, or a new one seeded with 0: by default equal calls have equal results."""
    if generator is None:
        return torch.Generator().manual_seed(0)
    if not isinstance(generator, torch.Generator):
        raise MixsolveTypeError(
            f"generator must be a torch.Generator; got {type(generator).__name__}; "
            "use torch.Generator().manual_seed(seed)"
        )
    return generator


def prepare(mixture: Mixture, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Check one batch and return it, detached, on the mixture's device; labels become int64."""
    x = checks.images("x", x)
    y = checks.labels("y", y, len(x))
    # A tensor made in inference mode cannot enter a graph; its clone can.
    x = x.detach().clone() if x.is_inference() else x.detach()
    y = y.clone() if y.is_inference() else y
    return x.to(mixture.device), y.to(mixture.device)


# Equal by value only where a subclass is a dataclass: functions and tensors have no such equality.
@dataclass(frozen=True, eq=False)
class Attack(abc.ABC):
    """Base class: an attack within a ball of radius `eps`, cut by the box [0, 1].

    Parameters
    ----------
    norm : {"Linf", "L2", "L1"}
        The norm of the ball, taken over one image; other spellings such as "inf" or "l2" will do.
    eps : float or str
        The radius, at least 0, in the unit of the images (0 to 1), as a number or a fraction such
        as "8/255"; in "Linf" at most 1, in "L1" at most the number of entries of an image.
    name : str, optional
        The candidates' title in tables; made from the parameters by default.

    Raises
    ------
    MixsolveError
        A parameter that is out of its range.
    """

    norm: str
    eps: float
    _: KW_ONLY
    name: str | None = None

    # Whether a classifier that is right at all points that the attack on it alone found counts as
    # one that cannot be fooled: attacks on mixtures then spend nothing on it.
    thorough: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        ball = make_ball(self.norm, self.eps)
        object.__setattr__(self, "norm", ball.norm)
        object.__setattr__(self, "eps", ball.eps)

    @property
    def ball(self) -> Ball:
        """The ball of radius `eps` in `norm`."""
        return make_ball(self.norm, self.eps)

    @property
    def threat(self) -> Threat:
        """The set that the attack declares."""
        own: Threat | None = vars(self).get("_threat")
        return InBall(self.ball) if own is None else own

    def _declare(self, threat: Threat, name: str | None = None) -> None:
        """Set what `__init__` sets, for a set of any kind; one that is no ball has no radius."""
        norm, eps = (
            (threat.ball.norm, threat.ball.eps)
            if isinstance(threat, InBall)
            else (threat.title, math.nan)
        )
        for attribute, value in (("norm", norm), ("eps", eps), ("name", name)):
            object.__setattr__(self, attribute, value)
        if not isinstance(threat, InBall):
            object.__setattr__(self, "_threat", threat)

    def declaration(self) -> dict[str, Any]:
        """Return name and declared set, as a fingerprint takes them."""
        own = vars(self).get("_threat")
        norm_and_eps = {"norm": self.norm, "eps": self.eps, "name": self.name}
        return norm_and_eps if own is None else {"threat": own, "name": self.name}

    def __call__(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Attack a batch.

        Parameters
        ----------
        mixture : Mixture
            The mixture under attack, on the device the attack is to run on.
        x : torch.Tensor of shape (B, C, H, W)
            Images in [0, 1], of the dtype the classifiers take.
        y : torch.Tensor of shape (B,), integer
            True classes.
        generator : torch.Generator, optional
            Source of all random draws; by default a new one seeded with 0.

        Returns
        -------
        torch.Tensor of shape (K, B, C, H, W)
            K candidates for each image, in the order of `names`, on the mixture's device.

        Raises
        ------
        MixsolveError
            Images outside [0, 1], wrong shapes or labels, logits that are not finite, or candidates
            outside the ball.
        """
        check_mixture(mixture)
        with frozen(mixture):
            x, y = prepare(mixture, x, y)
            found = x.new_empty(len(self.names(len(mixture))), *x.shape)
            draws = default_generator(generator)
            for j, points in enumerate(self.candidates(mixture, x, y, draws)):
                found[j] = points
        return found

    def candidates(
        self,
        mixture: Mixture,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
        *,
        trajectory: bool = False,
    ) -> Iterator[Tensor]:
        """Yield the points of `generate` or `trajectory`, checked against the declared set.

        The attack gets copies of images and labels and may write into them; it may reuse the memory
        of a yielded tensor for the next one.

        Raises
        ------
        MixsolveError
            More or fewer tensors than there are names, another shape than that of `x`, or an image
            that left the ball or the box [0, 1] by more than rounding.
        MixsolveTypeError
            Anything but a tensor.
        """
        names = (self.trajectory_names if trajectory else self.names)(len(mixture))
        points_of = self.trajectory if trajectory else self.generate
        title = self.label(type(self).__name__)
        threat = self.threat
        threat.check_entries(x[0].numel())
        count = 0
        for points in points_of(mixture, x.clone(), y.clone(), generator):
            if not isinstance(points, Tensor):
                raise MixsolveTypeError(
                    f"{title} must yield tensors of images; got {type(points).__name__}"
                )
            if count == len(names) or points.shape != x.shape:
                raise MixsolveError(
                    f"{title} must yield {len(names)} tensors of shape {tuple(x.shape)}, "
                    f"one for each of its names; tensor {count} has shape {tuple(points.shape)}"
                )
            points = points.detach()
            reason = self._outside(points, x)
            if reason is not None:
                raise MixsolveError(
                    f"{title} must stay in {threat.declared}; candidate {names[count]!r} of "
                    f"{reason}; correct the attack, or declare the norm and the eps that it has"
                )
            yield points.to(x)
            count += 1
        if count < len(names):
            raise MixsolveError(
                f"{title} must yield {len(names)} tensors, one for each of its names; got {count}"
            )

    def _outside(self, points: Tensor, x: Tensor) -> str | None:
        """Return which image left the declared set, and how; None if all lie in it."""
        return self.threat.outside(points, x)

    def bind(self, x: Tensor, first: int = 0) -> Attack:
        """Return the attack for the images (B, C, H, W) of the data, numbered from `first` on.

        An attack that has something of its own for each image learns here which image is which.
        Afterwards it is called with some of these images, in any order. Others return themselves.
        """
        return self

    def label(self, kind: str) -> str:
        """Return the attack's name, or one made of its kind and its threat model."""
        return self.name if self.name is not None else f"{kind} {self.threat.title}"

    @abc.abstractmethod
    def names(self, classifiers: int) -> list[str]:
        """Return the names of the K candidates that a mixture of so many classifiers gets."""

    @abc.abstractmethod
    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the candidates, one tensor (B, C, H, W) each, without gradients.

        The mixture is frozen and the batch is checked and on its device.
        """

    def trajectory_names(self, classifiers: int) -> list[str]:
        """Return the names of what `trajectory` yields."""
        return self.names(classifiers)

    def trajectory(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield every point the attack visits, one tensor (B, C, H, W) each.

        An attack that goes step by step yields its start and the point of each step, of every
        restart; what `generate` yields for the same draws is, image by image, one of them. Others
        yield their candidates. The mixture is frozen and the batch is checked and on its device.
        """
        yield from self.generate(mixture, x, y, generator)
