"""Shrink a game before it is solved: drop candidates that cannot matter, merge equal samples.

Exact problem: weights are non-negative, so a candidate whose losses are all at most another's of
the same sample never is the better attack; it goes. Entropic problem: every candidate counts, so
only repeated ones are merged, their multiplicities becoming the base measure. Samples left with the
same candidates (and masses, and alpha) are one sample of the summed weight.

Both are exact. Whether they pay is decided on a few samples: unless these shrink to a quarter,
nothing is done. A tensor elsewhere is first condensed where it lies, if its engine can do that, to
the distinct candidates of each sample.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mixsolve.arrays.tensor import LossTensor
from mixsolve.base.compilation import seconds_of_work
from mixsolve.engines.base import Condensing, Engine, count_passes
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.packed import narrow
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.solver.solution import Attack

logger = logging.getLogger("mixsolve")

_MAX_BIT_CLASSIFIERS = 1024
_TRIAL_ROWS = 1 << 14
_TRIAL_ERROR = 1.25  # of the rows kept per sample, as the trial finds them
_WORTHWHILE = 0.25
_MAX_BYTES = 672 << 20  # besides the tensor, which may be in a file larger than memory
_SAMPLE_BYTES = 64  # for the counts, offsets, groups and weights of a sample
_TAKEN_TOGETHER = 1 << 17


@dataclass(frozen=True)
class Kept:
    """Rows kept of each sample, and what makes two samples equal.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        First kept row of each sample.
    candidates : ndarray of int32, shape (R,)
        In the samples' own numbering.
    mass : ndarray of float64, shape (R,)
        Base measure gathered by each row.
    words : ndarray of uint64, shape (R, n_words)
        The losses, packed into bits or as they are.
    """

    offsets: np.ndarray
    candidates: np.ndarray
    mass: np.ndarray
    words: np.ndarray


@dataclass(frozen=True)
class Reduction:
    """A smaller game with the same optimal weights, and the way back.

    Attributes
    ----------
    engine : MemoryEngine
        Of the smaller game.
    alpha : ndarray of float64, shape (n_groups,), or None
        Regularisation of its samples.
    groups : ndarray of int64, shape (N,)
        Sample of the smaller game that stands for each sample.
    message : str
        What was removed, in words.
    """

    engine: MemoryEngine
    alpha: np.ndarray | None
    groups: np.ndarray
    message: str
    _offsets: np.ndarray
    _candidates: np.ndarray

    def lift(
        self, samples: np.ndarray, candidates: np.ndarray, mass: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masses on candidates of the smaller game, shared out among the original samples.

        Parameters
        ----------
        samples, candidates : ndarray of int64, shape (n,)
            Distinct, samples ascending, every sample of the smaller game among them.
        mass : ndarray of float64, shape (n,)
            Non-negative; only the shares within a sample count.

        Returns
        -------
        samples, candidates, mass : ndarray, shape (n_entries,)
            The same of the original game.
        """
        played = mass > 0
        played[np.flatnonzero(np.diff(samples, prepend=-1))] = True  # every sample keeps an entry
        samples, candidates, mass = samples[played], candidates[played], mass[played]
        begin = np.searchsorted(samples, self.groups)
        counts = np.searchsorted(samples, self.groups, side="right") - begin
        first = np.concatenate([[0], np.cumsum(counts)])
        entries = np.repeat(begin - first[:-1], counts) + np.arange(first[-1])
        originals = np.repeat(np.arange(self.groups.size), counts)
        rows = self._offsets[originals] + candidates[entries]
        return originals, self._candidates[rows].astype(np.int64), mass[entries]


class Shrunk:
    """The game that a method works on: the problem's own, or a smaller one of the same optimum.

    Parameters
    ----------
    problem : Problem
        What is to be solved.
    halted : callable, optional
        Asked on the way; after a true answer the game is left as it is.

    Attributes
    ----------
    engine : Engine
        Of the game to work on.
    alpha : ndarray of float64, shape (n_samples,), or None
        Regularisation of its samples.
    """

    def __init__(self, problem: Problem, halted: Callable[[], bool] = lambda: False) -> None:
        began = time.perf_counter()
        self.engine, self.alpha = problem.engine, problem.alpha
        self._problem = problem
        self._reduction = None
        if problem.presolve:
            self._reduction = reduce(self.engine, self.alpha, halted)
        if self._reduction is not None:
            self.engine, self.alpha = self._reduction.engine, self._reduction.alpha
        self._seconds = seconds_of_work(began)

    def lift(
        self, samples: np.ndarray, candidates: np.ndarray, mass: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masses on candidates of the game worked on, as masses of the original (`Reduction`)."""
        if self._reduction is None:
            return samples, candidates, mass
        return self._reduction.lift(samples, candidates, mass)

    def outcome(
        self,
        weights: np.ndarray,
        message: str = "",
        *,
        attack: Attack | None = None,
        proof: np.ndarray | None = None,
    ) -> Outcome:
        """What a method hands back, with the passes over this game and what it shrank to."""
        words = [message] if message else []
        if self._reduction is not None:
            count_passes(self._problem.engine, self.engine)
            words.insert(0, self._reduction.message)
        timings = {"presolve": self._seconds}
        return Outcome(weights, attack, proof, "; ".join(words), timings)


def reduce(
    engine: Engine, alpha: np.ndarray | None, halted: Callable[[], bool] = lambda: False
) -> Reduction | None:
    """Shrink the game of an engine, if a few of its samples say that this pays.

    Parameters
    ----------
    engine : Engine
        The game: in memory, or where it can be condensed.
    alpha : ndarray of float64, shape (N,), or None
        Regularisation of each sample; None for the exact problem.
    halted : callable, optional
        See `Shrunk`.

    Returns
    -------
    Reduction or None
        None where nothing worth the effort was found.
    """
    if not isinstance(engine, MemoryEngine | Condensing) or not _pays(engine, alpha):
        return None
    if isinstance(engine, MemoryEngine):
        game, names = engine, None
        kept = _keep(game, alpha is None, _WORTHWHILE, halted)
    else:
        condensed = engine.distinct(int(_WORTHWHILE * engine.n_rows), alpha is None)
        if condensed is None:
            return None
        game, names = condensed
        kept = _keep(game, alpha is None, 1.0)
    if kept is None:
        return None
    groups, first = _merge(kept, alpha)
    # The words' memory is needed for the smaller game; a view would hold on to it.
    kept = replace(kept, words=kept.words[:0].copy())
    smaller = _smaller_engine(game, alpha, kept, groups, first)
    offsets, candidates = kept.offsets, kept.candidates
    if names is not None:
        rows = np.repeat(game.tensor.offsets[:-1], np.diff(offsets)) + candidates
        candidates = names[rows]
    n_rows = offsets[-1]
    message = (
        f"presolve kept {n_rows} of {engine.n_rows} candidates and merged {engine.n_samples} "
        f"samples into {first.size}"
    )
    logger.debug(message)
    return Reduction(
        smaller,
        None if alpha is None else alpha[first],
        groups,
        message,
        offsets,
        candidates,
    )


def condense(
    engine: MemoryEngine, limit: int, dominance: bool
) -> tuple[MemoryEngine, np.ndarray] | None:
    """The same game with each sample's repeated candidates merged. See `Condensing.distinct`."""
    kept = _keep(engine, dominance, limit / engine.n_rows)
    if kept is None or kept.offsets[-1] > limit:
        return None
    tensor, _ = _rows_of(engine, kept, np.arange(engine.n_samples))
    nothing = np.empty(0, dtype=np.uint8)
    return MemoryEngine(
        tensor, engine.sample_weight, nothing, kept.mass, engine.classifiers
    ), kept.candidates


def _pays(engine: Engine, alpha: np.ndarray | None) -> bool:
    per_sample = engine.n_rows / engine.n_samples
    n_trial = int(np.clip(_TRIAL_ROWS / per_sample, 1, max(1, engine.n_samples // 32)))
    chosen = np.linspace(0, engine.n_samples - 1, n_trial).astype(np.int64)
    part = engine.subsample(chosen)
    trial = part.in_memory() if isinstance(part, Condensing) else part
    assert isinstance(trial, MemoryEngine)
    kept = _keep(trial, alpha is None, _WORTHWHILE)
    if kept is None or kept.offsets[-1] > _WORTHWHILE * trial.n_rows:
        return False
    n_rows = int(kept.offsets[-1]) * (engine.n_rows / trial.n_rows)
    return n_rows <= _TRIAL_ERROR * _affordable(engine.n_samples, trial, kept.words.shape[1])


def _affordable(n_samples: int, engine: MemoryEngine, n_words: int) -> float:
    """Rows that may be kept of so many samples, of the kind that an engine has.

    At first each takes its words twice, packed narrowly and wide, and later its losses in their
    place, with candidate and mass throughout.
    """
    losses = engine.tensor.dtype.itemsize * engine.n_classifiers
    return (_MAX_BYTES - _SAMPLE_BYTES * n_samples) / (20 + max(16 * n_words, losses))


def _keep(
    engine: MemoryEngine,
    dominance: bool,
    share: float,
    halted: Callable[[], bool] = lambda: False,
    two_valued: bool = True,
) -> Kept | None:
    """Rows kept of each sample; None when they are more than that share, or too many, or late."""
    from mixsolve.kernels import presolve as kernels

    bits = two_valued and engine.two_valued and engine.n_classifiers <= _MAX_BIT_CLASSIFIERS
    n_words = -(-engine.n_classifiers // 64)
    tensor = engine.tensor
    room = _affordable(engine.n_samples, engine, n_words if bits else engine.n_classifiers)
    most = tensor.n_candidates
    code = np.min_scalar_type((1 << engine.n_classifiers) - 1) if bits and n_words == 1 else None
    counts = np.empty(engine.n_samples, dtype=np.int64)
    parts: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    failed: list[int] = []
    sizes: list[int] = []

    def work(chunk: int, start: int, stop: int, rows: np.ndarray) -> None:
        if failed or halted():
            failed.append(-1)
            return
        capacity = int(share * rows.shape[0]) + tensor.n_candidates
        candidates = np.empty(capacity, dtype=np.int32)
        mass = np.empty(capacity)
        codes = np.empty((capacity if bits else 0, n_words), dtype=np.uint64)
        span = slice(int(tensor.offsets[start]), int(tensor.offsets[stop]))
        offsets = tensor.offsets[start : stop + 1]
        allowed, prior = engine.allowed[span], engine.prior[span]
        if bits:
            low, high = rows.dtype.type(engine.lowest), rows.dtype.type(engine.highest)
            used = kernels.reduce_bits(
                rows, offsets, allowed, prior, low, high, dominance,
                codes, candidates, mass, counts[start:stop],
            )  # fmt: skip
        else:
            used = kernels.reduce_values(
                rows, offsets, allowed, prior, dominance, candidates, mass, counts[start:stop]
            )
        sizes.append(used)
        if used < 0 or sum(sizes) > room:
            failed.append(used)
            return
        if not bits:
            first = np.repeat(offsets[:-1] - offsets[0], counts[start:stop])
            codes = rows[first + candidates[:used]].astype(np.float64).view(np.uint64)
        parts[start] = (
            narrow(candidates[:used], most),
            mass[:used].copy() if prior.size else narrow(mass[:used], most),
            codes[:used].astype(code or np.uint64),
        )

    engine.each_block(work)
    some = engine.idle is not None or engine.classifiers is not None
    if some and kernels.STRANGE in failed:  # losses of no consequence, perhaps
        return _keep(engine, dominance, share, halted, two_valued=False)
    if failed:
        return None
    in_order = [parts[start] for start in sorted(parts)]
    return Kept(
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([part[0] for part in in_order], dtype=np.int32),
        np.concatenate([part[1] for part in in_order], dtype=np.float64),
        np.concatenate([part[2] for part in in_order], dtype=np.uint64),
    )


def _rows_of(
    engine: MemoryEngine, kept: Kept, samples: np.ndarray
) -> tuple[LossTensor, np.ndarray]:
    """Rows kept of some samples, ascending, in the tensor's own type; and their masses."""
    lengths = np.diff(kept.offsets)[samples]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.empty((offsets[-1], engine.n_classifiers), dtype=engine.tensor.dtype)
    mass = np.empty(offsets[-1])
    shifts = kept.offsets[samples] - offsets[:-1]
    pieces = np.searchsorted(offsets, np.arange(0, offsets[-1], _TAKEN_TOGETHER))
    for begin, end in pairwise(np.unique([*pieces, samples.size]).tolist()):
        here = slice(*offsets[[begin, end]])
        owners = np.repeat(np.arange(begin, end), lengths[begin:end])
        chosen = np.arange(here.start, here.stop) + shifts[owners]
        candidates = kept.candidates[chosen].astype(np.int64)
        rows[here] = engine.tensor.take(samples[owners], candidates)
        mass[here] = kept.mass[chosen]
    return LossTensor.from_rows(rows, offsets), mass


def _merge(kept: Kept, alpha: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Group of each sample, and the first sample of each group."""
    from mixsolve.kernels import presolve as kernels

    n_samples = kept.offsets.size - 1
    groups = np.empty(n_samples, dtype=np.int64)
    table = np.full(1 << (2 * n_samples - 1).bit_length(), -1, dtype=np.int64)
    nothing = np.empty(0)
    if alpha is None:
        n_groups = kernels.group(kept.words, kept.offsets, nothing, nothing, table, groups)
    else:
        n_groups = kernels.group(kept.words, kept.offsets, alpha, kept.mass, table, groups)
    first = np.empty(n_groups, dtype=np.int64)
    first[groups[::-1]] = np.arange(n_samples)[::-1]
    return groups, first


def _smaller_engine(
    engine: MemoryEngine,
    alpha: np.ndarray | None,
    kept: Kept,
    groups: np.ndarray,
    first: np.ndarray,
) -> MemoryEngine:
    tensor, mass = _rows_of(engine, kept, first)
    weight = np.bincount(groups, weights=engine.sample_weight, minlength=first.size)
    nothing = np.empty(0, dtype=np.uint8)
    measure = np.empty(0) if alpha is None else mass
    return MemoryEngine(tensor, weight, nothing, measure, engine.classifiers)
