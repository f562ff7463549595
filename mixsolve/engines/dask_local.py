"""Blocks of a Dask array on a scheduler of this machine: threads, processes, or none.

If the tensor fits in half the free memory (or in what ``dask.config.set({"mixsolve.memory": ...})``
allows), its blocks are computed once by the scheduler and stay in this process, and so do the
engines made of them. The passes are tasks of the same scheduler if that runs in this process; if it
runs in others, where every pass would have to send the blocks, they are tasks on threads.

If it does not fit, each pass reads every block again, in the task that needs it. What was found out
about a block, like its winners, stays here; its engine is made again each time.
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
from mixsolve.engines import shard as questions
from mixsolve.engines.bookkeeping import Rules
from mixsolve.engines.dask_tasks import Call, blocks_of
from mixsolve.engines.shard import PartialResult
from mixsolve.engines.sharded import Kept, Parts, Reply

logger = logging.getLogger("mixsolve")

_SHARE = 0.5  # of the free memory
_UNKNOWN = 4 << 30  # bytes, where no system tells what is free
_WITHOUT_LOSSES = (
    questions.keep,
    questions.winners,
    questions.winners_of,
    questions.winners_moved,
)
_ENGINE_TO_ENGINE = (questions.place, questions.in_unit)


class LocalParts(Parts):
    """Parts of an array that a scheduler of this machine computes.

    Parameters
    ----------
    get : callable
        The scheduler.
    array : dask.array.Array
        In chunks of whole samples.
    """

    def __init__(self, get: Callable[..., Any], array: Any) -> None:
        lengths = array.chunks[0]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        super().__init__([_Again(length) for length in lengths], bounds)
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

    def _ask(
        self,
        question: Callable[..., PartialResult],
        kept: Sequence[Kept],
        common: tuple[Any, ...],
        shares: Sequence[tuple[Any, ...]] | None,
        n_sums: int,
    ) -> Reply:
        """See `Parts._ask`."""
        answers: list[PartialResult | None] = [None] * self.n_parts
        tasks = {}
        get = self._get_here
        for part in range(self.n_parts):
            engine, *others = (handle[part] for handle in kept)
            call = Call(question, n_sums, common, () if shares is None else shares[part])
            if engine is None or question in _WITHOUT_LOSSES:
                answers[part] = call(engine, *others)
            elif not isinstance(engine, _Again):
                tasks[part] = _delayed(_Held(call, engine, others))()
            elif question in _ENGINE_TO_ENGINE:
                answers[part] = PartialResult(kept=engine.after(call))
            else:
                largest = self._affordable * engine.n_samples
                work = _Reread(call, engine, others, largest)
                if self._graphs is None:
                    tasks[part] = _delayed(work)(self._blocks[part])
                else:
                    tasks[part] = _delayed(_Whole(work, self._graphs[part]))()
                get = self._get
        for part, answer in zip(tasks, self._computed([*tasks.values()], get), strict=True):
            answers[part] = answer
        told = [answer for answer in answers if answer is not None]
        preparing.add_elsewhere(max((answer.prepared for answer in told), default=0.0))
        return Reply(
            sum((answer.sums for answer in told), np.zeros(n_sums)),
            [answer.found for answer in told],
            [answer.kept for answer in told],
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
            asked = dask.config.get("pool", None)
            if asked is not None:
                return asked
            if os.environ.get("PYTHONHASHSEED") in (None, "0"):
                # As Dask does for its own: tasks that go by hashes agree in all processes.
                os.environ["PYTHONHASHSEED"] = "6640"
            self._pool = ProcessPoolExecutor(
                dask.config.get("num_workers", None) or dask.system.CPU_COUNT,
                mp_context=dask.multiprocessing.get_context(),
                initializer=dask.multiprocessing.initialize_worker_process,
            )
        return self._pool


class _Again:
    """How to make what a part keeps of its block again: the calls that made it, one by one."""

    def __init__(self, n_samples: int, calls: tuple[Call, ...] = ()) -> None:
        self.n_samples = n_samples
        self._calls = calls

    def after(self, call: Call) -> "_Again":
        """How to make what one more call leaves."""
        n_samples = self.n_samples
        if call.question is questions.subsample:
            n_samples = call.share[0].size
        return _Again(n_samples, (*self._calls, call))

    def made_of(self, block: Any) -> Any:
        """What is kept, of the block itself."""
        for call in self._calls:
            block = call(block).kept
        return block


class _Held:
    """A call to an engine in this process."""

    def __init__(self, call: Call, engine: Any, others: list[Any]) -> None:
        self._call = call
        self._engine = engine
        self._others = others

    def __call__(self) -> PartialResult:
        return self._call(self._engine, *self._others)


class _Reread:
    """A call to an engine that has to be made of its block first.

    Parameters
    ----------
    call : Call
        What to ask.
    engine : _Again
        How to make it.
    others : list
        What else is kept.
    largest : float
        Bytes of an engine that may stay in memory.
    """

    def __init__(self, call: Call, engine: _Again, others: list[Any], largest: float) -> None:
        self._call = call
        self._engine = engine
        self._others = others
        self._largest = largest

    def __call__(self, block: Any) -> PartialResult:
        answer = self._call(self._engine.made_of(block), *self._others)
        if isinstance(answer.kept, Rules) and _n_bytes(answer.kept) > self._largest:
            return replace(answer, kept=self._engine.after(self._call))
        return answer


class _Whole:
    """All tasks of one part as one, so that no block crosses between processes on its way."""

    def __init__(self, work: _Reread, graph: tuple[dict[Any, Any], Any]) -> None:
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
    asked = dask.config.get("mixsolve.memory", None)
    return _SHARE * _free_memory() if asked is None else float(parse_bytes(asked))


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
