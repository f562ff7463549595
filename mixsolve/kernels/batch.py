"""What the kernels of `solve_batch` share: how a run of games lies in memory, and its states.

A run of n games shares flat arrays. Game g owns the samples ``samples[g]:samples[g + 1]``, sample i
the rows ``offsets[i]:offsets[i + 1]``, numbered through all games, of ``allowed``, ``prior`` and
``attack``. Its losses begin at row ``starts[g]`` of ``rows``, so that games that differ in weights
alone read the same losses. In detail:

- rows (R, L) float64, C-contiguous; starts (n,), samples (n + 1,), offsets (S + 1,) int64;
- allowed (offsets[-1],) uint8, or empty where every candidate may be played;
- prior (offsets[-1],) float64, the base measure up to a factor for each sample, or empty;
- sample_weight (S,) float64, of sum 1 in each game; alpha (S,), in each game positive or 0;
- filled in: weights (n, L), figures (n, N_FIGURES), attacked (n, L), the classifiers' losses under
  the attack, nit and state (n,), and attack (offsets[-1],) unless it is empty.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels.batch_layout import (
    EXPONENT,
    LOWER_BOUND,
    N_PASSES,
    NOT_FINITE,
    OPEN,
    OVERFLOW,
    SMOOTHING,
    SOLVED,
    SPREAD,
    TOLERANCE,
    VALUE,
)
from mixsolve.kernels.batch_table import (
    arrange,
    blank,
    is_finite,
    n_entries,
    range_of,
    scale,
    vector,
)
from mixsolve.kernels.constants import EPSILON, LEAST_ALPHA, MOST_ALPHA, PLAIN_EXPONENTS, ROUNDING
from mixsolve.kernels.linear_algebra import OPTIONS

_TILE = 16  # samples copied together
_LARGEST = float(np.finfo(np.float64).max)  # isfinite does not survive reassociation


@kernel(**OPTIONS)
def close(figures, attacked, weights, state, g):
    """Set the state of game g by its certificate, and bring its figures to the losses' unit."""
    above = figures[g, VALUE] - figures[g, LOWER_BOUND]
    tolerance = figures[g, TOLERANCE]
    solved = -tolerance <= above <= tolerance
    for figure in range(SMOOTHING):
        solved = solved and abs(figures[g, figure]) <= _LARGEST
    for k in range(weights.shape[1]):
        solved = solved and abs(weights[g, k]) <= _LARGEST
    state[g] = SOLVED if solved else OPEN
    exponent = int(figures[g, EXPONENT])
    if exponent:
        for figure in range(N_PASSES):
            if figure != SMOOTHING:  # which is alpha's
                figures[g, figure] = math.ldexp(figures[g, figure], exponent)
        for k in range(attacked.shape[1]):
            attacked[g, k] = math.ldexp(attacked[g, k], exponent)
    figures[g, SMOOTHING] = min(figures[g, SMOOTHING], figures[g, SPREAD])


@kernel(**OPTIONS)
def load(rows, start, offsets, allowed, prior, sample_weight, alpha):
    """The part of a game that counts: rows that may be played, of samples of positive weight.

    The arguments are those of one game: offsets (n + 1,), sample_weight and alpha (n,). Returns
    columns and groups as in `mixsolve.kernels.batch_table`, the row each entry was (in the run's
    numbers), its base measure (empty for uniform), the samples' weights and alphas in the order of
    the groups, and whether all losses are finite, those of samples of weight 0 included.
    """
    size = rows.shape[1]
    shift = start - offsets[0]
    counts = np.zeros(sample_weight.size, dtype=np.int64)
    finite = True
    for i in range(sample_weight.size):
        if sample_weight[i] > 0.0:
            counts[i] = offsets[i + 1] - offsets[i]
            if allowed.size:
                counts[i] = allowed[offsets[i] : offsets[i + 1]].sum()
            continue
        for r in range(offsets[i], offsets[i + 1]):
            if not allowed.size or allowed[r]:
                for k in range(size):
                    finite = finite and abs(rows[shift + r, k]) <= _LARGEST  # a NaN is not either
    groups, _, _, number = arrange(counts)
    n_rows, n_kept = n_entries(groups)
    columns = blank(size, n_rows)
    losses = rows.reshape(-1)
    place = np.empty(n_rows, dtype=np.int64)
    weight = vector(n_kept)
    alphas = vector(n_kept)
    row = np.empty(n_kept, dtype=np.int64)
    for i in range(sample_weight.size):
        if counts[i]:
            weight[number[i]] = sample_weight[i]
            alphas[number[i]] = alpha[i]
            row[number[i]] = offsets[i]
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        following = row[first : first + n]
        for j in range(c):
            here = place[begin + j * n : begin + (j + 1) * n]
            if allowed.size:
                for i in range(n):
                    while not allowed[following[i]]:
                        following[i] += 1
            for i in range(n):
                here[i] = following[i]
                following[i] += 1
        for low in range(0, n, _TILE):  # a few samples' rows at a time, while they are in cache
            high = min(low + _TILE, n)
            for j in range(c):
                at = begin + j * n
                source = place[at + low : at + high]
                for k in range(size):
                    column = columns[k, at + low : at + high]
                    for i in range(column.size):
                        column[i] = losses[(shift + source[i]) * size + k]
    priors = vector(n_rows) if prior.size else np.empty(0)
    for r in range(priors.size):
        priors[r] = prior[place[r]]
    finite = finite and is_finite(columns)
    return columns, groups, place, priors, weight, alphas, finite


@kernel(**OPTIONS)
def measure(columns, groups, alphas, tol, finite, figures, state, g):
    """Unit, spread and tolerance of game g; its losses and alphas are brought to the unit.

    Alphas are clipped to the range within which they differ from their limits. Returns the range of
    each sample's losses, and False where a loss, or the difference of two, is not finite: the state
    says which.
    """
    low = vector(alphas.size)
    high = vector(alphas.size)
    if not finite:
        state[g] = NOT_FINITE
        return low, False
    range_of(groups, columns, low, high)
    lowest = low.min()
    highest = high.max()
    if not highest - lowest <= _LARGEST:
        state[g] = OVERFLOW
        return low, False
    _, exponent = math.frexp(max(abs(lowest), abs(highest)))
    if abs(exponent) <= PLAIN_EXPONENTS:
        exponent = 0
    else:
        for k in range(len(columns)):
            scale(columns[k], -exponent)
        scale(alphas, -exponent)
        scale(low, -exponent)
        scale(high, -exponent)
        lowest = math.ldexp(lowest, -exponent)
        highest = math.ldexp(highest, -exponent)
    spread = highest - lowest
    figures[g, EXPONENT] = exponent
    figures[g, SPREAD] = spread
    figures[g, TOLERANCE] = max(tol * spread, ROUNDING * max(abs(lowest), abs(highest)))
    spread = max(spread, EPSILON / ROUNDING * figures[g, TOLERANCE])
    for i in range(alphas.size):
        high[i] -= low[i]
        if spread > 0.0:
            alphas[i] = min(max(alphas[i], spread * LEAST_ALPHA), spread * MOST_ALPHA)
    return high, True


@kernel(**OPTIONS)
def spread_out(offsets, sample_weight, allowed, place, played, attack):
    """Write the attack at the rows of the run; a sample of weight 0 plays its first candidate.

    offsets (n + 1,) and sample_weight (n,) of the game; place, played (R,) of the rows that count.
    """
    for r in range(offsets[0], offsets[-1]):
        attack[r] = 0.0
    for s in range(place.size):
        attack[place[s]] = played[s]
    for i in range(sample_weight.size):
        if sample_weight[i] == 0.0:
            r = offsets[i]
            while allowed.size and not allowed[r]:
                r += 1
            attack[r] = 1.0
