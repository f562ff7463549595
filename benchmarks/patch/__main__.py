"""Patches on Fashion-MNIST: certified mixtures of views, a certified vote, adversarial training.

    python -m benchmarks.patch
    python -m benchmarks.patch --sizes 4 6 --seeds 0 --factors 1 --hours 1

Debian's package dataset-fashion-mnist puts the images where they are found. Finished cells are
kept: the table can be spread over many calls, in one folder. Each call writes the page of all that
is finished, and says of the rest that it was not measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.cells import keep
from benchmarks.patch import report
from benchmarks.patch.measure import (
    FACTORS,
    SEEDS,
    SIZES,
    Settings,
    adversarial_cell,
    adversarial_path,
    views_cell,
    views_path,
    vote_cell,
    vote_path,
)
from benchmarks.report import RESULTS


def main() -> int:
    """Train, certify, attack, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of patches (4 6 8 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--factors", type=int, nargs="*", default=FACTORS, help="costs (1 5 25)")
    parser.add_argument("--train", type=int, default=10_000, help="training images (10000)")
    parser.add_argument("--epochs", type=int, default=4, help="of each view (4)")
    parser.add_argument("--images", type=int, default=200, help="test images attacked (200)")
    parser.add_argument("--hours", type=float, help="begin no cell after so many; 0: only report")
    parser.add_argument("--work", type=Path, default=Path("runs/patch"), help="where all is kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(args.train, args.epochs, args.images)
    folder = args.work / settings.folder
    began = time.perf_counter()
    for path, make in _cells(args, settings, folder):
        if args.hours is not None and time.perf_counter() - began >= 3600 * args.hours:
            break
        if path.exists():
            continue
        print(path.relative_to(folder).with_suffix(""), file=sys.stderr, flush=True)
        keep(path, make())
        report.write(args.out, folder, settings)
    report.write(args.out, folder, settings)
    return 0


def _cells(
    args: argparse.Namespace, settings: Settings, folder: Path
) -> list[tuple[Path, Callable[[], Any]]]:
    """Return all cells in the order in which they are made: the cheap ones first."""
    cells: list[tuple[Path, Callable[[], Any]]] = []
    for seed in args.seeds:
        for size in args.sizes:
            cells.append(
                (views_path(folder, size, seed), lambda p=size, s=seed: views_cell(settings, p, s))
            )
        cells.append((vote_path(folder, seed), lambda s=seed: vote_cell(settings, s)))
    for factor in args.factors:
        for seed in args.seeds:
            for size in args.sizes:
                cells.append(
                    (
                        adversarial_path(folder, size, factor, seed),
                        lambda p=size, f=factor, s=seed: adversarial_cell(
                            settings, folder, p, f, s
                        ),
                    )
                )
    return cells


if __name__ == "__main__":
    sys.exit(main())
