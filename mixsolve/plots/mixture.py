"""A picture of a mixture: its weights, and attacks of the equilibrium on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.plots.style import GREEN, INK, PALE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Variant:
    """An attacked version of an image, its probability, and a caption."""

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


def mixture_picture(
    names: Sequence[str],
    weights: Any,
    examples: Sequence[Example] = (),
    *,
    title: str = "The optimal mixture",
    cmap: str = "gray",
) -> Figure:
    """Draw the weights of a mixture, and examples of the attacks played against it.

    Parameters
    ----------
    names : sequence of str of length L
        The classifiers.
    weights : array-like of shape (L,)
        Their probabilities.
    examples : sequence of Example, optional
        One row each: the image, then its variants with their probabilities.
    title : str, default "The optimal mixture"
        Title of the weights.
    cmap : str, default "gray"
        matplotlib's colour map for images (H, W); "gray_r" for ink on paper.

    Raises
    ------
    MixsolveError
        The number of names and of weights differ.
    """
    shares = np.asarray(weights, dtype=float)
    if shares.shape != (len(names),):
        raise MixsolveError(
            f"weights must have shape ({len(names)},), one for each name; got {shares.shape}"
        )
    columns = 1 + max((len(example.variants) for example in examples), default=0)
    top, bottom = 1.1 + 0.36 * len(names), (0.4 + 1.95 * len(examples)) * bool(examples)
    figure = new_figure(max(6.4, 1.6 * columns), top + bottom)
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


def _weights(axes: Axes, names: Sequence[str], shares: np.ndarray, title: str) -> None:
    axes.barh(np.arange(len(names)), 100 * shares, height=0.62, color=GREEN)
    for row, share in enumerate(shares.tolist()):
        axes.text(100 * share + 2, row, f"{100 * share:.1f} %", va="center", color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 125 * max(float(shares.max()), 1e-9))
    axes.set_xlabel("probability that the classifier is drawn, %")
    axes.set_title(title, loc="left", fontweight="bold")
    plain(axes)


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
        spine.set_color(PALE)
    axes.set_title(caption, fontsize="small", color=INK)
