"""One solve in a process of its own, and what it cost; prints a line of JSON.

Losses are float32 in a .npy file. They are read into memory, mapped, read by the workers of a Dask
cluster on this machine, or shared out to ranks of torch.distributed; a worker or rank has one
thread. What is timed is `mixsolve.solve` alone, after a small solve that loads the kernels.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import mixsolve
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.sharded import ShardedEngine

PLACES = ("memory", "file", "dask", "ranks")
_SAMPLED_EVERY = 0.01  # seconds between two looks at the memory


def main() -> int:
    """Solve once and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("losses", type=Path)
    parser.add_argument("--place", choices=PLACES, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--alpha", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    costs = {"memory": _memory, "file": _file, "dask": _dask, "ranks": _ranks}[args.place](args)
    if costs:
        sys.stdout.write(json.dumps(costs) + "\n")
    return 0


def _memory(args: argparse.Namespace) -> dict[str, Any]:
    losses = np.load(args.losses)
    return _measure(lambda: mixsolve.solve(losses, args.alpha), args.repeats)


def _file(args: argparse.Namespace) -> dict[str, Any]:
    losses = np.load(args.losses, mmap_mode="r")
    return _measure(lambda: mixsolve.solve(losses, args.alpha), args.repeats)


def _dask(args: argparse.Namespace) -> dict[str, Any]:
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster

    from mixsolve.engines.dask import DaskLosses

    losses = np.load(args.losses, mmap_mode="r")
    size = max(1, min(losses.shape[0] // args.workers, (32 << 20) // losses[0].nbytes))
    cuts = [*range(0, losses.shape[0], size), losses.shape[0]]
    read = dask.delayed(_read)
    blocks = [
        da.from_delayed(read(args.losses, a, b), (b - a, *losses.shape[1:]), losses.dtype)
        for a, b in pairwise(cuts)
    ]
    with (
        LocalCluster(
            n_workers=args.workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        # Blocks are read before the clock starts, as they are in memory: reading is the file's row.
        array = da.concatenate(blocks).persist()
        client.run(_warm_up)
        dask.compute(array.shape)
        costs = _measure(lambda: mixsolve.solve(DaskLosses(array), args.alpha), args.repeats)
        costs["worker"] = max(client.run(_peak).values())
        return costs


def _ranks(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    from mixsolve_torch import solve_distributed

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    losses = np.load(args.losses, mmap_mode="r")
    bounds = np.linspace(0, losses.shape[0], size + 1).astype(np.int64)
    share = np.array(losses[bounds[rank] : bounds[rank + 1]])
    costs = _measure(lambda: solve_distributed(share, args.alpha), args.repeats)
    peaks: list[Any] = [None] * size
    dist.all_gather_object(peaks, _peak())
    dist.destroy_process_group()
    costs["worker"] = max(peaks)
    return costs if rank == 0 else {}


def _read(path: Path, first: int, last: int) -> np.ndarray:
    return np.array(np.load(path, mmap_mode="r")[first:last])


def _warm_up() -> None:
    rng = np.random.default_rng(0)
    game = rng.gamma(0.5, 1.5, (2000, 8, 3)).astype(np.float32)
    for alpha in (0.0, 0.05):
        mixsolve.solve(game, alpha)


def _measure(solve: Callable[[], mixsolve.Solution], repeats: int) -> dict[str, Any]:
    """The fastest of some solves, with what went over the wire, and the peak of the memory."""
    _warm_up()
    before = _status("RssAnon")
    seconds = np.inf
    with _counted() as counts, _sampled() as private:
        for _ in range(repeats):
            counts.clear()
            began = time.perf_counter()
            solution = solve()
            seconds = min(seconds, time.perf_counter() - began)
    traffic = [engine.shards.traffic for engine in counts.engines]
    return {
        "seconds": seconds,
        "passes": solution.n_passes,
        "rounds": sum(one.rounds for one in traffic) or counts.rounds,
        "sent": sum(one.sent + one.received for one in traffic),
        "gap": solution.gap / max(solution.spread, 1e-300),
        "status": str(solution.status),
        "private": max(private) - before,
        "peak": _peak(),
    }


class _Counts:
    """Passes that started threads, and sharded engines, of one solve."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.rounds = 0
        self.engines: list[ShardedEngine] = []


@contextmanager
def _counted() -> Iterator[_Counts]:
    counts = _Counts()
    each_block, opened = MemoryEngine.each_block, ShardedEngine.open

    def counted(self: MemoryEngine, work: Any) -> None:
        counts.rounds += 1
        each_block(self, work)

    def noted(*args: Any, **options: Any) -> ShardedEngine:
        engine = opened(*args, **options)
        counts.engines.append(engine)
        return engine

    MemoryEngine.each_block = counted  # type: ignore[method-assign]
    ShardedEngine.open = noted  # type: ignore[method-assign, assignment]
    try:
        yield counts
    finally:
        MemoryEngine.each_block = each_block  # type: ignore[method-assign]
        ShardedEngine.open = opened  # type: ignore[method-assign]


@contextmanager
def _sampled() -> Iterator[list[int]]:
    """Private memory of this process every few milliseconds."""
    seen = [_status("RssAnon")]
    over = threading.Event()

    def look() -> None:
        while not over.wait(_SAMPLED_EVERY):
            seen.append(_status("RssAnon"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _peak() -> int:
    """Largest resident memory of this process so far, mapped files included."""
    return _status("VmHWM")


def _status(name: str) -> int:
    """A line of the kernel's account of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return 0


if __name__ == "__main__":
    sys.exit(main())
