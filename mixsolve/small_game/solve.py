"""One small game, solved by the method that its constraints call for.

Over the simplex, or a polytope in it, the interior point method solves it, with crossover for the
last digits; HiGHS takes a game that it has left open. Under constraints written in cvxpy Clarabel
solves it; where Clarabel fails, the game is solved over the simplex, whose dual still proves a
bound.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixsolve.small_game import clarabel, highs
from mixsolve.small_game.game import ConvexCuts, Cuts, SmallSolution, Vector
from mixsolve.small_game.interior_point import solve_interior_point


def solve_small(
    rows: Vector,
    offsets: NDArray[np.int64],
    weight: Vector,
    cuts: Cuts | ConvexCuts | None = None,
    *,
    tol: float = 1e-10,
    max_iter: int = 100,
    start: SmallSolution | Vector | None = None,
    start_gap: float = 1e-3,
    halted: Callable[[], bool] | None = None,
    time_limit: float | None = None,
    unfinished: SmallSolution | None = None,
) -> SmallSolution:
    """Solve a small game.

    Parameters
    ----------
    rows, offsets, weight, tol, max_iter, start, start_gap, halted
        See `solve_interior_point`.
    cuts : Cuts or ConvexCuts, optional
        Constraints of the weights; the simplex by default.
    time_limit : float, optional
        Seconds that Clarabel or HiGHS may take.
    unfinished : SmallSolution, optional
        What the interior point method left of the game: HiGHS solves it instead.

    Returns
    -------
    SmallSolution
        Where the crossover succeeds, rows that are not tied for the maximum have dual 0, and the
        gap is at rounding level, about 1e-15 of the spread, whatever ``tol``. With `unfinished`,
        value and bound are those given there.
    """
    met = True
    if isinstance(cuts, ConvexCuts):
        found = clarabel.solve_rows(rows, offsets, weight, cuts, time_limit)
        if found is not None:
            return found
        cuts, met = None, False
    if unfinished is None:
        found = solve_interior_point(
            rows,
            offsets,
            weight,
            cuts,
            tol=tol,
            max_iter=max_iter,
            start=start,
            start_gap=start_gap,
            crossover=True,
            halted=halted,
        )
    else:
        found = _by_highs(rows, offsets, weight, cuts, unfinished, time_limit)
    return found if met else replace(found, meets_cuts=False)


def _by_highs(
    rows: Vector,
    offsets: NDArray[np.int64],
    weight: Vector,
    cuts: Cuts | None,
    unfinished: SmallSolution,
    time_limit: float | None,
) -> SmallSolution:
    """Weights and duals by HiGHS; feasible ones that prove little where it finds none."""
    found = highs.solve_rows(rows, offsets, weight, cuts, time_limit=time_limit)
    weights, dual = found.weights, found.dual
    if weights is None or dual is None:
        dual = np.zeros(rows.shape[0])
        dual[offsets[:-1]] = weight
        weights = unfinished.weights if cuts is None else cuts.centre
    return replace(unfinished, weights=weights, dual=dual, converged=True)
