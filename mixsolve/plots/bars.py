"""Accuracies as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.plots.style import BLUE, GREEN, INK, ORANGE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "single": BLUE,
    "uniform": ORANGE,
    "optimal": GREEN,
    "given": "#CC79A7",
    "ensemble": "#8C8C8C",
}
_MARKS = "D^vs<>*"


@dataclass(frozen=True)
class AccuracyBar:
    """One row of `accuracy_bars`; accuracies from 0 to 1.

    Attributes
    ----------
    name : str
        Label of the bar.
    worst : float
        The accuracy against the worst of all candidates, the length of the bar.
    interval : pair of float, optional
        Its uncertainty.
    clean : float, optional
        The accuracy on clean data.
    attacks : mapping of str to float
        Accuracies under attacks, by their names in the legend; the same in every bar.
    kind : {"single", "uniform", "given", "optimal", "ensemble"}
        A single classifier, a mixture that was not optimised, one that was, or a deterministic
        ensemble.
    """

    name: str
    worst: float
    interval: tuple[float, float] | None = None
    clean: float | None = None
    attacks: Mapping[str, float] = field(default_factory=dict)
    kind: str = "single"


def accuracy_bars(
    bars: Sequence[AccuracyBar],
    *,
    reference: tuple[str, float] | None = None,
    level: float = 0.95,
    title: str = "Accuracy under attack",
) -> Figure:
    """Draw worst-case accuracies as bars, those on clean data and under single attacks as marks.

    Parameters
    ----------
    bars : sequence of AccuracyBar
        From top to bottom.
    reference : pair of str and float, optional
        Name and accuracy of the classifier to compare with; drawn as a line.
    level : float, default 0.95
        Coverage of the intervals.
    title : str, default "Accuracy under attack"
        Title.

    Raises
    ------
    MixsolveError
        No bar, or a bar of an unknown kind.
    """
    if not bars:
        raise MixsolveError("bars must hold at least one AccuracyBar; got none")
    for bar in bars:
        if bar.kind not in COLOURS:
            known = ", ".join(map(repr, COLOURS))
            raise MixsolveError(
                f"kind of bar {bar.name!r} must be one of {known}; got {bar.kind!r}"
            )
    figure = new_figure(8.6, 1.9 + 0.62 * len(bars))
    axes = figure.add_subplot()
    rows = np.arange(len(bars))
    worst = [100 * bar.worst for bar in bars]
    axes.barh(rows, worst, height=0.5, color=[COLOURS[bar.kind] for bar in bars])
    for row, bar in enumerate(bars):
        text = f"{100 * bar.worst:.1f} %"
        if bar.interval is not None:
            low, high = (100 * end for end in bar.interval)
            for colour, width in (("white", 3.2), (INK, 1.4)):  # legible on the bar and beside it
                axes.errorbar(
                    (low + high) / 2,
                    row,
                    xerr=(high - low) / 2,
                    color=colour,
                    linewidth=width,
                    capsize=4,
                    capthick=width,
                )
            text += f"  [{low:.1f}, {high:.1f}]"
        axes.text(1.02, row, text, va="center", color=INK, transform=axes.get_yaxis_transform())
    marked: dict[str, list[tuple[float, float]]] = {}
    for row, bar in enumerate(bars):
        if bar.clean is not None:
            marked.setdefault("clean images", []).append((100 * bar.clean, row))
        for name, value in bar.attacks.items():
            marked.setdefault(name, []).append((100 * value, row - 0.36))
    for i, (name, places) in enumerate(marked.items()):
        axes.plot(
            *zip(*places, strict=True),
            linestyle="none",
            marker="o" if name == "clean images" else _MARKS[i % len(_MARKS)],
            markersize=6,
            markerfacecolor="white",
            markeredgecolor=INK,
            label=name,
        )
    if reference is not None:
        name, value = reference
        axes.axvline(
            100 * value,
            color=INK,
            linestyle="--",
            linewidth=1.2,
            label=f"worst case of {name}",
        )
    axes.set_yticks(rows, [bar.name for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(
        "accuracy, % (higher is better); "
        f"bars: worst case of all attacks, with {100 * level:g} % intervals"
    )
    axes.set_title(title, loc="left", fontweight="bold")
    plain(axes)
    if marked or reference is not None:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
