"""Why no weights meet the constraints: a smallest set that clashes, and multipliers that prove it.

    C lam <= 0,  F lam = 0    has no solution on the simplex

if and only if some y >= 0 and v have C'y + F'v > 0 in every entry. Constraints are left out one
after the other as long as the others still clash; without any of those that remain, the others can
be met.

Reference: Chinneck, Feasibility and Infeasibility in Optimization, 2008 (the deletion filter).
"""

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.small_game.highs import bound_multipliers, linear_program

FEASIBLE = 1e-9  # violation, in units of a row, that counts as none


def least_violation(upper: np.ndarray, equal: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights that violate the constraints C (p, L) and F (q, L) least, and by how much.

    Their entries are at most 1.
    """
    size = upper.shape[1]
    rows = np.vstack([upper, equal, -equal])
    found = linear_program(
        np.append(np.zeros(size), 1.0),
        A_ub=np.column_stack([rows, -np.ones(rows.shape[0])]),
        b_ub=np.zeros(rows.shape[0]),
        A_eq=np.append(np.ones(size), 0.0)[None],
        b_eq=[1.0],
        bounds=(0.0, None),
    )
    if found.x is None:
        raise MixsolveError(f"constraints could not be examined: {found.message}")
    weights = np.maximum(found.x[:size], 0.0)
    weights /= weights.sum()
    return weights, float(np.maximum(rows @ weights, 0.0).max(initial=0.0))


def smallest_clash(upper: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """Which constraints clash: boolean of shape (p + q,), C before F; none can be left out."""
    n_upper = upper.shape[0]
    kept = np.ones(n_upper + equal.shape[0], dtype=bool)
    for row in range(kept.size):
        kept[row] = False
        if least_violation(upper[kept[:n_upper]], equal[kept[n_upper:]])[1] <= FEASIBLE:
            kept[row] = True
    return kept


def separate(upper: np.ndarray, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The y in [0, 1]^p and v in [-1, 1]^q with the largest min_k (C'y + F'v)_k, and that."""
    nothing = np.zeros(upper.shape[1])
    prices, levels = bound_multipliers(nothing, upper, equal, most=1.0)
    return prices, levels, float((upper.T @ prices + equal.T @ levels).min())
