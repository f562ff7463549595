"""The attacks of several threats, each threat on its own, for risks under each and under the union.

The attacks of a threat run in turn on the images that are not lost to it yet: what another threat
lost may resist this one. A point that was found under one threat and lies in another's set counts
there as well. Each threat has a last candidate for that, the strongest point found elsewhere that
lies in its set; images that are lost to such points are not attacked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.in_turn import InTurn
from mixsolve_torch.attacks.strongest import Judge
from mixsolve_torch.attacks.threats import Threat, united
from mixsolve_torch.core.mixture import Mixture


@dataclass(frozen=True)
class Group:
    """The attacks of one threat, or those held against the union of all.

    Attributes
    ----------
    place : int or None
        The number of the threat; None for the union.
    attacks : tuple of Attack
        In their order.
    """

    place: int | None
    attacks: tuple[Attack, ...]


def grouped(attacks: Sequence[Attack], threats: Sequence[Threat]) -> list[Group]:
    """Return attacks by the threat that they declare, in the order of the threats."""
    places: dict[Threat, int | None] = {threat: k for k, threat in enumerate(threats)}
    chosen: dict[int | None, list[Attack]] = {k: [] for k in (*range(len(threats)), None)}
    for attack in attacks:
        chosen[places.get(attack.threat)].append(attack)
    return [Group(place, tuple(own)) for place, own in chosen.items() if own]


class InThreats(Attack):
    """The attacks of several threats as one attack.

    Parameters
    ----------
    attacks : sequence of Attack
        Of any of the threats, or held against their union.
    threats : sequence of Threat
        Two or more.
    spare : bool, default True
        As in `InTurn`, within each threat.
    """

    attacks: tuple[Attack, ...]
    threats: tuple[Threat, ...]
    spare: bool

    def __init__(
        self, attacks: Sequence[Attack], threats: Sequence[Threat], *, spare: bool = True
    ) -> None:
        self._declare(united(threats), "each threat in turn")
        object.__setattr__(self, "attacks", tuple(attacks))
        object.__setattr__(self, "threats", tuple(threats))
        object.__setattr__(self, "spare", spare)

    def bind(self, x: Tensor, first: int = 0) -> InThreats:
        """Return the attacks that know the images of the data."""
        attacks = [attack.bind(x, first) for attack in self.attacks]
        return InThreats(attacks, self.threats, spare=self.spare)

    def names(self, classifiers: int) -> list[str]:
        """Return the names of all candidates, threat by threat, then those found elsewhere."""
        own = [
            name
            for group in grouped(self.attacks, self.threats)
            for attack in group.attacks
            for name in attack.names(classifiers)
        ]
        return [*own, *(f"{threat.title}, found elsewhere" for threat in self.threats)]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the candidates of each threat, then the best one of the others in each."""
        judge = Judge(mixture, y)
        nothing = judge(x, y).errors
        shared = [x.clone() for _ in self.threats]
        reached = [nothing.clone() for _ in self.threats]
        for group in grouped(self.attacks, self.threats):
            suite = InTurn(group.attacks, spare=self.spare)
            place = group.place
            rows = torch.arange(len(x), device=x.device)
            points = x if place is None else shared[place].clone()
            if self.spare and place is not None:
                rows = (reached[place] < judge.total).nonzero().squeeze(1)
            if not len(rows):
                for _ in suite.names(len(mixture)):
                    yield points.clone()
                continue
            # What is lost by now keeps the point that lost it.
            for found in suite.candidates(mixture, x[rows], y[rows], generator):
                yield points.index_copy(0, rows, found)
                errors = judge(found, y[rows]).errors
                for t, threat in enumerate(self.threats):
                    if t == place:
                        continue
                    better = (errors > reached[t][rows]).nonzero().squeeze(1)
                    if len(better):
                        better = better[threat.contains(found[better], x[rows[better]])]
                        shared[t][rows[better]] = found[better]
                        reached[t][rows[better]] = errors[better]
        judge.check()
        yield from shared

    def _outside(self, points: Tensor, x: Tensor) -> str | None:
        """Refuse nothing: each attack has held its points against its own set already."""
        return None
