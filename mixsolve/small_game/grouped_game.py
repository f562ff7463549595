"""A small game in which the attacker weighs blocks of samples, too, and its certificate.

    min_lam  max_{m in W}  sum_b m_b f_b(lam),
    f_b(lam) = <linear_b, lam> + sum_{i in b} share_i max_{r in i} <lam, l_r>

over the simplex, or a polytope in it, perhaps with a quadratic term; W is a `MassSet`. Both sides
are recomputed here from all rows, whichever method found weights, duals and masses.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixsolve.small_game.game import Cuts, PathPoint, Vector
from mixsolve.small_game.mass_set import MassSet


class Bend(NamedTuple):
    """1/2 <lam - around, hessian (lam - around)>, of shapes (L,) and (L, L)."""

    hessian: Vector
    around: Vector


@dataclass(frozen=True)
class GroupedGame:
    """Rows of samples, block by block, and what the other samples of each block add.

    Attributes
    ----------
    rows : ndarray of float64, shape (R, L), C-contiguous
        Sample i owns ``rows[offsets[i]:offsets[i + 1]]``, at least one row.
    offsets : ndarray of int64, shape (n + 1,)
        Where the rows of each sample begin.
    share : ndarray of float64, shape (n,)
        Positive: the weight of each sample in its block.
    blocks : ndarray of int64, shape (B + 1,)
        First sample of each block; a block may have none.
    linear : ndarray of float64, shape (B, L)
        Loss of each classifier on the block's other samples, times their shares.
    masses : MassSet
        What the attacker may put on the blocks.
    unit : float
        Spread of the losses.
    cuts : Cuts
        Constraints of the weights.
    bend : Bend or None
        The quadratic term, if there is one.
    """

    rows: Vector
    offsets: NDArray[np.int64]
    share: Vector
    blocks: NDArray[np.int64]
    linear: Vector
    masses: MassSet
    unit: float
    cuts: Cuts
    bend: Bend | None = None


@dataclass(frozen=True)
class GroupedSolution:
    """Weights and duals of a grouped game, with the certificate recomputed from its rows.

    Attributes
    ----------
    weights : ndarray of float64, shape (L,)
        The classifiers' weights.
    dual : ndarray of float64, shape (R,)
        The attacker's strategy, as shares: >= 0, of sum 1 in each sample.
    mass : ndarray of float64, shape (B,)
        Of each block, in the set of the game.
    value, lower_bound : float
        Both sides of the game; their difference is `gap`.
    gap : float
        Not below 0.
    nit : int
        Iterations.
    converged : bool
        Whether the gap is within the tolerance.
    path : tuple of PathPoint
        The points on the way, from which a game with other rows can start.
    """

    weights: Vector
    dual: Vector
    mass: Vector
    value: float
    lower_bound: float
    gap: float
    nit: int
    converged: bool
    path: tuple[PathPoint, ...] = field(repr=False)


def certify(
    game: GroupedGame,
    weights: Vector,
    dual: Vector,
    mass: Vector,
    multipliers: Vector,
    nit: int,
    tol: float,
    path: tuple[PathPoint, ...],
) -> GroupedSolution:
    """Both sides of a point, recomputed from all rows."""
    first, counts = game.offsets[:-1], np.diff(game.offsets)
    owners = np.repeat(np.arange(counts.size), counts)
    dual = np.maximum(dual, 0.0)
    totals = np.bincount(owners, dual, minlength=counts.size)
    lost = ~(totals > 0.0) | ~np.isfinite(totals)
    if lost.any():
        dual = np.where(lost[owners], 1.0, dual)
        totals = np.bincount(owners, dual, minlength=counts.size)
    dual = dual / totals[owners]
    mass = game.masses.project(np.where(np.isfinite(mass), mass, 0.0))
    heights = game.linear @ weights
    gradient = mass @ game.linear
    if counts.size:
        block = np.repeat(np.arange(mass.size), np.diff(game.blocks))
        best = np.maximum.reduceat(game.rows @ weights, first)
        heights = heights + np.bincount(block, game.share * best, minlength=mass.size)
        gradient = gradient + (dual * (mass[block] * game.share)[owners]) @ game.rows
    value, _ = game.masses.support(heights)
    below = gradient + game.unit * game.cuts.pull(multipliers)
    extra = 0.0
    if game.bend is not None:
        move = weights - game.bend.around
        slope = game.bend.hessian @ move
        value += 0.5 * float(move @ slope)
        below = below + slope
        extra = 0.5 * float(move @ slope) - float(weights @ slope)
    lower_bound = float(below.min()) + extra
    gap = max(value - lower_bound, 0.0) if value - lower_bound < np.inf else np.inf
    converged = gap <= tol * game.unit
    return GroupedSolution(weights, dual, mass, value, lower_bound, gap, nit, bool(converged), path)
