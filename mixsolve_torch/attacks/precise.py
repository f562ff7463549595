"""Classifiers in double precision: gradients that underflow in the classifier's own.

Where logits saturate, their gradient is small beyond the range of float32 and becomes exactly zero.
With z = softmax(s u) and s large, for one, the rivals of the top class have the output
exp(-s (u_1 - u_c)), which float32 rounds to 0 from s (u_1 - u_c) = 104 on and float64 from 745 on.
A network that returns probabilities p is followed by log p besides,

    grad (log p_c - log p_y) = s (grad u_c - grad u_y),

which does not shrink at all, as long as p_c is above 0; and log p orders classes as p does.

It is a surrogate: what is found on it is judged by the classifiers themselves.

References
----------
Carlini, Wagner. Defensive Distillation is Not Robust to Adversarial Examples. 2016, on outputs that
saturate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mixsolve_torch.attacks.hinge import hinge
from mixsolve_torch.attacks.masking import GradientSigns
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.core.mixture import Mixture

logger = logging.getLogger(__name__)

# How far sums of probabilities may be from 1 for rounding.
_ROUNDING = 1e-3


class Precise(nn.Module):
    """A classifier run with parameters, buffers and images in float64; its own stay as they are.

    Parameters
    ----------
    model : torch.nn.Module
        The classifier.
    probabilities : bool
        Whether it returns probabilities: logits are then their logarithms.
    """

    def __init__(self, model: nn.Module, probabilities: bool) -> None:
        super().__init__()
        self.model = model
        self._probabilities = probabilities
        own: Iterable[tuple[str, Tensor]] = chain(model.named_parameters(), model.named_buffers())
        self._values = {
            name: value.double() if value.is_floating_point() else value for name, value in own
        }

    def forward(self, x: Tensor) -> Any:
        """Return the logits (B, classes)."""
        logits = functional_call(self.model, self._values, (x.double(),))
        logits = getattr(logits, "logits", logits)
        if not self._probabilities:
            return logits
        return logits.clamp(min=torch.finfo(logits.dtype).tiny).log()


def with_gradients(
    mixture: Mixture, masked: Iterable[int], x: Tensor, y: Tensor, images_per_pass: int
) -> tuple[Mixture, dict[int, GradientSigns]]:
    """Return the mixture with some of its classifiers in double precision.

    Parameters
    ----------
    mixture : Mixture
        Frozen.
    masked : iterable of int
        The classifiers to look at, by their numbers: those that have a gradient in double precision
        on some of the images that they classify correctly are replaced.
    x, y : torch.Tensor of shape (B, C, H, W), (B,)
        Images and labels.
    images_per_pass : int
        Images in one forward pass.

    Returns
    -------
    mixture : Mixture
        For images in float64; the given one if no classifier was replaced.
    signs : dict of int to GradientSigns
        What was seen of the gradients of those that were.
    """
    models, signs = list(mixture.models), {}
    for k in masked:
        try:
            own = Precise(models[k], _are_probabilities(mixture, k, x[:images_per_pass]))
            seen = _signs(own, x, y, images_per_pass)
        except Exception as error:  # foreign code, which may know its own precision only
            logger.info("models[%d] does not run in double precision: %s", k, error)
            continue
        if not (seen.hidden or seen.missing):
            models[k], signs[k] = own, seen
    if not signs:
        return mixture, signs
    return Mixture(models, mixture.weights), signs


def _signs(model: nn.Module, x: Tensor, y: Tensor, images_per_pass: int) -> GradientSigns:
    """Return the signs of masking of a classifier on images, which are tried in float64."""
    members = Members(Mixture([model]), y)
    for rows in torch.arange(len(x), device=x.device).split(images_per_pass):
        members.gradient(0, hinge, x[rows].double(), y[rows])
    return members.signs()[0]


def _are_probabilities(mixture: Mixture, k: int, x: Tensor) -> bool:
    """Return whether outputs of a classifier are distributions on all of some images."""
    with torch.no_grad():
        outputs = mixture.member_logits(x, [k])[0]
    away = (outputs.sum(dim=1) - 1).abs().amax()
    return bool((outputs >= 0).all() & (away < _ROUNDING))
