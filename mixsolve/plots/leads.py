"""How far others are behind the best one, with intervals of the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixsolve.base.errors import MixsolveError
from mixsolve.plots.style import INK, ORANGE, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Lead:
    """One row of `lead_bars`: differences of accuracies from 0 to 1.

    Attributes
    ----------
    name : str
        Who is behind.
    value : float
        By how much.
    interval : pair of float
        Its uncertainty.
    """

    name: str
    value: float
    interval: tuple[float, float]


def lead_bars(leads: Sequence[Lead], *, best: str, level: float = 0.95) -> Figure:
    """Draw how far each is behind the best; an interval that reaches the line at 0 decides nothing.

    Parameters
    ----------
    leads : sequence of Lead
        From top to bottom.
    best : str
        Who leads.
    level : float, default 0.95
        Coverage of the intervals.

    Raises
    ------
    MixsolveError
        No lead.
    """
    if not leads:
        raise MixsolveError("leads must hold at least one Lead; got none")
    figure = new_figure(8.6, 1.3 + 0.45 * len(leads))
    axes = figure.add_subplot()
    for row, lead in enumerate(leads):
        low, high = (100 * end for end in lead.interval)
        axes.plot([low, high], [row, row], color=ORANGE, linewidth=3)
        axes.plot(100 * lead.value, row, marker="o", color=INK)
        text = f"{100 * lead.value:.1f}  [{low:.1f}, {high:.1f}]"
        axes.text(1.02, row, text, va="center", color=INK, transform=axes.get_yaxis_transform())
    axes.axvline(0, color=INK, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(leads)), [lead.name for lead in leads])
    axes.set_ylim(len(leads) - 0.5, -0.5)
    axes.set_xlabel(f"points behind, with {100 * level:g} % intervals of the paired differences")
    axes.set_title(f"Behind the best: {best}", loc="left", fontweight="bold")
    plain(axes)
    return figure
