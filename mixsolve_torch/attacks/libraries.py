"""Attacks of other libraries: how one is recognised, what set it declares, and how it is called.

A library is recognised by the module that the attack's class, or one of its bases, comes from, so
that none is imported here. Each has a calling convention:

    torchattacks         attack(images, labels)                                 model of its own
    AutoAttack           attack.run_standard_evaluation(images, labels)         model of its own
    ART                  attack.generate(x=images, y=labels), NumPy arrays      model of its own
    foolbox              attack(model, images, labels, epsilons=eps)            the mixture

An attack with a model of its own attacks that model, whatever mixture is evaluated: its points are
candidates against the mixture all the same. What is no attack of these is called as
``attack(images, labels)``.

References
----------
Kim. Torchattacks: A PyTorch Repository for Adversarial Attacks. 2020.
Croce, Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks. ICML 2020 (AutoAttack).
Nicolae et al. Adversarial Robustness Toolbox v1.0.0. 2018 (ART).
Rauber, Brendel, Bethge. Foolbox: A Python Toolbox to Benchmark the Robustness of Machine Learning
Models. 2017.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from mixsolve.base.errors import MixsolveError, MixsolveTypeError

Function = Callable[[Tensor, Tensor], Any]


class Library(NamedTuple):
    """One library's conventions.

    Attributes
    ----------
    title : str
        Its name in tables and messages.
    threat : callable
        Returns the norm and the radius that an attack declares, each None where it declares none.
    function : callable
        Makes of an attack, the network under attack and the radius a function of images and labels.
    """

    title: str
    threat: Callable[[Any], tuple[Any, Any]]
    function: Callable[[Any, nn.Module, float], Function]


def library_of(attack: object) -> Library | None:
    """Return the library that an attack comes from, or None if it is none of those known here."""
    for base in type(attack).__mro__:
        for prefix, library in LIBRARIES.items():
            if f"{base.__module__}.".startswith(f"{prefix}."):
                return library
    return None


def kind_of(attack: object) -> str:
    """Return what an attack is called in tables: its library and class, or its function's name."""
    library = library_of(attack)
    if library is not None:
        own = type(attack).__name__
        return own if own == library.title else f"{library.title} {own}"
    while isinstance(attack, functools.partial):
        attack = attack.func
    return getattr(attack, "__name__", type(attack).__name__).strip("<>")


def declared_threat(attack: object) -> tuple[Any, Any]:
    """Return the norm and the radius that an attack declares, each None where it declares none."""
    library = library_of(attack)
    return (None, None) if library is None else library.threat(attack)


def is_external(attack: object) -> bool:
    """Whether something may be an attack of another library or a function of images and labels."""
    return not isinstance(attack, type) and (library_of(attack) is not None or callable(attack))


def as_function(attack: object, network: nn.Module, eps: float) -> Function:
    """Return an attack of another library, or a function, as a function of images and labels.

    Parameters
    ----------
    attack : object
        An attack of a library known here, or a function of images and labels.
    network : torch.nn.Module
        What an attack without a model of its own is to attack.
    eps : float
        The radius for an attack that is told it when it is called.
    """
    library = library_of(attack)
    if library is not None and not isinstance(attack, type):
        return library.function(attack, network, eps)
    if isinstance(attack, type) or not callable(attack):
        what = f"the class {attack.__name__}" if isinstance(attack, type) else repr(attack)
        raise MixsolveTypeError(
            "an external attack must be a function of images and labels that returns images, or an "
            f"attack object of torchattacks, foolbox, ART or AutoAttack; got {what}"
        )
    return attack


def _torchattacks_threat(attack: Any) -> tuple[Any, Any]:
    eps = _number(getattr(attack, "eps", None))
    norm = getattr(attack, "norm", None)
    if norm is None and eps is not None:
        norm = "L2" if type(attack).__name__.endswith("L2") else "Linf"
    return norm, eps


def _torchattacks(attack: Any, network: nn.Module, eps: float) -> Function:
    return attack


def _foolbox_threat(attack: Any) -> tuple[Any, Any]:
    return getattr(getattr(attack, "distance", None), "p", None), None


def _foolbox(attack: Any, network: nn.Module, eps: float) -> Function:
    model = sys.modules["foolbox"].PyTorchModel(network, bounds=(0, 1), device=_device(network))

    def function(images: Tensor, labels: Tensor) -> Any:
        _, clipped, _ = attack(model, images, labels, epsilons=eps)
        return clipped

    return function


def _art_threat(attack: Any) -> tuple[Any, Any]:
    return getattr(attack, "norm", None), _number(getattr(attack, "eps", None))


def _art(attack: Any, network: nn.Module, eps: float) -> Function:
    if getattr(attack, "targeted", False):
        raise MixsolveError(
            f"{kind_of(attack)} is targeted, so that it would take the true classes for those to "
            "reach; make it with targeted=False"
        )

    def function(images: Tensor, labels: Tensor) -> Any:
        return attack.generate(x=images.cpu().numpy(), y=labels.cpu().numpy())

    return function


def _autoattack_threat(attack: Any) -> tuple[Any, Any]:
    return getattr(attack, "norm", None), _number(getattr(attack, "epsilon", None))


def _autoattack(attack: Any, network: nn.Module, eps: float) -> Function:
    def function(images: Tensor, labels: Tensor) -> Any:
        found = attack.run_standard_evaluation(images, labels)
        return found[0] if isinstance(found, tuple | list) else found  # some return labels as well

    return function


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _device(network: nn.Module) -> Any:
    """Return the device of a network, from the first tensor that it holds."""
    return next((part.device for part in (*network.parameters(), *network.buffers())), None)


_AUTOATTACK = Library("AutoAttack", _autoattack_threat, _autoattack)

LIBRARIES: dict[str, Library] = {  # by the module that its attacks come from
    "torchattacks": Library("torchattacks", _torchattacks_threat, _torchattacks),
    "foolbox.attacks": Library("foolbox", _foolbox_threat, _foolbox),
    "art.attacks": Library("ART", _art_threat, _art),
    "autoattack": _AUTOATTACK,
    "pyautoattack": _AUTOATTACK,
}
