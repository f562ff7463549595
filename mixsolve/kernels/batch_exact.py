"""Small exact games, each from its rows to a certified answer without leaving compiled code.

    min_lam  sum_i w_i max_j <lam, l_ij>      over the simplex

Constraint generation over the interior point method of `mixsolve.small_game`, as by "lp".
Rounds begin with the best responses to the uniform weights and to the points half way from them to
the vertices; these rows are solved to a loose gap, and a pass over all rows tells which of them win
for weights near by. Those are solved to the tolerance, with what later passes find missing.

The games are small: the iteration is written out here with the same passes (`kernels`) and the same
L x L systems (`schur_system`), for one thread and without constraints.

References: S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J.
Optim. 1992; Blankenship and Falk, Infinitely constrained optimization problems, 1976.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels import batch as run
from mixsolve.kernels import interior_point as kernels
from mixsolve.kernels import passes, schur_system
from mixsolve.kernels.constants import (
    CORRECTION,
    FIRST_BARRIER,
    GAP_FLOOR,
    INTERIOR_PATIENCE,
    LEAST_MARGIN,
    MOST_MARGIN,
)
from mixsolve.kernels.linear_algebra import OPTIONS, copy_into

_LOOSE_GAP = 3e-3  # of the first round, whose rows are a guess
_RADIUS = 0.05  # about the first round's weights, within which winners are looked for, times L^-1/2
_SMALL_SHARE = 0.3  # of the tolerance, left to the interior point
_MAX_ROUNDS = 30
_FINEST = 1e-13  # of the spread: an absolute gap that can be reached


@kernel(**OPTIONS)
def interior_point(rows, offsets, weight, unit, stop, max_iter, gap, weights, dual):
    """Follow the central path of a game from about `gap` down to `stop`, in units of `unit`.

    ``weights`` (L,), inside the simplex, is where it starts; it and ``dual`` (R,) become the best
    point found. Returns that point's gap and the number of iterations.
    """
    n_rows, size = rows.shape
    n_samples = weight.size
    height = run.vector(n_samples)
    d_height = run.vector(n_samples)
    point = run.vector(size)
    copy_into(point, weights)
    duals = run.vector(n_rows)
    d_dual = run.vector(n_rows)
    slack = run.vector(n_rows)
    slack[:] = 1.0
    product = run.vector(n_rows)
    schur = run.matrix(1, size * size).reshape((1, size, size))
    towards = run.matrix(1, size)
    against = run.matrix(1, size)
    sums = run.matrix(1, 5)
    matrix = run.matrix(size, size)
    linear = run.vector(size)
    centred = run.vector(size)
    d_weights = run.vector(size)
    d_product = run.vector(size)
    reduced = run.vector(size)
    residual = run.vector(size)
    equal = run.matrix(1, size)
    equal[:] = 1.0
    columns = run.matrix(1, size)
    gram = run.matrix(1, 1)
    omega = run.vector(1)
    steps = run.vector(2)
    none = np.empty(0)
    no_upper = np.empty((0, size))

    inverse = 1.0 / unit
    kernels.spread_and_reference(rows, offsets, weight, 0, n_samples, linear, sums[0])
    total = 1.0
    for i in range(n_samples):
        if offsets[i + 1] - offsets[i] > 1:
            total += weight[i] * (offsets[i + 1] - offsets[i])
    barrier = gap / total
    kernels.centre(
        rows, offsets, weight, inverse, point, barrier, height, duals, 0, n_samples, towards[0]
    )
    lowest = np.inf
    for k in range(size):
        linear[k] *= inverse
        reduced[k] = linear[k] + towards[0, k]
        lowest = min(lowest, reduced[k])
    for k in range(size):
        reduced[k] += barrier - lowest

    dual[:] = 1.0
    best = np.inf
    since = 0
    nit = 0
    while True:
        kernels.factor(
            rows, offsets, weight, inverse, point, steps[0], steps[1],
            height, d_height, slack, duals, d_dual, 0, n_samples, schur[0], towards[0], sums[0],
        )  # fmt: skip
        complementarity = sums[0, 0]
        lowest = np.inf
        carried = 0.0
        for k in range(size):
            residual[k] *= 1.0 - steps[1]
        for k in range(size):
            below = reduced[k] + residual[k]
            complementarity += point[k] * reduced[k]
            carried += point[k] * below
            lowest = min(lowest, below)
        barrier = complementarity / total
        gap = complementarity - sums[0, 1] + carried - lowest
        since += 1
        if gap < best:
            best = gap
            since = 0
            copy_into(weights, point)
            copy_into(dual, duals)
        if best <= stop or since > INTERIOR_PATIENCE or nit >= max_iter or not gap < np.inf:
            return best, nit
        schur_system.predictor(
            schur, towards, linear, point, reduced, no_upper, none, none, equal,
            matrix, columns, gram, omega, centred, d_weights,
        )  # fmt: skip
        kernels.predict(
            rows, offsets, weight, inverse, d_weights, CORRECTION * barrier, slack, duals, product,
            0, n_samples, towards[0], against[0], sums[0],
        )  # fmt: skip
        target = schur_system.corrector(
            towards, against, sums, total, 1.0 / size, complementarity,
            point, reduced, no_upper, none, none, equal, matrix, columns, gram, omega, centred,
            d_product, none, d_weights,
        )  # fmt: skip
        kernels.correct(
            rows, offsets, weight, inverse, d_weights, target, slack, duals, product,
            d_height, d_dual, 0, n_samples, sums[0],
        )  # fmt: skip
        fraction = 1.0 - min(max(gap, LEAST_MARGIN), MOST_MARGIN)  # quadratic convergence
        schur_system.advance(
            sums, target, 1.0 / size, fraction, d_product, none, d_weights, omega, no_upper,
            point, reduced, none, none, none, steps,
        )  # fmt: skip
        nit += 1


@kernel(inline="always", **OPTIONS)
def _first_rows(rows, offsets, weight, kept):
    """Mark the best responses to the uniform weights and to the points half way to the vertices."""
    size = rows.shape[1]
    best = np.empty(weight.size, dtype=np.int64)
    gradient = run.vector(size)
    point = run.vector(size)
    all_allowed = np.empty(0, dtype=np.uint8)
    for vertex in range(size + 1):
        point[:] = 1.0 / size
        if vertex < size:
            point[:] *= 0.5
            point[vertex] += 0.5
        passes.best_response(rows, offsets, all_allowed, weight, point, best, gradient)
        for i in range(best.size):
            kept[offsets[i] + best[i]] = True


@kernel(inline="always", **OPTIONS)
def solve_exact(rows, offsets, weight, spread, tolerance, max_iter, weights, dual):
    """Solve a game of positive sample weights to an absolute gap.

    ``weights`` (L,) and ``dual`` (R,), sum_j q_ij = w_i, become the point of the smallest gap.
    Returns its value and bound, both from all rows, the number of iterations, and of passes over
    all rows.
    """
    n_rows, size = rows.shape
    n_samples = weight.size
    all_allowed = np.empty(0, dtype=np.uint8)
    no_slack = np.empty(0)
    gradient = run.vector(size)
    best = np.empty(n_samples, dtype=np.int64)
    kept = np.zeros(n_rows, dtype=np.bool_)
    near_samples = np.empty(n_rows, dtype=np.int64)
    near_candidates = np.empty(n_rows, dtype=np.int64)
    place = np.empty(n_rows, dtype=np.int64)
    table = run.matrix(n_rows, size)
    small_offsets = np.zeros(n_samples + 1, dtype=np.int64)
    small_dual = run.vector(n_rows)
    measured = run.vector(2)
    point = run.vector(size)
    point[:] = 1.0 / size

    # Uniform weights and best responses solve a constant game, or one of a single classifier.
    copy_into(weights, point)
    value = passes.best_response(rows, offsets, all_allowed, weight, point, best, gradient)
    bound = gradient.min()
    dual[:] = 0.0
    for i in range(n_samples):
        dual[offsets[i] + best[i]] = weight[i]
    kernels.spread_and_reference(rows, offsets, weight, 0, n_samples, gradient, measured)
    unit = measured[0]
    nit = 0
    if value - bound <= tolerance or unit == 0.0:
        return value, bound, nit, 1
    _first_rows(rows, offsets, weight, kept)
    stop = max(_SMALL_SHARE * tolerance / unit, GAP_FLOOR)
    gap = FIRST_BARRIER
    loose = max(_LOOSE_GAP, stop)
    radius = _RADIUS / math.sqrt(size)
    reach = spread * math.sqrt(size)
    calls = size + 2
    for turn in range(_MAX_ROUNDS):
        used = 0
        for i in range(n_samples):
            for r in range(offsets[i], offsets[i + 1]):
                if kept[r]:
                    place[used] = r
                    table[used] = rows[r]
                    used += 1
            small_offsets[i + 1] = used
        share = min(gap * size, 0.5) if turn else 0.0
        for k in range(size):
            point[k] = (1.0 - share) * point[k] + share / size
        _, done = interior_point(
            table[:used], small_offsets, weight, unit, loose, max_iter - nit, gap,
            point, small_dual[:used],
        )  # fmt: skip
        nit += done
        calls += 1
        gradient[:] = 0.0
        above, found = passes.near_response(
            rows, offsets, all_allowed, weight, point, radius, reach, no_slack, best, gradient,
            near_samples, near_candidates,
        )  # fmt: skip
        gradient[:] = 0.0
        for i in range(n_samples):
            mass = 0.0
            for s in range(small_offsets[i], small_offsets[i + 1]):
                mass += small_dual[s]
            for s in range(small_offsets[i], small_offsets[i + 1]):
                small_dual[s] *= weight[i] / mass
                for k in range(size):
                    gradient[k] += small_dual[s] * table[s, k]
        below = gradient.min()
        if above - below < value - bound:
            value = above
            bound = below
            copy_into(weights, point)
            dual[:] = 0.0
            for s in range(used):
                dual[place[s]] = small_dual[s]
        if above - below <= tolerance or nit >= max_iter:
            break
        if turn == 0:
            for s in range(used):
                kept[place[s]] = False
        missing = turn == 0
        for i in range(n_samples):
            r = offsets[i] + best[i]
            missing = missing or not kept[r]
            kept[r] = True
        for entry in range(min(found, n_rows)):
            kept[offsets[near_samples[entry]] + near_candidates[entry]] = True
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
    all_allowed = np.empty(0, dtype=np.uint8)
    for g in range(starts.size):
        if state[g] != run.EXACT and state[g] != run.NEEDS_START:
            continue
        begin = samples[g]
        end = samples[g + 1]
        if not run.unit_and_tolerance(
            rows, starts, samples, offsets, allowed, sample_weight, tol, figures, state, g
        ):
            continue
        table, bounds, place, _, weight, alphas = run.load(
            rows, starts[g], offsets[begin : end + 1], allowed, prior, sample_weight[begin:end],
            alpha[begin:end], figures[g],
        )  # fmt: skip
        tolerance = figures[g, run.TOLERANCE]
        if state[g] == run.NEEDS_START:
            # A Gibbs strategy of small alpha proves little unless its weights are this near.
            tolerance = max(alphas.min(), _FINEST * figures[g, run.SPREAD])
        played = run.vector(table.shape[0])
        _, _, done, calls = solve_exact(
            table, bounds, weight, figures[g, run.SPREAD], tolerance, max_iter, weights[g], played
        )
        figures[g, run.N_PASSES] += calls + 2  # with the extremes and the certificate
        if state[g] == run.NEEDS_START:
            state[g] = run.STARTED
            continue
        nit[g] = done
        gradient = attacked[g]
        gradient[:] = 0.0
        for i in range(weight.size):
            mass = 0.0
            for r in range(bounds[i], bounds[i + 1]):
                mass += played[r]
            for r in range(bounds[i], bounds[i + 1]):
                played[r] /= mass
                for k in range(size):
                    gradient[k] += weight[i] * played[r] * table[r, k]
        lowest = gradient.min()
        best = np.empty(weight.size, dtype=np.int64)
        risk = passes.best_response(
            table, bounds, all_allowed, weight, weights[g], best, np.empty(size)
        )
        figures[g, run.VALUE] = risk
        figures[g, run.RISK] = risk
        figures[g, run.LOWER_BOUND] = lowest
        figures[g, run.RISK_LOWER_BOUND] = lowest
        figures[g, run.SMOOTHING] = 0.0
        run.close(figures, attacked, weights, state, g)
        if attack.size:
            run.spread_out(
                offsets[begin : end + 1], sample_weight[begin:end], allowed, place, played, attack
            )
