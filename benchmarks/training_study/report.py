"""The page of the study: a table a setting, and what it says in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.report import markdown_table, origin, save
from benchmarks.training_study.compare import (
    Gain,
    checked,
    forgotten,
    gain,
    parts,
    worst_class,
)
from benchmarks.training_study.measure import MEASURES, STANDARD_STEPS, Cell
from benchmarks.training_study.settings import BATCH, HELD_OUT, RECIPES, SETTINGS, recipes

# By setting, by seed, by recipe.
Cells = Mapping[str, Mapping[int, Mapping[str, Cell]]]

HEADS = [
    "recipe",
    "passes, M",
    "seeds",
    "clean",
    *MEASURES,
    "worst class",
    "networks alone",
    "margin",
    *(f"gain, {measure}" for measure in MEASURES),
]


def rows(by_seed: Mapping[int, Mapping[str, Cell]]) -> list[dict[str, Any]]:
    """Return the figures of a setting, a recipe a row, in points."""
    found = []
    for name, recipe in RECIPES.items():
        own = [cells[name] for cells in by_seed.values() if name in cells]
        if not own:
            continue
        members = np.mean([np.sort(cell.members.mean(axis=0)) for cell in own], axis=0)
        mean = np.mean([float(cell.members.mean(axis=0) @ cell.weights) for cell in own])
        accuracy = {
            measure: 100 * float(np.mean([cell.accuracy(measure).mean() for cell in own]))
            for measure in MEASURES
        }
        gains = {measure: gain(by_seed, name, measure) for measure in MEASURES}
        found.append(
            {
                "recipe": name,
                "networks": recipe.networks,
                "passes": float(np.mean([cell.passes for cell in own])),
                "seeds": len(own),
                "clean": 100 * float(np.mean([cell.clean.mean() for cell in own])),
                "accuracy": accuracy,
                "worst class": 100 * float(np.mean([worst_class(cell) for cell in own])),
                "members": (100 * members).tolist(),
                "margin": accuracy["worst"] - 100 * float(mean),
                "gains": {m: None if g is None else asdict(g[0]) for m, g in gains.items()},
                "rivals": next((g[1] for g in gains.values() if g is not None), ()),
                "weights": [cell.weights.tolist() for cell in own],
                "seconds": np.sum([cell.seconds for cell in own], axis=0).tolist(),
            }
        )
    return found


def sentences(cells: Cells) -> list[str]:
    """Return what the cells say about mixtures, forgotten networks and verdicts."""
    mixtures = [
        (title, seed, name)
        for title, by_seed in cells.items()
        for seed, own in by_seed.items()
        for name in own
        if RECIPES[name].networks > 1
    ]
    lost = [each for each in mixtures if forgotten(cells[each[0]][each[1]], each[2])]
    verdicts = {each: checked(cells[each[0]][each[1]], each[2]) for each in mixtures}
    judged = {each: own for each, own in verdicts.items() if own is not None}
    wrong = [each for each, own in judged.items() if own.wrong]
    said = [
        f"Mixtures trained and measured: {len(mixtures)}. Networks with less than half of the "
        f"accuracy of the single network: {_listed(lost)}.",
        f"Verdicts, judged on the first half of the images: {len(judged)}, of which "
        f"{sum(own.mixture for own in judged.values())} recommend the mixture; recommended and "
        f"worse on the second half by more than one standard error: {_listed(wrong)}.",
    ]
    return [*_in_short(cells), *said, *_best_mixtures(cells)]


def _in_short(cells: Cells) -> list[str]:
    """Return how many mixtures are ahead under each measure, and how much each flatters."""
    gains = {
        measure: {
            (title, name): found[0]
            for title, by_seed in cells.items()
            for name, recipe in RECIPES.items()
            if recipe.networks > 1 and (found := gain(by_seed, name, measure)) is not None
        }
        for measure in MEASURES
    }
    compared = len(gains["worst"])
    if not compared:
        return ["No mixture was measured beside a single network of equal cost yet."]
    counts = "; ".join(
        f"{measure}: {sum(own.sign > 0 for own in found.values())} ahead, "
        f"{sum(own.sign < 0 for own in found.values())} behind"
        for measure, found in gains.items()
    )
    ahead = [key for key, own in gains["worst"].items() if own.sign > 0]
    pays = (
        "Under the worst of everything none is ahead: one network of equal cost is the better "
        "answer, or as good and simpler."
        if not ahead
        else "Under the worst of everything it pays to mix: "
        + "; ".join(
            f"{title}, {name} {_points(gains['worst'][title, name])}" for title, name in ahead
        )
        + "."
    )
    every = [
        (RECIPES[name].networks > 1, cell)
        for by_seed in cells.values()
        for own in by_seed.values()
        for name, cell in own.items()
    ]
    missed = {
        mixed: [
            100 * float((cell.accuracy("PGD-20") - cell.accuracy("worst")).mean())
            for kind, cell in every
            if kind == mixed
        ]
        for mixed in (True, False)
    }
    return [
        f"{compared} mixtures stand beside a single network of equal cost. By more than two "
        f"standard errors of their gain, {counts}. {pays}",
        "PGD-20 misses "
        f"{np.mean(missed[True]):.1f} points of what is found on a mixture, and "
        f"{np.mean(missed[False]):.1f} on a single network, in the mean: a mixture can look better "
        "under it than it is.",
    ]


def _best_mixtures(cells: Cells) -> list[str]:
    """Return the best mixture of each setting, and what its gain is made of."""
    said = []
    for title, by_seed in cells.items():
        gains = {
            name: found[0]
            for name, recipe in RECIPES.items()
            if recipe.networks > 1 and (found := gain(by_seed, name, "worst")) is not None
        }
        if not gains:
            continue
        best = max(gains, key=lambda name: gains[name].value)
        networks, margin = parts(by_seed, best)
        said.append(
            f"{title}: the best mixture is {best!r}, {_points(gains[best])} points over the "
            "single network of equal cost under the worst of everything. Its networks have "
            f"{networks:+.1f} points on their own, and the margin is {margin:.1f}."
        )
    return said


def missing(cells: Cells) -> list[str]:
    """Return which recipes were not measured, by setting."""
    found = []
    for title in SETTINGS:
        own, expected = cells.get(title, {}).values(), recipes(title)
        lacks = [name for name in expected if not any(name in by for by in own)]
        if lacks:
            found.append(f"{title}: {'all' if len(lacks) == len(expected) else '; '.join(lacks)}")
    return found


def show(cells: Cells) -> None:
    """Print the tables."""
    console = Console()
    for title, by_seed in cells.items():
        table = Table(title=title)
        for head in HEADS:
            table.add_column(head)
        for row in rows(by_seed):
            table.add_row(*_line(row))
        console.print(table)
    for sentence in sentences(cells):
        console.print(sentence, highlight=False)


def write(out: Path, cells: Cells, *, count: int, images: int, epochs: int) -> None:
    """Write the page and its numbers."""
    tables = {title: rows(by_seed) for title, by_seed in cells.items()}
    said, open_cells = sentences(cells), missing(cells)
    page = [
        "# Training mixtures: does it pay?",
        "",
        f"{origin('training_study', f'PyTorch {torch.__version__}')}. Fashion-MNIST, {images} "
        f"training images, {HELD_OUT} of them held out to select epochs and weights, {epochs} "
        f"epochs of each network, batches of {BATCH}, PGD-10 in training; passes are millions of "
        "runs of a network on an image, forward and backward, in training; all accuracies in % on "
        f"the same {count} test images, the mean over seeds. `worst` is the worst of everything "
        f"found for anyone, `standard` with {STANDARD_STEPS} steps included. Gains are paired "
        "differences to the single network of equal cost that was chosen on held-out images, in "
        "points: in brackets the standard error over images, and over seeds after the slash where "
        "there are several. Networks alone are under everything found; the margin is what the "
        "mixture has above their weighted mean.",
        "",
    ]
    page += ["## What it says", "", *(f"- {sentence}" for sentence in said), ""]
    for title, own in tables.items():
        page += [f"## {title}, eps {SETTINGS[title].eps:g}", ""]
        page += [*markdown_table(HEADS, [_line(row) for row in own]), ""]
    if open_cells:
        page += ["## Not measured", "", *(f"- {line}" for line in open_cells), ""]
    numbers = {
        "images": count,
        "trained on": images,
        "epochs": epochs,
        "settings": tables,
        "sentences": said,
    }
    save(out, "training-study", page[:-1], numbers)


def _line(row: Mapping[str, Any]) -> list[str]:
    gains = [_points(Gain(**own)) if own else "" for own in row["gains"].values()]
    return [
        row["recipe"],
        f"{row['passes'] / 1e6:.1f}",
        str(row["seeds"]),
        f"{row['clean']:.1f}",
        *(f"{value:.1f}" for value in row["accuracy"].values()),
        f"{row['worst class']:.1f}",
        ", ".join(f"{value:.1f}" for value in row["members"]),
        f"{row['margin']:.1f}" if row["networks"] > 1 else "",
        *gains,
    ]


def _points(own: Gain) -> str:
    seeds = "" if np.isnan(own.seed_error) else f" / {own.seed_error:.1f}"
    return f"{own.value:+.1f} ({own.image_error:.1f}{seeds})"


def _listed(found: list[tuple[str, int, str]]) -> str:
    if not found:
        return "none"
    return "; ".join(f"{title}, {name}, seed {seed}" for title, seed, name in found)
