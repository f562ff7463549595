"""Losses on a device as float64: chunks of whole samples for a pass, chosen rows, the extremes."""

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mixsolve.arrays.tensor import LARGEST_SCALED, Shape, even_offsets
from mixsolve.engines.bookkeeping import Bookkeeping
from mixsolve_torch.engine.transfer import receive

_LARGEST_IDLE = 1e150


class DeviceLosses(Bookkeeping):
    """Losses on a device, read in chunks of whole samples; what an engine on them starts from.

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

    def as_shard(self, sample_weight: np.ndarray, lowest: float, highest: float) -> Self:
        part = super().as_shard(sample_weight, lowest, highest)
        part._weight = part._send(sample_weight)
        part._find_idle()
        return part

    def in_unit(self, exponent: int) -> Self:
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
