"""The engine on a device: every pass goes over the tensor in chunks of whole samples."""

import math

import numpy as np
import torch

from mixsolve.arrays.interop import array_source
from mixsolve.arrays.tensor import LossTensor
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.responses import BestResponse, MixedStrategy, NearResponse, SoftResponse
from mixsolve.kernels.constants import CUTOFF
from mixsolve_torch.engine import passes
from mixsolve_torch.engine.blocks import DeviceLosses
from mixsolve_torch.engine.transfer import (
    DeviceBestResponse,
    DeviceNearResponse,
    Sum,
    receive,
)

_MAX_BITS = 52  # an integer that float64 holds


class TorchEngine(DeviceLosses):
    """Passes over a tensor on its own device, chunk by chunk. See `mixsolve.engines.Engine`."""

    @property
    def _rounding(self) -> float:
        """Within which two scores are equal."""
        return 2 * self.n_classifiers * float(np.finfo(np.float64).eps) * self.magnitude

    def best_response(self, weights: np.ndarray) -> BestResponse:
        sums, found = Sum(), []
        lam = self._send(weights)
        for part, rows in self._blocks():
            best = passes.winners(rows, self._scores(part, rows, lam), self._rounding)
            sums.add(passes.exact_sums(best, self._weight[part]))
            found.append(best.candidates.to(self._index_dtype))
        return DeviceBestResponse(sums.receive(), torch.cat(found))

    @property
    def _index_dtype(self) -> torch.dtype:
        """The narrowest type that holds a candidate."""
        return torch.int16 if self.shape.n_candidates <= 1 << 15 else torch.int32

    def near_response(
        self, weights: np.ndarray, radius: float, limit: int, slack: np.ndarray | None = None
    ) -> NearResponse:
        sums, found, near, n_near = Sum(), [], [], 0
        lam = self._send(weights)
        room = None if slack is None else self._send(slack)
        # Losses of classifiers that are not played need not lie in the range of the others.
        lowest = self.lowest if self.classifiers is None else -np.inf
        for part, rows in self._blocks():
            scores = self._scores(part, rows, lam)
            best = passes.winners(rows, scores, self._rounding)
            sums.add(passes.exact_sums(best, self._weight[part]))
            found.append(best.candidates.to(self._index_dtype))
            samples, candidates = passes.near_entries(
                rows,
                scores,
                best,
                radius,
                passes.reaches(rows, lowest, self.spread),
                None if room is None else room[part],
            )
            n_near += samples.shape[0]
            kept = limit * scores.numel() // self.n_rows
            near.append(torch.stack([samples[:kept] + part.start, candidates[:kept]]))
        entries = receive(torch.cat(near, dim=1))
        return DeviceNearResponse(sums.receive(), torch.cat(found), entries[0], entries[1], n_near)

    def soft_response(
        self, weights: np.ndarray, alpha: np.ndarray, hessian: bool = True
    ) -> SoftResponse:
        known = self.recall(weights, alpha, hessian)
        if known is not None:
            return known
        sums, wide = Sum(), self._is_wide(alpha)
        lam, alphas = self._send(weights), self._send_once(alpha)
        for part, rows in self._blocks():
            sums.add(
                passes.soft_sums(
                    rows,
                    self._scores(part, rows, lam),
                    self._weight[part],
                    alphas[part],
                    self._measure(part),
                    rows if self._copies else None,
                    hessian,
                    wide,
                )
            )
        total = sums.receive()
        n = self.n_classifiers
        square = total[1 + n :].reshape(n, n) if hessian else None
        response = SoftResponse(
            float(total[0]),
            total[1 : 1 + n],
            None if square is None else 0.5 * (square + square.T),
        )
        return self.remember(weights, alpha, response)

    def _is_wide(self, alpha: np.ndarray) -> bool:
        """Whether logarithms would lose digits of the spread; see `passes.gibbs_shares`."""
        return bool(alpha.max() > self.spread)

    def soft_sums(
        self, weights: np.ndarray, alpha: np.ndarray, block: np.ndarray, n_blocks: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Eq. (7) and its gradient on each block, in one pass."""
        lam, alphas, blocks = self._send(weights), self._send_once(alpha), self._send(block)
        wide = self._is_wide(alpha)
        sums = torch.zeros(
            (n_blocks, 1 + self.n_classifiers), dtype=torch.float64, device=lam.device
        )
        for part, rows in self._blocks():
            each = passes.soft_samples(
                rows, self._scores(part, rows, lam), alphas[part], self._measure(part), wide
            )
            weight = self._weight[part, None]
            sums.index_add_(0, blocks[part], torch.where(weight > 0.0, weight * each, 0.0))
        found = receive(sums)
        return found[:, 0], found[:, 1:]

    def gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        lam, alphas = self._send(weights), self._send_once(alpha)
        cutoff = CUTOFF + self.surprise - math.log(self.shape.n_candidates)
        parts = []
        for part, rows in self._blocks():
            scores = self._scores(part, rows, lam)
            counts, candidates, probabilities = passes.gibbs_entries(
                scores, alphas[part], self._measure(part), cutoff
            )
            candidates = candidates.to(self._index_dtype)
            parts.append((receive(counts), receive(candidates), receive(probabilities)))
        lengths, places, shares = map(np.concatenate, zip(*parts, strict=True))
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return MixedStrategy(indptr, places.astype(np.int64), shares, self.shape.n_candidates)

    def expected_losses(self, attack: MixedStrategy) -> np.ndarray:
        samples, candidates, sums = attack.samples, attack.candidates, Sum()
        mass = attack.probabilities * self.sample_weight[samples]
        if self._idle is not None:
            counted = mass > 0.0
            samples, candidates, mass = samples[counted], candidates[counted], mass[counted]
        for part, rows in self._chosen(samples, candidates):
            sums.add(self._send(mass[part]) @ rows)
        return sums.receive()

    def subsample(self, samples: np.ndarray) -> "TorchEngine":
        rows, rules = self._tensor[self._send(samples)], self.restricted(samples)
        part = TorchEngine(rows, *rules, self._chunk, self.classifiers)
        return part.in_unit(self._exponent) if self._exponent else part

    def in_memory(self) -> MemoryEngine:
        tensor = LossTensor.from_source(array_source(self._tensor))
        if self._exponent:
            tensor = tensor.scaled(-self._exponent)
        return MemoryEngine(tensor, self.sample_weight, self.allowed, self.prior, self.classifiers)

    def distinct(self, limit: int, dominance: bool) -> tuple[MemoryEngine, np.ndarray] | None:
        """See `mixsolve.engines.memory.Condensing.distinct`; for two-valued losses, L <= 52."""
        if self.n_classifiers > _MAX_BITS or self.prior.size:
            return None
        parts: list[tuple[np.ndarray, ...]] = []
        left = limit
        for part, rows in self._blocks():
            allowed = None if self._allowed is None else self._allowed[part]
            found = passes.distinct_sets(rows, allowed, self.lowest, self.highest)
            if found is None:
                return None
            left -= found[1].shape[0]
            if left < 0:
                return None
            counts, candidates, codes, mass = map(receive, found)
            bits = codes[:, None] >> np.arange(self.n_classifiers) & 1
            kept = np.where(bits, self.highest, self.lowest).astype(self._two_valued_dtype)
            parts.append((counts, candidates.astype(np.int32), kept, mass.astype(np.float64)))
        counts, candidates, kept, mass = map(np.concatenate, zip(*parts, strict=True))
        tensor = LossTensor.from_rows(kept, np.concatenate([[0], np.cumsum(counts)]))
        nothing = np.empty(0, dtype=np.uint8)
        return MemoryEngine(tensor, self.sample_weight, nothing, mass, self.classifiers), candidates

    @property
    def _two_valued_dtype(self) -> type[np.generic]:
        bits = {self.lowest, self.highest} <= {0.0, 1.0}
        return np.uint8 if bits else np.float64
