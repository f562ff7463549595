"""The report of an evaluation: accuracies with intervals in words, a table, pictures and files."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from rich.table import Table

from mixsolve import plots
from mixsolve.arrays.result_file import Kept
from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import write_text
from mixsolve.solver.solution import Solution
from mixsolve_torch.evaluation import files, group_view, view
from mixsolve_torch.evaluation.bootstrap import Estimate
from mixsolve_torch.evaluation.by_group import ByGroup, GroupPlace, GroupRow, WeightFit
from mixsolve_torch.evaluation.measured import Measured, Place, PlayerRow, Settings
from mixsolve_torch.evaluation.verdict import to_deploy


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Kept, Measured):
    """The outcome of `evaluate`; ``print`` shows who is best, a notebook the table as well.

    Attributes
    ----------
    players : tuple of PlayerRow
        One a player: the L classifiers, the mixtures, then the E deterministic ensembles.
    attack_names : tuple of str
        The attacks, in the order of ``PlayerRow.attacks``.
    best_single, optimal : PlayerRow
        The best classifier alone and the optimal mixture, both chosen on the images fitted on.
    best_ensemble : PlayerRow or None
        The best deterministic ensemble, chosen on the images reported on, in its favour; None for
        one classifier.
    gain : Estimate
        The gain of randomising: the optimal mixture's worst-case accuracy less the best single
        classifier's, with an interval of the paired difference.
    ranking : tuple of Place
        The best single classifier, the best ensemble and the mixtures, the best first, and how far
        each is behind the first, with an interval of the paired difference.
    solution : Solution
        Of the game of all candidates found, on the images fitted on. Its weights count the last
        attacks on the optimal mixture, too, and so differ from that mixture's.
    raised : float
        The optimal mixture's risk on the images fitted on, less the value that `solve_game` gave:
        how much the last attacks on it raised its risk.
    settled : bool
        Whether the game converged and its solution is certified.
    settings : Settings
        How all this was measured.
    images : ndarray of shape (N,), int
        The places of the images reported on among all.
    losses : ndarray of shape (N, m, L), uint8
        The 0/1 losses on the images reported on, the clean image first.
    ensemble_losses : ndarray of shape (N, m, E), uint8
        Those of the ensembles on the same candidates.
    fitted_losses : ndarray of shape (N', m', L), uint8
        The 0/1 losses on the images fitted on, the game that `solution` solves: `losses` where
        weights were fitted on the images reported on.
    passes : int
        Forward and backward runs of one classifier on one image that the evaluation took: those of
        all players, see ``PlayerRow.passes``, and those of trying candidates on all ensembles.
    parts : path or None
        Where the finished parts of the work are, if they were kept; they may be deleted.
    by_group : ByGroup or None
        The same players on each group of images, and on the worst one, if there are groups:
        `best_single`, `optimal`, `bound` and `recommended` are then those for the worst group.
    """

    _parts: ClassVar = (
        *(Estimate, Place, PlayerRow, Settings, Solution, *Solution._parts),
        *(ByGroup, GroupPlace, GroupRow, WeightFit),
    )

    def table(self) -> Table:
        """Lay the accuracies out, in percent; rich prints it."""
        return view.table(self)

    def table_by_group(self) -> Table:
        """Lay the accuracies on each group out, in percent; rich prints it.

        Raises
        ------
        MixsolveError
            The evaluation had no groups.
        """
        if self.by_group is None:
            raise MixsolveError(
                "there is no table by group: groups must be given to evaluate, e.g. groups='class'"
            )
        return group_view.table(self.by_group)

    @property
    def recommended(self) -> PlayerRow:
        """Who is to be deployed: the best of the ranking if its lead over one classifier is sure.

        Otherwise the optimal mixture, if its gain is, or else the best single classifier. With
        groups, all of that on the worst group.
        """
        if self.by_group is not None:
            return self.players[self.by_group.rows.index(self.by_group.recommended)]
        return to_deploy(self.ranking, self.gain).row if self.ranking[1:] else self.best_single

    def sentences(self, *, advice: bool = True) -> list[str]:
        """Return sentences: who is best, the gain of randomising, intervals, assumptions.

        Parameters
        ----------
        advice : bool, default True
            Say what to deploy, too, see `recommended`.
        """
        return view.sentences(self, advice=advice)

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
        figure = view.figure(self)
        if path is not None:
            plots.save(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the losses, in the types of JSON."""
        images, candidates, _ = self.losses.shape
        return {
            **asdict(self.settings),
            "images": images,
            "candidates": candidates,
            "passes": self.passes,
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
                    "threats": {
                        name: asdict(value)
                        for name, value in zip(self.settings.threats, row.threats, strict=True)
                    },
                    "worst": asdict(row.worst),
                    "fitted": None if row.fitted is None else asdict(row.fitted),
                    "verified": None if row.verified is None else asdict(row.verified),
                    "passes": row.passes,
                }
                for row in self.players
            ],
            "recommended": self.recommended.name,
            "best_single": self.best_single.name,
            "best_ensemble": None if self.best_ensemble is None else self.best_ensemble.name,
            "ranking": [
                {
                    "name": place.row.name,
                    "kind": place.row.kind,
                    "worst": place.row.worst.value,
                    "behind": asdict(place.behind),
                }
                for place in self.ranking
            ],
            "gain": asdict(self.gain),
            "bound": self.bound,
            "raised": self.raised,
            "settled": self.settled,
            "by_group": None if self.by_group is None else self.by_group.to_dict(),
            "sentences": self.sentences(),
        }

    @property
    def json(self) -> str:
        """Everything but the losses as a JSON object: `to_json` without a file."""
        return self.to_json()

    def __repr__(self) -> str:
        return view.text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: sentences, the accuracies, and the picture with matplotlib."""
        return files.fragment(self)

    def _entries(self) -> dict[str, Any]:
        """The fields to be kept; players that stand in several of them by their places."""
        place = {id(row): number for number, row in enumerate(self.players)}

        def number(row: PlayerRow | None) -> int | None:
            return None if row is None else place[id(row)]

        return super()._entries() | {
            "best_single": number(self.best_single),
            "best_ensemble": number(self.best_ensemble),
            "optimal": number(self.optimal),
            "ranking": tuple((number(each.row), each.behind) for each in self.ranking),
        }

    @classmethod
    def _restored(cls, entries: dict[str, Any]) -> Self:
        """The evaluation of these fields."""
        players = entries["players"]
        rows = {
            name: None if entries[name] is None else players[entries[name]]
            for name in ("best_single", "best_ensemble", "optimal")
        }
        ranking = tuple(Place(players[number], behind) for number, behind in entries["ranking"])
        return super()._restored(entries | rows | {"ranking": ranking})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row a player: name, kind, weights, and each accuracy with its interval.

        Several threats have a column each, as in "under L2 0.5", groups, as in "group 3", and what
        was verified.

        Parameters
        ----------
        path : str or path
            Where to; a file there is replaced. Accuracies are from 0 to 1, in UTF-8 text.

        Raises
        ------
        MixsolveError
            It cannot be written there.
        """
        write_text(Path(path), files.csv_text(self))

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one page that needs no other file: sentences, table, pictures, settings.

        Parameters
        ----------
        path : str or path
            Where to; a file there is replaced.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        MixsolveError
            It cannot be written there.
        """
        write_text(Path(path), files.html_text(self))
