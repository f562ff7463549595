"""What Dask's tasks do: look at a block, and answer questions about it.

Functions are objects of classes here, since Dask would look for tasks and futures in the lists,
tuples and dataclasses that are given to plain functions.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import dask
import numpy as np
from dask.sizeof import sizeof

from mixsolve.arrays.tensor import kernel_dtype
from mixsolve.base.compilation import preparing
from mixsolve.base.errors import MixsolveError
from mixsolve.engines.bookkeeping import Rules
from mixsolve.engines.shard import PartialResult, respond


class Block:
    """Take a block as its graph made it.

    Parameters
    ----------
    first : int
        First sample.
    shape : tuple of int
        What the array says that it is.
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
        look = dask.delayed(Block(first, shape, stay), pure=False, traverse=False)
        blocks.append(look(block, dask_key_name=f"mixsolve-block-{token}-{len(blocks)}"))
        first += shape[0]
    return blocks


class Call:
    """A question to one part.

    Parameters
    ----------
    question, n_sums, common
        See `mixsolve.engines.sharded.Parts.ask`.
    share : tuple
        The part's own arguments.
    """

    def __init__(
        self,
        question: Callable[..., PartialResult],
        n_sums: int,
        common: Sequence[Any],
        share: Sequence[Any],
    ) -> None:
        self.question = question
        self.n_sums = n_sums
        self.common = common
        self.share = share
        self.asked_by = _here()

    def __call__(self, *kept: Any) -> PartialResult:
        """The answer of a part that keeps this."""
        began = time.perf_counter()
        answer = respond(self.question, self.n_sums, kept, self.common, self.share)
        if self.asked_by == _here():  # whose clock knows
            return answer
        return replace(answer, prepared=preparing.seconds(began, time.perf_counter()))


def _here() -> tuple[str, int]:
    return platform.node(), os.getpid()


@sizeof.register(PartialResult)
def _size_of_answer(answer: PartialResult) -> int:
    """What a scheduler has to know before it moves an answer, or spills it to disk."""
    return int(sizeof(answer.sums) + sizeof(answer.found) + sizeof(answer.kept))


@sizeof.register(Rules)
def _size_of_engine(engine: Any) -> int:
    beside = engine.sample_weight.nbytes + engine.allowed.nbytes + engine.prior.nbytes
    return int(engine.n_bytes + engine.shape.offsets.nbytes + beside)
