"""A tensor in a Dask array: its blocks are the shards, and its scheduler does the passes.

A shard is a block of some samples with all their candidates and classifiers. Blocks are read once
and stay where they were read: on the workers of a cluster, with `mixsolve.engines.dask_cluster`, or
in this process, with `mixsolve.engines.dask_local`, if they fit in its memory. Where they do not,
every pass reads them again through the array's graph.

The scheduler is the one that computing the array would use: ``dask.config.set(scheduler=...)``, the
client of a cluster, or threads.
"""

import logging
import sys
from collections.abc import Callable
from contextlib import closing
from math import ceil
from typing import Any

import dask
import dask.base
import numpy as np

from mixsolve.arrays.interop import ArraySource
from mixsolve.arrays.tensor import even_offsets
from mixsolve.base.tuning import tuning
from mixsolve.engines.base import Losses
from mixsolve.engines.responses import MixedStrategy
from mixsolve.engines.sharded import ShardedEngine
from mixsolve.engines.shards import Shards

logger = logging.getLogger("mixsolve")


class DaskLosses(Losses):
    """A loss tensor whose blocks `mixsolve.solve` leaves where Dask has them.

    `mixsolve.solve` wraps Dask arrays above 16 MB in this class by itself; wrap one of any size to
    have it solved in its blocks.

    Parameters
    ----------
    array : dask.array.Array of shape (samples, candidates, classifiers)
        Of any real or boolean type, in chunks of any known sizes.
    """

    def __init__(self, array: Any) -> None:
        n_samples, n_candidates, n_classifiers = array.shape
        super().__init__(even_offsets(n_samples, n_candidates), n_classifiers)
        self._array = whole_samples(array)

    def engine(
        self, sample_weight: np.ndarray, allowed: np.ndarray, prior: np.ndarray
    ) -> ShardedEngine:
        rules = sample_weight, allowed, prior

        def defer_gibbs(engine: ShardedEngine, *at: np.ndarray) -> Callable[[], MixedStrategy]:
            exponent = engine.exponent
            return lambda: self._gibbs(rules, exponent, *at)

        shards = _open_shards(self._array)
        try:
            engine = ShardedEngine.open(shards, self, *rules, defer_gibbs)
        except BaseException:
            shards.close()
            raise
        shards.losses = None  # the engines hold the blocks from here on
        return engine

    def _gibbs(
        self,
        rules: tuple[np.ndarray, ...],
        exponent: int,
        weights: np.ndarray,
        alpha: np.ndarray,
    ) -> MixedStrategy:
        """The Gibbs strategy by itself, after a solve: its blocks are read again."""
        with closing(self.engine(*rules)) as engine:
            scaled = engine.in_unit(exponent) if exponent else engine
            return scaled.gathered_gibbs(weights, alpha)

    def restore(self, weights: np.ndarray) -> np.ndarray:
        return weights


def open_source(source: ArraySource) -> DaskLosses:
    """Losses of a Dask array; `mixsolve.engines.open_losses` calls this."""
    return DaskLosses(source.data)


def whole_samples(array: Any) -> Any:
    """The same array (N, m, L) in chunks of whole samples, neither tiny nor huge.

    It has one chunk along the candidates and the classifiers, and no chunk without samples.
    """
    _, n_candidates, n_classifiers = array.shape
    per_sample = n_candidates * n_classifiers * array.dtype.itemsize
    small = max(tuning.small_block, min(array.nbytes // tuning.blocks, tuning.large_block))
    sizes: list[int] = []
    for chunk in array.chunks[0]:
        pieces = ceil(chunk * per_sample / tuning.large_block)
        for piece in np.diff(np.linspace(0, chunk, pieces + 1).astype(np.int64)).tolist():
            if sizes and (sizes[-1] + piece) * per_sample <= small:
                sizes[-1] += piece
            elif piece:
                sizes.append(piece)
    wanted = (tuple(sizes), (n_candidates,), (n_classifiers,))
    # In place of a shuffle through the disks of a cluster, which could not lose a worker.
    return array if array.chunks == wanted else array.rechunk(wanted, method="tasks")


def _open_shards(array: Any) -> Shards:
    get = dask.base.get_scheduler(collections=[array])
    client = getattr(get, "__self__", None)
    distributed = sys.modules.get("distributed")
    if distributed is not None and isinstance(client, distributed.Client):
        from mixsolve.engines.dask_cluster import ClusterShards

        return ClusterShards(client, array)
    from mixsolve.engines.dask_local import LocalShards

    return LocalShards(get, array)
