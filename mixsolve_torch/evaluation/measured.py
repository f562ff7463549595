"""Accuracies of every player on the same losses, with intervals, and which player is best.

The contenders are the best single classifier, the best deterministic ensemble and the mixtures.
With a_i(p) the accuracy of p on image i against the worst of all candidates, they are ranked by the
mean of a(p). The lead of the first over another is the mean of a_i(first) - a_i(other), and has the
interval of these paired differences.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from mixsolve.solver.solution import Solution
from mixsolve_torch.attacks.threats import radius
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap
from mixsolve_torch.evaluation.by_group import ByGroup
from mixsolve_torch.evaluation.players import Player, contenders


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
    threats : tuple of Estimate
        Of several threats, against the candidates in each set alone, in the order of
        ``Settings.threats``; of one threat, `worst` itself.
    fitted : Estimate or None
        `worst` on the images that weights were fitted on, if they are others than those reported
        on; None for ensembles, which are not measured there.
    verified : Estimate or None
        What no attack in the ball can break, known or not, see `verify`; None without ``verify``.
    passes : int
        Forward and backward runs of one classifier on one image that the attacks on this player
        took, on the images fitted on and on those reported on. Those of the optimal mixture count
        the game that found it.
    """

    name: str
    kind: str
    weights: tuple[float, ...]
    clean: Estimate
    attacks: tuple[Estimate, ...]
    worst: Estimate
    fitted: Estimate | None = None
    threats: tuple[Estimate, ...] = ()
    passes: int = 0
    verified: Estimate | None = None


@dataclass(frozen=True)
class Place:
    """A contender's place in the ranking.

    Attributes
    ----------
    row : PlayerRow
        The player.
    behind : Estimate
        The first one's worst-case accuracy less its own, with the interval of the paired
        difference.
    """

    row: PlayerRow
    behind: Estimate


@dataclass(frozen=True)
class Settings:
    """How the accuracies were measured.

    Attributes
    ----------
    norm, eps
        The attacker's ball; None for a set of another kind, or several.
    threats : tuple of str
        The attacker's sets, of whose union the risks are.
    exact : tuple of str
        Those that are finite: all their points were tried on each player.
    in_turn : bool
        Whether the accuracy under an attack counts the attacks before it, too.
    tol : float
        How much the last attacks on the optimal mixture may have raised its risk.
    held_out : bool
        Whether weights were fitted on other images than those reported on.
    resamples, level, seed
        Of the bootstrap; the seed is that of the attacks, too.
    """

    norm: str | None
    eps: float | None
    threats: tuple[str, ...]
    exact: tuple[str, ...]
    in_turn: bool
    tol: float
    held_out: bool
    resamples: int
    level: float
    seed: int


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """The numbers of an `Evaluation`, whose attributes are documented there."""

    players: tuple[PlayerRow, ...]
    attack_names: tuple[str, ...]
    best_single: PlayerRow
    best_ensemble: PlayerRow | None
    optimal: PlayerRow
    gain: Estimate
    ranking: tuple[Place, ...]
    solution: Solution
    raised: float
    settled: bool
    settings: Settings
    images: np.ndarray
    losses: np.ndarray
    ensemble_losses: np.ndarray
    fitted_losses: np.ndarray
    passes: int = 0
    parts: Path | None = field(default=None, compare=False)
    by_group: ByGroup | None = None

    @classmethod
    def of(
        cls,
        losses: np.ndarray,
        seen: np.ndarray,
        *,
        players: Sequence[Player],
        attack_names: Sequence[str],
        best: int,
        solution: Solution,
        raised: float,
        settled: bool,
        settings: Settings,
        images: np.ndarray,
        within: np.ndarray | None = None,
        passes: Mapping[int, int] | None = None,
        proven: Sequence[np.ndarray] | None = None,
        parts: Path | None = None,
        by_group: ByGroup | None = None,
    ) -> Self:
        """Measure all players on the losses (N, m, L + E).

        The weights, and `best`, the place of the best single classifier, were chosen on the losses
        `seen` (N', m', L). Ensembles are the last of the players. Of several threats, `within`
        (N, m, T) says which candidate lies in which set. `passes` are those of `Work`, `proven` the
        sets of `verify` for each image reported on. `by_group` has the same players measured by
        group, if there are groups.
        """
        passes = passes or {}

        def estimates(columns: Sequence[np.ndarray]) -> list[Estimate]:
            values = np.stack(columns, axis=1)
            return bootstrap(
                values, resamples=settings.resamples, level=settings.level, seed=settings.seed
            )

        worst = [1 - player.risks(losses).max(axis=1) for player in players]
        optimal = next((i for i, p in enumerate(players) if p.kind == "optimal"), best)
        kinds = [player.kind for player in players]
        places = contenders(kinds, best, (own.mean() for own in worst))
        first = worst[places[0]]
        columns = [column for p in players for column in _accuracies(losses, p, settings.in_turn)]
        columns += worst
        columns.append(worst[optimal] - worst[best])
        columns += [first - worst[i] for i in places]
        count_of_leads = len(places)
        if within is not None:
            columns += [column for p in players for column in _alone(losses, p, within)]
        if proven is not None:
            columns += [_verified(player, proven) for player in players]
        found = iter(estimates(columns))
        told = [[next(found) for _ in range(1 + len(attack_names))] for _ in players]
        worst_of = [next(found) for _ in players]
        gain = next(found)
        leads = list(itertools.islice(found, count_of_leads))
        alone = [
            (last,) if within is None else tuple(itertools.islice(found, within.shape[2]))
            for last in worst_of
        ]
        certain = [None if proven is None else next(found) for _ in players]
        fitted: list[Estimate | None] = [None] * len(players)
        if settings.held_out:
            mixed = [player for player in players if player.ensemble is None]
            before = estimates([1 - player.risks(seen).max(axis=1) for player in mixed])
            fitted[: len(mixed)] = before
        rows = tuple(
            PlayerRow(
                player.name,
                player.kind,
                tuple(player.weights.tolist()),
                clean,
                tuple(attacks),
                last,
                on_fitted,
                each,
                passes.get(place, 0),
                sure,
            )
            for place, (player, (clean, *attacks), last, on_fitted, each, sure) in enumerate(
                zip(players, told, worst_of, fitted, alone, certain, strict=True)
            )
        )
        ensembles = [rows[i] for i in places if players[i].ensemble is not None]
        count = len(players[best].weights)
        return cls(
            players=rows,
            attack_names=tuple(attack_names),
            best_single=rows[best],
            best_ensemble=ensembles[0] if ensembles else None,
            optimal=rows[optimal],
            gain=gain,
            ranking=tuple(Place(rows[i], lead) for i, lead in zip(places, leads, strict=True)),
            solution=solution,
            raised=raised,
            settled=settled,
            settings=settings,
            images=images,
            losses=losses[..., :count],
            ensemble_losses=losses[..., count:],
            fitted_losses=seen,
            passes=sum(passes.values()),
            parts=parts,
            by_group=by_group,
        )

    @property
    def bound(self) -> float:
        """No mixture of these classifiers has a higher accuracy against the candidates found.

        This is proven, for the images fitted on. With groups it is the accuracy of the worst one.
        """
        return 1 - self.solution.risk_lower_bound

    @property
    def threat(self) -> str:
        """A description of the attacker."""
        settings = self.settings
        if settings.norm is not None and settings.eps is not None:
            return f"{settings.norm} attacks of radius {radius(settings.eps)}"
        if len(settings.threats) == 1:
            return settings.threats[0]
        *others, last = settings.threats
        return f"the union of {', '.join(others)} and {last}"


def _verified(player: Player, proven: Sequence[np.ndarray]) -> np.ndarray:
    """Return the accuracies (N,) that hold whichever of the sets of an image err together."""
    return np.array([1 - player.most(rows).max() for rows in proven])


def _contenders(players: Sequence[Player], best: int, worst: Sequence[np.ndarray]) -> list[int]:
    """Return the best single classifier, the best ensemble and the mixtures, the best one first.

    Of equals the one that is simpler to deploy comes first.
    """
    means = [round(float(own.mean()), 12) for own in worst]
    ensembles = [i for i, player in enumerate(players) if player.ensemble is not None]
    chosen = [best]
    if ensembles:
        chosen.append(max(ensembles, key=lambda i: (means[i], -i)))
    chosen += [i for i, p in enumerate(players) if p.kind not in ("single", "ensemble")]
    return sorted(chosen, key=lambda i: -means[i])


def _alone(losses: np.ndarray, player: Player, within: np.ndarray) -> list[np.ndarray]:
    """Return the accuracies (N,) of a player under each threat alone; risks are at least 0."""
    risks = player.risks(losses)
    return [1 - np.where(within[..., t], risks, 0.0).max(axis=1) for t in range(within.shape[2])]


def _accuracies(losses: np.ndarray, player: Player, in_turn: bool) -> list[np.ndarray]:
    """Return the accuracies (N,) of a player: clean, and under each attack on it."""
    risks = player.risks(losses)
    clean, own = risks[:, 0], risks[:, player.columns]
    found = [clean]
    for group in player.groups:
        before = found[-1] if in_turn else clean
        found.append(np.maximum(before, own[:, group].max(axis=1)))
    return [1 - risk for risk in found]
