"""`mixsolve.kernels.group_rows` in NumPy."""

import numpy as np

from mixsolve.kernels.constants import LEAST_SHARE, LEAST_SLACK
from mixsolve.uncompiled import interior_point
from mixsolve.uncompiled.interior_point import Several


def _block_of(blocks: np.ndarray) -> np.ndarray:
    """The block of each sample."""
    return np.repeat(np.arange(blocks.size - 1), np.diff(blocks))


def _whole(rows: np.ndarray, offsets: np.ndarray, inverse: float) -> Several:
    return Several(rows, offsets, 0, offsets.size - 1, inverse)


def centre(
    rows: np.ndarray,
    offsets: np.ndarray,
    share: np.ndarray,
    blocks: np.ndarray,
    inverse: float,
    weights: np.ndarray,
    barriers: np.ndarray,
    mass: np.ndarray,
    height: np.ndarray,
    dual: np.ndarray,
) -> None:
    """Fill ``height`` and ``dual``."""
    block, n_samples = _block_of(blocks), share.size
    interior_point.centre(
        rows, offsets, share, inverse, weights, barriers[block], height, dual, 0, n_samples,
        np.empty(weights.size),
    )  # fmt: skip
    dual *= np.repeat(mass[block], np.diff(offsets))


def heights(
    share: np.ndarray,
    blocks: np.ndarray,
    offsets: np.ndarray,
    height: np.ndarray,
    linear: np.ndarray,
    weights: np.ndarray,
    level: np.ndarray,
) -> None:
    """Fill ``level``."""
    each = np.where(np.diff(offsets) > 1, share * height, 0.0)
    level[:] = linear @ weights + np.bincount(_block_of(blocks), each, minlength=level.size)


def factor(
    rows: np.ndarray,
    offsets: np.ndarray,
    share: np.ndarray,
    blocks: np.ndarray,
    inverse: float,
    weights: np.ndarray,
    primal_step: float,
    dual_step: float,
    height: np.ndarray,
    d_height: np.ndarray,
    slack: np.ndarray,
    dual: np.ndarray,
    d_dual: np.ndarray,
    linear: np.ndarray,
    mass: np.ndarray,
    schur: np.ndarray,
    slopes: np.ndarray,
    curvature: np.ndarray,
    closest: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Move ``height``, ``slack`` and ``dual``; fill the last five; the complementarity."""
    part = _whole(rows, offsets, inverse)
    owner, w = part.owner, share[part.samples]
    block, count = _block_of(blocks)[part.samples], mass.size
    height[part.samples] += primal_step * d_height[part.samples]
    q = np.maximum(dual[part.index] + dual_step * d_dual[part.index], LEAST_SHARE * w[owner])
    s = np.maximum(height[part.samples][owner] - part.rows @ weights, LEAST_SLACK)
    dual[part.index], slack[part.index] = q, s
    ratio = q / s
    total, mean = part.scatter_means(ratio, part.rows)
    scatter = np.sqrt(ratio)[:, None] * (part.rows - mean[owner])
    schur[:] = scatter.T @ scatter
    slopes[:] = linear
    np.add.at(slopes, block, w[:, None] * mean)
    curvature[:] = np.bincount(block, w * w / total, minlength=count)
    closest[:] = np.bincount(block, w * part.by_sample.least(s), minlength=count)
    gradient[:] = mass @ linear + q @ part.rows
    return float(q @ s)


def predict(
    rows: np.ndarray,
    offsets: np.ndarray,
    share: np.ndarray,
    blocks: np.ndarray,
    inverse: float,
    d_weights: np.ndarray,
    new_mass: np.ndarray,
    path: np.ndarray,
    limit: float,
    slack: np.ndarray,
    dual: np.ndarray,
    product: np.ndarray,
    towards: np.ndarray,
    against: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Fill ``product`` and the last five arguments."""
    part = _whole(rows, offsets, inverse)
    owner, w = part.owner, share[part.samples]
    block, count = _block_of(blocks)[part.samples], new_mass.size
    s, q = slack[part.index], dual[part.index]
    p = part.rows @ d_weights
    ratio = q / s
    total, pbar = part.scatter_means(ratio, p)
    ds = (pbar - w * new_mass[block] / total)[owner] - p
    dq = -q - ratio * ds
    weight = (w * path[block])[owner]
    cut = np.clip(ds * dq, -limit * weight, limit * weight)
    product[part.index] = cut
    for pull, out, of_block in ((weight / s, towards, up), (cut / s, against, down)):
        sum_of_sample = part.by_sample.sums(pull)
        out[:] = (pull - sum_of_sample[owner] * ratio / total[owner]) @ part.rows
        of_block[:] = np.bincount(block, w * sum_of_sample / total, minlength=count)
    sums[0], sums[1] = (-ds / s).max(initial=0.0), (-dq / q).max(initial=0.0)
    sums[2:5] = q @ ds, s @ dq, ds @ dq


def correct(
    rows: np.ndarray,
    offsets: np.ndarray,
    share: np.ndarray,
    blocks: np.ndarray,
    inverse: float,
    d_weights: np.ndarray,
    new_mass: np.ndarray,
    path: np.ndarray,
    target: float,
    slack: np.ndarray,
    dual: np.ndarray,
    product: np.ndarray,
    d_height: np.ndarray,
    d_dual: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Fill ``d_height``, ``d_dual`` and ``sums``."""
    part = _whole(rows, offsets, inverse)
    owner, w = part.owner, share[part.samples]
    block = _block_of(blocks)[part.samples]
    s, q = slack[part.index], dual[part.index]
    p = part.rows @ d_weights
    total, pbar = part.scatter_means(q / s, p)
    wanted = (target * w * path[block])[owner] - product[part.index]
    dt = pbar + (part.by_sample.sums(wanted / s) - w * new_mass[block]) / total
    ds = dt[owner] - p
    dq = (wanted - q * ds) / s - q
    d_height[part.samples], d_dual[part.index] = dt, dq
    sums[0], sums[1] = (-ds / s).max(initial=0.0), (-dq / q).max(initial=0.0)
