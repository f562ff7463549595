"""Whether a mixture of one run's snapshots beats the best of them on the worst class.

    python -m benchmarks.worst_class
    python -m benchmarks.worst_class --seeds 0 1 --hours 1
    python -m benchmarks.worst_class --hours 0            writes the page of what is finished

Trains on Fashion-MNIST (Debian's package dataset-fashion-mnist puts the files where they are
found). Runs resume after an interruption, and finished cells are kept: the figure can be spread
over many calls in one folder. Each call writes the page of all that is finished.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks.cells import kept
from benchmarks.report import RESULTS
from benchmarks.worst_class import report
from benchmarks.worst_class.runs import Tested, test_path, tested, validated
from benchmarks.worst_class.settings import RATES

SEEDS = range(5)


def main() -> int:
    """Train, attack, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--hours", type=float, help="begin no cell after so many; 0: only report")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/worst-class"), help="where all is kept"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()

    def late() -> bool:
        return args.hours is not None and time.perf_counter() - began >= 3600 * args.hours

    for seed in args.seeds:
        for rate in RATES:
            if not late():
                print(f"seed {seed}, rate {rate:g}", file=sys.stderr, flush=True)
                validated(rate, seed, args.work)
        if not late():
            print(f"seed {seed}: test images", file=sys.stderr, flush=True)
            tested(seed, args.work)
        _write(args.work, args.out)
    _write(args.work, args.out)
    return 0


def _write(work: Path, out: Path) -> None:
    """Write the page of all that is finished."""
    cells = {seed: kept(test_path(seed, work), Tested) for seed in SEEDS}
    report.write(out, {seed: cell for seed, cell in cells.items() if cell is not None}, SEEDS)


if __name__ == "__main__":
    sys.exit(main())
