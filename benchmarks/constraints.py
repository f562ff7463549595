"""The constrained solve against the free one and against cvxpy alone.

`python -m benchmarks.constraints` solves games under linear constraints that bind: a budget for the
expected cost below that of the free optimum, with it bounds on all weights, or 19 other rows. Every
solve runs in a process of its own, kernels loaded and compiled before the clock starts; mixsolve is
repeated, the free and the constrained solve in turn, and the median and the extremes are told.
cvxpy gets the same game as one model of the whole tensor, with Clarabel: once, from the NumPy array
to the weights, at its default tolerances. Written to `benchmarks/results/constraints.{md,json}`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

import mixsolve
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import LinearConstraints, games
from mixsolve.feasible.constraints import expected_cost, weight_bounds

TOLERANCE = 1e-6
REPEATS = 15
GRACE = 120.0  # seconds for imports, building the game and compiling, besides the time limit
GAMES = {
    "gamma 2000x100x10": (2000, 100, 10),
    "gamma 2000x50x100": (2000, 50, 100),
    "gamma 1024x10x4": (1024, 10, 4),
}
ALPHAS = (0.0, 0.05)
CONSTRAINTS = ("budget", "budget and bounds", "20 rows")
COLUMNS = (
    "game", "alpha", "constraints", "free ms", "constrained ms", "over free", "per pass", "cvxpy s",
    "times faster", "value - cvxpy's", "gap / M",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One game under one set of constraints: seconds, values, and the certified gap."""

    game: str
    alpha: float
    constraints: str
    free: list[float]
    constrained: list[float]
    free_passes: float
    passes: float
    value: float
    gap: float
    spread: float
    cvxpy_seconds: float | None = None
    cvxpy_value: float | None = None
    note: str = ""


def limits(name: str, size: int, free: np.ndarray) -> LinearConstraints:
    """Constraints that the free optimum breaks and that can be met."""
    rng = np.random.default_rng(0)
    cost = 0.5 + rng.random(size)
    target = 0.95 * free + 0.05 * np.eye(size)[cost.argmin()]
    budget = expected_cost(cost, float(cost @ target))
    if name == "budget and bounds":
        return budget & weight_bounds(size, 0.5 * target, 1.05 * target + 0.01)
    if name == "20 rows":
        others = rng.standard_normal((19, size))
        return budget & LinearConstraints(others, others @ target + 1e-3 * np.arange(19))
    return budget


def main() -> int:
    """Run all, or one game."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", default="", help="only games whose name contains this")
    parser.add_argument("--time-limit", type=float, default=300.0, metavar="S", help="for cvxpy")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job is not None:
        kind, *job = json.loads(args.job)
        print(json.dumps(_mixsolve(*job) if kind == "mixsolve" else _cvxpy(*job)))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for game in GAMES:
        if args.games not in game:
            continue
        for alpha in ALPHAS:
            for name in CONSTRAINTS:
                peer = name == "budget"
                rows.append(_row(game, alpha, name, args.time_limit if peer else None))
                Console().print(" | ".join(_cells(rows[-1])), highlight=False, soft_wrap=True)
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*_cells(row))
    Console().print(table)
    _save(args.out, rows)
    return 0


def _row(game: str, alpha: float, name: str, peer_limit: float | None) -> Row:
    measured = _in_a_process(["mixsolve", game, alpha, name], None)
    if measured is None:
        raise RuntimeError(f"mixsolve failed on {game}, alpha {alpha}, {name}")
    row = {"game": game, "alpha": alpha, "constraints": name, **measured}
    if peer_limit is None:
        return Row(**row)
    peer = _in_a_process(["cvxpy", game, alpha, name, peer_limit], peer_limit + GRACE)
    if peer is None:
        return Row(**row, note=f"cvxpy gave no answer within {peer_limit:g} s")
    return Row(**row, **peer)


def _in_a_process(job: list[object], seconds: float | None) -> dict | None:
    command = [sys.executable, "-m", "benchmarks.constraints", "--job", json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def _game(game: str, alpha: float, name: str) -> tuple[np.ndarray, LinearConstraints]:
    losses = games.gamma_game(*GAMES[game], seed=0).losses
    free = mixsolve.solve(losses, alpha)
    return losses, limits(name, losses.shape[2], free.weights)


def _mixsolve(game: str, alpha: float, name: str) -> dict:
    losses, constraints = _game(game, alpha, name)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for given, seconds in zip((None, constraints), times, strict=True):
            began = time.perf_counter()
            found = mixsolve.solve(losses, alpha, constraints=given, tol=TOLERANCE)
            if turn:  # the first one loads kernels
                seconds.append(time.perf_counter() - began)
            if given is None:
                free_passes = found.n_passes
    found.raise_for_status()
    return {
        "free": times[0],
        "constrained": times[1],
        "free_passes": free_passes,
        "passes": found.n_passes,
        "value": found.value,
        "gap": found.gap,
        "spread": found.spread,
    }


def _cvxpy(game: str, alpha: float, name: str, time_limit: float) -> dict:
    import cvxpy as cp
    from scipy.sparse import csr_array

    losses, constraints = _game(game, alpha, name)
    n_samples, n_candidates, size = losses.shape
    began = time.perf_counter()
    weights, worst = cp.Variable(size, nonneg=True), cp.Variable(n_samples)
    samples = np.repeat(np.arange(n_samples), n_candidates)
    scores = losses.reshape(-1, size) @ weights
    rules = [cp.sum(weights) == 1, constraints.A_ub @ weights <= constraints.b_ub]
    if alpha == 0.0:
        rules.append(scores <= worst[samples])
        objective = cp.sum(worst) / n_samples
    else:
        mass = cp.exp(scores / alpha - np.log(n_candidates) - worst[samples])
        sums = csr_array((np.ones(samples.size), (samples, np.arange(samples.size))))
        rules.append(sums @ mass <= 1)
        objective = alpha * cp.sum(worst) / n_samples
    model = cp.Problem(cp.Minimize(objective), rules)
    model.solve(solver=cp.CLARABEL, time_limit=time_limit)
    seconds = time.perf_counter() - began
    if weights.value is None or model.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        return {"cvxpy_seconds": seconds, "note": f"cvxpy: {model.status}"}
    return {"cvxpy_seconds": seconds, "cvxpy_value": float(model.value), "note": model.status}


def _cells(row: Row) -> tuple[str, ...]:
    free, constrained = median(row.free), median(row.constrained)
    per_pass = (constrained / row.passes) / (free / row.free_passes)
    peer, faster, difference = "", "", ""
    if row.cvxpy_seconds is not None:
        peer = f"{row.cvxpy_seconds:.3g}"
        least = "" if row.cvxpy_value is not None else "> "
        faster = f"{least}{row.cvxpy_seconds / constrained:.0f}"
    if row.cvxpy_value is not None:
        difference = f"{row.value - row.cvxpy_value:.1e}"
    elif row.note:
        difference = row.note
    return (
        row.game, f"{row.alpha:g}", row.constraints, _spread(row.free), _spread(row.constrained),
        f"{constrained / free:.2f}", f"{per_pass:.2f}", peer, faster, difference,
        f"{row.gap / row.spread:.0e}",
    )  # fmt: skip


def _spread(seconds: list[float]) -> str:
    low, middle, high = (1e3 * pick(seconds) for pick in (min, median, max))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _save(out: Path, rows: list[Row]) -> None:
    page = [
        "# Solving under constraints",
        "",
        f"{origin('constraints')}, load {os.getloadavg()[1]:.1f} over the last five minutes. "
        f"Tolerance {TOLERANCE:g} M; median (least to most) of {REPEATS} solves. `per pass` is the "
        "ratio of seconds per pass over the tensor; cvxpy's seconds are from the array to the "
        "weights, Clarabel inside, once.",
        "",
        *markdown_table(COLUMNS, map(_cells, rows)),
    ]
    save(out, "constraints", page, [asdict(row) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
