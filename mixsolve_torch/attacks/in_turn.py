"""Attacks one after another on the same images, without those that are lost already.

After each attack an image is lost when every classifier that is played errs on it: its expected
accuracy is 0 and no attack can do more. A fraction above 0 can still fall, so that such an image is
attacked again. Leaving out lost images saves work and does not change the risk that is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.threats import InBall, united
from mixsolve_torch.core.losses import LOSSES
from mixsolve_torch.core.mixture import Mixture


class InTurn(Attack):
    """A sequence of attacks, each with its own candidates, as one attack.

    Parameters
    ----------
    attacks : sequence of Attack
        In their order; their candidates lie in the union of the sets that they declare.
    spare : bool, default True
        Leave out the images that the clean image or an earlier candidate loses for every
        classifier of positive weight: they get that candidate again.
    """

    attacks: tuple[Attack, ...]
    spare: bool

    def __init__(self, attacks: Sequence[Attack], *, spare: bool = True) -> None:
        self._declare(united(attack.threat for attack in attacks), "in turn")
        object.__setattr__(self, "attacks", tuple(attacks))
        object.__setattr__(self, "spare", spare)

    def bind(self, x: Tensor, first: int = 0) -> InTurn:
        """Return the sequence of attacks that know the images of the data."""
        return InTurn([attack.bind(x, first) for attack in self.attacks], spare=self.spare)

    def _outside(self, points: Tensor, x: Tensor) -> str | None:
        """Hold points against a ball; in other sets each attack has held its own already."""
        return self.threat.outside(points, x) if isinstance(self.threat, InBall) else None

    def names(self, classifiers: int) -> list[str]:
        """Return the names of all candidates, attack by attack."""
        return [name for attack in self.attacks for name in attack.names(classifiers)]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the candidates, attack by attack."""
        losing = x.clone()  # for an image that is lost, the candidate that lost it
        alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if self.spare:
            alive = ~_lost(mixture, x, y)
        for attack in self.attacks:
            rows = alive.nonzero().squeeze(1)
            if not len(rows):
                for _ in attack.names(len(mixture)):
                    yield losing.clone()
                continue
            for found in attack.candidates(mixture, x[rows], y[rows], generator):
                candidate = losing.clone()
                candidate[rows] = found
                yield candidate
                if self.spare:
                    now = rows[_lost(mixture, found, y[rows])]
                    losing[now] = candidate[now]
                    alive[now] = False


@torch.no_grad()
def _lost(mixture: Mixture, x: Tensor, y: Tensor) -> Tensor:
    """Return which images (B,) every classifier of positive weight gets wrong."""
    logits = mixture.member_logits(x, mixture.support())
    return (LOSSES["zero-one"].function(logits, y) == 1).all(dim=0)
