"""Batches of games against a loop of `mixsolve.solve`: `python -m benchmarks.batch`.

Both solve the same games in one process, to the same tolerance, kernels loaded before. A repeat
times the loop over some of the games, then the whole batch; the ratio is that of the seconds a game
within a repeat, so that what else the machine does touches both. Processor time is told as well: it
says what is saved besides the use of more cores.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

from rich.console import Console

import mixsolve
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import games
from mixsolve.base.threads import n_threads

BATCHES = ((1000, 64, 8, 4), (10_000, 16, 4, 3), (100, 512, 16, 6))
ALPHAS = (0.0, 0.05)
LOOPED = 100  # games of a batch that the loop solves in a repeat


@dataclass(frozen=True)
class Row:
    """One batch: medians over the repeats in microseconds a game, and the ratios' extremes."""

    shape: tuple[int, ...]
    alpha: float
    loop: float
    batch: float
    loop_processor: float
    batch_processor: float
    ratio: float
    ratio_range: tuple[float, float]
    one_by_one: int
    largest_gap: float


def measure(shape: tuple[int, ...], alpha: float, repeats: int) -> Row:
    n_games, n_samples, n_candidates, n_classifiers = shape
    drawn = games.gamma_game(n_games * n_samples, n_candidates, n_classifiers, seed=0)
    losses = drawn.losses.reshape(shape)
    some = losses[: min(LOOPED, n_games)]

    def loop() -> None:
        for game in some:
            mixsolve.solve(game, alpha)

    solution = mixsolve.solve_batch(losses, alpha).raise_for_status()
    loop()
    loops, batches = [], []
    for _ in range(repeats):
        loops.append(clock(loop, len(some)))
        batches.append(clock(lambda: mixsolve.solve_batch(losses, alpha), n_games))
    ratios = [one[0] / many[0] for one, many in zip(loops, batches, strict=True)]
    return Row(
        shape=shape,
        alpha=alpha,
        loop=median(wall for wall, _ in loops),
        batch=median(wall for wall, _ in batches),
        loop_processor=median(processor for _, processor in loops),
        batch_processor=median(processor for _, processor in batches),
        ratio=median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        one_by_one=solution.n_one_by_one,
        largest_gap=float((solution.gap / solution.spread).max()),
    )


def clock(work: Callable[[], object], n_games: int) -> tuple[float, float]:
    """Microseconds a game, by the clock and of the processor."""
    began, used = time.perf_counter(), time.process_time()
    work()
    wall, processor = time.perf_counter() - began, time.process_time() - used
    return 1e6 * wall / n_games, 1e6 * processor / n_games


_HEAD = (
    "games, N, m, L", "alpha", "loop", "batch", "times faster (range)", "processor: loop", "batch",
    "times less", "one by one", "largest gap / M",
)  # fmt: skip


def _cells(row: Row) -> list[str]:
    return [
        " x ".join(map(str, row.shape)),
        f"{row.alpha:g}",
        f"{row.loop:.0f}",
        f"{row.batch:.1f}",
        f"{row.ratio:.1f} ({row.ratio_range[0]:.1f} to {row.ratio_range[1]:.1f})",
        f"{row.loop_processor:.0f}",
        f"{row.batch_processor:.1f}",
        f"{row.loop_processor / row.batch_processor:.1f}",
        str(row.one_by_one),
        f"{row.largest_gap:.1e}",
    ]


def markdown(rows: list[Row], repeats: int, note: str) -> list[str]:
    return [
        "# Batches of games against a loop",
        "",
        f"Gamma games, tol 1e-6, microseconds a game: medians of {repeats} repeats. "
        f"{origin('batch')}, {n_threads()} threads." + (f" {note}" if note else ""),
        "",
        *markdown_table(_HEAD, map(_cells, rows)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--note", default="", help="what to say about the machine")
    given = parser.parse_args()
    rows = [measure(shape, alpha, given.repeats) for shape in BATCHES for alpha in ALPHAS]
    page = markdown(rows, given.repeats, given.note)
    save(RESULTS, "batch", page, [asdict(row) for row in rows])
    Console().print("\n".join(page), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
