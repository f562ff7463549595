"""`mixsolve.kernels.interior_point` in NumPy."""

from __future__ import annotations

import numpy as np

from mixsolve.kernels.constants import LEAST_SHARE, LEAST_SLACK
from mixsolve.uncompiled.ragged import Ragged


class Several:
    """The samples lo:hi that have several rows, and those rows less the first of each."""

    def __init__(
        self, rows: np.ndarray, offsets: np.ndarray, lo: int, hi: int, inverse: float
    ) -> None:
        counts = np.diff(offsets[lo : hi + 1])
        self.samples = lo + np.flatnonzero(counts > 1)
        counts = counts[counts > 1]
        self.by_sample = Ragged.of(np.concatenate([[0], np.cumsum(counts)]))
        self.owner = self.by_sample.owner
        first = offsets[self.samples]
        place = first - self.by_sample.starts
        self.index = place[self.owner] + np.arange(self.owner.size)
        self.rows = (rows[self.index] - rows[first][self.owner]) * inverse

    def scatter_means(self, ratio: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums (n,) of the ratios, and means of values (R, ...) by them."""
        total = self.by_sample.sums(ratio)
        weighed = ratio[:, None] * values if values.ndim > 1 else ratio * values
        sums = self.by_sample.sums(weighed)
        return total, sums / (total[:, None] if values.ndim > 1 else total)


def spread_and_reference(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    lo: int,
    hi: int,
    reference: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Fill ``reference`` and ``sums``."""
    span, weight = rows[offsets[lo] : offsets[hi]], weight[lo:hi]
    samples = Ragged.of(offsets[lo : hi + 1])
    first = rows[offsets[lo:hi]]
    sums[0] = weight @ (samples.most(span.max(axis=1)) - samples.least(span.min(axis=1)))
    sums[1] = weight @ first[:, 0]
    reference[:] = weight @ (first - first[:, :1])


def certificate_sums(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    weights: np.ndarray,
    dual: np.ndarray,
    lo: int,
    hi: int,
    gradient: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Scale ``dual`` in place; fill ``gradient`` and ``sums``."""
    here = slice(offsets[lo], offsets[hi])
    samples = Ragged.of(offsets[lo : hi + 1])
    dual[here] *= (weight[lo:hi] / samples.sums(dual[here]))[samples.owner]
    difference = rows[here] - rows[offsets[lo:hi]][samples.owner]
    gradient[:] = dual[here] @ difference
    sums[0] = weight[lo:hi] @ samples.most(difference @ weights)


def centre(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    inverse: float,
    weights: np.ndarray,
    barrier: float | np.ndarray,
    height: np.ndarray,
    dual: np.ndarray,
    lo: int,
    hi: int,
    gradient: np.ndarray,
) -> None:
    """Fill ``height``, ``dual`` and ``gradient``; samples may have barriers (n,) of their own."""
    dual[offsets[lo:hi]] = weight[lo:hi]  # what samples of one row keep
    part = Several(rows, offsets, lo, hi, inverse)
    by_sample, owner = part.by_sample, part.owner
    scores = part.rows @ weights
    best = by_sample.most(scores)
    below = best[owner] - scores
    barriers = np.broadcast_to(barrier, offsets.size - 1)[part.samples]
    above = barriers.copy()
    open_ = np.ones(best.size, dtype=bool)
    for _ in range(10):
        term = barriers[owner] / (above[owner] + below)
        total, slope = by_sample.sums(term), by_sample.sums(term * term)
        change = np.where(open_, barriers * total * (total - 1.0) / slope, 0.0)
        above += change
        open_ &= change > 1e-2 * above
        if not open_.any():
            break
    height[part.samples] = best + above
    q = barriers[owner] / (above[owner] + below)
    q *= (weight[part.samples] / by_sample.sums(q))[owner]
    dual[part.index] = q
    gradient[:] = q @ part.rows


def factor(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    inverse: float,
    weights: np.ndarray,
    primal_step: float,
    dual_step: float,
    height: np.ndarray,
    d_height: np.ndarray,
    slack: np.ndarray,
    dual: np.ndarray,
    d_dual: np.ndarray,
    lo: int,
    hi: int,
    schur: np.ndarray,
    centred: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Move ``height``, ``slack`` and ``dual``; fill the whole ``schur``, ``centred``, ``sums``."""
    part = Several(rows, offsets, lo, hi, inverse)
    owner, w = part.owner, weight[part.samples]
    height[part.samples] += primal_step * d_height[part.samples]
    q = np.maximum(dual[part.index] + dual_step * d_dual[part.index], LEAST_SHARE * w[owner])
    s = np.maximum(height[part.samples][owner] - part.rows @ weights, LEAST_SLACK)
    dual[part.index], slack[part.index] = q, s
    ratio = q / s
    _, mean = part.scatter_means(ratio, part.rows)
    scatter = np.sqrt(ratio)[:, None] * (part.rows - mean[owner])
    schur[:] = scatter.T @ scatter
    centred[:] = w @ mean
    sums[:2] = q @ s, w @ part.by_sample.least(s)


def predict(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    inverse: float,
    d_weights: np.ndarray,
    limit: float,
    slack: np.ndarray,
    dual: np.ndarray,
    product: np.ndarray,
    lo: int,
    hi: int,
    towards: np.ndarray,
    against: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Fill ``product``, ``towards``, ``against`` and ``sums``."""
    part = Several(rows, offsets, lo, hi, inverse)
    owner, w = part.owner, weight[part.samples]
    s, q = slack[part.index], dual[part.index]
    p = part.rows @ d_weights
    ratio = q / s
    scatter, pbar = part.scatter_means(ratio, p)
    ds = (pbar - w / scatter)[owner] - p
    dq = -q - ratio * ds
    most = limit * w[owner]
    cut = np.clip(ds * dq, -most, most)
    product[part.index] = cut
    share = ratio / scatter[owner]
    for out, pull in ((towards, w[owner] / s), (against, cut / s)):
        out[:] = (pull - part.by_sample.sums(pull)[owner] * share) @ part.rows
    sums[0], sums[1] = (-ds / s).max(initial=0.0), (-dq / q).max(initial=0.0)
    sums[2:5] = q @ ds, s @ dq, ds @ dq


def correct(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    inverse: float,
    d_weights: np.ndarray,
    target: float,
    slack: np.ndarray,
    dual: np.ndarray,
    product: np.ndarray,
    d_height: np.ndarray,
    d_dual: np.ndarray,
    lo: int,
    hi: int,
    sums: np.ndarray,
) -> None:
    """Fill ``d_height``, ``d_dual`` and ``sums``."""
    part = Several(rows, offsets, lo, hi, inverse)
    owner, w = part.owner, weight[part.samples]
    s, q = slack[part.index], dual[part.index]
    p = part.rows @ d_weights
    scatter, pbar = part.scatter_means(q / s, p)
    wanted = target * w[owner] - product[part.index]
    dt = pbar + (part.by_sample.sums(wanted / s) - w) / scatter
    ds = dt[owner] - p
    dq = (wanted - q * ds) / s - q
    d_height[part.samples], d_dual[part.index] = dt, dq
    sums[0], sums[1] = (-ds / s).max(initial=0.0), (-dq / q).max(initial=0.0)


def select(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    inverse: float,
    dual: np.ndarray,
    share: float,
    index: np.ndarray,
    kept_offsets: np.ndarray,
    owners: np.ndarray,
    linear: np.ndarray,
    decided: np.ndarray,
) -> int:
    """Fill the lists, add to ``linear``; the number of samples kept."""
    samples = Ragged.of(offsets)
    owner = samples.owner
    best = samples.first_with(dual, samples.most(dual))
    kept = dual >= share * weight[owner]
    kept[best] = True
    counts = samples.sums(kept.astype(np.int64))
    decided[:] = 0.0
    decided[best[counts == 1]] = weight[counts == 1]
    several = np.flatnonzero(counts > 1)
    n_kept = several.size
    owners[:n_kept] = several
    kept_offsets[1 : n_kept + 1] = np.cumsum(counts[several])
    kept &= counts[owner] > 1
    kept[best] = False
    where = np.concatenate([several, owner[kept]])
    chosen = np.concatenate([best[several], np.flatnonzero(kept)])
    index[: chosen.size] = chosen[np.argsort(where, kind="stable")]  # the best of each one first
    linear += weight @ ((rows[best] - rows[offsets[:-1]]) * inverse)
    return n_kept
