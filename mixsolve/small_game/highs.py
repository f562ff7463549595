"""Linear programs given to HiGHS through SciPy: the exact game, as the independent check; bounds.

    min sum_i w_i t_i    s.t.  <lam, l_r> <= t_i for every row r of sample i,  lam in the simplex,

or in a polytope in it.

The multipliers of the rows are the attacker's strategy: q_r >= 0, sum over sample i equal to w_i.

References: Huangfu and Hall, Parallelizing the dual revised simplex method, 2018.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.base.compilation import load
from mixsolve.small_game.game import Cuts

_TOLERANCES = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def linear_program(
    cost: np.ndarray, *, solver: str = "highs", time_limit: float | None = None, **constraints: Any
) -> Any:
    """SciPy's ``linprog`` by HiGHS, to tight tolerances; the constraints are its arguments."""
    options = dict(_TOLERANCES)
    if time_limit is not None:
        options["time_limit"] = time_limit
    linprog = load("scipy.optimize").linprog
    return linprog(cost, method=solver, options=options, **constraints)


@dataclass(frozen=True)
class LinearProgramResult:
    """What HiGHS found.

    Attributes
    ----------
    weights : ndarray of float64, shape (L,), or None
        None when no feasible point was found.
    dual : ndarray of float64, shape (R,), or None
        Mass of each row, non-negative.
    message : str
        HiGHS' own words.
    timed_out : bool
        Whether the time limit ended it.
    nit : int
        Iterations.
    """

    weights: np.ndarray | None
    dual: np.ndarray | None
    message: str
    timed_out: bool
    nit: int


def solve_rows(
    rows: np.ndarray,
    offsets: np.ndarray,
    sample_weight: np.ndarray,
    cuts: Cuts | None = None,
    *,
    solver: str = "highs",
    time_limit: float | None = None,
) -> LinearProgramResult:
    """Solve the exact game on rows in memory.

    Parameters
    ----------
    rows, offsets, sample_weight, cuts
        As in `mixsolve.small_game.game.normalise`; a weight may be 0.
    solver : {"highs", "highs-ds", "highs-ipm"}
        HiGHS' choice, its dual simplex, or its interior point with crossover.
    time_limit : float or None
        Seconds.
    """
    sparse = load("scipy.sparse")
    csr_array, hstack = sparse.csr_array, sparse.hstack

    n_rows, n_classifiers = rows.shape
    n_samples = offsets.size - 1
    samples = np.repeat(np.arange(n_samples), np.diff(offsets))
    # What a sample's losses have in common moves no weight; HiGHS' tolerances are absolute.
    shift = np.minimum.reduceat(rows.min(axis=1), offsets[:-1])[samples, None]
    scale = float((rows - shift).max()) or 1.0
    epigraph = csr_array(
        (np.full(n_rows, -1.0), samples, np.arange(n_rows + 1)), shape=(n_rows, n_samples)
    )
    limits = Cuts.none(n_classifiers) if cuts is None else cuts
    n_upper, n_equal = limits.upper.shape[0], limits.equal.shape[0]
    epigraph.resize(n_rows + n_upper, n_samples)
    result = linear_program(
        np.concatenate([np.zeros(n_classifiers), sample_weight]),
        A_ub=hstack(
            [csr_array(np.concatenate([(rows - shift) / scale, limits.upper])), epigraph],
            format="csr",
        ),
        b_ub=np.zeros(n_rows + n_upper),
        A_eq=hstack([csr_array(limits.equal), csr_array((n_equal, n_samples))], format="csr"),
        b_eq=np.eye(1, n_equal)[0],
        bounds=[(0.0, None)] * n_classifiers + [(None, None)] * n_samples,
        solver=solver,
        time_limit=time_limit,
    )
    weights = dual = None
    if result.x is not None and np.isfinite(result.x).all():
        point = result.x[:n_classifiers]
        if point.max() > 0:
            weights = np.maximum(point, 0.0) / np.maximum(point, 0.0).sum()
        marginals = getattr(result.ineqlin, "marginals", None)
        if marginals is not None and np.isfinite(marginals).all():
            dual = np.maximum(-np.asarray(marginals)[:n_rows], 0.0)
    return LinearProgramResult(weights, dual, result.message, result.status == 1, int(result.nit))


def bound_multipliers(
    gradient: np.ndarray, upper: np.ndarray, equal: np.ndarray, most: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The y >= 0 and v with the largest ``min_k (gradient + upper' y + equal' v)_k``.

    Parameters
    ----------
    gradient : ndarray of float64, shape (L,)
        Of magnitude about 1.
    upper, equal : ndarray of float64, shape (p, L), (q, L)
        Of entries of at most 1.
    most : float, optional
        Bound on the multipliers' size.

    Returns
    -------
    upper, equal : ndarray of float64, shape (p,), (q,)
        Zeros where HiGHS finds none.
    """
    n_upper, n_equal = upper.shape[0], equal.shape[0]
    least = None if most is None else -most
    found = linear_program(
        np.append(np.zeros(n_upper + n_equal), -1.0),
        A_ub=np.column_stack([-upper.T, -equal.T, np.ones(gradient.size)]),
        b_ub=gradient,
        bounds=[(0.0, most)] * n_upper + [(least, most)] * n_equal + [(None, None)],
    )
    if found.x is None:
        return np.zeros(n_upper), np.zeros(n_equal)
    return np.maximum(found.x[:n_upper], 0.0), found.x[n_upper:-1]
