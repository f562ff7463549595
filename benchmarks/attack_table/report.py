"""The table, in the terminal and as a page, and what it says about the attack of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.attack_table.measure import Cell
from benchmarks.attack_table.public import AUTOATTACK, SQUARE
from benchmarks.attack_table.settings import SETTINGS
from benchmarks.report import markdown_table, origin, save
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap

_LEVEL = 0.95
_RESAMPLES = 2000
_OURS = "standard"
_BEST = "best known"

# What `standard` may miss of the best known accuracy, in points; where gradients are hidden, of
# the accuracy under Square. And its passes beside those of AutoAttack.
_SHORTFALL, _HIDDEN_SHORTFALL = 0.5, 1.0
_PASSES = 0.5

Column = Mapping[str, Cell]


@dataclass(frozen=True)
class Verdict:
    """What the table says.

    Attributes
    ----------
    shortfalls : dict of str to float
        By mixture, how many points `standard` is short of the best known.
    misses : dict of str to dict
        By mixture and image, the attacks that reach the best known where `standard` does not.
    passes : dict of str to float
        By mixture, the passes of `standard` over those of AutoAttack.
    sentences : tuple of str
        The same in words.
    holds : bool
        Whether all that must hold does.
    """

    shortfalls: dict[str, float]
    misses: dict[str, dict[int, list[str]]]
    passes: dict[str, float]
    sentences: tuple[str, ...]
    holds: bool


def best_known(column: Column) -> np.ndarray:
    """Return the accuracy of each image under the worst of all attacks."""
    return np.min([cell.attacked for cell in column.values()], axis=0)


def verdict(table: Mapping[str, Column]) -> Verdict:
    """Compare `standard` with the best known, with Square where gradients hide, with AutoAttack."""
    shortfalls, misses, passes = {}, {}, {}
    sentences, holds = [], True
    for title, column in table.items():
        best, ours = best_known(column), column[_OURS].attacked
        short = shortfalls[title] = float(100 * (ours - best).mean())
        misses[title] = {
            int(i): [n for n, cell in column.items() if cell.attacked[i] <= best[i] + 1e-9]
            for i in np.flatnonzero(ours > best + 1e-9)
        }
        listed = "; ".join(f"image {i} ({', '.join(n)})" for i, n in misses[title].items())
        sentences.append(
            f"{title}: `standard` is {short:.2f} points short of the best known"
            f"{f', on {listed}' if listed else ''}."
        )
        if SETTINGS[title].hidden and SQUARE in column:
            behind = float(100 * (ours - column[SQUARE].attacked).mean())
            sentences.append(f"{title}: it is {behind:.2f} points behind {SQUARE}.")
            holds &= behind <= _HIDDEN_SHORTFALL + 1e-9
        else:
            holds &= short <= _SHORTFALL + 1e-9
        if AUTOATTACK in column:
            passes[title] = column[_OURS].passes / column[AUTOATTACK].passes
            sentences.append(
                f"{title}: it makes {passes[title]:.2f} times the passes of {AUTOATTACK}."
            )
            holds &= passes[title] <= _PASSES
    return Verdict(shortfalls, misses, passes, tuple(sentences), holds)


def _accuracies(column: Column) -> dict[str, np.ndarray]:
    first = next(iter(column.values()))
    attacked = {name: cell.attacked for name, cell in column.items()}
    return {"clean": first.clean, **attacked, _BEST: best_known(column)}


def show(header: str, table: Mapping[str, Column], said: Verdict) -> None:
    """Print the table, a mixture a column."""
    lines = Table(title=f"Accuracy in %, {header}; in brackets passes an image and network")
    lines.add_column("attack")
    for title in table:
        lines.add_column(title, justify="right")
    rows = {title: _accuracies(column) for title, column in table.items()}
    for name in _names(rows):
        lines.add_row(name, *(_plain(rows[title], table[title], name) for title in table))
    console = Console()
    console.print(lines)
    for sentence in said.sentences:
        console.print(sentence, highlight=False)


def _names(rows: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
    names = dict.fromkeys(name for own in rows.values() for name in own)
    return [*(name for name in names if name != _BEST), _BEST]


def _plain(own: Mapping[str, np.ndarray], column: Column, name: str) -> str:
    if name not in own:
        return "-"
    passes = f" ({column[name].passes:.0f})" if name in column else ""
    return f"{100 * own[name].mean():.2f}{passes}"


def write(out: Path, header: str, table: Mapping[str, Column], said: Verdict, seed: int) -> None:
    """Write the page and its numbers."""
    cells = {title: _estimates(column, seed) for title, column in table.items()}
    names = _names(cells)
    columns = [f"{title}, {SETTINGS[title].norm} {SETTINGS[title].eps:g}" for title in table]
    seconds = sum(cell.seconds for column in table.values() for cell in column.values())
    page = [
        "# Attacks on mixtures",
        "",
        f"Accuracy in %, {header}. {origin('attack_table', f'PyTorch {torch.__version__}')}; "
        f"{seconds:.0f} s of attacks on one thread. In brackets the {100 * _LEVEL:g} % bootstrap "
        "interval over images. Every attack runs alone; `standard` is the suite of the package. "
        "Lower is a stronger attack.",
        "",
        *markdown_table(
            ["attack", *columns],
            [
                [name, *(own[name].percent() if name in own else "-" for own in cells.values())]
                for name in names
            ],
        ),
        "",
        "Passes, forward and backward, an image and network:",
        "",
        *markdown_table(
            ["attack", *table],
            [
                [name, *(_passes(column, name) for column in table.values())]
                for name in names
                if name not in ("clean", _BEST)
            ],
        ),
        "",
        *(f"- {sentence}" for sentence in said.sentences),
    ]
    content = {
        "header": header,
        "accuracies": {
            title: {name: asdict(value) for name, value in own.items()}
            for title, own in cells.items()
        },
        "passes": {
            title: {name: cell.passes for name, cell in column.items()}
            for title, column in table.items()
        },
        "shortfalls": said.shortfalls,
        "misses": said.misses,
        "passes of standard over AutoAttack": said.passes,
        "seconds": round(seconds, 1),
    }
    save(out, "attack_table", page, content)


def _passes(column: Column, name: str) -> str:
    return f"{column[name].passes:.0f}" if name in column else "-"


def _estimates(column: Column, seed: int) -> dict[str, Estimate]:
    own = _accuracies(column)
    values: Sequence[Estimate] = bootstrap(
        np.stack(list(own.values()), axis=1), resamples=_RESAMPLES, level=_LEVEL, seed=seed
    )
    return dict(zip(own, values, strict=True))
