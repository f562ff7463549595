"""Why a mixture helps the worst of two classes that overlap under attack.

Images of class A lie at z ~ N(0, s^2) and those of class B at z ~ N(d, s^2) along a line; an
attacker moves z by at most e. A network that says A below a threshold c and B above it is right,
whatever the attacker does, with the probabilities

    a(c) = Phi((c - e) / s)      on class A
    b(c) = Phi((d - c - e) / s)  on class B.

For e > d/2 the attacked classes cross. All (a(c), b(c)) then lie on a curve that bends towards the
origin: it runs from (1, 0) to (0, 1), and where a = b both are Phi((d/2 - e) / s) < 1/2. A network
drawn at random from two of them has a point on the line between theirs, so that half and half of
(1, 0) and (0, 1) give (1/2, 1/2).
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from mixsolve.base.arguments import as_real
from mixsolve.plots.style import BLUE, GREEN, INK, ORANGE, PALE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_THRESHOLDS = 201


def reach(distance: float, spread: float, radius: float) -> np.ndarray:
    """Return accuracies (K, 2) of single networks on both classes, one row a threshold."""
    normal = NormalDist()
    ends = radius + 6 * spread
    thresholds = np.linspace(-ends, distance + ends, _THRESHOLDS)
    return np.array(
        [
            (normal.cdf((c - radius) / spread), normal.cdf((distance - c - radius) / spread))
            for c in thresholds
        ]
    )


def two_classes(*, distance: float = 1.0, spread: float = 0.35, radius: float = 0.75) -> Figure:
    """Draw what single networks and mixtures reach on two classes that overlap under attack.

    Parameters
    ----------
    distance, spread : float
        Between the means of the classes, and their standard deviation.
    radius : float
        How far the attacker moves an image.

    Raises
    ------
    MixsolveError
        A value that is not positive.
    """
    distance = as_real("distance", distance, above=0)
    spread, radius = as_real("spread", spread, above=0), as_real("radius", radius, above=0)
    found = 100 * reach(distance, spread, radius)
    equal = 100 * NormalDist().cdf((distance / 2 - radius) / spread)
    figure = new_figure(7.2, 5.2)
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color=PALE, linewidth=1)
    axes.text(79, 83, "both classes equal", color=INK, rotation=45, ha="center", va="center")
    axes.plot(*found.T, color=BLUE, linewidth=2.5)
    axes.plot([0, 100], [100, 0], color=ORANGE, linewidth=2, linestyle="--")
    marks = (
        ((100, 0), ORANGE, "one network:\ngives up class B", (10, 6), "left"),
        ((0, 100), ORANGE, "another: gives up class A", (12, 2), "left"),
        ((50, 50), GREEN, "their mixture, half and half:\nworst class 50 %", (12, 10), "left"),
        (
            (equal, equal),
            BLUE,
            f"the fairest single\nnetwork: worst\nclass {equal:.0f} %",
            (14, 2),
            "left",
        ),
    )
    for point, color, words, offset, side in marks:
        axes.plot(*point, marker="o", markersize=9, color=color)
        axes.annotate(words, point, textcoords="offset points", xytext=offset, ha=side, color=INK)
    axes.set_xlim(-4, 140)
    axes.set_ylim(-4, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_aspect("equal")
    axes.set_xlabel("accuracy under attack on class A, %")
    axes.set_ylabel("accuracy under attack on class B, %")
    axes.set_title("Two classes that overlap under attack", loc="left", fontweight="bold")
    plain(axes)
    return figure
