"""`mixsolve solve`: the optimal mixture for a loss tensor in a file, with its certificate."""

from __future__ import annotations

import argparse
import io
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mixsolve.arrays.files import ARRAY_OPTIONS, load_array, load_arrays
from mixsolve.arrays.result_file import check_npz
from mixsolve.arrays.text_tables import has_column, read_csv, take_column
from mixsolve.base.errors import ConvergenceWarning, MixsolveError, named
from mixsolve.commands import report
from mixsolve.commands.output import add_output_arguments, is_silent, print_json, waiting
from mixsolve.methods import ALIASES, METHODS
from mixsolve.methods.stopping import State
from mixsolve.solver.solve import solve

_CONSTRAINTS = ("A_ub", "b_ub", "A_eq", "b_eq")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mixsolve solve`."""
    parser.epilog = (
        "Exit code: 0 when the certified gap is within the tolerance, 1 when it is not, "
        "2 for wrong input."
    )
    parser.add_argument(
        "losses",
        type=Path,
        help="losses of shape (samples, candidates, classifiers): a .npy file, or a .npz or HDF5 "
        "file or a Zarr store with one array or one named 'losses', and possibly 'sample_weight', "
        "'candidate_mask' and 'candidate_prior' beside it; or a .csv file with a column for each "
        "classifier, and for sample and candidate, unless each sample has one; - for stdin, as "
        ".npy, .npz or CSV. Two axes are (samples, classifiers)",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="the array of losses in a file with several, such as 'losses' or 'attacks/losses'",
    )
    parser.add_argument(
        "--alpha",
        default="0",
        metavar="NUMBER|FILE",
        help="entropic regularisation, a number or a file with one per sample (default: 0, exact)",
    )
    parser.add_argument(
        "--method",
        default="auto",
        help=f"{', '.join(('auto', *METHODS, *ALIASES))} (default: auto)",
    )
    parser.add_argument(
        "--tol",
        type=float,
        default=1e-6,
        help="certified gap to reach, relative to max(losses) - min(losses) (default: 1e-6)",
    )
    parser.add_argument("--max-iter", type=int, help="iterations allowed")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="seconds allowed")
    parser.add_argument(
        "--sample-weight", type=Path, metavar="FILE", help="weights of the samples (samples,)"
    )
    parser.add_argument(
        "--candidate-mask",
        type=Path,
        metavar="FILE",
        help="which candidates exist (samples, candidates)",
    )
    parser.add_argument(
        "--candidate-prior",
        type=Path,
        metavar="FILE",
        help="base measure of the candidates (samples, candidates), for alpha > 0",
    )
    parser.add_argument(
        "--constraints",
        type=Path,
        metavar="FILE",
        help="linear constraints on the weights: a .npz file with A_ub and b_ub, A_eq and b_eq, or "
        "all four (A_ub @ weights <= b_ub, A_eq @ weights == b_eq)",
    )
    parser.add_argument(
        "--max-models", type=int, metavar="K", help="classifiers that may have a weight"
    )
    parser.add_argument(
        "--groups",
        metavar="FILE|NAME",
        help="the worst group decides: a file with one label per sample, or the name of an array "
        "beside the losses, or of a column of a .csv file",
    )
    parser.add_argument(
        "--group-weight",
        type=float,
        metavar="C",
        help="no group weighs more than C times its share of the samples (default: any weight)",
    )
    parser.add_argument(
        "--tail",
        type=float,
        metavar="SHARE",
        help="the mean over the worst share of the samples, above 0 and at most 1",
    )
    parser.add_argument(
        "--alpha-groups",
        type=float,
        metavar="NUMBER",
        help="temperature of the choice of groups, for alpha > 0 (default: 0, exact)",
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="what the classifiers are called"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="save the solution: a .npz file, for mixsolve.load and numpy.load",
    )
    parser.add_argument("--replace", action="store_true", help="let --out overwrite a file")
    add_output_arguments(parser)
    parser.add_argument("--verbose", action="store_true", help="print every iteration on stderr")


def run(args: argparse.Namespace) -> int:
    """Solve, report, save; 1 if the solution is not certified."""
    if args.out is not None:
        read = [args.losses, args.constraints, *(getattr(args, name) for name in ARRAY_OPTIONS)]
        report.check_target(args.out, args.replace, inputs=[*read, Path(args.alpha)])
        check_npz(args.out, "--out")
    with waiting("reading the losses", silent=is_silent(args)):
        losses, options = _read_input(args)
    if args.constraints is not None:
        options |= _read_constraints(args.constraints)
    start = time.perf_counter()
    # The table of iterations goes to stderr: stdout is for the result.
    with warnings.catch_warnings(), redirect_stdout(sys.stderr), _progress(args) as callback:
        # Reported in the output and by the exit code.
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = solve(
            losses,
            _read_alpha(args.alpha),
            method=args.method,
            tol=args.tol,
            max_iter=args.max_iter,
            time_limit=args.time_limit,
            callback=callback,
            verbose=args.verbose,
            max_models=args.max_models,
            names=args.names,
            group_weight=args.group_weight,
            tail=args.tail,
            alpha_groups=args.alpha_groups,
            **options,
        )
    seconds = time.perf_counter() - start
    if args.out is not None:
        report.save(solution, args.out, args.replace)
    shape = solution.shape
    if args.json:
        print_json(solution.to_dict() | {"shape": shape, "seconds": seconds})
    elif not args.quiet:
        console = Console()
        console.print(report.table(solution, shape, seconds))
        if args.out is not None:
            console.print(f"saved to {args.out}", markup=False, highlight=False, soft_wrap=True)
    return 0 if solution.success else 1


def _read_input(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Losses, and the array options found beside them or in files of their own."""
    arrays = _open(args.losses, args.groups)
    chosen = "losses" if args.dataset is None else args.dataset.strip("/")
    if args.dataset is not None and chosen not in arrays:
        found = named(sorted(arrays), len(arrays))
        raise MixsolveError(f"{args.losses} has no array {chosen!r}, its arrays are: {found}")
    group = chosen.rpartition("/")[0]
    beside = {name: f"{group}/{name}".lstrip("/") for name in ARRAY_OPTIONS}
    options: dict[str, Any] = {
        name: arrays.pop(place)
        for name, place in beside.items()
        if place in arrays and place != chosen
    }
    for name in ARRAY_OPTIONS:
        path = getattr(args, name)
        if path is not None:
            options[name] = load_array(path, name)
    if args.groups is not None:
        if args.groups in arrays and args.groups != chosen:
            options["groups"] = arrays.pop(args.groups)
        elif f"{group}/{args.groups}" in arrays:
            options["groups"] = arrays.pop(f"{group}/{args.groups}")
        else:
            options["groups"] = load_array(args.groups, "groups")
    losses = arrays.get(chosen)
    if losses is None:
        if len(arrays) != 1:
            found = named(sorted(arrays), len(arrays))
            raise MixsolveError(
                f"{args.losses} must have one array of losses or one named 'losses', its arrays "
                f"are: {found}; name one of them with --dataset"
            )
        losses = next(iter(arrays.values()))
    return losses, options


def _open(path: Path, column: str | None = None) -> dict[str, Any]:
    """The arrays of a file, or of stdin for the name "-"; of a table, a column of labels apart."""
    if str(path) == "-":
        content = sys.stdin.buffer.read()
        if content.startswith((b"\x93NUMPY", b"PK")):
            return _unpacked(content)
        text = content.decode("utf-8", errors="replace")
        return _table(text, "stdin", column)
    if path.suffix.lower() == ".csv":
        try:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise MixsolveError(f"{path} cannot be read: {error.strerror}") from error
        return _table(text, str(path), column)
    return load_arrays(path, "losses")


def _table(text: str, called: str, column: str | None) -> dict[str, Any]:
    """Losses of a table, and the labels in a column of it unless they are a file of their own."""
    lines = text.splitlines()
    if column is None or (Path(column).is_file() and not has_column(lines, column)):
        return {"losses": read_csv(lines, called)}
    lines, labels = take_column(lines, column, called)
    return {"losses": read_csv(lines, called), column: labels}


def _unpacked(content: bytes) -> dict[str, Any]:
    """The arrays of a .npy or .npz file in memory."""
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        return dict(loaded) if hasattr(loaded, "files") else {"losses": loaded}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise MixsolveError(f"stdin is not a readable .npy or .npz file: {error}") from error


def _read_constraints(path: Path) -> dict[str, Any]:
    """`A_ub`, `b_ub`, `A_eq` and `b_eq`, as far as the file has them."""
    arrays = load_arrays(path, "constraints")
    if not arrays or not arrays.keys() <= set(_CONSTRAINTS):
        found = named(sorted(arrays), len(arrays))
        raise MixsolveError(
            f"--constraints {path} must have arrays named {', '.join(_CONSTRAINTS)}, or some of "
            f"them; its arrays are: {found}"
        )
    return dict(arrays)


def _read_alpha(text: str) -> float | np.ndarray:
    try:
        return float(text)
    except ValueError:
        if Path(text).suffix not in (".npy", ".npz"):
            raise MixsolveError(
                f"--alpha must be a number or a .npy or .npz file, got {text!r}"
            ) from None
    return load_array(text, "alpha")


@contextmanager
def _progress(args: argparse.Namespace) -> Iterator[Callable[[State], None] | None]:
    """Show the gap on stderr while the solve runs, on a terminal."""
    console = Console(stderr=True)
    if args.verbose or is_silent(args) or not console.is_terminal:
        yield None
        return
    with console.status("solving") as status:

        def show(state: State) -> None:
            status.update(
                f"iteration {state.nit}: value {state.value:.9g}, gap {state.gap:.2e}, "
                f"{state.seconds:.0f} s"
            )

        yield show
