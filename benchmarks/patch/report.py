"""The page of the table: means over seeds, and what was not measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import kept
from benchmarks.patch.measure import (
    FACTORS,
    SEEDS,
    SIZES,
    Adversarial,
    Settings,
    Views,
    Vote,
    adversarial_path,
    views_path,
    vote_path,
)
from benchmarks.report import markdown_table, origin, save

_NONE = "not measured"


def write(out: Path, folder: Path, settings: Settings) -> None:
    """Write `patch.md` and `patch.json` of all cells of a folder."""
    rows = [row for size in SIZES if (row := _row(folder, size)) is not None]
    heads = [
        "patch",
        "mixture, certified",
        "attacked, values in [0, 1]",
        "attacked, any values",
        "clean",
        "vote, certified",
        "vote, clean",
        *(f"patch-AT x {factor}, attacked" for factor in FACTORS),
    ]
    page = [
        "# Patches: what a mixture of views certifies",
        "",
        f"{origin('patch', f'PyTorch {torch.__version__}')}.",
        "",
        f"Fashion-MNIST, 28 x 28, {settings.train:,} training images, 5,000 others for everything "
        "that is chosen, small CNNs. Accuracy in percent, mean and standard deviation over seeds "
        "(their number in brackets). The patch is a square anywhere in the image.",
        "",
        "- **mixture**: networks that read disjoint parts of the image, trained on plain images; "
        "which layout is played, and how often, the game decides on validation images. One network "
        "is drawn and run for an image. Certified on all 10,000 test images against every patch, "
        f"whatever its values; attacked on the first {settings.attacked} of them.",
        "- **vote**: the certified vote over 28 bands (Levine, Feizi, NeurIPS 2020), width and "
        "threshold chosen on validation for each patch; 28 runs of the network for an image.",
        "- **patch-AT**: one network trained on patches filled by gradient ascent, for as many "
        "passes as the played views took, 5 and 25 times as many. The attack gives an upper bound "
        f"of what it holds (first {settings.attacked} test images); nothing is certified.",
        "",
        *markdown_table(heads, ([_cell(row.get(head)) for head in heads] for row in rows)),
        "",
        *_sentences(rows),
    ]
    numbers = {"settings": vars(settings), "rows": rows}
    save(out, "patch", page, numbers)


def _row(folder: Path, size: int) -> dict[str, Any] | None:
    """Return the figures of a size, in percent by seed; None without a mixture."""
    views = _found(views_path(folder, size, seed) for seed in SEEDS)
    own = [cell for path in views if (cell := kept(path, Views)) is not None]
    if not own:
        return None
    votes = [
        cell for path in _found(vote_path(folder, s) for s in SEEDS) if (cell := kept(path, Vote))
    ]
    row: dict[str, Any] = {
        "patch": f"{size} x {size}",
        "mixture, certified": [100 * cell.certified for cell in own],
        "attacked, values in [0, 1]": [100 * float(cell.attacked.mean()) for cell in own],
        "attacked, any values": [100 * float(cell.attacked_far.mean()) for cell in own],
        "certified there": [100 * float(cell.certified_here.mean()) for cell in own],
        "clean": [100 * cell.clean for cell in own],
        "views": [
            {name: round(float(w), 3) for name, w in zip(cell.names, cell.weights, strict=True)}
            for cell in own
        ],
        "passes": [cell.passes for cell in own],
        "passes of the pool": [cell.pool_passes for cell in own],
        "exceeded": [
            bool((np.minimum(cell.attacked, cell.attacked_far) < cell.certified_here - 1e-9).any())
            for cell in own
        ],
    }
    places = [list(cell.sizes).index(size) for cell in votes if size in cell.sizes]
    if places:
        row["vote, certified"] = [
            100 * float(cell.certified[j]) for cell, j in zip(votes, places, strict=True)
        ]
        row["vote, clean"] = [
            100 * float(cell.clean[j]) for cell, j in zip(votes, places, strict=True)
        ]
    for factor in FACTORS:
        paths = _found(adversarial_path(folder, size, factor, seed) for seed in SEEDS)
        cells = [cell for path in paths if (cell := kept(path, Adversarial)) is not None]
        if cells:
            head = f"patch-AT x {factor}, attacked"
            row[head] = [100 * float(cell.attacked.mean()) for cell in cells]
            row[f"patch-AT x {factor}, clean"] = [100 * cell.clean for cell in cells]
            row[f"patch-AT x {factor}, passes"] = [cell.passes for cell in cells]
    return row


def _sentences(rows: list[dict[str, Any]]) -> list[str]:
    """Return what else is to be known about each size."""
    found = []
    for row in rows:
        layouts = "; ".join(
            ", ".join(f"{name} {weight:.2f}" for name, weight in own.items())
            for own in row["views"]
        )
        exact = np.mean(row["attacked, any values"]) - np.mean(row["certified there"])
        found.append(
            f"- {row['patch']}: played {layouts}. Training them took "
            f"{_mean(row['passes'])} passes, the whole pool {_mean(row['passes of the pool'])}. "
            f"On the attacked images {_mean(row['certified there'], 1)} % are certified; attacks "
            f"with any values end {exact:.1f} points above that"
            + (", and some end BELOW it." if any(row["exceeded"]) else ", none below it.")
        )
    return found


def _found(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.exists()]


def _mean(values: list[float], digits: int = 0) -> str:
    return f"{np.mean(values):.{digits}f}"


def _cell(value: Any) -> str:
    if value is None:
        return _NONE
    if isinstance(value, str):
        return value
    spread = f" +- {np.std(value, ddof=1):.1f}" if len(value) > 1 else ""
    return f"{np.mean(value):.1f}{spread} ({len(value)})"
