"""`mixsolve demo`: two games, from data to the verdict.

Three networks learn scikit-learn's 8x8 digits, one plainly and two on PGD attacks. `evaluate` then
measures them on held-out images under the standard attacks, alone, mixed and as deterministic
ensembles: its table, sentences and picture are those of `mixsolve audit`. The game of 0/1 losses
that the weights were fitted on is written for `mixsolve solve`. In the second game the attacker has
a patch, and a mixture of views is certified: see `commands.demo_patch`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console

from mixsolve import plots
from mixsolve.base.arguments import as_count, check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import check_folder, write_text, written_aside
from mixsolve.base.plain import json_text
from mixsolve.commands.output import add_output_arguments, is_silent, print_json
from mixsolve.commands.report import save as save_solution
from mixsolve_torch.commands.console import progress_on_stderr, say, show
from mixsolve_torch.commands.demo_images import installed
from mixsolve_torch.commands.demo_networks import DemoSettings, attacks, train
from mixsolve_torch.commands.demo_patch import PatchGame, play
from mixsolve_torch.commands.demo_picture import mixture_picture
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.arrays import Split, digits
from mixsolve_torch.evaluation.evaluate import evaluate
from mixsolve_torch.evaluation.report import Evaluation

FILES = (
    "accuracy.png",
    "mixture.png",
    "patch.png",
    "evaluation.json",
    "patch.json",
    "losses.npy",
    "solution.npz",
)


class DemoReport(NamedTuple):
    """What the two games came to."""

    ball: Evaluation
    patch: PatchGame

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of the first game, and those of the second under "patch"."""
        return self.ball.to_dict() | {"patch": self.patch.to_dict()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mixsolve demo`."""
    parser.epilog = (
        "Exit code: 0 when the optimal mixture holds against the last attacks on it, 1 when it "
        "does not, 2 for wrong input."
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
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the demo and print the outcome; 1 if the optimal mixture does not hold."""
    started = time.perf_counter()
    report = demo(
        DemoSettings(),
        args.out,
        seed=args.seed,
        replace=args.replace,
        progress=not is_silent(args),
    )
    seconds = time.perf_counter() - started
    if args.json:
        print_json(report.to_dict() | {"seconds": seconds, "out": str(args.out)})
    if is_silent(args):
        return 0 if report.ball.settled else 1
    show(report.ball, args.out, FILES, seconds, more=report.patch.sentences())
    say(f"Continue with: mixsolve solve {args.out / 'losses.npy'} --alpha 0.01")
    return 0 if report.ball.settled else 1


def demo(
    settings: DemoSettings,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    replace: bool = False,
    progress: bool = False,
) -> DemoReport:
    """Train, evaluate, and write pictures and files.

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
        Print progress to stderr.

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
    with _one_thread(), progress_on_stderr() if progress else nullcontext():
        data = digits(seed=seed)
        networks = train(data.train, settings, seed, log)
        attacked = Split(*(part[:count] for part in data.test))
        report = evaluate(
            Mixture(networks),
            attacked,
            attacks(settings),
            names=settings.names,
            seed=seed,
            progress=progress,
        )
        picture = mixture_picture(networks, report.optimal.weights, attacked, settings, seed)
        patch = play(settings.patch or installed(), seed, log)
    out.mkdir(parents=True, exist_ok=True)
    check_folder(out, FILES, replace, "--replace")
    report.plot(out / "accuracy.png")
    plots.save(picture, out / "mixture.png")
    plots.save(patch.picture(), out / "patch.png")
    report.to_json(out / "evaluation.json")
    write_text(out / "patch.json", json_text(patch.to_dict(), indent=1) + "\n")
    path = out / "losses.npy"
    try:
        with written_aside(path) as aside, aside.open("xb") as file:
            np.save(file, report.fitted_losses)
    except OSError as error:
        raise MixsolveError(f"{path} could not be written: {error}") from error
    save_solution(report.solution, out / "solution.npz", replace)
    return DemoReport(report, patch)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread, and restore its number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
