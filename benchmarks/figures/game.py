"""The game behind the pictures: its value as the pool grows, and what the attacker plays.

A pool of L classifiers has a value: the least risk of their mixtures under the exact attack. Nested
pools have falling values, those of the best single classifier stay behind. The attacker's
equilibrium strategy is mixed too: on a sample where no attack fools everybody it draws among a few
points, and with which chance is part of the certificate. All of them fool the mixture equally well;
what else they fool makes that no other classifier is worth taking in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

import mixsolve
from benchmarks.figures import fooled, style
from mixsolve.games.linear_game import linear_game

POOLS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30)
_PLAYED = 0.005  # chances below are not drawn


def measure(
    n_samples: int = 1000,
    n_classifiers: int = 10,
    eps: float = 3.0,
    pools: Sequence[int] = POOLS,
    seeds: int = 10,
    one_eps: float = 3.5,
    one_seed: int = 5,
    shown: int = 3,
) -> dict[str, Any]:
    """Solve nested pools of several games, and one game for its strategies."""
    return {
        "setting": {"samples": n_samples, "eps": eps, "seeds": seeds},
        "pools": _nested(n_samples, eps, pools, seeds),
        "strategies": _strategies(n_samples, n_classifiers, one_eps, one_seed, shown),
    }


def _nested(n_samples: int, eps: float, pools: Sequence[int], seeds: int) -> dict[str, Any]:
    """Values by the number of classifiers: each pool is the beginning of the next."""
    found: dict[str, list[list[float]]] = {
        name: [] for name in ("value", "best single", "uniform mixture", "classifiers used")
    }
    for seed in range(seeds):
        plane = fooled.Plane.drawn(n_samples, max(pools), seed)
        losses = _game(plane, eps).losses
        rows: dict[str, list[float]] = {name: [] for name in found}
        for size in pools:
            part = np.ascontiguousarray(losses[:, :, :size])
            solution = mixsolve.solve(part, tol=1e-9)
            rows["value"].append(solution.value)
            rows["best single"].append(part.max(axis=1).mean(axis=0).min())
            rows["uniform mixture"].append(part.sum(axis=2).max(axis=1).mean() / size)
            rows["classifiers used"].append(int((solution.weights > 1e-6).sum()))
        for name, row in rows.items():
            found[name].append(row)
    return {"classifiers": list(pools), **found}


def _game(plane: fooled.Plane, eps: float) -> Any:
    return linear_game(plane.points, plane.labels, plane.directions, plane.intercepts, eps)


def _strategies(
    n_samples: int, n_classifiers: int, eps: float, seed: int, shown: int
) -> dict[str, Any]:
    """What both players play in equilibrium, on samples that are attacked in different ways."""
    plane = fooled.Plane.drawn(n_samples, n_classifiers, seed)
    game = _game(plane, eps)
    solution = mixsolve.solve(game.losses, tol=1e-9)
    used = np.flatnonzero(solution.weights > 1e-6)
    fools = game.losses[:, :, used]
    chances = solution.attack.dense()
    samples = [
        {
            "sample": sample,
            "point": plane.points[sample],
            "label": plane.labels[sample],
            "attacks": [
                {
                    "point": game.details["candidates"][sample, place],
                    "chance": chances[sample, place],
                    "fools": used[fools[sample, place] == 1] + 1,
                    "risk": game.losses[sample, place] @ solution.weights,
                }
                for place in np.flatnonzero(chances[sample] > _PLAYED)
            ],
        }
        for sample in _different(chances, fools, shown)
    ]
    return {
        "eps": eps,
        "seed": seed,
        "value": solution.value,
        "lower bound": solution.lower_bound,
        "best single": game.losses.max(axis=1).mean(axis=0).min(),
        "weights": solution.weights,
        "directions": plane.directions,
        "intercepts": plane.intercepts,
        "samples attacked at random": int(((chances > _PLAYED).sum(axis=1) > 1).sum()),
        "samples": samples,
    }


def _different(chances: NDArray, fools: NDArray, shown: int) -> list[int]:
    """Return samples on which the sets fooled, of the classifiers used, are many and differ.

    The most random come first; of those attacked in the same way, one.
    """
    codes = fools.astype(np.int64) @ (1 << np.arange(fools.shape[2]))
    ways: list[tuple[float, int, tuple[int, ...]]] = []
    for sample, (row, code) in enumerate(zip(chances, codes, strict=True)):
        played = row > _PLAYED
        kinds, owner = np.unique(code[played], return_inverse=True)
        share = np.bincount(owner, row[played])
        ways.append((float(-(share * np.log(share)).sum()), sample, tuple(kinds.tolist())))
    chosen: dict[tuple[int, ...], int] = {}
    for _, sample, kinds in sorted(ways, key=lambda way: -way[0]):
        chosen.setdefault(kinds, sample)
    return list(chosen.values())[:shown]


def draw(numbers: dict[str, Any]) -> Figure:
    """Draw values by the pool, classifiers used, and the attacks on each chosen sample."""
    strategies = numbers["strategies"]
    samples = strategies["samples"]
    figure = style.figure(5.2)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.06))
    panels = [*top.subplots(1, 2), *bottom.subplots(1, len(samples))]
    _values(panels[0], numbers)
    _used(panels[1], numbers["pools"])
    for axes, sample in zip(panels[2:], samples, strict=True):
        _attacks(axes, sample, strategies)
    style.name_panels(
        panels,
        (
            f"Value of the game, ε = {numbers['setting']['eps']:g}",
            "Classifiers in the optimal mixture",
            *(f"Attack, ε = {strategies['eps']:g}" for _ in samples[:1]),
            *("Another sample" for _ in samples[1:]),
        ),
    )
    return figure


def _values(axes: Axes, numbers: dict[str, Any]) -> None:
    pools = numbers["pools"]
    for name, colour, dashes, label in (
        ("best single", style.ORANGE, style.DASHES[1], "best single classifier"),
        ("value", style.BLUE, "-", "optimal mixture: the value"),
    ):
        values = style.spread(pools[name])
        style.band(axes, pools["classifiers"], values, colour, linestyle=dashes, label=label)
    axes.plot(
        pools["classifiers"],
        np.mean(pools["uniform mixture"], axis=0),
        color=style.INK,
        linestyle=style.DASHES[3],
        label="uniform mixture",
    )
    axes.set_xlabel("classifiers in the pool")
    axes.set_ylabel("adversarial risk")
    axes.legend(loc="upper right", frameon=True, framealpha=0.75, edgecolor="none")


def _used(axes: Axes, pools: dict[str, Any]) -> None:
    sizes = pools["classifiers"]
    style.band(axes, sizes, style.spread(pools["classifiers used"]), style.BLUE)
    axes.plot(sizes, sizes, color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)))
    most = max(map(max, pools["classifiers used"])) + 1
    axes.annotate("all of them", (0.9 * most, 0.9 * most), (6, -3), textcoords="offset points")
    axes.set_ylim(0, most)
    axes.set_xlabel("classifiers in the pool")
    axes.set_ylabel("classifiers used")


def _attacks(axes: Axes, sample: dict[str, Any], game: dict[str, Any]) -> None:
    """Draw one sample, its disc, the classifiers used, and where the attacker moves the sample."""
    directions, intercepts = np.asarray(game["directions"]), np.asarray(game["intercepts"])
    weights = np.asarray(game["weights"])
    point, eps = np.asarray(sample["point"]), game["eps"]
    style.plane(axes, point, (1.35 * eps, 1.35 * eps))
    style.votes(axes, directions, intercepts, weights)
    axes.add_patch(Circle(tuple(point), eps, fill=False, color=style.INK, linewidth=0.9))
    for k in np.flatnonzero(weights > 1e-6):
        foot = point - (directions[k] @ point + intercepts[k]) * directions[k]
        along = np.array([-directions[k, 1], directions[k, 0]]) * 6 * eps
        line = np.stack([foot - along, foot + along]).T
        axes.plot(*line, color=style.INK, linewidth=5 * weights[k])
    arrow = {"arrowstyle": "-|>", "color": style.BLACK, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    for attack in sample["attacks"]:
        place = np.asarray(attack["point"])
        axes.annotate("", place, point, arrowprops=arrow)
        way = float(np.linalg.norm(place - point))
        axes.annotate(
            f"{100 * attack['chance']:.0f} %" if way else f"stays: {100 * attack['chance']:.0f} %",
            place,
            tuple(13 * (place - point) / way) if way else (0, -13),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )
    colour, mark = (style.RED, "^") if sample["label"] == 1 else (style.BLUE, "o")
    axes.plot(*point, mark, color=colour, markersize=8, markeredgecolor="white", zorder=5)
    risk = max(attack["risk"] for attack in sample["attacks"])
    axes.set_xlabel(f"$x_1$ (every attack has risk {risk:.2f})")
    axes.set_ylabel("$x_2$", labelpad=0)
