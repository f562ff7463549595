"""A small game in memory, its unit, and the certificate of a solution.

    min_lam  sum_i w_i max_{r in i} <lam, l_r>      over the simplex, or a polytope in it

Value and bound are recomputed here from the rows, whichever method found the weights and duals.
Sums are taken over differences to the first row of each sample: what the rows of a sample share
cancels from the gap before it can cost digits.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.threads import chunk_bounds, run_kernel
from mixsolve.uncompiled.choice import loops

Vector = NDArray[np.float64]

_CONSTANT = 1e-290  # a spread whose inverse may not be a number


class PathPoint(NamedTuple):
    """A point near the central path: gap and barrier parameter in units of the spread."""

    gap: float
    weights: Vector
    barrier: float


@dataclass(frozen=True)
class SmallSolution:
    """Weights and duals of a small game, with the certificate recomputed from its rows.

    Attributes
    ----------
    weights : ndarray of float64, shape (L,)
        The classifiers' weights, in the simplex.
    dual : ndarray of float64, shape (R,)
        The attacker's strategy: >= 0, the duals of sample i sum to its weight.
    value : float
        sum_i w_i max_r <weights, rows[r]>.
    lower_bound : float
        min_k sum_r dual[r] rows[r, k]; with cuts, min_k of that and the cuts' multiples.
    gap : float
        ``value - lower_bound``, summed without what the rows of a sample share, hence with less
        rounding than the difference.
    spread : float
        The unit of ``tol``: sum_i w_i (max - min of the rows of sample i).
    nit : int
        Iterations, over all rows or over those left.
    converged : bool
        Whether ``gap <= tol * spread``.
    message : str
        How it ended.
    path : tuple of PathPoint
        The points on the way, from which a game with other rows can start.
    meets_cuts : bool
        False where the game could only be solved without its constraints.
    """

    weights: Vector
    dual: Vector
    value: float
    lower_bound: float
    gap: float
    spread: float
    nit: int
    converged: bool
    message: str
    path: tuple[PathPoint, ...] = field(repr=False)
    meets_cuts: bool = True


@dataclass(frozen=True)
class Cuts:
    """Linear constraints of the weights, with weights strictly inside.

    Attributes
    ----------
    upper : ndarray of float64, shape (p, L)
        Rows c with <c, lam> <= 0.
    equal : ndarray of float64, shape (1 + q, L)
        Ones, for the sum, then rows f with <f, lam> = 0; all independent.
    centre : ndarray of float64, shape (L,)
        On the simplex, positive, with <c, centre> < 0 and <f, centre> = 0.
    """

    upper: Vector
    equal: Vector
    centre: Vector

    @classmethod
    def none(cls, size: int) -> "Cuts":
        """The simplex as it is."""
        return cls(np.empty((0, size)), np.ones((1, size)), np.full(size, 1.0 / size))

    @property
    def n_multipliers(self) -> int:
        """Of C and of F: p + q."""
        return self.upper.shape[0] + self.equal.shape[0] - 1

    def excess(self, weights: Vector) -> float:
        """By how much weights violate a constraint at most; 0 inside."""
        above = (self.upper @ weights).max(initial=0.0)
        return float(max(above, np.abs(self.equal[1:] @ weights).max(initial=0.0)))

    def pull(self, multipliers: Vector) -> Vector:
        """C'y + F'v of shape (L,), for y and v one after the other."""
        p = self.upper.shape[0]
        return self.upper.T @ multipliers[:p] + self.equal[1:].T @ multipliers[p:]


@dataclass(frozen=True)
class ConvexCuts:
    """Constraints of the weights, written in cvxpy.

    Attributes
    ----------
    weights : cvxpy.Variable
        Of shape (L,), non-negative.
    rules : list of cvxpy constraints
        On that variable; its sum is 1 by one of them.
    used : ndarray of int64, shape (L',)
        Classifiers that may have a weight.
    """

    weights: Any
    rules: list[Any]
    used: NDArray[np.int64]

    def found(self) -> Vector:
        """The variable's value on the simplex, exactly 0 for classifiers that may have none."""
        found = np.zeros(self.weights.size)
        found[self.used] = np.maximum(self.weights.value[self.used], 0.0)
        return found / found.sum()


@dataclass
class SmallGame:
    """Rows a_r = (l_r - l_first) / spread, and what is the same whichever row is played.

    The objective is ``constant + spread (<linear, lam> + sum_i w_i max_r <a_r, lam>)``.
    """

    rows: Vector
    offsets: NDArray[np.int64]
    weight: Vector
    spread: float
    linear: Vector
    constant: float
    cuts: Cuts

    def __post_init__(self) -> None:
        counts = np.diff(self.offsets)
        self.mass = float(self.weight @ np.where(counts > 1, counts, 0))  # sum_r w_i(r)
        self.bounds = chunk_bounds(len(self.weight), self.rows.size)
        self.inverse = 1.0 / self.spread if self.spread > 0.0 else 0.0


def normalise(
    rows: Vector, offsets: NDArray[np.int64], weight: Vector, cuts: Cuts | None = None
) -> SmallGame:
    """Measure the spread of the rows and take out what the rows of each sample share.

    Parameters
    ----------
    rows : ndarray of float64, shape (R, L), C-contiguous
        The losses; sample i owns ``rows[offsets[i]:offsets[i + 1]]``, at least one row.
    offsets : ndarray of int64, shape (n + 1,)
        Where the rows of each sample begin.
    weight : ndarray of float64, shape (n,)
        Weights of the samples, positive, with sum 1.
    cuts : Cuts, optional
        Constraints of the weights.

    Returns
    -------
    SmallGame
        Its unit is sum_i w_i (max - min of the rows of sample i). Keeps the arrays, copies nothing.
    """
    bounds = chunk_bounds(len(weight), rows.size)
    n_chunks = len(bounds) - 1
    reference = np.empty((n_chunks, rows.shape[1]))
    sums = np.empty((n_chunks, 2))
    walk = loops("interior_point").spread_and_reference
    run_kernel(walk, bounds, (rows, offsets, weight), (reference, sums))
    spread, constant = (float(total) for total in sums.sum(0))
    if spread < _CONSTANT:
        spread = 0.0
    linear = reference.sum(0)
    if spread > 0.0:
        linear /= spread
    limits = Cuts.none(rows.shape[1]) if cuts is None else cuts
    return SmallGame(rows, offsets, weight, spread, linear, constant, limits)


def certify(game: SmallGame, weights: Vector, dual: Vector) -> tuple[float, float, float]:
    """Recompute both sides of the certificate of a whole game.

    Parameters
    ----------
    game : SmallGame
        As `normalise` returns it.
    weights : ndarray of float64, shape (L,)
        Feasible.
    dual : ndarray of float64, shape (R + p + q,)
        Of the rows: non-negative, with a positive sum in each sample; scaled in place to the
        samples' weights. Then of the cuts, in units of the spread: those of C non-negative.

    Returns
    -------
    value, lower_bound, gap : float
        As in `SmallSolution`.
    """
    n_chunks = len(game.bounds) - 1
    gradient = np.empty((n_chunks, len(weights)))
    sums = np.empty((n_chunks, 1))
    shared = game.rows, game.offsets, game.weight, weights, dual
    walk = loops("interior_point").certificate_sums
    run_kernel(walk, game.bounds, shared, (gradient, sums))
    linear = game.linear * game.spread
    above = float(sums.sum() + weights @ linear)
    pulled = game.spread * game.cuts.pull(dual[len(game.rows) :])
    below = float((gradient.sum(0) + linear + pulled).min())
    gap = above - below
    return game.constant + above, game.constant + below, max(gap, 0.0) if gap < np.inf else np.inf
