"""An evaluation as a table, a plot, and sentences on the gain of randomising."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from mixsolve import plots
from mixsolve_torch.evaluation.measured import Measured
from mixsolve_torch.evaluation.verdict import what_randomising_buys


def table(report: Measured) -> Table:
    """Lay the accuracies out, in percent; rich prints it."""
    images = len(report.losses)
    table = Table(
        title=f"Accuracy, %, under {report.threat} on {images} images",
        title_style="bold",
        caption=_caption(report),
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("")
    then = "then " if report.settings.in_turn else ""
    heads = [
        "clean",
        *(f"{then if i else ''}{name}" for i, name in enumerate(report.attack_names)),
    ]
    for head in heads:
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    table.add_column("worst case\n[interval]", justify="right", no_wrap=True)
    table.add_column("weights, %", justify="right")
    last = [row.name for row in report.players if row.kind == "single"][-1]
    for row in report.players:
        table.add_row(
            row.name,
            *(f"{100 * value.value:.1f}" for value in (row.clean, *row.attacks)),
            row.worst.percent(),
            "" if row.kind == "single" else " ".join(f"{100 * w:.1f}" for w in row.weights),
            style="bold" if row in (report.best_single, report.optimal) else None,
            end_section=row.name == last,
        )
    return table


def _caption(report: Measured) -> str:
    candidates = report.losses.shape[1]
    share = f"{100 * report.settings.level:g} %"
    attack = (
        "Attacks run one after another on each player: the accuracy is that after each."
        if report.settings.in_turn
        else "Each attack runs alone on each player."
    )
    fit = (
        "Optimal weights were fitted on as many other images."
        if report.settings.held_out
        else "Optimal weights were fitted on these images, which flatters them."
    )
    return (
        f"{attack}\nWorst case: the worst of all {candidates} candidates found for any player, "
        f"with {share}\nbootstrap intervals over images: they do not cover stronger attacks.\n"
        f"{fit}"
    )


def sentences(report: Measured) -> list[str]:
    """Return sentences on the gain of randomising, its interval, and its assumptions."""
    if len(report.best_single.weights) == 1:
        return ["There is one classifier: nothing to randomise between."]
    images, candidates, _ = report.losses.shape
    single, optimal, gain = report.best_single, report.optimal, report.gain
    bought = what_randomising_buys(
        single.name, single.worst.value, optimal.worst.value, measure="accuracy"
    )
    interval = (
        f"the {100 * report.settings.level:g} % interval of the gain over draws of {images} such "
        f"images is {100 * gain.low:.2f} to {100 * gain.high:.2f} points"
    )
    if gain.low > 0:
        sure = f"The gain is more than the luck of the images: {interval}."
    elif gain.value > 0:
        sure = f"These images cannot tell this gain from none: {interval}."
    else:
        sure = f"It does not pay to randomise here, play {single.name} alone: {interval}."
    if not report.settings.held_out:
        sure += (
            " Weights and best classifier were chosen on the images they are measured on, "
            "which flatters the mixture; to hold out images for the measurement avoids that."
        )
    uniform = next(row for row in report.players if row.kind == "uniform")
    on = "the images fitted on" if report.settings.held_out else "these images"
    rests = (
        f"Against the {candidates} candidates found for each image no mixture of these "
        f"classifiers has more than {100 * report.bound:.2f} % on {on}: that is proven. Stronger "
        "attacks can only lower the figures, and may lower one more than another. The uniform "
        f"mixture, which needs no fitting, has {100 * uniform.worst.value:.2f} %."
    )
    sentences = [bought, sure, rests]
    if max(optimal.weights) > 1 - 1e-9:
        alone = report.players[int(np.argmax(optimal.weights))].name
        sentences.insert(1, f"The optimal mixture is no mixture: it always plays {alone}.")
    if not report.settled:
        sentences.append(
            "Better weights may exist: the last attacks on the optimal mixture still raised "
            f"its risk by {100 * report.raised:.2f} points, which its figures count; allow more "
            "rounds."
        )
    return sentences


def figure(report: Measured) -> Any:
    """Draw worst-case accuracies as bars with intervals, all others as marks on them."""
    after = "after" if report.settings.in_turn else "under"
    names = [f"{after} {name}" for name in report.attack_names]
    return plots.accuracy_bars(
        [
            plots.AccuracyBar(
                row.name,
                row.worst.value,
                interval=(row.worst.low, row.worst.high),
                clean=row.clean.value,
                attacks={name: value.value for name, value in zip(names, row.attacks, strict=True)},
                kind=row.kind,
            )
            for row in report.players
        ],
        reference=(report.best_single.name, report.best_single.worst.value),
        level=report.settings.level,
        title=f"Accuracy of {len(report.losses)} images under {report.threat}",
    )
