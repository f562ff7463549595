"""What Dask's tasks do: check a block, and run a task of the engine on it.

Functions are objects of classes here, since Dask would look for tasks and futures in the lists,
tuples and dataclasses that are given to plain functions.
"""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import dask
import numpy as np
from dask.sizeof import sizeof

from mixsolve.arrays.tensor import kernel_dtype
from mixsolve.base.compilation import preparing
from mixsolve.base.errors import MixsolveError
from mixsolve.engines.bookkeeping import Bookkeeping
from mixsolve.engines.shard_tasks import PartialResult, Task, run_task


class Block:
    """Check a block that its graph computed.

    Parameters
    ----------
    shape : tuple of int
        The shape according to the array.
    stays : bool
        Whether it is read many times: then it is brought into the form that the kernels read,
        if that needs no more memory.
    """

    def __init__(self, first: int, shape: tuple[int, int, int], stays: bool) -> None:
        self.first = first
        self.shape = shape
        self.stays = stays

    def __call__(self, block: Any) -> Any:
        """The block, checked."""
        shape = tuple(np.shape(block))
        if shape != self.shape:
            last = self.first + self.shape[0] - 1
            raise MixsolveError(
                f"losses: the block of samples {self.first} to {last} has the shape {shape}, but "
                f"the Dask array says {self.shape}; give da.from_delayed or map_blocks the shape "
                "that its blocks really have"
            )
        if not self.stays or not isinstance(block, np.ndarray) or np.ma.isMaskedArray(block):
            return block
        dtype = block.dtype if block.dtype == np.bool_ else kernel_dtype(block.dtype)
        fits = dtype.itemsize <= block.dtype.itemsize
        return np.ascontiguousarray(block, dtype) if fits else block


def blocks_of(array: Any, stay: bool) -> list[Any]:
    """Each block of an array in chunks of whole samples, checked (see `Block`), as a Delayed."""
    token = uuid4().hex
    blocks: list[Any] = []
    first = 0
    for block in array.to_delayed(optimize_graph=True).ravel():
        shape = (array.chunks[0][len(blocks)], *array.shape[1:])
        check = dask.delayed(Block(first, shape, stay), pure=False, traverse=False)
        blocks.append(check(block, dask_key_name=f"mixsolve-block-{token}-{len(blocks)}"))
        first += shape[0]
    return blocks


class Call:
    """A task of the engine with its arguments, to be run on one shard.

    Parameters
    ----------
    task, n_sums, common
        See `mixsolve.engines.shards.Shards.map_reduce`.
    own : tuple
        The shard's own arguments.
    """

    def __init__(self, task: Task, n_sums: int, common: Sequence[Any], own: Sequence[Any]) -> None:
        self.task = task
        self.n_sums = n_sums
        self.common = common
        self.own = own
        self.made_in = _process()

    def __call__(self, *states: Any) -> PartialResult:
        """The result on a shard with these states."""
        began = time.perf_counter()
        result = run_task(self.task, self.n_sums, states, self.common, self.own)
        if self.made_in == _process():  # whose own intervals have it
            return result
        return replace(result, prepared=preparing.seconds(began, time.perf_counter()))


def _process() -> tuple[str, int]:
    return platform.node(), os.getpid()


@sizeof.register(PartialResult)
def _size_of_result(result: PartialResult) -> int:
    """Bytes, which a scheduler needs before it moves a result or spills it to disk."""
    return int(sizeof(result.sums) + sizeof(result.gathered) + sizeof(result.state))


@sizeof.register(Bookkeeping)
def _size_of_engine(engine: Any) -> int:
    beside = engine.sample_weight.nbytes + engine.allowed.nbytes + engine.prior.nbytes
    return int(engine.n_bytes + engine.shape.offsets.nbytes + beside)
