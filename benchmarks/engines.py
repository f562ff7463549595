"""The passes of the engines on the CPU, side by side: `python -m benchmarks.engines`.

Each pass over a float32 tensor in the memory of this process is made by three engines in turn, and
the least times count:

- the memory engine, by Numba's kernels, which read a NumPy array;
- `TorchLosses(tensor)` as `mixsolve.solve` opens it;
- `TorchLosses(tensor, chunk)`: PyTorch's operations, the ones that run on a GPU. What they take
  here says how many passes over memory they are, not what they take there.

Threads are those of PyTorch and of mixsolve alike, in a process of its own for each number.
PyTorch's wait asleep: on cores that others use, too, threads that spin would measure these. Writes
`engines.md` and `engines.json` to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve.base.threads import ENVIRONMENT_VARIABLE
from mixsolve.engines import open_losses
from mixsolve.engines.base import Losses
from mixsolve.engines.distinct import keep_rows
from mixsolve.engines.memory import MemoryEngine
from mixsolve_torch import TorchLosses

SHAPES = [(2000, 100, 10), (20_000, 20, 10), (2000, 50, 100), (1024, 10, 4), (200_000, 20, 10)]
TARGET = 1.5
ENGINES = ("kernels", "given", "operations")
_CHUNK = 1 << 18
_ASLEEP = {"OMP_WAIT_POLICY": "passive"}
_LEAST_RUNS = 2
_MOST = 3.0  # times the seconds of a pass, for an engine that is slower
_MOST_BITS = 52


def engines(losses: np.ndarray, chunk: int = _CHUNK) -> dict[str, Any]:
    """Open the three engines on the same memory, with uniform weights."""
    tensor = torch.from_numpy(losses)
    n = losses.shape[0]
    opened: dict[str, Losses] = {
        "kernels": open_losses(losses),
        "given": TorchLosses(tensor),
        "operations": TorchLosses(tensor, chunk),
    }
    nothing = np.empty(0, np.uint8), np.empty(0)
    return {name: own.engine(np.full(n, 1.0 / n), *nothing) for name, own in opened.items()}


def passes(shape: tuple[int, int, int]) -> Iterator[tuple[str, dict[str, Callable[[], Any]]]]:
    """Yield every pass by name, for each engine, on a gamma game; `distinct` on 0/1 losses."""
    n, m, n_classifiers = shape
    rng = np.random.default_rng(0)
    shared, own = rng.gamma(1.0, 1.0, (n, 1, 1)), rng.gamma(0.5, 1.5, shape)
    opened = engines((0.5 * shared + own).astype(np.float32))
    spread = opened["kernels"].spread
    weights = rng.dirichlet(np.ones(n_classifiers))
    alpha, room = np.full(n, 0.01 * spread), np.full(n, 0.01 * spread)
    block, limit = np.arange(n) % 4, n * m // 10
    samples, candidates = rng.integers(0, n, n), rng.integers(0, m, n)
    attack = opened["kernels"].gibbs(weights, alpha)

    def soft(engine: Any, hessian: bool) -> Any:
        return engine.soft_response(weights, alpha.copy(), hessian)  # which no engine remembers

    works: dict[str, Callable[[Any], Any]] = {
        "scan": lambda engine: engine.scan(),
        "best_response": lambda engine: engine.best_response(weights),
        "near_response, winners": lambda engine: engine.near_response(weights, 0.01, limit),
        "near_response, slack": lambda engine: engine.near_response(weights, 0.0, limit, room),
        "soft_response": lambda engine: soft(engine, True),
        "soft_response, no Hessian": lambda engine: soft(engine, False),
        "soft_sums": lambda engine: engine.soft_sums(weights, alpha, block, 4),
        "gibbs": lambda engine: engine.gibbs(weights, alpha),
        "gather": lambda engine: engine.gather(samples, candidates),
        "expected_losses": lambda engine: engine.expected_losses(attack),
    }
    for name, work in works.items():
        yield name, {key: _bound(work, engine) for key, engine in opened.items()}
    if n_classifiers <= _MOST_BITS:
        bits = (rng.random(shape) < 0.2 * rng.random((n, 1, 1))).astype(np.float32)
        yield "distinct", {key: _bound(_distinct, own) for key, own in engines(bits).items()}


def _bound(work: Callable[[Any], Any], engine: Any) -> Callable[[], Any]:
    return lambda: work(engine)


def _distinct(engine: Any) -> Any:
    if isinstance(engine, MemoryEngine):
        return keep_rows(engine, False, 1.0)
    return engine.distinct(engine.n_rows, False)


def least(works: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Least times of the engines in turn, until all of them have run for so many seconds.

    One that takes much longer is left out of later turns, but for a few runs.
    """
    times = dict.fromkeys(works, float("inf"))
    spent = dict.fromkeys(works, 0.0)
    for work in works.values():
        work()
    runs = 0
    while runs < _LEAST_RUNS or min(spent.values()) < seconds:
        for name in sorted(works, reverse=runs % 2 == 1):
            if runs >= _LEAST_RUNS and spent[name] > _MOST * seconds:
                continue
            start = time.perf_counter()
            works[name]()
            taken = time.perf_counter() - start
            spent[name] += taken
            times[name] = min(times[name], taken)
        runs += 1
    return times


def measure(
    shapes: list[tuple[int, int, int]], threads: int, seconds: float
) -> list[dict[str, Any]]:
    """Return the least seconds of every pass, in this process."""
    torch.set_num_threads(threads)
    return [
        {"threads": threads, "shape": shape, "pass": name, **least(works, seconds)}
        for shape in shapes
        for name, works in passes(shape)
    ]


def main(words: list[str] | None = None) -> int:
    """Measure in a process for each number of threads, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.5, help="of each pass, at least")
    parser.add_argument("--shapes", nargs="+", default=["x".join(map(str, own)) for own in SHAPES])
    parser.add_argument("--here", action="store_true", help="print the numbers of one process")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    if args.here:
        shapes = [_shape(own) for own in args.shapes]
        print(json.dumps(measure(shapes, args.threads[0], args.seconds)))
        return 0
    rows: list[dict[str, Any]] = []
    for threads in args.threads:
        own = ["--here", "--threads", str(threads), "--seconds", str(args.seconds), "--shapes"]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.engines", *own, *args.shapes],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, **_ASLEEP, ENVIRONMENT_VARIABLE: str(threads)},
        )
        rows += json.loads(done.stdout.splitlines()[-1])
    page = list(_page(rows))
    Console().print("\n".join(page), markup=False, highlight=False)
    save(args.out, "engines", page, rows)
    return 0


def _shape(words: str) -> tuple[int, int, int]:
    n, m, n_classifiers = map(int, words.split("x"))
    return n, m, n_classifiers


def _page(rows: list[dict[str, Any]]) -> Iterator[str]:
    ratios = {name: [row[name] / row["kernels"] for row in rows] for name in ENGINES[1:]}
    spans = {
        name: f"{statistics.median(own):.2f} in the median and {max(own):.3g} at most"
        for name, own in ratios.items()
    }
    yield from (
        "# The engines on the CPU",
        "",
        f"{origin('engines', f'PyTorch {torch.__version__}')}. Least times of a pass over float32 "
        "losses (samples x candidates x classifiers): that of the memory engine in ms; in its unit "
        "that of `TorchLosses(tensor)`, which is read by the same kernels where it lies, and that "
        "of PyTorch's operations, asked for by `chunk`, which are those of a GPU. A solve on the "
        f"CPU uses the former: {spans['given']}, where the aim is at most {TARGET}. The same code "
        "is timed twice there, so what differs from 1 is what else the machine did meanwhile. "
        f"PyTorch's operations: {spans['operations']}. They are a dozen to fifty operations a "
        "chunk, each a walk through the cache, and near rows are the most; with little to do in "
        "each, calling them is what takes the time.",
    )
    for threads in dict.fromkeys(row["threads"] for row in rows):
        here = [row for row in rows if row["threads"] == threads]
        shapes = list(dict.fromkeys(tuple(row["shape"]) for row in here))
        cells = {(row["pass"], tuple(row["shape"])): _cell(row) for row in here}
        names = dict.fromkeys(row["pass"] for row in here)
        yield from ("", f"## {threads} thread{'s' if threads > 1 else ''} each", "")
        head = ["pass", *("x".join(map(str, shape)) for shape in shapes)]
        lines = [[name, *(cells.get((name, shape), "") for shape in shapes)] for name in names]
        yield from markdown_table(head, lines)


def _cell(row: dict[str, Any]) -> str:
    base = row["kernels"]
    return f"{1e3 * base:.3g} ms; {row['given'] / base:.2f}; {row['operations'] / base:.1f}"


if __name__ == "__main__":
    sys.exit(main())
