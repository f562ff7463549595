"""`mixsolve audit`: whether to randomise saved classifiers, and how much that buys.

Saved classifiers are loaded, attacked alone and mixed, and their optimal mixture is found. The
outcome is a table, a verdict in words, a picture, and files for further work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import mixsolve
from mixsolve import plots
from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import check_folder, check_output, write_text, written_aside
from mixsolve.commands.output import add_output_arguments, is_silent, waiting
from mixsolve.commands.report import save as save_solution
from mixsolve_torch.attacks.ball import BALLS, make_ball
from mixsolve_torch.attacks.given import SUFFIXES
from mixsolve_torch.attacks.registry import ATTACKS, resolve_attacks
from mixsolve_torch.attacks.threat_list import read_threats
from mixsolve_torch.attacks.transforms import KINDS
from mixsolve_torch.candidates.build import unique_names
from mixsolve_torch.commands.console import progress_on_stderr, say, show
from mixsolve_torch.commands.data_arguments import add_data_arguments, read_data
from mixsolve_torch.core.groups import CLASS, read_groups
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.datasets import splits
from mixsolve_torch.data.labelled import LabelledImages, to_unit
from mixsolve_torch.evaluation.evaluate import check_names, evaluate
from mixsolve_torch.evaluation.report import Evaluation
from mixsolve_torch.models.classifiers import check_repeatable, frozen
from mixsolve_torch.models.load import load_model
from mixsolve_torch.runs.interrupt import explained

FILES = ("audit.json", "audit.csv", "audit.png", "solution.npz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mixsolve audit`."""
    parser.epilog = (
        "A MODEL is a TorchScript archive (torch.jit.save), a program (torch.export.save), an ONNX "
        "file, timm:NAME=FILE, or module:function=FILE: function() builds the network, FILE holds "
        "its state dict. Models "
        "take images in [0, 1] and return logits. Files that could run other code than a "
        "network's are refused, pickled models among them; module:function names code, which is "
        "run. An interrupted audit resumes when it is called again with the same models, "
        "data and settings. "
        "Exit code: 0 when the optimal mixture holds against the last attacks on it, 1 when more "
        "rounds are needed, 2 for wrong input."
    )
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL", help="classifiers")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="load TorchScript archives and programs as they are, with all code that is in them",
    )
    add_data_arguments(parser)
    parser.add_argument("--eps", help="radius of the attacks, e.g. 8/255 or 0.5")
    parser.add_argument("--norm", help=f"its norm, one of {', '.join(BALLS)} (Linf)")
    parser.add_argument(
        "--threat",
        action="append",
        metavar="SET",
        help="instead of --eps, and as often as there are sets: a ball such as Linf:8/255 or "
        f"L2:0.5, or one of {', '.join(KINDS)} with its size, such as rotations:15; the accuracy "
        "is under the union of all, and under each",
    )
    parser.add_argument(
        "--attacks",
        default="standard",
        metavar="A,B,...",
        help=f"from {', '.join(ATTACKS)}, or .npy and .npz files of adversarial images in the "
        "order of the data: (N, C, H, W), or (K, N, C, H, W) with K for each image (standard)",
    )
    parser.add_argument("--steps", type=int, help="steps of each attack (its own default)")
    parser.add_argument("--restarts", type=int, help="restarts of each attack (its own default)")
    parser.add_argument(
        "--rounds", type=int, default=30, help="rounds of the game for the optimal mixture (30)"
    )
    parser.add_argument(
        "--held-out",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fit the weights on half of the images and report on the other half (yes); "
        "--no-held-out does both on all of them, which flatters the mixture",
    )
    parser.add_argument(
        "--groups",
        metavar="class|FILE",
        help="find the mixture for the worst group of images: 'class' for their labels, or a .npy "
        "file with a label for each image, in the order of the data",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="two columns more: the accuracy that no attack in the ball can break, and what of the "
        "worst case is not known; for one Linf or L2 ball and ReLU networks (not TorchScript)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write one page with all of it, pictures too: a .html file",
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the models, for the table")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="(256)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1, say (cpu)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("mixsolve-audit"),
        metavar="DIR",
        help=f"where {', '.join(FILES)} go (mixsolve-audit)",
    )
    parser.add_argument(
        "--overwrite", "--replace", action="store_true", help="overwrite these files"
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the audit, print the outcome, write the files; 1 if more rounds are needed."""
    started = time.perf_counter()
    options = _checked(args)
    device = _device(args.device)
    with (
        explained(lambda: "nothing was attacked yet: give the same command again"),
        waiting("reading images and models", silent=is_silent(args)),
    ):
        models, data = _load(args, device)
        groups = _groups(args, data)
    work = f"what was found is kept in {args.out}: the same command goes on from there"
    with (
        explained(lambda: work),
        nullcontext() if is_silent(args) else progress_on_stderr(),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        report = evaluate(
            Mixture(models),
            (data.images, data.labels),
            args.attacks,
            steps=args.steps,
            restarts=args.restarts,
            groups=groups,
            held_out=args.held_out,
            verify=args.verify,
            out=args.out,
            progress=not is_silent(args),
            **options,
        )
        remarks = list(dict.fromkeys(str(warning.message) for warning in caught))
        seconds = time.perf_counter() - started
        names = dict(zip(options["names"], args.models, strict=True))
        with waiting("drawing and writing", silent=is_silent(args)):
            _write(report, args, names, remarks, seconds)
    if report.parts is not None:
        shutil.rmtree(report.parts, ignore_errors=True)
    if args.json:
        print((args.out / "audit.json").read_text(encoding="utf-8"), end="")
    if is_silent(args):
        return 0 if report.settled else 1
    show(report, args.out, FILES, seconds, warnings=remarks)
    if args.report is not None:
        say(f"The page is {args.report}.")
    if others := sorted(path.name for path in args.out.glob("evaluation-*")):
        say(
            f"Audits that were not finished keep their work there, too: {', '.join(others)}. Their "
            "commands resume from it; it may be deleted."
        )
    return 0 if report.settled else 1


def _checked(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `evaluate` takes, all that can be wrong without models and data checked first."""
    sets = _sets(args)
    resolve_attacks(args.attacks, **sets, steps=args.steps, restarts=args.restarts)
    options = {
        **sets,
        "names": check_names(args.names or short_names(args.models), len(args.models)),
        "rounds": as_count("--rounds", args.rounds),
        "batch_size": as_count("--batch-size", args.batch_size),
        "seed": as_count("--seed", args.seed, 0),
    }
    if args.limit is not None:
        as_count("--limit", args.limit)
    if args.size is not None:
        as_count("--size", args.size)
    points = [name.strip() for name in args.attacks.split(",") if name.strip().endswith(SUFFIXES)]
    read = [*map(_file_of, args.models), Path(args.data), *map(Path, points)]
    check_folder(args.out, FILES, args.overwrite, "--overwrite", read)
    _check_writable(args.out, "--out")
    _check_page(args, read)
    plots.require_matplotlib()
    for spec in args.models:
        path = _file_of(spec)
        if not path.is_file():
            raise MixsolveError(f"the model {path} does not exist; give a file (see --help)")
    return options


def _sets(args: argparse.Namespace) -> dict[str, Any]:
    """Return the attacker's set: norm and eps, or threats."""
    if args.threat is not None:
        for name, value in (("--norm", args.norm), ("--eps", args.eps)):
            if value is not None:
                raise MixsolveError(
                    f"{name} must be left out with --threat, which has its own; got {name} {value}"
                    f"; write --threat {args.norm or 'Linf'}:{args.eps or '8/255'}"
                )
        return {"threats": read_threats(args.threat, name="--threat")}
    if args.eps is None:
        raise MixsolveError(
            "--eps, the radius of the attacks, or --threat must be given; got neither; write e.g. "
            "--eps 8/255, or --threat Linf:8/255 --threat L2:0.5"
        )
    ball = make_ball("Linf" if args.norm is None else args.norm, args.eps, prefix="--")
    return {"norm": ball.norm, "eps": ball.eps}


def _check_page(args: argparse.Namespace, read: Sequence[Path] = ()) -> None:
    """Refuse a page that is no .html file, is in the way, or cannot be written."""
    if args.report is None:
        return
    if args.report.suffix.lower() not in (".html", ".htm"):
        raise MixsolveError(f"--report must end in .html, its format; got {args.report.name!r}")
    called = f"--report {args.report}"
    if args.report.parent.is_dir():
        mend = "give --overwrite to overwrite it"
        check_output(args.report, called, replace=args.overwrite, mend=mend, inputs=read)
    _check_writable(args.report.parent, f"{called}: the folder")


def _check_writable(out: Path, called: str) -> None:
    """Refuse, before the work, a directory that cannot be made or written to."""
    present = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK):
        raise MixsolveError(f"{called} {out} cannot be written: {present} cannot be written to")


def _load(args: argparse.Namespace, device: torch.device) -> tuple[list[nn.Module], LabelledImages]:
    """Load data and models, and run each model once."""
    data = read_data(args)
    models = [load_model(spec, device, trust=args.trust) for spec in args.models]
    for name, model in zip(args.models, models, strict=True):
        _probe(name, model, data, device)
    return models, data


def _groups(args: argparse.Namespace, data: LabelledImages) -> Any:
    """Return what `evaluate` takes as groups, checked before the work."""
    if args.groups is None or args.groups == CLASS:
        groups: Any = args.groups
    else:
        path = Path(args.groups)
        try:
            groups = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise MixsolveError(
                f"--groups must be {CLASS!r} or a .npy file of labels that can be read; got "
                f"{path}: {error}"
            ) from error
        if args.limit is not None:
            groups = groups[: args.limit]
    read_groups(groups, data.labels, least=2 if args.held_out else 1)
    return groups


def short_names(models: Sequence[str]) -> list[str]:
    """Return a name for each model: its file's, with a number where that is not the only one.

    Examples
    --------
    >>> short_names(["a/net.pt", "b/net.pt", "zoo:make=weights.pt"])
    ['net', 'net (2)', 'weights']
    """
    return unique_names(Path(spec.rpartition("=")[2]).stem for spec in models)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MixsolveError(f"--device {name} cannot be used: {first}; try cpu") from error
    return device


@torch.no_grad()
def _probe(name: str, model: nn.Module, data: LabelledImages, device: torch.device) -> None:
    """Refuse a model that cannot classify these images, before the attacks."""
    x = to_unit(data.images[:2]).to(device)
    try:
        with frozen(model):
            logits = check_repeatable(model, "models[0]", x)
    except MixsolveError as error:
        raise MixsolveError(f"{name}: {str(error).replace('models[0]', 'the model')}") from error
    except Exception as error:
        # A foreign network may raise anything on images it was not made for.
        first = str(error).strip().partition("\n")[0]
        raise MixsolveError(
            f"{name} cannot classify images of shape {tuple(x.shape[1:])}: "
            f"{type(error).__name__}: {first}"
        ) from error
    if logits.shape[1] < data.classes:
        raise MixsolveError(
            f"{name} returns {logits.shape[1]} logits and the data have {data.classes} classes"
        )


def _file_of(spec: str) -> Path:
    """Return the file that a model is read from: FILE, or architecture=FILE."""
    return Path(spec) if Path(spec).exists() else Path(spec.rpartition("=")[2])


def _write(
    report: Evaluation,
    args: argparse.Namespace,
    models: dict[str, str],
    remarks: list[str],
    seconds: float,
) -> None:
    """Write the files into the work folder, then copy them, `audit.json` last.

    A kill while a picture is drawn then leaves no file that blocks the same command.
    """
    assert report.parts is not None
    report.plot(report.parts / "audit.png")
    report.to_csv(report.parts / "audit.csv")
    if args.report is not None:
        report.to_html(report.parts / "report.html")
    save_solution(report.solution, report.parts / "solution.npz", replace=True)
    content: dict[str, Any] = {
        "mixsolve": mixsolve.__version__,
        "torch": torch.__version__,
        "models": models,
        "data": args.data,
        "size": args.size,
        "split": args.split or ("test" if splits(args.data) else None),
        "attack_names": args.attacks,
        "steps": args.steps,
        "restarts": args.restarts,
        "groups": args.groups,
        **report.to_dict(),
        "warnings": remarks,
        "seconds": round(seconds, 1),
    }
    write_text(report.parts / "audit.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    check_folder(args.out, FILES, args.overwrite, "--overwrite")
    _check_page(args)
    last = ("audit.csv", "audit.png", "solution.npz", "audit.json")
    targets = {args.out / name: report.parts / name for name in last}
    if args.report is not None:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        targets = {args.report: report.parts / "report.html", **targets}
    for path, made in targets.items():
        try:
            with written_aside(path) as aside:
                shutil.copyfile(made, aside)
        except OSError as error:
            raise MixsolveError(f"{path} could not be written: {error}") from error
