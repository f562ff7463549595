"""What the first calls on a machine wait for: imports and compilation, entry point by entry point.

Every call is the first of a process of its own. All processes share one cache of kernels, which is
empty at the beginning: what one has compiled the next ones find. At last `mixsolve warmup` compiles
what is left. Compilation runs on one processor; on a busy machine the processor's seconds
say what a quiet one would wait.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, markdown_table, origin, save

_SMALL = "losses = rng.random((50, 6, 5))"
_LARGE = "losses = rng.gamma(0.5, 1.5, (2000, 20, 10)) + 0.5 * rng.gamma(1.0, 1.0, (2000, 1, 1))"
_CAP = "A_ub=[[1.0] + [0.0] * (losses.shape[2] - 1)], b_ub=[0.3]"

# Games and calls, in the order in which they are made.
_CALLS = [
    ("50 x 6 x 5, first process of the machine", _SMALL, "solve(losses)"),
    ("the same, second process", _SMALL, "solve(losses)"),
    ("a number alpha", _SMALL, "solve(losses, 0.05)"),
    ("a vector alpha", _SMALL, "solve(losses, np.full(50, 0.05))"),
    ("float32", _SMALL, "solve(losses.astype(np.float32))"),
    ("uint8", _SMALL, "solve((9 * losses).astype(np.uint8))"),
    ("bool", _SMALL, "solve(losses > 0.5)"),
    ("read-only", _SMALL + "; losses.flags.writeable = False", "solve(losses)"),
    ("A_ub", _SMALL, f"solve(losses, {_CAP})"),
    ("A_ub, alpha 0.05", _SMALL, f"solve(losses, 0.05, {_CAP})"),
    ("max_models", _SMALL, "solve(losses, max_models=2)"),
    ("2000 x 20 x 10, first large one", _LARGE, "solve(losses)"),
    ("the same, second process", _LARGE, "solve(losses)"),
    ("the same, read-only", _LARGE + "; losses.flags.writeable = False", "solve(losses)"),
    ("the same, float32", _LARGE, "solve(losses.astype(np.float32))"),
    ("the same, uint8", _LARGE, "solve((9 * losses).clip(0, 255).astype(np.uint8))"),
    ("the same, bool", _LARGE, "solve(losses > 0.7)"),
    ("the same, alpha 0.05", _LARGE, "solve(losses, 0.05)"),
    ("the same, a vector alpha", _LARGE, "solve(losses, np.full(2000, 0.05))"),
    ("the same, A_ub", _LARGE, f"solve(losses, {_CAP})"),
    ("groups of 50 x 6 x 5", _SMALL, "solve(losses, groups=np.arange(50) % 3)"),
    ("the same, alpha 0.05", _SMALL, "solve(losses, 0.05, groups=np.arange(50) % 3)"),
    ("solve_batch, 20 games of 50 x 6 x 5", _SMALL, "solve_batch(np.stack([losses] * 20))"),
    ("the same, alpha 0.05", _SMALL, "solve_batch(np.stack([losses] * 20), 0.05)"),
]

_CODE = """
import time
began = time.perf_counter()
import json, sys
import numpy as np
from mixsolve import solve, solve_batch
rng = np.random.default_rng(0)
{game}
begun = time.perf_counter()
found = {call}
ended = time.perf_counter()
n_compiled = 0
for module, content in list(sys.modules.items()):
    if module.startswith("mixsolve.kernels."):
        for kernel in vars(content).values():
            if getattr(getattr(kernel, "py_func", None), "__module__", "") == module:
                n_compiled += kernel._cache.n_missed
print(json.dumps({{
    "seconds": ended - began,
    "processor_seconds": time.process_time(),
    "compile_seconds": found.timings["compile"],
    "n_compiled": n_compiled,
    "numba": "numba" in sys.modules,
}}))
"""


def measure(cache: Path) -> Iterator[dict[str, Any]]:
    """A row for each call, made in turn with one cache, empty at first."""
    for name, game, call in _CALLS:
        yield {"call": name, **_python("-c", _CODE.format(game=game, call=call), cache=cache)}


def warmup(cache: Path) -> dict[str, Any]:
    """What `mixsolve warmup` takes for the kernels that a cache lacks."""
    told = _python("-m", "mixsolve", "warmup", "--json", cache=cache)
    return {key: told[key] for key in ("seconds", "compile_seconds")}


def _python(*arguments: str, cache: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def page(rows: list[dict[str, Any]], warmed: dict[str, Any] | None) -> Iterator[str]:
    """The lines of the page; before the warm-up there is none."""
    yield "# The first solve"
    yield ""
    yield (
        "Seconds of the first call of a process, with the imports of NumPy and mixsolve. All "
        "processes share one cache of kernels, empty at first; each finds what those above it have "
        "compiled. The processor's seconds are what a quiet machine would take: compilation runs "
        "on one core."
    )
    yield ""
    head = ["call", "seconds", "processor", "compilation", "kernels compiled", "Numba"]
    yield from markdown_table(
        head,
        (
            [
                row["call"],
                f"{row['seconds']:.2f}",
                f"{row['processor_seconds']:.2f}",
                f"{row['compile_seconds']:.2f}",
                str(row["n_compiled"]),
                "imported" if row["numba"] else "not needed",
            ]
            for row in rows
        ),
    )
    compiled = sum(row["compile_seconds"] for row in rows)
    yield ""
    yield (
        f"These calls compile {sum(row['n_compiled'] for row in rows)} kernels and types in "
        f"{compiled:.1f} s."
    )
    if warmed is not None:
        yield f"`mixsolve warmup` takes {warmed['compile_seconds']:.1f} s more for the others."
    yield ""
    yield origin("first_solve") + "."


def main() -> None:
    """Measure, and write the page with its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        rows = []
        for row in measure(Path(cache)):
            print(
                f"{row['call']}: {row['seconds']:.2f} s, processor {row['processor_seconds']:.2f} "
                f"s, {row['n_compiled']} compiled in {row['compile_seconds']:.2f} s",
                flush=True,
            )
            rows.append(row)
        save(args.out, "first_solve", page(rows, None), {"calls": rows, "warmup": None})
        warmed = warmup(Path(cache))
    save(args.out, "first_solve", page(rows, warmed), {"calls": rows, "warmup": warmed})


if __name__ == "__main__":
    main()
