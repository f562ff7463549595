"""Reproduce a picture of the paper: `python -m benchmarks.figures NAME`.

NAME.png, NAME.svg and NAME.json, the numbers drawn, are written to `benchmarks/results/figures`.
`cifar` draws finished runs of `mixsolve train`, of any data: `--runs` says where they lie. `all`
is every figure, `cifar` if there are runs.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import style
from mixsolve.base.errors import MixsolveError

NAMES = ("motivating", "synthetic", "exact", "bounds", "game", "reach")
OUT = Path(__file__).parents[1] / "results" / "figures"

logger = logging.getLogger("mixsolve")


def load(name: str) -> Any:
    """Return the module of a figure, with its `measure` and its `draw`."""
    return importlib.import_module(f"benchmarks.figures.{name}")


def main(arguments: list[str] | None = None) -> int:
    """Measure, draw and write; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.figures", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, "cifar", "all"))
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the files written")
    parser.add_argument("--runs", type=Path, help="folder that holds the folders of the runs")
    parser.add_argument(
        "--every", type=int, default=1, help="epochs between two records: evaluation.every"
    )
    options = parser.parse_args(arguments)
    if options.name == "cifar" and options.runs is None:
        parser.error("cifar needs --runs DIR, the folder that holds the runs of `mixsolve train`")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = NAMES if options.name == "all" else (options.name,)
    if options.name == "all" and options.runs is not None:
        names += ("cifar",)
    try:
        for name in names:
            given = {"folder": options.runs, "every": options.every} if name == "cifar" else {}
            began = time.perf_counter()
            figure = load(name)
            numbers = figure.measure(**given)
            numbers["seconds"] = round(time.perf_counter() - began, 1)
            with style.look():
                style.save(name, numbers, figure.draw(numbers), options.out)
            logger.info("%s: %.1f s", name, time.perf_counter() - began)
    except MixsolveError as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
