"""What presolve costs and saves: `python -m benchmarks.presolve`.

Thirty games, three of each of ten kinds, are solved with presolve and without, in turn, in one
process. The least time of many counts, of the process and all its threads, so that other work on
the machine does not; and the ratio of the time with presolve to the better of the two is what
presolve may cost: 1.1 is the most that is wanted. Writes `benchmarks/results/presolve.md`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

import mixsolve
from benchmarks.fuzz.draw import KINDS as DRAWN
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import games
from mixsolve.base.tuning import tuning

TOLERANCE = 1e-8
WANTED = 1.1
_LEAST_RUNS = 7
Shape = tuple[int, int, int]


def near_twins(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Classifiers in pairs that nearly agree, with losses of heavy tails."""
    one = rng.standard_t(3.0, size=(*shape[:2], shape[2] // 2))
    return np.concatenate([one, one + 1e-3 * rng.standard_normal(one.shape)], axis=2)


def sparse(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Losses 0 and 1, dense where a sample is hard for a classifier."""
    likely = rng.beta(0.5, 2.0, (shape[0], 1, shape[2]))
    return (rng.random(shape) < likely).astype(np.uint8)


def repeated(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Restarts of an attack that end in few different points."""
    few = DRAWN["gamma"](rng, (shape[0], max(2, shape[1] // 10), shape[2]))
    ends = rng.integers(0, few.shape[1], shape[:2])
    return few[np.arange(shape[0])[:, None], ends]


def attack_steps(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Steps of an attack that hardly ever loses what it has won from a classifier."""
    steps = rng.normal(0.3, 0.2, shape) * rng.random((shape[0], 1, shape[2]))
    return np.cumsum(np.maximum(steps, 0.0), axis=1)


def planar(loss: str, shape: Shape, seed: int) -> np.ndarray:
    """The paper's game in the plane."""
    return games.paper2d(*shape, loss=loss, seed=seed).losses


Generator = Callable[[np.random.Generator, Shape], np.ndarray]
GENERATORS: dict[str, Generator] = {
    "gamma": DRAWN["gamma"],
    "lognormal": DRAWN["lognormal"],
    "near twins": near_twins,
    "sparse 0/1": sparse,
    "integers": lambda rng, shape: rng.integers(0, 4, shape).astype(np.float64),
    "vertices": DRAWN["vertices"],
    "planar 0/1": lambda rng, shape: planar("zero-one", shape, 0),
    "planar logistic": lambda rng, shape: planar("logistic", shape, 0),
    "repeated": repeated,
    "attack steps": attack_steps,
}
SHAPES: tuple[Shape, ...] = ((500, 20, 6), (1500, 60, 12), (2000, 200, 14))


@dataclass(frozen=True)
class Line:
    """Least seconds on one game.

    Attributes
    ----------
    game : str
        Kind and shape.
    alpha : float
        Of the spread of the losses.
    on, off : float
        Seconds with and without presolve.
    message : str
        What presolve did.
    """

    game: str
    alpha: float
    on: float
    off: float
    message: str

    @property
    def cost(self) -> float:
        """Time with presolve over the better of the two."""
        return self.on / min(self.on, self.off)


def measure(game: str, losses: np.ndarray, share: float, seconds: float) -> Line:
    """Solve with and without presolve in turn for about `seconds`, seven times at least."""
    alpha = share * (float(losses.max()) - float(losses.min()))
    least = {True: np.inf, False: np.inf}
    began, runs, message = time.perf_counter(), 0, ""
    while runs <= _LEAST_RUNS or time.perf_counter() - began < seconds:
        for presolve in (True, False) if runs % 2 else (False, True):
            before = time.process_time()
            solution = mixsolve.solve(losses, alpha, tol=TOLERANCE, presolve=presolve)
            if runs:  # the first compiles
                least[presolve] = min(least[presolve], time.process_time() - before)
            if presolve:
                message = solution.message
        runs += 1
    done = message.partition("presolve ")[2].partition(";")[0]
    return Line(game, share, least[True], least[False], done)


def main() -> int:
    """Measure the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default="", help="only kinds whose name contains this")
    parser.add_argument("--alpha", type=float, default=0.0, help="of M; 0 for the exact problem")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each game")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    tuning.uncompiled_entries = 0  # a game of a process that solves many
    warnings.simplefilter("ignore", mixsolve.ConvergenceWarning)
    console, lines = Console(), []
    for kind, make in GENERATORS.items():
        if args.kinds not in kind:
            continue
        for number, shape in enumerate(SHAPES):
            losses = make(np.random.default_rng(number), shape)
            game = f"{kind} {'x'.join(map(str, losses.shape))}"
            line = measure(game, losses, args.alpha, args.seconds)
            console.print(
                f"{line.cost:.2f}: {1e3 * line.on:.2f} ms, {1e3 * line.off:.2f} off; {game}"
            )
            lines.append(line)
    if not args.kinds:
        _save(args.out, lines)
    return 0


def _save(out: Path, lines: list[Line]) -> None:
    worst = max(line.cost for line in lines)
    over = sum(line.cost > WANTED for line in lines)
    page = [
        "# What presolve costs and saves",
        "",
        f"{origin('presolve')}. Tolerance {TOLERANCE:g} M. CPU seconds of the process and its "
        "threads, the least of many runs that alternate between with and without presolve; "
        "`cost` is the time with presolve over the better of the two.",
        "",
        *markdown_table(
            ["game", "with presolve, ms", "without, ms", "cost", "what presolve did"],
            (
                [line.game, f"{1e3 * line.on:.2f}", f"{1e3 * line.off:.2f}", f"{line.cost:.2f}",
                 line.message or "nothing"]
                for line in lines
            ),
        ),
        "",
        f"Worst of {len(lines)} games: {worst:.2f}; above {WANTED:g}: {over}.",
    ]  # fmt: skip
    save(out, "presolve", page, [asdict(line) for line in lines])


if __name__ == "__main__":
    raise SystemExit(main())
