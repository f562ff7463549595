"""Figure 2 with the attack computed exactly: what drawing attacks at random leaves unseen.

For linear classifiers and a disc, which sets of classifiers can be fooled at once is a question of
geometry with a finite answer (`mixsolve.games.linear_game`). Against it stand attackers that draw m
points of the disc and take the best: their risk is too low, for a mixture given and for the game,
and the mixture that is optimal against them is not optimal. The draws are simulated by the exact
shares of the disc that fool each set, which gives the law of uniform draws for any m at no cost;
the 1000 draws of `mixsolve.games.paper2d` are among the marks.

References
----------
Meunier et al., ICML 2021, section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import fooled, style, synthetic
from mixsolve.games.linear_game import linear_game

SIZES = tuple(int(m) for m in np.unique(np.geomspace(1, 100_000, 21).round()))
RADII = tuple(np.arange(0.25, 4.01, 0.25).tolist())


def measure(
    n_samples: int = 1000,
    n_classifiers: int = 10,
    eps: float = 3.0,
    sizes: Sequence[int] = SIZES,
    radii: Sequence[float] = RADII,
    n_draws: int = 1000,
    iterations: int = 1000,
    seeds: int = 10,
) -> dict[str, Any]:
    """Compute the pictures' numbers: `seeds` games, each with draws of its own."""
    series: dict[str, list[Any]] = {
        name: []
        for name in ("risk exact", "risk sampled", "value exact", "value sampled", "true risk")
    }
    checked = []
    for seed in range(seeds):
        plane = fooled.Plane.drawn(n_samples, n_classifiers, seed)
        truth = best_attacks(plane, eps)
        optimum = truth.solve(tol=1e-9)
        law, rng = fooled.areas(plane, eps), np.random.default_rng(seed)
        games = [sets.exact() for sets in law.resampled(list(sizes), rng)]
        solved = [game.solve(tol=1e-9) for game in games]
        series["value exact"].append(optimum.value)
        series["value sampled"].append([solution.value for solution in solved])
        series["risk sampled"].append([game.risks(optimum.weights)[0] for game in games])
        series["risk exact"].append(truth.risks(optimum.weights)[0])
        series["true risk"].append(truth.risks(np.array([s.weights for s in solved])))
        drawn = fooled.Draws(plane, fooled.moves(n_samples, n_draws, seed)).sets(eps).exact()
        checked.append(drawn.solve(tol=1e-9).value)
    gaps = {
        "risk": np.subtract(np.reshape(series["risk exact"], (-1, 1)), series["risk sampled"]),
        "value": np.subtract(np.reshape(series["value exact"], (-1, 1)), series["value sampled"]),
        "regret": np.subtract(series["true risk"], np.reshape(series["value exact"], (-1, 1))),
    }
    return {
        "setting": {
            "samples": n_samples,
            "classifiers": n_classifiers,
            "eps": eps,
            "seeds": seeds,
            "draws of the geometric check": n_draws,
        },
        "draws": list(sizes),
        **series,
        "gap": {name: style.spread(gap) for name, gap in gaps.items()},
        "geometric draws": {"value": checked},
        "radius": _sweep(n_samples, n_classifiers, radii, n_draws, seeds),
        "Algorithm 1": _oracles(n_samples, n_classifiers, eps, iterations),
    }


def best_attacks(plane: fooled.Plane, eps: float) -> fooled.Exact:
    """Return the game against the best attacks, by `mixsolve.games.linear_game`."""
    game = linear_game(plane.points, plane.labels, plane.directions, plane.intercepts, eps)
    codes = game.losses.astype(np.int64) @ (1 << np.arange(game.losses.shape[2]))
    present = np.zeros((len(codes), 1 << game.losses.shape[2]), np.uint8)
    np.put_along_axis(present, codes, 1, axis=1)
    return fooled.Sets(present).exact()


def _sweep(
    n_samples: int, n_classifiers: int, radii: Sequence[float], n_draws: int, seeds: int
) -> dict[str, Any]:
    """Compare best classifiers and mixtures over the radius, under exact and sampled attacks."""
    alone = np.eye(n_classifiers)
    found: dict[str, list[Any]] = {
        f"{kind} {attack}": []
        for kind in ("deterministic", "randomised")
        for attack in ("exact", "sampled")
    }
    for seed in range(seeds):
        plane = fooled.Plane.drawn(n_samples, n_classifiers, seed)
        draws = fooled.Draws(plane, fooled.moves(n_samples, n_draws, seed))
        games = {
            "exact": [best_attacks(plane, radius) for radius in radii],
            "sampled": [draws.sets(radius).exact() for radius in radii],
        }
        for attack, by_radius in games.items():
            found[f"deterministic {attack}"].append([g.risks(alone).min() for g in by_radius])
            found[f"randomised {attack}"].append([g.solve(tol=1e-9).value for g in by_radius])
    return {
        "eps": list(radii),
        **found,
        "mean gain exact": np.subtract(
            found["deterministic exact"], found["randomised exact"]
        ).mean(axis=0),
    }


def _oracles(n_samples: int, n_classifiers: int, eps: float, iterations: int) -> dict[str, Any]:
    """Run Algorithm 1 with oracles of m draws, and measure its iterates by the exact attack."""
    plane = fooled.Plane.drawn(n_samples, n_classifiers, 0)
    truth, law = best_attacks(plane, eps), fooled.areas(plane, eps)
    rng = np.random.default_rng(0)
    sizes = (10, 100, 1000)
    games = [*(sets.exact() for sets in law.resampled(list(sizes), rng)), truth]
    optimum = truth.solve(tol=1e-9)
    runs = {}
    for name, game in zip([*map(str, sizes), "exact"], games, strict=True):
        runs[name] = np.minimum.accumulate(
            truth.risks(
                synthetic.iterates(game.solve, method="oracle", max_iter=iterations, tol=1e-12)
            )
        )
    return {"optimum": optimum.value, "best exact risk so far, by draws of the oracle": runs}


def draw(numbers: dict[str, Any]) -> Figure:
    """Draw risk by radius, Algorithm 1, and risks and gaps by the number of draws."""
    figure = style.figure(6.2)
    panels = figure.subplots(2, 2).ravel()
    _radius(panels[0], numbers["radius"], numbers["setting"]["draws of the geometric check"])
    _oracle_lines(panels[1], numbers["Algorithm 1"])
    _values(panels[2], numbers)
    _gaps(panels[3], numbers)
    eps = numbers["setting"]["eps"]
    style.name_panels(
        panels,
        (
            "Risk under exact and sampled attacks",
            "Algorithm 1 with sampled oracles",
            f"What m draws see of the value, ε = {eps:g}",
            "What m draws miss",
        ),
    )
    return figure


def _radius(axes: Axes, numbers: dict[str, Any], draws: int) -> None:
    for kind, colour in (("deterministic", style.ORANGE), ("randomised", style.BLUE)):
        for attack, dashes, words in (
            ("exact", "-", "exact"),
            ("sampled", (0, (2, 1.5)), f"{draws} draws"),
        ):
            values = style.spread(numbers[f"{kind} {attack}"])
            label = f"{kind}, {words}"
            if attack == "exact":
                style.band(axes, numbers["eps"], values, colour, label=label, linewidth=1.2)
            else:
                axes.plot(
                    numbers["eps"],
                    values["mean"],
                    color=style.INK if kind == "deterministic" else style.GREEN,
                    linestyle=dashes,
                    label=label,
                    linewidth=1.2,
                )
    axes.set_xlabel("radius ε of the attack")
    axes.set_ylabel("adversarial risk, in-sample")
    axes.legend(loc="lower right")


def _oracle_lines(axes: Axes, numbers: dict[str, Any]) -> None:
    runs = numbers["best exact risk so far, by draws of the oracle"]
    for i, (name, risks) in enumerate(runs.items()):
        label = "exact best response" if name == "exact" else f"best of {name} draws"
        colour = style.BLACK if name == "exact" else style.CYCLE[i]
        axes.plot(
            np.arange(1, len(risks) + 1),
            risks,
            color=colour,
            linestyle=style.DASHES[3 - i],
            label=label,
        )
    axes.axhline(numbers["optimum"], color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        f"certified optimum {numbers['optimum']:.4f}",
        (1, numbers["optimum"]),
        (0, -3),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )
    low = numbers["optimum"]
    high = max(max(risks) for risks in runs.values())
    axes.set_ylim(low - 0.15 * (high - low), high + 0.05 * (high - low))
    axes.set_xscale("log")
    axes.set_xlabel("iteration")
    axes.set_ylabel("best exact risk so far")
    axes.legend(loc="upper right")


def _values(axes: Axes, numbers: dict[str, Any]) -> None:
    """Draw values on average; bands are those of the differences to the exact value of a game."""
    draws, exact = numbers["draws"], np.reshape(numbers["value exact"], (-1, 1))
    looks = (
        ("true risk", style.ORANGE, style.DASHES[1], "true risk of the mixture\nbest for m draws"),
        ("value sampled", style.BLUE, "-", "value of the game of m draws"),
    )
    for name, colour, dashes, label in looks:
        values = style.spread(np.subtract(numbers[name], exact) + exact.mean())
        style.band(axes, draws, values, colour, linestyle=dashes, label=label)
    axes.axhline(exact.mean(), color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        f"exact value\n{exact.mean():.4f}",
        (draws[0], exact.mean()),
        (0, -4),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )
    checked = numbers["geometric draws"]["value"]
    axes.plot(
        [numbers["setting"]["draws of the geometric check"]],
        [np.mean(checked)],
        "D",
        color=style.BLACK,
        markersize=4,
        markerfacecolor="white",
        label="geometric draws, for a check",
    )
    axes.set_xscale("log")
    axes.set_xlabel("draws m in each disc")
    axes.set_ylabel(f"adversarial risk, mean of {len(checked)} games")
    axes.legend(loc="lower right")


def _gaps(axes: Axes, numbers: dict[str, Any]) -> None:
    floor = 1e-7
    gap = {
        name: {part: np.maximum(values, floor) for part, values in parts.items()}
        for name, parts in numbers["gap"].items()
    }
    draws = numbers["draws"]
    style.band(axes, draws, gap["risk"], style.BLUE, label="exact $-$ sampled risk of a mixture")
    for name, colour, dashes, label in (
        ("value", style.GREEN, style.DASHES[3], "exact $-$ sampled value of the game"),
        ("regret", style.ORANGE, style.DASHES[1], "true risk $-$ value, mixture best for m draws"),
    ):
        axes.plot(draws, gap[name]["mean"], color=colour, linestyle=dashes, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(floor, 1)
    axes.set_xlabel("draws m in each disc")
    axes.set_ylabel("difference of risks")
    axes.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none")
