"""A solution for people: a few aligned lines, HTML for a notebook, a dictionary of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from html import escape
from typing import Any

import numpy as np

from mixsolve.arrays.interop import to_numpy
from mixsolve.base.plain import plain
from mixsolve.solver.sensitivity import clean_prices

# `solution` is everywhere a `mixsolve.Solution`, whose module imports this one.

_SHOWN = 8  # classifiers in a line
_BARS = 20  # classifiers in a page
_LARGE = ("attack", "attack_weight", "sample_weight")  # a number or more for each sample
_APART = ("prices", "constraints", "infeasibility", "history")
# Colours that stand out on white and on black.
_BAR, _TRACK = "#0072B2", "rgba(128, 128, 128, 0.25)"


def label(names: Sequence[str] | None, place: int) -> str:
    """What a classifier is called in a line: its name, or its place."""
    return str(place) if names is None else names[place]


def title(names: Sequence[str] | None, place: int) -> str:
    """What a classifier is called where it stands alone: its name, or "classifier 0"."""
    return f"classifier {place}" if names is None else names[place]


def weights_line(
    weights: np.ndarray, names: Sequence[str] | None = None, shown: int = _SHOWN, more: str = ""
) -> str:
    """List the weights of the classifiers in use, heaviest first; `more` tells where all are."""
    order = np.argsort(-weights, kind="stable")
    used = order[weights[order] > 0.0]
    if not used.size:
        return "none"
    line = ", ".join(f"{label(names, k)}: {weights[k]:.6g}" for k in used[:shown])
    left = len(used) - shown
    return line + (f", and {left} more{more}" if left > 0 else "")


def rows(solution: Any) -> dict[str, str]:
    """The figures of a solution in words, by what they are called."""
    entropic = bool(np.any(solution.alpha))
    told = {"risk": f"{solution.risk:.9g}"}
    if entropic:
        told["value"] = f"{solution.value:.9g}"
    told |= {
        "lower bound": f"{solution.lower_bound:.9g}",
        "gap": f"{solution.gap:.3g} (tolerance {solution.tolerance:.3g})",
        "weights": weights_line(as_vector(solution), solution.names),
    }
    if solution.group_labels is not None:
        told["groups"] = groups_line(solution)
    if entropic:
        alpha = np.asarray(solution.alpha)
        told["alpha"] = f"{alpha.min():g} to {alpha.max():g}" if alpha.ndim else f"{alpha:g}"
    return told | {
        "method": f"{solution.method}, {counted(solution.nit, 'iteration')}, "
        f"{solution.n_passes:.3g} passes over the losses"
    }


def groups_line(solution: Any) -> str:
    """List the risks of the groups, worst first, with the attacker's weights."""
    risks, weights = solution.group_risks, solution.group_weights
    order = np.argsort(-np.nan_to_num(risks, nan=-np.inf), kind="stable")
    line = ", ".join(
        f"{solution.group_labels[g]}: {risks[g]:.6g} (struck {weights[g]:.3g})"
        for g in order[:_SHOWN]
    )
    left = len(order) - _SHOWN
    return line + (f", and {left} more" if left > 0 else "")


def text(solution: Any) -> str:
    """The lines that ``repr`` shows."""
    told = rows(solution)
    width = max(map(len, told))
    lines = [f"{type(solution).__name__}: {solution.status}"]
    if not solution.success:
        lines[0] += f", {solution.message}"
    return "\n".join([*lines, *(f"  {name:<{width}}  {words}" for name, words in told.items())])


def html(solution: Any) -> str:
    """A table with a bar for each weight, for notebooks; it needs no other file and no script."""
    told = rows(solution)
    told.pop("weights")
    figures = "".join(
        f"<tr><th style='text-align: left'>{escape(name)}</th>"
        f"<td style='text-align: left'>{escape(words)}</td></tr>"
        for name, words in told.items()
    )
    weights = as_vector(solution)
    bars = weight_bars(weights, solution.names)
    head = escape(f"{type(solution).__name__}: {solution.status}")
    note = "" if solution.success else f"<div>{escape(solution.message)}</div>"
    return f"<div><strong>{head}</strong>{note}<table>{figures}</table>{bars}</div>"


def weight_bars(weights: np.ndarray, names: Sequence[str] | None = None) -> str:
    """Weights as bars in HTML, the heaviest first."""
    order = np.argsort(-np.nan_to_num(weights), kind="stable")
    lines = []
    for k in order[:_BARS]:
        share = 100 * float(np.nan_to_num(weights[k]))
        bar = (
            f"<div style='background: {_TRACK}; width: 14em; height: 0.8em'>"
            f"<div style='background: {_BAR}; width: {share:.2f}%; height: 100%'></div></div>"
        )
        lines.append(
            f"<tr><td style='text-align: left'>{escape(title(names, k))}</td><td>{bar}</td>"
            f"<td style='text-align: right'>{share:.2f} %</td></tr>"
        )
    left = len(order) - _BARS
    if left > 0:
        lines.append(f"<tr><td>and {left} more</td><td></td><td></td></tr>")
    return f"<table>{''.join(lines)}</table>"


def as_dict(solution: Any, whole: bool = False) -> dict[str, Any]:
    """The fields of a solution in the types of JSON, large ones only for the `whole`."""
    told: dict[str, Any] = {}
    if solution.constraints is not None and solution.prices is not None:
        told = dict(zip(("price_ub", "price_eq"), clean_prices(solution), strict=True))
    if solution.infeasibility is not None:
        told["clash"] = list(solution.infeasibility.clash)
    left_out = _APART if whole else _APART + _LARGE
    told |= {
        each.name: getattr(solution, each.name)
        for each in fields(solution._kept_as or type(solution))
        if each.name not in left_out
    }
    told["weights"] = as_vector(solution)
    told["named_weights"] = solution.named_weights
    told["success"] = solution.success
    told["history"] = [vars(record) for record in solution.history]
    if whole:
        names = ("indptr", "candidates", "probabilities")
        told["attack"] = {name: getattr(solution.attack, name) for name in names}
    return plain(told)


def as_vector(solution: Any) -> np.ndarray:
    """The weights as NumPy's float64."""
    return np.asarray(to_numpy(solution.weights, "weights"), dtype=np.float64)


def counted(count: int, word: str) -> str:
    """A number with its word: "1 iteration", "2 iterations"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
