"""Shards on the workers of a Dask cluster, which keep the blocks and the engines made of them.

Blocks, engines and what else a task leaves with a shard stay where the scheduler put them, as
futures. A pass is a task for each shard and, over them, a tree that adds up the sums; the client
receives one vector of 1 + L or 1 + L + L^2 numbers, and what the shards send besides.

Everything on the workers is the result of a task that the scheduler knows; nothing is scattered by
the client. So what is lost with a worker is made again from the array's graph, by the same tasks on
other workers, added up in the same order: a death costs time, and changes no bit of the answer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np

from mixsolve.arrays.dask_values import refuse
from mixsolve.base.compilation import preparing
from mixsolve.base.tuning import tuning
from mixsolve.engines.dask_tasks import Call, blocks_of
from mixsolve.engines.shard_tasks import PartialResult, Task
from mixsolve.engines.shards import Handle, Reduced, Shards, count_bytes


class ClusterShards(Shards):
    """Shards, chunks of whole samples of an array, that a cluster's workers compute and keep."""

    def __init__(self, client: Any, array: Any) -> None:
        self._client = client
        self._alive: WeakValueDictionary[int, Any] = WeakValueDictionary()
        bounds = np.concatenate([[0], np.cumsum(array.chunks[0])])
        super().__init__(self._noted(client.compute(blocks_of(array, True))), bounds)

    def close(self) -> None:
        """Let the workers drop everything, and cancel what they have not begun."""
        for future in list(self._alive.values()):
            future.release()

    def _map_reduce(
        self,
        task: Task,
        states: Sequence[Handle],
        common: tuple[Any, ...],
        own: Sequence[tuple[Any, ...]] | None,
        n_sums: int,
    ) -> Reduced:
        nothing: tuple[Any, ...] = ()
        calls = [
            Call(task, n_sums, common, nothing if own is None else own[shard])
            for shard in range(len(self))
        ]
        name = task.__name__
        results: list[Any] = []
        try:
            for here in self._messages(calls):
                mine = [handle[here] for handle in states]
                results += self._map(_run, f"{name}-shard", calls[here], *mine)
            if n_sums:  # and no state
                total = self._client.gather(self._reduced(name, results))
            else:
                sent = self._map(_without_state, f"{name}-sent", results)
                total = _added(*self._client.gather(sent))
        except Exception as error:
            refuse(error, self._where(results))
        preparing.add_elsewhere(total.prepared)
        return Reduced(total.sums, total.gathered, results)

    def _messages(self, calls: list[Call]) -> Iterator[slice]:
        """Shards whose arguments go to the scheduler in one message."""
        first, size = 0, 0
        for shard, call in enumerate(calls):
            n_bytes = count_bytes(call.own)
            if size and size + n_bytes > tuning.message_bytes:
                yield slice(first, shard)
                first, size = shard, 0
            size += n_bytes
        yield slice(first, len(calls))

    def _map(self, function: Callable[..., Any], name: str, *arguments: Sequence[Any]) -> list[Any]:
        token = uuid4().hex
        keys = [f"mixsolve-{name}-{token}-{i}" for i in range(len(arguments[0]))]
        return self._noted(self._client.map(function, *arguments, key=keys, pure=False))

    def _noted(self, futures: list[Any]) -> list[Any]:
        for future in futures:
            self._alive[id(future)] = future
        return futures

    def _reduced(self, name: str, results: list[Any]) -> Any:
        """All results added up, in an order that depends on their number alone."""
        while True:
            fan_in = tuning.fan_in
            groups = [results[first : first + fan_in] for first in range(0, len(results), fan_in)]
            results = [
                self._client.submit(
                    _added, *group, key=f"mixsolve-{name}-total-{uuid4().hex}", pure=False
                )
                for group in groups
            ]
            self._noted(results)
            if len(results) == 1:
                return results[0]

    def _where(self, results: list[Any]) -> tuple[int, int] | None:
        """Samples of the first shard known to have failed."""
        for shard, result in enumerate(results):
            if result.status != "pending" and result.status != "finished":
                return int(self.bounds[shard]), int(self.bounds[shard + 1]) - 1
        return None


def _run(call: Call, *states: Any) -> PartialResult:
    """A shard's result; its states are earlier results, or at first the block itself."""
    result = call(*(each.state if isinstance(each, PartialResult) else each for each in states))
    return replace(result, gathered=[result.gathered])


def _without_state(result: PartialResult) -> PartialResult:
    return replace(result, state=None)


def _added(*results: PartialResult) -> PartialResult:
    """Sums added up; what was sent in a list, shard by shard."""
    return PartialResult(
        np.sum([result.sums for result in results], axis=0),
        [*chain.from_iterable(result.gathered for result in results)],
        prepared=max(result.prepared for result in results),
    )
