"""Latency, growth, memory, and how often faster than a peer; each measured in fresh processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mixsolve import games
from mixsolve.bench import runner

_PATIENCE = 60.0  # seconds for a peer

_WARM = """
import time, numpy as np, mixsolve
from mixsolve import games, highs
losses = games.gamma_game(1024, 10, 4, seed=0).losses
before = mixsolve.solve(losses)
def fastest(work):
    times = []
    for _ in range(30):
        began = time.perf_counter(); work(); times.append(time.perf_counter() - began)
    return min(times)
warm = fastest(lambda: mixsolve.solve(losses, warm_start=before, tol=1e-8))
cold = fastest(lambda: mixsolve.solve(losses, tol=1e-8))
rows, offsets = losses.reshape(-1, 4), np.arange(1025) * 10
began = time.perf_counter(); highs.solve_rows(rows, offsets, np.full(1024, 1 / 1024))
peer = time.perf_counter() - began
print(f"{warm * 1e3:.2f} ms warm, {cold * 1e3:.2f} ms cold; HiGHS {peer * 1e3:.0f} ms, "
      f"{peer / warm:.0f} times")
"""

_WARM_ENTROPIC = """
import time, mixsolve
from mixsolve import games
from mixsolve.engines.memory import MemoryEngine
losses = games.gamma_game(1024, 10, 4, seed=0).losses
before = mixsolve.solve(losses, 0.01)
inside = 0.0
plain = MemoryEngine.each_block
def timed(self, work):
    global inside
    began = time.perf_counter(); plain(self, work); inside += time.perf_counter() - began
MemoryEngine.each_block = timed
calls = []
for _ in range(100):
    inside = 0.0
    began = time.perf_counter()
    mixsolve.solve(losses, 0.01, warm_start=before, tol=1e-8)
    calls.append((time.perf_counter() - began, inside))
total, inside = min(calls)
print(f"{total * 1e3:.2f} ms warm, {inside / total:.0%} of it inside the passes")
"""

_FIRST = """
import time
began = time.perf_counter()
import numpy as np, mixsolve
losses = np.load({path!r})
solution = mixsolve.solve(losses, tol=1e-8)
total = time.perf_counter() - began
print(f"{{total:.2f}} s with imports, of which {{solution.timings['compile']:.2f}} s compilation")
"""

_PRESOLVED = """
import mixsolve
from mixsolve import games
losses = games.paper2d(seed=0).losses
def fastest(method):
    runs = [mixsolve.solve(losses, 0.001, method=method, tol=1e-6).timings for _ in range(5)]
    return min(run["solve"] - run["presolve"] for run in runs)
newton, apg = fastest("newton"), fastest("apg")
print(f"{apg / newton:.3g} times faster than apg "
      f"({newton * 1e3:.1f} ms against {apg * 1e3:.0f} ms)")
"""

_GROWTH = """
import resource, sys, time, numpy as np, mixsolve
from mixsolve import games
def measure(n):
    losses = games.gamma_game(n, 20, 10, seed=0, dtype=np.float32).losses
    mixsolve.solve(losses[:3000]); mixsolve.solve(losses[:3000], {alpha})
    times = []
    for _ in range(3):
        began = time.perf_counter(); solution = mixsolve.solve(losses, {alpha}, tol=1e-8)
        times.append(time.perf_counter() - began)
    return min(times), solution, losses
small, _, _ = measure(10_000)
big, solution, losses = measure(1_000_000)
print(f"{{big / small:.0f}} times the time for 100 times the samples "
      f"({{small * 1e3:.0f}} ms, {{big:.2f}} s); gap {{solution.gap / solution.spread:.1e}} M")
"""

_MEMORY = """
import tracemalloc, numpy as np, mixsolve
from mixsolve import games
losses = games.gamma_game(200_000, 20, 10, seed=0, dtype=np.float32).losses
mixsolve.solve(losses[:3000])
tracemalloc.start()
mixsolve.solve(losses, tol=1e-8)
peak = tracemalloc.get_traced_memory()[1]
print(f"{peak / losses.nbytes:.1%} of a float32 tensor of {losses.nbytes / 1e6:.0f} MB")
"""


def exact(folder: Path) -> dict[str, str]:
    """Figures of the exact method.

    Parameters
    ----------
    folder : Path
        For scratch files and an empty cache of kernels.

    Returns
    -------
    dict of str to str
        What was measured, in words, by name.
    """
    game = _save(folder, games.gamma_game(2000, 20, 10, seed=0).losses)
    first = _FIRST.format(path=str(game))
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    return {
        "call on 1024 x 10 x 4": _python(_WARM),
        "first solve of gamma 2000x20x10, no cache": _python(first, NUMBA_CACHE_DIR=str(cache)),
        "the same, kernels cached": _python(first, NUMBA_CACHE_DIR=str(cache)),
        "N from 10,000 to 1,000,000 at 20 x 10": _python(_GROWTH.format(alpha=0.0)),
        "memory beyond the tensor": _python(_MEMORY),
    }


def entropic(folder: Path) -> dict[str, str]:
    """Figures of Newton's method on the entropic problem; see `exact`."""
    clarabel = _save(folder, games.gamma_game(2000, 20, 10, seed=0).losses)
    found = {
        "gamma 2000x20x10, alpha 0.05, to 1e-8 M": _times("clarabel", clarabel, 0.05, 1e-8),
    }
    found["paper2d 0/1, alpha 0.001, to 1e-6 M, after the presolve"] = _python(_PRESOLVED)
    wide = _save(folder, games.gamma_game(10_000, 50, 30, seed=0).losses)
    found["gamma 10000x50x30, alpha 0.01, to 1e-8 M"] = _times("fista", wide, 0.01, 1e-8)
    long = _save(folder, games.gamma_game(10_000, 100, 10, seed=0).losses)
    row = runner.run("newton", long, 0.01, 1e-8, _PATIENCE)
    if row.seconds and row.pass_seconds:
        passes = f"{row.seconds / row.pass_seconds:.1f} times one pass ({row.seconds * 1e3:.0f} ms)"
        found["gamma 10000x100x10, alpha 0.01, to 1e-8 M"] = passes
    found["call on 1024 x 10 x 4, alpha 0.01"] = _python(_WARM_ENTROPIC)
    growth = _python(_GROWTH.format(alpha=0.01))
    return found | {"N from 10,000 to 1,000,000 at 20 x 10, alpha 0.01": growth}


FIGURES: dict[str, Callable[[Path], dict[str, str]]] = {"exact": exact, "entropic": entropic}


def _save(folder: Path, losses: np.ndarray) -> Path:
    path = folder / "game.npy"
    np.save(path, losses)
    return path


def _times(peer: str, game: Path, alpha: float, tol: float) -> str:
    """How often faster Newton's method is than a peer, in two processes side by side."""
    own = runner.run("newton", game, alpha, tol, _PATIENCE)
    other = runner.run(peer, game, alpha, tol, _PATIENCE)
    if own.seconds is None or other.seconds is None:
        return f"newton: {own.note or 'done'}; {peer}: {other.note or 'done'}"
    ratio = f"{other.seconds / own.seconds:.3g} times faster than {peer}"
    return f"{ratio} ({own.seconds * 1e3:.1f} ms against {other.seconds:.2f} s)"


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1]}"
    return done.stdout.strip()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        for figures in FIGURES.values():
            for name, value in figures(Path(scratch)).items():
                print(f"{name}: {value}")
