"""Where the shards of a tensor are: a task runs on every shard, and its sums are added up."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.engines.packed import PackedStrategy
from mixsolve.engines.shard_tasks import Task

Handle = Any
"""What one task left with the shards, as an argument of later tasks."""


@dataclass(frozen=True)
class Reduced:
    """The results of a task on all shards.

    Attributes
    ----------
    sums : ndarray of float64
        Added up over the shards.
    gathered : list
        What each shard sent, shard by shard; None from a shard without samples.
    states : Handle
        What stayed with the shards.
    """

    sums: np.ndarray
    gathered: list[Any]
    states: Handle


@dataclass
class Traffic:
    """What the process that solves exchanged with the shards so far.

    Attributes
    ----------
    rounds : int
        Tasks run on all shards.
    sent, received : int
        Bytes of arrays from and to the process that solves, counted once for what goes to every
        shard, and once for what is summed on the way.
    """

    rounds: int = 0
    sent: int = 0
    received: int = 0


class Shards(ABC):
    """The shards of a tensor: ranges of samples, each in one process.

    Parameters
    ----------
    losses : Handle
        The shards' losses.
    bounds : ndarray of int64, shape (n_shards + 1,)
        First sample of each shard; a shard may have none.

    Attributes
    ----------
    traffic : Traffic
        What was exchanged with them.
    """

    def __init__(self, losses: Handle, bounds: np.ndarray) -> None:
        self.losses = losses
        self.bounds = bounds
        self.traffic = Traffic()

    def __len__(self) -> int:
        return self.bounds.size - 1

    def map_reduce(
        self,
        task: Task,
        states: Sequence[Handle],
        *common: Any,
        own: Sequence[tuple[Any, ...]] | None = None,
        n_sums: int = 0,
    ) -> Reduced:
        """Run ``task(*states_there, *common, *own[shard])`` on every shard; add up the sums.

        Parameters
        ----------
        task : Task
            A function of `mixsolve.engines.shard_tasks`, or one that can be pickled.
        states : sequence of Handle
            What earlier tasks left with the shards. A shard where the first is None has no samples.
        *common
            The same for every shard.
        own : sequence of tuple, optional
            Further arguments of each shard.
        n_sums : int
            Length of the sums. A task that has any leaves no state.

        Raises
        ------
        MixsolveError
            What the task raised on a shard.
        """
        reduced = self._map_reduce(task, states, common, own, n_sums)
        self.traffic.rounds += 1
        self.traffic.sent += count_bytes(common) + count_bytes(own)
        self.traffic.received += reduced.sums.nbytes + count_bytes(reduced.gathered)
        return reduced

    def close(self) -> None:  # noqa: B027
        """Release what the shards keep, when the solve is over or has failed."""

    @abstractmethod
    def _map_reduce(
        self,
        task: Task,
        states: Sequence[Handle],
        common: tuple[Any, ...],
        own: Sequence[tuple[Any, ...]] | None,
        n_sums: int,
    ) -> Reduced:
        """Implement `map_reduce`, by `mixsolve.engines.shard_tasks.run_task` on every shard."""


def count_bytes(things: Any) -> int:
    """Bytes of all arrays and numbers in nested sequences."""
    if things is None:
        return 0
    if isinstance(things, np.ndarray | PackedStrategy):
        return things.nbytes
    if isinstance(things, (list, tuple)):
        return sum(map(count_bytes, things))
    return 8
