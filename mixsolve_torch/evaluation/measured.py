"""Accuracies of every player on the same losses, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from mixsolve.solver.solution import Solution
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap


@dataclass(frozen=True)
class Player:
    """A random classifier that was attacked.

    Attributes
    ----------
    name : str
        Its name.
    kind : {"single", "uniform", "given", "optimal"}
        A classifier alone, or which mixture.
    weights : ndarray of shape (L,)
        The probabilities of the classifiers.
    columns : slice
        Where its candidates are among all.
    """

    name: str
    kind: str
    weights: np.ndarray
    columns: slice = field(default_factory=lambda: slice(0, 0))


@dataclass(frozen=True)
class PlayerRow:
    """Accuracies of one player, from 0 to 1.

    Attributes
    ----------
    name, kind, weights
        Those of the player.
    clean : Estimate
        On the images as they are.
    attacks : tuple of Estimate
        Under each attack on this player.
    worst : Estimate
        Against all candidates found for any player.
    """

    name: str
    kind: str
    weights: tuple[float, ...]
    clean: Estimate
    attacks: tuple[Estimate, ...]
    worst: Estimate


@dataclass(frozen=True)
class Settings:
    """How the accuracies were measured.

    Attributes
    ----------
    norm, eps
        The attacker's ball.
    in_turn : bool
        Whether the accuracy under an attack counts the attacks before it, too.
    tol : float
        How much the last attacks on the optimal mixture may have raised its risk.
    held_out : bool
        Whether weights were fitted on other images than those reported on.
    resamples, level, seed
        Of the bootstrap; the seed is that of the attacks, too.
    """

    norm: str
    eps: float
    in_turn: bool
    tol: float
    held_out: bool
    resamples: int
    level: float
    seed: int


@dataclass(frozen=True)
class Measured:
    """The numbers of an `Evaluation`, whose attributes are documented there."""

    players: tuple[PlayerRow, ...]
    attack_names: tuple[str, ...]
    best_single: PlayerRow
    optimal: PlayerRow
    gain: Estimate
    solution: Solution
    raised: float
    settled: bool
    settings: Settings
    losses: np.ndarray
    parts: Path | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        losses: np.ndarray,
        *,
        players: Sequence[Player],
        groups: Mapping[str, slice],
        best: Player,
        optimal: Player,
        solution: Solution,
        raised: float,
        settled: bool,
        settings: Settings,
        parts: Path | None = None,
    ) -> Self:
        """Measure all players on the losses; `best` and `optimal` are two of them.

        `groups` are the attacks, and which of a player's candidates are theirs.
        """
        accuracies: list[np.ndarray] = []
        for player in players:
            accuracies += _accuracies(losses, player, groups.values(), settings.in_turn)
        width = 2 + len(groups)
        worst = {id(p): accuracies[width * i + width - 1] for i, p in enumerate(players)}
        accuracies.append(worst[id(optimal)] - worst[id(best)])
        estimates = bootstrap(
            np.stack(accuracies, axis=1),
            resamples=settings.resamples,
            level=settings.level,
            seed=settings.seed,
        )
        rows = {}
        for i, player in enumerate(players):
            clean, *attacks, last = estimates[width * i : width * (i + 1)]
            weights = tuple(player.weights.tolist())
            rows[id(player)] = PlayerRow(
                player.name, player.kind, weights, clean, tuple(attacks), last
            )
        return cls(
            players=tuple(rows.values()),
            attack_names=tuple(groups),
            best_single=rows[id(best)],
            optimal=rows[id(optimal)],
            gain=estimates[-1],
            solution=solution,
            raised=raised,
            settled=settled,
            settings=settings,
            losses=losses,
            parts=parts,
        )

    @property
    def bound(self) -> float:
        """No mixture of these classifiers has a higher accuracy against the candidates found.

        This is proven, for the images fitted on.
        """
        return 1 - self.solution.risk_lower_bound

    @property
    def threat(self) -> str:
        """A description of the attacker."""
        return f"{self.settings.norm} attacks of radius {radius(self.settings.eps)}"


def _accuracies(losses: np.ndarray, player: Player, groups: Any, in_turn: bool) -> list[np.ndarray]:
    """Return the accuracies (N,) of a player: clean, under each attack, in the worst case."""
    risks = losses @ player.weights
    clean, own = risks[:, 0], risks[:, player.columns]
    found = [clean]
    for group in groups:
        before = found[-1] if in_turn else clean
        found.append(np.maximum(before, own[:, group].max(axis=1)))
    return [1 - risk for risk in (*found, risks.max(axis=1))]


def radius(eps: float) -> str:
    """Return a radius in its usual form: a short decimal where that is exact, else in 255ths.

    Examples
    --------
    >>> radius(0.5), radius(8 / 255)
    ('0.5', '8/255')
    """
    decimal = f"{eps:g}"
    steps = round(255 * eps)
    exact = float(decimal) == eps or not 0 < steps < 255 or steps / 255 != eps
    return decimal if exact else f"{steps}/255"
