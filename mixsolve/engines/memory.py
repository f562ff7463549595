"""The engine for a tensor this process can read: NumPy blocks, Numba kernels, threads."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Protocol, runtime_checkable

import numpy as np

from mixsolve.arrays.tensor import LossTensor
from mixsolve.base.threads import chunk_bounds, run_chunks, run_shares
from mixsolve.base.tuning import tuning
from mixsolve.engines.bookkeeping import Bookkeeping
from mixsolve.engines.deferred import DeferredStrategy
from mixsolve.engines.responses import (
    BestResponse,
    MixedStrategy,
    NearResponse,
    SoftAnswer,
    SoftResponse,
)
from mixsolve.kernels.constants import CUTOFF
from mixsolve.uncompiled.choice import loops

_GATHER_ENTRIES = 1 << 17
_ROUGH_ROWS = 200  # times L: of so many rows the covariance errs by a tenth or so
_NO_SLACK = np.empty(0)


class MemoryEngine(Bookkeeping):
    """Passes over a `LossTensor`, each sample range in its own chunk.

    Parameters
    ----------
    tensor : LossTensor
        N samples of L losses a candidate.
    sample_weight, allowed, prior, classifiers
        See `Bookkeeping`.
    extremes : (float, float), optional
        Of the losses that count, where they have been checked: otherwise a pass does that.
    """

    def __init__(
        self,
        tensor: LossTensor,
        sample_weight: np.ndarray,
        allowed: np.ndarray,
        prior: np.ndarray,
        classifiers: np.ndarray | None = None,
        extremes: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(tensor, sample_weight, allowed, prior, classifiers)
        self.tensor = tensor
        self.n_bytes = tensor.n_entries * tensor.dtype.itemsize
        self._bounds = tensor.aligned(chunk_bounds(tensor.n_samples, tensor.n_entries))
        self._cutoff = CUTOFF
        if prior.size:
            played = prior[allowed.view(np.bool_)] if allowed.size else prior
            self._cutoff += float(np.log(played.max()) - np.log(played.min()))
        self.take_range(*(self.scan() if extremes is None else extremes))

    def each_block(self, work: Callable[[int, int, int, np.ndarray], None]) -> None:
        """One pass: ``work(chunk, start, stop, rows)`` on every block, chunks in threads."""

        def share(chunks: range, halted: Event) -> None:
            with closing(self.tensor.walk(self._bounds, chunks)) as blocks:
                for block in blocks:
                    if halted.is_set():
                        return
                    work(*block)

        run_shares(share, self._bounds.size - 1)
        self.n_passes += 1

    @property
    def two_valued(self) -> bool:
        """Whether the first losses are all the lowest or the highest: a hint, not a proof."""
        _, _, rows = next(self.tensor.blocks(0, 1))
        return bool(((rows == self.lowest) | (rows == self.highest)).all())

    def _row_range(self, start: int, stop: int) -> slice:
        offsets = self.tensor.offsets
        return slice(int(offsets[start]), int(offsets[stop]))

    def scan(self) -> tuple[float, float]:
        extremes = loops("passes").extremes
        lowest = np.full(self._bounds.size - 1, np.inf)
        highest = -lowest
        finite = np.ones(lowest.size, dtype=np.bool_)
        idle = self.idle

        def work(chunk: int, start: int, stop: int, rows: np.ndarray) -> None:
            if self.allowed.size:
                rows = rows[self.allowed[self._row_range(start, stop)].view(np.bool_)]
            low, high = extremes(rows.reshape(-1))
            if idle is not None or self.classifiers is not None:
                finite[chunk] &= bool(np.isfinite([low, high]).all()) or not rows.size
                low, high = extremes(self._counted(start, stop, rows, idle))
            # NumPy's minimum keeps a NaN, whichever side it comes from.
            lowest[chunk] = np.minimum(lowest[chunk], low)
            highest[chunk] = np.maximum(highest[chunk], high)

        self.each_block(work)
        low, high = float(lowest.min()), float(highest.max())
        nothing = low > high  # of a part whose samples all have weight 0
        if not finite.all() or not (nothing or np.isfinite([low, high]).all()):
            self._refuse_non_finite()
        return low, high

    def _counted(
        self, start: int, stop: int, rows: np.ndarray, idle: np.ndarray | None
    ) -> np.ndarray:
        """Losses that count, flat, of the rows of a block that may be played."""
        if idle is not None:
            owners = np.repeat(idle[start:stop], np.diff(self.tensor.offsets[start : stop + 1]))
            if self.allowed.size:
                owners = owners[self.allowed[self._row_range(start, stop)].view(np.bool_)]
            rows = rows[~owners]
        if self.classifiers is not None:
            rows = rows[:, self.classifiers]
        return np.ascontiguousarray(rows).reshape(-1)

    def _refuse_non_finite(self) -> None:
        offsets = self.tensor.offsets
        for start, stop, rows in self.tensor.blocks(0, self.n_samples):
            bad = ~np.isfinite(rows)
            if self.allowed.size:
                bad &= self.allowed[self._row_range(start, stop), None].view(np.bool_)
            if bad.any():
                row, classifier = np.argwhere(bad)[0]
                self.refuse(rows[row, classifier], int(offsets[start] + row), int(classifier))

    def best_response(self, weights: np.ndarray) -> BestResponse:
        known = self.recall_answer(weights)
        if known is not None and known.best is not None:
            return known.best
        passes = loops("passes")
        values = np.zeros(self._bounds.size - 1)
        gradients = np.zeros((values.size, self.n_classifiers))
        candidates = np.empty(self.n_samples, dtype=np.int64)

        def work(chunk: int, start: int, stop: int, rows: np.ndarray) -> None:
            values[chunk] += passes.best_response(
                rows,
                self.tensor.offsets[start : stop + 1],
                self.allowed[self._row_range(start, stop)],
                self.sample_weight[start:stop],
                weights,
                candidates[start:stop],
                gradients[chunk],
            )

        self.each_block(work)
        return BestResponse(float(values.sum()), gradients.sum(axis=0), candidates)

    def near_response(
        self, weights: np.ndarray, radius: float, limit: int, slack: np.ndarray | None = None
    ) -> NearResponse:
        passes = loops("passes")
        n_chunks = self._bounds.size - 1
        values = np.zeros(n_chunks)
        gradients = np.zeros((n_chunks, self.n_classifiers))
        best = np.empty(self.n_samples, dtype=np.int64)
        counts = np.zeros(n_chunks, dtype=np.int64)
        near: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(n_chunks)]
        reach = self.spread * np.sqrt(self.n_classifiers)

        def work(chunk: int, start: int, stop: int, rows: np.ndarray) -> None:
            room = min(rows.shape[0], limit * rows.shape[0] // self.n_rows)
            samples = np.empty(room, dtype=np.int64)
            candidates = np.empty(room, dtype=np.int64)
            value, found = passes.near_response(
                rows,
                self.tensor.offsets[start : stop + 1],
                self.allowed[self._row_range(start, stop)],
                self.sample_weight[start:stop],
                weights,
                radius,
                reach,
                _NO_SLACK if slack is None else slack[start:stop],
                best[start:stop],
                gradients[chunk],
                samples,
                candidates,
            )
            values[chunk] += value
            counts[chunk] += found
            kept = min(found, room)
            near[chunk].append((samples[:kept] + start, candidates[:kept].copy()))

        self.each_block(work)
        return NearResponse(
            float(values.sum()),
            gradients.sum(axis=0),
            best,
            np.concatenate([samples for part in near for samples, _ in part]),
            np.concatenate([candidates for part in near for _, candidates in part]),
            int(counts.sum()),
        )

    def soft_response(
        self, weights: np.ndarray, alpha: np.ndarray, hessian: bool = True
    ) -> SoftResponse:
        known = self.recall(weights, alpha, hessian)
        if known is not None:
            return known
        return self.remember(weights, alpha, self._soft(weights, alpha, hessian).soft)

    def rough_response(self, weights: np.ndarray, alpha: np.ndarray) -> SoftResponse:
        rough = self._soft(weights, alpha, True, curved=self._some_weights()).soft
        self.remember(weights, alpha, replace(rough, hessian=None))
        return rough

    def _some_weights(self) -> np.ndarray:
        """Weights (N,) of every s-th sample, s times as large; 0 for the others."""
        counted = np.flatnonzero(self.sample_weight > 0.0)
        enough = max(1, _ROUGH_ROWS * self.n_classifiers)
        stride = max(1, self.n_rows * counted.size // (self.n_samples * enough))
        some = np.zeros(self.n_samples)
        some[counted[::stride]] = stride * self.sample_weight[counted[::stride]]
        return some

    def soft_answer(self, weights: np.ndarray, alpha: np.ndarray) -> SoftAnswer:
        known = self.recall_answer(weights, alpha)
        if known is not None:
            return known
        answer = self._soft(weights, alpha, False, pure=True, played=not self.tensor.elsewhere)
        if answer.attack is None:
            answer = replace(answer, attack=self._deferred_gibbs(weights, alpha))
        self.remember(weights, alpha, answer.soft)
        return self.remember_answer(weights, alpha, answer)

    def _soft(
        self,
        weights: np.ndarray,
        alpha: np.ndarray,
        hessian: bool,
        pure: bool = False,
        played: bool = False,
        curved: np.ndarray | None = None,
    ) -> SoftAnswer:
        """Eq. (7) in one pass, with the best response if `pure`, the Gibbs strategy if `played`.

        The Hessian is that of the samples' weights `curved` (N,), the game's own by default.
        """
        soft_passes = loops("soft_passes")
        curved = self.sample_weight if curved is None else curved
        values = np.zeros(self._bounds.size - 1)
        gradients = np.zeros((values.size, self.n_classifiers))
        side = self.n_classifiers if hessian else 0
        hessians = np.zeros((values.size, side, side))
        best = np.empty(self.n_samples if pure else 0, dtype=np.int64)
        sums = np.zeros((values.size, self.n_classifiers + 1))
        counts = np.empty(self.n_samples if played else 0, dtype=np.int64)
        parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in self._bounds[1:]]

        def work(chunk: int, start: int, stop: int, rows: np.ndarray) -> None:
            span = self._row_range(start, stop)
            room = rows.shape[0] if played else 0
            candidates, probabilities = np.empty(room, dtype=np.int64), np.empty(room)
            values[chunk] += soft_passes.soft_answer(
                rows,
                self.tensor.offsets[start : stop + 1],
                self.allowed[span],
                self.prior[span],
                self.sample_weight[start:stop],
                curved[start:stop],
                alpha[start:stop],
                weights,
                self._cutoff,
                gradients[chunk],
                hessians[chunk],
                best[start:stop],
                sums[chunk],
                counts[start:stop],
                candidates,
                probabilities,
            )
            if not played:
                return
            used = int(counts[start:stop].sum())
            if 2 * used < room:  # do not keep arrays that are mostly empty
                candidates, probabilities = candidates[:used].copy(), probabilities[:used].copy()
            parts[chunk].append((candidates[:used], probabilities[:used]))

        self.each_block(work)
        upper = hessians.sum(axis=0)
        soft = SoftResponse(
            float(values.sum()),
            gradients.sum(axis=0),
            np.triu(upper) + np.triu(upper, 1).T if hessian else None,
        )
        pieces = [piece for part in parts for piece in part]
        total = sums.sum(axis=0)
        return SoftAnswer(
            soft,
            BestResponse(float(total[-1]), total[:-1], best) if pure else None,
            self._strategy_of(counts, pieces) if played else None,
        )

    def _strategy_of(
        self, counts: np.ndarray, pieces: list[tuple[np.ndarray, np.ndarray]]
    ) -> MixedStrategy:
        """A strategy from the entries (N,) of each sample, and their pieces in order."""
        indptr = np.concatenate([[0], np.cumsum(counts)])
        attack = MixedStrategy(
            indptr,
            np.empty(indptr[-1], dtype=np.int64),
            np.empty(indptr[-1]),
            self.tensor.n_candidates,
        )
        ends = np.cumsum([candidates.size for candidates, _ in pieces])

        def place(number: int) -> None:
            candidates, probabilities = pieces[number]
            there = slice(ends[number] - candidates.size, ends[number])
            attack.candidates[there] = candidates
            attack.probabilities[there] = probabilities

        run_chunks(place, len(pieces))
        return attack

    def soft_sums(
        self, weights: np.ndarray, alpha: np.ndarray, block: np.ndarray, n_blocks: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Eq. (7) and its gradient on each block, in one pass."""
        group_passes = loops("group_passes")
        n_chunks = self._bounds.size - 1
        values = np.zeros((n_chunks, n_blocks))
        gradients = np.zeros((n_chunks, n_blocks, self.n_classifiers))

        def work(chunk: int, start: int, stop: int, rows: np.ndarray) -> None:
            span = self._row_range(start, stop)
            group_passes.soft_response(
                rows,
                self.tensor.offsets[start : stop + 1],
                self.allowed[span],
                self.prior[span],
                self.sample_weight[start:stop],
                alpha[start:stop],
                weights,
                self._cutoff,
                block[start:stop],
                values[chunk],
                gradients[chunk],
            )

        self.each_block(work)
        return values.sum(axis=0), gradients.sum(axis=0)

    def gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        """See `Engine.gibbs`; for a tensor in a file it is computed when it is first read."""
        known = self.recall_answer(weights, alpha)
        if known is not None and known.attack is not None:
            return known.attack
        if self.tensor.elsewhere:
            return self._deferred_gibbs(weights, alpha)
        return self._gibbs(weights, alpha)

    def _deferred_gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        compute = partial(self._gibbs, weights.copy(), alpha)
        return DeferredStrategy(self.n_samples, self.tensor.n_candidates, compute)

    def _gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        attack = self._soft(weights, alpha, False, played=True).attack
        assert attack is not None
        return attack

    def gather(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        self.n_passes += self.tensor.share_read(samples)
        return self.tensor.take(samples, candidates)

    def subsample(self, samples: np.ndarray) -> "MemoryEngine":
        if not self.tensor.held:
            self.n_passes += self.tensor.share_read(samples)
        rules = self.restricted(samples)
        return MemoryEngine(self.tensor.subsample(samples), *rules, self.classifiers)

    def probe(self, samples: np.ndarray) -> "MemoryEngine":
        """`subsample`, with the extremes of the whole, to see what its rows are like."""
        if not self.tensor.held:
            self.n_passes += self.tensor.share_read(samples)
        rules = self.restricted(samples)
        extremes = self.lowest, self.highest
        return MemoryEngine(self.tensor.subsample(samples), *rules, self.classifiers, extremes)

    def in_unit(self, exponent: int) -> "MemoryEngine":
        part = super().in_unit(exponent)
        part.tensor = self.tensor.scaled(-exponent)
        part._bounds = part.tensor.aligned(chunk_bounds(part.n_samples, part.tensor.n_entries))
        return part

    def only(self, classifiers: np.ndarray) -> "MemoryEngine | None":
        """An engine on a copy for some classifiers; None of a large tensor, or one in a file."""
        share = classifiers.size / self.n_classifiers
        tensor = self.tensor
        if not tensor.held or tensor.elsewhere or self.n_bytes * share > tuning.copied_bytes:
            return None
        rules = self.sample_weight, self.allowed, self.prior
        played = self.classifiers
        if played is not None:
            played = np.flatnonzero(np.isin(classifiers, played))
        part = MemoryEngine(tensor.only(classifiers), *rules, played)
        self.n_passes += share
        return part

    def expected_losses(self, attack: MixedStrategy) -> np.ndarray:
        samples, candidates = attack.samples, attack.candidates
        mass = attack.probabilities * self.sample_weight[samples]
        if self.idle is not None:
            counted = mass > 0.0
            samples, candidates, mass = samples[counted], candidates[counted], mass[counted]
        losses = np.zeros(self.n_classifiers)
        for first in range(0, samples.size, _GATHER_ENTRIES):
            part = slice(first, first + _GATHER_ENTRIES)
            losses += mass[part] @ self.gather(samples[part], candidates[part])
        return losses


@runtime_checkable
class Condensing(Protocol):
    """What an engine outside this process can do besides, so that presolve need not read it."""

    def in_memory(self) -> MemoryEngine:
        """The same game with its losses copied to this process, for games of few samples."""
        ...

    def distinct(self, limit: int, dominance: bool) -> tuple[MemoryEngine, np.ndarray] | None:
        """The same game with each sample's repeated candidates merged, in this process.

        With `dominance`, candidates that another one dominates may be left out as well.

        Returns
        -------
        engine : MemoryEngine
            Its base measure counts how often each candidate was there.
        candidates : ndarray of int32, shape (n_rows,)
            The first candidate of the original that each row of it stands for.

        None where the engine cannot tell, or more than `limit` rows would be left.
        """
        ...
