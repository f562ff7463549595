"""`mixsolve certify`: what saved classifiers hold against every patch, or every forged sensor.

One clean pass over the images; nothing is attacked, and the answer holds against all attacks in
reach. Classifiers of whole images are given a mask each, which hides the rest before them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import mixsolve
from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import check_output, write_text
from mixsolve.base.plain import json_text
from mixsolve.commands.output import add_output_arguments, is_silent, print_json, waiting
from mixsolve_torch.commands.audit import short_names
from mixsolve_torch.commands.console import say
from mixsolve_torch.commands.data_arguments import add_data_arguments, read_data
from mixsolve_torch.models.load import load_model
from mixsolve_torch.reach.losses import reach_losses
from mixsolve_torch.reach.masked import Masked
from mixsolve_torch.reach.sets import Reach, read_reach


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `mixsolve certify`."""
    parser.epilog = (
        "A MODEL is what `mixsolve audit` takes. A classifier without a mask counts as reading the "
        "whole image, and is lost under every patch. Exit code: 0, or 2 for wrong input."
    )
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL", help="classifiers")
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="FILE",
        help="a .npy file of booleans, (models, H, W) or (models, C, H, W): what each model reads; "
        "the rest is hidden from it",
    )
    parser.add_argument("--fill", type=float, default=0.0, help="what hidden pixels become (0)")
    parser.add_argument(
        "--threat",
        required=True,
        metavar="SET",
        help="patch:4 or patch:4x6 (pixels, height x width), channels, or sensors:FILE.npy with "
        "masks (sensors, H, W) or the number of a sensor for every pixel (H, W)",
    )
    parser.add_argument(
        "--at-most", type=int, default=1, metavar="N", help="patches or sensors at once (1)"
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--trust", action="store_true", help="load archives and programs with all code in them"
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="certify these; none are chosen then"
    )
    parser.add_argument(
        "--held-out",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="choose the weights on half of the images and report on the other half (yes)",
    )
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of the halves (0)")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="(256)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1, say (cpu)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON object to a file")
    parser.add_argument("--replace", action="store_true", help="let --out overwrite a file")
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Certify, print, and write the file."""
    _check(args)
    with waiting("reading images and models", silent=is_silent(args)):
        data = read_data(args)
        shape = tuple(data.images.shape[1:])
        sets = read_reach(args.threat, shape, at_most=args.at_most, name="--threat")
        models = [load_model(spec, args.device, trust=args.trust) for spec in args.models]
        models = _masked(models, args)
    losses = reach_losses(
        models, data, sets, batch_size=args.batch_size, progress=not is_silent(args)
    )
    certificate = losses.certify(
        args.weights, held_out=args.held_out, level=args.level, seed=args.seed
    )
    names = short_names(args.models)
    content: dict[str, Any] = {
        "mixsolve": mixsolve.__version__,
        "torch": torch.__version__,
        "models": dict(zip(names, args.models, strict=True)),
        "data": args.data,
        "threat": args.threat,
        "at_most": args.at_most,
        "sets": losses.n_sets,
        "patterns": losses.touched.astype(int).tolist(),
        **certificate.to_dict(),
    }
    if args.out is not None:
        write_text(args.out, json_text(content) + "\n")
    if args.json:
        print_json(content)
    if is_silent(args):
        return 0
    weights = ", ".join(
        f"{name} {weight:.4f}" for name, weight in zip(names, certificate.weights, strict=True)
    )
    say(f"Weights: {weights}.")
    for sentence in (*certificate.sentences(), *_remarks(losses.touched, sets, names)):
        say(sentence)
    if args.out is not None:
        say(f"Wrote {args.out}.")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse, before models and data are read, what can be told to be wrong."""
    for name in ("at_most", "batch_size", "limit", "size"):
        if getattr(args, name) is not None:
            as_count(f"--{name.replace('_', '-')}", getattr(args, name))
    as_count("--seed", args.seed, 0)
    as_real("--level", args.level, above=0, below=1)
    as_real("--fill", args.fill)
    if args.out is not None:
        mend = "give --replace to overwrite it"
        check_output(args.out, f"--out {args.out}", replace=args.replace, mend=mend)
    if args.threat.partition(":")[0] not in ("channels", "sensors"):
        read_reach(args.threat, (1, 1, 1), name="--threat")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().partition("\n")[0]
        raise MixsolveError(f"--device {args.device} cannot be used: {first}; try cpu") from error


def _masked(models: list[nn.Module], args: argparse.Namespace) -> list[nn.Module]:
    """Return the classifiers behind their masks, if there are any."""
    if args.masks is None:
        return models
    try:
        masks = np.load(args.masks, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MixsolveError(f"--masks {args.masks} cannot be read: {error}") from error
    if masks.dtype != bool or masks.ndim not in (3, 4) or len(masks) != len(models):
        raise MixsolveError(
            f"--masks {args.masks} must hold booleans, ({len(models)}, H, W) or ({len(models)}, C, "
            f"H, W), one mask a model; got {masks.dtype} of shape {masks.shape}"
        )
    pairs = zip(models, masks, strict=True)
    return [Masked(model, mask, args.fill).eval().to(args.device) for model, mask in pairs]


def _remarks(touched: np.ndarray, sets: Reach, names: list[str]) -> list[str]:
    """Say which classifiers every set meets, and what to do if those are all."""
    lost = [name for name, own in zip(names, touched.T, strict=True) if own.all()]
    if not lost:
        return []
    text = f"Met by every set of {sets!r}, wherever it is: {', '.join(lost)}."
    if len(lost) == len(names):
        text += " Nothing can be certified: give masks of disjoint parts with --masks."
    return [text]
