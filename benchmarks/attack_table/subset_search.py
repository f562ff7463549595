"""The plain subset search: PGD on every set of classifiers, the yardstick of attacks on mixtures.

For each set S of classifiers, PGD ascends the sum of their margins,

    sum_{k in S} ( max_{c != y} f_k(x')_c - f_k(x')_y ),

from several random starts. The cost grows with 2^L: it serves small mixtures only, and uses nothing
that the attacks under test use but the step of PGD.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from mixsolve_torch import PGD, Attack, Mixture, expected_loss


@dataclass(frozen=True)
class SubsetSearch(Attack):
    """Every set of classifiers, each from so many starts; the best point by the expected loss."""

    _: KW_ONLY
    steps: int = 50
    restarts: int = 10

    def names(self, classifiers: int) -> list[str]:
        """Return the one name."""
        return [self.label("every subset")]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the strongest point."""
        best, risk = x, expected_loss(mixture, x, y).detach()
        count = len(mixture)
        for size in range(1, count + 1):
            for chosen in itertools.combinations(range(count), size):
                weights = [1 / size if k in chosen else 0.0 for k in range(count)]
                attack = PGD(
                    self.norm,
                    self.eps,
                    steps=self.steps,
                    restarts=self.restarts,
                    keep_restarts=True,
                    weights=weights,
                    loss=_margin,
                )
                for points in attack.generate(mixture, x, y, generator):
                    own = expected_loss(mixture, points, y).detach()
                    best = torch.where((own > risk)[:, None, None, None], points, best)
                    risk = torch.maximum(own, risk)
        yield best


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1) - own
