"""Figure 2: linear classifiers in the plane, attacked by the best of 1000 draws in a disc.

1000 samples, 10 random linear classifiers of standard risk below 0.4, and for each sample the best
of 1000 uniform draws in the disc of radius eps. The risk of a mixture is that of the exact attack
among these draws, whatever regularisation it was optimised with. The best deterministic classifier
and the optimal mixture are chosen in-sample; out-of-sample they meet 1000 new samples, with draws
of their own.

References
----------
Meunier et al., ICML 2021, section 5.1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

import mixsolve
from benchmarks.figures import fooled, style
from mixsolve.games import bounds

RADII = tuple(np.arange(0, 4.01, 0.2).round(2).tolist())
_NEW = 1_000_000  # added to a seed, for the samples that nothing was chosen on
_GAINS = (0.0, 0.005, 0.01)  # "better by more than", from the number of samples up
_ROUNDING = 1e-9


def measure(
    n_samples: int = 1000,
    n_draws: int = 1000,
    n_classifiers: int = 10,
    eps: float = 3.0,
    alphas: Sequence[float] = (1.0, 0.1, 0.03, 0.01),
    iterations: int = 1000,
    radii: Sequence[float] = RADII,
    seeds: int = 10,
) -> dict[str, Any]:
    """Compute the three pictures' numbers."""
    plane = fooled.Plane.drawn(n_samples, n_classifiers, 0)
    sets = fooled.Draws(plane, fooled.moves(n_samples, n_draws, 0)).sets(eps)
    shown = min(40, n_samples)
    return {
        "setting": {
            "samples": n_samples,
            "draws": n_draws,
            "classifiers": n_classifiers,
            "eps": eps,
            "seeds": seeds,
        },
        "mixture": {
            "points": plane.points[:shown],
            "labels": plane.labels[:shown],
            "directions": plane.directions,
            "intercepts": plane.intercepts,
            "weights": sets.exact().solve(tol=1e-9).weights,
        },
        "convergence": converge(sets, alphas, iterations),
        "radius": sweep(n_samples, n_draws, n_classifiers, radii, seeds),
    }


def converge(sets: fooled.Sets, alphas: Sequence[float], iterations: int) -> dict[str, Any]:
    """Return the exact adversarial risk at every iterate of Algorithm 1 and of the regularised one.

    Proposition 6 speaks of the best iterate of a run of T iterations, whose step depends on T: runs
    of several T are compared with it.
    """
    game = sets.exact()
    optimum = game.solve(tol=1e-9)
    lengths = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= iterations]
    best = [algorithm_1(game, length).min() for length in lengths]
    runs = {"oracle": algorithm_1(game, iterations)}
    for alpha in alphas:
        options = {"alpha": alpha, "method": "apg", "max_iter": iterations, "tol": 1e-10}
        seen = iterates(mixsolve.solve, **options, **sets.entropic())
        runs[f"apg {alpha:g}"] = game.risks(seen)
    return {
        "optimum": optimum.value,
        "lower bound": optimum.lower_bound,
        "best deterministic": game.risks(np.eye(sets.n_classifiers)).min(),
        "alphas": list(alphas),
        "risk of the iterates": runs,
        "Algorithm 1": {
            "iterations": lengths,
            "best risk": best,
            "Proposition 6": [
                optimum.value + bounds.subgradient_bound(t, sets.n_classifiers) for t in lengths
            ],
        },
    }


def iterates(solve: Callable[..., Any], **options: Any) -> NDArray[np.float64]:
    """Return the weights at every iteration of a solve, converged or not."""
    seen: list[np.ndarray] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mixsolve.ConvergenceWarning)
        solve(callback=lambda state: seen.append(state.weights), **options)
    return np.array(seen)


def algorithm_1(game: fooled.Exact, iterations: int) -> NDArray[np.float64]:
    """Return the risks of the iterates of a run of T iterations."""
    return game.risks(iterates(game.solve, method="oracle", max_iter=iterations, tol=1e-12))


def sweep(
    n_samples: int, n_draws: int, n_classifiers: int, radii: Sequence[float], seeds: int
) -> dict[str, Any]:
    """Compare the best deterministic classifier with the optimal mixture, over radii and seeds."""
    found: dict[str, list[list[float]]] = {name: [] for name in _SERIES}
    for seed in range(seeds):
        plane = fooled.Plane.drawn(n_samples, n_classifiers, seed)
        inside = fooled.Draws(plane, fooled.moves(n_samples, n_draws, seed))
        fresh = fooled.Plane.drawn(n_samples, 1, _NEW + seed)
        elsewhere = fooled.Draws(
            plane.on(fresh.points, fresh.labels), fooled.moves(n_samples, n_draws, _NEW + seed)
        )
        rows = [_compare(inside.sets(r).exact(), elsewhere.sets(r).exact()) for r in radii]
        for name, series in found.items():
            series.append([row[name] for row in rows])
    return {"eps": list(radii), **found, **better(radii, found)}


_SERIES = ("deterministic in", "randomised in", "deterministic out", "randomised out")


def _compare(inside: fooled.Exact, elsewhere: fooled.Exact) -> dict[str, float]:
    alone = np.eye(inside.rows.shape[1])
    singles = inside.risks(alone)
    best = alone[int(singles.argmin())]
    weights = inside.solve(tol=1e-9).weights
    risks = (singles.min(), *inside.risks(weights), *elsewhere.risks(np.stack([best, weights])))
    return dict(zip(_SERIES, map(float, risks), strict=True))


def better(radii: Sequence[float], found: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Say from which radius on randomising is better in-sample, by draw; and by how much."""
    gains = np.subtract(found["deterministic in"], found["randomised in"])
    beyond = np.subtract(found["deterministic out"], found["randomised out"])
    first = {}
    for least in _GAINS:
        begins = [np.flatnonzero(row > least + _ROUNDING)[:1] for row in gains]
        where = [radii[int(place[0])] if place.size else None for place in begins]
        reached = [radius for radius in where if radius is not None]
        first[f"{least:g}"] = {
            "by draw": where,
            "median": float(np.median(reached)) if reached else None,
        }
    return {
        "first eps with a gain above": first,
        "mean gain in": gains.mean(axis=0),
        "mean gain out": beyond.mean(axis=0),
        "standard error out": beyond.std(axis=0) / np.sqrt(max(1, len(beyond) - 1)),
    }


def draw(numbers: dict[str, Any]) -> Figure:
    """Draw the mixture, the convergence (as it is and above the optimum), and risk by radius."""
    figure = style.figure(6.6)
    panels = figure.subplots(2, 2).ravel()
    _mixture(panels[0], numbers)
    _risks(panels[1], numbers["convergence"])
    _above(panels[2], numbers["convergence"])
    by_radius(panels[3], numbers["radius"])
    eps = numbers["setting"]["eps"]
    style.name_panels(
        panels,
        (
            f"The optimal mixture at ε = {eps:g}",
            f"Risk of the iterates at ε = {eps:g}",
            "Best iterate $-$ optimum (lines as in b)",
            "Risk in- and out-of-sample",
        ),
    )
    return figure


def _mixture(axes: Axes, numbers: dict[str, Any]) -> None:
    given = {name: np.asarray(part) for name, part in numbers["mixture"].items()}
    points, labels = given["points"], given["labels"]
    eps = numbers["setting"]["eps"]
    half = np.abs(points).max(axis=0) + 1.0
    style.plane(axes, (0, 0), (half.max(), half.max()))
    image = style.votes(axes, given["directions"], given["intercepts"], given["weights"])
    for point in points:
        axes.add_patch(
            Circle(tuple(point), eps, facecolor="#00000003", edgecolor="#00000028", linewidth=0.5)
        )
    for label, mark, colour in ((-1, "o", style.BLUE), (1, "^", style.RED)):
        axes.plot(
            *points[labels == label].T,
            mark,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.6,
            markersize=5.5,
            label=f"label {label:+d}".replace("-", "$-$"),
        )
    axes.set_xlabel("$x_1$")
    axes.set_ylabel("$x_2$")
    axes.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none", borderpad=0.3)
    axes.figure.colorbar(image, ax=axes, shrink=0.85, label="probability that the mixture says +1")


def _runs(numbers: dict[str, Any]) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Return label, risks, and look of each algorithm's line."""
    runs = numbers["risk of the iterates"]
    lines = [("Algorithm 1", np.array(runs["oracle"]), {"color": style.BLACK, "linewidth": 1.1})]
    for i, alpha in enumerate(numbers["alphas"]):
        look = {"color": style.CYCLE[i], "linestyle": style.DASHES[i % 4]}
        lines.append(
            (f"regularised, $\\alpha$ = {alpha:g}", np.array(runs[f"apg {alpha:g}"]), look)
        )
    return lines


def _iterations(risks: np.ndarray) -> np.ndarray:
    return np.arange(1, len(risks) + 1)


def _risks(axes: Axes, numbers: dict[str, Any]) -> None:
    """The risk of every iterate; a run that has converged goes on as it is."""
    runs = _runs(numbers)
    longest = max(len(risks) for _, risks, _ in runs)
    for label, risks, look in runs:
        axes.plot(_iterations(risks), risks, label=label, **look)
        axes.plot([len(risks), longest], [risks[-1]] * 2, **look)
    axes.axhline(numbers["optimum"], color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        f"certified optimum {numbers['optimum']:.4f}",
        (longest, numbers["optimum"]),
        (0, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
    )
    low, high = numbers["optimum"], max(risks.max() for _, risks, _ in runs)
    axes.set_ylim(low - 0.16 * (high - low), high + 0.05 * (high - low))
    axes.set_xscale("log")
    axes.set_xlabel("iteration")
    axes.set_ylabel("adversarial risk")
    axes.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none")


def _above(axes: Axes, numbers: dict[str, Any]) -> None:
    """The best iterate so far, less the optimum, beside what Proposition 6 promises."""
    floor = 1e-5
    optimum = numbers["optimum"]
    longest = max(len(risks) for _, risks, _ in _runs(numbers))
    for _, risks, look in _runs(numbers):
        above = np.minimum.accumulate(risks) - optimum
        above = np.append(above, np.full(longest - len(above), above[-1]))
        axes.plot(_iterations(above), np.maximum(above, floor), **look)
    theory = numbers["Algorithm 1"]
    axes.plot(
        theory["iterations"],
        np.maximum(np.subtract(theory["best risk"], optimum), floor),
        "o",
        color=style.BLACK,
        markerfacecolor="white",
        markersize=5,
        label="Algorithm 1, run of T iterations",
    )
    axes.plot(
        theory["iterations"],
        np.subtract(theory["Proposition 6"], optimum),
        color=style.RED,
        linestyle=style.DASHES[1],
        label="Proposition 6: $2M\\sqrt{L/T}$",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("iterations T")
    axes.set_ylabel("adversarial risk $-$ optimum")
    axes.set_ylim(floor / 2, 60)
    axes.legend(loc="upper right")


def by_radius(axes: Axes, numbers: dict[str, Any]) -> None:
    """Risk of the best deterministic classifier and of the best mixture, over the radius."""
    looks = (
        ("deterministic in", style.ORANGE, "-", "deterministic, in"),
        ("deterministic out", style.ORANGE, style.DASHES[1], "deterministic, out"),
        ("randomised in", style.BLUE, "-", "randomised, in"),
        ("randomised out", style.BLUE, style.DASHES[1], "randomised, out"),
    )
    for name, colour, dashes, label in looks:
        values = style.spread(numbers[name])
        style.band(axes, numbers["eps"], values, colour, linestyle=dashes, label=label)
    median = numbers["first eps with a gain above"]["0"]["median"]
    if median is not None:
        axes.axvline(median, ymin=0.33, color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate(
            f"strictly better\nfrom ε = {median:g} on\n(median draw)",
            (median, 0.98),
            (-4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=8,
            ha="right",
            va="top",
        )
    axes.set_xlabel("radius ε of the attack")
    axes.set_ylabel("adversarial risk")
    axes.legend(loc="lower right")
