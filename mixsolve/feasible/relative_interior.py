"""Where a polytope in the simplex has its interior.

    P = { lam >= 0 : sum lam = 1, C lam <= 0, F lam = 0 }

Some of its inequalities may hold with equality everywhere: a bound met from both sides, a budget
that the cheapest classifier just meets. These are equalities, and weights that are 0 everywhere are
none. What is left has weights strictly inside, from which interior point methods start.

All constraints are homogeneous, so one linear program finds the most inequalities that hold
strictly at once,

    max  sum t    s.t.  C x + t_C <= 0,  x >= t_x,  F x = 0,  0 <= t <= 1:

t is 0 or 1, and where x = 0 there are no feasible weights. A bound on <g, lam> found on the face
needs multipliers of the polytope itself: the sign of an inequality that became an equality is lost.
It comes back by adding a multiple of the proof that it is one,

    y_T > 0,  z_D > 0,  v    with    C_T' y + F' v = z,    z = 0 off D,

for the tight rows T and the dropped weights D.

References: Freund, Roundy and Todd, Identifying the set of always-active constraints in a system of
linear inequalities by a single linear program, 1985; Boyd and Vandenberghe, Convex Optimization,
2004, section 9.5 (the analytic centre).
"""

from dataclasses import dataclass

import numpy as np

from mixsolve.base.compilation import load
from mixsolve.small_game.game import Cuts
from mixsolve.small_game.highs import linear_program

_SCALE = 1e-6  # price of scaling x up: sets wider than this count as having an interior
_FLAT = 1e-9  # slack that counts as none, in the linear program's scale
_RANK = 1e-10  # singular values below this share of the largest count as zero
_ROOM = 1e-3  # slack at uniform weights from which these are far enough inside
_CENTRED = 0.1  # Newton decrement
_MAX_ITER = 60


@dataclass(frozen=True)
class Face:
    """The smallest face of the simplex and of the inequalities that holds the polytope.

    Attributes
    ----------
    used : ndarray of int64, shape (L',)
        Weights that are not 0 everywhere.
    loose : ndarray of bool, shape (p,)
        Inequalities that some feasible weights meet strictly.
    cuts : Cuts
        The polytope in the used weights; its equalities are independent combinations of the rows
        of `level`.
    level : ndarray of float64, shape (n_tight + q, L')
        Tight inequalities, then equalities.
    proof : tuple of ndarray
        y_T (n_tight,), v (q,) and z (L,) as above; zeros where there is nothing to prove.
    """

    used: np.ndarray
    loose: np.ndarray
    cuts: Cuts
    level: np.ndarray
    proof: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def is_point(self) -> bool:
        """Whether only one mixture is feasible."""
        return self.cuts.equal.shape[0] == self.used.size


def find_face(upper: np.ndarray, equal: np.ndarray) -> Face | None:
    """The face of ``upper @ lam <= 0``, ``equal @ lam = 0`` on the simplex; None if that is empty.

    The rows (p, L) and (q, L) have entries of at most 1, none of them is zero.
    """
    size = upper.shape[1]
    inside = np.full(size, 1.0 / size)
    if equal.shape[0] or (upper @ inside).max(initial=-1.0) > -_ROOM:
        found = _innermost(upper, equal)
        if found is None:
            return None
        inside = found
    used = np.flatnonzero(inside > _FLAT)
    loose = upper @ inside < -_FLAT
    inside = inside / inside.sum()
    level = np.concatenate([upper[~loose], equal])[:, used]
    # Within the linear program's tolerance: shifted, so that the tight rows share this point.
    level = level - (level @ inside[used])[:, None]
    equalities = np.vstack([np.ones(used.size), _row_space(level)])
    inner = np.ascontiguousarray(upper[loose][:, used])
    centre = _analytic_centre(inside[used], inner, equalities)
    cuts = Cuts(inner, equalities, centre)
    proof = _prove(upper[~loose], equal, used)
    return Face(used, loose, cuts, level, proof)


def _innermost(upper: np.ndarray, equal: np.ndarray) -> np.ndarray | None:
    """A point, of any sum, at which all inequalities hold strictly that can."""
    (n_upper, size), n_equal = upper.shape, equal.shape[0]
    n_rows = n_upper + size
    found = linear_program(
        np.concatenate([np.full(size, _SCALE), -np.ones(n_rows)]),
        A_ub=np.hstack([np.vstack([upper, -np.eye(size)]), np.eye(n_rows)]),
        b_ub=np.zeros(n_rows),
        A_eq=np.hstack([equal, np.zeros((n_equal, n_rows))]) if n_equal else None,
        b_eq=np.zeros(n_equal) if n_equal else None,
        bounds=[(0.0, None)] * size + [(0.0, 1.0)] * n_rows,
    )
    if found.x is None or found.x[:size].sum() < 0.5:
        return None
    return np.maximum(found.x[:size], 0.0)


def _row_space(rows: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the rows, one a row."""
    _, values, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[values > _RANK * values.max(initial=0.0)]


def _analytic_centre(inside: np.ndarray, upper: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """Nearly the maximum of sum log lam + sum log(-C lam), by damped Newton steps from inside."""
    # Onto the equalities to the last digit: no step leaves them or comes back to them.
    missing = np.eye(1, equal.shape[0])[0] - equal @ inside
    x = inside + np.linalg.lstsq(equal, missing, rcond=None)[0]
    for _ in range(_MAX_ITER if upper.shape[0] or equal.shape[0] > 1 else 0):
        # Everything in units of x: the barrier of the weights has the identity for its Hessian.
        rows = upper * x / (upper @ x)[:, None]
        hessian = np.eye(x.size) + rows.T @ rows
        slope = -np.ones(x.size) - rows.sum(axis=0)
        columns = (equal * x).T
        solved = np.linalg.solve(hessian, np.column_stack([slope, columns]))
        omega = np.linalg.lstsq(columns.T @ solved[:, 1:], columns.T @ solved[:, 0], rcond=None)[0]
        step = solved[:, 1:] @ omega - solved[:, 0]
        decrement = np.sqrt(max(-float(slope @ step), 0.0))
        if decrement < _CENTRED:
            break
        x = x * (1.0 + step / (1.0 + decrement))
        x = x / x.sum()
    return x


def _prove(
    tight: np.ndarray, equal: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multipliers that show the tight rows and the dropped weights to be so."""
    (n_tight, size), n_equal = tight.shape, equal.shape[0]
    dropped = np.setdiff1d(np.arange(size), used)
    nothing = np.zeros(n_tight), np.zeros(n_equal), np.zeros(size)
    if not n_tight and not dropped.size:
        return nothing
    linprog = load("scipy.optimize").linprog

    found = linprog(
        np.concatenate([np.ones(n_tight + 2 * n_equal), np.zeros(dropped.size)]),
        A_eq=np.hstack([tight.T, equal.T, -equal.T, -np.eye(size)[:, dropped]]),
        b_eq=np.zeros(size),
        bounds=[(1.0, None)] * n_tight
        + [(0.0, None)] * (2 * n_equal)
        + [(1.0, None)] * dropped.size,
        method="highs",
    )
    if found.x is None:
        return nothing
    prices, plus, minus, _ = np.split(found.x, np.cumsum([n_tight, n_equal, n_equal]))
    levels = plus - minus
    z = np.zeros(size)
    z[dropped] = (tight.T @ prices + equal.T @ levels)[dropped]
    return prices, levels, z
