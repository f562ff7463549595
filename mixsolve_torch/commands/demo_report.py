"""What `mixsolve demo` says and writes: a table, sentences, pictures, files to go on with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.table import Table

from mixsolve import plots
from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import written_aside
from mixsolve.commands.report import save as save_solution
from mixsolve.solver.solution import Solution
from mixsolve_torch.candidates.build import CandidateLosses
from mixsolve_torch.evaluation.verdict import what_randomising_buys

_EXAMPLES = 3
_VARIANTS = 3
_SELDOM = 0.05  # a candidate played less often than this is left out of the picture
_UNIFORM = "uniform mixture"


@dataclass(frozen=True)
class DemoRow:
    """One line of the table; risks from 0 to 1."""

    name: str
    weights: np.ndarray
    standard: float
    risk: float
    kind: str
    solution: Solution | None = None


@dataclass(frozen=True)
class Report:
    """The outcome of the demo.

    Attributes
    ----------
    losses : CandidateLosses
        The game, with the attacked images.
    names : tuple of str
        The networks.
    rows : tuple of DemoRow
        Single networks, the uniform mixture, then one optimal mixture for each solution.
    solution : Solution
        The exact one, the first of the solutions.
    fresh : CandidateLosses
        Losses of the same networks on candidates that no weights were fitted to.
    threat : str
        The attacker in words.
    """

    losses: CandidateLosses
    names: tuple[str, ...]
    rows: tuple[DemoRow, ...]
    solution: Solution
    fresh: CandidateLosses
    threat: str

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        losses: CandidateLosses,
        solutions: Sequence[Solution],
        fresh: CandidateLosses,
        threat: str,
    ) -> Report:
        """Measure all classifiers and mixtures on one game.

        Parameters
        ----------
        names : sequence of str of length L
            The networks.
        losses : CandidateLosses
            The game, with its inputs kept.
        solutions : sequence of Solution
            Of this game, the exact one first.
        fresh : CandidateLosses
            The same images under attacks made after the game was solved.
        threat : str
            The attacker in words, for the title.

        Returns
        -------
        Report
        """
        count = len(names)

        def row(
            name: str, weights: np.ndarray, kind: str, solution: Solution | None = None
        ) -> DemoRow:
            standard, risk = losses.standard_risk(weights), losses.adversarial_risk(weights)
            return DemoRow(name, weights, standard, risk, kind, solution)

        rows = [row(name, one, "single") for name, one in zip(names, np.eye(count), strict=True)]
        rows.append(row(_UNIFORM, np.full(count, 1 / count), "uniform"))
        for solution in solutions:
            name = f"alpha {solution.alpha:g}" if solution.alpha else "exact"
            weights = np.asarray(solution.weights)
            rows.append(row(f"optimal, {name}", weights, "optimal", solution))
        return cls(losses, tuple(names), tuple(rows), solutions[0], fresh, threat)

    @property
    def best_single(self) -> DemoRow:
        """The single network of the lowest adversarial risk."""
        return min(self.rows[: len(self.names)], key=lambda row: row.risk)

    @property
    def optimal(self) -> DemoRow:
        """The exact optimal mixture."""
        return next(row for row in self.rows if row.solution is self.solution)

    @property
    def certified(self) -> bool:
        """Whether every solution reached its tolerance."""
        return all(row.solution is None or row.solution.success for row in self.rows)

    def table(self) -> Table:
        """Lay out the risks, in percent, with bounds where a mixture was optimised."""
        table = Table(
            title=f"{self.threat} on {len(self.losses.labels)} held-out digits",
            title_style="bold",
            caption="Risk: share of images misclassified. Lower bound: no mixture of these\n"
            "networks does better against these attacks. Gap: risk - lower bound.",
            box=box.SIMPLE_HEAD,
            padding=(0, 1),
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("", no_wrap=True)
        for name in ("clean\nrisk %", "risk under\nattack %", "lower\nbound %", "gap\n%"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("weights, %", justify="right", no_wrap=True)
        last = {self.names[-1], _UNIFORM}
        for row in self.rows:
            bound, gap = "", ""
            if row.solution is not None:
                lowest = row.solution.risk_lower_bound
                bound, gap = f"{100 * lowest:.2f}", f"{100 * max(row.risk - lowest, 0.0):.1g}"
            table.add_row(
                row.name,
                f"{100 * row.standard:.2f}",
                f"{100 * row.risk:.2f}",
                bound,
                gap,
                "" if row.kind == "single" else " ".join(f"{100 * w:4.1f}" for w in row.weights),
                style="bold" if row in (self.best_single, self.optimal) else None,
                end_section=row.name in last,
            )
        return table

    def sentences(self) -> list[str]:
        """Say what randomising buys, how sure that is, and what fresh attacks make of it."""
        single, optimal = self.best_single, self.optimal
        gain = self.losses.worst(single.weights) - self.losses.worst(optimal.weights)
        error = 100 * float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
        images, candidates, _ = self.losses.values.shape
        bought = what_randomising_buys(single.name, single.risk, optimal.risk)
        sure = (
            f"How sure: against these {candidates} candidates for each of these {images} images it "
            f"is proven that no mixture gets below {100 * self.solution.risk_lower_bound:.2f} %. "
            f"Other images of the kind would give another gain: its standard error is {error:.2f} "
            "points; weights and best classifier were chosen on the images they are measured on."
        )
        mixed, alone, name = self.attacked_afresh()
        again = (
            "Stronger attacks can only raise these risks: fresh PGD, with other draws and twice "
            f"the steps, brings the optimal mixture to {100 * mixed:.2f} % and the best single "
            f"classifier ({name}) to {100 * alone:.2f} %, a difference of "
            f"{100 * (alone - mixed):.2f} points."
        )
        return [bought, sure, again]

    def attacked_afresh(self) -> tuple[float, float, str]:
        """Return risks when the fresh candidates count as well as those of the game.

        Returns
        -------
        tuple of float, float and str
            The risk of the optimal mixture, that of the single network which is then the best, and
            the name of this network.
        """

        def risk(row: DemoRow) -> float:
            worst = torch.maximum(self.losses.worst(row.weights), self.fresh.worst(row.weights))
            return float(worst.mean())

        alone, name = min((risk(row), row.name) for row in self.rows if row.kind == "single")
        return risk(self.optimal), alone, name

    def write(self, out: Path, *, replace: bool) -> None:
        """Write the pictures, the loss tensor and the exact solution.

        Parameters
        ----------
        out : path
            An existing directory.
        replace : bool
            Whether a solution that is there may be overwritten.
        """
        bars = [plots.Bar(row.name, row.risk, row.standard, row.kind) for row in self.rows]
        bound = self.solution.risk_lower_bound
        title = f"Networks and mixtures under {self.threat}"
        chart = plots.risk_bars(bars, lower_bound=bound, title=title)
        plots.save(chart, out / "risk.png")
        picture = plots.mixture_picture(
            self.names, self.optimal.weights, self.examples(), cmap="gray_r"
        )
        plots.save(picture, out / "mixture.png")
        path = out / "losses.npy"
        try:
            with written_aside(path) as aside, aside.open("xb") as file:
                np.save(file, self.losses.values.cpu().numpy())
        except OSError as error:
            raise MixsolveError(f"{path} could not be written: {error}") from error
        save_solution(self.solution, out / "solution.npz", replace)

    def examples(self) -> list[plots.Example]:
        """Return images on which the attacker really mixes, of different classes."""
        if self.losses.inputs is None:
            return []
        inputs = self.losses.inputs[:, :, 0].cpu().numpy()
        values = self.losses.values.cpu().numpy()
        labels = self.losses.labels.tolist()
        examples = []
        for sample in self._telling(values, labels):
            variants = [
                plots.Variant(inputs[sample, j], probability, _fooled(values[sample, j]))
                for j, probability in self._played(sample)
            ]
            caption = f"clean, a {labels[sample]}\n{_fooled(values[sample, 0])}"
            examples.append(plots.Example(inputs[sample, 0], caption, variants))
        return examples

    def _telling(self, values: np.ndarray, labels: Sequence[int]) -> list[int]:
        """Choose samples of different classes, with different sets of networks fooled if possible.

        The best are attacked in several ways, with even probabilities, and fool nobody when clean.
        """

        def interest(sample: int) -> tuple[bool, float]:
            shares = np.array([probability for _, probability in self._played(sample)])
            return not values[sample, 0].any(), -float((shares * np.log(shares)).sum())

        ranked = sorted(range(len(labels)), key=interest, reverse=True)
        patterns = {i: frozenset(_fooled(values[i, j]) for j, _ in self._played(i)) for i in ranked}
        chosen: list[int] = []
        for novel in (True, False):
            for i in ranked:
                known = labels[i] in {labels[other] for other in chosen}
                known |= novel and patterns[i] in {patterns[other] for other in chosen}
                if len(chosen) < _EXAMPLES and not known:
                    chosen.append(i)
        return chosen

    def _played(self, sample: int) -> list[tuple[int, float]]:
        """Return the candidates worth showing and their probabilities, most likely first."""
        candidates, probabilities = self.solution.attack[sample]
        order = np.argsort(-probabilities, kind="stable")[:_VARIANTS]
        pairs = [(int(candidates[j]), float(probabilities[j])) for j in order]
        return [pair for pair in pairs if pair[1] > _SELDOM]


def _fooled(losses: np.ndarray) -> str:
    wrong = [str(k + 1) for k in np.flatnonzero(losses)]
    return f"fools {', '.join(wrong)}" if wrong else "fools none"
