"""Attacks against the exact attack: how much of the risk of linear classifiers each one finds.

    python -m benchmarks.attacks_exact

The game is the paper's in the plane: 1000 points, 10 random linear classifiers, an l2 ball, and
`mixsolve.games.linear_game` knows the best attack of every point. Two mixtures are attacked at
several radii, the uniform one and the one that is optimal against the exact attacker.
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
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve.base.arguments import as_length
from mixsolve.games.linear_game import paper2d_exact
from mixsolve_torch import APGD, ARC, PGD, Attack, Mixture, Standard, Subset, expected_loss
from mixsolve_torch.data.linear_images import linear_images
from mixsolve_torch.runs.progress import ProgressBar


def attacks(eps: float, steps: int) -> dict[str, Attack]:
    """Return the attacks, in the order of the table."""
    return {
        f"standard ({steps} steps)": Standard("L2", eps, steps=steps),
        f"APGD ({steps} steps)": APGD("L2", eps, steps=steps),
        "ARC (20 steps)": ARC("L2", eps, steps=20),
        "subset (20 + 20 steps)": Subset("L2", eps, steps=20),
        "PGD-20": PGD("L2", eps, steps=20),
    }


def measure(radii: list[float], samples: int, steps: int, seed: int) -> list[dict]:
    """Return a row for each radius and mixture: the exact risk and every attack's shortfall."""
    rows: list[dict] = []
    with ProgressBar("Attacks", 2 * len(radii) * len(attacks(1.0, steps)), enabled=True) as bar:
        for eps in radii:
            game = paper2d_exact(samples, 10, eps, seed)
            models, x, y, radius = linear_images(game, eps)
            for kind in ("uniform", "optimal"):
                lam = np.full(10, 0.1)
                if kind == "optimal":
                    lam = np.asarray(mixsolve.solve(game.losses).weights)
                best = (game.losses @ lam).max(axis=1)
                mixture = Mixture(models, weights=lam)
                row = {
                    "eps": eps,
                    "weights": kind,
                    "classifiers": int((lam > 0).sum()),
                    "exact": float(best.mean()),
                    "attacks": {},
                }
                for name, attack in attacks(radius, steps).items():
                    draws = torch.Generator().manual_seed(seed)
                    began = time.perf_counter()
                    found = attack(mixture, x, y, draws)[0]
                    seconds = time.perf_counter() - began
                    risk = expected_loss(mixture, found, y).numpy()
                    row["attacks"][name] = {
                        "risk": float(risk.mean()),
                        "shortfall": 100 * float(best.mean() - risk.mean()),
                        "missed": int((risk < best - 1e-9).sum()),
                        "beyond": int((risk > best + 1e-9).sum()),
                        "seconds": round(seconds, 2),
                    }
                    bar.advance()
                rows.append(row)
    return rows


def main() -> None:
    """Attack, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eps", nargs="+", default=[0.5, 1.0, 2.0, 3.0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100, help="of standard and APGD (100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.eps = [as_length("--eps", eps) for eps in args.eps]
    torch.set_num_threads(1)
    rows = measure(args.eps, args.samples, args.steps, args.seed)
    header = (
        f"Shortfall from the exact risk in points, {args.samples} samples, 10 linear classifiers "
        f"in the plane, seed {args.seed}"
    )
    names = list(rows[0]["attacks"])
    table = Table(title=header)
    for column in ("eps", "weights", "exact risk", *names):
        table.add_column(column, justify="right")
    cells = [
        [
            f"{row['eps']:g}",
            f"{row['weights']} ({row['classifiers']})",
            f"{100 * row['exact']:.2f} %",
            *(f"{own['shortfall']:.2f}" for own in row["attacks"].values()),
        ]
        for row in rows
    ]
    for cell in cells:
        table.add_row(*cell)
    Console(width=130).print(table)
    worst = {name: max(row["attacks"][name]["shortfall"] for row in rows) for name in names}
    sentence = "Largest shortfall: " + ", ".join(f"{n} {v:.2f}" for n, v in worst.items()) + "."
    Console().print(sentence, highlight=False)
    page = [
        "# Attacks against the exact attack",
        "",
        f"{header}. {origin('attacks_exact', f'PyTorch {torch.__version__}')}, one thread. Every "
        "attack starts from one draw; in brackets the number of classifiers of positive weight. "
        "APGD-DLR, which needs three classes, is no part of `standard` here.",
        "",
        *markdown_table(["eps", "weights", "exact risk", *names], cells),
        "",
        sentence,
    ]
    save(args.out, "attacks_exact", page, {"header": header, "rows": rows})


if __name__ == "__main__":
    main()
