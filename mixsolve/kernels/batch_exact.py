"""Small exact games, each from its rows to a certified answer without leaving compiled code.

    min_lam  sum_i w_i max_j <lam, l_ij>      over the simplex

Constraint generation over the interior point method (`mixsolve.kernels.batch_interior`), as by
"lp". Rounds begin with the best responses to the uniform weights and to the points half way from
them to the vertices; these rows are solved to a loose gap, and a pass over all rows tells which of
them win for weights near by. Those are solved to the tolerance, with what later passes find
missing.

A sample whose losses lie within d_i moves both sides of the certificate by at most w_i d_i,
whichever of its candidates are looked at. Samples of so little weight that they sum to less than
`_IDLE` of the tolerance keep the candidate that wins at the uniform weights; so no weight is so
small beside the others that its duals would vanish in rounding.

Reference: Blankenship and Falk, Infinitely constrained optimization problems, 1976.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels import batch as run
from mixsolve.kernels import batch_layout as layout
from mixsolve.kernels.batch_interior import interior_point
from mixsolve.kernels.batch_table import (
    add_rows,
    dot,
    respond,
    vector,
)
from mixsolve.kernels.batch_working_set import kept_rows, mark_first_rows, mark_near
from mixsolve.kernels.constants import FIRST_BARRIER, GAP_FLOOR
from mixsolve.kernels.linear_algebra import OPTIONS, copy_into

_LOOSE_GAP = 3e-3  # of the first round, whose rows are a guess
_RADIUS = 0.05  # about the first round's weights, within which winners are looked for, times L^-1/2
_SMALL_SHARE = 0.3  # of the tolerance, left to the interior point
_IDLE = 1e-3  # of the tolerance, that samples of next to no weight may make together
_MAX_ROUNDS = 30
_FINEST = 1e-13  # of the spread: an absolute gap that can be reached


@kernel(**OPTIONS)
def _share_out(groups, weight, dual):
    """Scale the duals of each sample to its weight."""
    total = np.empty(weight.size)
    add_rows(groups, dual, total)
    for i in range(weight.size):
        total[i] = weight[i] / total[i]
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        factor = total[first : first + n]
        for j in range(c):
            here = dual[begin + j * n : begin + (j + 1) * n]
            for i in range(n):
                here[i] *= factor[i]


@kernel(**OPTIONS)
def solve_exact(columns, groups, weight, ranges, spread, tolerance, max_iter, weights, dual):
    """Solve a game of positive sample weights to an absolute gap.

    ranges (S,) are those of the samples' losses. ``weights`` (L,) and ``dual`` (R,), sum_j q_ij =
    w_i, become the point of the smallest gap. Returns its value and bound, both from all rows, the
    number of iterations, and of passes over all rows.
    """
    size, n_rows = len(columns), dual.size
    n_samples = weight.size
    gradient = vector(size)
    linear = vector(size)
    scores = vector(n_rows)
    top = vector(n_samples)
    best = np.empty(n_samples, dtype=np.int64)
    kept = np.zeros(n_rows, dtype=np.bool_)
    played = vector(n_rows)
    point = vector(size)
    point[:] = 1.0 / size

    # Uniform weights and best responses solve a constant game, or one of a single classifier.
    copy_into(weights, point)
    value = respond(columns, groups, weight, point, scores, top, best, gradient)
    bound = gradient.min()
    dual[:] = 0.0
    for i in range(n_samples):
        dual[best[i]] = weight[i]
    unit = dot(weight, ranges)
    nit = 0
    if value - bound <= tolerance or unit == 0.0:
        return value, bound, nit, 1
    idle = np.empty(n_samples, dtype=np.bool_)
    for i in range(n_samples):
        idle[i] = weight[i] * ranges[i] * n_samples <= _IDLE * tolerance
    mark_first_rows(columns, groups, scores, kept)
    for i in range(n_samples):
        kept[best[i]] = True
    resting = best.copy()
    for g in range(len(groups)):
        c, n, begin, first = groups[g]
        for i in range(n):
            if idle[first + i]:
                for j in range(c):
                    r = begin + j * n + i
                    kept[r] = r == resting[first + i]
    stop = max(_SMALL_SHARE * tolerance / unit, GAP_FLOOR)
    gap = FIRST_BARRIER
    loose = max(_LOOSE_GAP, stop)
    radius = _RADIUS / math.sqrt(size)
    reach = spread * math.sqrt(size)
    calls = size + 2
    for turn in range(_MAX_ROUNDS):
        small, small_groups, small_weight, origin = kept_rows(
            columns, groups, weight, 1.0 / unit, kept, linear, played
        )
        share = min(gap * size, 0.5) if turn else 0.0
        for k in range(size):
            point[k] = (1.0 - share) * point[k] + share / size
        small_dual = vector(origin.size)
        _, done = interior_point(
            small, small_groups, small_weight, linear, loose, max_iter - nit, gap, point, small_dual
        )
        nit += done
        calls += 1
        above = respond(columns, groups, weight, point, scores, top, best, gradient)
        _share_out(small_groups, small_weight, small_dual)
        for s in range(origin.size):
            played[origin[s]] = small_dual[s]
        below = np.inf
        for k in range(size):
            below = min(below, dot(played, columns[k]))
        if above - below < value - bound:
            value = above
            bound = below
            copy_into(weights, point)
            copy_into(dual, played)
        if above - below <= tolerance or nit >= max_iter:
            break
        missing = turn == 0
        if missing:  # the first rows were a guess
            kept[:] = False
            for i in range(n_samples):
                if idle[i]:
                    kept[resting[i]] = True
        for i in range(n_samples):
            missing = missing or not (idle[i] or kept[best[i]])
        mark_near(columns, groups, scores, top, best, idle, radius, reach, kept)
        if not missing and loose <= stop:
            if stop == GAP_FLOOR:
                break
            stop = max(0.1 * stop, GAP_FLOOR)
        loose = stop
        gap = min(max((above - below) / unit, 10.0 * stop), FIRST_BARRIER)
        radius *= 0.5
    return value, bound, nit, calls


@kernel(**OPTIONS)
def solve_exact_games(
    rows, starts, samples, offsets, allowed, prior, sample_weight, alpha, tol, max_iter,
    weights, figures, attacked, nit, state, attack,
):  # fmt: skip
    """Solve the games of a run whose state is EXACT, or NEEDS_START: an entropic one's start.

    The arguments are those of `mixsolve.kernels.batch`.
    """
    size = rows.shape[1]
    for g in range(starts.size):
        if state[g] != layout.EXACT and state[g] != layout.NEEDS_START:
            continue
        begin = samples[g]
        end = samples[g + 1]
        columns, groups, place, _, weight, alphas, finite = run.load(
            rows, starts[g], offsets[begin : end + 1], allowed, prior, sample_weight[begin:end],
            alpha[begin:end],
        )  # fmt: skip
        ranges, finite = run.measure(columns, groups, alphas, tol, finite, figures, state, g)
        if not finite:
            continue
        tolerance = figures[g, layout.TOLERANCE]
        if state[g] == layout.NEEDS_START:
            # A Gibbs strategy of small alpha proves little unless its weights are this near.
            tolerance = max(alphas.min(), _FINEST * figures[g, layout.SPREAD])
        played = vector(place.size)
        _, _, done, calls = solve_exact(
            columns, groups, weight, ranges, figures[g, layout.SPREAD], tolerance, max_iter,
            weights[g], played,
        )  # fmt: skip
        figures[g, layout.N_PASSES] += calls + 2  # with the extremes and the certificate
        if state[g] == layout.NEEDS_START:
            state[g] = layout.STARTED
            continue
        nit[g] = done
        _share_out(groups, weight, played)
        best = np.empty(weight.size, dtype=np.int64)
        risk = respond(
            columns, groups, weight, weights[g], np.empty(place.size), np.empty(weight.size), best,
            attacked[g],
        )  # fmt: skip
        for k in range(size):
            attacked[g, k] = dot(played, columns[k])
        lowest = attacked[g].min()
        figures[g, layout.VALUE] = risk
        figures[g, layout.RISK] = risk
        figures[g, layout.LOWER_BOUND] = lowest
        figures[g, layout.RISK_LOWER_BOUND] = lowest
        figures[g, layout.SMOOTHING] = 0.0
        run.close(figures, attacked, weights, state, g)
        if attack.size:
            _share_out(groups, np.ones(weight.size), played)
            run.spread_out(
                offsets[begin : end + 1], sample_weight[begin:end], allowed, place, played, attack
            )
