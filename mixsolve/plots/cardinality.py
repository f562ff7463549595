"""A picture of risk against the number of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixsolve.plots.risk import _BLUE, _INK, _figure, _plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mixsolve.cardinality.path import CardinalityPath


def draw(path: CardinalityPath) -> Figure:
    """See `CardinalityPath.plot`."""
    figure = _figure(6.4, 3.6)
    axes = figure.add_subplot()
    counts, risks = path.max_models, path.risks
    bounds = np.array([solution.risk_lower_bound for solution in path])
    unproven = np.array([not solution.success for solution in path]) & np.isfinite(risks)
    axes.plot(counts, risks, color=_BLUE, marker="o", label="risk of the best mixture found")
    if unproven.any():
        axes.vlines(
            counts[unproven],
            bounds[unproven],
            risks[unproven],
            color=_INK,
            linewidth=3,
            alpha=0.4,
            label="where the optimum may be",
        )
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.set_xticks(counts)
    axes.set_xlabel("models in the mixture, at most")
    axes.set_ylabel("adversarial risk")
    axes.set_title("What few models cost", loc="left", fontweight="bold")
    _plain(axes)
    return figure
