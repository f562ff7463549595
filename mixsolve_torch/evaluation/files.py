"""An evaluation as files for others: CSV, and a page of HTML that needs no other file."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from mixsolve import plots
from mixsolve.base.errors import MissingDependencyError
from mixsolve_torch.evaluation import group_view, view
from mixsolve_torch.evaluation.bootstrap import Estimate
from mixsolve_torch.evaluation.measured import Measured, PlayerRow

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #333; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.best { font-weight: bold; }
img { max-width: 100%; }
p.verdict { font-size: 1.2rem; }
"""


def csv_text(report: Measured) -> str:
    """Return a row a player: name, kind, place, weights, accuracies and their intervals.

    ``place`` is its rank among the contenders, ``behind`` how far it is behind the first of them.
    What does not apply is left empty.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    count = len(report.best_single.weights)
    several = len(report.settings.threats) > 1
    alone = [f"under {name}" for name in report.settings.threats] if several else []
    titles = ["clean", *report.attack_names, *alone, "worst", "fitted", "behind"]
    told = report.by_group
    if told is not None:
        titles += [*(f"group {name}" for name in told.names), "lowest group"]
    verified = report.optimal.verified is not None
    titles += ["verified"] if verified else []
    writer.writerow(
        [
            *("name", "kind", "place"),
            *(f"weight {k + 1}" for k in range(count)),
            *(f"{title}{end}" for title in titles for end in ("", " low", " high")),
            "passes",
        ]
    )
    places = {id(place.row): rank for rank, place in enumerate(report.ranking)}
    for number, row in enumerate(report.players):
        rank = places.get(id(row))
        behind = None if rank is None else report.ranking[rank].behind
        each = row.threats if several else ()
        estimates = [row.clean, *row.attacks, *each, row.worst, row.fitted, behind]
        if told is not None:
            estimates += [*told.rows[number].groups, told.rows[number].lowest]
        estimates += [row.verified] if verified else []
        writer.writerow(
            [
                *(row.name, row.kind, "" if rank is None else rank + 1),
                *row.weights,
                *(number for estimate in estimates for number in _numbers(estimate)),
                row.passes,
            ]
        )
    return buffer.getvalue()


def _numbers(estimate: Estimate | None) -> list[Any]:
    if estimate is None:
        return ["", "", ""]
    return [estimate.value, estimate.low, estimate.high]


def html_text(report: Measured) -> str:
    """Return the page: sentences, table, pictures as data URIs, and how it was measured."""
    title = _title(report)
    pictures = [(view.figure(report), "worst-case accuracies, with intervals")]
    if len(report.ranking) > 1:
        pictures.append((view.leads(report), "differences to the best, with intervals"))
    parts = [
        f"<h1>{escape(title)}</h1>",
        *_told(report),
        *(_picture(plots.png(figure), text) for figure, text in pictures),
        _table(report),
        f"<p>{escape(view.caption(report))}</p>",
        *_by_group(report),
        "<h2>Settings</h2>",
        _rows((), [([name, str(value)], False) for name, value in _settings(report)]),
    ]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def fragment(report: Measured) -> str:
    """Return what a notebook shows: sentences and table, and a picture if matplotlib is there."""
    try:
        picture = _picture(plots.png(view.figure(report)), "worst-case accuracies, with intervals")
    except MissingDependencyError:
        picture = ""
    parts = [f"<p><strong>{escape(_title(report))}</strong></p>", *_told(report), picture]
    return "\n".join([*parts, _table(report)])


def _title(report: Measured) -> str:
    return f"Accuracy of {len(report.losses)} images under {report.threat}"


def _told(report: Measured) -> list[str]:
    """Return the sentences as paragraphs."""
    first, *others = view.sentences(report)
    return [f'<p class="verdict">{escape(first)}</p>', *(f"<p>{escape(t)}</p>" for t in others)]


def _settings(report: Measured) -> Iterable[tuple[str, Any]]:
    yield from vars(report.settings).items()
    yield "candidates", report.losses.shape[1]
    yield "passes of a classifier over an image", report.passes
    yield "images reported on", len(report.losses)
    yield "images fitted on", len(report.fitted_losses)


def _picture(png: bytes, text: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<p><img alt="{escape(text)}" src="data:image/png;base64,{data}"></p>'


def _table(report: Measured) -> str:
    held_out = report.settings.held_out
    names, _ = view.columns(report, report.best_single)
    heads = ["", "kind", *names, *(["when fitted"] if held_out else [])]
    best = report.ranking[0].row
    lines = []
    for row in report.players:
        _, values = view.columns(report, row)
        cells = [row.name, row.kind, *map(_percent, values)]
        if held_out:
            cells.append("" if row.fitted is None else _percent(row.fitted))
        verified = view.certain(row) if report.optimal.verified is not None else []
        cells += [row.worst.percent(), *verified, _weights(row)]
        lines.append((cells, row is best))
    more = ["verified, %", "not known, %"] if report.optimal.verified is not None else []
    return _rows([*heads, "worst case, %", *more, "weights, %"], lines)


def _by_group(report: Measured) -> list[str]:
    """Return the table by group, if there are groups."""
    told = report.by_group
    if told is None:
        return []
    heads, lines = group_view.columns(told)
    rows = [([row.name, *cells], row == told.recommended) for row, cells in lines]
    return [
        "<h2>Worst-case accuracy by group, %</h2>",
        _rows(["", *heads], rows),
        f"<p>{escape(group_view.caption(told))}</p>",
    ]


def _rows(head: Sequence[str], lines: Iterable[tuple[Sequence[str], bool]]) -> str:
    """Return a table of HTML from its head and its lines, which may be the best."""
    text = ["<table>"]
    if head:
        text.append("<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>")
    for cells, best in lines:
        mark = ' class="best"' if best else ""
        text.append(f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return "\n".join([*text, "</table>"])


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}"


def _weights(row: PlayerRow) -> str:
    return "" if row.kind == "single" else " ".join(f"{100 * w:.1f}" for w in row.weights)
