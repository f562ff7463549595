"""Every attack on four mixtures of small networks: which attack is the strongest, and by how much.

    python -m benchmarks.attack_table

Networks learn the 8x8 digits, plainly or on PGD attacks (AT); the trained mixture is two networks,
the second trained on attacks against the mixture of both. Each mixture plays its networks with
equal probabilities. Every attack runs alone on all held-out images from the same seed, and an
image counts by the exact probability that a network drawn from the mixture is right on it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve_torch import PGD, Attack, Mixture, build_losses, digits, digits_cnn, fit
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.registry import ATTACKS, resolve_attacks
from mixsolve_torch.data.arrays import Split
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap
from mixsolve_torch.runs.progress import ProgressBar

_EPOCHS = 20
_LEVEL = 0.95
_RESAMPLES = 2000
_ORDER = ("uniform", "transfer", "pgd", "apgd-ce", "apgd-dlr", "arc", "subset", "standard")
_NO_STEPS = ("uniform",)


def mixtures(data: Split, norm: str, eps: float, seed: int) -> dict[str, Mixture]:
    """Train four networks and make four mixtures of them."""
    with ProgressBar("Training", 4 * _EPOCHS, enabled=True) as bar:

        def trained(number: int, *, robust: bool, alongside: tuple = ()) -> torch.nn.Module:
            model = digits_cnn(seed=10 * seed + number)
            fit(
                model,
                data,
                epochs=_EPOCHS,
                attack=PGD(norm, eps, steps=5, loss="margin") if robust else None,
                alongside=alongside,
                batch_size=128,
                learning_rate=5e-3,
                seed=10 * seed + number,
                on_epoch=lambda epoch, loss: bar.advance(),
            )
            return model.eval()

        plain, first, second = (trained(number, robust=number > 0) for number in range(3))
        joint = trained(3, robust=True, alongside=(first,))
    return {
        "one AT network": Mixture([first]),
        "two AT networks": Mixture([first, second]),
        "plain + AT": Mixture([plain, first]),
        "trained mixture": Mixture([first, joint]),
    }


def main() -> int:
    """Train, attack, print and write the table; exit with 1 if an order that must hold does not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", default="Linf")
    parser.add_argument("--eps", default=0.2, help="radius (0.2)")
    parser.add_argument("--steps", type=int, help="steps of each attack (its own default)")
    parser.add_argument("--images", type=int, default=300, help="held-out images (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    ball = make_ball(args.norm, args.eps, prefix="--")
    args.norm, args.eps = ball.norm, ball.eps
    began = time.perf_counter()
    torch.set_num_threads(1)
    parts = digits(seed=args.seed)
    data = Split(*(part[: args.images] for part in parts.test))
    attacks = {
        name: resolve_attacks(
            name, args.norm, args.eps, steps=None if name in _NO_STEPS else args.steps
        )[0]
        for name in _ORDER
        if name in ATTACKS
    }
    accuracies: dict[str, dict[str, np.ndarray]] = {}
    for title, mixture in mixtures(parts.train, args.norm, args.eps, args.seed).items():
        accuracies[title] = attacked(mixture, data, attacks, args.seed)
    cells = {
        title: dict(zip(own, _estimates(own, args.seed), strict=True))
        for title, own in accuracies.items()
    }
    orders = check_orders(accuracies)
    header = (
        f"Accuracy in %, {args.norm} attacks of radius {args.eps:g}, "
        f"{f'{args.steps} steps' if args.steps else 'each with its own number of steps'}, "
        f"{len(data.labels)} held-out digits, seed {args.seed}"
    )
    _print(header, cells, orders)
    args.out.mkdir(parents=True, exist_ok=True)
    _save(args.out, header, cells, orders, time.perf_counter() - began)
    return 0 if all(order["holds"] for order in orders) else 1


def attacked(
    mixture: Mixture, data: Split, attacks: Mapping[str, Attack], seed: int
) -> dict[str, np.ndarray]:
    """Return the accuracy of each image, clean and under each attack."""
    weights = mixture.weights.numpy()
    own: dict[str, np.ndarray] = {}
    for name, attack in attacks.items():
        losses = build_losses(
            mixture, data, attack, generator=torch.Generator().manual_seed(seed), progress=True
        )
        risks = losses.values.numpy() @ weights
        own.setdefault("clean", 1 - risks[:, 0])
        own[name] = 1 - risks.max(axis=1)
    return own


def check_orders(accuracies: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict]:
    """Compare attacks that should not be weaker than others, in points of accuracy."""
    orders = []
    for title, own in accuracies.items():
        means = {name: float(values.mean()) for name, values in own.items()}
        apgd = min(means[name] for name in ("apgd-ce", "apgd-dlr") if name in means)
        single = title.startswith("one ")
        wanted = [("arc", "apgd", apgd), ("subset", "apgd", apgd)]
        if "arc" in means:
            wanted.append(("subset", "arc", means["arc"]))
        wanted = [] if single else [each for each in wanted if each[0] in means]
        others = {name: value for name, value in means.items() if name != "standard"}
        strongest = min(others, key=others.__getitem__)
        wanted.append(("standard", strongest, others[strongest]))
        for stronger, weaker, bound in wanted:
            gap = 100 * (bound - means[stronger])
            orders.append(
                {
                    "mixture": title,
                    "stronger": stronger,
                    "weaker": weaker,
                    "points": gap,
                    "holds": gap > -1e-9,
                }
            )
    return orders


def _estimates(own: Mapping[str, np.ndarray], seed: int) -> list[Estimate]:
    columns = np.stack(list(own.values()), axis=1)
    return bootstrap(columns, resamples=_RESAMPLES, level=_LEVEL, seed=seed)


def _print(header: str, cells: Mapping[str, Mapping[str, Estimate]], orders: list[dict]) -> None:
    table = Table(title=header)
    table.add_column("attack")
    for title in cells:
        table.add_column(title, justify="right")
    for name in next(iter(cells.values())):
        table.add_row(name, *(f"{100 * own[name].value:.2f}" for own in cells.values()))
    console = Console()
    console.print(table)
    for order in orders:
        console.print(_sentence(order), highlight=False)


def _sentence(order: dict) -> str:
    if order["holds"]:
        return (
            f"{order['mixture']}: {order['stronger']} is {order['points']:.2f} points stronger "
            f"than {order['weaker']}"
        )
    return (
        f"{order['mixture']}: {order['stronger']} is {-order['points']:.2f} points WEAKER than "
        f"{order['weaker']}"
    )


def _save(
    out: Path,
    header: str,
    cells: Mapping[str, Mapping[str, Estimate]],
    orders: list[dict],
    seconds: float,
) -> None:
    page = [
        "# Attacks on mixtures",
        "",
        f"{header}. {origin('attack_table', f'PyTorch {torch.__version__}')}; {seconds:.0f} s on "
        "one thread. In brackets the "
        f"{100 * _LEVEL:g} % bootstrap interval over images. Every attack runs alone; `standard` "
        "is the suite. Lower is a stronger attack.",
        "",
        *markdown_table(
            ["attack", *cells],
            [
                [name, *(own[name].percent() for own in cells.values())]
                for name in next(iter(cells.values()))
            ],
        ),
        "",
        *(f"- {_sentence(order)}" for order in orders),
    ]
    content = {
        "header": header,
        "accuracies": {
            title: {name: asdict(value) for name, value in own.items()}
            for title, own in cells.items()
        },
        "orders": orders,
        "seconds": round(seconds, 1),
    }
    save(out, "attack_table", page, content)


if __name__ == "__main__":
    sys.exit(main())
