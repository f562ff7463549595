"""Fuzz the solvers: `python -m benchmarks.fuzz --games 100000 --seed 1`.

Random and degenerate games of all kinds are solved every way (`benchmarks.fuzz.draw`,
`benchmarks.fuzz.entries`); each success is judged in extended precision, a part of them by HiGHS or
by a slow independent minimiser too (`benchmarks.fuzz.judge`). The exit code is 1 where an answer
that claims success is wrong, a solve crashes, or one takes five seconds.
"""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.fuzz.entries import WAYS
from benchmarks.fuzz.run import Result, count, run
from benchmarks.report import RESULTS, markdown_table, origin, save

_FAULTS = ("wrong", "crash", "slow", "hung")
_COLUMNS = ("games", "solved", "ended short", "by HiGHS", "by descent", *_FAULTS)


def page(results: list[Result], command: str, seed: int) -> list[str]:
    """The counts as a page of Markdown."""
    shares = [result.share for result in results]
    faults = sum(bool(result.faults) for result in results)
    lines = [
        "# Fuzz: random and degenerate games, judged in extended precision",
        "",
        f"{len(results):,} games of seed {seed}, tol 1e-6. {origin(command)}.",
        "",
        f"**Games with a fault: {faults}.** A fault is an answer that claims success and is wrong "
        "(weights, values, bounds or gap recomputed from the losses and the attack do not hold, or "
        "another solver does better), an exception, or more than 5 s of the processor. *Ended "
        "short*: the solver itself says that it did not reach the tolerance (a limit of "
        "iterations, or failed). "
        f"Largest recomputed gap of a success over its tolerance: {max(shares, default=0.0):.3f}.",
    ]
    for by, title in (
        ("kind", "Losses"), ("traits", "What was done to them (several a game)"),
        ("way", "Way in"), ("method", "Method"),
    ):  # fmt: skip
        counted = count(results, by)
        lines += ["", f"## {title}", ""]
        rows = [
            [name, *(f"{counted[name][column]:,}" for column in _COLUMNS)]
            for name in sorted(counted)
        ]
        lines += markdown_table([by.removesuffix("s"), *_COLUMNS], rows)
    for by, name in (("highs", "HiGHS"), ("descent", "descent")):
        found = [getattr(result, by) for result in results if getattr(result, by) is not None]
        if found:
            agree = int((np.array(found) <= 2e-6).sum())
            lines += [
                "",
                f"{name}: {agree:,} of {len(found):,} values agree to 2e-6 of the spread; in the "
                "others the rounding of the losses themselves is larger than that.",
            ]
    return lines


def _read(path: Path) -> list[Result]:
    """Results that an earlier run has kept; its seed and way must be the same."""
    results = [Result(**json.loads(line)) for line in path.read_text().splitlines()]
    for result in results:
        result.traits, result.statuses = tuple(result.traits), tuple(result.statuses)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--games", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first game")
    parser.add_argument("--way", choices=list(WAYS), help="solve all games this way")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument(
        "--kept", type=Path, help="file of results, a line each: what is there is not done again"
    )
    parser.add_argument("--out", type=Path, default=None, help=f"folder, for example {RESULTS}")
    given = parser.parse_args()
    console = Console(stderr=True)
    results = _read(given.kept) if given.kept is not None and given.kept.exists() else []
    done = {result.number for result in results}
    numbers = [n for n in range(given.first, given.first + given.games) if n not in done]
    answers = run(iter(numbers), given.seed, given.workers, given.way)
    with nullcontext() if given.kept is None else given.kept.open("a") as kept:
        try:
            for result in track(answers, "games", total=len(numbers), console=console):
                results.append(result)
                if kept is not None:
                    print(json.dumps(asdict(result)), file=kept, flush=True)
                for what, words in result.faults.items():
                    console.print(
                        f"game {result.number} ({result.kind}; {', '.join(result.traits)}; "
                        f"{result.way} {result.method}): {what}: {words}",
                        markup=False,
                    )
        except KeyboardInterrupt:
            console.print(f"interrupted after {len(results)} games")
    command = f"fuzz --games {given.games} --seed {given.seed}"
    command += f" --way {given.way}" if given.way else ""
    lines = page(results, command, given.seed)
    print("\n".join(lines))
    if given.out is not None:
        faulty = [asdict(result) for result in results if result.faults]
        counts = {by: count(results, by) for by in ("kind", "traits", "way", "method")}
        save(given.out, "fuzz", lines, {"counts": counts, "faults": faulty})
    return int(any(result.faults for result in results))


if __name__ == "__main__":
    sys.exit(main())
