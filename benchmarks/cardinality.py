"""Few models: branch and bound on the game's own bounds against one mixed-integer program.

`python -m benchmarks.cardinality` looks for the best mixtures of at most k = 1, ..., 6 classifiers
in games of continuous losses, where all classifiers are alike (the worst case: nothing tells a
choice from the next), and in the paper's 0/1 games. `scipy.optimize.milp` (HiGHS) gets the same
game as one program, a row for each distinct candidate of a sample and a binary for each classifier.
Every solve runs in a process of its own, once, kernels loaded before the clock starts. Written to
`benchmarks/results/cardinality.{md,json}`.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import mixsolve
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import games

TOLERANCE = 1e-6
MODELS = (1, 2, 3, 4, 5, 6)
GRACE = 120.0  # seconds for imports and building the program, besides the time limit
GAMES: dict[str, Callable[[], np.ndarray]] = {
    "gamma 2000x20x10": lambda: games.gamma_game(2000, 20, 10, seed=0).losses,
    "gamma 2000x20x20": lambda: games.gamma_game(2000, 20, 20, seed=0).losses,
    "gamma 2000x20x40": lambda: games.gamma_game(2000, 20, 40, seed=0).losses,
    "paper2d 0/1 1000x1000x10": lambda: games.paper2d(1000, 1000, 10, seed=0).losses,
    "paper2d 0/1 1000x1000x20": lambda: games.paper2d(1000, 1000, 20, seed=0).losses,
    "paper2d 0/1 1000x1000x40": lambda: games.paper2d(1000, 1000, 40, seed=0).losses,
}
COLUMNS = (
    "game", "k", "seconds", "nodes", "passes", "value", "gap / M", "milp s", "milp value",
    "milp gap / M",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One game and number of models; None where there was no answer."""

    game: str
    max_models: int
    seconds: float | None = None
    nodes: int | None = None
    passes: float | None = None
    value: float | None = None
    gap: float | None = None
    spread: float = 1.0
    milp_seconds: float | None = None
    milp_value: float | None = None
    milp_gap: float | None = None


def main() -> int:
    """Run all, or some games."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", default="", help="only games whose name contains this")
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="S", help="for each")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job is not None:
        kind, game, models, limit = json.loads(args.job)
        solver = _mixsolve if kind == "mixsolve" else _milp
        print(json.dumps(solver(GAMES[game](), models, limit)))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for game in GAMES:
        if args.games not in game:
            continue
        for models in MODELS:
            found = [_in_a_process(kind, game, models, args) for kind in ("mixsolve", "milp")]
            rows.append(Row(game, models, **found[0], **found[1]))
            Console().print(" | ".join(_cells(rows[-1])), highlight=False, soft_wrap=True)
    _save(args.out, rows, args.time_limit)
    return 0


def _in_a_process(kind: str, game: str, models: int, args: argparse.Namespace) -> dict[str, Any]:
    job = json.dumps([kind, game, models, args.time_limit])
    command = [sys.executable, "-m", "benchmarks.cardinality", "--job", job]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=args.time_limit + GRACE, check=False
        )
    except subprocess.TimeoutExpired:
        return {}
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def _mixsolve(losses: np.ndarray, models: int, limit: float) -> dict[str, Any]:
    warnings.simplefilter("ignore", mixsolve.ConvergenceWarning)
    for few in (2, 1):  # loads the kernels
        mixsolve.solve(losses[:50, :5, :4], max_models=few)
    mixsolve.solve(losses, max_iter=1)
    began = time.perf_counter()
    found = mixsolve.solve(losses, max_models=models, tol=TOLERANCE, time_limit=limit)
    return {
        "seconds": time.perf_counter() - began,
        "nodes": found.nit,
        "passes": found.n_passes,
        "value": found.value,
        "gap": found.gap,
        "spread": found.spread,
    }


def _milp(losses: np.ndarray, models: int, limit: float) -> dict[str, Any]:
    """The game as one program in the weights, the binaries, and each sample's worst loss."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import block_array, coo_array, csr_array, eye_array

    tables = [np.unique(table, axis=0) for table in losses]
    samples = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    rows, size, n = np.concatenate(tables).astype(np.float64), losses.shape[2], len(tables)
    worst = coo_array((-np.ones(samples.size), (np.arange(samples.size), samples)))
    identity = eye_array(size)
    matrix = block_array(
        [[csr_array(rows), None, worst], [identity, -identity, None]], format="csr"
    )
    sums = np.zeros((2, 2 * size + n))
    sums[0, :size] = sums[1, size : 2 * size] = 1.0
    free = np.concatenate([np.zeros(2 * size), np.full(n, -np.inf)])
    most = np.concatenate([np.ones(2 * size), np.full(n, np.inf)])
    began = time.perf_counter()
    found = milp(
        np.concatenate([np.zeros(2 * size), np.full(n, 1.0 / n)]),
        integrality=np.concatenate([np.zeros(size), np.ones(size), np.zeros(n)]),
        bounds=Bounds(free, most),
        constraints=[
            LinearConstraint(matrix, -np.inf, 0.0),
            LinearConstraint(sums, [1.0, 0.0], [1.0, models]),
        ],
        options={"time_limit": limit, "mip_rel_gap": 1e-6},
    )
    seconds = time.perf_counter() - began
    if found.x is None:
        return {"milp_seconds": seconds}
    return {
        "milp_seconds": seconds,
        "milp_value": float(found.fun),
        "milp_gap": float(found.fun - found.mip_dual_bound),
    }


def _cells(row: Row) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    gaps = [None if gap is None else gap / row.spread for gap in (row.gap, row.milp_gap)]
    return (
        row.game,
        str(row.max_models),
        number(row.seconds, ".3g"),
        number(row.nodes, "d"),
        number(row.passes, ".0f"),
        number(row.value, ".6f"),
        number(gaps[0], ".1e"),
        number(row.milp_seconds, ".3g"),
        number(row.milp_value, ".6f"),
        number(gaps[1], ".1e"),
    )


def _save(out: Path, rows: list[Row], limit: float) -> None:
    page = [
        "# Few models",
        "",
        f"{origin('cardinality')}. Tolerance {TOLERANCE:g} M, {limit:g} s for each solve: a gap "
        "above the tolerance means that they were over. `nodes` are those examined, `passes` those "
        "over the tensor as given. `milp` is SciPy's (HiGHS) on the whole game, of which it sees "
        "distinct candidates only; - where it found nothing in time. One run each.",
        "",
        *markdown_table(COLUMNS, map(_cells, rows)),
    ]
    save(out, "cardinality", page, [asdict(row) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
