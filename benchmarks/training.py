"""What a training step costs: `python -m benchmarks.training`.

The least work of a step that trains L networks on one attack, `together`, is 10 forward passes with
input gradients of each (PGD with 10 steps on the mixture) and one training pass of each: L (S + 1)
passes. Steps and bare passes of all L take turns in one process, and the medians of the ratios
within a round count: seconds depend on the machine, and what else it does meets all alike. An epoch
of Algorithm 2 takes L steps of L S + 1 passes for each of those.

The attack alone is compared with its least work too, S L forward passes with input gradients, also
for a perceptron on images of 8 x 8, whose passes are so short that PGD's own operations count.

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
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.architectures import build_model
from mixsolve_torch.runs.memory import keep_freed
from mixsolve_torch.training import (
    AttackConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.steps import Steps

_STEPS = 10
_EPOCHS, _IMAGES = 200, 50_000  # of a published run
_COUNTS = (1, 2, 3, 4)
_METHODS = ("together", "algorithm2")
PERCEPTRON = "benchmarks.training:perceptron"
_WARM_UP = 3


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--compile", action="store_true", help="networks through torch.compile")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1 if not torch.cuda.is_available() else torch.get_num_threads())
    keep_freed()
    cases: list[dict[str, Any]] = [
        {"architecture": PERCEPTRON, "shape": (1, 8, 8), "batch": 128, "device": "cpu"},
        {"architecture": "digits-cnn", "shape": (1, 8, 8), "batch": 128, "device": "cpu"},
        {"architecture": "mnist-cnn", "shape": (1, 28, 28), "batch": 128, "device": "cpu"},
    ]
    if torch.cuda.is_available():
        cases = [
            {"architecture": "resnet18", "shape": (3, 32, 32), "batch": 1024, "device": "cuda"}
        ]
    rows = [row for case in cases for row in measure(args.rounds, args.compile, **case)]
    apart = [
        f"{case['architecture'].rpartition(':')[2]}, L = {count}: "
        f"{stacked(count, args.rounds, **case):.2f}"
        for case in cases
        for count in (2, 4)
    ]
    console = Console()
    console.print(_table(rows))
    console.print(f"stacked networks over one by one: {'; '.join(apart)}")
    _write(rows, apart, args.out)
    return 0


def measure(
    rounds: int,
    compiled: bool,
    *,
    architecture: str,
    shape: tuple[int, int, int],
    batch: int,
    device: str,
    counts: tuple[int, ...] = _COUNTS,
) -> list[dict[str, Any]]:
    """Return the cost of steps beside the least work, measured in turns.

    `counts` are numbers of networks, 1 among them.
    """
    fast = device == "cuda"
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(4 * batch, *shape, generator=draws)
    data = ImageSet(images, torch.arange(4 * batch) % 10).to(device)
    x, y = data.batch(torch.arange(batch), channels_last=fast)
    works: dict[tuple[str, int], Callable[[], None]] = {}
    with Ranks(device) as ranks:

        def models(count: int) -> list[nn.Module]:
            made = [build_model(architecture, classes=10, seed=k).to(device) for k in range(count)]
            layout = torch.channels_last if fast else torch.contiguous_format
            return [model.to(memory_format=layout) for model in made]

        for count in counts:
            for method in _METHODS:
                config = TrainConfig(
                    model=ModelConfig(architecture, count),
                    attack=AttackConfig(steps=_STEPS),
                    optimizer=OptimizerConfig(batch_size=batch, epochs=1000, learning_rate=1e-3),
                    run=RunConfig(
                        device=device, autocast=fast, channels_last=fast, compile=compiled
                    ),
                    method=method,  # type: ignore[arg-type]
                )
                works[method, count] = Steps(config, models(count), data, ranks).step
            works["least", count] = _bare(models(count), x, y, fast, compiled)
            works["passes", count] = _bare(models(count), x, y, fast, compiled, trains=False)
            works["attack", count] = _attack(models(count), x, y, fast, compiled)
        times: dict[tuple[str, int], list[float]] = {key: [] for key in works}
        for turn in range(-_WARM_UP, rounds):
            for key in sorted(works, reverse=turn % 2 == 1):
                seconds = _seconds(works[key], fast)
                if turn >= 0:
                    times[key].append(seconds)

    def ratio(one: tuple[str, int], other: tuple[str, int], fastest: bool = False) -> float:
        pairs = zip(times[one], times[other], strict=True)
        if fastest:
            return min(times[one]) / min(times[other])
        return statistics.median(a / b for a, b in pairs)

    rows = []
    for count in counts:
        step = statistics.median(times["together", count])
        rows.append(
            {
                "network": architecture + (", compiled" if compiled else ""),
                "device": torch.cuda.get_device_name() if fast else platform.machine(),
                "L": count,
                "step": step,
                "over least work": ratio(("together", count), ("least", count)),
                "fastest": ratio(("together", count), ("least", count), fastest=True),
                "attack over passes": ratio(("attack", count), ("passes", count)),
                "run over L = 1": ratio(("together", count), ("together", 1)),
                "algorithm2 over L = 1": count * ratio(("algorithm2", count), ("together", 1)),
                "images a second": batch / step,
                "hours of a published run": step * _EPOCHS * _IMAGES / batch / 3600
                if architecture == "resnet18"
                else None,
            }
        )
    return rows


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


def _bare(
    models: list[nn.Module], x: Tensor, y: Tensor, fast: bool, compiled: bool, trains: bool = True
) -> Callable[[], None]:
    """Return the least work of a step: input gradients and a training pass of all networks.

    Without `trains` it is that of the attack, the input gradients.
    """
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4, fused=fast)
        for model in models
    ]
    runs: list[Any] = [torch.compile(model) for model in models] if compiled else list(models)

    def passes(run: Any, point: Tensor, reduction: str) -> Tensor:
        with torch.autocast(point.device.type, dtype=torch.bfloat16, enabled=fast):
            return nn.functional.cross_entropy(run(point), y, reduction=reduction)

    def work() -> None:
        for model in models:
            model.eval().requires_grad_(False)
        for _ in range(_STEPS):
            for run in runs:
                point = x.detach().requires_grad_()
                torch.autograd.grad(passes(run, point, "sum"), point)
        for model, run, optimizer in zip(models, runs, optimizers, strict=True) if trains else ():
            model.train().requires_grad_(True)
            loss = passes(run, x, "mean")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return work


def _attack(
    models: list[nn.Module], x: Tensor, y: Tensor, fast: bool, compiled: bool
) -> Callable[[], None]:
    """Return the attack of a step."""
    adversary = Adversary(
        Mixture(models),
        AttackConfig(steps=_STEPS),
        trades=False,
        largest_label=9,
        autocast=torch.bfloat16 if fast else None,
        runs=[torch.compile(model) for model in models] if compiled else None,
    )
    draws = torch.Generator(x.device).manual_seed(0)

    def work() -> None:
        adversary(x, y, draws)

    return work


def perceptron(classes: int = 10, seed: int = 0) -> nn.Module:
    """Return a network of one hidden layer of 64 units for images of 8 x 8."""
    draws = torch.Generator().manual_seed(seed)
    layers = [nn.utils.skip_init(nn.Linear, 64, size) for size in (64, classes)]
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.copy_((torch.rand(parameter.shape, generator=draws) * 2 - 1) / 8)
    return nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1])


def _seconds(work: Callable[[], Any], fast: bool) -> float:
    """Return seconds of the GPU, or of this process on the CPU, whatever else the machine does."""
    if not fast:
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def _cells(row: dict[str, Any]) -> list[str]:
    hours = row["hours of a published run"]
    return [
        f"{row['network'].rpartition(':')[2]}, L = {row['L']}",
        f"{1e3 * row['step']:.1f}",
        f"{row['over least work']:.3f}",
        f"{row['fastest']:.3f}",
        f"{row['attack over passes']:.3f}",
        f"{row['run over L = 1']:.2f}",
        f"{row['algorithm2 over L = 1']:.2f}",
        f"{row['images a second']:.0f}",
        "" if hours is None else f"{hours:.1f}",
    ]


_HEADS = [
    "network",
    "step, ms",
    "over least work",
    "of the fastest",
    "attack over passes",
    "run over L = 1",
    "Algorithm 2 over L = 1",
    "images/s",
    "published run, h",
]


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="A step of all networks together with PGD-10")
    for head in _HEADS:
        table.add_column(head)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _write(rows: list[dict[str, Any]], apart: list[str], out: Path) -> None:
    page = [
        "# The cost of training",
        "",
        f"{origin('training', f'PyTorch {torch.__version__}')}; {rows[-1]['device']}. `over least "
        "work` is the time of a step of `together` over that of 10 L bare forward passes with "
        "input gradients and L training passes: the median of ratios measured in turns, and the "
        "ratio of the fastest of each. `attack over passes` is the attack alone over the input "
        "gradients. Beside them it makes four operations on the images a step, copies them, and "
        "checks gradients; the perceptron's passes are a dozen operations of some 5 us each, which "
        "bounds its ratio. `run over L = 1` is what a run with L networks takes at "
        "equal epochs per network; with `algorithm2` it is the next column (the article reports 4, "
        "8 and 12 for 2, 3 and 4). On the CPU times are those of one thread's process; what shares "
        "its caches moves ratios by some percent.",
        "",
        *markdown_table(_HEADS, [_cells(row) for row in rows]),
        "",
        "Input gradients of networks of equal architecture, stacked with `torch.func`, over the "
        f"same one by one (time, so below 1 is faster): {'; '.join(apart)}.",
    ]
    save(out, "training", page, rows)


if __name__ == "__main__":
    sys.exit(main())
