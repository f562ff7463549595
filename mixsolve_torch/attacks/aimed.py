"""An attack that is aimed at one mixture while the losses of another one are recorded.

A candidate found for one player counts for all: the losses of every classifier, and of every
ensemble of them, are recorded on it. Who is attacked is then apart from whose losses are recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.core.mixture import Mixture


class Aimed(Attack):
    """An attack on a mixture of its own, whatever mixture it is called on.

    The classifiers of the target are parts of that mixture, which is frozen for the time of the
    attack, and on its device.
    """

    attack: Attack
    target: Mixture

    def __init__(self, attack: Attack, target: Mixture) -> None:
        self._declare(attack.threat, attack.name)
        object.__setattr__(self, "attack", attack)
        object.__setattr__(self, "target", target)

    def bind(self, x: Tensor, first: int = 0) -> Aimed:
        """Return the attack that knows the images of the data, aimed as before."""
        return Aimed(self.attack.bind(x, first), self.target)

    def _outside(self, points: Tensor, x: Tensor) -> str | None:
        """Leave the judgement to the attack, which may know its own points."""
        return self.attack._outside(points, x)

    def names(self, classifiers: int) -> list[str]:
        """Return the names of the candidates that the target gets."""
        return self.attack.names(len(self.target))

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the candidates found for the target."""
        yield from self.attack.generate(self.target, x, y, generator)
