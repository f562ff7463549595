"""Figure 1: two classifiers that are each always fooled, and the coin between them that is not.

The middle point of a line has label -1 and weight 1/2, its neighbours at -1 and 1 have label +1 and
weight 1/4 each, and the attacker moves a point by at most 1. Classifier 1 says +1 left of -1/2,
classifier 2 right of 1/2: standard risks 1/4, adversarial risks 1; the coin has 1/4 and 3/4.

References
----------
Meunier et al., ICML 2021, section 2.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import mixsolve
from benchmarks.figures import style
from mixsolve import games
from mixsolve.methods import METHODS

_PLAYERS = {"classifier 1": (1.0, 0.0), "classifier 2": (0.0, 1.0), "the coin": (0.5, 0.5)}


def measure() -> dict[str, Any]:
    """Solve the game by every method for the exact problem, and evaluate the three players."""
    game = games.line_game()
    assert game.sample_weight is not None
    share = game.sample_weight
    unmoved = game.losses[:, 1]  # the middle candidate is the point itself
    players = {}
    for name, given in _PLAYERS.items():
        weights = np.array(given)
        expected = game.losses @ weights
        players[name] = {
            "weights": given,
            "standard risk": share @ (unmoved @ weights),
            "adversarial risk": share @ expected.max(axis=1),
        }
    methods = {}
    for method in (name for name, entry in METHODS.items() if entry.exact):
        solution = mixsolve.solve(game.losses, method=method, sample_weight=share)
        chosen, probabilities = solution.attack[0]
        middle = np.zeros(3)
        middle[chosen] = probabilities
        methods[method] = {
            "weights": solution.weights,
            "value": solution.value,
            "lower bound": solution.lower_bound,
            "gap": solution.gap,
            "attack on the middle point": middle,
        }
    first = np.linspace(0, 1, 101)
    mixtures = np.stack([first, 1 - first])
    plan = mixsolve.solve(game.losses, sample_weight=share).attack.dense()
    plan *= share[:, None]
    return {
        "players": players,
        "methods": methods,
        "weight of classifier 1": first,
        "adversarial risk": share @ (game.losses @ mixtures).max(axis=1),
        "risk under the optimal attack": np.einsum("ij,ijk,kn->n", plan, game.losses, mixtures),
    }


def draw(numbers: dict[str, Any]) -> Figure:
    """Draw the three players with the attacks on them, and the risk of every coin."""
    figure = style.figure(4.9)
    panels = figure.subplots(2, 2).ravel()
    for axes, (name, player) in zip(panels, numbers["players"].items(), strict=False):
        _line(axes, name, player)
    axes = panels[3]
    first = np.asarray(numbers["weight of classifier 1"])
    axes.plot(
        first, numbers["adversarial risk"], color=style.BLUE, label="under the best attack on it"
    )
    axes.plot(
        first,
        numbers["risk under the optimal attack"],
        color=style.INK,
        linestyle=style.DASHES[1],
        label="under the equilibrium's attack",
    )
    value = numbers["methods"]["lp"]["value"]
    axes.plot([0.5], [value], "o", color=style.RED, markersize=7, label=f"equilibrium: {value:.2f}")
    axes.set_xlabel("probability of classifier 1")
    axes.set_ylabel("adversarial risk")
    axes.set_ylim(0.6, 1.02)
    axes.set_title("(d) Every coin between them")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.0))
    return figure


def _line(axes: Axes, name: str, player: dict[str, Any]) -> None:
    """Draw the three points as columns, and where the attacker moves them."""
    letter = "abc"[list(_PLAYERS).index(name)]
    axes.set_title(
        f"({letter}) {name[0].upper()}{name[1:]}: risk {player['standard risk']:.2f}, "
        f"attacked {player['adversarial risk']:.2f}"
    )
    first, second = player["weights"]
    for side, weight in ((-1.0, first), (1.0, second)):
        if weight:
            axes.axvspan(
                *sorted((side * 0.5, side * 1.7)), color=style.RED, alpha=0.15 * weight + 0.03, lw=0
            )
            words = "says +1" if weight == 1 else f"says +1\nwith chance {weight:g}"
            axes.text(side * 1.1, 0.63, words, ha="center", va="top", fontsize=8, color=style.INK)
    bars = (
        (0.0, 0.5, style.BLUE, "$-1$"),
        (-1.0, 0.25, style.RED, "+1"),
        (1.0, 0.25, style.RED, "+1"),
    )
    for x, height, colour, label in bars:
        axes.bar(x, height, width=0.22, color=colour)
        axes.text(x, height / 2, label, ha="center", va="center", color="white", fontsize=8)
    moves = []
    if first:
        moves += [(-1.0, 0.0, 0.25, style.RED), (0.0, -1.0, 0.46, style.BLUE)]
    if second:
        moves += [(1.0, 0.0, 0.25, style.RED), (0.0, 1.0, 0.46, style.BLUE)]
    for begin, end, height, colour in moves:
        shift = 0.13 * np.sign(end - begin)
        axes.annotate(
            "",
            (end - (shift if begin == 0 else 0.15 * np.sign(end - begin)), height - 0.06),
            (begin + shift, height - 0.06),
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.4},
        )
        if begin == 0:
            chance = "" if first * second == 0 else "½"
            axes.text(0.55 * end, height - 0.04, chance, ha="center", fontsize=9, color=colour)
    if first * second == 0:
        wrong = 1.0 if first else -1.0
        axes.text(
            wrong, 0.27, "an error\nas it is", ha="center", va="bottom", fontsize=8, color=style.INK
        )
    axes.set_xlim(-1.7, 1.7)
    axes.set_ylim(0, 0.66)
    axes.set_xticks([-1, 0, 1])
    axes.set_xlabel("x")
    axes.set_ylabel("probability of the point")
    axes.grid(False)
