"""`mixsolve warmup`: every kernel compiled before it is needed, for images of containers and tests.

Small games of every kind call the kernels in each type of losses: float64, float32 and bytes. What
is compiled stays in the cache of kernels, where later processes find it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from mixsolve.base.compilation import preparations
from mixsolve.base.errors import ConvergenceWarning
from mixsolve.base.notice import silent
from mixsolve.base.tuning import tuning
from mixsolve.commands.output import add_output_arguments, is_silent, print_json

Step = tuple[str, Callable[[], Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mixsolve warmup`."""
    parser.epilog = (
        "Kernels are kept in the package's __pycache__, in the user's cache where that may not be "
        "written to, or in the folder that NUMBA_CACHE_DIR names."
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compile what is not compiled yet, and say how long it took."""
    from rich.console import Console
    from rich.progress import Progress

    began = time.perf_counter()
    done = list(steps())
    seconds: dict[str, float] = {}
    before = tuning.uncompiled_entries
    tuning.uncompiled_entries = 0
    progress = Progress(console=Console(stderr=True), disable=is_silent(args))
    try:
        with silent(), progress as bar:
            task = bar.add_task("", total=len(done))
            for name, step in done:
                bar.update(task, description=name)
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    step()
                seconds[name] = preparations((start, time.perf_counter()))["compile"]
                bar.advance(task)
    finally:
        tuning.uncompiled_entries = before
    total = time.perf_counter() - began
    compiled, folder = sum(seconds.values()), _folder()
    if args.json:
        print_json(
            {"seconds": total, "compile_seconds": compiled, "folder": folder, "steps": seconds}
        )
    elif not args.quiet:
        where = f"; kernels are in {folder}" if folder else "; no folder can be written to"
        print(f"warmed up in {total:.1f} s, of which {compiled:.1f} s compilation{where}")
    return 0


def _folder() -> str | None:
    """Where kernels are kept."""
    from mixsolve.kernels.passes import best_response

    path: str | None = best_response._cache.cache_path
    return path


def steps() -> Iterator[Step]:
    """Calls by name; together they reach every kernel, in every type that it is compiled for."""
    from mixsolve import solve, solve_batch

    draws = np.random.default_rng(0)
    losses = draws.random((40, 6, 4))
    coded = np.repeat(draws.integers(0, 2, (8, 6, 4)), 20, axis=0)  # presolve merges equal samples
    rule: dict[str, Any] = {"A_ub": [[1.0, 0.0, 0.0, 0.0]], "b_ub": [0.2]}
    labels = np.arange(40) % 3
    for dtype in (np.float64, np.float32, np.uint8):
        name = f"{np.dtype(dtype)}"
        values = (losses * (200 if dtype is np.uint8 else 1)).astype(dtype)
        yield f"exact, {name}", partial(solve, values)
        alpha = 0.05 * float(values.max())
        smooth: dict[str, Any] = {"groups": labels, "alpha_groups": alpha}
        yield f"entropic, {name}", partial(solve, values, alpha)
        yield f"groups, entropic, {name}", partial(solve, values, alpha, **smooth)
        yield f"two values, {name}", partial(solve, coded.astype(dtype))
        yield f"two values, entropic, {name}", partial(solve, coded.astype(dtype), 0.05)
    yield "constraints", partial(solve, losses, **rule)
    yield "constraints, entropic", partial(solve, losses, 0.05, **rule)
    yield "few models", partial(solve, losses, max_models=2)
    yield "few models, constraints", partial(solve, losses, max_models=2, **rule)
    yield "groups", partial(solve, losses, groups=labels, tail=0.5)
    yield "batch", partial(solve_batch, np.stack([losses, losses[::-1]]))
    yield "batch, entropic", partial(solve_batch, np.stack([losses, losses[::-1]]), [1e-5, 0.05])
