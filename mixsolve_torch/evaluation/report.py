"""The report of an evaluation: accuracies with intervals in words, a table, pictures and files."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mixsolve import plots
from mixsolve.base.files import write_text
from mixsolve_torch.evaluation import files, view
from mixsolve_torch.evaluation.measured import Measured, PlayerRow
from mixsolve_torch.evaluation.verdict import to_deploy


@dataclass(frozen=True)
class Evaluation(Measured):
    """The outcome of `evaluate`.

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
    """

    def table(self) -> Table:
        """Lay the accuracies out, in percent; rich prints it."""
        return view.table(self)

    @property
    def recommended(self) -> PlayerRow:
        """Who is to be deployed: the best of the ranking if its lead over one classifier is sure.

        Otherwise the optimal mixture, if its gain is, or else the best single classifier.
        """
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

    def as_dict(self) -> dict[str, Any]:
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

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row a player: name, kind, weights, and each accuracy with its interval.

        Several threats have a column each, as in "under L2 0.5".

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
