"""Networks on a device: images a second of the standard attack, of PGD and of training steps.

The least work of an attack is what it asks of the networks: with F forward and B backward runs on
an image, B forward passes with input gradients and F - B forward passes alone, as they take in turn
with nothing else. Images count as those that resist to the end, which cost most: labels are the
network's own answers and the ball is too small to change them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks import attacks as pgd
from benchmarks import training
from benchmarks.gpu_scale import Scale
from benchmarks.sections import Row
from mixsolve_torch import Mixture, Standard
from mixsolve_torch.models.architectures import build_model
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.models.passes import counted

_EPS = 1e-6
_NAMES = {"resnet18": "resnet18", "digits-cnn": "digits_cnn"}  # in benchmarks.attacks


def standard(scale: Scale) -> Iterator[Row | str]:
    """Run the standard attack in float32 and bfloat16."""
    draws = torch.Generator().manual_seed(0)
    layout = torch.channels_last if scale.is_gpu else torch.contiguous_format
    x = torch.rand(scale.batch, *scale.shape, generator=draws)
    x = x.to(scale.device, memory_format=layout)
    for classifiers in scale.counts:
        models = [build_model(scale.network, seed=seed) for seed in range(classifiers)]
        mixture = Mixture(models).to(scale.device, memory_format=layout).eval()
        with torch.no_grad():
            y = mixture(x).argmax(dim=1)
        for bfloat16 in (True, False):
            both, forward = _bare(mixture.models[0], x, y, bfloat16, scale)
            attack = Standard("Linf", _EPS, steps=scale.attack_steps, autocast=bfloat16)
            with warnings.catch_warnings(), counted() as passes:
                warnings.simplefilter("ignore")
                seconds = seconds_of(lambda: attack(mixture, x, y), scale)  # noqa: B023
            alone = passes.forward - passes.backward
            least = (passes.backward * both + alone * forward) / scale.batch
            yield {
                "L": classifiers,
                "precision": "bfloat16" if bfloat16 else "float32",
                "steps": scale.attack_steps,
                "images/s": scale.batch / seconds,
                "forward an image": passes.forward / scale.batch,
                "backward an image": passes.backward / scale.batch,
                "over least work": seconds / least,
            }


def _bare(
    network: nn.Module, x: torch.Tensor, y: torch.Tensor, bfloat16: bool, scale: Scale
) -> tuple[float, float]:
    """Seconds of a forward pass with input gradient on the batch, and of a forward pass alone."""

    def logits(point: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            found: torch.Tensor = network(point)
        return found

    def both() -> None:
        point = x.detach().requires_grad_()
        loss = nn.functional.cross_entropy(logits(point).float(), y, reduction="sum")
        torch.autograd.grad(loss, point)

    def forward() -> None:
        with torch.no_grad():
            logits(x)

    with frozen(network):
        for work in (both, forward):
            work()
        times = [(seconds_of(both, scale), seconds_of(forward, scale)) for _ in range(scale.rounds)]
    return min(one for one, _ in times), min(other for _, other in times)


def seconds_of(work: Callable[[], Any], scale: Scale) -> float:
    """Seconds of one run, the device's included."""
    scale.synchronize()
    began = time.perf_counter()
    work()
    scale.synchronize()
    return time.perf_counter() - began


def training_steps(scale: Scale) -> Iterator[Row | str]:
    """Measure steps of `together` and Algorithm 2 beside their least work; see the benchmark."""
    for number, count in enumerate(scale.counts):
        counts = scale.counts[: number + 1] if number else (1,)
        rows = training.measure(
            scale.rounds,
            False,
            architecture=scale.network,
            shape=scale.shape,
            batch=scale.batch,
            device=scale.device,
            counts=counts,
        )
        own = next(row for row in rows if row["L"] == count)
        yield {
            key: own[key]
            for key in (
                "L",
                "step",
                "images a second",
                "over least work",
                "fastest",
                "attack over passes",
                "algorithm2 over L = 1",
            )
        }


def attack(scale: Scale) -> Iterator[Row | str]:
    """PGD beside the bare passes; see `benchmarks.attacks`."""
    for bfloat16 in (True, False):
        for classifiers in scale.counts:
            case = pgd.Case(
                _NAMES[scale.network],
                scale.device,
                scale.batch,
                classifiers,
                max(2, scale.rounds),
                bfloat16,
            )
            found = pgd.measure(case)
            yield {
                "L": classifiers,
                "precision": "bfloat16" if bfloat16 else "float32",
                "ratio": found.ratio,
                "fastest": found.fastest,
                "bare, ms": 1e3 * found.bare_seconds,
                "PGD, ms": 1e3 * found.attack_seconds,
                "images/s": found.images_per_second,
            }
