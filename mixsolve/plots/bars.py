"""Bars of risks and of accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.plots.style import BLUE, GREEN, INK, ORANGE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AccuracyBar", "Bar", "accuracy_bars", "risk_bars"]

_COLOURS = {"single": BLUE, "uniform": ORANGE, "optimal": GREEN}
_MORE_COLOURS = {"given": "#CC79A7", "ensemble": "#8C8C8C"}
_MARKS = "D^vs<>*"


@dataclass(frozen=True)
class Bar:
    """One row of `risk_bars`.

    Attributes
    ----------
    name : str
        Label of the bar.
    risk : float
        The adversarial risk, from 0 to 1.
    standard : float or None
        The risk on clean data, from 0 to 1, where it is known.
    kind : {"single", "uniform", "optimal"}
        A single classifier, a mixture that was not optimised, or one that was.
    """

    name: str
    risk: float
    standard: float | None = None
    kind: str = "single"


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


def risk_bars(
    bars: Sequence[Bar], *, lower_bound: float | None = None, title: str = "Adversarial risk"
) -> Figure:
    """Draw adversarial risks as bars, the risks on clean data as dots on them.

    Parameters
    ----------
    bars : sequence of Bar
        From top to bottom.
    lower_bound : float, optional
        A lower bound on the risk of mixtures of these classifiers, from 0 to 1; drawn as a line.
    title : str, default "Adversarial risk"
        Title.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    MixsolveError
        No bar, or a bar of an unknown kind.
    """
    if not bars:
        raise MixsolveError("bars must hold at least one Bar; got none")
    _check_kinds(bars, _COLOURS)
    figure = new_figure(7.6, 1.5 + 0.42 * len(bars))
    axes = figure.add_subplot()
    risks = [100 * bar.risk for bar in bars]
    axes.barh(range(len(bars)), risks, height=0.62, color=[_COLOURS[bar.kind] for bar in bars])
    end = max(*risks, 1e-9)
    for row, risk in enumerate(risks):
        axes.text(risk + 0.015 * end, row, f"{risk:.1f} %", va="center", color=INK)
    measured = [(100 * b.standard, row) for row, b in enumerate(bars) if b.standard is not None]
    if measured:
        axes.plot(
            *zip(*measured, strict=True),
            linestyle="none",
            marker="o",
            markersize=7,
            markerfacecolor="white",
            markeredgecolor=INK,
            label="standard risk (clean images)",
        )
    if lower_bound is not None:
        axes.axvline(
            100 * lower_bound,
            color=INK,
            linestyle="--",
            linewidth=1.2,
            label=f"no mixture does better than {100 * lower_bound:.1f} %",
        )
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.14 * end)
    axes.set_xlabel("risk, % (lower is better)")
    figure.suptitle(title, fontweight="bold")
    plain(axes)
    if measured or lower_bound is not None:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


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

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    MixsolveError
        No bar, or a bar of an unknown kind.
    """
    if not bars:
        raise MixsolveError("bars must hold at least one AccuracyBar; got none")
    colours = _COLOURS | _MORE_COLOURS
    _check_kinds(bars, colours)
    figure = new_figure(8.6, 1.9 + 0.62 * len(bars))
    axes = figure.add_subplot()
    rows = np.arange(len(bars))
    worst = [100 * bar.worst for bar in bars]
    axes.barh(rows, worst, height=0.5, color=[colours[bar.kind] for bar in bars])
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


def _check_kinds(bars: Sequence[Bar] | Sequence[AccuracyBar], colours: Mapping[str, str]) -> None:
    for bar in bars:
        if bar.kind not in colours:
            known = ", ".join(repr(kind) for kind in colours)
            raise MixsolveError(
                f"kind of bar {bar.name!r} must be one of {known}; got {bar.kind!r}"
            )
