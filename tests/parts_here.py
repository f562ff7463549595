"""Parts of a tensor in this process: what every other place for parts is measured against."""

import pickle

import numpy as np

from mixsolve.arrays.tensor import even_offsets
from mixsolve.engines import Losses
from mixsolve.engines.shard import respond
from mixsolve.engines.sharded import Parts, PartsEngine, Reply


class PartsHere(Parts):
    """A list of arrays. What would cross a wire is pickled and read again."""

    def __init__(self, arrays):
        lengths = [array.shape[0] for array in arrays]
        super().__init__(
            [array if array.shape[0] else None for array in arrays],
            np.concatenate([[0], np.cumsum(lengths)]),
        )
        self.asked = []

    def _ask(self, question, kept, common, shares, n_sums):
        self.asked.append((question.__name__, self.traffic.sent, self.traffic.received))
        answers = []
        for part in range(self.n_parts):
            mine = [handle[part] for handle in kept]
            share = () if shares is None else shares[part]
            question_there, common_there, share_there = _crossed((question, common, share))
            answer = respond(question_there, n_sums, mine, common_there, share_there)
            answers.append((_crossed((answer.sums, answer.found)), answer.kept))
        return Reply(
            sum(sums for (sums, _), _ in answers),
            [found for (_, found), _ in answers],
            [kept_there for _, kept_there in answers],
        )


def _crossed(thing):
    return pickle.loads(pickle.dumps(thing))


class LossesInParts(Losses):
    """Losses split at the given samples, in this process."""

    def __init__(self, losses, cuts):
        n_samples, n_candidates, n_classifiers = losses.shape
        super().__init__(even_offsets(n_samples, n_candidates), n_classifiers)
        self._arrays = np.split(losses, cuts)

    def engine(self, sample_weight, allowed, prior):
        self.parts = PartsHere(self._arrays)
        return PartsEngine.open(self.parts, self, sample_weight, allowed, prior)

    def restore(self, weights):
        return weights
