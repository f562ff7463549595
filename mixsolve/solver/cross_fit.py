"""How optimistic a fitted value is: weights chosen on one half of the samples, judged on the other.

The value of a game is a minimum over weights on the samples at hand, so that it is below the risk
of the same weights on others; with groups more so, since each has fewer samples. Every group is
split in two at random, the game is solved on each half, and the weights' risks are taken on the
other. With values t_i of the n_g held-out samples of group g and their weights w_i, the standard
error of f_g is that of a weighted mean,

    se_g^2 = sum_i w_i^2 (t_i - f_g)^2 n_g / (n_g - 1),  sum_i w_i = 1;

for a mean over the worst share beta the values are eta + (t_i - eta)^+ / beta, eta the quantile.
Two halves' standard errors are joined as if they were independent, and a bound for all groups at
once divides the error probability by their number (Bonferroni).

References: Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000; Chernozhukov
et al., Double/debiased machine learning, Econometrics Journal 2018 (cross-fitting).
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from mixsolve.arrays.interop import to_numpy
from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MixsolveError
from mixsolve.solver import validation
from mixsolve.solver.grouping import Grouping, check_grouping
from mixsolve.solver.solve import solve


@dataclass(frozen=True)
class CrossFit:
    """Fitted and held-out risks of one game.

    Attributes
    ----------
    fitted : float
        Mean of the two exact risks on the halves that the weights were chosen on.
    held_out : float
        The same on the other halves. Of several groups the worst is taken there, whose noise
        raises it a little: it errs on the side of caution.
    standard_error : float
        Of `held_out`: of the worst group, where there are groups.
    group_labels : ndarray of shape (G,), or None
        Sorted; None without groups.
    group_risks, group_errors : ndarray of float64, shape (G,)
        Held-out risk of each group, the mean of both ways, and its standard error; one entry
        without groups. NaN where a half has no sample of positive weight.
    group_bounds : ndarray of float64, shape (G,)
        Upper confidence bounds on the risks, all of which hold at once.
    weights : ndarray of float64, shape (2, L)
        Chosen on each half.
    halves : ndarray of int64, shape (N,)
        The half, 0 or 1, that each sample was in.
    sample_risks : ndarray of float64, shape (N,)
        Held-out risk of each sample: its largest loss under the weights chosen on the other half.
    """

    fitted: float
    held_out: float
    standard_error: float
    group_labels: np.ndarray | None
    group_risks: np.ndarray
    group_errors: np.ndarray
    group_bounds: np.ndarray
    weights: np.ndarray = field(repr=False)
    halves: np.ndarray = field(repr=False)
    sample_risks: np.ndarray = field(repr=False)

    @property
    def optimism(self) -> float:
        """By how much the fitted risk is below the held-out one."""
        return self.held_out - self.fitted


def cross_fit(
    losses: Any,
    alpha: float = 0.0,
    *,
    groups: Any = None,
    sample_weight: Any = None,
    group_weight: Any = None,
    tail: float | None = None,
    confidence: float = 0.95,
    rng: np.random.Generator | int = 0,
    **options: Any,
) -> CrossFit:
    """Choose weights on one half of the samples, take their risk on the other, both ways.

    Parameters
    ----------
    losses : array_like of shape (N, m, L), or list of N arrays of shape (m_i, L)
        See `solve`; read into memory.
    alpha : float, default 0
        Regularisation of the fits; risks are exact.
    groups, sample_weight, group_weight, tail
        See `solve`. The halves are drawn within each group.
    confidence : float, default 0.95
        Of `CrossFit.group_bounds`.
    rng : numpy.random.Generator or int, default 0
        Draws the halves, or seeds what does.
    **options
        Further arguments of `solve` that do not go by sample.

    Returns
    -------
    CrossFit

    Raises
    ------
    MixsolveError
        As `solve` does, and if there are fewer than four samples.

    Examples
    --------
    >>> import numpy as np
    >>> import mixsolve
    >>> losses = np.random.default_rng(0).random((60, 5, 8))
    >>> fit = mixsolve.cross_fit(losses, groups=np.arange(60) % 3)
    >>> fit.optimism > 0
    True
    """
    tables = _tables(losses)
    level = as_real("confidence", confidence, above=0.0, below=1.0)
    if not isinstance(rng, np.random.Generator):
        rng = np.random.default_rng(as_count("rng", rng, minimum=0))
    if len(tables) < 4:
        raise MixsolveError(f"losses must have at least 4 samples to split, got {len(tables)}")
    weight = validation.check_sample_weight(sample_weight, len(tables))
    whole = check_grouping(groups, group_weight, tail, None, weight)
    group = np.zeros(len(tables), dtype=np.int64) if whole is None else whole.group
    bounds = group_weight
    if whole is not None and whole.labels is not None and np.ndim(group_weight):
        bounds = dict(zip(whole.labels.tolist(), np.asarray(group_weight).tolist(), strict=True))
    half = _halves(group, rng)
    fitted, held, risks, errors, weights = [], [], [], [], []
    sample_risks = np.empty(len(tables))
    for side in (False, True):
        fit, other = np.flatnonzero(half == side), np.flatnonzero(half != side)
        chosen: dict[str, Any] = {"sample_weight": weight[fit]}
        if whole is not None:
            if whole.labels is not None:
                chosen["groups"] = whole.labels[group[fit]]
                chosen["group_weight"] = _present(bounds, chosen["groups"])
            chosen["tail"] = whole.tail
        solution = solve([tables[i] for i in fit], alpha, **chosen, **options)
        lam = np.asarray(to_numpy(solution.weights, "weights"), dtype=np.float64)
        sample_risks[other] = values = np.array([(tables[i] @ lam).max() for i in other])
        n_groups = 1 if whole is None or whole.labels is None else whole.labels.size
        beta = 1.0 if whole is None or whole.tail is None else whole.tail
        each, error = _group_risks(values, group[other], weight[other], n_groups, beta)
        struck = _worst(each, group_weight, whole, group, weight)
        fitted.append(solution.risk)
        held.append((float(np.nansum(struck * each)), _joined(struck, error)))
        risks.append(each)
        errors.append(error)
        weights.append(lam)
    group_errors = 0.5 * np.sqrt(np.square(errors).sum(axis=0))
    group_risks = np.mean(risks, axis=0)
    quantile = NormalDist().inv_cdf(1.0 - (1.0 - level) / group_risks.size)
    return CrossFit(
        float(np.mean(fitted)),
        float(np.mean([value for value, _ in held])),
        0.5 * math.hypot(*[error for _, error in held]),
        None if whole is None else whole.labels,
        group_risks,
        group_errors,
        group_risks + quantile * group_errors,
        np.array(weights),
        half.astype(np.int64),
        sample_risks,
    )


def group_risks(
    losses: Any,
    weights: Any,
    groups: Any,
    *,
    sample_weight: Any = None,
    tail: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact adversarial risk of given weights on each group; nothing is solved.

    Parameters
    ----------
    losses : array_like of shape (N, m, L), or list of N arrays of shape (m_i, L)
        Read into memory.
    weights : array_like of shape (L,)
        Of the classifiers; for a single one, a row of the identity.
    groups : array_like of shape (N,)
        A label for each sample.
    sample_weight, tail
        See `solve`.

    Returns
    -------
    risks, standard_errors : ndarray of float64, shape (G,)
        In the order of the sorted labels; standard errors of the samples' draw.
    """
    tables = _tables(losses)
    weight = validation.check_sample_weight(sample_weight, len(tables))
    whole = check_grouping(groups, None, tail, None, weight)
    if whole is None or whole.labels is None:
        raise MixsolveError("groups must hold one label per sample, got None")
    lam = validation.check_warm_start(weights, tables[0].shape[1])
    values = np.array([(table @ lam).max() for table in tables])
    beta = 1.0 if whole.tail is None else whole.tail
    return _group_risks(values, whole.group, weight, whole.labels.size, beta)


def _tables(losses: Any) -> list[np.ndarray]:
    """Losses of each sample, (m_i, L)."""
    if isinstance(losses, list | tuple):
        return [np.asarray(to_numpy(table, "losses"), dtype=np.float64) for table in losses]
    read = np.asarray(to_numpy(losses, "losses"))
    if read.ndim != 3:
        raise MixsolveError(
            f"losses must have the shape (samples, candidates, classifiers), got {read.shape}"
        )
    return list(read)


def _halves(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which half (N,) each sample is in; of a group of odd size the odd one is drawn, too."""
    half = np.zeros(group.size, dtype=bool)
    for g in range(group.max() + 1):
        own = rng.permutation(np.flatnonzero(group == g))
        half[own[: (own.size + int(rng.integers(2))) // 2]] = True
    return half


def _present(bounds: Any, labels: np.ndarray) -> Any:
    """Bounds by label, of the groups of a half."""
    if not isinstance(bounds, dict):
        return bounds
    known = set(labels.tolist())
    return {label: bound for label, bound in bounds.items() if label in known}


def _group_risks(
    values: np.ndarray, group: np.ndarray, weight: np.ndarray, n_groups: int, beta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Risk and standard error (G,) of samples' values, over the worst share of each group."""
    risks, errors = np.full((2, n_groups), np.nan)
    for g in range(n_groups):
        own = np.flatnonzero((group == g) & (weight > 0.0))
        if not own.size:
            continue
        share, heights = weight[own] / weight[own].sum(), values[own]
        if beta < 1.0:
            order = np.argsort(-heights)
            last = int(np.searchsorted(np.cumsum(share[order]), beta - 1e-12))
            eta = heights[order[min(last, own.size - 1)]]
            heights = eta + np.maximum(heights - eta, 0.0) / beta
        risks[g] = share @ heights
        if own.size > 1:
            spread = float(np.square(share) @ np.square(heights - risks[g]))
            errors[g] = np.sqrt(spread * own.size / (own.size - 1))
    return risks, errors


def _worst(
    risks: np.ndarray,
    group_weight: Any,
    whole: Grouping | None,
    group: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """The attacker's best weights (G,) for the groups' risks."""
    if whole is None or whole.labels is None:
        return np.ones(1)
    exists = np.flatnonzero(np.isfinite(risks))
    most = np.full(risks.size, 2.0)
    share = np.bincount(group, weight, minlength=risks.size)
    if isinstance(group_weight, dict):
        most = np.array([group_weight[label] for label in whole.labels.tolist()])
    elif np.ndim(group_weight):
        most = np.asarray(group_weight, dtype=np.float64)
    elif group_weight is not None:
        most = float(group_weight) * share
    struck, left = np.zeros(risks.size), 1.0
    for g in exists[np.argsort(-risks[exists], kind="stable")]:
        struck[g] = min(float(most[g]), left)
        left -= struck[g]
    return struck / struck.sum()


def _joined(struck: np.ndarray, errors: np.ndarray) -> float:
    """Standard error of a weighted sum of groups' risks; NaN where one struck has none."""
    used = struck > 0.0
    return float(np.sqrt(np.square(struck[used] * errors[used]).sum()))
