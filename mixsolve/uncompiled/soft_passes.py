"""`mixsolve.kernels.soft_passes` in NumPy."""

import numpy as np

from mixsolve.uncompiled.passes import score_all
from mixsolve.uncompiled.ragged import Ragged


def soft_answer(
    rows: np.ndarray,
    offsets: np.ndarray,
    allowed: np.ndarray,
    prior: np.ndarray,
    sample_weight: np.ndarray,
    curved: np.ndarray,
    alpha: np.ndarray,
    weights: np.ndarray,
    cutoff: float,
    gradient: np.ndarray,
    hessian: np.ndarray,
    best: np.ndarray,
    pure: np.ndarray,
    counts: np.ndarray,
    candidates: np.ndarray,
    probabilities: np.ndarray,
) -> float:
    """Add to ``gradient`` and the whole ``hessian``, fill the others unless empty; the value."""
    samples = Ragged.of(offsets)
    scores, top, near = _near(samples, rows, allowed, alpha, weights, cutoff)
    counted = sample_weight > 0.0
    scale = np.where(counted, sample_weight, 0.0)
    share = prior if prior.size else np.ones(scores.size)
    share = np.where(allowed.view(np.bool_), share, 0.0) if allowed.size else share
    owner = samples.owner
    exponent = np.where(near, (scores - top[owner]) / alpha[owner], -np.inf)
    less = share * np.expm1(exponent)  # -share of the candidates that are skipped
    mass = np.where(exponent > -0.5, share + less, share * np.exp(exponent))
    measure, total = samples.sums(share), samples.sums(mass)
    deficit = -samples.sums(less)
    small = deficit < 0.5 * measure
    logarithm = np.log1p(np.where(small, -deficit / measure, 0.0))
    logarithm[~small] = np.log(total[~small] / measure[~small])
    value = sample_weight[counted] @ (top + alpha * logarithm)[counted]
    winners = samples.first_with(scores, top)
    leads = rows[winners].astype(np.float64)
    if best.size:
        best[:] = winners - samples.starts
        pure[:-1] += scale[counted] @ leads[counted]
        pure[-1] += scale[counted] @ top[counted]
    if counts.size:
        kept = np.flatnonzero(mass > 0.0)
        candidates[: kept.size] = kept - samples.starts[owner[kept]]
        probabilities[: kept.size] = mass[kept] / total[owner[kept]]
        counts[:] = np.bincount(owner[kept], minlength=top.size)
    played = np.flatnonzero((mass > 0.0) & counted[owner])
    owner, mass = owner[played], mass[played]
    difference = rows[played] - leads[owner]
    mean = np.zeros((top.size, weights.size))
    np.add.at(mean, owner, (mass / total[owner])[:, None] * difference)
    gradient += scale[counted] @ (mean + leads)[counted]
    if hessian.size:
        spread = np.sqrt(np.where(counted, curved, 0.0)[owner] * mass / (alpha * total)[owner])
        scatter = spread[:, None] * (difference - mean[owner])
        hessian += scatter.T @ scatter
    return float(value)


def soft_response(
    rows: np.ndarray,
    offsets: np.ndarray,
    allowed: np.ndarray,
    prior: np.ndarray,
    sample_weight: np.ndarray,
    alpha: np.ndarray,
    weights: np.ndarray,
    cutoff: float,
    gradient: np.ndarray,
    hessian: np.ndarray,
) -> float:
    """`soft_answer` with the value, gradient and Hessian alone."""
    none = np.empty(0, dtype=np.int64)
    return soft_answer(
        rows, offsets, allowed, prior, sample_weight, sample_weight, alpha, weights, cutoff,
        gradient, hessian, none, np.empty(0), none, none, np.empty(0),
    )  # fmt: skip


def _near(
    samples: Ragged,
    rows: np.ndarray,
    allowed: np.ndarray,
    alpha: np.ndarray,
    weights: np.ndarray,
    cutoff: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (R,), the highest of each sample (n,), and which (R,) are within the cutoff."""
    scores = score_all(rows, allowed, weights)
    top = samples.most(scores)
    near = (scores >= (top - cutoff * alpha)[samples.owner]) & (scores > -np.inf)
    return scores, top, near
