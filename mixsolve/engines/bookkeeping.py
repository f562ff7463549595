"""What every engine does in host memory, without reading losses.

Weights of the samples, mask and base measure; the passes counted; and the unit of 2^e that losses
are counted in (`mixsolve.engines.base`).
"""

import math
from copy import copy
from dataclasses import replace
from typing import NoReturn, Self

import numpy as np

from mixsolve.arrays.tensor import Shape
from mixsolve.base.errors import MixsolveError, NonFiniteLossError
from mixsolve.engines.base import Engine
from mixsolve.engines.responses import MixedStrategy, SoftAnswer, SoftResponse
from mixsolve.kernels.constants import PLAIN_EXPONENTS

_SUMMED_TOGETHER = 1 << 16  # samples
_MOST_PASSES = 200  # that eq. (7) on blocks may take


def add_by_block(sums: np.ndarray, block: np.ndarray, weight: np.ndarray, rows: np.ndarray) -> None:
    """Add weighted rows (n, L) to the sums (B, L) of their blocks (n,)."""
    for classifier in range(rows.shape[1]):
        sums[:, classifier] += np.bincount(
            block, weight * rows[:, classifier], minlength=sums.shape[0]
        )


class Bookkeeping:
    """Base class of engines: everything that needs no losses.

    Parameters
    ----------
    shape : Shape
        Of the losses.
    sample_weight, allowed, prior : ndarray
        See `mixsolve.engines.Losses.engine`.
    classifiers : ndarray of int64, shape (s,), optional
        Those that may have a weight, ascending; all by default.
    """

    def __init__(
        self,
        shape: Shape,
        sample_weight: np.ndarray,
        allowed: np.ndarray,
        prior: np.ndarray,
        classifiers: np.ndarray | None = None,
    ) -> None:
        self.shape = shape
        self.n_samples = shape.n_samples
        self.n_classifiers = shape.n_classifiers
        self.n_rows = shape.n_rows
        self.n_passes = 0.0
        self.sample_weight = sample_weight
        self.allowed = allowed
        self.prior = prior
        self.classifiers = classifiers
        self._last: tuple[np.ndarray, np.ndarray, SoftResponse] | None = None
        self._answer: tuple[np.ndarray, np.ndarray, SoftAnswer] | None = None

    def recall(self, weights: np.ndarray, alpha: np.ndarray, hessian: bool) -> SoftResponse | None:
        """The last soft response, if it was at these weights (and has a Hessian)."""
        if self._last is None:
            return None
        known_weights, known_alpha, known = self._last
        if known_alpha is not alpha or not np.array_equal(known_weights, weights):
            return None
        if not hessian:
            return replace(known, hessian=None)
        return None if known.hessian is None else known

    def remember(
        self, weights: np.ndarray, alpha: np.ndarray, response: SoftResponse
    ) -> SoftResponse:
        """Store a soft response for `recall`; return it."""
        self._last = weights.copy(), alpha, response
        return response

    def recall_answer(
        self, weights: np.ndarray, alpha: np.ndarray | None = None
    ) -> SoftAnswer | None:
        """The last soft answer, if it was at these weights (and this alpha, where one is given)."""
        if self._answer is None:
            return None
        known_weights, known_alpha, known = self._answer
        same = alpha is None or known_alpha is alpha
        return known if same and np.array_equal(known_weights, weights) else None

    def remember_answer(
        self, weights: np.ndarray, alpha: np.ndarray, answer: SoftAnswer
    ) -> SoftAnswer:
        """Store a soft answer for `recall_answer`; return it."""
        self._answer = weights.copy(), alpha, answer
        return answer

    def rough_response(self, weights: np.ndarray, alpha: np.ndarray) -> SoftResponse:
        """See `mixsolve.engines.Engine.rough_response`."""
        return self.soft_response(weights, alpha)

    def soft_answer(self, weights: np.ndarray, alpha: np.ndarray) -> SoftAnswer:
        """See `mixsolve.engines.Engine.soft_answer`."""
        return SoftAnswer(self.soft_response(weights, alpha, False))

    @property
    def idle(self) -> np.ndarray | None:
        """Samples of weight 0, bool of shape (N,); None where there are none."""
        idle = self.sample_weight == 0.0
        return idle if idle.any() else None

    def take_range(self, lowest: float, highest: float) -> None:
        """Set the extremes of the losses that count: the unit of the gap."""
        self.lowest, self.highest = lowest, highest
        nothing = lowest > highest  # counts, in a part of a larger game
        self.spread = 0.0 if nothing else highest - lowest
        self.magnitude = 0.0 if nothing else max(abs(lowest), abs(highest))

    def as_shard(self, sample_weight: np.ndarray, lowest: float, highest: float) -> Self:
        """The same engine as a shard of a larger game: its weights there, and the game's extremes.

        The weights (N,) of all shards sum to 1.
        """
        part = copy(self)
        part.sample_weight = sample_weight
        part.take_range(lowest, highest)
        part._last = part._answer = None
        return part

    def weighed(self, sample_weight: np.ndarray) -> Self:
        """The same engine with other weights (N,) of its samples, and no passes counted yet."""
        part = self.as_shard(sample_weight, self.lowest, self.highest)
        part.n_passes = 0.0
        return part

    def group_sums(self, candidates: np.ndarray, block: np.ndarray, n_blocks: int) -> np.ndarray:
        """Weighted losses of one candidate (N,) of each sample, summed by blocks: (B, L)."""
        sums = np.zeros((n_blocks, self.n_classifiers))
        for first in range(0, self.n_samples, _SUMMED_TOGETHER):
            some = np.arange(first, min(first + _SUMMED_TOGETHER, self.n_samples))
            some = some[self.sample_weight[some] > 0.0]
            rows = self.gather(some, candidates[some])
            add_by_block(sums, block[some], self.sample_weight[some], rows)
        return sums

    def soft_sums(
        self, weights: np.ndarray, alpha: np.ndarray, block: np.ndarray, n_blocks: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Eq. (7) and its gradient on each block, (B,) and (B, L); a pass for each block."""
        if n_blocks > _MOST_PASSES:
            raise MixsolveError(
                f"alpha > 0 with {n_blocks} groups, or with a tail over so many samples, would "
                "take a pass over the losses for each on this engine; give the losses as a NumPy "
                "array"
            )
        values, gradients = np.zeros(n_blocks), np.zeros((n_blocks, self.n_classifiers))
        for number in range(n_blocks):
            part = self.weighed(np.where(block == number, self.sample_weight, 0.0))
            soft = part.soft_response(weights, alpha, False)
            values[number], gradients[number] = soft.value, soft.gradient
            self.n_passes += part.n_passes
        return values, gradients

    def soft_response(
        self, weights: np.ndarray, alpha: np.ndarray, hessian: bool = True
    ) -> SoftResponse:
        """See `mixsolve.engines.Engine.soft_response`."""
        raise NotImplementedError

    def gather(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """See `mixsolve.engines.Engine.gather`."""
        raise NotImplementedError

    def scan(self) -> tuple[float, float]:
        """Extremes of the losses that count, in a pass; refuse one that is NaN or infinite."""
        raise NotImplementedError

    def confined(self, classifiers: np.ndarray) -> Self:
        """The same engine for a game in which only some classifiers may have a weight."""
        part = copy(self)
        part.classifiers = classifiers
        part.take_range(*part.scan())
        return part

    def in_unit(self, exponent: int) -> Self:
        """The same engine with its losses in units of 2^exponent."""
        part = copy(self)
        part.take_range(*np.ldexp([self.lowest, self.highest], -exponent).tolist())
        part._last = part._answer = None
        return part

    def refuse(self, loss: float, row: int, classifier: int) -> NoReturn:
        """Raise the error for the first loss that is NaN or infinite."""
        samples, candidates = self._locate(np.array([row]))
        raise NonFiniteLossError(loss, int(samples[0]), int(candidates[0]), classifier)

    def _locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        samples = np.searchsorted(self.shape.offsets, rows, side="right") - 1
        return samples, rows - self.shape.offsets[samples]

    def restricted(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sample weights (of sum 1), allowed candidates and base measure of a few samples."""
        weight = self.sample_weight[samples]
        total = weight.sum()
        weight = weight / total if total > 0 else np.full(samples.size, 1.0 / samples.size)
        if not self.allowed.size and not self.prior.size:
            return weight, self.allowed, self.prior
        rows, _ = self.shape.row_indices(samples)
        return (
            weight,
            self.allowed[rows] if self.allowed.size else self.allowed,
            self.prior[rows] if self.prior.size else self.prior,
        )

    def every_candidate(self) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(self.allowed) if self.allowed.size else np.arange(self.n_rows)
        return self._locate(rows)

    def log_prior(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        offsets = self.shape.offsets
        if not self.prior.size and not self.allowed.size:
            return -np.log(np.diff(offsets)[samples])
        measure = self.prior if self.prior.size else np.ones(self.n_rows)
        if self.allowed.size:
            measure = measure * self.allowed
        totals = np.add.reduceat(measure, offsets[:-1])
        return np.log(measure[offsets[samples] + candidates] / totals[samples])

    @property
    def surprise(self) -> float:
        """A bound on log(1 / p_ij) of all candidates that may be played."""
        least = math.log(self.shape.n_candidates)
        if not self.prior.size:
            return least
        played = self.prior[self.allowed.view(np.bool_)] if self.allowed.size else self.prior
        return least + float(np.log(played.max()) - np.log(played.min()))

    def strategy(
        self, samples: np.ndarray, candidates: np.ndarray, mass: np.ndarray
    ) -> MixedStrategy:
        # These arrays are large where the game is: few live at a time.
        totals = np.bincount(samples, weights=mass, minlength=self.n_samples)
        idle = np.searchsorted(samples, np.flatnonzero(totals == 0))
        if idle.size:
            mass = mass.copy()
            mass[idle] = 1.0
            totals[samples[idle]] = 1.0
        kept = mass > 0
        if not kept.all():
            samples, candidates, mass = samples[kept], candidates[kept], mass[kept]
        probabilities = totals[samples]
        del totals
        np.divide(mass, probabilities, out=probabilities)
        indptr = np.zeros(self.n_samples + 1, dtype=np.int64)
        np.cumsum(np.bincount(samples, minlength=self.n_samples), out=indptr[1:])
        return MixedStrategy(indptr, candidates, probabilities, self.shape.n_candidates)


def count_passes(whole: Engine, part: Engine) -> None:
    """Move the passes over a smaller game, as a share of the losses, to the game it is part of."""
    passes = part.n_passes
    if part.n_rows != whole.n_rows:
        passes = passes * part.n_rows / whole.n_rows
    if part.n_classifiers != whole.n_classifiers:
        passes = passes * part.n_classifiers / whole.n_classifiers
    whole.n_passes += passes
    part.n_passes = 0.0


def restart_count(engine: Engine, n_passes: float = 0.0) -> float:
    """Set the number of passes counted so far; returns what it was."""
    before, engine.n_passes = engine.n_passes, n_passes
    return before


def finite_spread(lowest: float, highest: float, losses: str = "losses") -> float:
    """M, the largest of the losses less the smallest; refuse one that float64 cannot represent.

    `losses` is their name in the message.
    """
    with np.errstate(over="ignore"):
        spread = float(np.float64(highest) - np.float64(lowest))
    if not np.isfinite(spread):
        raise MixsolveError(
            f"{losses} range from {lowest} to {highest}, which overflows float64; divide them by "
            "their largest absolute value"
        )
    return spread


def unit_exponent(magnitude: float) -> int:
    """The exponent of the power of 2 in which losses of a magnitude are counted; 0 for plain."""
    exponent = math.frexp(magnitude)[1]
    return exponent if abs(exponent) > PLAIN_EXPONENTS else 0


def in_losses_unit(value: float, exponent: int) -> float:
    """A figure of the engine's unit in that of the losses; infinite where it overflows."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)
