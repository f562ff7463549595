"""The game over the whole ball: attacks from one side, verification from the other.

    python -m benchmarks.ball

Networks of the digits, trained on PGD attacks, and games of linear classifiers, whose value is
known. Five tables: how far both ends are apart as eps grows, with the picture of it; linear games;
what joint bounds of pairs of networks add to bounds of each alone; attacks on what is certified;
and the cost of CROWN. What is finished is kept in --work, and a repeated call resumes from there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import mixsolve
from benchmarks.exact_linear import exact_risk, radius_of, random_mixture
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import plots
from mixsolve.base.files import write_text
from mixsolve.games.linear_game import paper2d_exact
from mixsolve.plots.style import BLUE, ORANGE, new_figure
from mixsolve_torch import PGD, Mixture, Standard, digits, digits_cnn, fit, solve_ball, verify
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.core.losses import expected_loss
from mixsolve_torch.data.linear_images import linear_images
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.verification.crown import Bounds, bounds_over
from mixsolve_torch.verification.program import Program
from mixsolve_torch.verification.region import Region

RADII = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07)
TRAINED_ON = 0.1  # radius of PGD in training


def kept(work: Path, name: str, make: Callable[[], Any]) -> Any:
    """Return what a finished part found, or make and keep it."""
    path = work / f"{name}.json"
    if not path.exists():
        found = make()
        work.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found) + "\n")
    return json.loads(path.read_text())


def networks(work: Path, count: int, width: int, epochs: int) -> list[torch.nn.Module]:
    """Return trained networks, each on attacks on itself and those before it."""
    models: list[torch.nn.Module] = []
    train = digits().train
    for k in range(count):
        model, path = digits_cnn(seed=k, width=width), work / f"network-{k}.pt"
        if path.exists():
            model.load_state_dict(torch.load(path))
        else:
            attack = PGD("Linf", TRAINED_ON, steps=5)
            fit(model, train, epochs=epochs, attack=attack, alongside=models, batch_size=128,
                learning_rate=5e-3, seed=k)  # fmt: skip
            work.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), path)
        models.append(model.eval())
    return models


def linear_game_ends(number: int) -> dict:
    """Return exact, attacked and verified values of a linear game, in the plane or in the box."""
    if number < 2:
        eps = (1.0, 3.0)[number]
        game = paper2d_exact(60, 6, eps, 0)
        models, x, y, radius = linear_images(game, eps)
        bounds = solve_ball(Mixture(models), (x, y), "L2", eps=radius)
        exact = mixsolve.solve(game.losses).value
        return ends(f"plane, L2 {eps:g}: value", exact, bounds.attacked, bounds.verified)
    seed, norm = number // 2 - 1, ("Linf", "L2")[number % 2]
    mixture, x, y = random_mixture(seed, 40)
    eps = radius_of(mixture, norm, x, y, 0.6)
    pairs = zip(x.flatten(1).numpy(), y.tolist(), strict=True)
    exact = float(np.mean([exact_risk(mixture, norm, eps, *pair) for pair in pairs]))
    points = Standard(norm, eps)(mixture, x, y)[0]
    attacked = float(expected_loss(mixture, points, y).mean())
    verified = verify(mixture, (x, y), norm, eps).risk(mixture.weights)
    return ends(f"box {seed}, {norm} {eps:.3g}: risk", exact, attacked, verified)


def ends(game: str, exact: float, attacked: float, verified: float) -> dict:
    """Return a row of the table of linear games."""
    return {"game": game, "exact": exact, "attacked": attacked, "verified": verified}


def both_ends(mixture: Mixture, x: Tensor, y: Tensor, eps: float, args: Any) -> dict:
    """Return the two ends at a radius, for the mixture, single networks and pairs of them."""
    began = time.perf_counter()
    bounds = solve_ball(
        mixture,
        (x, y),
        eps=eps,
        steps=args.steps,
        restarts=2,
        exact_seconds=args.exact_seconds,
        out=args.work / f"ball-{eps}",
        progress=True,
    )
    sets, found = bounds.verification.sets, bounds.game.losses.values.cpu().numpy()
    reach = np.stack([rows.max(axis=0) for rows in sets])
    known = np.stack([rows.max(axis=0) for rows in bounds.verification.fooled])
    alone = np.maximum(found.max(axis=1), known)
    return {
        "eps": eps,
        "attacked": bounds.attacked,
        "verified": bounds.verified,
        "optimal attacked": bounds.attacked_risk(bounds.weights),
        "singles only": mixsolve.solve(reach[:, None]).risk,
        "best single attacked": float(alone.mean(axis=0).min()),
        "best single verified": float(reach.mean(axis=0).min()),
        "weights": bounds.weights.tolist(),
        "pairs": pairs_of(sets),
        "seconds an image": (time.perf_counter() - began) / len(x),
    }


def pairs_of(sets: list[np.ndarray]) -> dict[str, list[float]]:
    """Return the verified risk of each pair, and of all: with sets, and of each alone."""
    reach = np.stack([rows.max(axis=0) for rows in sets])
    count, found = reach.shape[1], {}
    for own in [*combinations(range(count), 2), tuple(range(count))]:
        joint = mixsolve.solve([rows[:, own] for rows in sets]).risk
        alone = mixsolve.solve(reach[:, None, own]).risk
        found[" + ".join(str(k + 1) for k in own)] = [joint, alone]
    return found


def plain(work: Path, count: int, width: int, x: Tensor, y: Tensor, eps: float) -> dict:
    """Return the verified risks of pairs of networks that were trained on the images alone."""
    models = [digits_cnn(seed=k, width=width) for k in range(count)]
    for k, model in enumerate(models):
        fit(model, digits().train, epochs=12, batch_size=128, learning_rate=5e-3, seed=k)
    proven = verify(Mixture(models), (x, y), "Linf", eps, out=work / "plain")
    return {"eps": eps, "pairs": pairs_of(proven.sets)}


def soundness(mixture: Mixture, x: Tensor, y: Tensor, norm: str, eps: float, args: Any) -> dict:
    """Attack the mixture of several weights; count images fooled beyond what is certified."""
    proven = verify(mixture, (x, y), norm, eps, out=args.work / "certified")
    beyond, certified = 0, 0
    draws = np.random.default_rng(0).dirichlet(np.ones(len(mixture)), args.mixtures)
    for number, weights in enumerate(draws):
        own = Mixture(mixture.models, weights)
        attack = Standard(norm, eps, steps=args.soundness_steps, restarts=10)
        points = attack(own, x, y, torch.Generator().manual_seed(number))[0]
        found, most = expected_loss(own, points, y).numpy(), proven.worst(weights)
        beyond += int((found > most + 1e-9).sum())
        certified += int((most < 1 - 1e-9).sum())
    cases = args.mixtures * len(x)
    return {"norm": norm, "eps": eps, "cases": cases, "certified": certified, "beyond": beyond}


def cost(width: int, images: int, eps: float) -> dict:
    """Return the time of CROWN over that of a forward pass of as many rows as it bounds."""
    model, (x, y) = digits_cnn(width=width), (digits().test.images, digits().test.labels)
    x, y = x[:images], y[:images]
    fit(model, digits().train, epochs=3, attack=PGD("Linf", TRAINED_ON, steps=2))
    best, rows, run = [np.inf, np.inf], 0, Bounds.lines

    def counting(self: Bounds, at: int, given: Tensor, owner: Tensor, **options: Any) -> Any:
        nonlocal rows
        rows += len(given)
        return run(self, at, given, owner, **options)

    with frozen(model), torch.no_grad():
        program = Program(model, "network", x)
        region = Region.around(x, make_ball("Linf", eps))
        margins = torch.eye(10)[y][:, None] - torch.eye(10)
        owner = torch.arange(images).repeat_interleave(10)
        for _ in range(3):
            rows, began = 0, time.perf_counter()
            with mock.patch.object(Bounds, "lines", counting):
                bounds = bounds_over(program, region)
                bounds.lines(len(program.steps) - 1, margins.flatten(0, 1), owner)
            best[0] = min(best[0], time.perf_counter() - began)
            began = time.perf_counter()
            for part in torch.split(torch.rand(rows, *x.shape[1:]), 2048):
                model(part)
            best[1] = min(best[1], time.perf_counter() - began)
    return {"width": width, "eps": eps, "rows": rows / images, "passes": best[0] / best[1]}


def picture(rows: list[dict], path: Path) -> None:
    """Draw the two ends of the risk as eps grows."""
    figure = new_figure(7.0, 3.6)
    axes = figure.subplots()
    eps = [row["eps"] for row in rows]
    # The mixture is drawn wide, and single networks on it: the two may be one.
    for name, colour, width, low, high in (
        ("optimal mixture", BLUE, 4.0, "attacked", "verified"),
        ("best single network", ORANGE, 1.5, "best single attacked", "best single verified"),
    ):
        lower, upper = ([100 * row[key] for row in rows] for key in (low, high))
        axes.fill_between(eps, lower, upper, color=colour, alpha=0.25, linewidth=0)
        axes.plot(eps, upper, color=colour, linewidth=width, label=f"{name}: verified")
        axes.plot(eps, lower, "--", color=colour, linewidth=width, label=f"{name}: attacked")
    axes.set_xlabel("eps (Linf)")
    axes.set_ylabel("risk, %")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    plots.save(figure, path)


def percent(*values: float) -> list[str]:
    """Return shares in percent."""
    return [f"{100 * value:.2f}" for value in values]


def page(found: dict, args: Any) -> list[str]:
    """Return the page."""
    balls, sound = found["balls"], found["soundness"]
    trained = [("PGD", row) for row in balls] + [("plain", row) for row in found["plain"]]
    pairs = [
        [kind, f"{row['eps']:g}", own, *percent(joint, alone, alone - joint)]
        for kind, row in trained
        for own, (joint, alone) in row["pairs"].items()
    ]
    beyond, cases = (sum(row[key] for row in sound) for key in ("beyond", "cases"))
    return [
        "# The whole ball: attacked and verified",
        "",
        f"{origin('ball', f'PyTorch {torch.__version__}')}, one thread. {args.images} test images "
        f"of the digits, {args.networks} networks `digits_cnn(width={args.width})` trained on PGD "
        f"of radius {TRAINED_ON:g}; `standard` with {args.steps} steps, {args.exact_seconds:g} s "
        "of branch and bound an image. Risks in percent.",
        "",
        "## Both ends as eps grows, Linf",
        "",
        *markdown_table(
            [
                "eps",
                "attacked",
                "verified",
                "optimal mixture attacked",
                "verified less attacked",
                "best single attacked",
                "best single verified",
                "seconds an image",
            ],
            [
                [
                    f"{row['eps']:g}",
                    *percent(
                        row["attacked"],
                        row["verified"],
                        row["optimal attacked"],
                        row["verified"] - row["optimal attacked"],
                        row["best single attacked"],
                        row["best single verified"],
                    ),
                    f"{row['seconds an image']:.2f}",
                ]
                for row in balls
            ],
        ),
        "",
        "![The two ends of the risk](ball.png)",
        "",
        "## Linear games",
        "",
        "Values of the game in the plane; in the box, risks of given weights.",
        "",
        *markdown_table(
            ["game", "exact", "attacked", "verified"],
            [
                [row["game"], *(f"{row[key]:.8f}" for key in ("exact", "attacked", "verified"))]
                for row in found["linear"]
            ],
        ),
        "",
        "## Sets of networks against each alone",
        "",
        "The verified risk of the optimal mixture of two networks, or three: trained on PGD, as "
        "above, and on the images as they are (without branch and bound).",
        "",
        *markdown_table(["training", "eps", "networks", "with sets", "each alone", "less"], pairs),
        "",
        "## Soundness",
        "",
        f"{beyond} of {cases} cases (an image, a radius and weights) were fooled beyond what is "
        f"certified, by `standard` with 10 restarts of {args.soundness_steps} steps.",
        "",
        *markdown_table(
            ["ball", "cases", "certified below 1", "fooled beyond"],
            [
                [
                    f"{row['norm']} {row['eps']:g}",
                    *(f"{row[k]}" for k in ("cases", "certified", "beyond")),
                ]
                for row in sound
            ],
        ),
        "",
        "## Cost",
        "",
        "CROWN without ascent; a forward pass is one of as many images as CROWN bounds linear "
        "functions.",
        "",
        *markdown_table(
            ["width", "eps", "functions an image", "forward passes of equal batch work"],
            [
                [f"{row['width']}", f"{row['eps']:g}", f"{row['rows']:.0f}", f"{row['passes']:.1f}"]
                for row in found["cost"]
            ],
        ),
    ]


def main() -> None:
    """Measure what is not finished, and write page and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50, help="of standard")
    parser.add_argument("--exact-seconds", type=float, default=3.0, help="an image")
    parser.add_argument("--mixtures", type=int, default=10, help="of the table of soundness")
    parser.add_argument("--soundness-steps", type=int, default=10)
    parser.add_argument("--finished", action="store_true", help="write what is finished, no more")
    parser.add_argument("--work", type=Path, default=Path("ball-work"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = args.work
    mixture = Mixture(networks(work, args.networks, args.width, args.epochs))
    x, y = digits().test.images[: args.images], digits().test.labels[: args.images]
    balls = [
        kept(work, f"ends-{eps}", partial(both_ends, mixture, x, y, eps, args)) for eps in RADII
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    picture(balls, args.out / "ball.png")
    sound = [("Linf", eps) for eps in RADII[:5]]
    sound += [("L2", eps) for eps in (0.05, 0.1, 0.15, 0.2, 0.3)]
    parts: list[tuple[str, str, Callable[[], Any]]] = [
        *(
            ("plain", f"plain-{eps}", partial(plain, work, args.networks, args.width, x, y, eps))
            for eps in (0.05, 0.07)
        ),
        *(("cost", f"cost-{width}", partial(cost, width, 20, 0.03)) for width in (4, 16)),
        *(
            ("soundness", f"sound-{own[0]}-{own[1]}", partial(soundness, mixture, x, y, *own, args))
            for own in sound
        ),
        *(("linear", f"linear-{k}", partial(linear_game_ends, k)) for k in range(6)),
    ]
    found: dict[str, list] = {
        "balls": balls,
        "plain": [],
        "cost": [],
        "linear": [],
        "soundness": [],
    }
    for kind, name, measure in parts:
        if args.finished and not (work / f"{name}.json").exists():
            continue
        found[kind].append(kept(work, name, measure))
        # The page tells of what is finished: the last parts take the longest.
        save(args.out, "ball", page(found, args), found)


if __name__ == "__main__":
    main()
