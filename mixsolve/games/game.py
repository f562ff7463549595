"""A finite game of given origin, and the random generator that its draws come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.arguments import as_count

Seed = int | np.random.Generator


@dataclass(frozen=True, eq=False)
class Game:
    """A finite adversarial examples game.

    Attributes
    ----------
    name : str
        Name of the generator and its settings.
    losses : ndarray of shape (n_samples, n_candidates, n_classifiers)
        Loss of every classifier on every attack candidate of every sample.
    sample_weight : ndarray of shape (n_samples,) or None
        Probability of each sample, None when uniform.
    value : float or None
        Value of the game, where it is known in closed form.
    weights : ndarray of shape (n_classifiers,) or None
        An optimal mixture, where it is known in closed form.
    details : mapping of str to ndarray
        What the losses were computed from (points, labels, candidates, classifiers), where they
        were computed.
    """

    name: str
    losses: NDArray
    sample_weight: NDArray[np.float64] | None = None
    value: float | None = None
    weights: NDArray[np.float64] | None = None
    details: Mapping[str, NDArray] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        return f"Game({self.name!r}, losses={self.losses.shape} {self.losses.dtype})"


def generator(seed: Seed) -> np.random.Generator:
    """Make the generator of a seed; a generator is returned itself, and advances."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(as_count("seed", seed, minimum=0))
