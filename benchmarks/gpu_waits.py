"""How often the host waits for a device: `count` for one piece of work.

On a GPU PyTorch reports each operation that waits (`torch.cuda.set_sync_debug_mode`). On any device
the calls from which a wait follows are counted where Python makes them: numbers that are read,
copies to the host, and operations whose result has a shape that depends on the numbers. NumPy needs
a copy first, so it is not counted again.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import mixsolve
from benchmarks.gpu_games import exponential
from benchmarks.gpu_scale import Scale
from benchmarks.sections import Row
from mixsolve_torch import APGD, PGD, Mixture, TorchLosses
from mixsolve_torch.models.architectures import build_model
from mixsolve_torch.training import (
    AttackConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.steps import Steps

READ = {"item", "tolist", "cpu", "__bool__", "__int__", "__float__", "__index__", "equal"}
SHAPED = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"}
_OWN = ("mixsolve", "mixsolve_torch")
_SAID = "synchronizing CUDA operation"
_PLACES = 3


class Calls(TorchFunctionMode):
    """Counts calls after which the host waits, by name and by the line of the package."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.places: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count a call and make it."""
        name = getattr(func, "__name__", "")
        masks = name in ("__getitem__", "__setitem__") and _has_mask(args[1])
        if name in READ or name in SHAPED or masks:
            self.names["mask" if masks else name] += 1
            self.places[_place()] += 1
        return func(*args, **(kwargs or {}))


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


def _place() -> str:
    """Return the innermost line of the package that is being run."""
    frame = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in _OWN:
            return f"{module}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def count(work: Callable[[], Any], device: str) -> tuple[Calls, int | None]:
    """Run a piece of work; its calls, and the waits that the GPU's driver saw (None on a CPU)."""
    calls = Calls()
    if torch.device(device).type != "cuda":
        with calls:
            work()
        return calls, None
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with calls:
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return calls, sum(_SAID in str(one.message) for one in said)


def waits(scale: Scale) -> Iterator[Row | str]:
    """Count the waits of solves, attacks and a training step."""
    for name, work, unit in _works(scale):
        work()  # what only the first call does
        units: list[float] = []
        calls, seen = count(lambda work=work, units=units: units.append(work()), scale.device)
        total = calls.names.total() if seen is None else seen
        yield {
            "work": name,
            "waits on the GPU": seen,
            "calls that wait": calls.names.total(),
            "of which": ", ".join(f"{key} {n}" for key, n in calls.names.most_common(_PLACES)),
            "mostly at": ", ".join(f"{key} ({n})" for key, n in calls.places.most_common(_PLACES)),
            "per": f"{total / max(units[0], 1.0):.2f} a {unit}",
        }


def _works(scale: Scale) -> Iterator[tuple[str, Callable[[], float], str]]:
    """Yield pieces of work by name; each returns how many units it did."""
    losses = exponential(2 * scale.megabytes[-1] / 8, scale.device)
    for name, alpha, method in (("lp", 0.0, "lp"), ("newton", 0.05, "newton")):

        def solve(alpha: float = alpha, method: str = method) -> float:
            opened = TorchLosses(losses, scale.chunk)
            return float(mixsolve.solve(opened, alpha, method=method, presolve=False).n_passes)

        yield f"solve by {name}", solve, "pass"
    models = [
        build_model(scale.network, seed=seed).to(scale.device) for seed in range(scale.counts[-1])
    ]
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(scale.batch, *scale.shape, generator=draws).to(scale.device)
    y = (torch.arange(scale.batch) % 10).to(scale.device)
    mixture = Mixture(models)
    for make in (PGD, APGD):
        attack = make("Linf", 8 / 255, steps=10)

        def run(attack: Any = attack) -> float:
            attack(mixture, x, y)
            return 10.0

        yield f"{make.__name__}, L = {len(models)}", run, "step"
    config = TrainConfig(
        model=ModelConfig(scale.network, len(models)),
        attack=AttackConfig(steps=10),
        optimizer=OptimizerConfig(batch_size=scale.batch, epochs=1000, learning_rate=1e-3),
        run=RunConfig(device=scale.device, autocast=scale.is_gpu, channels_last=scale.is_gpu),
        method="together",
    )
    with Ranks(scale.device) as alone:
        steps = Steps(config, models, ImageSet(x.cpu(), y.cpu()).to(scale.device), alone)

        def step() -> float:
            steps.step()
            return 1.0

        yield f"training step, L = {len(models)}", step, "step"
