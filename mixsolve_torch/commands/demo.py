"""`mixsolve demo`: from data to a certified mixture of four small networks.

Four networks learn scikit-learn's 8x8 digits, one plainly and three on PGD attacks. All are
attacked on held-out images, alone and in every combination; the game of the 0/1 losses is solved
exactly and with entropic regularisation. A table, two pictures and files to go on with come out.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

import mixsolve
from mixsolve import plots
from mixsolve.base.arguments import as_count, check_flags
from mixsolve.base.files import check_folder
from mixsolve_torch.candidates.build import build_losses
from mixsolve_torch.commands.demo_game import DemoSettings, attacks, fresh_attacks, train
from mixsolve_torch.commands.demo_report import Report
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.arrays import Split, digits

ALPHAS = (0.0, 0.01, 0.001)
FILES = ("risk.png", "mixture.png", "losses.npy", "solution.npz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mixsolve demo`.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of the subcommand.
    """
    parser.epilog = (
        "Exit code: 0 when every solution is certified, 1 when one is not, 2 for wrong input."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("mixsolve-demo"),
        metavar="DIR",
        help=f"where {', '.join(FILES)} go (default: mixsolve-demo)",
    )
    parser.add_argument("--replace", action="store_true", help="overwrite these files in DIR")
    parser.add_argument(
        "--seed", type=int, default=0, help="of everything that is drawn (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo and print what came out.

    Parameters
    ----------
    args : argparse.Namespace
        Parsed arguments of `add_arguments`.

    Returns
    -------
    int
        0 when all solutions are certified, 1 when one is not.

    Raises
    ------
    MixsolveError
        Wrong arguments, or files in the way.
    """
    started = time.perf_counter()
    report = demo(DemoSettings(), args.out, seed=args.seed, replace=args.replace, progress=True)
    console = Console()
    console.print(report.table())
    for sentence in report.sentences():
        console.print(f"\n{sentence}", markup=False, highlight=False)
    console.print(
        f"\nWrote {', '.join(FILES)} to {args.out} in {time.perf_counter() - started:.0f} s.\n"
        f"Go on with: mixsolve solve {args.out / 'losses.npy'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0 if report.certified else 1


def demo(
    settings: DemoSettings,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    replace: bool = False,
    progress: bool = False,
) -> Report:
    """Train, attack, solve, and write pictures and files.

    PyTorch runs on one thread meanwhile: networks this small gain nothing from more, and the
    numbers then depend on the seed alone. Global generators are neither read nor seeded.

    Parameters
    ----------
    settings : DemoSettings
        What to train and how hard to attack.
    out : str or path
        Directory for the files; made if it is missing.
    seed : int, default 0
        Of the split of the data, the networks and the attacks.
    replace : bool, default False
        Whether files of earlier runs may be overwritten.
    progress : bool, default False
        Say on stderr what is being done.

    Returns
    -------
    Report
        The game, its solutions, and the risk of every classifier and mixture.

    Raises
    ------
    MissingDependencyError
        scikit-learn or matplotlib is not installed.
    MixsolveError
        A negative seed, settings out of their range, or files in the way.
    """
    out = Path(out)
    check_flags(replace=replace, progress=progress)
    seed = as_count("seed", seed, 0)
    count = as_count("images", settings.images)
    check_folder(out, FILES, replace, "--replace")
    plots.require_matplotlib()
    log = Console(stderr=True, highlight=False, quiet=not progress)
    generator = torch.Generator().manual_seed(seed)
    with _one_thread():
        data = digits(seed=seed)
        networks = train(data.train, settings, seed, log)
        attacked = Split(*(part[:count] for part in data.test))
        losses = build_losses(
            Mixture(networks),
            attacked,
            attacks(settings),
            generator=generator,
            keep_inputs=True,
            progress=progress,
        )
        images, candidates, _ = losses.values.shape
        log.print(f"attacked {images} held-out images in {candidates - 1} ways")
        solutions = [mixsolve.solve(losses.values, alpha=alpha) for alpha in ALPHAS]
        log.print(f"solved the game for alpha = {', '.join(f'{alpha:g}' for alpha in ALPHAS)}")
        optimal = Mixture(networks, np.asarray(solutions[0].weights))
        fresh = build_losses(
            optimal, attacked, fresh_attacks(settings), generator=generator, progress=progress
        )
        log.print("attacked the optimal mixture and every network afresh")
    threat = f"{settings.norm} attacks of radius {settings.eps:g}"
    report = Report.of(settings.names, losses, solutions, fresh, threat)
    out.mkdir(parents=True, exist_ok=True)
    check_folder(out, FILES, replace, "--replace")
    report.write(out, replace=replace)
    return report


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread, and restore its number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
