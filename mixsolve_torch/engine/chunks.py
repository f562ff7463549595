"""The engine on a device: every pass goes over the tensor in chunks of whole samples."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mixsolve.arrays.interop import array_source
from mixsolve.arrays.tensor import LARGEST_SCALED, LossTensor, Shape, even_offsets
from mixsolve.engines.bookkeeping import Bookkeeping
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.responses import BestResponse, MixedStrategy, NearResponse, SoftResponse
from mixsolve.kernels.constants import CUTOFF
from mixsolve_torch.engine import passes
from mixsolve_torch.engine.transfer import (
    DeviceBestResponse,
    DeviceNearResponse,
    Sum,
    receive,
)

_LARGEST_IDLE = 1e150
_MAX_BITS = 52  # an integer that float64 holds


class TorchEngine(Bookkeeping):
    """Passes over a tensor on its own device, chunk by chunk. See `mixsolve.engines.Engine`.

    Parameters
    ----------
    tensor : torch.Tensor of shape (N, m, L)
        Without a gradient.
    chunk : int
        Losses read at once, in whole samples.
    """

    def __init__(
        self,
        tensor: Tensor,
        sample_weight: np.ndarray,
        allowed: np.ndarray,
        prior: np.ndarray,
        chunk: int,
        classifiers: np.ndarray | None = None,
    ) -> None:
        n_samples, n_candidates, n_classifiers = tensor.shape
        shape = Shape(even_offsets(n_samples, n_candidates), n_classifiers)
        super().__init__(shape, sample_weight, allowed, prior, classifiers)
        self.n_bytes = tensor.numel() * tensor.element_size()
        self._tensor = tensor
        self._chunk = chunk
        self._weight = self._send(sample_weight)
        table = (n_samples, n_candidates)
        self._allowed = self._send(allowed.view(np.bool_)).view(table) if allowed.size else None
        self._prior = self._send(prior).view(table) if prior.size else None
        self._sent: tuple[np.ndarray, Tensor] | None = None
        self._exponent = 0
        self._find_idle()
        self.take_range(*self.scan())

    @property
    def _rounding(self) -> float:
        """Within which two scores are equal."""
        return 2 * self.n_classifiers * float(np.finfo(np.float64).eps) * self.magnitude

    def as_shard(self, sample_weight: np.ndarray, lowest: float, highest: float) -> "TorchEngine":
        part = super().as_shard(sample_weight, lowest, highest)
        part._weight = part._send(sample_weight)
        part._find_idle()
        return part

    def in_unit(self, exponent: int) -> "TorchEngine":
        part = super().in_unit(exponent)
        part._exponent = self._exponent + exponent
        return part

    def _find_idle(self) -> None:
        idle = self.idle
        self._idle = None if idle is None else self._send(idle)

    def _scaled(self, rows: Tensor) -> Tensor:
        """Losses in the engine's unit, in place; what cannot be played stays finite."""
        if not self._exponent:
            return rows
        half = self._exponent // 2  # 2^-exponent itself may not be a number
        rows.mul_(2.0**-half).mul_(2.0 ** (half - self._exponent))
        return rows.clamp_(-LARGEST_SCALED, LARGEST_SCALED)

    def _send(self, values: np.ndarray) -> Tensor:
        """A copy on the device."""
        return torch.tensor(values, device=self._tensor.device)

    def _send_once(self, values: np.ndarray) -> Tensor:
        """The same for an array of N that recurs, as alpha does."""
        if self._sent is None or self._sent[0] is not values:
            self._sent = values, self._send(values)
        return self._sent[1]

    def _parts(self) -> Iterator[slice]:
        """One pass: samples of each chunk."""
        step = max(1, self._chunk // (self.shape.n_candidates * self.n_classifiers))
        for start in range(0, self.n_samples, step):
            yield slice(start, min(start + step, self.n_samples))
        self.n_passes += 1

    @property
    def _copies(self) -> bool:
        """Whether the rows of a pass are copies, which it may write to."""
        other = self._tensor.dtype != torch.float64 or self._exponent != 0
        return other or self._idle is not None or self._allowed is not None

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """One pass: samples of each chunk, and their losses as float64, 0 where masked.

        These are the tensor's own memory, or stand in one buffer for all chunks, since memory that
        is asked for anew comes page by page on the CPU, which takes longer than the conversion.
        """
        buffer: Tensor | None = None
        for part in self._parts():
            rows = self._tensor[part]
            if self._copies:
                if buffer is None:
                    buffer = torch.empty(rows.shape, dtype=torch.float64, device=rows.device)
                rows = self._scaled(buffer[: rows.shape[0]].copy_(rows))
                if self._idle is not None:  # no difference or square of theirs may overflow
                    bounded = rows.clamp(-_LARGEST_IDLE, _LARGEST_IDLE)
                    torch.where(self._idle[part, None, None], bounded, rows, out=rows)
                if self._allowed is not None:
                    rows.masked_fill_(~self._allowed[part, :, None], 0.0)
            yield part, rows

    def _scores(self, part: slice, rows: Tensor, weights: Tensor) -> Tensor:
        scores = rows @ weights
        return scores if self._allowed is None else self._hide(scores, part)

    def _hide(self, scores: Tensor, part: slice) -> Tensor:
        assert self._allowed is not None
        return scores.masked_fill_(~self._allowed[part], -torch.inf)

    def _measure(self, part: slice) -> Tensor | None:
        if self._prior is not None:
            return self._prior[part]
        return None if self._allowed is None else self._allowed[part].to(torch.float64)

    def scan(self) -> tuple[float, float]:
        extremes, finite = [], []
        for part in self._parts():
            rows = self._tensor[part]
            if rows.dtype == torch.bool:
                rows = rows.to(torch.uint8)
            if self._allowed is not None:
                rows = rows[self._allowed[part]]
            if self._idle is not None or self.classifiers is not None:
                finite.append(rows.isfinite().all())
                rows = self._counted(part, rows)
            if rows.numel():
                extremes.append(torch.stack(rows.aminmax()).to(torch.float64))
        if finite and not torch.stack(finite).all():
            self._refuse_non_finite()
        if not extremes:
            return np.inf, -np.inf
        lowest, highest = torch.stack(extremes).unbind(1)
        low, high = receive(torch.stack([lowest.min(), highest.max()])).tolist()
        if not np.isfinite([low, high]).all():
            self._refuse_non_finite()
        return low, high

    def _counted(self, part: slice, rows: Tensor) -> Tensor:
        """Losses that count, of the candidates of a chunk that may be played."""
        if self._idle is not None:
            busy = ~self._idle[part]
            if self._allowed is not None:
                busy = busy[:, None].expand_as(self._allowed[part])[self._allowed[part]]
            rows = rows[busy]
        return rows if self.classifiers is None else rows[..., self._send(self.classifiers)]

    def _refuse_non_finite(self) -> None:
        for part in self._parts():
            bad = ~self._tensor[part].isfinite()
            if self._allowed is not None:
                bad &= self._allowed[part, :, None]
            if bad.any():
                sample, candidate, classifier = (int(axis[0]) for axis in bad.nonzero().T)
                loss = float(self._tensor[part][sample, candidate, classifier])
                row = (part.start + sample) * self.shape.n_candidates + candidate
                self.refuse(loss, row, classifier)

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
        reach = self.spread * float(np.sqrt(self.n_classifiers))
        for part, rows in self._blocks():
            scores = self._scores(part, rows, lam)
            best = passes.winners(rows, scores, self._rounding)
            sums.add(passes.exact_sums(best, self._weight[part]))
            found.append(best.candidates.to(self._index_dtype))
            samples, candidates = passes.near_entries(
                rows, scores, best, radius, reach, None if room is None else room[part]
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

    def _chosen(
        self, samples: np.ndarray, candidates: np.ndarray
    ) -> Iterator[tuple[slice, Tensor]]:
        """Chosen rows as float64 on the device, some at a time."""
        step = max(1, self._chunk // self.n_classifiers)
        whole = self._tensor.is_contiguous()
        for first in range(0, samples.size, step):
            part = slice(first, first + step)
            if whole:
                where = samples[part] * self.shape.n_candidates + candidates[part]
                rows = self._tensor.view(-1, self.n_classifiers).index_select(0, self._send(where))
            else:
                rows = self._tensor[self._send(samples[part]), self._send(candidates[part])]
            yield part, self._scaled(rows.to(torch.float64))
        self.n_passes += samples.size / self.n_rows

    def gather(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        chosen = np.empty((samples.size, self.n_classifiers))
        for part, rows in self._chosen(samples, candidates):
            chosen[part] = receive(rows)
        return chosen

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
