"""Shrink a game before it is solved: drop candidates that cannot matter, merge equal samples.

Exact problem: weights are non-negative, so a candidate whose losses are all at most another's of
the same sample never is the better attack; it goes. Entropic problem: every candidate counts, so
only repeated ones are merged, their multiplicities becoming the base measure. Samples left with the
same candidates (and masses, and alpha) are one sample of the summed weight.

Both are exact. Whether they pay is decided on a few samples: unless these shrink to a quarter,
nothing is done. A method that reads the game only a few times, and keeps to the rows near the best
anyway, gains less than the comparisons cost unless next to nothing is left of a sample. A tensor
elsewhere is first condensed where it lies, if its engine can do that, to the distinct candidates of
each sample.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mixsolve.base.compilation import seconds_of_work
from mixsolve.base.tuning import tuning
from mixsolve.engines.base import Engine
from mixsolve.engines.bookkeeping import count_passes
from mixsolve.engines.distinct import Kept, affordable, keep_rows, rows_of
from mixsolve.engines.memory import Condensing, MemoryEngine
from mixsolve.engines.responses import MixedStrategy
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.uncompiled.choice import runs_in_numpy

logger = logging.getLogger("mixsolve")

_PROBED = 8  # samples, the first to be looked at
_TRIAL_ROWS = 1 << 14
_FEW_ROWS = 6.0  # of a sample, with which comparing each row costs less than a pass or two
_TRIAL_ERROR = 1.25  # of the rows kept per sample, as the trial finds them


@dataclass(frozen=True)
class Worth:
    """What has to go for a reduction to pay.

    Attributes
    ----------
    share : float
        Of the rows, that may be left at most.
    a_sample : float
        Rows of a sample that may be left at most, on average.
    """

    share: float
    a_sample: float = np.inf

    @classmethod
    def of_many_passes(cls) -> "Worth":
        """For a method whose time is that of many passes over what is left."""
        return cls(tuning.worthwhile_share)

    @classmethod
    def of_few_passes(cls) -> "Worth":
        """For a method that reads the game a few times: each row is compared with those kept."""
        return cls(tuning.worthwhile_share / 3.0, _FEW_ROWS)

    def met(self, kept: Kept, engine: MemoryEngine) -> bool:
        """Whether little enough was kept of an engine's game."""
        most = min(self.share * engine.n_rows, self.a_sample * engine.n_samples)
        return int(kept.offsets[-1]) <= most


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
        What was removed.
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


class PresolvedGame:
    """The game that a method works on: the problem's own, or a smaller one of the same optimum.

    Parameters
    ----------
    problem : Problem
        What is to be solved.
    halted : callable, optional
        Called between steps; once it returns True the game is left as it is.
    few_passes : bool
        Whether the method reads the game a few times only.

    Attributes
    ----------
    engine : Engine
        Of the game to work on.
    alpha : ndarray of float64, shape (n_samples,), or None
        Regularisation of its samples.
    """

    def __init__(
        self,
        problem: Problem,
        halted: Callable[[], bool] | None = None,
        few_passes: bool = False,
    ) -> None:
        began = time.perf_counter()
        self.engine, self.alpha = problem.engine, problem.alpha
        self._problem = problem
        self._reduction = None
        if problem.presolve:
            worth = Worth.of_few_passes() if few_passes else None
            self._reduction = reduce(self.engine, self.alpha, halted, worth)
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
        attack: MixedStrategy | None = None,
        proof: np.ndarray | None = None,
    ) -> Outcome:
        """A method's result, with the passes over this game and the presolve's message."""
        words = [message] if message else []
        if self._reduction is not None:
            count_passes(self._problem.engine, self.engine)
            words.insert(0, self._reduction.message)
        timings = {"presolve": self._seconds}
        return Outcome(weights, attack, proof, "; ".join(words), timings)


def reduce(
    engine: Engine,
    alpha: np.ndarray | None,
    halted: Callable[[], bool] | None = None,
    worth: Worth | None = None,
) -> Reduction | None:
    """Shrink the game of an engine, if a trial on a few of its samples shows that this pays.

    The engine is in memory, or where it can be condensed: then passes cost more than comparisons,
    and `worth`, by default that of many passes, does not count. `alpha` (N,) is None for the exact
    problem; `halted` is that of `PresolvedGame`. None where it would not pay.
    """
    if runs_in_numpy() or not isinstance(engine, MemoryEngine | Condensing):
        return None  # a small game needs no smaller one
    if worth is None or not isinstance(engine, MemoryEngine):
        worth = Worth.of_many_passes()
    if not _pays(engine, alpha, worth):
        return None
    if isinstance(engine, MemoryEngine):
        game, names = engine, None
        kept = keep_rows(game, alpha is None, worth.share, halted, a_sample=worth.a_sample)
    else:
        condensed = engine.distinct(int(worth.share * engine.n_rows), alpha is None)
        if condensed is None:
            return None
        game, names = condensed
        kept = keep_rows(game, alpha is None, 1.0)
    if kept is None:
        return None
    groups, first = _merge(kept, alpha)
    # The words' memory is needed for the smaller game; a view would keep it alive.
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


def _pays(engine: Engine, alpha: np.ndarray | None, worth: Worth) -> bool:
    """Whether some of the samples shrink enough; a first few of them often show that none does."""
    per_sample = engine.n_rows / engine.n_samples
    n_trial = int(np.clip(_TRIAL_ROWS / per_sample, 1, max(1, engine.n_samples // 32)))
    probed = isinstance(engine, MemoryEngine) and n_trial >= 4 * _PROBED
    if probed and _shrunk(engine, alpha, worth, _PROBED) is None:
        return False
    found = _shrunk(engine, alpha, worth, n_trial)
    if found is None:
        return False
    trial, kept = found
    n_rows = int(kept.offsets[-1]) * (engine.n_rows / trial.n_rows)
    return n_rows <= _TRIAL_ERROR * affordable(engine.n_samples, trial, kept.words.shape[1])


def _shrunk(
    engine: Engine, alpha: np.ndarray | None, worth: Worth, n_samples: int
) -> tuple[MemoryEngine, Kept] | None:
    """Samples from all over the game and the rows kept of them; None where these are too many."""
    chosen = np.linspace(0, engine.n_samples - 1, n_samples).astype(np.int64)
    trial = _trial(engine, chosen)
    kept = keep_rows(trial, alpha is None, worth.share, a_sample=worth.a_sample)
    return None if kept is None or not worth.met(kept, trial) else (trial, kept)


def _trial(engine: Engine, samples: np.ndarray) -> MemoryEngine:
    if isinstance(engine, MemoryEngine):
        return engine.probe(samples)
    part = engine.subsample(samples)
    trial = part.in_memory() if isinstance(part, Condensing) else part
    assert isinstance(trial, MemoryEngine)
    return trial


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
    tensor, mass = rows_of(engine, kept, first)
    weight = np.bincount(groups, weights=engine.sample_weight, minlength=first.size)
    nothing = np.empty(0, dtype=np.uint8)
    measure = np.empty(0) if alpha is None else mass
    return MemoryEngine(tensor, weight, nothing, measure, engine.classifiers)
