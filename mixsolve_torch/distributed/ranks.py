"""The shards of a tensor on ranks: the first rank sends a task, all of them run it.

A task is

1. a broadcast from the first rank, which runs the method: the function to call, the arguments that
   all ranks share, and which states each rank may drop; a rank's own arguments, if there are any,
   go to it alone;
2. one all_reduce in float64 of the sums. In front of them, each rank has an entry for the number of
   bytes that it sends besides (best candidates, near rows, the final strategy), or, if it failed,
   for minus the length of its error;
3. these bytes, from the ranks that have any to the first.

A rank that fails broadcasts its error, and all of them raise the same one.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.engines.shard_tasks import Task, run_task
from mixsolve.engines.shards import Handle, Reduced, Shards
from mixsolve_torch.distributed.wire import Wire
from mixsolve_torch.runs.interrupt import Interrupt

LOSSES, GIVEN = 0, 1
"""Names of the states that every rank has from the start: its losses and its arguments."""


@dataclass(frozen=True)
class _Message:
    """A task for every rank. See `mixsolve.engines.shards.Shards.map_reduce`.

    `own_bytes` are the lengths of the ranks' own arguments, empty where there are none; `name` is
    that of the state that the task leaves, `dropped` those of states no longer needed.
    """

    task: Task
    states: tuple[int, ...]
    common: tuple[Any, ...]
    n_sums: int
    own_bytes: tuple[int, ...]
    name: int
    dropped: tuple[int, ...]


class _Named:
    """A state that every rank keeps under a name, as long as this object is alive."""

    def __init__(self, name: int) -> None:
        self.name = name


class Rank:
    """One rank among those that solve together.

    Parameters
    ----------
    wire : Wire
        Its connections.
    label : str
        What errors call it.
    states : dict of int to object
        Its states from the start.
    """

    def __init__(self, wire: Wire, label: str, states: dict[int, Any]) -> None:
        self.wire = wire
        self._midway = False
        self._label = label
        self._states = dict(states)

    def state(self, name: int) -> Any:
        """State that has a name, None where a task left nothing."""
        return self._states[name]

    def serve(self, interrupt: Interrupt) -> Any:
        """Run the first rank's tasks until it has a solution; return that.

        A `MixsolveError` says which rank failed, or cannot be reached.
        """
        wire = self.wire
        while True:
            message = wire.broadcast()
            if not isinstance(message, _Message):
                break
            sizes = message.own_bytes
            own = wire.receive(sizes[wire.rank], 0) if sizes else ()
            _, _, gathered = self._run(message, own, interrupt)
            if gathered:
                wire.send(gathered, 0)
        wire.over = True
        interrupt.deliver()
        if isinstance(message, MixsolveError):
            raise message
        return message

    def run_on_all(self, message: _Message, own: Sequence[bytes]) -> tuple[np.ndarray, list[Any]]:
        """Run a task on all ranks, from the first one; the sums, and what each rank sent."""
        wire = self.wire
        with Interrupt(True) as interrupt:
            self._midway = True
            wire.broadcast(message)
            for rank, arguments in enumerate(own[1:], start=1):
                wire.send(arguments, rank)
            mine = pickle.loads(own[0]) if own else ()
            sizes, sums, sent = self._run(message, mine)
            gathered = [pickle.loads(sent) if sent else None]
            for rank in range(1, wire.size):
                gathered.append(wire.receive(sizes[rank], rank) if sizes[rank] else None)
            self._midway = False
            interrupt.deliver()
        return sums, gathered

    def _run(
        self, message: _Message, own: Sequence[Any], interrupt: Interrupt | None = None
    ) -> tuple[list[int], np.ndarray, bytes]:
        """Run a task here: bytes from each rank, the sums, and what this one sends."""
        for name in message.dropped:
            self._states.pop(name, None)
        rank, size = self.wire.rank, self.wire.size
        numbers = np.zeros(size + message.n_sums)
        failure: BaseException | None = None
        try:
            states = [self._states.get(name) for name in message.states]
            result = run_task(message.task, message.n_sums, states, message.common, own)
            if interrupt is not None:
                interrupt.deliver()
            sent = b"" if result.gathered is None else pickle.dumps(result.gathered)
            self._states[message.name] = result.state
            numbers[size:] = result.sums
            numbers[rank] = len(sent)
        except BaseException as error:  # the others wait for this rank in any case
            failure = error
            sent = pickle.dumps(as_rank_error(error, self._label))
            numbers[rank] = -len(sent)
        numbers = self.wire.add_up(numbers)
        sizes = [int(number) for number in numbers[:size]]
        if min(sizes) < 0:
            first = next(place for place in range(size) if sizes[place] < 0)
            reported = self.wire.broadcast_bytes(sent if rank == first else b"", first)
            self.wire.over = True
            if failure is not None and not isinstance(failure, Exception):
                raise failure
            raise reported from failure
        return sizes, numbers[size:], sent

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Work of the first rank alone: an error in it ends the solve on all ranks."""
        try:
            yield
        except BaseException as error:
            if not self.wire.over and not self.wire.is_cut and not self._midway:
                self.end(as_rank_error(error, self._label, anywhere=True))
            raise

    def end(self, message: Any) -> None:
        """Send the solution, or the error that ends the solve, from the first rank to all."""
        with Interrupt(True) as interrupt:
            self.wire.broadcast(message)
            self.wire.over = True
            interrupt.deliver()


class RankShards(Shards):
    """Each rank's samples, as `rank`, the first one, has access to them."""

    def __init__(self, rank: Rank, bounds: np.ndarray) -> None:
        super().__init__(_Named(LOSSES), bounds)
        self.given = _Named(GIVEN)
        self._rank = rank
        self._names = GIVEN
        self._dropped: list[int] = []

    def _map_reduce(
        self,
        task: Task,
        states: Sequence[Handle],
        common: tuple[Any, ...],
        own: Sequence[tuple[Any, ...]] | None,
        n_sums: int,
    ) -> Reduced:
        pickled = [] if own is None else [pickle.dumps(arguments) for arguments in own]
        self._names += 1
        dropped = tuple(self._dropped)
        del self._dropped[: len(dropped)]  # others may be added at any moment
        message = _Message(
            task,
            tuple(handle.name for handle in states),
            common,
            n_sums,
            tuple(map(len, pickled)),
            self._names,
            dropped,
        )
        sums, gathered = self._rank.run_on_all(message, pickled)
        left = _Named(self._names)
        weakref.finalize(left, self._dropped.append, self._names).atexit = False
        return Reduced(sums, gathered, left)


def as_rank_error(error: BaseException | None, label: str, anywhere: bool = False) -> MixsolveError:
    """The error that all ranks raise; `anywhere` for one that has nothing to do with a rank."""
    kind = MixsolveTypeError if isinstance(error, TypeError) else MixsolveError
    if not isinstance(error, MixsolveError):
        return MixsolveError(f"{label} stopped the solve: {type(error).__name__}: {error}")
    return kind(str(error) if anywhere else f"{label}: {error}")
