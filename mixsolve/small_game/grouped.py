"""A primal-dual interior point method for small games in which the attacker weighs blocks, too.

    min_lam  max_{m in W}  sum_b m_b f_b(lam) + 1/2 <lam - x, H (lam - x)>

with the f_b of `mixsolve.small_game.grouped_game`; H = 0 for the exact game. One epigraph level is
added to the method of `mixsolve.small_game.interior_point` for each level of W, and eliminated like
the rows (`mixsolve.kernels.group_levels`): what remains is the L x L system, to which every block
adds a term of rank one. An iteration costs O((R + B) L^2).

References: S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J.
Optim. 1992; Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000.
"""

from collections.abc import Callable

import numpy as np

from mixsolve.kernels.constants import FIRST_BARRIER, GAP_FLOOR, INTERIOR_PATIENCE
from mixsolve.small_game.game import PathPoint, Vector
from mixsolve.small_game.grouped_game import GroupedGame, GroupedSolution, certify
from mixsolve.small_game.grouped_path import GroupedIterate

_BACK = 10.0  # a warm start begins at a point whose gap was so many times the given one


def solve_grouped(
    game: GroupedGame,
    *,
    tol: float = 1e-10,
    max_iter: int = 100,
    start: GroupedSolution | None = None,
    start_gap: float = 1e-3,
    halted: Callable[[], bool] | None = None,
) -> GroupedSolution:
    """Solve a grouped game.

    Parameters
    ----------
    game : GroupedGame
        Rows, blocks and the attacker's choice.
    tol : float
        Stop when the certified gap is at most ``tol * unit``.
    max_iter : int
        Limit on the iterations.
    start : GroupedSolution, optional
        Of a game that shares most rows: its path is joined where the gap was ten times `start_gap`.
    start_gap : float
        The gap of `start` in this game, in units of the spread.
    halted : callable, optional
        Called before each iteration; True ends the solve with the best point met.
    """
    weights, barrier = _starting_point(game, start, start_gap)
    iterate = GroupedIterate(game, weights, barrier)
    best, lowest, since = None, np.inf, 0
    path: list[PathPoint] = []
    for nit in range(max_iter + 1):
        gap = iterate.factor()
        since += 1
        if gap < lowest:
            lowest, since, best = gap, 0, iterate.point
            path.append(PathPoint(gap, iterate.weights.copy(), iterate.barrier))
        ended = lowest <= max(0.5 * tol, GAP_FLOOR) or since > INTERIOR_PATIENCE
        if ended or nit == max_iter or not gap < np.inf or (halted is not None and halted()):
            break
        iterate.step()
    weights, dual, mass, multipliers = iterate.point if best is None else best
    weights = np.maximum(weights, 0.0)
    weights /= weights.sum()
    return certify(game, weights, dual, mass, multipliers, nit, tol, tuple(path))


def _starting_point(
    game: GroupedGame, start: GroupedSolution | None, start_gap: float
) -> tuple[Vector, float]:
    if start is not None:
        for point in reversed(start.path):
            if point.gap >= _BACK * start_gap:
                return point.weights, point.barrier
    return game.cuts.centre, FIRST_BARRIER / max(1.0, game.rows.shape[0] / max(game.share.size, 1))
