"""Every attack on mixtures of small networks: which attack is the strongest, and by how much.

    python -m benchmarks.attack_table

Networks learn the 8x8 digits, plainly or on PGD attacks (AT); the trained mixture is two networks,
the second trained on attacks against the mixture of both. Two mixtures hide their gradients: one
network sees images rounded to 8 levels, where the gradient is zero, one returns softmax(100 z),
which saturates. Each mixture plays its networks with equal probabilities.

Every attack runs alone on all held-out images from the same seed, and an image counts by the exact
probability that a network drawn from the mixture is right on it. Besides the attacks of the package
stands a plain search over all sets of networks (see `benchmarks.subset_search`). Best known is, for
each image, the worst over all of them; an image on which `standard` does not reach it is a miss.
Passes are forward and backward runs of one network on one image, over images and networks.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.report import RESULTS, markdown_table, origin, save
from benchmarks.subset_search import SubsetSearch
from mixsolve.base.errors import GradientWarning
from mixsolve_torch import PGD, Attack, Mixture, build_losses, digits, digits_cnn, fit
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.registry import ATTACKS, resolve_attacks
from mixsolve_torch.data.arrays import Split
from mixsolve_torch.evaluation.bootstrap import Estimate, bootstrap
from mixsolve_torch.runs.progress import ProgressBar

_EPOCHS = 20
_LEVEL = 0.95
_RESAMPLES = 2000
_ORDER = (
    "uniform",
    "transfer",
    "pgd",
    "apgd-ce",
    "apgd-dlr",
    "apgd-hinge",
    "apgd-t",
    "arc",
    "subset",
    "square",
    "standard",
)
_NO_STEPS = ("uniform", "square")
_SEARCH = "every subset"

# What `standard` may miss of the best known accuracy, in points.
_SHORTFALL = 0.5


class Rounded(nn.Module):
    """A network that sees images rounded to 8 levels: its gradient is zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the rounded images."""
        return self.model((7 * x).round() / 7)


class Saturated(nn.Module):
    """A network that returns softmax(100 z): its gradient vanishes in floating point."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the probabilities."""
        return (100 * self.model(x)).softmax(dim=1)


class PassCounter:
    """Counts the images that the networks of a mixture are run on, forward and backward."""

    def __init__(self, mixture: Mixture) -> None:
        self.forward = self.backward = 0
        self._hooks = [model.register_forward_pre_hook(self._run) for model in mixture.models]

    def _run(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        self.forward += len(x)
        if x.requires_grad:
            x.register_hook(self._differentiated)

    def _differentiated(self, gradient: Tensor) -> None:
        self.backward += len(gradient)

    def close(self) -> int:
        """Stop counting, and return the passes."""
        for hook in self._hooks:
            hook.remove()
        return self.forward + self.backward


def mixtures(data: Split, norm: str, eps: float, seed: int) -> dict[str, Mixture]:
    """Train four networks and make mixtures of them."""
    with ProgressBar("Training", 4 * _EPOCHS, enabled=True) as bar:

        def trained(number: int, *, robust: bool, alongside: tuple = ()) -> nn.Module:
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
        "plain + two AT": Mixture([plain, first, second]),
        "trained mixture": Mixture([first, joint]),
        "rounded": Mixture([Rounded(first)]),
        "saturated": Mixture([Saturated(first)]),
    }


def main() -> int:
    """Train, attack, print and write the table; exit with 1 if an order that must hold does not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", default="Linf")
    parser.add_argument("--eps", default=0.15, help="radius (0.15)")
    parser.add_argument("--steps", type=int, help="steps of each attack (its own default)")
    parser.add_argument("--images", type=int, default=200, help="held-out images (200)")
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
    attacks[_SEARCH] = SubsetSearch(args.norm, args.eps)
    accuracies: dict[str, dict[str, np.ndarray]] = {}
    costs: dict[str, dict[str, float]] = {}
    for title, mixture in mixtures(parts.train, args.norm, args.eps, args.seed).items():
        accuracies[title], costs[title] = attacked(mixture, data, attacks, args.seed)
    misses = {title: missed(own) for title, own in accuracies.items()}
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
    said = [
        *(_sentence(order) for order in orders),
        *(_misses(title, own, accuracies[title]) for title, own in misses.items()),
    ]
    _print(header, cells, costs, said)
    args.out.mkdir(parents=True, exist_ok=True)
    _save(args.out, header, cells, costs, said, orders, misses, time.perf_counter() - began)
    return 0 if all(order["holds"] for order in orders) else 1


def attacked(
    mixture: Mixture, data: Split, attacks: Mapping[str, Attack], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the accuracy of each image, clean, under each attack and the least of all.

    The second result is what each attack took, in passes an image and network.
    """
    weights = mixture.weights.numpy()
    own: dict[str, np.ndarray] = {}
    costs: dict[str, float] = {}
    for name, attack in attacks.items():
        counter = PassCounter(mixture)
        with warnings.catch_warnings():
            # That gradients vanish is what some of the mixtures are for.
            warnings.simplefilter("ignore", GradientWarning)
            losses = build_losses(
                mixture, data, attack, generator=torch.Generator().manual_seed(seed), progress=True
            )
        costs[name] = counter.close() / (len(data.labels) * len(mixture))
        risks = losses.values.numpy() @ weights
        own.setdefault("clean", 1 - risks[:, 0])
        own[name] = 1 - risks.max(axis=1)
    own["best known"] = np.min(list(own.values()), axis=0)
    return own, costs


def missed(own: Mapping[str, np.ndarray]) -> dict[int, list[str]]:
    """Return the images on which `standard` misses the best known attack, and who reaches it."""
    best = own["best known"]
    short = np.flatnonzero(own["standard"] > best + 1e-9)
    return {
        int(i): [n for n, v in own.items() if n != "best known" and v[i] <= best[i] + 1e-9]
        for i in short
    }


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
        hidden = title in ("rounded", "saturated")  # nothing that follows gradients has an order
        wanted = [] if hidden else wanted
        wanted.append(("standard", "best known", means["best known"]))
        for stronger, weaker, bound in wanted:
            gap = 100 * (bound - means[stronger])
            allowed = _SHORTFALL if stronger == "standard" else 0
            orders.append(
                {
                    "mixture": title,
                    "stronger": stronger,
                    "weaker": weaker,
                    "points": gap,
                    "holds": gap > -allowed - 1e-9,
                }
            )
    return orders


def _estimates(own: Mapping[str, np.ndarray], seed: int) -> list[Estimate]:
    columns = np.stack(list(own.values()), axis=1)
    return bootstrap(columns, resamples=_RESAMPLES, level=_LEVEL, seed=seed)


def _print(
    header: str,
    cells: Mapping[str, Mapping[str, Estimate]],
    costs: Mapping[str, Mapping[str, float]],
    said: Sequence[str],
) -> None:
    table = Table(title=header)
    table.add_column("attack")
    for title in cells:
        table.add_column(title, justify="right")
    for name in next(iter(cells.values())):
        passes = [_passes(costs[title], name) for title in cells]
        table.add_row(
            name,
            *(
                f"{100 * own[name].value:.2f}{f' ({count})' if count else ''}"
                for own, count in zip(cells.values(), passes, strict=True)
            ),
        )
    console = Console()
    console.print(table)
    console.print("In brackets: passes an image and network.")
    for sentence in said:
        console.print(sentence, highlight=False)


def _passes(costs: Mapping[str, float], name: str) -> str:
    return f"{costs[name]:.0f}" if name in costs else ""


def _misses(title: str, own: Mapping[int, list[str]], accuracies: Mapping[str, np.ndarray]) -> str:
    short = 100 * (accuracies["standard"] - accuracies["best known"]).mean()
    told = "; ".join(f"image {i} ({', '.join(names)})" for i, names in own.items())
    return f"{title}: standard misses {short:.2f} points of the best known: {told or 'no image'}"


def _sentence(order: dict) -> str:
    if order["points"] > -1e-9:
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
    costs: Mapping[str, Mapping[str, float]],
    said: Sequence[str],
    orders: list[dict],
    misses: Mapping[str, Mapping[int, list[str]]],
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
        "Passes, forward and backward, an image and network:",
        "",
        *markdown_table(
            ["attack", *cells],
            [
                [name, *(_passes(own, name) for own in costs.values())]
                for name in next(iter(costs.values()))
            ],
        ),
        "",
        *(f"- {sentence}" for sentence in said),
    ]
    content = {
        "header": header,
        "accuracies": {
            title: {name: asdict(value) for name, value in own.items()}
            for title, own in cells.items()
        },
        "passes": costs,
        "orders": orders,
        "misses": misses,
        "seconds": round(seconds, 1),
    }
    save(out, "attack_table", page, content)


if __name__ == "__main__":
    sys.exit(main())
