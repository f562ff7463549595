"""The working set: rows that may win near given weights, and the small game that they make.

Most samples have one candidate that wins for all weights near the optimum. Together they are one
linear term, here one sample with one row, their mean loss. The samples of the working set keep the
rows that may win.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mixsolve.engines.base import Engine
from mixsolve.engines.responses import BestResponse, NearResponse
from mixsolve.feasible import simplex
from mixsolve.kernels.constants import TINY

_FIRST_SUBSAMPLE = 1000
_GROWTH = 16
_LARGEST_SUBSAMPLE = 8  # times smaller than the whole
_SUBSAMPLE_BYTES = 256 << 20  # at most: the whole may be in a file
_TRUST = 6.0  # how many times the radius weights may move in one round
_MEMORY = 0.09  # of the tensor's, for the working rows
_MAX_BYTES = 192 << 20  # for them, however large the tensor: it may be in a file
_BOOKKEEPING = 100  # bytes a row besides its losses, of which there are two copies for a while
_MIN_LIMIT = 1 << 14
_GATHERED_TOGETHER = 1 << 18


@dataclass(frozen=True)
class Subproblem:
    """The working rows, after one row for all other samples together.

    Attributes
    ----------
    keys : ndarray of int64, shape (r,)
        ``sample * n_rows + candidate`` of each working row, ascending.
    rows : ndarray of float64, shape (others + r, L)
        Losses; the first row is the others' mean, where there are others.
    offsets : ndarray of int64, shape (others + n + 1,)
        First row of each sample.
    weight : ndarray of float64, shape (others + n,)
        Of each sample, the first being that of all the others together.
    others : int
        1, or 0 where every sample of positive weight has working rows.
    """

    keys: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray
    weight: np.ndarray
    others: int


def row_limit(engine: Engine) -> int:
    """The most rows a working set may have: a share of the tensor's rows and of its memory."""
    n_bytes = min(_MEMORY * engine.n_bytes, _MAX_BYTES)
    affordable = n_bytes / (2 * 8 * engine.n_classifiers + _BOOKKEEPING)
    return int(max(min(_MEMORY * engine.n_rows, affordable), _MIN_LIMIT))


class WorkingSet:
    """Rows that may win, gathered from one pass to the next.

    Attributes
    ----------
    keys : ndarray of int64, shape (r,)
        ``sample * n_rows + candidate`` of each row, ascending and distinct. A sample that has one
        has a positive weight.
    limit : int
        Rows a near response may add (see `row_limit`).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._earlier: NearResponse | None = None
        self.keys = np.empty(0, dtype=np.int64)
        self.limit = row_limit(engine)

    def add(self, response: NearResponse) -> bool:
        """Take in near rows, and winners that were missing; True if any winner was missing.

        A sample without working rows, whose winner has changed, gets both winners.
        """
        stride = self._engine.n_rows
        wanted = [response.near_samples * stride + response.near_candidates]
        missing = True
        if self._earlier is not None:
            known = _distinct(self.keys // stride)
            moved = response.moved(self._earlier)
            working = _distinct(np.sort(np.concatenate([known, moved]), kind="stable"))
            winning = working * stride + response.of(working)
            missing = not np.isin(winning, self.keys).all()
            wanted += [winning, moved * stride + self._earlier.of(moved), self.keys]
        keys = _distinct(np.sort(np.concatenate(wanted), kind="stable"))
        positive = self._engine.sample_weight[keys // stride] > 0
        self.keys = keys if positive.all() else keys[positive]
        self._earlier = response
        return missing

    def keep(self, needed: np.ndarray) -> None:
        """Keep only the rows that the last game needed, a boolean of shape (r,)."""
        self.keys = self.keys[needed]

    def subproblem(self, response: BestResponse) -> Subproblem:
        """Gather the working rows, and sum up samples without any; `response` was added last."""
        engine = self._engine
        samples, candidates = np.divmod(self.keys, engine.n_rows)
        rows = self._gather(samples, candidates)
        first = np.flatnonzero(np.diff(samples, prepend=-1))
        working = samples[first]
        offsets = np.append(first, samples.size)
        weight = engine.sample_weight[working]
        if working.size == np.count_nonzero(engine.sample_weight):
            return Subproblem(self.keys, rows[1:], offsets, weight, 0)
        winning = np.searchsorted(self.keys, working * engine.n_rows + response.of(working))
        others = np.ones(engine.n_samples, dtype=bool)
        others[working] = False
        rest = float(engine.sample_weight[others].sum())
        rows[0] = (response.gradient - weight @ rows[1 + winning]) / rest
        return Subproblem(
            self.keys,
            rows,
            np.concatenate([[0], offsets + 1]),
            np.concatenate([[rest], weight]),
            1,
        )

    def _gather(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Losses of the rows, after a row for the others' mean, so that no second copy is made."""
        rows = np.empty((1 + samples.size, self._engine.n_classifiers))
        for first in range(0, samples.size, _GATHERED_TOGETHER):
            part = slice(first, first + _GATHERED_TOGETHER)
            rows[1 + first : 1 + first + _GATHERED_TOGETHER] = self._engine.gather(
                samples[part], candidates[part]
            )
        return rows


def trusted_step(
    weights: np.ndarray, target: np.ndarray, radius: float
) -> tuple[np.ndarray, float, float]:
    """Go towards a small game's weights, but not far beyond where its rows were looked for.

    Parameters
    ----------
    weights, target : ndarray of float64, shape (L,)
        From and to, on the simplex.
    radius : float
        Within which rows were looked for, a coordinate; infinite where none is missing.

    Returns
    -------
    weights : ndarray of float64, shape (L,)
        Where to go.
    share : float
        Of the way; 1 for all of it.
    radius : float
        How far that is, a coordinate.
    """
    move = target - weights
    distance = float(np.linalg.norm(move)) / np.sqrt(weights.size)
    share = min(1.0, _TRUST * radius / max(distance, TINY))
    there = target if share == 1.0 else simplex.normalize(weights + share * move)
    return there, share, share * distance


def _distinct(ascending: np.ndarray) -> np.ndarray:
    """Each value once, as ``numpy.unique``, of an array that is sorted already."""
    kept = np.ones(ascending.size, dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=kept[1:])
    return ascending[kept]


def subsamples(engine: Engine) -> Iterator[np.ndarray]:
    """Random sets of samples, ascending, each larger than the last, to solve before the whole game.

    There are none where the game is too small for this to pay.
    """
    rng = np.random.default_rng(0)
    size = _FIRST_SUBSAMPLE
    largest = min(
        engine.n_samples / _LARGEST_SUBSAMPLE,
        _SUBSAMPLE_BYTES * engine.n_samples / engine.n_bytes,
    )
    while size <= largest:
        yield np.sort(rng.choice(engine.n_samples, size, replace=False))
        size *= _GROWTH
