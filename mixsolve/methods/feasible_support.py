"""Which few classifiers have a mixture that meets linear constraints, or which of these clash.

    A_ub lam <= b_ub,  A_eq lam = b_eq,  lam in the simplex,  lam_k <= z_k,  sum_k z_k <= K,
    z_k 0 or 1

in L weights and as many choices: a small mixed-integer program, for HiGHS. Its tolerances only
loosen the constraints, so what it finds infeasible is; what it finds feasible is checked again.

References: Huangfu and Hall, Parallelizing the dual revised simplex method, 2018; Chinneck,
Feasibility and Infeasibility in Optimization, 2008 (the deletion filter).
"""

import numpy as np

from mixsolve.base.compilation import load
from mixsolve.base.errors import MixsolveError
from mixsolve.feasible import Infeasibility
from mixsolve.feasible.constraints import LinearConstraints
from mixsolve.methods.stopping import Stop


def find_few(
    linear: LinearConstraints, max_models: int, stop: Stop | None = None
) -> tuple[int, ...] | Infeasibility:
    """Classifiers, few enough, with a mixture that meets the constraints; or why there are none.

    Some mixture of all classifiers meets them. `stop`, of the search that follows, has the limit
    of time.

    Raises
    ------
    MixsolveError
        If HiGHS could not decide, or not in time.
    """
    stop = Stop(0.0) if stop is None else stop
    n_upper = linear.b_ub.size
    kept = np.ones(n_upper + linear.b_eq.size, dtype=bool)
    found = _find(linear, kept, max_models, stop)
    if found is not None:
        return found
    for row in range(kept.size):
        kept[row] = False
        if _find(linear, kept, max_models, stop) is not None:
            kept[row] = True
    labels = np.array([*linear.labels_ub, *linear.labels_eq], dtype=object)[kept]
    nothing = np.empty(0)
    clash = (*labels.tolist(), f"max_models={max_models}")
    return Infeasibility(clash, nothing, nothing, float("nan"))


def _find(
    linear: LinearConstraints, kept: np.ndarray, max_models: int, stop: Stop
) -> tuple[int, ...] | None:
    optimize = load("scipy.optimize")
    Rows = optimize.LinearConstraint
    size, n_upper = linear.n_classifiers, linear.b_ub.size
    # Weights sum to 1: <a, lam> <= b is <a - b, lam> <= 0, in the unit of its largest entry.
    rows = np.vstack([linear.A_ub - linear.b_ub[:, None], linear.A_eq - linear.b_eq[:, None]])
    rows = rows / np.maximum(np.abs(rows).max(axis=1, initial=0.0), 1e-300)[:, None]
    low = np.concatenate([np.full(n_upper, -np.inf), np.zeros(kept.size - n_upper)])
    nothing, ones = np.zeros((kept.sum(), size)), np.ones(size)
    found = optimize.milp(
        np.concatenate([np.zeros(size), ones]),
        integrality=np.repeat([0, 1], size),
        bounds=optimize.Bounds(0.0, 1.0),
        constraints=[
            Rows(np.hstack([rows[kept], nothing]), low[kept], 0.0),
            Rows(np.hstack([np.eye(size), -np.eye(size)]), -np.inf, 0.0),
            Rows(np.concatenate([ones, 0.0 * ones])[None], 1.0, 1.0),
            Rows(np.concatenate([0.0 * ones, ones])[None], 1.0, max_models),
        ],
        options={} if stop.seconds_left is None else {"time_limit": stop.seconds_left},
    )
    if found.x is not None:
        return tuple(np.flatnonzero(found.x[size:] > 0.5).tolist())
    if found.status == 2:  # infeasible
        return None
    if stop.is_late():
        raise MixsolveError(
            f"no mixture of at most {max_models} classifiers that meets the constraints was found "
            f"before the time limit of {stop.time_limit} s, nor a proof that there is none; raise "
            "time_limit or max_models"
        )
    raise MixsolveError(f"constraints could not be examined: {found.message}")
