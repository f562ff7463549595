"""`mixsolve.kernels.group_levels` in NumPy."""

import numpy as np

from mixsolve.kernels.constants import LEAST_SLACK


def _split(excess: np.ndarray, top: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masses (m, n) of sum `top` with level / n - level / m = excess."""
    root = np.sqrt(excess * excess * top * top + 4.0 * level * level)
    less = 2.0 * level * top / (2.0 * level + np.abs(excess) * top + root)
    rises = excess > 0.0
    return np.where(rises, top - less, less), np.where(rises, less, top - less)


def masses_on_path(
    height: np.ndarray,
    parent: np.ndarray,
    cap: np.ndarray,
    parent_mass: np.ndarray,
    path: np.ndarray,
    barrier: float,
    eta: np.ndarray,
    mass: np.ndarray,
    idle: np.ndarray,
) -> None:
    """Fill ``eta``, ``mass`` and ``idle``."""
    n_parents = parent_mass.size
    top, level = cap * parent_mass[parent], barrier * path
    low, high, widest = np.full(n_parents, np.inf), np.full(n_parents, -np.inf), np.zeros(n_parents)
    np.minimum.at(low, parent, height)
    np.maximum.at(high, parent, height)
    np.maximum.at(widest, parent, path / cap)

    def held(heights: np.ndarray) -> np.ndarray:
        each, _ = _split(height - heights[parent], top, level)
        return np.bincount(parent, each, minlength=n_parents)

    room = 1.0 + high - low + barrier * widest / parent_mass
    least, most = low - room, high + room
    above = held(most) > parent_mass
    while above.any():
        room = np.where(above, 2.0 * room, room)
        most = np.where(above, most + room, most)
        above = held(most) > parent_mass
    below = (held(least) < parent_mass) & (room < 1e12)
    while below.any():
        room = np.where(below, 2.0 * room, room)
        least = np.where(below, least - room, least)
        below = (held(least) < parent_mass) & (room < 1e12)
    for _ in range(100):
        middle = 0.5 * (least + most)
        too_much = held(middle) > parent_mass
        least, most = np.where(too_much, middle, least), np.where(too_much, most, middle)
    eta[:] = 0.5 * (least + most)
    mass[:], _ = _split(height - eta[parent], top, level)
    total = np.bincount(parent, mass, minlength=n_parents)
    mass[:] = np.minimum(mass * (parent_mass / total)[parent], (1.0 - 1e-12) * top)
    idle[:] = top - mass


def eliminate(
    parent: np.ndarray,
    cap: np.ndarray,
    slopes: np.ndarray,
    curvature: np.ndarray,
    mass: np.ndarray,
    above: np.ndarray,
    excess: np.ndarray,
    idle: np.ndarray,
    weight: np.ndarray,
    pull: np.ndarray,
    total: np.ndarray,
    slope_mean: np.ndarray,
    pull_mean: np.ndarray,
    parent_slopes: np.ndarray,
    parent_curvature: np.ndarray,
    matrix: np.ndarray,
) -> None:
    """Fill the arguments from ``weight`` on; add to the whole ``matrix``."""
    count = total.size
    h = excess / idle
    weight[:] = 1.0 / (above / mass + h + curvature)
    pull[:] = cap * h
    total[:] = np.bincount(parent, weight, minlength=count)
    pull_mean[:] = np.bincount(parent, weight * pull, minlength=count) / total
    slope_mean[:] = 0.0
    np.add.at(slope_mean, parent, weight[:, None] * slopes)
    slope_mean /= total[:, None]
    bend, difference = pull - pull_mean[parent], slopes - slope_mean[parent]
    parent_curvature[:] = 1.0 / total - 2.0 * pull_mean
    parent_curvature += np.bincount(parent, cap * pull - weight * bend * bend, minlength=count)
    parent_slopes[:] = slope_mean
    np.add.at(parent_slopes, parent, (weight * pull)[:, None] * difference)
    scatter = np.sqrt(weight)[:, None] * difference
    matrix += scatter.T @ scatter


def carry(
    parent: np.ndarray,
    cap: np.ndarray,
    mass: np.ndarray,
    idle: np.ndarray,
    weight: np.ndarray,
    pull: np.ndarray,
    total: np.ndarray,
    constant: np.ndarray,
    for_mass: np.ndarray,
    for_excess: np.ndarray,
    left: np.ndarray,
    rho: np.ndarray,
    rho_mean: np.ndarray,
    parent_constant: np.ndarray,
) -> None:
    """Fill ``rho``, ``rho_mean`` and ``parent_constant``."""
    count = total.size
    of_excess = for_excess / idle
    rho[:] = for_mass / mass - of_excess + constant + left
    rho_mean[:] = np.bincount(parent, weight * rho, minlength=count) / total
    each = cap * of_excess + weight * pull * (rho - rho_mean[parent])
    parent_constant[:] = rho_mean + np.bincount(parent, each, minlength=count)


def hand_down(
    parent: np.ndarray,
    slopes: np.ndarray,
    weight: np.ndarray,
    pull: np.ndarray,
    total: np.ndarray,
    slope_mean: np.ndarray,
    pull_mean: np.ndarray,
    rho: np.ndarray,
    rho_mean: np.ndarray,
    d_parent: np.ndarray,
    d_weights: np.ndarray,
    d_eta: np.ndarray,
    d_mass: np.ndarray,
) -> None:
    """Fill ``d_eta`` and ``d_mass``."""
    d_eta[:] = rho_mean + (pull_mean - 1.0 / total) * d_parent + slope_mean @ d_weights
    d_mass[:] = weight * (rho + pull * d_parent[parent] - d_eta[parent] + slopes @ d_weights)


def complete(
    parent: np.ndarray,
    cap: np.ndarray,
    mass: np.ndarray,
    above: np.ndarray,
    excess: np.ndarray,
    idle: np.ndarray,
    for_mass: np.ndarray,
    for_excess: np.ndarray,
    d_parent: np.ndarray,
    d_mass: np.ndarray,
    d_above: np.ndarray,
    d_excess: np.ndarray,
    d_idle: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Fill the last four arguments."""
    d_idle[:] = cap * d_parent[parent] - d_mass
    d_above[:] = (for_mass - above * d_mass) / mass
    d_excess[:] = (for_excess - excess * d_idle) / idle
    sums[0] = max(0.0, (-d_above / above).max(), (-d_excess / excess).max())
    sums[1] = max(0.0, (-d_mass / mass).max(), (-d_idle / idle).max())
    sums[2] = mass @ d_above + idle @ d_excess
    sums[3] = above @ d_mass + excess @ d_idle
    sums[4] = d_above @ d_mass + d_excess @ d_idle


def take_step(
    parent: np.ndarray,
    cap: np.ndarray,
    height: np.ndarray,
    primal: float,
    dual: float,
    eta: np.ndarray,
    d_eta: np.ndarray,
    left: np.ndarray,
    mass: np.ndarray,
    d_mass: np.ndarray,
    idle: np.ndarray,
    d_idle: np.ndarray,
    above: np.ndarray,
    excess: np.ndarray,
    d_excess: np.ndarray,
    parent_height: np.ndarray,
) -> None:
    """Move the level; fill ``above`` and ``parent_height``."""
    eta += primal * d_eta
    mass[:] = np.maximum(mass + dual * d_mass, 1e-300)
    idle[:] = np.maximum(idle + dual * d_idle, 1e-300)
    excess[:] = np.maximum(excess + primal * d_excess, LEAST_SLACK * 1e-3)
    left *= 1.0 - primal
    above[:] = np.maximum(eta[parent] + excess - height + left, LEAST_SLACK)
    parent_height[:] = eta + np.bincount(parent, cap * excess, minlength=eta.size)
