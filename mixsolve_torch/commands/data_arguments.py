"""The images that a command evaluates classifiers on: its options, and what they name."""

from __future__ import annotations

import argparse
from pathlib import Path

from mixsolve_torch.data.datasets import NAMES, SPLITS, load_data
from mixsolve_torch.data.labelled import LabelledImages


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `read_data` reads."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help=f"{', '.join(NAMES)}; a .npz file with images and labels, or with test_images and "
        "test_labels; or a directory of class folders, or with test/ or val/ above them",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="directory of the data set")
    parser.add_argument("--download", action="store_true", help="download a set that is missing")
    parser.add_argument("--split", choices=SPLITS, help="part of the data (test)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="bring the image files of a directory to N x N pixels: the shorter side is scaled, "
        "the middle cut out",
    )


def read_data(args: argparse.Namespace) -> LabelledImages:
    """Return the images that the options name."""
    return load_data(
        args.data,
        data_dir=args.data_dir,
        download=args.download,
        split=args.split,
        limit=args.limit,
        size=args.size,
    )
