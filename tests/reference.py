"""The definitions of the problem in plain NumPy: what every answer is checked against.

A game is a list of N arrays (m_i, L) of float64, in the order of the tensor's candidates; masked
candidates are left out by `as_rows`, which also says which candidates of the tensor are left.
"""

import numpy as np
from scipy.special import logsumexp


def as_rows(losses, candidate_mask=None):
    """Split a tensor (or list) into one float64 table a sample, and the candidates they hold."""
    rows, kept = [], []
    for i, table in enumerate(losses):
        table = np.asarray(table, dtype=np.float64)
        allowed = np.ones(len(table), bool) if candidate_mask is None else candidate_mask[i]
        kept.append(np.flatnonzero(allowed))
        rows.append(table[kept[-1]])
    return rows, kept


def normalized(sample_weight, n_samples):
    if sample_weight is None:
        return np.full(n_samples, 1.0 / n_samples)
    sample_weight = np.asarray(sample_weight, dtype=np.float64)
    return sample_weight / sample_weight.sum()


def base_measure(candidate_prior, kept):
    """Base measure of each sample's remaining candidates, uniform by default."""
    measures = []
    for i, candidates in enumerate(kept):
        prior = (
            np.ones(len(candidates))
            if candidate_prior is None
            else np.asarray(candidate_prior[i], dtype=np.float64)[candidates]
        )
        measures.append(prior / prior.sum())
    return measures


def exact_risk(losses, weights, sample_weight=None, candidate_mask=None):
    """sum_i w_i max_j <lam, l_ij>."""
    rows, _ = as_rows(losses, candidate_mask)
    worst = np.array([(table @ weights).max() for table in rows])
    return normalized(sample_weight, len(rows)) @ worst


def entropic_risk(
    losses, weights, alpha, sample_weight=None, candidate_mask=None, candidate_prior=None
):
    """sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i)."""
    rows, kept = as_rows(losses, candidate_mask)
    alpha = np.broadcast_to(alpha, len(rows))
    soft = [
        a * logsumexp(table @ weights / a, b=p)
        for table, a, p in zip(rows, alpha, base_measure(candidate_prior, kept), strict=True)
    ]
    return normalized(sample_weight, len(rows)) @ np.array(soft)


def attacked_losses(losses, attack, sample_weight=None):
    """Loss of each classifier under a mixed attack: sum_i w_i sum_j q_ij l_ijk."""
    total = 0.0
    for w, table, (candidates, probabilities) in zip(
        normalized(sample_weight, len(losses)), losses, attack, strict=True
    ):
        total = total + w * (probabilities @ np.asarray(table, np.float64)[candidates])
    return total


def attack_bound(
    losses, attack, alpha=0.0, sample_weight=None, candidate_mask=None, candidate_prior=None
):
    """What an attack guarantees: min_k of its losses, less its entropic cost.

        min_k sum_ij w_i q_ij l_ijk - sum_i w_i alpha_i KL(q_i || p_i)

    is a lower bound on the optimal objective for every q, by duality.
    """
    bound = attacked_losses(losses, attack, sample_weight).min()
    if np.any(alpha):
        _, kept = as_rows(losses, candidate_mask)
        alpha = np.broadcast_to(alpha, len(losses))
        measures = base_measure(candidate_prior, kept)
        for i, w in enumerate(normalized(sample_weight, len(losses))):
            candidates, q = attack[i]
            p = measures[i][np.searchsorted(kept[i], candidates)]
            bound -= w * alpha[i] * (q @ np.log(q / p))
    return bound


def spread(losses, candidate_mask=None, sample_weight=None):
    """M: of what may be played, in samples of positive weight."""
    rows, _ = as_rows(losses, candidate_mask)
    weight = normalized(sample_weight, len(rows))
    rows = [table for table, w in zip(rows, weight, strict=True) if w > 0]
    return max(t.max() for t in rows) - min(t.min() for t in rows)


def check_certificate(solution, losses, alpha=0.0, **game):
    """Recompute everything a solution claims from the raw tensor, and the two strategies."""
    weights = np.asarray(solution.weights)
    epsilon = np.finfo(weights.dtype).eps  # a framework without float64 rounds the weights
    weights = weights.astype(np.float64)
    rows, kept = as_rows(losses, game.get("candidate_mask"))
    M = spread(losses, game.get("candidate_mask"), game.get("sample_weight"))
    rounding = max(1e-13, 4 * epsilon) * max(np.abs(table).max() for table in rows)
    digits = 1e-11 * M + rounding + 1e-15 * np.max(alpha)  # log of a sum, times alpha
    entropic = bool(np.any(alpha))

    assert weights.min() >= 0.0
    assert abs(weights.sum() - 1.0) <= max(1e-12, len(weights) * epsilon)
    exact = {key: value for key, value in game.items() if key != "candidate_prior"}
    risk = exact_risk(losses, weights, **exact)
    value = entropic_risk(losses, weights, alpha, **game) if entropic else risk
    assert abs(solution.risk - risk) <= digits
    assert abs(solution.value - value) <= digits
    assert abs(solution.spread - M) <= 1e-12 * M

    assert len(solution.attack) == len(losses)
    for (candidates, probabilities), allowed in zip(solution.attack, kept, strict=True):
        assert np.isin(candidates, allowed).all()
        assert len(np.unique(candidates)) == len(candidates)
        assert (probabilities > 0.0).all()
        assert abs(probabilities.sum() - 1.0) <= 1e-12
    bound = attack_bound(losses, solution.attack, alpha, **game)
    assert abs(solution.lower_bound - bound) <= digits
    exact_bound = attack_bound(losses, solution.attack, 0.0, **exact)
    assert abs(solution.risk_lower_bound - exact_bound) <= digits

    assert solution.gap >= 0.0
    assert abs(solution.gap - max(0.0, solution.value - solution.lower_bound)) <= digits
    assert solution.lower_bound <= solution.value + digits
    assert -digits <= solution.risk - solution.value <= solution.smoothing_bound + digits
    if not entropic:
        assert solution.smoothing_bound == 0.0
    assert solution.success == (solution.status.name == "OPTIMAL")
    if solution.success:
        assert solution.gap <= solution.tolerance
