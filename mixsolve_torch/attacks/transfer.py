"""Attacks on each classifier alone, as candidates against the mixture they belong to.

The L attacks start the game: an attacker who knows only one classifier plays one of them, and a
mixture gains where they do not transfer to the other classifiers.

References
----------
Tramèr, Papernot, Goodfellow, Boneh, McDaniel. The Space of Transferable Adversarial Examples. 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.pgd import PGD
from mixsolve_torch.core.mixture import Mixture


@dataclass(frozen=True)
class TransferPGD(PGD):
    """Projected gradient ascent against every classifier in turn, whatever its weight.

    The parameters are those of `PGD`, without `weights`. Each classifier of the mixture gives one
    candidate, or `restarts` of them with `keep_restarts`.

    Raises
    ------
    MixsolveError
        A parameter that is out of its range, or `weights`.
    """

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.weights is not None:
            raise MixsolveError(
                "weights must be left out: TransferPGD attacks each classifier alone; use PGD"
            )

    def names(self, classifiers: int) -> list[str]:
        """Return the names of the candidates of each classifier, in order."""
        return _on_each(super().names(classifiers), classifiers)

    def trajectory_names(self, classifiers: int) -> list[str]:
        """Return the names of the points visited on each classifier, in order."""
        return _on_each(super().trajectory_names(classifiers), classifiers)

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the candidates, classifier by classifier."""
        for attack in self._alone(len(mixture)):
            yield from attack.generate(mixture, x, y, generator)

    def trajectory(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the points visited, classifier by classifier."""
        for attack in self._alone(len(mixture)):
            yield from attack.trajectory(mixture, x, y, generator)

    def _alone(self, classifiers: int) -> Iterator[PGD]:
        for alone in torch.eye(classifiers, dtype=torch.float64):
            # TransferPGD refuses weights of its own, so it is a plain PGD that carries them.
            yield PGD(**{**vars(self), "weights": alone})


def _on_each(names: list[str], classifiers: int) -> list[str]:
    return [f"{name} on classifier {k + 1}" for k in range(classifiers) for name in names]
