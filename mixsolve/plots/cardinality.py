"""A picture of risk against the number of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixsolve.plots.style import BLUE, INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def risk_of_few(
    counts: np.ndarray, risks: np.ndarray, bounds: np.ndarray, proven: np.ndarray
) -> Figure:
    """Draw the risk of the best mixtures of at most a given number of models.

    Parameters
    ----------
    counts : ndarray of int64, shape (n,)
        Numbers of models.
    risks, bounds : ndarray of float64, shape (n,)
        Adversarial risks found, and lower bounds for mixtures of that many models.
    proven : ndarray of bool, shape (n,)
        Where the risk is the optimum; elsewhere the bound is drawn too.
    """
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot()
    unproven = ~proven & np.isfinite(risks)
    axes.plot(counts, risks, color=BLUE, marker="o", label="risk of the best mixture found")
    if unproven.any():
        axes.vlines(
            counts[unproven],
            bounds[unproven],
            risks[unproven],
            color=INK,
            linewidth=3,
            alpha=0.4,
            label="where the optimum may be",
        )
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.set_xticks(counts)
    axes.set_xlabel("models in the mixture, at most")
    axes.set_ylabel("adversarial risk")
    axes.set_title("What few models cost", loc="left", fontweight="bold")
    plain(axes)
    return figure
