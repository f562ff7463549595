"""The page of the figure: a table a number of validation images, and what was asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import markdown_table, origin, save
from benchmarks.worst_class.compare import figures
from benchmarks.worst_class.runs import SIZES, Tested
from benchmarks.worst_class.settings import (
    EPOCHS,
    EPS,
    FEWER,
    FIRST,
    FITTED,
    NORM,
    RATES,
    STEPS,
    TEST,
    VALIDATION,
)
from mixsolve import plots

_GAIN, _ERRORS, _MEAN = 2.0, 2.0, -1.0  # what is asked, in points and standard errors

_HEADS = (
    *("seed", "mixture", "single", "gain", "error over images", "mixture, other half"),
    *("single, other half", "mean, mixture", "mean, single", "snapshots", "when fitted"),
    *("between halves", "advice"),
)


def write(out: Path, cells: Mapping[int, Tested], seeds: Sequence[int]) -> None:
    """Write the page of all that is finished, and its numbers."""
    found = figures(cells)
    save(out, "worst-class", page(found, seeds), found)
    plots.save(plots.two_classes(), out / "worst-class.png")


def page(found: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """Return the lines of the page."""
    lines = [
        "# The worst class: a mixture of snapshots against the best of them",
        "",
        f"{origin('worst_class', f'PyTorch {torch.__version__}')}.",
        "",
        f"Fashion-MNIST, 14x14 (means of 2x2 pixels), {NORM} {EPS:g}. A small CNN is trained on "
        f"{FITTED:,} images for {EPOCHS} epochs, by adversarial training (PGD-{STEPS}) with "
        "multiplicative weights on the classes; of each run the snapshots after epochs "
        f"{FIRST} to {EPOCHS} are kept. On validation images are chosen: the best single snapshot, "
        f"over all epochs and rates of the weights ({', '.join(f'{rate:g}' for rate in RATES)}); "
        "the run whose snapshots are mixed, and their weights, by the game in which the attacker "
        "also chooses the class. On all validation images the snapshots are attacked by PGD-10: "
        f"each alone, and mixtures. With {FEWER:,} images everything is chosen again on the first "
        "ones, with the candidates found for all.",
        "",
        f"Figures are on {TEST:,} test images, in percent and points: the lowest accuracy on a "
        "class against the worst of PGD-10 and APGD-40 on both mixtures and each of their "
        "snapshots. The error is that of the paired difference over images. The lowest of ten "
        "measured accuracies is too low on average: 'other half' is the accuracy, on one half of "
        "the images, of the class that is lowest on the other half. 'When fitted' is the mixture's "
        "lowest accuracy on the validation halves that weights were fitted on, 'between halves' "
        "that on the other ones. The advice is what the gain and its interval on these images "
        "say.",
        "",
        "![What single networks and mixtures reach on two classes](worst-class.png)",
    ]
    for size in SIZES:
        rows = [own for own in found["rows"] if own["images"] == size]
        totals = next((own for own in found["totals"] if own["images"] == size), None)
        lines += ["", f"## {size:,} validation images", ""]
        done = {own["seed"] for own in rows}
        table = [_cells(own) for own in rows]
        table += [
            [str(seed), "not measured", *[""] * (len(_HEADS) - 2)]
            for seed in seeds
            if seed not in done
        ]
        lines += [*markdown_table(_HEADS, table), ""]
        lines += ["Not measured yet."] if totals is None else _asked(totals, len(seeds))
    return lines


def _cells(own: Mapping[str, Any]) -> list[str]:
    return [
        str(own["seed"]),
        *(f"{own[name]:.2f}" for name in ("mixture", "single")),
        f"{own['gain']:+.2f}",
        *(
            f"{own[name]:.2f}"
            for name in ("error", "mixture_other", "single_other", "mixture_mean", "single_mean")
        ),
        str(own["members"]),
        *(f"{own[name]:.2f}" for name in ("promised", "held_out")),
        own["recommended"],
    ]


def _asked(own: Mapping[str, Any], seeds: int) -> list[str]:
    """Return what was asked of the totals, and whether they have it."""
    error = own["error"]
    all_seeds = own["seeds"] == seeds

    def met(yes: bool) -> str:
        return ("met" if yes else "not met") if all_seeds else "not measured on all seeds"

    lines = [
        f"Mean over {own['seeds']} of {seeds} seeds: mixture {own['mixture']:.2f} %, single "
        f"{own['single']:.2f} %, gain {own['gain']:+.2f} points (standard error over seeds "
        f"{_number(error)}, over images {own['image_error']:.2f}).",
        "",
    ]
    if own["images"] == VALIDATION:
        sure = own["gain"] >= _ERRORS * max(error, own["image_error"])
        lines += [
            f"- asked: a gain of {_GAIN:g} points or more, at {_ERRORS:g} standard errors: "
            f"{met(own['gain'] >= _GAIN and sure)}",
            f"- asked: mean accuracy at most 1 point lower: {own['mean_gain']:+.2f}: "
            f"{met(own['mean_gain'] >= _MEAN)}",
            "- asked: a spread over seeds of at most half of the single's: "
            f"{_number(own['mixture_spread'])} against {_number(own['single_spread'])}: "
            f"{met(own['mixture_spread'] <= own['single_spread'] / 2)}",
        ]
    else:
        lines += [
            f"- asked: at least not worse: {own['gain']:+.2f}: {met(own['gain'] >= 0)}",
            f"- mean accuracy: {own['mean_gain']:+.2f}; spread over seeds "
            f"{_number(own['mixture_spread'])} against {_number(own['single_spread'])}",
        ]
    return lines


def _number(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:.2f}"
