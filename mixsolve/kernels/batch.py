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
from mixsolve.kernels.constants import EPSILON, LEAST_ALPHA, MOST_ALPHA, PLAIN_EXPONENTS, ROUNDING
from mixsolve.kernels.linear_algebra import OPTIONS

# The states of a game that is not done: an exact one; an entropic one, one that needs the exact
# optimum to start from, and one that has it.
EXACT, ENTROPIC, NEEDS_START, STARTED = range(4)
# The states of a game that is done: the gap is within the tolerance, or above; a loss is NaN or
# infinite, or the difference of two is.
SOLVED, OPEN, NOT_FINITE, OVERFLOW = range(4, 8)

# Columns of the figures of a game: while it is solved in its unit, 2^EXPONENT.
VALUE, RISK, LOWER_BOUND, RISK_LOWER_BOUND, SMOOTHING, SPREAD, TOLERANCE, N_PASSES = range(8)
EXPONENT = 8
N_FIGURES = 9

_LARGEST = float(np.finfo(np.float64).max)  # isfinite does not survive reassociation
_GAP = 32  # numbers


@kernel(**OPTIONS)
def vector(size):
    """Zeros (size,) with unused memory after them.

    Compiled loops check at run time that their arrays do not overlap, by bounds that are rounded
    up. For arrays side by side they would take another branch, with another rounding, so that the
    last bits of a result would depend on where it lies in memory.
    """
    return np.zeros(size + _GAP)[:size]


@kernel(**OPTIONS)
def matrix(n_rows, size):
    """Zeros (n_rows, size) with unused memory after them, as in `vector`."""
    return np.zeros(n_rows * size + _GAP)[: n_rows * size].reshape((n_rows, size))


@kernel(**OPTIONS)
def unit_and_tolerance(
    rows, starts, samples, offsets, allowed, sample_weight, tol, figures, state, g
):
    """Unit, spread and tolerance of game g, by the losses that count: allowed, of positive weight.

    Returns False where a loss, or the difference of two, is not finite: its state says which.
    """
    first = offsets[samples[g]]
    low = np.inf
    high = -np.inf
    for i in range(samples[g], samples[g + 1]):
        for r in range(offsets[i], offsets[i + 1]):
            if allowed.size and not allowed[r]:
                continue
            for k in range(rows.shape[1]):
                loss = rows[starts[g] + r - first, k]
                if not abs(loss) <= _LARGEST:  # a NaN is not either
                    state[g] = NOT_FINITE
                    return False
                if sample_weight[i] > 0.0:
                    low = min(low, loss)
                    high = max(high, loss)
    if not high - low <= _LARGEST:
        state[g] = OVERFLOW
        return False
    _, exponent = math.frexp(max(abs(low), abs(high)))
    if abs(exponent) <= PLAIN_EXPONENTS:
        exponent = 0
    low = math.ldexp(low, -exponent)
    high = math.ldexp(high, -exponent)
    figures[g, EXPONENT] = exponent
    figures[g, SPREAD] = high - low
    figures[g, TOLERANCE] = max(tol * (high - low), ROUNDING * max(abs(low), abs(high)))
    return True


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
def load(rows, start, offsets, allowed, prior, sample_weight, alpha, figures):
    """The part of a game that counts: rows that may be played, of samples of positive weight.

    Losses and alphas are in the game's unit, alphas clipped to the range within which they differ
    from their limits. Returns their losses, where each sample begins among them, the row each was
    (in the run's numbers), its base measure (empty for uniform), and the samples' weights and
    alphas.
    """
    n_rows = offsets[-1] - offsets[0]
    n_samples = sample_weight.size
    table = matrix(n_rows, rows.shape[1])
    bounds = np.zeros(n_samples + 1, dtype=np.int64)
    place = np.empty(n_rows, dtype=np.int64)
    priors = vector(n_rows) if prior.size else np.empty(0)
    weight = vector(n_samples)
    alphas = vector(n_samples)
    exponent = -int(figures[EXPONENT])
    spread = max(figures[SPREAD], EPSILON / ROUNDING * figures[TOLERANCE])
    kept = 0
    used = 0
    for i in range(n_samples):
        if sample_weight[i] == 0.0:
            continue
        for r in range(offsets[i], offsets[i + 1]):
            if allowed.size and not allowed[r]:
                continue
            place[used] = r
            for k in range(rows.shape[1]):
                loss = rows[start + r - offsets[0], k]
                table[used, k] = math.ldexp(loss, exponent) if exponent else loss
            if prior.size:
                priors[used] = prior[r]
            used += 1
        weight[kept] = sample_weight[i]
        alphas[kept] = math.ldexp(alpha[i], exponent) if exponent else alpha[i]
        if spread > 0.0:
            alphas[kept] = min(max(alphas[kept], spread * LEAST_ALPHA), spread * MOST_ALPHA)
        kept += 1
        bounds[kept] = used
    if prior.size:
        priors = priors[:used]
    return table[:used], bounds[: kept + 1], place[:used], priors, weight[:kept], alphas[:kept]


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
