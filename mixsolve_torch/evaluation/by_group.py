"""Accuracies of every player on each group, and on its worst one, with intervals.

    a_g(p)    =  mean_{i in g} a_i(p)               a_i: accuracy against the worst candidate
    lowest(p) =  min_g a_g(p)                       on the images reported on
    other(p)  =  a_h(p) on one half of the images,  h the lowest on the other half, and back

The lowest of several noisy means is too low on average where groups are close to each other, and
that of a mixture, which makes groups equal, more so than that of a classifier with one bad group.
The group that is lowest on other images is the worst one or one close to it, so that `other` is
not too low on average: the truth lies between the two. Ranking, gain and advice go by `lowest`,
which is against mixtures where it errs.

Resamples draw the images of each group from that group, the same ones for all players, and take
their lowest mean each: the interval of a gain is that of paired differences. That of the lowest
shows the spread of what was measured, its bias included.

References
----------
Efron, Tibshirani. An Introduction to the Bootstrap. 1993, chapters 8 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from mixsolve.base.tuning import tuning
from mixsolve_torch.core.groups import Groups
from mixsolve_torch.evaluation.bootstrap import Estimate
from mixsolve_torch.evaluation.players import Player, contenders
from mixsolve_torch.game.fitting import Fit


@dataclass(frozen=True)
class GroupRow:
    """Accuracies of one player, from 0 to 1.

    Attributes
    ----------
    name, kind : str
        Those of the player.
    groups : tuple of Estimate
        On each group.
    lowest : Estimate
        The lowest of them.
    worst : str
        The group that has it.
    other : float
        That of the group that is lowest on one half of the images, on the other half; the mean of
        both ways.
    fitted : float or None
        The lowest on the images that weights were fitted on, if these are others.
    """

    name: str
    kind: str
    groups: tuple[Estimate, ...]
    lowest: Estimate
    worst: str
    other: float
    fitted: float | None = None


@dataclass(frozen=True)
class GroupPlace:
    """A contender's place by its worst group.

    Attributes
    ----------
    row : GroupRow
        The player.
    behind : Estimate
        The first one's lowest accuracy less its own, with the interval of the paired difference.
    """

    row: GroupRow
    behind: Estimate


@dataclass(frozen=True)
class WeightFit:
    """How the optimal mixture's weights were fitted.

    Attributes
    ----------
    name : str
        The fit, one of `mixsolve_torch.game.fitting.FITS`.
    fitted, held_out : float
        Lowest accuracy on the halves that weights were fitted on, and on the other halves.
    error : float
        Standard error of `held_out`.
    bounds : tuple of float
        Lower confidence bounds of the accuracies of the groups on the other halves, all at once.
    """

    name: str
    fitted: float
    held_out: float
    error: float
    bounds: tuple[float, ...]

    @classmethod
    def of(cls, fit: Fit) -> Self:
        """Return a fit, told in risks, in accuracies."""
        bounds = tuple((1 - fit.bounds).tolist())
        return cls(fit.name, 1 - fit.fitted, 1 - fit.held_out, fit.error, bounds)

    @property
    def optimism(self) -> float:
        """How much higher the fitted accuracy is than that on other images."""
        return self.fitted - self.held_out

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON."""
        return {**asdict(self), "bounds": list(self.bounds), "optimism": self.optimism}


@dataclass(frozen=True)
class ByGroup:
    """The players of an evaluation by group.

    Attributes
    ----------
    names : tuple of str
        Of the groups.
    images : tuple of int
        How many images reported on are in each.
    rows : tuple of GroupRow
        One a player, in the order of ``Evaluation.players``.
    best_single, optimal : GroupRow
        The best classifier alone, chosen on the images fitted on, and the optimal mixture.
    gain : Estimate
        The optimal mixture's lowest accuracy less the best single classifier's, with the interval
        of the paired difference.
    gain_error : float
        Its standard error.
    ranking : tuple of GroupPlace
        The best single classifier, the best ensemble and the mixtures, the best first.
    fit : WeightFit or None
        How the weights were fitted; None for one classifier.
    bound : float
        No mixture of these classifiers has a higher accuracy on its worst group against the
        candidates found, on the images fitted on: that is proven.
    """

    names: tuple[str, ...]
    images: tuple[int, ...]
    rows: tuple[GroupRow, ...]
    best_single: GroupRow
    optimal: GroupRow
    gain: Estimate
    gain_error: float
    ranking: tuple[GroupPlace, ...]
    fit: WeightFit | None
    bound: float

    @property
    def recommended(self) -> GroupRow:
        """The first of the ranking if its lead over the best single classifier is sure.

        Otherwise the optimal mixture, if its gain is, or else the best single classifier.
        """
        single = next(place for place in self.ranking if place.row == self.best_single)
        if single.behind.low > 0:
            return self.ranking[0].row
        return self.optimal if self.gain.low > 0 else self.best_single

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON."""
        return {
            "names": list(self.names),
            "images": list(self.images),
            "players": [
                {
                    **{name: value for name, value in asdict(row).items() if name != "groups"},
                    "groups": {
                        name: asdict(own) for name, own in zip(self.names, row.groups, strict=True)
                    },
                }
                for row in self.rows
            ],
            "best_single": self.best_single.name,
            "gain": asdict(self.gain),
            "gain_error": self.gain_error,
            "ranking": [
                {"name": place.row.name, "behind": asdict(place.behind)} for place in self.ranking
            ],
            "recommended": self.recommended.name,
            "fit": None if self.fit is None else self.fit.to_dict(),
            "bound": self.bound,
        }


@dataclass(frozen=True)
class Resampled:
    """Means of groups over resampled images.

    Attributes
    ----------
    means : ndarray of shape (G, P)
        Over all images, for each of P players.
    drawn : ndarray of shape (R, G, P)
        Over each resample.
    level : float
        Coverage of the intervals.
    """

    means: np.ndarray
    drawn: np.ndarray
    level: float

    @property
    def lowest(self) -> np.ndarray:
        """The lowest mean of each resample and player (R, P)."""
        return self.drawn.min(axis=1)

    def estimate(self, value: float, drawn: np.ndarray) -> Estimate:
        """Return a value with the percentile interval of what resamples (R,) give."""
        tail = (1 - self.level) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Estimate(float(value), float(low), float(high))


def resample(
    values: np.ndarray, groups: Groups, *, resamples: int, level: float, seed: int
) -> Resampled:
    """Draw the images of each group anew, the same ones for all columns of values (N, P)."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(groups.names), values.shape[1]))
    for g in range(len(groups.names)):
        own = values[groups.index == g]
        count = len(own)
        block = max(1, tuning.resampled_counts // count)
        for first in range(0, resamples, block):
            size = min(block, resamples - first)
            counts = rng.multinomial(count, np.full(count, 1 / count), size=size)
            drawn[first : first + size, g] = counts @ own / count
    return Resampled(groups.means(values), drawn, level)


def on_other_half(values: np.ndarray, groups: Groups, *, seed: int) -> np.ndarray:
    """Return for each player (P,) the accuracy of the group that is lowest on other images.

    Half of each group's images choose the group and the other half measures it, and back. A group
    of one image is in both halves.
    """
    rng = np.random.default_rng(seed)
    first = np.zeros(len(values), dtype=bool)
    for g in range(len(groups.names)):
        places = rng.permutation(np.flatnonzero(groups.index == g))
        first[places[: (len(places) + 1) // 2]] = True
    single = groups.images[groups.index] == 1
    halves = [np.flatnonzero(first | single), np.flatnonzero(~first | single)]
    a, b = (groups.at(half).means(values[half]) for half in halves)
    players = np.arange(values.shape[1])
    return (b[a.argmin(axis=0), players] + a[b.argmin(axis=0), players]) / 2


def measure_groups(
    losses: np.ndarray,
    groups: Groups,
    seen: tuple[np.ndarray, Groups] | None,
    *,
    players: Sequence[Player],
    best: int,
    fit: Fit | None,
    bound: float,
    resamples: int,
    level: float,
    seed: int,
) -> ByGroup:
    """Measure all players by group.

    Parameters
    ----------
    losses : ndarray of shape (N, m, L + E)
        0/1 losses of all on the images reported on.
    groups : Groups
        Of these images.
    seen : pair of ndarray of shape (N', m', L) and Groups, optional
        The losses that weights were fitted on, if they are others.
    players : sequence of Player
        Ensembles are the last of them.
    best : int
        The place of the best single classifier.
    fit, bound
        See `ByGroup`.
    resamples, level, seed
        Of the intervals.
    """
    values = np.stack([1 - player.risks(losses).max(axis=1) for player in players], axis=1)
    drawn = resample(values, groups, resamples=resamples, level=level, seed=seed)
    lowest, lows = drawn.means.min(axis=0), drawn.lowest
    other = on_other_half(values, groups, seed=seed)
    rows = tuple(
        GroupRow(
            player.name,
            player.kind,
            tuple(
                drawn.estimate(drawn.means[g, p], drawn.drawn[:, g, p])
                for g in range(len(groups.names))
            ),
            drawn.estimate(lowest[p], lows[:, p]),
            groups.names[int(drawn.means[:, p].argmin())],
            float(other[p]),
            None if seen is None else _fitted(player, *seen),
        )
        for p, player in enumerate(players)
    )
    optimal = next((i for i, player in enumerate(players) if player.kind == "optimal"), best)
    places = contenders([player.kind for player in players], best, lowest)
    first = places[0]

    def lead(a: int, b: int) -> Estimate:
        return drawn.estimate(lowest[a] - lowest[b], lows[:, a] - lows[:, b])

    return ByGroup(
        names=groups.names,
        images=tuple(groups.images.tolist()),
        rows=rows,
        best_single=rows[best],
        optimal=rows[optimal],
        gain=lead(optimal, best),
        gain_error=float((lows[:, optimal] - lows[:, best]).std()),
        ranking=tuple(GroupPlace(rows[i], lead(first, i)) for i in places),
        fit=None if fit is None else WeightFit.of(fit),
        bound=bound,
    )


def _fitted(player: Player, losses: np.ndarray, groups: Groups) -> float | None:
    """Return the lowest accuracy on the images fitted on, where ensembles are not measured."""
    if player.ensemble is not None:
        return None
    return 1 - groups.risk(player.risks(losses).max(axis=1))
