"""Shards that a Dask scheduler of this machine computes: threads, processes, or none.

If the tensor fits in half the free memory (or in what ``dask.config.set({"mixsolve.memory": ...})``
allows), its blocks are computed once by the scheduler and stay in this process, and so do the
engines made of them. The passes are tasks of the same scheduler if that runs in this process; if it
runs in others, where every pass would have to send the blocks, they are tasks on threads.

If it does not fit, each pass reads every block again, in the task that needs it, and makes its
engine again.
"""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.local
import dask.multiprocessing
import dask.system
import dask.threaded
import numpy as np
from dask.optimization import cull
from dask.utils import parse_bytes

from mixsolve.arrays.dask_values import compute_all, refuse
from mixsolve.base.compilation import preparing
from mixsolve.engines import shard_tasks
from mixsolve.engines.bookkeeping import Bookkeeping
from mixsolve.engines.dask_tasks import Call, blocks_of
from mixsolve.engines.shard_tasks import PartialResult, Task
from mixsolve.engines.shards import Handle, Reduced, Shards

logger = logging.getLogger("mixsolve")

_SHARE = 0.5  # of the free memory
_UNKNOWN = 4 << 30  # bytes, where the free memory is unknown
_ENGINE_TO_ENGINE = (shard_tasks.as_shard, shard_tasks.in_unit)


class LocalShards(Shards):
    """Shards, chunks of whole samples of an array, that a scheduler of this machine computes."""

    def __init__(self, get: Callable[..., Any], array: Any) -> None:
        lengths = array.chunks[0]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        super().__init__([_Recipe(length) for length in lengths], bounds)
        budget = affordable()
        stays = array.nbytes <= budget
        self._affordable = budget / bounds[-1]  # a sample
        self._get = get
        in_process = get in (dask.threaded.get, dask.local.get_sync)
        self._get_here = get if in_process else dask.threaded.get
        self._pool: ProcessPoolExecutor | None = None
        self._blocks = blocks_of(array, stays)
        self._graphs = None if in_process else _separate_graphs(self._blocks)
        if not stays:
            logger.info(
                "the losses take %.3g GB, of which %.3g GB may stay in memory: each pass reads "
                "them again",
                array.nbytes / 1e9,
                budget / 1e9,
            )

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _map_reduce(
        self,
        task: Task,
        states: Sequence[Handle],
        common: tuple[Any, ...],
        own: Sequence[tuple[Any, ...]] | None,
        n_sums: int,
    ) -> Reduced:
        results: list[PartialResult] = [PartialResult()] * len(self)
        delayed = {}
        get = self._get_here
        for shard in range(len(self)):
            engine, *others = (handle[shard] for handle in states)
            call = Call(task, n_sums, common, () if own is None else own[shard])
            if engine is None or task is shard_tasks.scatter:
                results[shard] = call(engine, *others)
            elif not isinstance(engine, _Recipe):
                delayed[shard] = _delayed(_OnEngine(call, engine, others))()
            elif task in _ENGINE_TO_ENGINE:
                results[shard] = PartialResult(state=engine.after(call))
            else:
                largest = self._affordable * engine.n_samples
                work = _OnBlock(call, engine, others, largest)
                if self._graphs is None:
                    delayed[shard] = _delayed(work)(self._blocks[shard])
                else:
                    delayed[shard] = _delayed(_OnGraph(work, self._graphs[shard]))()
                get = self._get
        for shard, result in zip(delayed, self._computed([*delayed.values()], get), strict=True):
            results[shard] = result
        preparing.add_elsewhere(max(result.prepared for result in results))
        return Reduced(
            sum((result.sums for result in results), np.zeros(n_sums)),
            [result.gathered for result in results],
            [result.state for result in results],
        )

    def _computed(self, tasks: list[Any], get: Callable[..., Any]) -> Sequence[PartialResult]:
        if not tasks:
            return ()
        try:
            if get is dask.multiprocessing.get:
                return compute_all(tasks, scheduler=get, pool=self._processes())
            return compute_all(tasks, scheduler=get)
        except Exception as error:
            refuse(error)

    def _processes(self) -> Any:
        """One pool for the whole solve: Dask would start processes anew for each pass."""
        if self._pool is None:
            given = dask.config.get("pool", None)
            if given is not None:
                return given
            if os.environ.get("PYTHONHASHSEED") in (None, "0"):
                # As Dask does for its own: tasks that depend on hashes agree in all processes.
                os.environ["PYTHONHASHSEED"] = "6640"
            self._pool = ProcessPoolExecutor(
                dask.config.get("num_workers", None) or dask.system.CPU_COUNT,
                mp_context=dask.multiprocessing.get_context(),
                initializer=dask.multiprocessing.initialize_worker_process,
            )
        return self._pool


class _Recipe:
    """The tasks, one by one, that make a shard's engine of its block."""

    def __init__(self, n_samples: int, calls: tuple[Call, ...] = ()) -> None:
        self.n_samples = n_samples
        self._calls = calls

    def after(self, call: Call) -> "_Recipe":
        """The recipe for what one more call leaves."""
        n_samples = self.n_samples
        if call.task is shard_tasks.subsample:
            n_samples = call.own[0].size
        return _Recipe(n_samples, (*self._calls, call))

    def made_of(self, block: Any) -> Any:
        """The engine."""
        for call in self._calls:
            block = call(block).state
        return block


class _OnEngine:
    """A call on an engine in this process."""

    def __init__(self, call: Call, engine: Any, others: list[Any]) -> None:
        self._call = call
        self._engine = engine
        self._others = others

    def __call__(self) -> PartialResult:
        return self._call(self._engine, *self._others)


class _OnBlock:
    """A call on an engine that has to be made of its block first.

    Parameters
    ----------
    call : Call
        The task.
    engine : _Recipe
        How to make the engine.
    others : list
        The shard's other states.
    largest : float
        Bytes of an engine that may stay in memory.
    """

    def __init__(self, call: Call, engine: _Recipe, others: list[Any], largest: float) -> None:
        self._call = call
        self._engine = engine
        self._others = others
        self._largest = largest

    def __call__(self, block: Any) -> PartialResult:
        result = self._call(self._engine.made_of(block), *self._others)
        if isinstance(result.state, Bookkeeping) and _n_bytes(result.state) > self._largest:
            return replace(result, state=self._engine.after(self._call))
        return result


class _OnGraph:
    """All Dask tasks of one shard as one, so that no block crosses between processes."""

    def __init__(self, work: _OnBlock, graph: tuple[dict[Any, Any], Any]) -> None:
        self._work = work
        self._graph = graph

    def __call__(self) -> PartialResult:
        return self._work(dask.local.get_sync(*self._graph))


def _separate_graphs(blocks: list[Any]) -> list[tuple[dict[Any, Any], Any]] | None:
    """Each block's own tasks and key; None where blocks have tasks in common, to be done once."""
    graphs = []
    seen: set[Any] = set()
    for block in blocks:
        graph, _ = cull(dict(block.__dask_graph__()), [block.key])
        if not seen.isdisjoint(graph):
            return None
        seen.update(graph)
        graphs.append((graph, block.key))
    return graphs


def _n_bytes(engine: Any) -> int:
    return engine.n_bytes


def affordable() -> float:
    """Bytes of losses that may stay in this process."""
    given = dask.config.get("mixsolve.memory", None)
    return _SHARE * _free_memory() if given is None else float(parse_bytes(given))


def _free_memory() -> float:
    free = [_number("/proc/meminfo", "MemAvailable:") * 1024]
    limit = _number("/sys/fs/cgroup/memory.max")
    if limit:
        free.append(max(limit - _number("/sys/fs/cgroup/memory.stat", "anon"), 1.0))
    known = [amount for amount in free if amount]
    if known:
        return min(known)
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _number(path: str, name: str = "") -> float:
    """The number after a name in one of the system's files; 0 where there is none."""
    try:
        words = Path(path).read_text(encoding="ascii").split()
        return float(words[words.index(name) + 1 if name else 0])
    except (OSError, ValueError, IndexError):
        return 0.0


def _delayed(work: Callable[..., PartialResult]) -> Any:
    return dask.delayed(work, pure=False, traverse=False)
