"""Whether a mixture beats one network of equal cost: every way to train, three measures.

    python -m benchmarks.training_study
    python -m benchmarks.training_study --settings "MLP, Linf, at" --seeds 0 1 2 --hours 1

Trains on Fashion-MNIST (Debian's package dataset-fashion-mnist puts the files where they are
found) and attacks the same test images with everything. Runs resume after an interruption, and
finished cells are kept: the study can be spread over many calls, in one folder, and several
processes can work on different settings. The most important recipes are first, in all settings, so
that the page is of use long before everything is finished. Each call writes the page of all that
is. At the default scale seed 0 takes some hours of one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection
from pathlib import Path

import torch

from benchmarks.cells import keep, kept
from benchmarks.report import RESULTS
from benchmarks.training_study import report, runs
from benchmarks.training_study.measure import Cell, attacks, make_cell
from benchmarks.training_study.settings import HELD_OUT, RECIPES, SETTINGS, recipes
from mixsolve.base.errors import MixsolveError

_TRAINING_IMAGES = 60_000
_EDITION = 2  # of what a cell holds; cells of another one are not read


def main() -> int:
    """Train, attack, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", metavar="NAME", help=f"from {list(SETTINGS)}")
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help=f"from {list(RECIPES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, default=1000, help="test images (1000)")
    parser.add_argument("--train", type=int, default=9_000, help="training images (9000)")
    parser.add_argument("--epochs", type=int, default=6, help="of each network (6)")
    parser.add_argument("--hours", type=float, help="begin no cell after so many; 0: only report")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/training-study"), help="where all is kept"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    _check("--settings", args.settings, SETTINGS)
    _check("--recipes", args.recipes, RECIPES)
    if not HELD_OUT < args.train <= _TRAINING_IMAGES - HELD_OUT:
        raise MixsolveError(
            f"--train must be from {HELD_OUT + 1} to {_TRAINING_IMAGES - HELD_OUT}, as {HELD_OUT} "
            f"of them, and as many others, give weights; got {args.train}"
        )
    work = args.work / f"edition-{_EDITION}-{args.train}-images-{args.epochs}-epochs"
    began = time.perf_counter()
    for seed in args.seeds:
        for name in RECIPES:
            for title in args.settings or SETTINGS:
                if name not in (args.recipes or RECIPES) or name not in recipes(title):
                    continue
                if args.hours is not None and time.perf_counter() - began >= 3600 * args.hours:
                    break
                _cell(title, name, seed, work, args)
    cells = _finished(work, args.images)
    report.show(cells)
    report.write(args.out, cells, count=args.images, images=args.train, epochs=args.epochs)
    return 0


def _cell(title: str, name: str, seed: int, work: Path, args: argparse.Namespace) -> None:
    """Train and attack, if this was not finished earlier."""
    path = _path(work, args.images, title, name, seed)
    if path.exists():
        return
    print(f"{title}: {name}, seed {seed}", file=sys.stderr, flush=True)
    setting = SETTINGS[title]
    trained = runs.trained(title, name, seed, work, images=args.train, epochs=args.epochs)
    x, y = runs.test_images(args.images)
    keep(path, make_cell(trained, x, y, attacks(setting.norm, setting.eps), seed))


def _finished(work: Path, images: int) -> dict[str, dict[int, dict[str, Cell]]]:
    """Return all cells of a folder."""
    found: dict[str, dict[int, dict[str, Cell]]] = {}
    for title in SETTINGS:
        for name in recipes(title):
            for path in _path(work, images, title, name, 0).parent.glob("seed-*.npz"):
                cell = kept(path, Cell)
                if cell is not None:
                    seed = int(path.stem.removeprefix("seed-"))
                    found.setdefault(title, {}).setdefault(seed, {})[name] = cell
    return found


def _path(work: Path, images: int, title: str, name: str, seed: int) -> Path:
    folder = work / f"cells-of-{images}" / runs.slug(title) / runs.slug(name)
    return folder / f"seed-{seed}.npz"


def _check(option: str, given: list[str] | None, known: Collection[str]) -> None:
    for name in given or ():
        if name not in known:
            raise MixsolveError(f"{option} must be from {', '.join(known)}; got {name!r}")


if __name__ == "__main__":
    sys.exit(main())
