"""How the figures look, and how they are kept: a PNG, an SVG and a JSON of the numbers drawn.

Colours are Okabe and Ito's; what a colour tells apart, a dash or a mark tells apart too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mixsolve import plots
from mixsolve.base.files import write_text

logger = logging.getLogger("mixsolve")

BLACK, INK, PALE = "#000000", "#333333", "#BBBBBB"
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY = "#CC79A7", "#56B4E9"
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKS = "osD^vP"

# Label -1 is blue, label +1 is vermilion, an even chance is white.
LABELS = LinearSegmentedColormap.from_list("labels", [BLUE, "#FFFFFF", RED])

WIDTH = 7.2  # inches; letters of 9 points are legible in a column of a page or of a screen

_SETTINGS = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "mixsolve",  # the same numbers give the same file
}


def look() -> Any:
    """Return the context in which figures are made and saved."""
    return matplotlib.rc_context(_SETTINGS)


def figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def name_panels(panels: Sequence[Axes], titles: Sequence[str]) -> None:
    """Write (a), (b), ... and what each panel shows above it."""
    for letter, axes, title in zip("abcdefghij", panels, titles, strict=False):
        axes.set_title(f"({letter}) {title}")


def spread(values: ArrayLike) -> dict[str, list[float]]:
    """Return the mean and the middle 80 % of each column of (runs, n): what `band` draws."""
    array = np.asarray(values, dtype=float)
    low, high = np.quantile(array, (0.1, 0.9), axis=0)
    return {"mean": array.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}


def band(axes: Axes, x: ArrayLike, values: dict[str, list[float]], colour: str, **line: Any) -> Any:
    """Draw a mean as a line and the middle 80 % as a band; return the line."""
    axes.fill_between(x, values["low"], values["high"], color=colour, alpha=0.16, linewidth=0)
    return axes.plot(x, values["mean"], color=colour, **line)[0]


def plane(axes: Axes, centre: Sequence[float], half: Sequence[float]) -> None:
    """Make the axes a part of the plane: equal units, no grid."""
    axes.set_aspect("equal")
    axes.set_xlim(centre[0] - half[0], centre[0] + half[0])
    axes.set_ylim(centre[1] - half[1], centre[1] + half[1])
    axes.grid(False)


def votes(axes: Axes, directions: NDArray, intercepts: NDArray, weights: NDArray) -> Any:
    """Colour the part of the plane shown by the probability that the mixture says +1."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(np.linspace(left, right, 400), np.linspace(bottom, top, 400))
    outputs = np.stack([x, y], axis=-1) @ directions.T + intercepts
    return axes.imshow(
        (outputs > 0) @ weights,
        extent=(left, right, bottom, top),
        origin="lower",
        cmap=LABELS,
        vmin=0,
        vmax=1,
        alpha=0.55,
        interpolation="nearest",
    )


def save(name: str, numbers: dict[str, Any], picture: Figure, out: Path) -> None:
    """Write NAME.json, NAME.png and NAME.svg, each aside and renamed."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    write_text(path, json.dumps(plain(numbers), indent=1, allow_nan=False) + "\n")
    for suffix in (".png", ".svg"):
        plots.save(picture, path.with_suffix(suffix))
    logger.info("%s: written to %s", name, out)


def plain(value: Any) -> Any:
    """Return numbers of JSON, to 9 digits and 1e-12: what is below that is rounding."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return 0.0 if abs(value) < 1e-12 else float(f"{value:.9g}")
    return value
