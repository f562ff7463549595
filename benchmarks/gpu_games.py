"""Games on a device: float32 certificates, when a copy to the host pays, and ranks over NCCL.

Every solution found on the device is certified again in NumPy, from the losses as float64: with lam
and q what was returned,

    alpha = 0:  value = sum_i w_i max_j <lam, l_ij>,  bound = min_k sum_ij q_ij l_ijk;
    alpha > 0:  value = sum_i w_i alpha log mean_j exp(<lam, l_ij> / alpha),  g its gradient,
                bound = value - <lam, g> + min_k g_k.

It is also compared with what the memory engine finds on the losses as float64.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mixsolve
from benchmarks.gpu_scale import Scale
from benchmarks.sections import Row
from mixsolve.base.tuning import tuning
from mixsolve_torch import TorchLosses

_TOL = 1e-8
_ALPHA = 0.01  # of the spread
_MEGABYTE = 1 << 20
_RANK_SECONDS = 100.0

_RANK = """
import sys, time, numpy as np, torch, torch.distributed as dist, mixsolve
from mixsolve_torch import solve_distributed
device, backend, file, path = sys.argv[1:]
dist.init_process_group(backend, init_method="file://" + file, rank=0, world_size=1)
losses = torch.from_numpy(np.load(path)).to(device)
for alpha in (0.0, 0.05):
    began = time.perf_counter()
    own = solve_distributed(losses, alpha, tol=1e-8)
    print(alpha, own.value, own.gap, time.perf_counter() - began)
dist.destroy_process_group()
"""


def certificates(scale: Scale) -> Iterator[Row | str]:
    """Solve float32 games of every kind on the device and as float64 in memory."""
    worst: dict[str, float] = {"values": 0.0, "gap": 0.0, "gap in NumPy": 0.0}
    for kind, losses in kinds(*scale.game):
        spread = float(losses.max()) - float(losses.min())
        exact = losses.astype(np.float64)
        tensor = torch.from_numpy(losses).to(scale.device)
        for alpha in (0.0, _ALPHA * spread):
            settings: dict[str, Any] = {"tol": _TOL}
            found = mixsolve.solve(TorchLosses(tensor, scale.chunk), alpha, **settings)
            expected = mixsolve.solve(exact, alpha, **settings)
            value, bound = certified(exact, alpha, found)
            row = {
                "game": kind,
                "alpha": alpha,
                "values": abs(found.value - expected.value) / spread,
                "gap": found.gap / spread,
                "gap in NumPy": (value - bound) / spread,
                "gap in memory": expected.gap / spread,
                "status": found.status.value,
            }
            worst = {key: max(old, row[key]) for key, old in worst.items()}
            yield row
    largest = ", ".join(f"{key} {value:.1e}" for key, value in worst.items())
    yield f"Largest, in units of the spread: {largest}; the tolerance is {_TOL:.0e}."


def certified(losses: np.ndarray, alpha: float, found: Any) -> tuple[float, float]:
    """Value and lower bound of a solution by NumPy's float64, with uniform sample weights."""
    weights = np.asarray(
        found.weights.cpu() if isinstance(found.weights, Tensor) else found.weights
    )
    scores = losses @ weights
    if alpha == 0.0:
        attack = found.attack
        rows = losses[attack.samples, attack.candidates]
        bound = (attack.probabilities @ rows).min() / losses.shape[0]
        return float(scores.max(axis=1).mean()), float(bound)
    top = scores.max(axis=1, keepdims=True)
    mass = np.exp((scores - top) / alpha)
    value = float((top[:, 0] + alpha * np.log(mass.mean(axis=1))).mean())
    shares = mass / mass.sum(axis=1, keepdims=True)
    gradient = np.einsum("ij,ijk->k", shares, losses) / losses.shape[0]
    return value, float(value - weights @ gradient + gradient.min())


def kinds(n: int, m: int, n_classifiers: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield float32 games by name: continuous, tied, and degenerate ones."""
    rng = np.random.default_rng(0)
    size = (n, m, n_classifiers)
    gamma = 0.5 * rng.gamma(1.0, 1.0, (n, 1, 1)) + rng.gamma(0.5, 1.5, size)
    twin = np.repeat(gamma[..., :1], n_classifiers, axis=2)
    density = rng.beta(0.5, 2.0, (n, 1, n_classifiers))
    games = {
        "gamma": gamma,
        "lognormal": rng.lognormal(0.0, 1.0, size),
        "near twins": twin + 1e-3 * rng.standard_t(3, size),
        "integer ties": rng.integers(0, 5, size),
        "zero-one": rng.random(size) < 0.4,
        "sparse zero-one": rng.random(size) < density,
        "far from zero": gamma + 1e4,
        "one classifier is best": gamma + np.arange(n_classifiers),
        "equal candidates": np.repeat(gamma[:, :1], m, axis=1),
        "both signs, small": 1e-6 * rng.standard_normal(size),
    }
    for name, losses in games.items():
        yield name, losses.astype(np.float32)


def threshold(scale: Scale) -> Iterator[Row | str]:
    """Solve tensors of growing size where they are, and after a copy to the host."""
    rows: list[Row] = []
    _warm_up(scale)
    for megabytes in scale.megabytes:
        tensor = exponential(megabytes, scale.device)
        row: Row = {"MB": float(megabytes), "samples": tensor.shape[0]}
        for name, alpha in (("exact", 0.0), ("entropic", 0.05)):
            works: dict[str, Callable[[], Any]] = {
                "device": lambda t=tensor, a=alpha: mixsolve.solve(TorchLosses(t, scale.chunk), a),
                "host": lambda t=tensor, a=alpha: mixsolve.solve(t.cpu().numpy(), a),
            }
            times = least(works, scale)
            for place, seconds in times.items():
                row[f"{name}, {place}, ms"] = 1e3 * seconds
            row[f"{name}, host over device"] = times["host"] / times["device"]
        rows.append(row)
        yield row
    for name in ("exact", "entropic"):
        yield f"{name}: {crossing(rows, name)}"


def crossing(rows: list[Row], name: str) -> str:
    """Say from which size on the device is faster, beside the threshold that the code uses."""
    kept = tuning.kept_bytes / _MEGABYTE
    slower = [row["MB"] for row in rows if row[f"{name}, host over device"] < 1.0]
    larger = [row["MB"] for row in rows if not slower or row["MB"] > max(slower)]
    found = f"from {min(larger):g} MB on" if larger else f"up to {max(slower):g} MB nowhere"
    return (
        f"the device is faster {found}. `mixsolve.solve` copies what takes at most {kept:g} MB "
        "(`mixsolve.base.tuning.kept_bytes`)."
    )


def exponential(megabytes: float, device: str) -> Tensor:
    """Correlated continuous losses (N, 20, 10) in float32, drawn on the device."""
    n = max(2, int(megabytes * _MEGABYTE / 800))
    draws = torch.Generator(device).manual_seed(0)
    own = torch.empty(n, 20, 10, device=device).exponential_(generator=draws)
    shared = torch.empty(n, 1, 1, device=device).exponential_(generator=draws)
    return own.square_().add_(shared, alpha=0.5)


def least(works: dict[str, Callable[[], Any]], scale: Scale) -> dict[str, float]:
    """Least seconds of each, in turns."""
    times = {name: float("inf") for name in works}
    for turn in range(scale.repeats):
        for name in sorted(works, reverse=turn % 2 == 1):
            scale.synchronize()
            began = time.perf_counter()
            works[name]()
            scale.synchronize()
            times[name] = min(times[name], time.perf_counter() - began)
    return times


def _warm_up(scale: Scale) -> None:
    """Compile kernels and load libraries."""
    tensor = exponential(0.01, scale.device)
    for alpha in (0.0, 0.05):
        mixsolve.solve(TorchLosses(tensor, scale.chunk), alpha)
        mixsolve.solve(tensor.cpu().numpy(), alpha)


def ranks(scale: Scale) -> Iterator[Row | str]:
    """Solve a game as the only rank of a process group over NCCL (gloo on the CPU)."""
    _, losses = next(kinds(*scale.game))
    backend = "nccl" if scale.is_gpu else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        np.save(path / "losses.npy", losses)
        words = [scale.device, backend, str(path / "store"), str(path / "losses.npy")]
        done = subprocess.run(
            [sys.executable, "-c", _RANK, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=_RANK_SECONDS,
            env={**os.environ, "MASTER_ADDR": "localhost"},
        )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    for line in done.stdout.strip().splitlines():
        alpha, value, gap, seconds = map(float, line.split())
        expected = mixsolve.solve(losses, alpha, tol=_TOL)
        yield {
            "backend": backend,
            "alpha": alpha,
            "values differ by": abs(value - expected.value) / expected.spread,
            "gap": gap / expected.spread,
            "ms": 1e3 * seconds,
        }
