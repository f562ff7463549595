"""A primal-dual interior point method for small games in memory.

    min_lam  sum_i w_i t_i   s.t.  s_r = t_i - <lam, l_r> >= 0 for the rows r of sample i,
                                   lam in the simplex

with duals q_r of the rows (sum_{r in i} q_r = w_i) and z of lam >= 0. Mehrotra's
predictor-corrector follows the weighted central path q_r s_r = mu w_i, lam_k z_k = mu / L. All but
lam is eliminated: with D_r = q_r / s_r and lbar_i the mean of the rows of sample i under D,

    ( sum_r D_r (l_r - lbar_i)(l_r - lbar_i)^T + diag(z / lam) ) dlam = rhs + nu 1,  <1, dlam> = 0,

so an iteration costs three walks over the rows and O(R L^2) operations. Inequalities C lam <= 0 of
the weights add C' diag(y / u) C to the matrix, with slacks u = -C lam and duals y on the same path,
u y = mu / L, and equalities F lam = 0 stand beside the sum; all points are strictly feasible.

Far from the solution all rows matter; near it few do. Once the gap is small, rows that hold next to
none of their sample's dual are screened out and the iterations continue on the others. The
certificate is always recomputed from all rows; where it shows that a screened row matters, all rows
come back. The last digits come from a crossover (`mixsolve.small_game.crossover`).

References: S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J.
Optim. 1992; S. J. Wright, Primal-Dual Interior-Point Methods, SIAM 1997.
"""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.tuning import tuning
from mixsolve.kernels.constants import FIRST_BARRIER, GAP_FLOOR, INTERIOR_PATIENCE
from mixsolve.small_game.central_path import Iterate, ScreenedGame
from mixsolve.small_game.crossover import polish
from mixsolve.small_game.game import (
    Cuts,
    PathPoint,
    SmallGame,
    SmallSolution,
    Vector,
    certify,
    normalise,
)

logger = logging.getLogger(__name__)

_CROSSOVER_GAP = 1e-6  # try the crossover from this gap on
_BACK = 10.0  # a warm start begins at a point whose gap was so many times the given one


def solve_interior_point(
    rows: Vector,
    offsets: NDArray[np.int64],
    weight: Vector,
    cuts: Cuts | None = None,
    *,
    tol: float = 1e-10,
    max_iter: int = 100,
    start: SmallSolution | Vector | None = None,
    start_gap: float = 1e-3,
    crossover: bool = False,
    halted: Callable[[], bool] | None = None,
) -> SmallSolution:
    """Solve a small game by the interior point method.

    Parameters
    ----------
    rows, offsets, weight, cuts
        As in `normalise`.
    tol : float
        Stop when the certified gap is at most ``tol * spread``, with
        ``spread = sum_i w_i (max - min of the rows of sample i)``. About 1e-14 can be reached.
    max_iter : int
        Limit on the iterations.
    start : SmallSolution or ndarray of float64, shape (L,), optional
        The solution of a game that shares most rows, or weights to start near.
    start_gap : float
        The gap that the weights of the solution ``start`` have in this game, in units of the
        spread. The path to ``start`` is joined where the gap was ten times as wide.
    crossover : bool
        Whether `polish` may find the last digits, once the gap is below 1e-6.
    halted : callable, optional
        Called before each iteration; True ends the solve with the best point met.

    Returns
    -------
    SmallSolution
        The point with the best certified gap; ``converged`` where that is within ``tol``.
    """
    game = normalise(rows, offsets, weight, cuts)
    weights, barrier = _starting_point(game, start, start_gap)
    incumbent = _Incumbent(game, tol)
    if game.spread == 0.0:
        incumbent.offer(
            weights, np.append(np.ones(len(rows)), np.zeros(game.cuts.n_multipliers)), 0
        )
        return incumbent.solution("all losses are equal")
    whole = iterate = Iterate(game, weights, barrier)
    iterate.centre()
    point = iterate.point
    shrunk: ScreenedGame | None = None
    shrink_gap, crossover_gap, stop = tuning.shrink_gap, _CROSSOVER_GAP, 0.5 * tol
    lowest, since = np.inf, 0
    for nit in range(max_iter + 1):
        gap = iterate.factor()
        since += 1
        if gap < lowest:
            lowest, since = gap, 0
            incumbent.path.append(PathPoint(gap, iterate.weights.copy(), iterate.barrier))
            point = iterate.point
        stalled = since > INTERIOR_PATIENCE or not np.isfinite(gap)
        last = nit == max_iter or (halted is not None and halted())
        ended = gap <= max(stop, GAP_FLOOR) or stalled or last
        if crossover and lowest <= (_CROSSOVER_GAP if ended else crossover_gap):
            crossover_gap = 0.01 * lowest
            better = polish(iterate.game, *point, lowest)
            if better is not None and incumbent.offer(*_lift(shrunk, *better), nit):
                break
        if ended:
            if incumbent.offer(*_lift(shrunk, *point), nit) or last:
                break
            if shrunk is not None:
                logger.debug("iteration %d: screened rows matter, back to all of them", nit)
                shrunk, iterate, gap = None, whole, whole.gap
                lowest, since, point = gap, 0, whole.point
                shrink_gap, crossover_gap = 0.03 * gap, _CROSSOVER_GAP
            elif stop <= GAP_FLOOR:
                return incumbent.solution("rounding stopped the interior point method")
            else:
                iterate.restart(*incumbent.place())
                stop, lowest, since = 0.1 * stop, np.inf, 0
                continue
        elif shrunk is None and gap <= shrink_gap and len(rows) >= tuning.shrink_rows:
            shrink_gap = 0.1 * gap
            shrunk = whole.shrink(tuning.shrink_share)
            if shrunk is not None:
                iterate, lowest, since = shrunk.iterate, np.inf, 0
                point = iterate.point
                continue
        iterate.step()
    return incumbent.solution(
        "the time was over" if nit < max_iter else f"iteration limit {max_iter}"
    )


def _starting_point(
    game: SmallGame, start: SmallSolution | Vector | None, start_gap: float
) -> tuple[Vector, float]:
    centre = game.cuts.centre
    barrier = FIRST_BARRIER / max(game.mass, 1.0)
    if start is None:
        return centre, barrier
    if isinstance(start, SmallSolution):
        for point in reversed(start.path):
            if point.gap >= _BACK * start_gap:
                return point.weights, point.barrier
        return centre, barrier
    weights = np.maximum(np.asarray(start, dtype=np.float64), 0.0)
    return 0.9 * weights / weights.sum() + 0.1 * centre, barrier


def _lift(shrunk: ScreenedGame | None, weights: Vector, dual: Vector) -> tuple[Vector, Vector]:
    """The duals of all rows, screened ones included, and of the cuts."""
    if shrunk is None:
        return weights, dual
    full = shrunk.decided.copy()
    n_kept = len(shrunk.index)
    full[shrunk.index] = dual[:n_kept]
    return weights, np.append(full, dual[n_kept:])


class _Incumbent:
    """The best certified point so far."""

    def __init__(self, game: SmallGame, tol: float) -> None:
        self.game = game
        self.tol = tol * game.spread
        self.path: list[PathPoint] = []
        self.best: tuple[Vector, Vector, float, float, float] | None = None
        self.nit = 0

    def offer(self, weights: Vector, dual: Vector, nit: int) -> bool:
        """Certify a point on all rows; True if it is within the tolerance."""
        self.nit = nit
        weights = np.maximum(weights, 0.0)
        weights /= weights.sum()
        found = (weights, dual, *certify(self.game, weights, dual))
        if self.best is None or found[-1] < self.best[-1]:
            self.best = found
        return bool(found[-1] <= self.tol)

    def place(self) -> tuple[Vector, float]:
        """The best weights, and their gap in units of the spread."""
        assert self.best is not None  # called after an offer
        return self.best[0], self.best[-1] / self.game.spread

    def solution(self, otherwise: str) -> SmallSolution:
        assert self.best is not None  # every way out of the loop has offered a point
        weights, dual, value, lower_bound, gap = self.best
        converged = gap <= self.tol
        message = "" if converged else otherwise
        return SmallSolution(
            weights,
            dual[: len(self.game.rows)],
            value,
            lower_bound,
            gap,
            self.game.spread,
            self.nit,
            converged,
            message,
            tuple(self.path),
        )
