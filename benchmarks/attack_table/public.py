"""Attacks of others: those of public libraries where they are installed, and two from papers.

The libraries attack one network. What they get is the mixture's averaged model, whose output is the
logarithm of the expected class probabilities; EoT (expectation over transformation) gets a network
that is drawn anew at every call, as a defender would draw it. Points count by the expected loss,
whoever made them.

References
----------
Athalye, Engstrom, Ilyas, Kwok. Synthesizing Robust Adversarial Examples. ICML 2018 (EoT).
Wang, Zhang, Liu, Chen, Xu, Fardad, Li. Adversarial Attack Generation Empowered by Min-Max
Optimization. NeurIPS 2021.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixsolve_torch import External, Mixture
from mixsolve_torch.attacks.ball import make_ball

_STEPS = 100
_QUERIES = 5000  # of Square, as in AutoAttack
_STARTS = 5


class Drawn(nn.Module):
    """One network of a mixture at each call, drawn with the mixture's probabilities."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, x: Tensor) -> Tensor:
        """Return its logits."""
        k = int(torch.multinomial(self.mixture.weights, 1))
        return self.mixture.models[k](x)


def min_max(mixture: Mixture, norm: str, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the min-max attack on the networks of a mixture, by alternating projected steps.

        max_{x'} min_{w in the simplex}  sum_k w_k l_k(x') + gamma / 2 |w - 1 / L|^2

    with the margin l_k of network k. So w turns to the networks that are not yet fooled.
    """
    ball = make_ball(norm, eps)
    rate, gamma = 50.0 / _STEPS, 4.0

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        count, points = len(mixture), images.clone()
        weights = torch.full((len(images), count), 1.0 / count)
        for _ in range(_STEPS):
            points.requires_grad_()
            margins = torch.stack([_margin(f(points), labels) for f in mixture.models], dim=1)
            (gradient,) = torch.autograd.grad((weights * margins).sum(), points)
            with torch.no_grad():
                step = ball.steepest(gradient) * (2.5 * eps / _STEPS)
                points = ball.project(points.detach() + step, images)
                slope = margins.detach() + gamma * (weights - 1 / count)
                weights = _onto_simplex(weights - rate * slope)
        return points

    return attack


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1) - own


def _onto_simplex(points: Tensor) -> Tensor:
    """Project rows onto the simplex (Held, Wolfe, Crowder, 1974)."""
    descending = points.sort(dim=1, descending=True).values
    excess = descending.cumsum(dim=1) - 1
    support = torch.arange(1, points.shape[1] + 1)
    size = (descending * support > excess).sum(dim=1, keepdim=True)
    return (points - excess.gather(1, size - 1) / size).clamp(min=0)


def _autoattack(mixture: Mixture, norm: str, eps: float) -> Any:
    from pyautoattack import AutoAttack

    return AutoAttack(mixture, norm=norm, eps=eps, version="standard", seed=0)


def _square(mixture: Mixture, norm: str, eps: float) -> Any:
    import torchattacks

    return torchattacks.Square(mixture, norm=norm, eps=eps, n_queries=_QUERIES)


def _eot(mixture: Mixture, norm: str, eps: float) -> Any:
    import torchattacks

    step = 2.5 * eps / _STEPS
    return torchattacks.EOTPGD(Drawn(mixture), eps=eps, alpha=step, steps=_STEPS, eot_iter=5)


def _foolbox_pgd(mixture: Mixture, norm: str, eps: float) -> Any:
    import foolbox

    kinds = {
        "Linf": foolbox.attacks.LinfPGD,
        "L2": foolbox.attacks.L2PGD,
        "L1": foolbox.attacks.L1PGD,
    }
    return kinds[norm](steps=_STEPS, rel_stepsize=2.5 / _STEPS)


def _foolbox_deepfool(mixture: Mixture, norm: str, eps: float) -> Any:
    import foolbox

    kinds = {"Linf": foolbox.attacks.LinfDeepFoolAttack, "L2": foolbox.attacks.L2DeepFoolAttack}
    return kinds[norm]()


def _art_apgd(mixture: Mixture, norm: str, eps: float) -> Any:
    from art.attacks.evasion import AutoProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    def attack(images: Tensor, labels: Tensor) -> np.ndarray:
        classifier = PyTorchClassifier(
            mixture,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=mixture(images[:1]).shape[1],
            clip_values=(0.0, 1.0),
        )
        found = AutoProjectedGradientDescent(
            classifier,
            norm={"Linf": np.inf, "L2": 2, "L1": 1}[norm],
            eps=eps,
            eps_step=2 * eps,
            max_iter=_STEPS,
            nb_random_init=_STARTS,
            loss_type="difference_logits_ratio",
            batch_size=len(images),
            verbose=False,
        )
        return found.generate(x=images.numpy(), y=labels.numpy())

    return attack


AUTOATTACK = "AutoAttack, averaged model"
SQUARE = f"Square, {_QUERIES:,} queries (torchattacks)"
# Name, the package it needs, norms, and how it is made.
_ALL: dict[str, tuple[str | None, tuple[str, ...], Callable[[Mixture, str, float], Any]]] = {
    AUTOATTACK: ("pyautoattack", ("Linf", "L2", "L1"), _autoattack),
    SQUARE: ("torchattacks", ("Linf", "L2"), _square),
    "EoT-PGD, a network drawn (torchattacks)": ("torchattacks", ("Linf",), _eot),
    "PGD (foolbox)": ("foolbox", ("Linf", "L2", "L1"), _foolbox_pgd),
    "DeepFool (foolbox)": ("foolbox", ("Linf", "L2"), _foolbox_deepfool),
    "Auto-PGD (ART)": ("art", ("Linf", "L2", "L1"), _art_apgd),
    "min-max over networks": (None, ("Linf", "L2", "L1"), min_max),
}


def missing() -> list[str]:
    """Return the packages that are not installed."""
    needed = {package for package, _, _ in _ALL.values() if package is not None}
    return sorted(name for name in needed if importlib.util.find_spec(name) is None)


def attacks(norm: str, eps: float) -> dict[str, External]:
    """Return the attacks that know the norm and whose package is installed."""
    absent = missing()
    return {
        name: External(
            lambda mixture, make=make: make(mixture, norm, eps), norm=norm, eps=eps, name=name
        )
        for name, (package, norms, make) in _ALL.items()
        if norm in norms and package not in absent
    }
