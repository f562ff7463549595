"""The grouped solve against the plain one, and against cvxpy alone.

`python -m benchmarks.groups` solves one game plainly, for its worst of 10 and of 100 groups, with
bounds, and for a tail. All kinds take turns in one process, and the least of many runs of each is
told, as a ratio to the plain one: so load on the machine weighs on all alike. cvxpy gets the same
game as one model of the whole tensor, with Clarabel, once, from the array to the weights. Written
to `benchmarks/results/groups.{md,json}`.
"""

import argparse
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import mixsolve
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import games

SHAPE = (2000, 100, 10)
COLUMNS = (
    "game",
    "ms",
    "over plain",
    "rounds",
    "gap / M",
    "Clarabel s",
    "times faster",
    "apart / M",
)


@dataclass
class Row:
    """One kind of game: least seconds, and the certificate."""

    game: str
    seconds: float
    rounds: int
    gap: float
    spread: float
    value: float
    clarabel_seconds: float | None = None
    clarabel_value: float | None = None


def kinds(n_samples: int) -> dict[str, dict[str, Any]]:
    """The choices of the attacker, by name."""
    rng = np.random.default_rng(0)
    ten, hundred = rng.integers(0, 10, n_samples), rng.integers(0, 100, n_samples)
    return {
        "plain": {},
        "worst of 10 groups": {"groups": ten},
        "worst of 100 groups": {"groups": hundred},
        "10 groups, at most 1.2 times their share": {"groups": ten, "group_weight": 1.2},
        "worst tenth of the samples": {"tail": 0.1},
        "worst tenth of the worst of 10 groups": {"groups": ten, "tail": 0.1},
    }


def clarabel(losses: np.ndarray, choice: dict[str, Any]) -> tuple[float, float]:
    """Seconds and value of one cvxpy model of the whole game."""
    import cvxpy as cp

    began = time.perf_counter()
    n_samples, n_candidates, size = losses.shape
    group = choice.get("groups", np.zeros(n_samples, dtype=np.int64))
    share = np.bincount(group) / n_samples
    weights, worst = cp.Variable(size, nonneg=True), cp.Variable(n_samples)
    scores = losses.reshape(-1, size) @ weights
    rules = [cp.sum(weights) == 1, scores <= worst[np.repeat(np.arange(n_samples), n_candidates)]]
    member = (group[None] == np.arange(share.size)[:, None]) / (share[:, None] * n_samples)
    if "tail" in choice:
        level, above = cp.Variable(share.size), cp.Variable(n_samples, nonneg=True)
        rules.append(above >= worst - level[group])
        risks = level + member @ above / choice["tail"]
    else:
        risks = member @ worst
    if "group_weight" in choice:
        level, above = cp.Variable(), cp.Variable(share.size, nonneg=True)
        rules.append(above >= risks - level)
        objective = level + choice["group_weight"] * share @ above
    else:
        objective = cp.max(risks)
    value = cp.Problem(cp.Minimize(objective), rules).solve(solver=cp.CLARABEL)
    return time.perf_counter() - began, float(value)


def main() -> int:
    """Run all, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-clarabel", action="store_true")
    args = parser.parse_args()
    losses = games.gamma_game(*SHAPE, seed=0).losses
    chosen = kinds(SHAPE[0])
    rows = {}
    for name, choice in chosen.items():
        found = mixsolve.solve(losses, **choice)
        rows[name] = Row(name, np.inf, found.nit, found.gap, found.spread, found.value)
    for _ in range(args.repeats):
        for name, choice in chosen.items():
            began = time.perf_counter()
            mixsolve.solve(losses, **choice)
            rows[name].seconds = min(rows[name].seconds, time.perf_counter() - began)
    if not args.no_clarabel:
        for name, choice in chosen.items():
            if choice:
                rows[name].clarabel_seconds, rows[name].clarabel_value = clarabel(losses, choice)
    shape = "x".join(map(str, SHAPE))
    page = [
        "# The attacker also chooses whom",
        "",
        f"{origin('groups')}. gamma {shape}, tolerance 1e-6 M, least of {args.repeats} solves that "
        "take turns. Clarabel's seconds are from the array to the weights, through cvxpy, once.",
        "",
        *markdown_table(COLUMNS, [_cells(row, rows["plain"].seconds) for row in rows.values()]),
        "",
    ]
    save(RESULTS, "groups", page, [asdict(row) for row in rows.values()])
    print((RESULTS / "groups.md").read_text())
    return 0


def _cells(row: Row, plain: float) -> list[str]:
    cells = [
        row.game, f"{1e3 * row.seconds:.3g}", f"{row.seconds / plain:.2f}", str(row.rounds),
        f"{row.gap / row.spread:.0e}",
    ]  # fmt: skip
    if row.clarabel_seconds is None or row.clarabel_value is None:
        return [*cells, "", "", ""]
    apart = abs(row.value - row.clarabel_value) / row.spread
    faster = row.clarabel_seconds / row.seconds
    return [*cells, f"{row.clarabel_seconds:.3g}", f"{faster:.0f}", f"{apart:.0e}"]


if __name__ == "__main__":
    raise SystemExit(main())
