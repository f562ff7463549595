"""The passes over a loss tensor on a device: what each adds for one chunk of whole samples.

Common arguments, for n samples of m candidates:

- rows (n, m, L) float64, 0 where a candidate may not be played;
- scores (n, m) float64, <lam, l_ij>, -inf where a candidate may not be played;
- weight, alpha (n,) float64: w_i and alpha_i.

Nothing here waits for the device, except where the number of entries found decides a shape. Sums
are matrix products and reductions in a fixed order: no result depends on the order of threads.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Winners(NamedTuple):
    """Of each sample the first of the highest scores: it, its candidate, and its losses."""

    top: Tensor
    candidates: Tensor
    losses: Tensor


def winners(rows: Tensor, scores: Tensor, rounding: float = 0.0) -> Winners:
    """Best responses: (n,) float64, (n,) int64 and (n, L) float64.

    Scores within `rounding` of the highest are ties. A matrix product may round equal rows
    differently, and the winner of a tie would change with the weights: 0/1 losses are full of them.
    """
    top = scores.amax(dim=1)
    tied = torch.minimum(scores, (top - rounding)[:, None]) if rounding else scores
    candidates = tied.argmax(dim=1)  # the first of equal ones
    return Winners(top, candidates, _picked(rows, candidates))


def _picked(rows: Tensor, candidates: Tensor) -> Tensor:
    """The row of one candidate of each sample: (n, L)."""
    return rows[torch.arange(rows.shape[0], device=rows.device), candidates]


def exact_sums(best: Winners, weight: Tensor) -> Tensor:
    """sum_i w_i max_j <lam, l_ij>, and sum_i w_i l_i,best after it: (1 + L,)."""
    return torch.cat([(weight @ best.top)[None], weight @ best.losses])


class Gibbs(NamedTuple):
    """Of each sample log sum_j p_ij exp((s_ij - max_j s_ij) / alpha_i), and q_ij, the softmax."""

    logarithm: Tensor
    share: Tensor


def gibbs_shares(
    scores: Tensor, top: Tensor, alpha: Tensor, measure: Tensor | None, wide: bool
) -> Gibbs:
    """What eq. (7) needs of each sample: (n,) and (n, m) float64.

    `top` (n,) is the highest score. Where alpha is so large (`wide`) that the sum is just below the
    measure's, its logarithm loses no digits: then it comes from 1 - exp, which is small.
    """
    exponent = torch.sub(scores, top[:, None]).div_(alpha[:, None])
    less = exponent.expm1() if wide else None
    mass = exponent.exp_()
    if measure is None:
        whole = torch.full_like(alpha, scores.shape[1])
    else:
        mass.mul_(measure)
        whole = measure.sum(dim=1)
    total = mass.sum(dim=1)
    logarithm = torch.log(total / whole)
    if less is not None:
        deficit = -(less if measure is None else less.mul_(measure)).sum(dim=1)
        logarithm = torch.where(deficit < 0.5 * whole, torch.log1p(-deficit / whole), logarithm)
    return Gibbs(logarithm, mass.div_(total[:, None]))


def soft_sums(
    rows: Tensor,
    scores: Tensor,
    weight: Tensor,
    alpha: Tensor,
    measure: Tensor | None,
    scratch: Tensor | None,
    hessian: bool,
    wide: bool,
) -> Tensor:
    """sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i), its gradient and its Hessian.

    With q the softmax of sample i, d_j = l_ij - l_i,best and dbar = E_q d:
        gradient = sum_i w_i (l_i,best + dbar),  Hessian = sum_i w_i/alpha_i E_q[(d-dbar)(d-dbar)'].
    Differences from the best row lose no digits where the candidates hardly differ.

    Parameters
    ----------
    measure : Tensor of shape (n, m) or None
        Base measure up to a factor for each sample, 0 where a candidate may not be played; None
        for 1 everywhere.
    scratch : Tensor or None
        Where the differences may be written; `rows` themselves, if they are not needed afterwards.
    hessian : bool
        Whether to compute the Hessian.
    wide : bool
        Whether some alpha is larger than the spread of the losses; see `gibbs_shares`.

    Returns
    -------
    Tensor of shape (1 + L,) or (1 + L + L * L,)
        Value, gradient and Hessian.
    """
    n_classifiers = rows.shape[2]
    best = winners(rows, scores)
    logarithm, share = gibbs_shares(scores, best.top, alpha, measure, wide)
    value = weight @ (best.top + alpha * logarithm)
    differences = torch.sub(rows, best.losses[:, None, :], out=scratch)
    weighted = share * weight[:, None]
    shift = weighted.reshape(-1) @ differences.reshape(-1, n_classifiers)
    sums = [value[None], weight @ best.losses + shift]
    if hessian:
        mean = torch.bmm(share[:, None, :], differences)
        scale = weighted.div_(alpha[:, None]).sqrt_()
        spread = differences.sub_(mean).mul_(scale[..., None]).reshape(-1, n_classifiers)
        sums.append((spread.T @ spread).reshape(-1))
    return torch.cat(sums)


def gibbs_entries(
    scores: Tensor, alpha: Tensor, measure: Tensor | None, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The Gibbs strategy, of candidates within `cutoff` alpha of the best, normalised.

    Returns
    -------
    counts : Tensor of int64, shape (n,)
        Entries of each sample.
    candidates : Tensor of int64, shape (n_entries,)
        One sample after the other.
    probabilities : Tensor of float64, shape (n_entries,)
    """
    exponent = (scores - scores.amax(dim=1, keepdim=True)) / alpha[:, None]
    kept = exponent >= -cutoff
    mass = exponent.exp_()
    if measure is not None:
        mass.mul_(measure)
    kept &= mass > 0.0
    mass.masked_fill_(~kept, 0.0)
    samples, candidates = kept.nonzero(as_tuple=True)
    probabilities = mass.div_(mass.sum(dim=1, keepdim=True))[samples, candidates]
    return kept.sum(dim=1), candidates, probabilities


def reaches(rows: Tensor, lowest: float, spread: float) -> Tensor:
    """What no difference of two rows of a sample is longer than: (n,).

    Losses lie between `lowest` and lowest + spread. Where few are large, most samples' highest is
    far below, and a bound of their own leaves fewer candidates to be looked at.
    """
    return (rows.amax(dim=(1, 2)) - lowest).clamp_(0.0, spread).mul_(rows.shape[2] ** 0.5)


def near_entries(
    rows: Tensor,
    scores: Tensor,
    best: Winners,
    radius: float,
    reach: Tensor,
    slack: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Candidates that may win for weights `radius` away, and the best ones of the same samples.

    Row r of sample i is near when <lam, l_i,best - l_r> <= slack_i + radius |l_i,best - l_r|; every
    |l_i,best - l_r| is at most `reach` (n,). No slack stands for 0 and pure winners: then rows
    equal to the best do not count, and of more than L near rows only those are taken that win when
    one weight changes by radius sqrt(L), up or down.

    Returns
    -------
    samples, candidates : Tensor of int64, shape (n_found,)
        Samples (of this chunk) ascending; in each the best candidate first, then the others.
    """
    n, m, n_classifiers = rows.shape
    allowance = torch.zeros_like(best.top) if slack is None else slack
    maybe = scores >= (best.top - allowance - radius * reach)[:, None]
    maybe.scatter_(1, best.candidates[:, None], False)
    samples, candidates = maybe.nonzero(as_tuple=True)
    change = _at(rows, samples, candidates).sub_(best.losses.index_select(0, samples))
    margin = best.top[samples] - scores[samples, candidates]
    distance = torch.linalg.vector_norm(change, dim=1)
    near = margin <= allowance[samples] + radius * distance
    if slack is None:
        near &= distance > 0.0
    # A mask waits for the device each time it is used, places do not.
    places = near.nonzero()[:, 0]
    samples, candidates = samples[places], candidates[places]
    if slack is None:
        step = radius * n_classifiers**0.5
        leads = _leads(samples, n, step * change[places], margin[places]).nonzero()[:, 0]
        samples, candidates = samples[leads], candidates[leads]
    owners = torch.unique_consecutive(samples)
    keys = torch.cat([owners * (m + 1), samples * (m + 1) + candidates + 1]).sort().values
    samples, places = keys // (m + 1), keys % (m + 1)
    return samples, torch.where(places == 0, best.candidates[samples], places - 1)


def _at(rows: Tensor, samples: Tensor, candidates: Tensor) -> Tensor:
    """Chosen rows: (c, L)."""
    if not rows.is_contiguous():
        return rows[samples, candidates]
    m, n_classifiers = rows.shape[1:]
    return rows.view(-1, n_classifiers).index_select(0, samples * m + candidates)


def _leads(samples: Tensor, n_samples: int, change: Tensor, margin: Tensor) -> Tensor:
    """Where a near row is one of at most L of its sample, or gains most in some direction.

    `samples` (c,) ascending; `change` (c, L) is the gain over the best row when one weight grows.
    """
    n_found, n_classifiers = change.shape
    begin = torch.searchsorted(samples, torch.arange(n_samples + 1, device=samples.device))
    few = (begin.diff() <= n_classifiers)[samples]
    gains = torch.cat([change, -change], dim=1).sub_(margin[:, None])
    owner = samples[:, None].expand_as(gains)
    highest = gains.new_zeros(n_samples, 2 * n_classifiers)
    highest.scatter_reduce_(0, owner, gains, "amax")
    leading = (gains == highest[samples]) & (gains > 0.0)
    place = torch.arange(n_found, device=samples.device)[:, None].expand_as(gains)
    first = torch.full(highest.shape, n_found, dtype=torch.int64, device=samples.device)
    first.scatter_reduce_(0, owner, torch.where(leading, place, n_found), "amin")
    return few | (place == first[samples]).any(dim=1)


def distinct_sets(
    rows: Tensor, allowed: Tensor | None, low: float, high: float
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Each sample's distinct rows of two values, packed into the bits of an integer (L <= 52).

    Returns
    -------
    counts : Tensor of int64, shape (n,)
        Distinct rows of each sample.
    candidates, codes, mass : Tensor of int64, shape (n_found,)
        Of each distinct row the first candidate that has it; bit k set where classifier k has the
        high loss; how many candidates have it. None where a loss is neither `low` nor `high`.
    """
    m, n_classifiers = rows.shape[1:]
    is_high = rows == high
    known = is_high | (rows == low)
    if allowed is not None:
        known |= ~allowed[..., None]
    if not known.all():
        return None
    powers = torch.ldexp(
        torch.ones(n_classifiers, dtype=torch.float64, device=rows.device),
        torch.arange(n_classifiers, device=rows.device),
    )
    codes = (is_high.to(torch.float64) @ powers).to(torch.int64)  # exact below 2^53
    if allowed is not None:
        codes.masked_fill_(~allowed, -1)
    codes, order = codes.sort(dim=1, stable=True)
    new = codes >= 0
    new[:, 1:] &= codes[:, 1:] != codes[:, :-1]
    samples, places = new.nonzero(as_tuple=True)
    begin = samples * m + places
    end = (samples + 1) * m  # a masked candidate comes before a sample's others, so no run holds it
    end[:-1] = torch.minimum(end[:-1], begin[1:])
    return new.sum(dim=1), order[samples, places], codes[samples, places], end - begin


def soft_samples(
    rows: Tensor, scores: Tensor, alpha: Tensor, measure: Tensor | None, wide: bool
) -> Tensor:
    """Eq. (7) on each sample of a chunk, and its gradient: (n, 1 + L). See `soft_sums`."""
    top = scores.amax(dim=1)
    logarithm, share = gibbs_shares(scores, top, alpha, measure, wide)
    gradients = torch.bmm(share[:, None], rows)[:, 0]
    return torch.cat([(top + alpha * logarithm)[:, None], gradients], dim=1)
