"""Shards of a tensor in this process: the reference for shards anywhere else."""

import pickle

import numpy as np

from mixsolve.arrays.tensor import even_offsets
from mixsolve.engines import Losses
from mixsolve.engines.shard_tasks import run_task
from mixsolve.engines.sharded import ShardedEngine
from mixsolve.engines.shards import Reduced, Shards


class InProcessShards(Shards):
    """A list of arrays. What another process would be sent is pickled and read again."""

    def __init__(self, arrays):
        lengths = [array.shape[0] for array in arrays]
        super().__init__(
            [array if array.shape[0] else None for array in arrays],
            np.concatenate([[0], np.cumsum(lengths)]),
        )
        self.tasks = []

    def _map_reduce(self, task, states, common, own, n_sums):
        self.tasks.append((task.__name__, self.traffic.sent, self.traffic.received))
        results = []
        for shard in range(len(self)):
            mine = [handle[shard] for handle in states]
            sent = _crossed((task, common, () if own is None else own[shard]))
            result = run_task(sent[0], n_sums, mine, *sent[1:])
            results.append((_crossed((result.sums, result.gathered)), result.state))
        return Reduced(
            sum(sums for (sums, _), _ in results),
            [gathered for (_, gathered), _ in results],
            [state for _, state in results],
        )


def _crossed(thing):
    return pickle.loads(pickle.dumps(thing))


class ShardedLosses(Losses):
    """Losses split at the given samples, in this process."""

    def __init__(self, losses, cuts):
        n_samples, n_candidates, n_classifiers = losses.shape
        super().__init__(even_offsets(n_samples, n_candidates), n_classifiers)
        self._arrays = np.split(losses, cuts)

    def engine(self, sample_weight, allowed, prior):
        self.shards = InProcessShards(self._arrays)
        return ShardedEngine.open(self.shards, self, sample_weight, allowed, prior)

    def restore(self, weights):
        return weights
