"""The report of an evaluation: accuracies with intervals as a table, JSON, a plot and sentences."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mixsolve import plots
from mixsolve.base.files import write_text
from mixsolve_torch.evaluation import view
from mixsolve_torch.evaluation.measured import Measured


@dataclass(frozen=True)
class Evaluation(Measured):
    """The outcome of `evaluate`.

    Attributes
    ----------
    players : tuple of PlayerRow
        One a player: the L classifiers, then the mixtures.
    attack_names : tuple of str
        The attacks, in the order of ``PlayerRow.attacks``.
    best_single, optimal : PlayerRow
        The best classifier alone and the optimal mixture, both chosen on the images fitted on.
    gain : Estimate
        The gain of randomising: the optimal mixture's worst-case accuracy less the best single
        classifier's, with an interval of the paired difference.
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
    losses : ndarray of shape (N, m, L), uint8
        The 0/1 losses on the images reported on, the clean image first: a game to solve.
    parts : path or None
        Where the finished parts of the work are, if they were kept; they may be deleted.
    """

    def table(self) -> Table:
        """Lay the accuracies out, in percent; rich prints it."""
        return view.table(self)

    def sentences(self) -> list[str]:
        """Return sentences on the gain of randomising, its interval, and its assumptions."""
        return view.sentences(self)

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
