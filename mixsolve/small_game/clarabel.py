"""Models handed to Clarabel through cvxpy, and the exact game among them.

    min sum_i w_i t_i    s.t.  <lam, l_r> <= t_i for every row r of sample i,

over the simplex and whatever constraints cvxpy accepts. Losses enter as differences to the first
row of their sample, in units of their spread, so that Clarabel's absolute tolerances mean the same
in every game.

References: Diamond and Boyd, CVXPY: a Python-embedded modeling language for convex optimization,
2016; Goulart and Chen, Clarabel, 2024.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.compilation import load
from mixsolve.small_game.game import ConvexCuts, SmallSolution, Vector, certify, normalise

TOLERANCES = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}


def solve_model(model: Any, time_limit: float | None = None) -> float | None:
    """Solve a cvxpy problem; its optimum, or None where Clarabel found none."""
    cp = load("cvxpy")
    limits = {} if time_limit is None else {"time_limit": time_limit}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cvxpy's word on accuracy; the certificate says it
        try:
            found = model.solve(solver=cp.CLARABEL, **TOLERANCES, **limits)
        except cp.error.SolverError:
            return None
    return None if found is None or not np.isfinite(found) else float(found)


def solve_rows(
    rows: Vector,
    offsets: NDArray[np.int64],
    weight: Vector,
    cuts: ConvexCuts,
    time_limit: float | None = None,
) -> SmallSolution | None:
    """Solve the exact game on rows in memory; None where Clarabel finds no solution.

    Rows, offsets and weight are those of `normalise`; columns of classifiers that may have no
    weight are 0. The time limit is in seconds.
    """
    cp = load("cvxpy")
    game = normalise(rows, offsets, weight)
    samples = np.repeat(np.arange(weight.size), np.diff(offsets))
    relative = (rows - rows[offsets[:-1]][samples]) * game.inverse
    worst = cp.Variable(weight.size)
    above = relative @ cuts.weights <= worst[samples]
    objective = weight @ worst + game.linear @ cuts.weights
    found = solve_model(cp.Problem(cp.Minimize(objective), [*cuts.rules, above]), time_limit)
    # Ended by the limit, Clarabel may be at its starting point, where all weights are 0.
    if found is None or above.dual_value is None or not cuts.weights.value.max() > 0.0:
        return None
    weights = cuts.found()
    dual = np.maximum(above.dual_value, 0.0)
    idle = np.add.reduceat(dual, offsets[:-1]) <= 0.0
    dual[offsets[:-1][idle]] = weight[idle]
    value, lower_bound, gap = certify(game, weights, dual)
    return SmallSolution(
        weights, dual, value, lower_bound, gap, game.spread, 0, True, "Clarabel", ()
    )
