"""The engine for a tensor in shards: each pass is a map over the shards and a sum of their results.

The method runs in one process. A shard is a range of samples with an engine of its own, in a worker
of a cluster or on a rank of a distributed program. Exchanged with the shards are

- weights (L) to every shard; value and gradient (1 + L), or with the Hessian 1 + L + L^2, back,
  summed on the way;
- one or two bytes a sample for the best candidates, where a pass has any, and the near rows for the
  small games that "lp" and "newton" solve;
- one number a sample for the weights of the samples, a mask and a base measure, once, if they are
  not uniform, and for the final strategy, which is part of the answer. For alpha > 0 the strategy
  may have an entry for every candidate; a large one is computed when it is first read.

Where shards are, and how a task gets there, is the matter of `mixsolve.engines.shards.Shards`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from mixsolve.arrays.tensor import LossTensor, Shape
from mixsolve.base.tuning import tuning
from mixsolve.engines import shard_tasks
from mixsolve.engines.bookkeeping import Bookkeeping
from mixsolve.engines.deferred import DeferredStrategy
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.packed import PackedStrategy, narrow
from mixsolve.engines.responses import BestResponse, MixedStrategy, NearResponse, SoftResponse
from mixsolve.engines.shard_tasks import Task, shortened
from mixsolve.engines.shards import Handle, Reduced, Shards

DeferGibbs = Callable[["ShardedEngine", np.ndarray, np.ndarray], Callable[[], MixedStrategy]]
"""Given an engine, weights and alpha: what computes the Gibbs strategy after the solve."""


class ShardedEngine(Bookkeeping):
    """Passes over a tensor in shards. See `mixsolve.engines.Engine`.

    Parameters
    ----------
    shards : Shards
        Where they are.
    engines : Handle
        An engine of each shard, with its weights in the whole game and the extremes of the whole.
    bounds : ndarray of int64, shape (n_shards + 1,)
        First sample of each shard.
    shape : Shape
        Of the whole.
    sample_weight, allowed, prior : ndarray
        See `mixsolve.engines.Losses.engine`.
    n_bytes : int
        Memory of the losses as they are stored.
    extremes : tuple of float
        Lowest and highest loss that may be played.
    defer_gibbs : DeferGibbs, optional
        For a Gibbs strategy that is computed when it is first read; always gathered by default.
    """

    def __init__(
        self,
        shards: Shards,
        engines: Handle,
        bounds: np.ndarray,
        shape: Shape,
        sample_weight: np.ndarray,
        allowed: np.ndarray,
        prior: np.ndarray,
        n_bytes: int,
        extremes: tuple[float, float],
        defer_gibbs: DeferGibbs | None = None,
    ) -> None:
        super().__init__(shape, sample_weight, allowed, prior)
        self.shards = shards
        self.n_bytes = n_bytes
        self.take_range(*extremes)
        self._engines = engines
        self._bounds = bounds
        self._defer_gibbs = defer_gibbs
        self._scattered: list[tuple[np.ndarray, Handle]] = []
        self.exponent = 0

    @classmethod
    def open(
        cls,
        shards: Shards,
        shape: Shape,
        sample_weight: np.ndarray,
        allowed: np.ndarray,
        prior: np.ndarray,
        defer_gibbs: DeferGibbs | None = None,
    ) -> "ShardedEngine":
        """Make an engine of every shard, then give each the extremes of all."""
        bounds = shards.bounds
        rows = shape.offsets[bounds]
        own = [
            (first, shortened(sample_weight[first:last]), allowed[low:high], prior[low:high])
            for first, last, low, high in zip(
                bounds[:-1].tolist(), bounds[1:].tolist(), rows[:-1], rows[1:], strict=True
            )
        ]
        opened = shards.map_reduce(shard_tasks.open_shard, [shards.losses], own=own)
        lowest, highest, n_bytes = zip(*_present(opened.gathered), strict=True)
        extremes = min(lowest), max(highest)
        rules = sample_weight, allowed, prior
        engine = cls(
            shards, opened.states, bounds, shape, *rules, sum(n_bytes), extremes, defer_gibbs
        )
        engine._share_extremes()
        engine.n_passes += 1
        return engine

    def close(self) -> None:
        """Release what the shards keep."""
        self.shards.close()

    def scan(self) -> tuple[float, float]:
        confined = self._map_reduce(shard_tasks.confine, self.classifiers, passes=1)
        self._engines = confined.states
        lowest, highest = zip(*_present(confined.gathered), strict=True)
        self.take_range(min(lowest), max(highest))
        self._share_extremes()
        return self.lowest, self.highest

    def in_unit(self, exponent: int) -> Self:
        scaled = super().in_unit(exponent)
        scaled.exponent = exponent
        scaled._engines = self._map_reduce(shard_tasks.in_unit, exponent).states
        return scaled

    def weighed(self, sample_weight: np.ndarray) -> Self:
        """See `Bookkeeping.weighed`; every shard gets its part of the weights."""
        part = super().weighed(sample_weight)
        part._share_extremes()
        return part

    def group_sums(self, candidates: np.ndarray, block: np.ndarray, n_blocks: int) -> np.ndarray:
        """See `Bookkeeping.group_sums`; B x L numbers travel, besides the candidates."""
        own = list(
            zip(
                (narrow(mine, self.shape.n_candidates) for mine in self._shares(candidates)),
                (narrow(mine, n_blocks) for mine in self._shares(block)),
                strict=True,
            )
        )
        reduced = self._map_reduce(
            shard_tasks.group_sums,
            n_blocks,
            own=own,
            n_sums=n_blocks * self.n_classifiers,
            passes=self.n_samples / self.n_rows,
        )
        return reduced.sums.reshape(n_blocks, self.n_classifiers)

    def soft_sums(
        self, weights: np.ndarray, alpha: np.ndarray, block: np.ndarray, n_blocks: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Bookkeeping.soft_sums`; B x (1 + L) numbers travel."""
        own = [(narrow(mine, n_blocks),) for mine in self._shares(block)]
        n = self.n_classifiers
        sums = self._map_reduce(
            shard_tasks.soft_sums,
            weights,
            n_blocks,
            scattered=[alpha],
            own=own,
            n_sums=n_blocks * (1 + n),
            passes=1,
        ).sums
        return sums[:n_blocks], sums[n_blocks:].reshape(n_blocks, n)

    def _shares(self, values: np.ndarray) -> list[np.ndarray]:
        """Each shard's numbers of those for each sample."""
        bounds = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        return [values[first:last] for first, last in bounds]

    def _map_reduce(
        self,
        task: Task,
        *common: Any,
        scattered: Sequence[np.ndarray] = (),
        own: Sequence[tuple[Any, ...]] | None = None,
        n_sums: int = 0,
        passes: float = 0.0,
    ) -> Reduced:
        """Run a task on every shard's engine and what was scattered, and count its passes."""
        states = [self._engines, *map(self._scatter, scattered)]
        reduced = self.shards.map_reduce(task, states, *common, own=own, n_sums=n_sums)
        self.n_passes += passes
        return reduced

    def _share_extremes(self) -> None:
        own = self._cut(self.sample_weight)
        self._engines = self._map_reduce(
            shard_tasks.as_shard, self.lowest, self.highest, own=own
        ).states

    def _cut(self, values: np.ndarray) -> list[tuple[np.ndarray | float]]:
        """Each shard's numbers of those for each sample."""
        bounds = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        return [(shortened(values[first:last]),) for first, last in bounds]

    def _scatter(self, values: np.ndarray) -> Handle:
        """A number for each sample, with the shard it belongs to; sent once while it recurs."""
        for known, states in self._scattered:
            if known is values or np.array_equal(known, values):
                return states
        states = self._map_reduce(shard_tasks.scatter, own=self._cut(values)).states
        self._scattered = [(values, states), *self._scattered[:1]]
        return states

    def _split(self, samples: np.ndarray) -> list[slice]:
        """Where each shard's samples lie among ascending ones."""
        cuts = np.searchsorted(samples, self._bounds)
        return [slice(*cuts[number : number + 2]) for number in range(cuts.size - 1)]

    def _local(self, samples: np.ndarray, *others: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        """Each shard's part of ascending samples, in its own numbering, and of other arrays."""
        return [
            (samples[here] - first, *(other[here] for other in others))
            for here, first in zip(self._split(samples), self._bounds, strict=False)
        ]

    def best_response(self, weights: np.ndarray) -> BestResponse:
        n_sums = 1 + self.n_classifiers
        reduced = self._map_reduce(shard_tasks.best_response, weights, n_sums=n_sums, passes=1)
        candidates = np.concatenate(_present(reduced.gathered)).astype(np.int64)
        return BestResponse(float(reduced.sums[0]), reduced.sums[1:], candidates)

    def near_response(
        self, weights: np.ndarray, radius: float, limit: int, slack: np.ndarray | None = None
    ) -> NearResponse:
        n = self.n_classifiers
        reduced = self._map_reduce(
            shard_tasks.near_winners if slack is None else shard_tasks.near_response,
            weights,
            radius,
            limit / self.n_rows,
            scattered=[] if slack is None else [slack],
            n_sums=2 + n,
            passes=1,
        )
        found = [
            (part[0] + first, *part[1:])
            for part, first in zip(reduced.gathered, self._bounds, strict=False)
            if part is not None
        ]
        samples, candidates, best = map(np.concatenate, zip(*found, strict=True))
        sums = reduced.sums
        return NearResponse(
            float(sums[0]),
            sums[1 : 1 + n],
            best.astype(np.int64),
            samples,
            candidates,
            int(sums[-1]),
        )

    def soft_response(
        self, weights: np.ndarray, alpha: np.ndarray, hessian: bool = True
    ) -> SoftResponse:
        known = self.recall(weights, alpha, hessian)
        if known is not None:
            return known
        n = self.n_classifiers
        sums = self._map_reduce(
            shard_tasks.soft_response,
            weights,
            hessian,
            scattered=[alpha],
            n_sums=1 + n + (n * n if hessian else 0),
            passes=1,
        ).sums
        square = sums[1 + n :].reshape(n, n) if hessian else None
        return self.remember(weights, alpha, SoftResponse(float(sums[0]), sums[1 : 1 + n], square))

    def gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        if self._defer_gibbs is not None and self.n_rows > tuning.sent_candidates:
            compute = self._defer_gibbs(self, weights.copy(), alpha)
            return DeferredStrategy(self.n_samples, self.shape.n_candidates, compute)
        return self.gathered_gibbs(weights, alpha)

    def gathered_gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        """The Gibbs strategy, gathered in this process."""
        reduced = self._map_reduce(shard_tasks.gibbs, weights, scattered=[alpha], passes=1)
        return PackedStrategy.joined(_present(reduced.gathered)).unpacked()

    def deferred_gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> Handle:
        """Each shard's part of it, left there, to be computed when it is first read."""
        return self._map_reduce(shard_tasks.deferred_gibbs, weights, scattered=[alpha]).states

    def gather(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        own, passes = self._local(samples, candidates), samples.size / self.n_rows
        return np.concatenate(
            _present(self._map_reduce(shard_tasks.gather, own=own, passes=passes).gathered)
        )

    def expected_losses(self, attack: MixedStrategy) -> np.ndarray:
        own = [
            (PackedStrategy.of(attack.part(first, last)),)
            for first, last in zip(self._bounds[:-1], self._bounds[1:], strict=True)
        ]
        passes = attack.candidates.size / self.n_rows
        n_sums = self.n_classifiers
        return self._map_reduce(
            shard_tasks.expected_losses, own=own, n_sums=n_sums, passes=passes
        ).sums

    def subsample(self, samples: np.ndarray) -> "ShardedEngine | MemoryEngine":
        """See `mixsolve.engines.Engine.subsample`; a small one is gathered in this process."""
        weight, allowed, prior = self.restricted(samples)
        _, offsets = self.shape.row_indices(samples)
        own = self._local(samples)
        if 8 * offsets[-1] * self.n_classifiers <= tuning.subsample_bytes:
            tensor = self._all_rows(own, offsets)
            return MemoryEngine(tensor, weight, allowed, prior, self.classifiers)
        split = self._split(samples)
        bounds = np.array([0, *(here.stop for here in split)])
        own = [(*mine, weight[here]) for mine, here in zip(own, split, strict=True)]
        extremes = self.lowest, self.highest
        part = ShardedEngine(
            self.shards,
            self._map_reduce(shard_tasks.subsample, *extremes, own=own).states,
            bounds,
            Shape(offsets, self.n_classifiers),
            weight,
            allowed,
            prior,
            int(self.n_bytes * offsets[-1] / self.n_rows),
            extremes,
        )
        part.classifiers = self.classifiers
        return part

    def in_memory(self) -> MemoryEngine:
        tensor = self._all_rows(self._local(np.arange(self.n_samples)), self.shape.offsets)
        return MemoryEngine(tensor, self.sample_weight, self.allowed, self.prior, self.classifiers)

    def _all_rows(self, own: list[tuple[np.ndarray, ...]], offsets: np.ndarray) -> LossTensor:
        rows = _present(self._map_reduce(shard_tasks.all_rows, own=own).gathered)
        return LossTensor.from_rows(np.concatenate(rows), offsets)

    def distinct(self, limit: int, dominance: bool) -> tuple[MemoryEngine, np.ndarray] | None:
        share = limit / self.n_rows
        reduced = self._map_reduce(shard_tasks.distinct, share, dominance, n_sums=1, passes=1)
        if not 0 <= reduced.sums[0] <= limit:
            return None
        found = zip(*_present(reduced.gathered), strict=True)
        counts, rows, mass, candidates = map(np.concatenate, found)
        tensor = LossTensor.from_rows(rows, np.concatenate([[0], np.cumsum(counts)]))
        nothing = np.empty(0, dtype=np.uint8)
        return MemoryEngine(tensor, self.sample_weight, nothing, mass, self.classifiers), candidates


def _present(gathered: list[Any]) -> list[Any]:
    """What the shards with samples sent."""
    return [part for part in gathered if part is not None]
