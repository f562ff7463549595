"""A tensor in parts, wherever they live: each pass asks every part, and the answers are added up.

The methods run in one process. A part is a range of samples with an engine of its own, in a worker
of a cluster or on a rank of a distributed program. Over the wire go

- weights (L) to every part; value and gradient (1 + L), or with the Hessian 1 + L + L^2, back,
  summed on the way;
- the rows in doubt, and which samples changed their winner, for the small games that "lp" and
  "newton" solve;
- one number a sample for the weights of the samples, a mask and a base measure, once, if they are
  not uniform, and for the final strategy, which is part of the answer: of alpha > 0, where it may
  have an entry for every candidate, only if it is small or when it is looked at. Algorithm 1, whose
  answer is made of the best responses, takes one number a sample in each iteration.

Where parts live, and how a question reaches them, is a `Parts`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from mixsolve.arrays.tensor import LossTensor, Shape
from mixsolve.base.tuning import tuning
from mixsolve.engines import shard as questions
from mixsolve.engines.base import BestResponse, NearResponse, SoftResponse
from mixsolve.engines.bookkeeping import Rules
from mixsolve.engines.deferred import DeferredStrategy
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.packed import PackedStrategy
from mixsolve.engines.placed import PlacedBestResponse, PlacedNearResponse
from mixsolve.engines.shard import PartialResult
from mixsolve.engines.strategy import MixedStrategy

Kept = Any
"""What one question left with the parts: a handle for later questions."""

Later = Callable[["PartsEngine", np.ndarray, np.ndarray], Callable[[], MixedStrategy]]
"""Given an engine, weights and alpha: what computes the Gibbs strategy after the solve."""


@dataclass(frozen=True)
class Reply:
    """What the parts said to a question.

    Attributes
    ----------
    sums : ndarray of float64
        Added up over the parts.
    found : list
        What each part sent, None from a part without samples.
    kept : Kept
        What stayed there.
    """

    sums: np.ndarray
    found: list[Any]
    kept: Kept


@dataclass
class Traffic:
    """What went over the wire so far.

    Attributes
    ----------
    rounds : int
        Questions asked.
    sent, received : int
        Bytes of arrays from and to the process that solves, counted once for what goes to every
        part, and once for what is summed on the way.
    """

    rounds: int = 0
    sent: int = 0
    received: int = 0


class Parts(ABC):
    """Where the parts of a tensor live.

    Parameters
    ----------
    losses : Kept
        The parts' losses, as `_ask` takes what is kept.
    bounds : ndarray of int64, shape (n_parts + 1,)
        First sample of each part; a part may have none.

    Attributes
    ----------
    traffic : Traffic
        What went over the wire.
    """

    def __init__(self, losses: Kept, bounds: np.ndarray) -> None:
        self.losses = losses
        self.bounds = bounds
        self.traffic = Traffic()

    @property
    def n_parts(self) -> int:
        """How many there are."""
        return self.bounds.size - 1

    def ask(
        self,
        question: Callable[..., PartialResult],
        kept: Sequence[Kept],
        *common: Any,
        shares: Sequence[tuple[Any, ...]] | None = None,
        n_sums: int = 0,
    ) -> Reply:
        """Ask every part, which calls ``question(*kept_there, *common, *its_share)``.

        Parameters
        ----------
        question : callable
            A function of `mixsolve.engines.shard`, or one that can be pickled.
        kept : sequence of Kept
            What earlier questions left with the parts. Where the first is None, a part does not
            answer.
        *common
            The same for every part.
        shares : sequence of tuple, optional
            Further arguments, for each part its own.
        n_sums : int
            Length of the answers' sums.
        """
        reply = self._ask(question, kept, common, shares, n_sums)
        self.traffic.rounds += 1
        self.traffic.sent += count_bytes(common) + count_bytes(shares)
        self.traffic.received += reply.sums.nbytes + count_bytes(reply.found)
        return reply

    def close(self) -> None:  # noqa: B027
        """Give back what the parts keep; a solve that is over, or failed, asks for nothing more."""

    @abstractmethod
    def _ask(
        self,
        question: Callable[..., PartialResult],
        kept: Sequence[Kept],
        common: tuple[Any, ...],
        shares: Sequence[tuple[Any, ...]] | None,
        n_sums: int,
    ) -> Reply:
        """Do what `ask` says; `questions.respond` is what a part has to call.

        Raises
        ------
        MixsolveError
            What a part raised.
        """


class PartsEngine(Rules):
    """Passes over a tensor in parts. See `mixsolve.engines.Engine`.

    Parameters
    ----------
    parts : Parts
        Where they live.
    engines : Kept
        An engine in each part, which knows its weights in the whole game and the game's extremes.
    bounds : ndarray of int64, shape (n_parts + 1,)
        First sample of each part.
    shape : Shape
        Of the whole.
    sample_weight, allowed, prior : ndarray
        See `mixsolve.engines.Losses.engine`.
    n_bytes : int
        Memory of the losses as they are stored.
    extremes : tuple of float
        Lowest and highest loss that may be played.
    later : Later, optional
        Where the Gibbs strategy can be computed when it is looked at; always brought by default.
    """

    def __init__(
        self,
        parts: Parts,
        engines: Kept,
        bounds: np.ndarray,
        shape: Shape,
        sample_weight: np.ndarray,
        allowed: np.ndarray,
        prior: np.ndarray,
        n_bytes: int,
        extremes: tuple[float, float],
        later: Later | None = None,
    ) -> None:
        super().__init__(shape, sample_weight, allowed, prior)
        self.parts = parts
        self.n_bytes = n_bytes
        self.take_range(*extremes)
        self._engines = engines
        self._bounds = bounds
        self._later = later
        self._placed: list[tuple[np.ndarray, Kept]] = []
        self.exponent = 0

    @classmethod
    def open(
        cls,
        parts: Parts,
        shape: Shape,
        sample_weight: np.ndarray,
        allowed: np.ndarray,
        prior: np.ndarray,
        later: Later | None = None,
    ) -> "PartsEngine":
        """Make an engine in every part, then tell each what all of them found.

        Raises
        ------
        MixsolveError
            If a candidate that may be played has a NaN or infinite loss.
        """
        bounds = parts.bounds
        rows = shape.offsets[bounds]
        shares = [
            (first, shortened(sample_weight[first:last]), allowed[low:high], prior[low:high])
            for first, last, low, high in zip(
                bounds[:-1].tolist(), bounds[1:].tolist(), rows[:-1], rows[1:], strict=True
            )
        ]
        opened = parts.ask(questions.open_part, [parts.losses], shares=shares)
        found = [part for part in opened.found if part is not None]
        lowest, highest, n_bytes = zip(*found, strict=True)
        extremes = min(lowest), max(highest)
        placed = parts.ask(
            questions.place, [opened.kept], *extremes, shares=[share[1:2] for share in shares]
        )
        engine = cls(
            parts,
            placed.kept,
            bounds,
            shape,
            sample_weight,
            allowed,
            prior,
            sum(n_bytes),
            extremes,
            later,
        )
        engine.n_passes += 1
        return engine

    def close(self) -> None:
        """Give back what the parts keep."""
        self.parts.close()

    def scan(self) -> tuple[float, float]:
        """See `Rules.scan`; the parts are told what all of them found."""
        confined = self._ask(questions.confine, self.classifiers)
        self.n_passes += 1
        lowest, highest = zip(*(part for part in confined.found if part is not None), strict=True)
        extremes = min(lowest), max(highest)
        bounds = zip(self._bounds[:-1], self._bounds[1:], strict=True)
        shares = [(shortened(self.sample_weight[first:last]),) for first, last in bounds]
        self._engines = confined.kept
        self._engines = self._ask(questions.place, *extremes, shares=shares).kept
        return extremes

    def in_unit(self, exponent: int) -> Self:
        """See `mixsolve.engines.bookkeeping.Rules.in_unit`."""
        part = super().in_unit(exponent)
        part.exponent = exponent
        part._engines = self._ask(questions.in_unit, exponent).kept
        return part

    def _ask(
        self,
        question: Callable[..., PartialResult],
        *common: Any,
        kept: Sequence[Kept] = (),
        shares: Sequence[tuple[Any, ...]] | None = None,
        n_sums: int = 0,
    ) -> Reply:
        return self.parts.ask(
            question, [self._engines, *kept], *common, shares=shares, n_sums=n_sums
        )

    def _split(self, samples: np.ndarray) -> list[slice]:
        """Where each part's samples lie among ascending ones."""
        cuts = np.searchsorted(samples, self._bounds)
        return [slice(*cuts[part : part + 2]) for part in range(cuts.size - 1)]

    def _local(self, samples: np.ndarray, *others: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        """Each part's share of ascending samples, in its own numbering, and of what goes along."""
        return [
            (samples[here] - first, *(other[here] for other in others))
            for here, first in zip(self._split(samples), self._bounds, strict=False)
        ]

    def _place(self, values: np.ndarray) -> Kept:
        """A number for each sample, with the part it belongs to; sent once while it recurs."""
        for known, kept in self._placed:
            if known is values or np.array_equal(known, values):
                return kept
        shares = [
            (shortened(values[first:last]),)
            for first, last in zip(self._bounds[:-1], self._bounds[1:], strict=True)
        ]
        kept = self._ask(questions.keep, shares=shares).kept
        self._placed = [(values, kept), *self._placed[:1]]
        return kept

    def best_response(self, weights: np.ndarray) -> BestResponse:
        """See `mixsolve.engines.Engine.best_response`."""
        reply = self._ask(questions.best_response, weights, n_sums=1 + self.n_classifiers)
        self.n_passes += 1
        return PlacedBestResponse(reply.sums, _PartsWinners(self, reply.kept))

    def near_response(
        self, weights: np.ndarray, radius: float, limit: int, slack: np.ndarray | None = None
    ) -> NearResponse:
        """See `mixsolve.engines.Engine.near_response`."""
        kept = [] if slack is None else [self._place(slack)]
        question = questions.near_winners if slack is None else questions.near_response
        share = limit / self.n_rows
        n = self.n_classifiers
        reply = self._ask(question, weights, radius, share, kept=kept, n_sums=2 + n)
        self.n_passes += 1
        samples, candidates = self._joined(reply.found)
        winners = _PartsWinners(self, reply.kept)
        return PlacedNearResponse(
            reply.sums[: 1 + n], winners, samples, candidates, int(reply.sums[1 + n])
        )

    def _joined(self, found: list[Any]) -> list[np.ndarray]:
        """Each part's samples, renumbered, one after another, and what goes along with them."""
        shifted = [
            (part[0].astype(np.int64) + first, *part[1:])
            for part, first in zip(found, self._bounds, strict=False)
            if part is not None
        ]
        return [np.concatenate(column) for column in zip(*shifted, strict=True)]

    def soft_response(
        self, weights: np.ndarray, alpha: np.ndarray, hessian: bool = True
    ) -> SoftResponse:
        """See `mixsolve.engines.Engine.soft_response`; the last one asked for is remembered."""
        known = self.recall(weights, alpha, hessian)
        if known is not None:
            return known
        n = self.n_classifiers
        reply = self._ask(
            questions.soft_response,
            weights,
            hessian,
            kept=[self._place(alpha)],
            n_sums=1 + n + (n * n if hessian else 0),
        )
        self.n_passes += 1
        square = reply.sums[1 + n :].reshape(n, n) if hessian else None
        response = SoftResponse(float(reply.sums[0]), reply.sums[1 : 1 + n], square)
        return self.remember(weights, alpha, response)

    def gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        """See `mixsolve.engines.Engine.gibbs`; a large one is computed when it is looked at."""
        if self._later is not None and self.n_rows > tuning.sent_candidates:
            compute = self._later(self, weights.copy(), alpha)
            return DeferredStrategy(self.n_samples, self.shape.n_candidates, compute)
        return self.gibbs_here(weights, alpha)

    def gibbs_here(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        """The Gibbs strategy, brought to this process."""
        found = self._ask(questions.gibbs, weights, kept=[self._place(alpha)]).found
        self.n_passes += 1
        return PackedStrategy.joined([part for part in found if part is not None]).unpacked()

    def gibbs_there(self, weights: np.ndarray, alpha: np.ndarray) -> Kept:
        """Each part's share of it, left there, to be computed when it is looked at."""
        return self._ask(questions.gibbs_later, weights, kept=[self._place(alpha)]).kept

    def gather(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """See `mixsolve.engines.Engine.gather`."""
        reply = self._ask(questions.gather, shares=self._local(samples, candidates))
        self.n_passes += samples.size / self.n_rows
        return np.concatenate([part for part in reply.found if part is not None])

    def expected_losses(self, attack: MixedStrategy) -> np.ndarray:
        """See `mixsolve.engines.Engine.expected_losses`."""
        shares = [
            (PackedStrategy.of(attack.part(first, last)),)
            for first, last in zip(self._bounds[:-1], self._bounds[1:], strict=True)
        ]
        reply = self._ask(questions.expected_losses, shares=shares, n_sums=self.n_classifiers)
        self.n_passes += attack.candidates.size / self.n_rows
        return reply.sums

    def subsample(self, samples: np.ndarray) -> "PartsEngine | MemoryEngine":
        """See `mixsolve.engines.Engine.subsample`; a small one is brought to this process."""
        weight, allowed, prior = self.restricted(samples)
        _, offsets = self.shape.row_indices(samples)
        shares = self._local(samples)
        if 8 * offsets[-1] * self.n_classifiers <= tuning.subsample_bytes:
            reply = self._ask(questions.all_rows, shares=shares)
            rules = weight, allowed, prior, self.classifiers
            return MemoryEngine(_tensor(reply.found, offsets), *rules)
        split = self._split(samples)
        bounds = np.array([0, *(here.stop for here in split)])
        shares = [(*share, weight[here]) for share, here in zip(shares, split, strict=True)]
        reply = self._ask(questions.subsample, self.lowest, self.highest, shares=shares)
        shape = Shape(offsets, self.n_classifiers)
        n_bytes = int(self.n_bytes * offsets[-1] / self.n_rows)
        extremes = self.lowest, self.highest
        part = PartsEngine(
            self.parts, reply.kept, bounds, shape, weight, allowed, prior, n_bytes, extremes
        )
        part.classifiers = self.classifiers
        return part

    def in_memory(self) -> MemoryEngine:
        """See `mixsolve.engines.base.Condensing.in_memory`."""
        reply = self._ask(questions.all_rows, shares=self._local(np.arange(self.n_samples)))
        tensor = _tensor(reply.found, self.shape.offsets)
        return MemoryEngine(tensor, self.sample_weight, self.allowed, self.prior, self.classifiers)

    def distinct(self, limit: int, dominance: bool) -> tuple[MemoryEngine, np.ndarray] | None:
        """See `mixsolve.engines.base.Condensing.distinct`."""
        reply = self._ask(questions.distinct, limit / self.n_rows, dominance, n_sums=1)
        self.n_passes += 1
        if not 0 <= reply.sums[0] <= limit:
            return None
        found = [part for part in reply.found if part is not None]
        counts, rows, mass, candidates = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        tensor = LossTensor.from_rows(rows, np.concatenate([[0], np.cumsum(counts)]))
        nothing = np.empty(0, dtype=np.uint8)
        return MemoryEngine(tensor, self.sample_weight, nothing, mass, self.classifiers), candidates


@dataclass
class _PartsWinners:
    """Best candidates with their parts. See `mixsolve.engines.placed.Winners`."""

    engine: PartsEngine
    kept: Kept = field(repr=False)

    def receive(self) -> np.ndarray:
        """See `mixsolve.engines.placed.Winners.receive`."""
        found = self.engine._ask(questions.winners, kept=[self.kept]).found
        parts = [part for part in found if part is not None]
        return np.concatenate(parts).astype(np.int64)

    def of(self, samples: np.ndarray) -> np.ndarray:
        """See `mixsolve.engines.placed.Winners.of`."""
        engine = self.engine
        shares = engine._local(samples)
        found = engine._ask(questions.winners_of, kept=[self.kept], shares=shares).found
        parts = [part for part in found if part is not None]
        return np.concatenate(parts).astype(np.int64)

    def moved(self, earlier: "_PartsWinners") -> np.ndarray:
        """See `mixsolve.engines.placed.Winners.moved`."""
        engine = self.engine
        found = engine._ask(questions.winners_moved, kept=[self.kept, earlier.kept]).found
        return engine._joined([None if part is None else (part,) for part in found])[0]


def shortened(values: np.ndarray) -> np.ndarray | float:
    """A number for each sample: one number where all are equal."""
    if values.size and (values == values[0]).all():
        return float(values[0])
    return values


def _tensor(found: list[Any], offsets: np.ndarray) -> LossTensor:
    rows = [part for part in found if part is not None]
    return LossTensor.from_rows(np.concatenate(rows), offsets)


def count_bytes(things: Any) -> int:
    """Bytes of all arrays and numbers in nested sequences."""
    if things is None:
        return 0
    if isinstance(things, np.ndarray | PackedStrategy):
        return things.nbytes
    if isinstance(things, (list, tuple)):
        return sum(map(count_bytes, things))
    return 8
