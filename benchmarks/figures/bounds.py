"""Propositions 4, 5 and 6 beside what happens, in the plane where all of it can be computed.

The base measure of the regularised problem is uniform on the disc, and its shares on the sets of
fooled classifiers are known exactly (`fooled.areas`). So are then R*_alpha, the estimate
R*_alpha,m of m draws, and R*: the statistical error |R*_alpha,m - R*_alpha| of Proposition 4, the
approximation error R* - R*_alpha of Proposition 5, and what Algorithm 1 leaves after T iterations.

C_beta of Proposition 5 is computed for beta = 0: the least share of the disc that fools a set
which no other contains. For the uniform mixture of the set only this share is optimal, and for any
mixture some such share is. For beta > 0 this C still holds, and for beta = 1 the whole disc counts.
The sharper bound, `mixsolve.games.bounds.smoothing_bound`, takes these shares sample by sample.

References
----------
Meunier et al., ICML 2021, sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import mixsolve
from benchmarks.figures import fooled, style, synthetic
from mixsolve.games import bounds

SIZES = (10, 32, 100, 316, 1000, 3162, 10_000)
ALPHAS = (1.0, 0.3, 0.1)
PATH = tuple(np.geomspace(1e-4, 1.0, 13).tolist())
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_DELTA = 0.05
_FAILED = 1e-12  # errors below are rounding, and give no ratio


def measure(
    n_samples: int = 1000,
    n_classifiers: int = 10,
    eps: float = 3.0,
    sizes: Sequence[int] = SIZES,
    alphas: Sequence[float] = ALPHAS,
    path: Sequence[float] = PATH,
    lengths: Sequence[int] = LENGTHS,
    seeds: int = 10,
) -> dict[str, Any]:
    """Compute errors, bounds, and how many times too large the bounds are."""
    plane = fooled.Plane.drawn(n_samples, n_classifiers, 0)
    law = fooled.areas(plane, eps)
    return {
        "setting": {
            "samples": n_samples,
            "classifiers": n_classifiers,
            "eps": eps,
            "seeds": seeds,
            "delta": _DELTA,
        },
        "Proposition 4": _statistical(law, sizes, alphas, seeds),
        "Proposition 5": _approximation(law, path),
        "Proposition 6": _subgradient(law, lengths),
    }


def _statistical(
    law: fooled.Sets, sizes: Sequence[int], alphas: Sequence[float], seeds: int
) -> dict[str, Any]:
    """Errors of drawing m candidates rather than integrating."""
    whole = mixsolve.solve_path(alphas=alphas, tol=1e-9, **law.entropic())
    optima = [solution.value for solution in whole]
    errors = np.empty((len(alphas), seeds, len(sizes)))
    for seed in range(seeds):
        drawn = law.resampled(list(sizes), np.random.default_rng(seed))
        for place, sets in enumerate(drawn):
            path = mixsolve.solve_path(alphas=alphas, tol=1e-9, **sets.entropic())
            errors[:, seed, place] = [abs(s.value - v) for s, v in zip(path, optima, strict=True)]
    found = {}
    for alpha, error in zip(alphas, errors, strict=True):
        bound = [
            bounds.sampling_bound(alpha, len(law.mass), m, law.n_classifiers, delta=_DELTA)
            for m in sizes
        ]
        found[f"{alpha:g}"] = {
            "error": style.spread(error),
            "largest error": error.max(axis=0),
            "bound": bound,
            "bound / largest error": np.divide(bound, error.max(axis=0)),
        }
    return {"draws": list(sizes), "by alpha": found}


def _approximation(law: fooled.Sets, path: Sequence[float]) -> dict[str, Any]:
    """Errors of regularising, and the risk that the mixtures so found have."""
    best = np.where(fooled.maximal(law.mass > 0), law.mass, 1.0).min(axis=1)
    game = law.exact()
    optimum = game.solve(tol=1e-9).value
    solved = mixsolve.solve_path(alphas=path, tol=1e-9, **law.entropic())
    error = np.array([optimum - solution.value for solution in solved])
    # beta = 1, the largest loss, has C = 1: the bound is never above 1.
    proposition = [min(1.0, bounds.regularization_bound(alpha, best.min())) for alpha in path]
    sharper = [bounds.smoothing_bound(alpha, mass=best) for alpha in path]
    return {
        "alpha": list(path),
        "optimum": optimum,
        "regularised optimum": [solution.value for solution in solved],
        "error": error,
        "adversarial risk - optimum": [solution.risk - optimum for solution in solved],
        "C_0": best.min(),
        "bound": proposition,
        "bound by sample": sharper,
        "bound / error": _ratios(proposition, error),
        "bound by sample / error": _ratios(sharper, error),
    }


def _subgradient(law: fooled.Sets, lengths: Sequence[int]) -> dict[str, Any]:
    """Distances to the optimum of the best iterate of runs of T iterations."""
    game = law.exact()
    optimum = game.solve(tol=1e-9).value
    error = [synthetic.algorithm_1(game, length).min() - optimum for length in lengths]
    bound = [bounds.subgradient_bound(length, law.n_classifiers) for length in lengths]
    return {
        "iterations": list(lengths),
        "error": error,
        "bound": bound,
        "bound / error": _ratios(bound, error),
    }


def _ratios(bound: Sequence[float], error: Any) -> list[float | None]:
    """How many times the error the bound is; None where there is no error."""
    return [b / e if e > _FAILED else None for b, e in zip(bound, error, strict=True)]


def draw(numbers: dict[str, Any]) -> Figure:
    """Draw errors and bounds of each proposition, and how far apart they are."""
    figure = style.figure(6.4)
    panels = figure.subplots(2, 2).ravel()
    _draw_statistical(panels[0], numbers["Proposition 4"])
    _draw_approximation(panels[1], numbers["Proposition 5"])
    _draw_subgradient(panels[2], numbers["Proposition 6"])
    _draw_ratios(panels[3], numbers)
    style.name_panels(
        panels,
        (
            "Proposition 4: m draws",
            "Proposition 5: regularising",
            "Proposition 6: Algorithm 1",
            "How loose: bound / measured",
        ),
    )
    return figure


def _draw_statistical(axes: Axes, numbers: dict[str, Any]) -> None:
    for i, (alpha, found) in enumerate(numbers["by alpha"].items()):
        look = {"marker": style.MARKS[i], "markersize": 4}
        label = f"$\\alpha$ = {alpha}"
        style.band(axes, numbers["draws"], found["error"], style.CYCLE[i], label=label, **look)
        axes.plot(
            numbers["draws"],
            found["bound"],
            color=style.CYCLE[i],
            linestyle=style.DASHES[1],
            **look,
        )
    axes.plot([], [], color=style.INK, label="measured error")
    axes.plot([], [], color=style.INK, linestyle=style.DASHES[1], label="bound")
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 1e4)
    axes.set_xlabel("draws m in each disc")
    axes.set_ylabel("statistical error")
    axes.legend(loc="upper center", ncols=2)


def _draw_approximation(axes: Axes, numbers: dict[str, Any]) -> None:
    alpha = numbers["alpha"]
    axes.plot(alpha, numbers["error"], "o-", color=style.BLUE, markersize=4, label="measured error")
    axes.plot(
        alpha,
        np.maximum(numbers["adversarial risk - optimum"], 1e-7),
        "s:",
        color=style.GREEN,
        markersize=4,
        label="risk of the mixture $-$ optimum",
    )
    axes.plot(
        alpha,
        numbers["bound by sample"],
        color=style.INK,
        linestyle=style.DASHES[2],
        label="bound, sample by sample",
    )
    axes.plot(
        alpha,
        numbers["bound"],
        color=style.RED,
        linestyle=style.DASHES[1],
        label=f"Proposition 5, $C_0$ = {numbers['C_0']:.0e}",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1e-6, 1e5)
    axes.set_xlabel(r"regularisation $\alpha$")
    axes.set_ylabel("approximation error")
    axes.legend(loc="upper left")


def _draw_subgradient(axes: Axes, numbers: dict[str, Any]) -> None:
    axes.plot(
        numbers["iterations"],
        numbers["error"],
        "o-",
        color=style.BLUE,
        markersize=4,
        label="best iterate $-$ optimum",
    )
    axes.plot(
        numbers["iterations"],
        numbers["bound"],
        color=style.RED,
        linestyle=style.DASHES[1],
        label=r"Proposition 6: $2M\sqrt{L/T}$",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 100)
    axes.set_xlabel("iterations T of the run")
    axes.set_ylabel("adversarial risk $-$ optimum")
    axes.legend(loc="upper right")


def _draw_ratios(axes: Axes, numbers: dict[str, Any]) -> None:
    """One row for each bound, from its least to its largest ratio."""
    rows = [
        (f"Prop. 4, $\\alpha$ = {alpha}", found["bound / largest error"])
        for alpha, found in numbers["Proposition 4"]["by alpha"].items()
    ]
    fifth = numbers["Proposition 5"]
    rows += [
        ("Prop. 5", fifth["bound / error"]),
        ("Prop. 5, by sample", fifth["bound by sample / error"]),
    ]
    rows += [("Prop. 6", numbers["Proposition 6"]["bound / error"])]
    for row, (_, given) in enumerate(rows):
        ratios = [ratio for ratio in given if ratio is not None]
        axes.plot([min(ratios), max(ratios)], [row, row], color=style.PALE, linewidth=5)
        axes.plot(ratios, [row] * len(ratios), "o", color=style.BLUE, markersize=4)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.axvline(1, color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.set_xscale("log")
    axes.set_xlabel("bound / measured error (1 is tight)")
