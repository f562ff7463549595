"""What all attacks share: checked inputs, frozen classifiers, and the shape of the answer.

An attack is a small object that holds its threat model (norm and radius) and its effort. Called
on a mixture and a batch it returns K attacked copies of the batch, (K, B, C, H, W), each within
the ball and the box. A subclass writes `names` and `generate`; one that goes step by step also
says which points it visits on the way, in `trajectory_names` and `trajectory`.

Classifiers are attacked in eval mode, gradients are taken with respect to the images alone, and
whatever was switched is switched back, also after an error. Random draws come from a
`torch.Generator`; PyTorch's global one is neither read nor seeded.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from mixsolve.arguments import as_real
from mixsolve.errors import MixsolveTypeError
from mixsolve_torch import checks
from mixsolve_torch.attacks.ball import check_norm
from mixsolve_torch.mixture import Mixture


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode and no parameter under differentiation, and restore both.

    Gradients are enabled inside, whatever the caller's mode (an attack inside ``torch.no_grad()``
    or ``torch.inference_mode()`` works). Each module's own mode comes back at the end, also after
    an exception: a network that trains with its batch norms in eval mode keeps them so.

    Parameters
    ----------
    module : torch.nn.Module
        The mixture or classifier to freeze.
    """
    modes = [(part, part.training) for part in module.modules()]
    trained = [(p, p.requires_grad) for p in module.parameters()]
    try:
        module.eval()
        for parameter, _ in trained:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)


def check_mixture(mixture: object) -> None:
    """Refuse what is not a mixture."""
    if not isinstance(mixture, Mixture):
        raise MixsolveTypeError(
            f"mixture must be a Mixture; got {type(mixture).__name__}; "
            "a single classifier is Mixture([classifier])"
        )


def default_generator(generator: torch.Generator | None) -> torch.Generator:
    """Return `generator`, or a new one seeded with 0: by default equal calls have equal answers."""
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


@dataclass(frozen=True)
class Attack(abc.ABC):
    """Base class: an attack within a ball of radius `eps`, cut by the box [0, 1].

    Parameters
    ----------
    norm : {"Linf", "L2"}
        The norm of the ball, taken over one image.
    eps : float
        The radius, at least 0, in the unit of the images (0 to 1).
    name : str, optional
        How the candidates are called in tables; made from the parameters by default.

    Raises
    ------
    MixsolveError
        A parameter that is out of its range.
    """

    norm: str
    eps: float
    _: KW_ONLY
    name: str | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_norm(self.norm)
        as_real("eps", self.eps, at_least=0)

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
            Images outside [0, 1], wrong shapes or labels, or logits that are not finite.
        """
        check_mixture(mixture)
        with frozen(mixture):
            x, y = prepare(mixture, x, y)
            return torch.stack(list(self.generate(mixture, x, y, default_generator(generator))))

    def label(self, kind: str) -> str:
        """Return the attack's name, or one made of its kind and its threat model."""
        return self.name if self.name is not None else f"{kind} {self.norm} {self.eps:g}"

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
