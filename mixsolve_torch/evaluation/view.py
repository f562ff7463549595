"""An evaluation as a table, a plot, and sentences on who is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from mixsolve import plots
from mixsolve_torch.evaluation import group_view
from mixsolve_torch.evaluation.bootstrap import Estimate
from mixsolve_torch.evaluation.measured import Measured, PlayerRow
from mixsolve_torch.evaluation.verdict import to_deploy, what_randomising_buys, who_is_best

_NAME_WIDTH = len("uniform mixture")
_GROUPS = {"single": "single", "ensemble": "ensemble"}


def table(report: Measured) -> Table:
    """Lay the accuracies out, in percent; rich prints it."""
    images = len(report.losses)
    told = caption(report)
    table = Table(
        title=f"Accuracy, %, under {report.threat} on {images} images",
        title_style="bold",
        caption=told,
        min_width=max(map(len, told.splitlines())),  # else its lines would break in the middle
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", min_width=_NAME_WIDTH)
    then = "then " if report.settings.in_turn and not _several(report) else ""
    names, _ = columns(report, report.best_single)
    heads = [f"{then if i > 1 else ''}{name}" for i, name in enumerate(names)]
    for head in heads:
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    if report.settings.held_out:
        table.add_column("when\nfitted", justify="right", no_wrap=True)
    table.add_column("worst case\n[interval]", justify="right", no_wrap=True)
    verified = report.optimal.verified is not None
    if verified:
        table.add_column("verified\n[interval]", justify="right", no_wrap=True)
        table.add_column("not\nknown", justify="right", no_wrap=True)
    table.add_column("weights, %", justify="right")
    bold = (report.best_single, report.best_ensemble, report.optimal)
    groups = [_GROUPS.get(row.kind, "mixture") for row in report.players]
    for row, group, following in zip(report.players, groups, [*groups[1:], ""], strict=True):
        fitted = ["" if row.fitted is None else f"{100 * row.fitted.value:.1f}"]
        table.add_row(
            row.name,
            *(f"{100 * value.value:.1f}" for value in columns(report, row)[1]),
            *(fitted if report.settings.held_out else []),
            row.worst.percent(),
            *(certain(row) if verified else []),
            "" if row.kind == "single" else " ".join(f"{100 * w:.0f}" for w in row.weights),
            style="bold" if row in bold else None,
            end_section=group != following,
        )
    return table


def text(report: Measured) -> str:
    """The lines that ``repr`` shows: the contenders, the best first, and what randomising buys."""
    width = max(len(place.row.name) for place in report.ranking)
    lines = [f"Evaluation: {len(report.losses)} images under {report.threat}"]
    for place in report.ranking:
        behind = "" if place is report.ranking[0] else f"  behind by {place.behind.percent()}"
        lines.append(f"  {place.row.name:<{width}}  {place.row.worst.percent()} %{behind}")
    return "\n".join([*lines, f"  gain of randomising: {report.gain.percent()} points"])


def certain(row: PlayerRow) -> list[str]:
    """Return the accuracy that no attack can break, and the rest of the worst case, in percent."""
    if row.verified is None:
        return ["", ""]
    return [row.verified.percent(), f"{100 * (row.worst.value - row.verified.value):.1f}"]


def columns(report: Measured, row: PlayerRow) -> tuple[list[str], list[Estimate]]:
    """Return names and accuracies of a row: clean, then under each attack, or each of several sets.

    With several sets the attacks, a dozen or more, are left to JSON and CSV.
    """
    if _several(report):
        return ["clean", *report.settings.threats], [row.clean, *row.threats]
    return ["clean", *report.attack_names], [row.clean, *row.attacks]


def _several(report: Measured) -> bool:
    return len(report.settings.threats) > 1


def caption(report: Measured) -> str:
    """Say how the accuracies were measured, in lines for below the table."""
    candidates = report.losses.shape[1]
    share = f"{100 * report.settings.level:g} %"
    exact = report.settings.exact
    attack = (
        "Each set alone, then the worst of all: the union.\nPoints count in every set they lie in."
        if _several(report)
        else "Attacks run one after another on each player: the accuracy is that after each."
        if report.settings.in_turn
        else "Each attack runs alone on each player."
    )
    fit = (
        "Optimal weights and best classifier were chosen on as many other images;\n"
        "'when fitted' is the worst case on those."
        if report.settings.held_out
        else "Optimal weights were fitted on these images, which flatters them."
    )
    rivals = (
        "\nPlayers are attacked where candidates found before leave them something to lose."
        if report.best_ensemble is not None and report.settings.in_turn
        else ""
    )
    tried = (
        f"\nAll points of {_listed(exact)} were tried on every player: that part is exact."
        if exact
        else ""
    )
    proven = (
        ""
        if report.optimal.verified is None
        else "\nVerified: no attack in the ball can break it. Not known: the worst case less that."
    )
    return (
        f"{attack}{tried}{rivals}\nWorst case: the worst of all {candidates} candidates found for "
        f"any player, with {share}\nbootstrap intervals over images: they do not cover stronger "
        f"attacks.{proven}\n{fit}"
    )


def sentences(report: Measured, *, advice: bool = True) -> list[str]:
    """Return sentences: who is best, the gain of randomising, intervals, assumptions.

    Without `advice` they tell what was measured, and not what to deploy.
    """
    if len(report.best_single.weights) == 1:
        return ["There is one classifier: nothing to randomise between."]
    if report.by_group is not None:
        return [
            *group_view.sentences(report.by_group, report.settings.level, advice=advice),
            _mean(report),
            *_unsettled(report),
        ]
    images = len(report.losses)
    single, optimal, gain = report.best_single, report.optimal, report.gain
    bought = what_randomising_buys(
        single.name, single.worst.value, optimal.worst.value, measure="accuracy"
    )
    interval = (
        f"the {100 * report.settings.level:g} % interval of the gain over draws of {images} such "
        f"images is {100 * gain.low:.2f} to {100 * gain.high:.2f} points"
    )
    advised = to_deploy(report.ranking, gain) if advice else None
    if gain.low > 0:
        sure = f"The gain is more than the luck of the images: {interval}."
    elif gain.value > 0:
        sure = f"These images cannot tell this gain from none: {interval}."
    elif advised is not None and advised.row is single:
        sure = f"It does not pay to randomise here, play {single.name} alone: {interval}."
    else:
        sure = f"The optimal mixture gains nothing over {single.name}: {interval}."
    if not report.settings.held_out:
        sure += (
            " Weights and best classifier were chosen on the images they are measured on, "
            "which flatters the mixture; to hold out images for the measurement avoids that."
        )
    elif optimal.fitted is not None and single.fitted is not None:
        seen = optimal.fitted.value - single.fitted.value
        sure += (
            " On the images that weights and best classifier were chosen on, the mixture has "
            f"{100 * optimal.fitted.value:.2f} % and the classifier "
            f"{100 * single.fitted.value:.2f} %: a gain of {100 * seen:.2f} points there."
        )
    uniform = next(row for row in report.players if row.kind == "uniform")
    on = "the images fitted on" if report.settings.held_out else "these images"
    known = report.fitted_losses.shape[1]
    rests = (
        f"Against the {known} candidates found for each image no mixture of these classifiers has "
        f"more than {100 * report.bound:.2f} % on {on}: that is proven. Stronger "
        "attacks can only lower the figures, and may lower one more than another. The uniform "
        f"mixture, which needs no fitting, has {100 * uniform.worst.value:.2f} %."
    )
    best = who_is_best(report.ranking, report.settings.level, advised)
    sentences = [best, bought, sure, rests]
    if max(optimal.weights) > 1 - 1e-9:
        alone = report.players[int(np.argmax(optimal.weights))].name
        sentences.insert(2, f"The optimal mixture is no mixture: it always plays {alone}.")
    if _several(report):
        sentences.append(_under_each(report))
    return [*sentences, *_unsettled(report)]


def _mean(report: Measured) -> str:
    """Say what the players have on all images, where weights are those for the worst group."""
    single, optimal, gain = report.best_single, report.optimal, report.gain
    uniform = next(row for row in report.players if row.kind == "uniform")
    return (
        f"On all images the optimal mixture has {100 * optimal.worst.value:.2f} %, {single.name} "
        f"{100 * single.worst.value:.2f} %: a difference of {100 * gain.value:+.2f} points, "
        f"{100 * report.settings.level:g} % interval {100 * gain.low:+.2f} to "
        f"{100 * gain.high:+.2f}. The uniform mixture has {100 * uniform.worst.value:.2f} %. "
        "Stronger attacks can only lower the figures, and may lower one more than another."
    )


def _unsettled(report: Measured) -> list[str]:
    """Say that better weights may exist, if the game did not end."""
    if report.settled:
        return []
    return [
        "Better weights may exist: the last attacks on the optimal mixture still raised "
        f"its risk by {100 * report.raised:.2f} points, which its figures count; allow more "
        "rounds."
    ]


def _under_each(report: Measured) -> str:
    """Say what the optimal mixture and the best classifier have against each set alone."""
    single, optimal = report.best_single, report.optimal

    def told(row: PlayerRow) -> str:
        return ", ".join(
            f"{100 * own.value:.2f} % ({name})"
            for name, own in zip(report.settings.threats, row.threats, strict=True)
        )

    return (
        f"Against each set alone the optimal mixture has {told(optimal)}, and {single.name} "
        f"{told(single)}; against the union they have {100 * optimal.worst.value:.2f} % and "
        f"{100 * single.worst.value:.2f} %. The weights are those for the union."
    )


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def leads(report: Measured) -> Any:
    """Draw how far the other contenders are behind the best one."""
    first, *others = report.ranking
    return plots.lead_bars(
        [
            plots.Lead(place.row.name, place.behind.value, (place.behind.low, place.behind.high))
            for place in others
        ],
        best=first.row.name,
        level=report.settings.level,
    )


def figure(report: Measured) -> Any:
    """Draw worst-case accuracies as bars with intervals, all others as marks on them."""
    after = "after" if report.settings.in_turn and not _several(report) else "under"
    names = [f"{after} {name}" for name in columns(report, report.best_single)[0][1:]]
    return plots.accuracy_bars(
        [
            plots.AccuracyBar(
                row.name,
                row.worst.value,
                interval=(row.worst.low, row.worst.high),
                clean=row.clean.value,
                attacks={
                    name: value.value
                    for name, value in zip(names, columns(report, row)[1][1:], strict=True)
                },
                kind=row.kind,
            )
            for row in report.players
        ],
        reference=(report.best_single.name, report.best_single.worst.value),
        level=report.settings.level,
        title=f"Accuracy of {len(report.losses)} images under {report.threat}",
    )
