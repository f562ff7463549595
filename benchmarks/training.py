"""What a step of Algorithm 2 costs: `python -m benchmarks.training`.

The least work of a step with L networks is 10 forward passes with input gradients of each (PGD with
10 steps on the mixture) and one training pass of one network. Steps and bare passes take turns in
one process, and the ratio of their medians counts: seconds depend on the machine. The mean cost
includes the steps that update the weights, one in T_theta L + 1.

On a GPU the same is measured for ResNet-18 on images of 32 x 32, in bfloat16, with images a second
and the hours of a published run: 200 epochs per model on 50,000 images.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.report import RESULTS, markdown_table, origin, save
from mixsolve_torch.models.architectures import build_model
from mixsolve_torch.training import (
    AttackConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    WeightsConfig,
)
from mixsolve_torch.training.algorithm import Algorithm2
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.ranks import Ranks

_STEPS = 10
_EPOCHS, _IMAGES = 200, 50_000  # of a published run


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1 if not torch.cuda.is_available() else torch.get_num_threads())
    cases: list[dict[str, Any]] = [
        {"architecture": "digits-cnn", "shape": (1, 8, 8), "batch": 128, "device": "cpu"}
    ]
    if torch.cuda.is_available():
        cases += [
            {"architecture": "resnet18", "shape": (3, 32, 32), "batch": 1024, "device": "cuda"}
        ]
    rows = [measure(count, args.rounds, **case) for case in cases for count in (1, 2, 4)]
    apart = [
        f"{case['architecture']}, L = {count}: {stacked(count, args.rounds, **case):.2f}"
        for case in cases
        for count in (2, 4)
    ]
    console = Console()
    console.print(_table(rows))
    console.print(f"stacked networks over one by one: {'; '.join(apart)}")
    _write(rows, apart, args.out)
    return 0


def measure(
    count: int,
    rounds: int,
    *,
    architecture: str,
    shape: tuple[int, int, int],
    batch: int,
    device: str,
) -> dict[str, Any]:
    """Cost of a step with `count` networks, beside the least work, in one run."""
    fast = device == "cuda"
    config = TrainConfig(
        model=ModelConfig(architecture, count),
        attack=AttackConfig(steps=_STEPS),
        weights=WeightsConfig(t_theta=10),
        optimizer=OptimizerConfig(batch_size=batch, epochs=1000),
        run=RunConfig(device=device, autocast=fast, channels_last=fast),
    )
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(4 * batch, *shape, generator=draws)
    data = ImageSet(images, torch.arange(4 * batch) % 10).to(device)
    with Ranks(device) as ranks:
        models = [build_model(architecture, classes=10, seed=k).to(device) for k in range(count)]
        if fast:
            models = [model.to(memory_format=torch.channels_last) for model in models]
        run = Algorithm2(config, models, data, ranks)
        bare = _bare([build_model(architecture, classes=10, seed=9).to(device)] * count, fast)
        x, y = data.batch(torch.arange(batch))
        if fast:
            x = x.contiguous(memory_format=torch.channels_last)
        kinds: dict[str, list[float]] = {"step": [], "weights": [], "least": []}
        for _ in range(3):
            run.step()
            bare(x, y)
        while len(kinds["least"]) < rounds or (count > 1 and len(kinds["weights"]) < 3):
            updates = count > 1 and (run.t + 1) % (10 * count + 1) == 0
            kinds["weights" if updates else "step"].append(_seconds(run.step, fast))
            if len(kinds["least"]) < rounds:
                kinds["least"].append(_seconds(lambda: bare(x, y), fast))
    step, least = statistics.median(kinds["step"]), statistics.median(kinds["least"])
    share = 1 / (10 * count + 1) if count > 1 else 0.0
    update = statistics.median(kinds["weights"]) if count > 1 else 0.0
    mean = (1 - share) * step + share * update
    hours = mean * count * _EPOCHS * _IMAGES / batch / 3600
    return {
        "network": architecture,
        "device": torch.cuda.get_device_name() if fast else platform.machine(),
        "L": count,
        "step": step,
        "step over least work": step / least,
        "mean over least work": mean / least,
        "images a second": batch / mean,
        "hours of a published run": hours if architecture == "resnet18" else None,
    }


def stacked(
    count: int, rounds: int, *, architecture: str, shape: Any, batch: int, device: str
) -> float:
    """Time of the input gradients of stacked networks (torch.func) over that one by one."""
    models = [build_model(architecture, classes=10, seed=k).to(device).eval() for k in range(count)]
    for model in models:
        model.requires_grad_(False)
    parameters, buffers = torch.func.stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    y = (torch.arange(batch) % 10).to(device)

    def logits(own: Any, state: Any, point: Tensor) -> Tensor:
        return torch.func.functional_call(skeleton, (own, state), (point,))

    def together() -> Tensor:
        point = x.detach().requires_grad_()
        outputs = torch.func.vmap(logits, (0, 0, None))(parameters, buffers, point)
        loss = nn.functional.cross_entropy(outputs.flatten(0, 1), y.repeat(count), reduction="sum")
        return torch.autograd.grad(loss, point)[0]

    def in_turn() -> Tensor:
        total = torch.zeros_like(x)
        for model in models:
            point = x.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(point), y, reduction="sum")
            total += torch.autograd.grad(loss, point)[0]
        return total

    torch.testing.assert_close(together(), in_turn(), rtol=1e-3, atol=1e-4)
    fast = device == "cuda"
    pairs = [(_seconds(together, fast), _seconds(in_turn, fast)) for _ in range(rounds)]
    return statistics.median(a / b for a, b in pairs)


def _bare(models: list[nn.Module], fast: bool) -> Callable[[Tensor, Tensor], None]:
    """Return the least work of a step: input gradients of all networks, a training pass of one."""
    optimizer = torch.optim.SGD(models[0].parameters(), lr=0.0, momentum=0.9, fused=fast)

    def work(x: Tensor, y: Tensor) -> None:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=fast):
            for model in models:
                model.eval().requires_grad_(False)
                for _ in range(_STEPS):
                    point = x.detach().requires_grad_()
                    loss = nn.functional.cross_entropy(model(point), y, reduction="sum")
                    torch.autograd.grad(loss, point)
            models[0].train().requires_grad_(True)
            loss = nn.functional.cross_entropy(models[0](x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return work


def _seconds(work: Callable[[], None], fast: bool) -> float:
    if fast:
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if fast:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _cells(row: dict[str, Any], single: dict[str, Any]) -> list[str]:
    hours = row["hours of a published run"]
    return [
        f"{row['network']}, L = {row['L']}",
        f"{1e3 * row['step']:.1f}",
        f"{row['step over least work']:.3f}",
        f"{row['mean over least work']:.3f}",
        f"{row['step'] * row['L'] / single['step']:.2f}",
        f"{row['images a second']:.0f}",
        "" if hours is None else f"{hours:.1f}",
    ]


_HEADS = [
    "network",
    "step, ms",
    "over least work",
    "with weights",
    "run over L = 1",
    "images/s",
    "published run, h",
]


def _lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    single = {row["network"]: row for row in rows if row["L"] == 1}
    return [_cells(row, single[row["network"]]) for row in rows]


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="A step of Algorithm 2 with PGD-10")
    for head in _HEADS:
        table.add_column(head)
    for cells in _lines(rows):
        table.add_row(*cells)
    return table


def _write(rows: list[dict[str, Any]], apart: list[str], out: Path) -> None:
    page = [
        "# The cost of training",
        "",
        f"{origin('training', f'PyTorch {torch.__version__}')}; {rows[-1]['device']}. `over least "
        "work` is the time of a training step over that of 10 L bare forward passes with input "
        "gradients and one training pass, measured in turns; `with weights` includes the steps "
        "that update the weights; `run over L = 1` is what a run with L networks takes at equal "
        "epochs per network (the article reports 4, 8 and 12 for 2, 3 and 4).",
        "",
        *markdown_table(_HEADS, _lines(rows)),
        "",
        "Input gradients of networks of equal architecture, stacked with `torch.func`, over the "
        f"same one by one (time, so below 1 is faster): {'; '.join(apart)}.",
    ]
    save(out, "training", page, rows)


if __name__ == "__main__":
    sys.exit(main())
