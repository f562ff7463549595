"""One attack on one mixture: what it finds on each image, and what it takes; kept when finished."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mixsolve.base.errors import GradientWarning
from mixsolve_torch import Attack, Mixture, build_losses
from mixsolve_torch.data.arrays import Split


class PassCounter:
    """Counts the images that the networks of a mixture are run on, forward and backward."""

    def __init__(self, mixture: Mixture) -> None:
        self.forward = self.backward = 0
        self._hooks = [model.register_forward_pre_hook(self._run) for model in mixture.models]

    def _run(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        self.forward += len(x)
        if x.requires_grad:
            x.register_hook(self._differentiated)

    def _differentiated(self, gradient: Tensor) -> None:
        self.backward += len(gradient)

    def close(self) -> int:
        """Stop counting, and return the passes."""
        for hook in self._hooks:
            hook.remove()
        return self.forward + self.backward


@dataclass(frozen=True)
class Cell:
    """An attack on a mixture.

    Attributes
    ----------
    clean, attacked : ndarray of float64, shape (N,)
        Of each image, the probability that a network drawn from the mixture is right on it, clean
        and at the worst point found.
    passes : float
        Forward and backward runs, an image and network.
    seconds : float
        What it took.
    """

    clean: np.ndarray
    attacked: np.ndarray
    passes: float
    seconds: float


def measured(mixture: Mixture, data: Split, attack: Attack, seed: int) -> Cell:
    """Attack all images of a mixture, from a seed of its own."""
    weights = mixture.weights.numpy()
    began = time.perf_counter()
    counter = PassCounter(mixture)
    with warnings.catch_warnings():
        # That gradients vanish is what some of the mixtures are for.
        warnings.simplefilter("ignore", GradientWarning)
        losses = build_losses(
            mixture, data, attack, generator=torch.Generator().manual_seed(seed), progress=True
        )
    passes = counter.close() / (len(data.labels) * len(mixture))
    risks = losses.values.numpy() @ weights
    return Cell(1 - risks[:, 0], 1 - risks.max(axis=1), passes, time.perf_counter() - began)
