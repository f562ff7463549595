"""What an evaluation found: accuracies with intervals, as a table, JSON, a plot and sentences."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mixsolve import plots
from mixsolve.base.files import write_text
from mixsolve.solver.solution import Solution
from mixsolve_torch.evaluation import view as evaluation_view
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap


@dataclass(frozen=True)
class Player:
    """A random classifier that was attacked.

    Attributes
    ----------
    name : str
        What it is called.
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
class Row:
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
        Whether the accuracy under an attack is that after all attacks before it, too.
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
class Evaluation:
    """The outcome of `evaluate`.

    Attributes
    ----------
    players : tuple of Row
        One a player: the L classifiers, then the mixtures.
    attack_names : tuple of str
        The attacks, in the order of ``Row.attacks``.
    best_single, optimal : Row
        The best classifier alone and the optimal mixture, both chosen on the images fitted on.
    gain : Estimate
        What randomising buys: the optimal mixture's worst-case accuracy less the best single
        classifier's, with an interval of the paired difference.
    solution : Solution
        Of the game of all candidates found, on the images fitted on. Its weights differ from those
        of the optimal mixture by what the last attacks on that one brought.
    raised : float
        The optimal mixture's risk on the images fitted on, less the value that `solve_game` gave:
        how much the last attacks on it raised its risk.
    settled : bool
        Whether the game converged and its solution is certified.
    settings : Settings
        How all this was measured.
    losses : ndarray of shape (N, m, L), uint8
        The 0/1 losses on the images reported on, the clean image first: a game to solve.
    parts : path or None
        Where the finished parts of the work are, which may be deleted now, if they were kept.
    """

    players: tuple[Row, ...]
    attack_names: tuple[str, ...]
    best_single: Row
    optimal: Row
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
    ) -> Evaluation:
        """Measure all players on the losses.

        Parameters
        ----------
        losses : ndarray of shape (N, m, L)
            On the images to report on.
        players : sequence of Player
            In the order of the rows.
        groups : mapping of str to slice
            The attacks, and which of a player's candidates are theirs.
        best, optimal : Player
            Whose difference is the gain; both are among `players`.
        solution : Solution
            Of the game of all candidates.
        raised : float
            What the last attacks on the optimal mixture added to its risk.
        settled : bool
            Whether the game converged.
        settings : Settings
            How all this was measured.
        parts : path, optional
            Where the finished parts of the work are.

        Returns
        -------
        Evaluation
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
            rows[id(player)] = Row(player.name, player.kind, weights, clean, tuple(attacks), last)
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
        """Proven: no mixture of these classifiers is more accurate against the candidates found.

        It holds for the images fitted on.
        """
        return 1 - self.solution.risk_lower_bound

    @property
    def threat(self) -> str:
        """The attacker in words."""
        return f"{self.settings.norm} attacks of radius {evaluation_view.radius(self.settings.eps)}"

    def table(self) -> Table:
        """Lay the accuracies out, in percent; rich prints it."""
        return evaluation_view.table(self)

    def sentences(self) -> list[str]:
        """Say what randomising buys, how sure that is, and what it rests on."""
        return evaluation_view.sentences(self)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw worst-case accuracies as bars with intervals, all others as marks on them.

        Parameters
        ----------
        path : str or path, optional
            Where to write the picture; the ending says the format.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        MixsolveError
            The picture cannot be written there.
        """
        figure = evaluation_view.figure(self)
        if path is not None:
            plots.save(figure, path)
        return figure

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the losses, in the types of JSON."""
        images, candidates, _ = self.losses.shape
        return {
            **asdict(self.settings),
            "images": images,
            "candidates": candidates,
            "attacks": list(self.attack_names),
            "players": [
                {
                    "name": row.name,
                    "kind": row.kind,
                    "weights": list(row.weights),
                    "clean": asdict(row.clean),
                    "attacks": {
                        name: asdict(value)
                        for name, value in zip(self.attack_names, row.attacks, strict=True)
                    },
                    "worst": asdict(row.worst),
                }
                for row in self.players
            ],
            "best_single": self.best_single.name,
            "gain": asdict(self.gain),
            "bound": self.bound,
            "raised": self.raised,
            "settled": self.settled,
            "sentences": self.sentences(),
        }

    @property
    def json(self) -> str:
        """Everything but the losses as a JSON object."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write `json` to a file, aside and renamed; a file there is replaced.

        Parameters
        ----------
        path : str or path
            Where to.

        Raises
        ------
        MixsolveError
            It cannot be written there.
        """
        write_text(Path(path), self.json + "\n")


def _accuracies(losses: np.ndarray, player: Player, groups: Any, in_turn: bool) -> list[np.ndarray]:
    """Return the accuracies (N,) of a player: clean, under each attack, in the worst case."""
    risks = losses @ player.weights
    clean, own = risks[:, 0], risks[:, player.columns]
    found = [clean]
    for group in groups:
        before = found[-1] if in_turn else clean
        found.append(np.maximum(before, own[:, group].max(axis=1)))
    return [1 - risk for risk in (*found, risks.max(axis=1))]
