"""Attacks that are not ours: functions, and the attacks of other libraries.

    points = function(images, labels),    function = make(mixture)

Whatever made the points, they are held against the declared set and scored by the expected loss.
Foreign code draws from the global generators of PyTorch, NumPy and Python, and some of it seeds
them. It finds them seeded from the generator that the attack was given, so that equal calls have
equal results, and they are put back afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.libraries import as_function, declared_threat, is_external, kind_of
from mixsolve_torch.attacks.threat_list import Threats, declared
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.runs.fingerprint import outline


class External(Attack):
    """An attack by a function or another library, made anew for each mixture.

    Parameters
    ----------
    make : callable
        Called with the mixture under attack, a `torch.nn.Module` whose forward returns the
        logarithm of its expected class probabilities. Returns a function of images (B, C, H, W) in
        [0, 1] and labels (B,) that returns attacked images (B, C, H, W), as a tensor or a NumPy
        array; or an attack object of torchattacks, foolbox, ART or AutoAttack.
    norm : {"Linf", "L2", "L1"}, optional
        The norm of the set that the points are held against.
    eps : float or str, optional
        Its radius, in the unit of the images, such as 8 / 255 or "8/255".
    threats : list, optional
        Sets instead of `norm` and `eps`, see `read_threats`: each point must lie in one of them.
    name : str, optional
        The candidates' title in tables.

    Raises
    ------
    MixsolveError
        A wrong norm or radius.
    MixsolveTypeError
        A `make` that cannot be called.

    Notes
    -----
    A function of images and labels, or an attack object that has its model already, need not be
    wrapped: `build_losses`, `evaluate`, `solve_game` and `grow` take them as they are. The function
    is called with frozen classifiers in eval mode and may be called with any part of a batch. The
    global generators of PyTorch, NumPy and Python are seeded for it from the attack's generator,
    and have their old states afterwards.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture, build_losses
    >>> def make(mixture):
    ...     def fgsm(images, labels):
    ...         images = images.clone().requires_grad_()
    ...         loss = torch.nn.functional.nll_loss(mixture(images), labels)
    ...         (gradient,) = torch.autograd.grad(loss, images)
    ...         return (images + 0.1 * gradient.sign()).clamp(0, 1)
    ...
    ...     return fgsm
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> attack = External(make, norm="Linf", eps=0.1, name="FGSM")
    >>> build_losses(Mixture(models), data, attack).candidate_names
    ('clean', 'FGSM')
    """

    make: Callable[[Mixture], object]
    kind: str

    def __init__(
        self,
        make: Callable[[Mixture], object],
        *,
        norm: str | None = None,
        eps: float | str | None = None,
        threats: Threats | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(make):
            raise MixsolveTypeError(
                "make must be a function of the mixture that returns the attack; got "
                f"{type(make).__name__}"
            )
        self._declare(declared(norm, eps, threats, "the points"), name)
        object.__setattr__(self, "make", make)
        kind = kind_of(make.attack) if isinstance(make, _Ready) else "external"
        object.__setattr__(self, "kind", kind)

    def names(self, classifiers: int) -> list[str]:
        """Return the name of the only candidate."""
        return [self.label(self.kind)]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield what the function returns."""
        with frozen(mixture), _global_generators(generator, mixture.device):
            try:
                found = as_function(self.make(mixture), mixture, self.eps)(x, y)
            except Exception as error:
                error.add_note(f"raised by the attack {self.label(self.kind)}")
                raise
        yield torch.as_tensor(found) if isinstance(found, np.ndarray) else found

    @cached_property
    def _outline(self) -> Any:
        # Taken once: an attack may change its own attributes when it is called.
        return outline(self.make)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the results depend on, as far as it can be seen from outside."""
        return {**self.declaration(), "make": self._outline}


@dataclass(frozen=True)
class _Ready:
    """Makes for every mixture the attack that there is already."""

    attack: object

    def __call__(self, mixture: Mixture) -> object:
        return self.attack


def as_attack(
    attack: object,
    norm: str | None,
    eps: float | str | None,
    expected: str = "attacks must be names or attacks",
    *,
    threats: Threats | None = None,
) -> External:
    """Return a function of images and labels, or an attack of another library, as our attack.

    Parameters
    ----------
    norm, eps : optional
        The declared set; where it is left out, what the attack object itself declares.
    expected : str
        How a refusal begins: which argument, and what it must be.
    threats : list, optional
        The sets whose union is declared, instead of `norm` and `eps`.

    Raises
    ------
    MixsolveError
        Neither the call nor the object says what the set is.
    MixsolveTypeError
        A class, or something else that cannot be called.
    """
    if not is_external(attack):
        raise MixsolveTypeError(
            f"{expected} such as PGD('Linf', 8 / 255), functions of images and labels, or attack "
            f"objects of torchattacks, foolbox, ART or AutoAttack; got {type(attack).__name__}"
        )
    if threats is not None:
        return External(_Ready(attack), threats=threats)
    own_norm, own_eps = declared_threat(attack)
    norm, eps = own_norm if norm is None else norm, own_eps if eps is None else eps
    if norm is None or eps is None:
        raise MixsolveError(
            f"{kind_of(attack)} does not say which set its points stay in: give norm and eps, e.g. "
            f"norm='Linf', eps=8 / 255; got norm={norm!r}, eps={eps!r}"
        )
    return External(_Ready(attack), norm=norm, eps=eps)


@contextmanager
def _global_generators(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed the global generators of PyTorch, NumPy and Python, and put them back at the end."""
    seed = int(torch.randint(2**32, (), generator=generator, device=generator.device))
    before, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for each in devices:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
            random.setstate(python)
