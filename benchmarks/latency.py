"""Latency, growth and memory of the exact method, each measured in fresh processes."""

import os
import subprocess
import sys
from pathlib import Path

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
soft = mixsolve.solve(losses, 0.01)
entropic = fastest(lambda: mixsolve.solve(losses, 0.01, warm_start=soft, tol=1e-8))
rows, offsets = losses.reshape(-1, 4), np.arange(1025) * 10
began = time.perf_counter(); highs.solve_rows(rows, offsets, np.full(1024, 1 / 1024))
peer = time.perf_counter() - began
print(f"{warm * 1e3:.2f} ms warm, {cold * 1e3:.2f} ms cold; HiGHS {peer * 1e3:.0f} ms, "
      f"{peer / warm:.0f} times; alpha 0.01 warm {entropic * 1e3:.2f} ms")
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


def figures(folder: Path) -> dict[str, str]:
    """Measure everything.

    Parameters
    ----------
    folder : Path
        For scratch files and an empty cache of kernels.

    Returns
    -------
    dict of str to str
        What was measured, in words, by name.
    """
    game = str(folder / "gamma.npy")
    _python(
        "from mixsolve import games; import numpy as np; "
        f"np.save({game!r}, games.gamma_game(2000, 20, 10, seed=0).losses)"
    )
    first = _FIRST.format(path=game)
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    return {
        "call on 1024 x 10 x 4": _python(_WARM),
        "first solve of gamma 2000x20x10, no cache": _python(first, NUMBA_CACHE_DIR=str(cache)),
        "the same, kernels cached": _python(first, NUMBA_CACHE_DIR=str(cache)),
        "N from 10,000 to 1,000,000 at 20 x 10, exact": _python(_GROWTH.format(alpha=0.0)),
        "N from 10,000 to 1,000,000 at 20 x 10, alpha 0.01": _python(_GROWTH.format(alpha=0.01)),
        "memory beyond the tensor": _python(_MEMORY),
    }


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
        for name, value in figures(Path(scratch)).items():
            print(f"{name}: {value}")
