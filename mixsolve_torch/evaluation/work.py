"""How the players of an evaluation are attacked, what it costs, what each candidate is of."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.in_threats import InThreats, grouped
from mixsolve_torch.attacks.in_turn import InTurn
from mixsolve_torch.attacks.standard import Standard
from mixsolve_torch.attacks.threats import Threat
from mixsolve_torch.candidates.build import unique_names
from mixsolve_torch.runs.resumable import ResumableFolder

GAME = 9999  # the number of the game's draws, above those of all players


@dataclass(frozen=True)
class Work:
    """How all players of an evaluation are attacked, and where the finished parts go.

    `passes` holds the runs of a network on an image so far, by the player's place in the report;
    place -1 is for candidates that are tried on all ensembles at once.
    """

    suite: Sequence[Attack]
    threats: Sequence[Threat]
    spare: bool
    seed: int
    parts: ResumableFolder
    batch_size: int
    progress: bool
    passes: Counter[int] = field(default_factory=Counter)

    @property
    def thorough(self) -> bool:
        """Whether classifiers that resist the attacks on them alone count as not to be fooled."""
        found = {attack.threat for attack in self.suite if attack.thorough}
        return self.spare and all(threat in found for threat in self.threats)

    @property
    def attack(self) -> Attack:
        """The attack on a player: in turn, each of several threats on its own."""
        if len(self.threats) == 1:
            return self.game
        return InThreats(self.suite, self.threats, spare=self.spare)

    @property
    def game(self) -> InTurn:
        """The attack that plays the game: an image that is lost to one threat is lost."""
        return InTurn(self.suite, spare=self.spare)

    def places(self, classifiers: int) -> list[int | None]:
        """Return the number of each candidate's threat, None for those of the union alone."""
        if len(self.threats) == 1:
            return [0] * len(self.attack.names(classifiers))
        found = [
            group.place
            for group in grouped(self.suite, self.threats)
            for attack in group.attacks
            for _ in attack.names(classifiers)
        ]
        return [*found, *range(len(self.threats))]

    def draws(self, number: int) -> torch.Generator:
        """Return a generator of its own for each player and for the game."""
        return torch.Generator().manual_seed((GAME + 1) * self.seed + number)


def groups(
    suite: Sequence[Attack], threats: Sequence[Threat], classifiers: int
) -> dict[str, slice]:
    """Return the title of each attack, or part of a suite, and its place among the candidates.

    Of several threats the title begins with the threat.
    """
    parts: list[tuple[str, int]] = []
    if len(threats) == 1:
        for attack in suite:
            parts += _titles(attack, classifiers)
    else:
        for group in grouped(suite, threats):
            before = "union" if group.place is None else threats[group.place].label
            parts += [
                (title if title == before else f"{before}: {title}", count)
                for attack in group.attacks
                for title, count in _titles(attack, classifiers)
            ]
        parts += [(f"{threat.label}: found elsewhere", 1) for threat in threats]
    titles = unique_names(title for title, _ in parts)
    ends = [0, *itertools.accumulate(count for _, count in parts)]
    return dict(zip(titles, itertools.starmap(slice, itertools.pairwise(ends)), strict=True))


def _titles(attack: Attack, classifiers: int) -> list[tuple[str, int]]:
    """Return the title of an attack, or of each part of a suite, and how many candidates it has."""
    if isinstance(attack, Standard):
        return list(attack.parts(classifiers).items())
    title = attack.label(getattr(attack, "kind", type(attack).__name__))
    return [(title.removesuffix(f" {attack.threat.title}"), len(attack.names(classifiers)))]
