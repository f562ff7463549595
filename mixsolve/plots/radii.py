"""A picture of risk against the attacker's radius."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.plots.style import BLUE, INK, PALE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def risk_by_radius(
    radii: np.ndarray, risks: np.ndarray, *, norm: str, marked: float | None = None
) -> Figure:
    """Draw a risk that jumps at certain radii and stays the same between them.

    Parameters
    ----------
    radii, risks : ndarray of float64, shape (n,)
        Radii, from 0 upwards, and the risk from each of them to the next.
    norm : str
        The norm of the radii, for the axis.
    marked : float, optional
        A radius to mark, with its risk.

    Raises
    ------
    MixsolveError
        No radius.
    """
    if not len(radii):
        raise MixsolveError("radii must hold at least one radius; got none")
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    end = max(float(radii[-1]), marked or 0.0) * 1.05 or 1.0
    axes.step([*radii, end], [*risks, risks[-1]], where="post", color=BLUE)
    if marked is not None:
        risk = float(risks[np.searchsorted(radii, marked, side="right") - 1])
        axes.axvline(marked, color=INK, linestyle="--", linewidth=1.2)
        axes.annotate(
            f"{risk:.3g} at {marked:.3g}", (marked, risk), (5, -12), textcoords="offset points"
        )
    axes.set_xlim(0, end)
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"radius of the attacks, {norm}")
    axes.set_ylabel("adversarial risk, at least")
    axes.set_title("Risk by radius", loc="left", fontweight="bold")
    axes.grid(axis="y", color=PALE, linewidth=0.5, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
