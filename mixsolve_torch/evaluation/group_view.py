"""Accuracies by group as a table and in sentences: who is best on the worst one, how surely."""

from __future__ import annotations

from rich import box
from rich.table import Table

from mixsolve_torch.evaluation.by_group import ByGroup, GroupRow

_COLUMNS = 12  # groups in a table; of more, the worst ones of the optimal mixture
_TOLD = 5  # bounds in a sentence, the lowest ones


def shown(report: ByGroup) -> list[int]:
    """Return the places of the groups that a table shows, in their order."""
    places = range(len(report.names))
    worst = sorted(places, key=lambda g: report.optimal.groups[g].value)[:_COLUMNS]
    return sorted(worst)


def columns(report: ByGroup) -> tuple[list[str], list[tuple[GroupRow, list[str]]]]:
    """Return the heads of a table, and each player with its accuracies, in percent."""
    groups = shown(report)
    fitted = report.optimal.fitted is not None
    heads = [report.names[g] for g in groups]
    heads += ["on other half", *(["when fitted"] if fitted else []), "lowest [interval]"]
    lines = []
    for row in report.rows:
        cells = [f"{100 * row.groups[g].value:.1f}" for g in groups]
        cells.append(f"{100 * row.other:.1f}")
        if fitted:
            cells.append("" if row.fitted is None else f"{100 * row.fitted:.1f}")
        lines.append((row, [*cells, row.lowest.percent()]))
    return heads, lines


def table(report: ByGroup) -> Table:
    """Lay the accuracies on the groups out, in percent; rich prints it."""
    some = len(shown(report)) < len(report.names)
    which = f"the {_COLUMNS} worst of {len(report.names)} groups" if some else "each group"
    laid = Table(
        title=f"Worst-case accuracy, %, on {which}",
        title_style="bold",
        caption=caption(report),
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        collapse_padding=True,
    )
    heads, lines = columns(report)
    laid.add_column("")
    for head in heads:
        laid.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    bold = (report.best_single, report.optimal)
    for row, cells in lines:
        laid.add_row(row.name, *cells, style="bold" if row in bold else None)
    return laid


def caption(report: ByGroup) -> str:
    """Say how the accuracies on the worst group were measured."""
    text = (
        "Lowest: of the accuracies on these images, too low on average where groups are close.\n"
        "On other half: of the group that is lowest on one half of the images, on the other half."
    )
    if report.optimal.fitted is not None:
        text += (
            "\nWhen fitted: the lowest on the images that weights and classifier were chosen on."
        )
    return text


def sentences(report: ByGroup, level: float, *, advice: bool = True) -> list[str]:
    """Return sentences: what to deploy, the gain on the worst group, how far weights hold."""
    single, optimal, gain = report.best_single, report.optimal, report.gain
    interval = (
        f"{100 * gain.value:+.2f} points, paired {100 * level:g} % interval "
        f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}, standard error "
        f"{100 * report.gain_error:.2f}"
    )
    told = [_advice(report)] if advice else []
    told.append(
        f"On its worst group the optimal mixture has {_lowest(optimal)}, the best single "
        f"classifier ({single.name}) {_lowest(single)}. Gain of the mixture: {interval}."
    )
    told.append(
        "The lowest of several measured accuracies is too low on average, and more so for a "
        "mixture, which makes groups equal. The group that is lowest on one half of the images has "
        f"on the other half {_percent(optimal.other)} under the mixture and "
        f"{_percent(single.other)} under {single.name}: on average the truth lies between."
    )
    if report.fit is not None:
        told += _fit(report)
    return told


def _advice(report: ByGroup) -> str:
    row = report.recommended
    if row.kind == "single":
        return (
            f"Deploy one classifier alone, {row.name}: no gain over it on the worst group is sure."
        )
    if row.kind == "ensemble":
        return f"Do not randomise: combine the classifiers' outputs ({row.name})."
    return f"Randomise: the {row.name} is ahead on the worst group by more than its error."


def _fit(report: ByGroup) -> list[str]:
    fit = report.fit
    assert fit is not None
    bounds = sorted(zip(fit.bounds, report.names, strict=True))[:_TOLD]
    least = ", ".join(f"{name}: {_percent(max(bound, 0.0))}" for bound, name in bounds)
    return [
        f"The fit was {fit.name!r}, which held best between halves of the images fitted "
        f"on: {_percent(fit.fitted)} on the worst group where fitted, {_percent(fit.held_out)} "
        f"(standard error {100 * fit.error:.2f}) on the other half. A fitted value is "
        f"{100 * fit.optimism:.2f} points too high here.",
        f"With confidence, all groups at once, the mixture has there at least {least}.",
        f"No mixture has more than {_percent(report.bound)} on its worst group against the "
        "candidates found, on the images fitted on: that is proven.",
    ]


def _lowest(row: GroupRow) -> str:
    return f"{_percent(row.lowest.value)} (group {row.worst})"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
