"""Every method and peer on the games of the benchmark: `python -m benchmarks.solvers exact`.

`exact` and `entropic` write a table (Markdown), the figures (JSON) and a log-log plot of certified
gap against time to `benchmarks/results/`. All solvers of a game run one after the other in one
session of the same machine, each in a process of its own, at the same tolerance; ratios between
them, and to one best-response pass over the tensor, carry over to other machines, seconds do not.
With `--games` or `--solvers` only a part is run: it replaces its rows of the figures written
before, and the other rows say when they were measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks import latency
from benchmarks.presolve import GENERATORS
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import games
from mixsolve.bench import report, runner

TOLERANCE = 1e-8
ALPHAS = (1.0, 0.1, 0.01, 0.001, 0.0001)  # of M
CONES = ("cvxpy", "clarabel", "scs")  # out of reach for the entropic problem on large tensors
CONE_ENTRIES = 1_000_000

Panels = dict[str, tuple[list[runner.SolverRow], float]]

GAMES: dict[str, Callable[[], np.ndarray]] = {
    "paper2d 0/1 1000x1000x10": lambda: games.paper2d(seed=0).losses,
    "paper2d logistic 1000x1000x10": lambda: games.paper2d(loss="logistic", seed=0).losses,
    "gamma 2000x20x10": lambda: games.gamma_game(2000, 20, 10, seed=0).losses,
    "gamma 2000x100x10": lambda: games.gamma_game(2000, 100, 10, seed=0).losses,
    "gamma 10000x100x10": lambda: games.gamma_game(10_000, 100, 10, seed=0).losses,
    "gamma 10000x50x30": lambda: games.gamma_game(10_000, 50, 30, seed=0).losses,
    "gamma 2000x50x100": lambda: games.gamma_game(2000, 50, 100, seed=0).losses,
    "gamma 1024x10x4": lambda: games.gamma_game(1024, 10, 4, seed=0).losses,
    "integers 0..3 2000x20x10": lambda: games.integer_game(2000, 20, 10, seed=0).losses,
    "integers 0..3 800x40x9": lambda: games.integer_game(800, 40, 9, seed=0).losses,
    "lognormal 3000x80x10": lambda: np.random.default_rng(0).lognormal(size=(3000, 80, 10)),
    "near twins 1500x60x12": lambda: GENERATORS["near twins"](*_drawn(1500, 60, 12)),
    "sparse 0/1 2000x200x14": lambda: GENERATORS["sparse 0/1"](*_drawn(2000, 200, 14)),
    "digits, real attacks": lambda: digits(),
}


def _drawn(*shape: int) -> tuple[np.random.Generator, tuple[int, ...]]:
    return np.random.default_rng(0), shape


def digits() -> np.ndarray:
    """Losses of the demo: four small networks on held-out digits under real attacks."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mixsolve", "demo", "--out", folder, "--replace"]
        subprocess.run(command, check=True, capture_output=True)
        return np.load(Path(folder) / "losses.npy")


def main() -> int:
    """Run one suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=("exact", "entropic"))
    parser.add_argument(
        "--redraw", action="store_true", help="only write page and picture of the figures again"
    )
    parser.add_argument("--games", default="", help="only games whose name contains this")
    parser.add_argument("--solvers", default="", help="only these, comma-separated")
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="S")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.redraw:
        _redraw(args.suite, args.out)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    panels: Panels = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in GAMES.items():
            if args.games not in name:
                continue
            losses = make()
            path = Path(folder) / "losses.npy"
            np.save(path, losses)
            spread = float(losses.max()) - float(losses.min())
            for share in (0.0,) if args.suite == "exact" else ALPHAS:
                title = name if share == 0.0 else f"{name}, alpha {share:g} M"
                alpha = share * spread
                wanted = args.solvers.split(",") if args.solvers else runner.solvers_for(alpha)
                large = share > 0.0 and losses.size > CONE_ENTRIES
                rows = [
                    runner.run(solver, path, alpha, TOLERANCE, args.time_limit)
                    for solver in wanted
                    if solver in runner.solvers_for(alpha) and not (large and solver in CONES)
                ]
                panels[title] = (rows, spread)
                console.print(report.table(rows, spread, title))
        part = bool(args.games or args.solvers)
    figures = {} if part else latency.FIGURES[args.suite](Path(folder))
    _save(args.suite, args.out, panels, figures, part)
    return 0


def _merged(suite: str, out: Path, panels: Panels) -> tuple[Panels, dict[str, str]]:
    """What was run, in place of the same rows of the figures written before."""
    path = out / f"{suite}.json"
    if not path.exists():
        return panels, {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    day = kept.get("day", "earlier")
    merged: Panels = {}
    spreads: dict[str, float] = {}
    for title in [*kept["games"], *(title for title in panels if title not in kept["games"])]:
        rows, spread = panels.get(title, ([], None))
        done = {row.solver for row in rows}
        old = [runner.SolverRow(**row) for row in kept["games"].get(title, [])]
        old = [_dated(row, day) for row in old if row.solver not in done]
        merged[title] = [*rows, *old], _spread(title, spreads) if spread is None else spread
    return merged, kept.get("figures", {})


def _behind(panels: Panels) -> list[str]:
    """How far behind the exact method its conventional form is: the same rounds with HiGHS."""
    lines = []
    for title, (rows, _) in panels.items():
        own, other = (
            next((row for row in rows if row.solver == name), None)
            for name in ("lp", "cutting-planes")
        )
        if own is None or other is None or not own.seconds or not own.pass_seconds:
            continue
        times = f"{other.seconds / own.seconds:.0f}" if other.seconds else "ended without an answer"
        lines.append([title, f"{own.seconds / own.pass_seconds:.1f}", times])
    if not lines:
        return []
    head = ["game", "lp, in passes", "cutting planes over lp"]
    return ["## Cutting planes with HiGHS", "", *markdown_table(head, lines), ""]


def _dated(row: runner.SolverRow, day: str) -> runner.SolverRow:
    """A row of an earlier run that says so."""
    if "measured" in row.note:
        return row
    return replace(row, note=f"{row.note}; measured {day}".removeprefix("; "))


def _spread(title: str, known: dict[str, float]) -> float:
    name = title.partition(", alpha")[0]
    if name not in known:
        losses = GAMES[name]()
        known[name] = float(losses.max()) - float(losses.min())
    return known[name]


def _save(
    suite: str,
    out: Path,
    panels: Panels,
    figures: dict[str, str],
) -> None:
    page = [
        f"# Solvers on the {suite} problem",
        "",
        f"{origin(f'solvers {suite}')}. Tolerance {TOLERANCE:g} M. "
        "`in passes` is seconds over the seconds of one best response on the tensor as stored, "
        "`passes` counts the passes. The certificate is recomputed alike for all.",
        "",
    ]
    for title, (rows, spread) in panels.items():
        page += [f"## {title}", "", report.markdown(rows, spread), ""]
    page += _behind(panels)
    if figures:
        page += ["## Figures", "", *markdown_table(["figure", "measured"], figures.items()), ""]
    page += [f"![certified gap against time]({suite}.png)"]
    data = {title: [asdict(row) for row in rows] for title, (rows, _) in panels.items()}
    day = time.strftime("%Y-%m-%d")
    save(out, suite, page, {"games": data, "figures": figures, "day": day})
    report.plot(panels, out / f"{suite}.png")


def _redraw(suite: str, out: Path) -> None:
    """Write the page and draw the picture of a suite from its figures."""
    kept = json.loads((out / f"{suite}.json").read_text(encoding="utf-8"))
    spreads: dict[str, float] = {}
    panels = {
        title: ([runner.SolverRow(**row) for row in rows], _spread(title, spreads))
        for title, rows in kept["games"].items()
    }
    _save(suite, out, panels, kept["figures"])


if __name__ == "__main__":
    sys.exit(main())
