"""`mixsolve.kernels.passes` in NumPy."""

import numpy as np

from mixsolve.uncompiled.ragged import Ragged


def extremes(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest value; both are NaN where any value is."""
    if values.size == 0:
        return np.inf, -np.inf
    return float(values.min()), float(values.max())


def score_all(rows: np.ndarray, allowed: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores (R,), -inf where masked; equal rows have equal scores, wherever they lie."""
    with np.errstate(invalid="ignore", over="ignore"):  # of masked rows and samples of weight 0
        scores: np.ndarray = np.einsum("rk,k->r", rows, weights)
    return np.where(allowed.view(np.bool_), scores, -np.inf) if allowed.size else scores


def played(
    rows: np.ndarray, winners: np.ndarray, sample_weight: np.ndarray, gradient: np.ndarray
) -> None:
    """Add the weighted losses of one row (n,) of each sample to ``gradient``."""
    counted = sample_weight > 0.0
    gradient += sample_weight[counted] @ rows[winners[counted]].astype(np.float64)


def best_response(
    rows: np.ndarray,
    offsets: np.ndarray,
    allowed: np.ndarray,
    sample_weight: np.ndarray,
    weights: np.ndarray,
    best: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Fill ``best``, add to ``gradient``; the value."""
    samples = Ragged.of(offsets)
    scores = score_all(rows, allowed, weights)
    top = samples.most(scores)
    winners = samples.first_with(scores, top)
    best[:] = winners - samples.starts
    played(rows, winners, sample_weight, gradient)
    counted = sample_weight > 0.0
    return float(sample_weight[counted] @ top[counted])


def near_response(
    rows: np.ndarray,
    offsets: np.ndarray,
    allowed: np.ndarray,
    sample_weight: np.ndarray,
    weights: np.ndarray,
    radius: float,
    reach: float,
    slack: np.ndarray,
    best: np.ndarray,
    gradient: np.ndarray,
    near_samples: np.ndarray,
    near_candidates: np.ndarray,
) -> tuple[float, int]:
    """Fill ``best`` and the lists, add to ``gradient``; the value and the number of entries."""
    samples = Ragged.of(offsets)
    owner = samples.owner
    scores = score_all(rows, allowed, weights)
    top = samples.most(scores)
    winners = samples.first_with(scores, top)
    best[:] = winners - samples.starts
    played(rows, winners, sample_weight, gradient)
    counted = sample_weight > 0.0
    value = float(sample_weight[counted] @ top[counted])
    pure = slack.size == 0
    allowance = np.zeros(top.size) if pure else slack
    is_near = scores >= (top - allowance - radius * reach)[owner]
    is_near[winners] = False
    near = np.flatnonzero(is_near)
    lead = rows[winners[owner[near]]].astype(np.float64)
    difference = rows[near] - lead
    distance = np.sqrt(np.einsum("rk,rk->r", difference, difference))
    margin = top[owner[near]] - scores[near]
    close = margin <= allowance[owner[near]] + radius * distance
    if pure:
        close &= distance > 0.0
    near, difference, margin = near[close], difference[close], margin[close]
    if pure:
        step = radius * np.sqrt(weights.size)
        taken = _leaders(owner[near], step * difference, margin, top.size)
        near = near[taken]
    listed = np.unique(owner[near])
    where = np.concatenate([listed, owner[near]])
    entries = np.concatenate([winners[listed], near]) - samples.starts[where]
    order = np.argsort(where, kind="stable")  # the winner of a sample before its others
    room = min(order.size, near_samples.size)
    near_samples[:room] = where[order[:room]]
    near_candidates[:room] = entries[order[:room]]
    return value, order.size


def _leaders(owner: np.ndarray, change: np.ndarray, margin: np.ndarray, n: int) -> np.ndarray:
    """Whether each near row (r,) is taken: all, where a sample has no more than classifiers."""
    n_classifiers = change.shape[1]
    counts = np.bincount(owner, minlength=n)
    taken = counts[owner] <= n_classifiers
    ends = np.cumsum(counts)
    for sample in np.flatnonzero(counts > n_classifiers).tolist():
        here = slice(ends[sample] - counts[sample], ends[sample])
        for side in (change[here], -change[here]):
            leads = side - margin[here, None]
            leader = leads.argmax(axis=0)
            ahead = leads[leader, np.arange(n_classifiers)] > 0.0
            taken[here.start + leader[ahead]] = True
    return taken
