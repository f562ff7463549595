"""Attacks against the exact attack: how much of the risk of linear classifiers each one finds.

    python -m benchmarks.attacks_exact

In the plane: the paper's game of 10 random linear classifiers and an L2 ball, whose best attack of
every point `mixsolve.games.linear_game` knows. Two mixtures are attacked at several radii, the
uniform one and the one that is optimal against the exact attacker.

In the box: random linear classifiers of images in [0, 1], Linf, L2 and L1, whose best attack convex
programs find (see `benchmarks.exact_linear`). The walls of the box cut off much of each ball.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import mixsolve
from benchmarks.exact_linear import exact_risk, radius_of, random_mixture
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve.base.arguments import as_length
from mixsolve.games.linear_game import paper2d_exact
from mixsolve_torch import APGD, ARC, PGD, Attack, Mixture, Standard, Subset, expected_loss
from mixsolve_torch.data.linear_images import linear_images
from mixsolve_torch.runs.progress import ProgressBar

NORMS = ("Linf", "L2", "L1")

# The share of single classifiers that is fooled within the radius of a game in the box.
_FOOLED = 0.6


def attacks(norm: str, eps: float, steps: int) -> dict[str, Attack]:
    """Return the attacks, in the order of the tables."""
    return {
        f"standard ({steps} steps)": Standard(norm, eps, steps=steps),
        f"APGD ({steps} steps)": APGD(norm, eps, steps=steps),
        "ARC (20 steps)": ARC(norm, eps, steps=20),
        "subset (20 + 20 steps)": Subset(norm, eps, steps=20),
        "PGD-20": PGD(norm, eps, steps=20),
    }


def compare(
    game: dict,
    mixture: Mixture,
    x: torch.Tensor,
    y: torch.Tensor,
    best: np.ndarray,
    suite: dict[str, Attack],
    seed: int,
) -> dict:
    """Return a row of a table: the exact risk and every attack's shortfall from it."""
    row = {**game, "exact": float(best.mean()), "attacks": {}}
    for name, attack in suite.items():
        began = time.perf_counter()
        found = attack(mixture, x, y, torch.Generator().manual_seed(seed))[0]
        seconds = time.perf_counter() - began
        risk = expected_loss(mixture, found, y).numpy()
        row["attacks"][name] = {
            "risk": float(risk.mean()),
            "shortfall": 100 * float(best.mean() - risk.mean()),
            "missed": int((risk < best - 1e-9).sum()),
            "beyond": int((risk > best + 1e-9).sum()),
            "seconds": round(seconds, 2),
        }
    return row


def in_the_plane(radii: list[float], samples: int, steps: int, seed: int) -> list[dict]:
    """Return a row for each radius and mixture of the game in the plane."""
    rows: list[dict] = []
    with ProgressBar("Games in the plane", 2 * len(radii), enabled=True) as bar:
        for eps in radii:
            game = paper2d_exact(samples, 10, eps, seed)
            models, x, y, radius = linear_images(game, eps)
            for kind in ("uniform", "optimal"):
                lam = np.full(10, 0.1)
                if kind == "optimal":
                    lam = np.asarray(mixsolve.solve(game.losses).weights)
                about = {"eps": eps, "weights": kind, "classifiers": int((lam > 0).sum())}
                best = (game.losses @ lam).max(axis=1)
                suite = attacks("L2", radius, steps)
                rows.append(compare(about, Mixture(models, weights=lam), x, y, best, suite, seed))
                bar.advance()
    return rows


def in_the_box(mixtures: int, images: int, steps: int, seed: int) -> list[dict]:
    """Return a row for each mixture and norm of the games in the box."""
    rows: list[dict] = []
    with ProgressBar("Games in the box", mixtures * len(NORMS), enabled=True) as bar:
        for number in range(seed, seed + mixtures):
            mixture, x, y = random_mixture(number, images)
            for norm in NORMS:
                eps = radius_of(mixture, norm, x, y, _FOOLED)
                about = {
                    "seed": number,
                    "norm": norm,
                    "eps": eps,
                    "classifiers": len(mixture),
                    "classes": mixture.models[0][1].out_features,
                    "entries": x[0].numel(),
                }
                pairs = zip(x.flatten(1).numpy(), y.tolist(), strict=True)
                best = np.array([exact_risk(mixture, norm, eps, *pair) for pair in pairs])
                suite = attacks(norm, eps, steps)
                rows.append(compare(about, mixture, x, y, best, suite, number))
                bar.advance()
    return rows


def show(title: str, columns: dict[str, list[str]], rows: list[dict]) -> list[str]:
    """Print a table and return it as lines of a page, with a sentence on the largest shortfalls."""
    names = list(rows[0]["attacks"])
    risks = [f"{100 * row['exact']:.2f} %" for row in rows]
    columns = {**columns, "exact risk": risks}
    for name in names:
        columns[name] = [f"{row['attacks'][name]['shortfall']:.2f}" for row in rows]
    cells = [list(cell) for cell in zip(*columns.values(), strict=True)]
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for cell in cells:
        table.add_row(*cell)
    Console(width=150).print(table)
    worst = {name: max(row["attacks"][name]["shortfall"] for row in rows) for name in names}
    beyond = sum(own["beyond"] for row in rows for own in row["attacks"].values())
    sentence = (
        "Largest shortfall: "
        + ", ".join(f"{name} {value:.2f}" for name, value in worst.items())
        + f". Points that exceed the exact risk: {beyond}."
    )
    Console().print(sentence, highlight=False)
    return [f"## {title}", "", *markdown_table(list(columns), cells), "", sentence, ""]


def main() -> None:
    """Attack, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eps", nargs="+", default=[1.0, 3.0], help="in the plane")
    parser.add_argument("--samples", type=int, default=100, help="points of the plane (100)")
    parser.add_argument("--mixtures", type=int, default=4, help="in the box (4)")
    parser.add_argument("--images", type=int, default=100, help="of each mixture in the box (100)")
    parser.add_argument("--steps", type=int, default=100, help="of standard and APGD (100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.eps = [as_length("--eps", eps) for eps in args.eps]
    torch.set_num_threads(1)
    boxes = in_the_box(args.mixtures, args.images, args.steps, args.seed)
    plane = in_the_plane(args.eps, args.samples, args.steps, args.seed)
    box_columns = {
        "mixture": [str(row["seed"]) for row in boxes],
        "ball": [f"{row['norm']} {row['eps']:.3g}" for row in boxes],
        **{key: [str(row[key]) for row in boxes] for key in ("classifiers", "classes", "entries")},
    }
    plane_columns = {
        "eps": [f"{row['eps']:g}" for row in plane],
        "weights": [f"{row['weights']} ({row['classifiers']})" for row in plane],
    }
    page = [
        "# Attacks against the exact attack",
        "",
        "Shortfall from the exact risk in points. "
        f"{origin('attacks_exact', f'PyTorch {torch.__version__}')}, one thread. Every attack "
        "starts from one draw.",
        "",
        *show(f"In the box, {args.images} images a mixture", box_columns, boxes),
        *show(f"In the plane, {args.samples} points, seed {args.seed}", plane_columns, plane),
        "In brackets the number of classifiers of positive weight.",
    ]
    save(args.out, "attacks_exact", page, {"box": boxes, "plane": plane})


if __name__ == "__main__":
    main()
