"""Algorithm 2 on the digits with 1, 2 and 3 networks: what more networks bring, and what it costs.

    python -m benchmarks.training_digits

Every run of `configs/digits-*.toml` by Algorithm 2 for several seeds, at equal epochs per network,
each in a process of its own. What counts is the accuracy of the mixture kept (the most robust
epoch on held-out images, with the weights it had) under the `standard` attacks on test images: the
mixture and each network alone are attacked, and the worst of all that was found counts for each.
Runs that are finished are not made again: an interrupted study goes on where it was. `--variant`
adds runs of two networks with some settings changed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import mixsolve
from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve import plots
from mixsolve.base.files import write_text
from mixsolve_torch import Mixture, Standard, build_losses, build_model, load_data
from mixsolve_torch.runs import checkpoint

ROOT = Path(__file__).parents[1]
LOSSES, COUNTS = ("at", "trades"), (1, 2, 3)
_VARIED = "at", 2  # the runs that variants change
_RESULT = "attacked.json"
_ALGORITHM_2 = {
    "method": "algorithm2",
    "weights.update": "oracle",
    "weights.t_theta": "4",
    "weights.floor": "0",
    "weights.final": "last",
}
_IMAGES, _STEPS, _RESTARTS = 200, 100, 5


@dataclass(frozen=True)
class Kind:
    """What the runs of one line of the table have in common."""

    loss: str
    count: int
    changed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How the line is called."""
        words = f"{self.loss.upper()}, L = {self.count}"
        return ", ".join([words, *self.changed])

    def folder(self, out: Path, seed: int) -> Path:
        """Where the run of a seed lies."""
        words = [f"{self.loss}-l{self.count}", *self.changed, f"seed{seed}"]
        return out / "-".join(words).replace("=", "-")


def main() -> int:
    """Make the runs that are missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/digits-study"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--variant", action="append", default=[], metavar="SECTION.NAME=VALUE[,..]")
    parser.add_argument("--attack", type=Path, metavar="FOLDER", help="only attack one run")
    args = parser.parse_args()
    if args.attack is not None:
        attack(args.attack)
        return 0
    kinds = [Kind(loss, count) for loss in LOSSES for count in COUNTS]
    kinds += [Kind(*_VARIED, changed=tuple(words.split(","))) for words in args.variant]
    jobs = [(kind, seed) for seed in range(args.seeds) for kind in kinds]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda job: _run(job[0].folder(args.runs, job[1]), *job), jobs))
    rows = {kind.name: _row(kind, args) for kind in kinds}
    Console().print(_table(rows))
    _write(rows, kinds, args)
    return 0


def _run(folder: Path, kind: Kind, seed: int) -> None:
    """Train, then attack what was kept."""
    if (folder / _RESULT).exists():
        return
    config = ROOT / "configs" / f"digits-{kind.loss}-l{kind.count}.toml"
    command = ["mixsolve", "train", "--config", str(config), "--resume"]
    settings = {"run.out": str(folder), "run.seed": str(seed), "run.tensorboard": "false"}
    settings |= {"evaluation.final": "none", **_ALGORITHM_2}
    settings |= dict(words.split("=", 1) for words in kind.changed)
    for name, value in settings.items():
        command += [f"--{name}", value]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MIXSOLVE_NUM_THREADS": "1"}
    for part in (command, ["benchmarks.training_digits", "--attack", str(folder)]):
        done = subprocess.run(
            [sys.executable, "-m", *part],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if done.returncode:
            raise RuntimeError(f"{folder.name}: {done.stderr.strip().splitlines()[-1]}")


def attack(folder: Path) -> None:
    """Attack the kept mixture of a run, and each of its networks, and write down what is left."""
    kept = checkpoint.load(folder / "best.pt")
    config = kept["config"]
    models = []
    for k, saved in enumerate(kept["models"]):
        model = build_model(config["model"]["architecture"], classes=10, seed=k)
        model.load_state_dict(saved)
        models.append(model)
    own = kept["weights"].numpy()
    eps = float(config["attack"]["eps"])
    x, y, _ = load_data("digits", split="test", limit=_IMAGES)
    columns = []
    for weights in [own, *np.eye(len(own))] if len(own) > 1 else [own]:
        suite = Standard(config["attack"]["norm"], eps, steps=_STEPS, restarts=_RESTARTS)
        found = build_losses(Mixture(models, weights), (x, y), suite)
        columns.append(found.values.numpy())
    losses = np.concatenate(columns, axis=1)
    optimal = mixsolve.solve(losses)

    def accuracy(weights: np.ndarray) -> float:
        return 1.0 - float((losses @ weights).max(axis=1).mean())

    records = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    result = {
        "seed": config["run"]["seed"],
        "clean": 1.0 - float((losses[:, 0] @ own).mean()),
        "pgd20": kept["record"]["robust"]["mixture"],
        "standard": accuracy(own),
        "networks": [accuracy(weights) for weights in np.eye(len(own))],
        "uniform": accuracy(np.full(len(own), 1 / len(own))),
        "optimal": 1.0 - optimal.risk,
        "weights": own.tolist(),
        "optimal weights": optimal.weights.tolist(),
        "epoch": kept["record"]["epoch"],
        "seconds": records[-1]["seconds"],
    }
    write_text(folder / _RESULT, json.dumps(result, indent=1))


def _row(kind: Kind, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One entry a seed."""
    return [
        json.loads((kind.folder(args.runs, seed) / _RESULT).read_text())
        for seed in range(args.seeds)
    ]


_COLUMNS = {
    "clean": "clean",
    "standard": "standard attacks",
    "best network": "best network alone",
    "mean network": "mean network alone",
    "optimal": "optimal weights",
    "pgd20": "PGD-20, held out",
}


def _spread(values: list[float]) -> str:
    values = [100 * value for value in values]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _cells(entries: list[dict[str, Any]]) -> list[str]:
    derived = [
        {
            **entry,
            "best network": max(entry["networks"]),
            "mean network": statistics.mean(entry["networks"]),
        }
        for entry in entries
    ]
    cells = [_spread([entry[name] for entry in derived]) for name in _COLUMNS]
    weights = "; ".join(
        " ".join(f"{100 * weight:.0f}" for weight in entry["weights"]) for entry in entries
    )
    return [*cells, weights, f"{statistics.mean(e['seconds'] for e in entries):.0f}"]


def _heads() -> list[str]:
    return ["", *_COLUMNS.values(), "weights, %, by seed", "training, s"]


def _table(rows: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(title="Accuracy, %: mean and standard deviation over seeds")
    for head in _heads():
        table.add_column(head)
    for name, entries in rows.items():
        table.add_row(name, *_cells(entries))
    return table


def _write(rows: dict[str, list[dict[str, Any]]], kinds: list[Kind], args: Any) -> None:
    heads = _heads()
    page = [
        "# Algorithm 2 on the digits",
        "",
        f"{origin('training_digits')}. Accuracy in percent, mean and standard deviation over "
        f"{args.seeds} seeds, of the mixture kept by its accuracy on held-out images, with the "
        "weights it had. `standard attacks` are those of `mixsolve_torch.Standard` "
        f"({_STEPS} steps, {_RESTARTS} restarts) on {_IMAGES} test images, on the mixture and on "
        "each network alone; `best network alone` and `optimal weights` are chosen on "
        "these images, which flatters them.",
        "",
        *markdown_table(heads, ([name, *_cells(entries)] for name, entries in rows.items())),
        "",
        "![accuracy under attack](training-digits.png)",
    ]
    notes = args.out / "training-digits-notes.md"
    if notes.exists():
        page += ["", notes.read_text().rstrip("\n")]
    save(args.out, "training-digits", page, rows)
    _plot(rows, args.out / "training-digits.png")


def _plot(rows: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Accuracy under attack of each kind of run: one mark a seed, a line at their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    series = (("standard", "kept weights", "o", "#0072B2", -0.12),)
    series += (("networks", "best network alone", "D", "#E69F00", 0.12),)
    for place, (_, entries) in enumerate(rows.items()):
        for key, label, mark, colour, shift in series:
            values = [
                100 * (max(entry[key]) if key == "networks" else entry[key]) for entry in entries
            ]
            heights = [place + shift] * len(values)
            named = {"label": label} if place == 0 else {}
            axes.plot(values, heights, mark, color=colour, alpha=0.7, markersize=6, **named)
            mean = statistics.mean(values)
            axes.plot([mean, mean], [place + shift - 0.1, place + shift + 0.1], color=colour)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlabel("accuracy under the standard attacks, % (a mark a seed, a line at their mean)")
    axes.grid(axis="x", color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False)
    plots.save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
