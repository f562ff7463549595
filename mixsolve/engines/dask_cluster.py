"""Blocks of a Dask array on a cluster's workers: only sums, and what is asked for, leave them.

Blocks and the engines made of them stay where the scheduler put them, as futures, and so does what
a question leaves with a part. A pass is a task or two for each part and, over them, a tree that
adds up the sums; the client receives one vector of 1 + L or 1 + L + L^2 numbers.

Everything on the workers is the result of a task that the scheduler knows; nothing is scattered. So
what is lost with a worker is made again from the array's graph, by the same tasks on other workers,
added up in the same order: a death costs time, and changes no bit of the answer.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np

from mixsolve.arrays.dask_values import refuse
from mixsolve.base.compilation import preparing
from mixsolve.base.tuning import tuning
from mixsolve.engines import shard as questions
from mixsolve.engines.dask_tasks import Call, blocks_of
from mixsolve.engines.shard import PartialResult
from mixsolve.engines.sharded import Kept, Parts, Reply, count_bytes

_SUMS_ALONE = (questions.soft_response, questions.expected_losses)


class ClusterParts(Parts):
    """Parts of an array that a cluster's workers compute and keep.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    array : dask.array.Array
        In chunks of whole samples.
    """

    def __init__(self, client: Any, array: Any) -> None:
        self._client = client
        self._alive: WeakValueDictionary[int, Any] = WeakValueDictionary()
        bounds = np.concatenate([[0], np.cumsum(array.chunks[0])])
        super().__init__(self._noted(client.compute(blocks_of(array, True))), bounds)

    def close(self) -> None:
        """Let the workers forget everything, and drop what they have not begun."""
        for future in list(self._alive.values()):
            future.release()

    def _ask(
        self,
        question: Callable[..., PartialResult],
        kept: Sequence[Kept],
        common: tuple[Any, ...],
        shares: Sequence[tuple[Any, ...]] | None,
        n_sums: int,
    ) -> Reply:
        """See `Parts._ask`."""
        nothing: tuple[Any, ...] = ()
        calls = [
            Call(question, n_sums, common, nothing if shares is None else shares[part])
            for part in range(self.n_parts)
        ]
        name = question.__name__
        answers: list[Any] = []
        try:
            for here in self._messages(calls):
                mine = [handle[here] for handle in kept]
                answers += self._map(_answer, f"{name}-part", calls[here], *mine)
            if not n_sums:
                return Reply(np.zeros(0), self._found(name, answers), answers)
            if question in _SUMS_ALONE:
                total = self._total(name, answers)
                return Reply(total.sums, [None] * self.n_parts, [None] * self.n_parts)
            total = self._total(name, self._map(_sums, f"{name}-sums", answers))
            found = self._found(name, answers) if total.found else [None] * self.n_parts
            return Reply(total.sums, found, answers)
        except Exception as error:
            refuse(error, self._where(answers))

    def _messages(self, calls: list[Call]) -> Iterator[slice]:
        """Parts whose arguments go to the scheduler in one message."""
        first, size = 0, 0
        for part, call in enumerate(calls):
            n_bytes = count_bytes(call.share)
            if size and size + n_bytes > tuning.message_bytes:
                yield slice(first, part)
                first, size = part, 0
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

    def _total(self, name: str, said: list[Any]) -> PartialResult:
        """The answers' sums added up, in an order that depends on their number alone."""
        while True:
            groups = [
                said[first : first + tuning.fan_in] for first in range(0, len(said), tuning.fan_in)
            ]
            said = [
                self._client.submit(
                    _added, *group, key=f"mixsolve-{name}-total-{uuid4().hex}", pure=False
                )
                for group in groups
            ]
            self._noted(said)
            if len(said) == 1:
                total = self._client.gather(said[0])
                preparing.add_elsewhere(total.prepared)
                return total

    def _found(self, name: str, answers: list[Any]) -> list[Any]:
        told = self._client.gather(self._map(_found, f"{name}-found", answers))
        preparing.add_elsewhere(max((seconds for _, seconds in told), default=0.0))
        return [found for found, _ in told]

    def _where(self, answers: list[Any]) -> tuple[int, int] | None:
        """Samples of the first part known to have failed."""
        for part, answer in enumerate(answers):
            if answer.status != "pending" and answer.status != "finished":
                return int(self.bounds[part]), int(self.bounds[part + 1]) - 1
        return None


def _answer(call: Call, *kept: Any) -> PartialResult:
    """A part's answer, of what earlier answers left there; the first kept may be the block."""
    return call(*(item.kept if isinstance(item, PartialResult) else item for item in kept))


def _sums(answer: PartialResult) -> PartialResult:
    """What is added up on the way, and whether there is more to be fetched."""
    return PartialResult(answer.sums, answer.found is not None, prepared=answer.prepared)


def _found(answer: PartialResult) -> tuple[Any, float]:
    return answer.found, answer.prepared


def _added(*answers: PartialResult) -> PartialResult:
    return PartialResult(
        np.sum([answer.sums for answer in answers], axis=0),
        any(answer.found for answer in answers),
        prepared=max(answer.prepared for answer in answers),
    )
