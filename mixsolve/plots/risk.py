"""Pictures of a game: risks as bars, and a mixture with the attacks that its equilibrium uses.

The functions take plain numbers and arrays and return a matplotlib figure; `save` writes it aside
and renames it. matplotlib is imported when a figure is made, not before. The colours are Okabe and
Ito's, which people with a colour vision deficiency can tell apart, and no colour carries a meaning
that is not written down as well.

References
----------
Okabe, Ito. Color Universal Design. 2008.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve.base.files import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "AccuracyBar",
    "Bar",
    "Example",
    "Variant",
    "accuracy_bars",
    "check_ending",
    "mixture_picture",
    "require_matplotlib",
    "risk_bars",
    "save",
]

_BLUE, _ORANGE, _GREEN, _INK, _PALE = "#0072B2", "#E69F00", "#009E73", "#333333", "#BBBBBB"
_COLOURS = {"single": _BLUE, "uniform": _ORANGE, "optimal": _GREEN}
_GIVEN = "#CC79A7"
_MARKS = "D^vs<>*"
_DPI = 150


@dataclass(frozen=True)
class Bar:
    """One row of `risk_bars`.

    Attributes
    ----------
    name : str
        What the bar is called.
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
        What the bar is called.
    worst : float
        The accuracy against the worst of all candidates, the length of the bar.
    interval : pair of float, optional
        Its uncertainty.
    clean : float, optional
        The accuracy on clean data.
    attacks : mapping of str to float
        Accuracies under attacks, by what the legend calls them; the same in every bar.
    kind : {"single", "uniform", "given", "optimal"}
        A single classifier, a mixture that was not optimised, or one that was.
    """

    name: str
    worst: float
    interval: tuple[float, float] | None = None
    clean: float | None = None
    attacks: Mapping[str, float] = field(default_factory=dict)
    kind: str = "single"


@dataclass(frozen=True)
class Variant:
    """An attacked version of an image: the image, how often it is played, and what it does."""

    image: np.ndarray
    probability: float
    caption: str = ""


@dataclass(frozen=True)
class Example:
    """A row of `mixture_picture`: an image, a caption, and the variants the attacker draws from.

    Images are arrays of shape (H, W) or (H, W, 3) with values from 0 to 1.
    """

    image: np.ndarray
    caption: str
    variants: Sequence[Variant] = field(default_factory=tuple)


def risk_bars(
    bars: Sequence[Bar], *, lower_bound: float | None = None, title: str = "Adversarial risk"
) -> Figure:
    """Draw adversarial risks as bars, the risks on clean data as dots on them.

    Parameters
    ----------
    bars : sequence of Bar
        From top to bottom.
    lower_bound : float, optional
        A risk, from 0 to 1, that no mixture of these classifiers can get below; drawn as a line.
    title : str, default "Adversarial risk"
        Written above.

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
    figure = _figure(7.6, 1.5 + 0.42 * len(bars))
    axes = figure.add_subplot()
    risks = [100 * bar.risk for bar in bars]
    axes.barh(range(len(bars)), risks, height=0.62, color=[_COLOURS[bar.kind] for bar in bars])
    end = max(*risks, 1e-9)
    for row, risk in enumerate(risks):
        axes.text(risk + 0.015 * end, row, f"{risk:.1f} %", va="center", color=_INK)
    measured = [(100 * b.standard, row) for row, b in enumerate(bars) if b.standard is not None]
    if measured:
        axes.plot(
            *zip(*measured, strict=True),
            linestyle="none",
            marker="o",
            markersize=7,
            markerfacecolor="white",
            markeredgecolor=_INK,
            label="standard risk (clean images)",
        )
    if lower_bound is not None:
        axes.axvline(
            100 * lower_bound,
            color=_INK,
            linestyle="--",
            linewidth=1.2,
            label=f"no mixture does better than {100 * lower_bound:.1f} %",
        )
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.14 * end)
    axes.set_xlabel("risk, % (lower is better)")
    figure.suptitle(title, fontweight="bold")
    _plain(axes)
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
        The name and the accuracy of what the others are to be compared with; drawn as a line.
    level : float, default 0.95
        Coverage of the intervals.
    title : str, default "Accuracy under attack"
        Written above.

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
    colours = _COLOURS | {"given": _GIVEN}
    _check_kinds(bars, colours)
    figure = _figure(8.6, 1.9 + 0.62 * len(bars))
    axes = figure.add_subplot()
    rows = np.arange(len(bars))
    worst = [100 * bar.worst for bar in bars]
    axes.barh(rows, worst, height=0.5, color=[colours[bar.kind] for bar in bars])
    for row, bar in enumerate(bars):
        text = f"{100 * bar.worst:.1f} %"
        if bar.interval is not None:
            low, high = (100 * end for end in bar.interval)
            for colour, width in (("white", 3.2), (_INK, 1.4)):  # legible on the bar and beside it
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
        axes.text(1.02, row, text, va="center", color=_INK, transform=axes.get_yaxis_transform())
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
            markeredgecolor=_INK,
            label=name,
        )
    if reference is not None:
        name, value = reference
        axes.axvline(
            100 * value,
            color=_INK,
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
    _plain(axes)
    if marked or reference is not None:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def mixture_picture(
    names: Sequence[str],
    weights: Any,
    examples: Sequence[Example] = (),
    *,
    title: str = "The optimal mixture",
    cmap: str = "gray",
) -> Figure:
    """Draw the weights of a mixture, and examples of what the attacker plays against it.

    Parameters
    ----------
    names : sequence of str of length L
        The classifiers.
    weights : array-like of shape (L,)
        Their probabilities.
    examples : sequence of Example, optional
        One row each: the image, then its variants with their probabilities.
    title : str, default "The optimal mixture"
        Written above the weights.
    cmap : str, default "gray"
        matplotlib's colour map for images (H, W); "gray_r" for ink on paper.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    MixsolveError
        As many names as weights are needed.
    """
    shares = np.asarray(weights, dtype=float)
    if shares.shape != (len(names),):
        raise MixsolveError(
            f"weights must have shape ({len(names)},), one for each name; got {shares.shape}"
        )
    columns = 1 + max((len(example.variants) for example in examples), default=0)
    top, bottom = 1.1 + 0.36 * len(names), (0.4 + 1.95 * len(examples)) * bool(examples)
    figure = _figure(max(6.4, 1.6 * columns), top + bottom)
    if not examples:
        _weights(figure.add_subplot(), names, shares, title)
        return figure
    parts = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=(top, bottom))))
    _weights(parts[0].add_subplot(), names, shares, title)
    parts[1].suptitle("What the attacker plays against it", fontweight="bold")
    grid = parts[1].subplots(len(examples), columns, squeeze=False)
    for row, example in zip(grid, examples, strict=True):
        _example_row(row, example, cmap)
    return figure


def require_matplotlib() -> None:
    """Raise an error if matplotlib is missing, so that long work need not end in one.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    _figure(1.0, 1.0)


def check_ending(path: Path, called: str) -> None:
    """Refuse a file whose ending names no format, so that long work need not end in an error.

    Parameters
    ----------
    path : path
        Where a picture is to go.
    called : str
        What the user called it, for the message.

    Raises
    ------
    MixsolveError
        matplotlib draws no such format.
    MissingDependencyError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    if path.suffix[1:].lower() not in FigureCanvasBase.filetypes:
        raise MixsolveError(
            f"{called} must end in .png, .svg or .pdf, which says the format: {path.name!r} could "
            "not be written"
        )


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure aside and rename it, so that no half-written picture is ever left.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The picture.
    path : str or path
        Where to; the ending says the format. A file there is replaced.

    Raises
    ------
    MixsolveError
        The picture cannot be written there.
    """
    path = Path(path)
    check_ending(path, f"the picture {path}")
    try:
        with written_aside(path) as aside:
            figure.savefig(aside, dpi=_DPI)
    except (OSError, ValueError) as error:
        raise MixsolveError(f"the picture {path} could not be written: {error}") from error


def _check_kinds(bars: Sequence[Bar] | Sequence[AccuracyBar], colours: Mapping[str, str]) -> None:
    for bar in bars:
        if bar.kind not in colours:
            known = ", ".join(repr(kind) for kind in colours)
            raise MixsolveError(
                f"kind of bar {bar.name!r} must be one of {known}; got {bar.kind!r}"
            )


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "pictures need matplotlib, which is not installed; "
            "install it with: pip install 'mixsolve[plot]'"
        ) from error
    # Made without pyplot: no window, no global state, nothing to close.
    return Figure(figsize=(width, height), layout="constrained")


def _weights(axes: Axes, names: Sequence[str], shares: np.ndarray, title: str) -> None:
    axes.barh(np.arange(len(names)), 100 * shares, height=0.62, color=_GREEN)
    for row, share in enumerate(shares.tolist()):
        axes.text(100 * share + 2, row, f"{100 * share:.1f} %", va="center", color=_INK)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 125 * max(float(shares.max()), 1e-9))
    axes.set_xlabel("probability that the classifier is drawn, %")
    axes.set_title(title, loc="left", fontweight="bold")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _example_row(row: Sequence[Axes], example: Example, cmap: str) -> None:
    _show(row[0], example.image, example.caption, cmap)
    for axes, variant in zip(row[1:], example.variants, strict=False):
        caption = f"played {100 * variant.probability:.0f} %"
        if variant.caption:
            caption += "\n" + variant.caption
        _show(axes, variant.image, caption, cmap)
    for axes in row[1 + len(example.variants) :]:
        axes.set_axis_off()


def _show(axes: Axes, image: np.ndarray, caption: str, cmap: str) -> None:
    axes.imshow(image, cmap=cmap, vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(_PALE)
    axes.set_title(caption, fontsize="small", color=_INK)
