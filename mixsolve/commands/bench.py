"""`mixsolve bench`: every method and every installed peer on a loss tensor in a file."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from mixsolve import plots
from mixsolve.arrays.files import ARRAY_OPTIONS, choose, load_arrays
from mixsolve.arrays.interop import losses_source
from mixsolve.arrays.labels import read_losses
from mixsolve.base.arguments import as_real
from mixsolve.base.errors import MixsolveError
from mixsolve.bench import report, runner
from mixsolve.commands.output import add_output_arguments, is_silent, print_json
from mixsolve.commands.report import check_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mixsolve bench`."""
    parser.epilog = "Every solver runs in a process of its own, one after the other."
    parser.add_argument("losses", type=Path, help="a .npy or .npz file, as for `mixsolve solve`")
    parser.add_argument(
        "--alpha", type=float, default=0.0, help="entropic regularisation (default: 0, exact)"
    )
    parser.add_argument(
        "--methods",
        metavar="A,B,...",
        help="methods and peers to run (default: all that solve the problem): "
        + ", ".join(sorted({*runner.solvers_for(0.0), *runner.solvers_for(1.0)})),
    )
    parser.add_argument(
        "--tol", type=float, default=1e-8, help="relative to the spread of the losses (1e-8)"
    )
    parser.add_argument(
        "--time-limit", type=float, default=60.0, metavar="S", help="seconds a solver (60)"
    )
    parser.add_argument("--plot", type=Path, help="draw certified gap against time (.png or .svg)")
    parser.add_argument("--replace", action="store_true", help="let --plot overwrite a file")
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark and print the table; 1 if no solver certified the tolerance."""
    alpha = as_real("--alpha", args.alpha, at_least=0.0)
    tol = as_real("--tol", args.tol, above=0.0)
    time_limit = as_real("--time-limit", args.time_limit, above=0.0)
    names = _chosen(args.methods, alpha)
    if args.plot is not None:
        check_target(args.plot, args.replace, "--plot", [args.losses])
        plots.check_ending(args.plot, "--plot")
    losses, beside = _read(args.losses)
    spread = runner.spread(losses)
    if beside and not is_silent(args):
        Console(stderr=True).print(f"not used: {', '.join(beside)} in {args.losses}", markup=False)
    rows = []
    progress = Progress(console=Console(stderr=True), disable=is_silent(args))
    with tempfile.TemporaryDirectory() as folder, progress as bar:
        path = Path(folder) / "losses.npy"
        np.save(path, losses)
        task = bar.add_task("", total=len(names))
        for name in names:
            bar.update(task, description=name)
            rows.append(runner.run(name, path, alpha, tol, time_limit))
            bar.advance(task)
    shape = " x ".join(map(str, losses.shape))
    title = f"{args.losses.name}: {shape}, alpha {alpha:g}, tolerance {tol:g} M"
    if args.json:
        settings = {"alpha": alpha, "tol": tol, "spread": spread, "shape": losses.shape}
        print_json(settings | {"rows": [asdict(row) for row in report.ranked(rows)]})
    elif not args.quiet:
        Console().print(report.table(rows, spread, title))
    if args.plot is not None:
        report.plot({title: (rows, spread or 1.0)}, args.plot)
    certified = [row for row in rows if row.gap is not None and row.gap <= tol * spread]
    return 0 if certified else 1


def _read(path: Path) -> tuple[np.ndarray, list[str]]:
    """The losses in a file, in memory, and the options beside them that a benchmark ignores."""
    arrays = load_arrays(path, "losses")
    beside = [name for name in ARRAY_OPTIONS if name in arrays]
    if "losses" not in arrays:
        arrays = {name: array for name, array in arrays.items() if name not in beside}
    axes = ("samples", "candidates", "classifiers")
    source = losses_source(read_losses(choose(arrays, path, "losses"), axes)[0])
    return np.asarray(source.to_numpy(source.data)), beside


def _chosen(text: str | None, alpha: float) -> list[str]:
    able = runner.solvers_for(alpha)
    if text is None:
        return able
    # "highs" is one peer to its users; its two algorithms are two rows here.
    names = [
        known
        for name in text.split(",")
        for known in (("highs-ds", "highs-ipm") if name.strip() == "highs" else (name.strip(),))
    ]
    for name in names:
        if name not in able:
            raise MixsolveError(
                f"--methods: {name!r} does not solve the problem at alpha = {alpha:g}; choose "
                f"from {', '.join(able)}"
            )
    return names
