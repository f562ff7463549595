"""Pictures of a solution (weights, risks, gap over time) and of a game (weights, rounds)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixsolve.plots.bars import COLOURS
from mixsolve.plots.style import BLUE, INK, ORANGE, PALE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 30  # bars of a panel; more could not be read


def solution_picture(
    weights: Sequence[tuple[str, float]],
    risks: Sequence[tuple[str, float, str]],
    about: str,
    history: Sequence[tuple[float, float]],
    tolerance: float,
) -> Figure:
    """Draw weights and risks as bars, and the gap over time.

    Parameters
    ----------
    weights : sequence of pairs of str and float
        Names and probabilities of the classifiers; of many, the heaviest are drawn.
    risks : sequence of (str, float, str)
        Name, risk, and a kind of `AccuracyBar`, which gives the colour; of many, the last are
        drawn.
    about : str
        What the risks are, for the axis.
    history : sequence of pairs of float
        Seconds and the gap then; a panel is drawn where there are two positive gaps or more.
    tolerance : float
        The gap that was asked for, drawn as a line.
    """
    if len(weights) > _MOST:
        weights = sorted(weights, key=lambda pair: -pair[1])[:_MOST]
    risks = risks[-_MOST:]
    gaps = [(seconds, gap) for seconds, gap in history if 0 < gap < np.inf]
    panels = 2 + (len(gaps) > 1)
    figure = new_figure(4.2 * panels, 1.7 + 0.3 * max(len(weights), len(risks), 4))
    axes = figure.subplots(1, panels)
    shares = [100 * weight for _, weight in weights]
    _bars(axes[0], [name for name, _ in weights], shares, [BLUE] * len(weights), "{:.1f}")
    axes[0].set_xlabel("probability, %")
    axes[0].set_title("Weights", loc="left", fontweight="bold")
    colours = [COLOURS[kind] for *_, kind in risks]
    _bars(axes[1], [name for name, *_ in risks], [risk for _, risk, _ in risks], colours, "{:.4g}")
    axes[1].set_xlabel(about)
    axes[1].set_title("Risks", loc="left", fontweight="bold")
    if panels > 2:
        axes[2].plot(*zip(*gaps, strict=True), color=BLUE, marker="o", markersize=4)
        if tolerance > 0:
            axes[2].axhline(tolerance, color=INK, linestyle="--", linewidth=1.2, label="tolerance")
            axes[2].legend(frameon=False)
        axes[2].set_yscale("log")
        axes[2].xaxis.get_major_locator().set_params(nbins=4)
        axes[2].set_xlabel("seconds")
        axes[2].set_ylabel("certified gap")
        axes[2].set_title("Gap over time", loc="left", fontweight="bold")
        axes[2].grid(axis="y", color=PALE, linewidth=0.5, alpha=0.6)
        axes[2].spines[["top", "right"]].set_visible(False)
    return figure


def game_picture(
    weights: Sequence[tuple[str, float]], rounds: Sequence[tuple[int, float, float]]
) -> Figure:
    """Draw weights as bars, and how the two ends of the risk close in by rounds.

    Parameters
    ----------
    weights : sequence of pairs of str and float
        Names and probabilities of the classifiers; of many, the heaviest are drawn.
    rounds : sequence of (int, float, float)
        Number of the round, risk of its weights before and after its attacks.
    """
    if len(weights) > _MOST:
        weights = sorted(weights, key=lambda pair: -pair[1])[:_MOST]
    figure = new_figure(8.4, 1.7 + 0.3 * max(len(weights), 5))
    bars, axes = figure.subplots(1, 2)
    shares = [100 * weight for _, weight in weights]
    _bars(bars, [name for name, _ in weights], shares, [BLUE] * len(weights), "{:.1f}")
    bars.set_xlabel("probability, %")
    bars.set_title("Weights", loc="left", fontweight="bold")
    numbers = [number for number, *_ in rounds]
    before, after = [low for _, low, _ in rounds], [high for *_, high in rounds]
    axes.plot(numbers, after, color=ORANGE, marker="s", markersize=4, label="after its attacks")
    axes.plot(numbers, before, color=BLUE, marker="o", markersize=4, label="before")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("round")
    axes.set_ylabel("risk of the round's weights")
    axes.set_title("Rounds of the game", loc="left", fontweight="bold")
    axes.legend(frameon=False)
    axes.grid(axis="y", color=PALE, linewidth=0.5, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str], form: str
) -> None:
    """Draw horizontal bars, from top to bottom, with their numbers."""
    places = range(len(names))
    bars = axes.barh(places, values, height=0.6, color=colours)
    axes.bar_label(bars, [form.format(value) for value in values], padding=3, color=INK)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    plain(axes)
