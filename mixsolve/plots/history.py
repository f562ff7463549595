"""A picture of a training run: accuracies and weights of a mixture over the epochs.

A classifier has one colour and one mark in both panels, the mixture is black and thick; robust
accuracies are solid lines, clean ones dashed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixsolve.base.errors import MixsolveError
from mixsolve.plots.style import INK, PALE, PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = "sD^vP*X"
_MARKED = 8  # marks on a line, at most
_LINES = {"robust": "-", "clean": (0, (4, 2))}


def training_history(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw accuracies, and weights where there are several classifiers, over epochs.

    Parameters
    ----------
    records : sequence of mapping
        One an epoch: "epoch", "weights" (L,), "clean" and "robust", each with the accuracy of the
        "mixture" and those of the "models" (L,), from 0 to 1; optionally "split", the images they
        were measured on, for the title. L may grow: the first classifiers are then the same ones,
        and the most robust epoch is one with all of them.

    Raises
    ------
    MixsolveError
        No records.
    """
    if not records:
        raise MixsolveError("records must hold at least one epoch; got none")
    count = max(len(record["weights"]) for record in records)
    figure = new_figure(8.2 if count > 1 else 6.4, 4.0)
    panels = figure.subplots(1, 1 + (count > 1), squeeze=False)[0]
    epochs = [record["epoch"] for record in records]
    lines = _accuracies(panels[0], records, epochs, count)
    if count > 1:
        lines += _weights(panels[1], records, epochs, count)
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(axis="y", color=PALE, linewidth=0.5, alpha=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _accuracies(
    axes: Axes, records: Sequence[Mapping[str, Any]], epochs: Sequence[int], count: int
) -> list[Any]:
    """Draw accuracies, and return the lines for the legend."""
    lines, single = [], "classifier" if count == 1 else "mixture"
    for kind, dashes in _LINES.items():
        for k in range(count if count > 1 else 0):
            own = [r for r in records if len(r[kind]["models"]) > k]
            values = [100 * record[kind]["models"][k] for record in own]
            there = [record["epoch"] for record in own]
            axes.plot(there, values, linewidth=1, linestyle=dashes, **_look(k, there))
        lines += axes.plot(
            epochs,
            [100 * record[kind]["mixture"] for record in records],
            color="black",
            linewidth=2.4,
            linestyle=dashes,
            marker="_" if len(epochs) == 1 else None,
            label=f"{single}, {kind}",
        )
    best = max(records, key=lambda record: (len(record["weights"]), record["robust"]["mixture"]))
    robust = 100 * best["robust"]["mixture"]
    lines += axes.plot(
        [best["epoch"]],
        [robust],
        linestyle="none",
        marker="o",
        markersize=9,
        markerfacecolor="white",
        markeredgecolor=INK,
        markeredgewidth=1.6,
        zorder=5,
        label=f"most robust: epoch {best['epoch']}, {robust:.1f} %",
    )
    axes.set_ylim(0, 103)  # marks at 100 % are whole
    axes.set_ylabel("accuracy, %")
    where = f" on the {best['split']} images" if "split" in best else ""
    axes.set_title(f"Accuracy{where}", loc="left", fontweight="bold")
    return lines


def _weights(
    axes: Axes, records: Sequence[Mapping[str, Any]], epochs: Sequence[int], count: int
) -> list[Any]:
    """Draw weights, and return the lines for the legend."""
    shares = [[100 * share for share in record["weights"]] for record in records]
    lines = []
    for k in range(count):
        values = [share[k] if k < len(share) else 0.0 for share in shares]
        look = _look(k, epochs)
        lines += axes.plot(epochs, values, linewidth=1.6, label=f"classifier {k}", **look)
    label = f"uniform weights: {100 / count:.1f} %"
    lines.append(axes.axhline(100 / count, color=INK, linewidth=1, linestyle=":", label=label))
    axes.set_ylim(0, 1.1 * max(map(max, shares)))
    axes.set_ylabel("probability, %")
    axes.set_title("Weights of the mixture", loc="left", fontweight="bold")
    return lines


def _look(k: int, epochs: Sequence[int]) -> dict[str, Any]:
    """Return colour and marks of classifier k; marks of different ones are side by side."""
    every = max(1, len(epochs) // _MARKED)
    return {
        "color": PALETTE[k % len(PALETTE)],
        "marker": _MARKS[k % len(_MARKS)],
        "markersize": 4.5,
        "markevery": (k % every, every),
    }
