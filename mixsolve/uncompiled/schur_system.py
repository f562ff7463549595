"""`mixsolve.kernels.schur_system` in NumPy."""

import numpy as np

from mixsolve.kernels.constants import LEAST_SLACK
from mixsolve.uncompiled.linear_algebra import factorise, solve


def _project(
    direction: np.ndarray,
    equal: np.ndarray,
    columns: np.ndarray,
    gram: np.ndarray,
    omega: np.ndarray,
) -> None:
    """Move ``direction`` in place until K direction = 0; fill ``omega``."""
    omega[:] = equal @ direction
    solve(gram, omega)
    direction -= omega @ columns


def predictor(
    schurs: np.ndarray,
    centreds: np.ndarray,
    linear: np.ndarray,
    weights: np.ndarray,
    reduced: np.ndarray,
    upper: np.ndarray,
    room: np.ndarray,
    prices: np.ndarray,
    equal: np.ndarray,
    matrix: np.ndarray,
    columns: np.ndarray,
    gram: np.ndarray,
    omega: np.ndarray,
    centred: np.ndarray,
    d_weights: np.ndarray,
) -> None:
    """Fill the last six arguments."""
    centred[:] = linear + centreds.sum(axis=0)
    total = schurs.sum(axis=0)
    matrix[:] = np.triu(total) + np.triu(total, 1).T  # compiled walks fill the upper triangle
    matrix += weights @ matrix.diagonal()
    matrix.flat[:: weights.size + 1] += reduced / weights
    matrix += (upper * (prices / room)[:, None]).T @ upper
    d_weights[:] = -centred
    factorise(matrix)
    columns[:] = equal
    for column in columns:
        solve(matrix, column)
    gram[:] = columns @ equal.T
    factorise(gram)
    solve(matrix, d_weights)
    _project(d_weights, equal, columns, gram, omega)


def _limits(
    sums: np.ndarray, primal: list[np.ndarray], dual: list[np.ndarray]
) -> tuple[float, float]:
    """The largest relative decreases of all that must stay positive; at least 0."""
    most = [
        max(float(column.max(initial=0.0)), *(float(part.max(initial=0.0)) for part in parts))
        for column, parts in ((sums[:, 0], primal), (sums[:, 1], dual))
    ]
    return most[0], most[1]


def corrector(
    towards: np.ndarray,
    against: np.ndarray,
    sums: np.ndarray,
    total_weight: float,
    lam_weight: float,
    complementarity: float,
    weights: np.ndarray,
    reduced: np.ndarray,
    upper: np.ndarray,
    room: np.ndarray,
    prices: np.ndarray,
    equal: np.ndarray,
    matrix: np.ndarray,
    columns: np.ndarray,
    gram: np.ndarray,
    omega: np.ndarray,
    centred: np.ndarray,
    product: np.ndarray,
    room_product: np.ndarray,
    d_weights: np.ndarray,
) -> float:
    """Fill the last three arguments; sigma mu."""
    dz = -reduced - reduced / weights * d_weights
    du = -(upper @ d_weights)
    dy = -prices - prices / room * du
    limits = _limits(sums, [-d_weights / weights, -du / room], [-dz / reduced, -dy / prices])
    primal, dual = (1.0 / max(limit, 1.0) for limit in limits)
    q_ds, s_dq, ds_dq = sums[:, 2:5].sum(axis=0)
    q_ds += reduced @ d_weights + prices @ du
    s_dq += weights @ dz + room @ dy
    ds_dq += d_weights @ dz + du @ dy
    product[:], room_product[:] = d_weights * dz, du * dy
    reached = complementarity + primal * q_ds + dual * s_dq + primal * dual * ds_dq
    left = max(reached / complementarity, 0.0)
    target = left * left * left * complementarity / total_weight
    d_weights[:] = (target * lam_weight - product) / weights - centred
    d_weights += against.sum(axis=0) - target * towards.sum(axis=0)
    d_weights -= ((target * lam_weight - room_product) / room) @ upper
    solve(matrix, d_weights)
    _project(d_weights, equal, columns, gram, omega)
    return float(target)


def advance(
    sums: np.ndarray,
    target: float,
    lam_weight: float,
    fraction: float,
    product: np.ndarray,
    room_product: np.ndarray,
    d_weights: np.ndarray,
    omega: np.ndarray,
    upper: np.ndarray,
    weights: np.ndarray,
    reduced: np.ndarray,
    room: np.ndarray,
    prices: np.ndarray,
    levels: np.ndarray,
    steps: np.ndarray,
) -> None:
    """Move the weights and their multipliers; fill ``steps``."""
    dz = (target * lam_weight - product - reduced * d_weights) / weights - reduced
    du = -(upper @ d_weights)
    dy = (target * lam_weight - room_product - prices * du) / room - prices
    product[:], room_product[:] = dz, dy
    limits = _limits(sums, [-d_weights / weights, -du / room], [-dz / reduced, -dy / prices])
    primal, dual = (min(1.0, fraction / max(limit, fraction)) for limit in limits)
    weights += primal * d_weights
    weights /= weights.sum()
    reduced += dual * dz
    prices += dual * dy
    room[:] = np.maximum(-(upper @ weights), LEAST_SLACK)
    levels += dual * (omega[1:] - levels)
    steps[:] = primal, dual
