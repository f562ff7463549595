"""Small entropic games, each from its rows to a certified answer without leaving compiled code.

    min_lam  F(lam) = sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i)

over the simplex, by the damped Newton method of `mixsolve.methods.newton`: each step minimises the
quadratic model exactly (`simplex_qp`) and is cut back until F has decreased enough. Every point
gives the bound F(lam) - <lam, g> + min_k g_k. Where alpha is tiny beside the losses, or steps had
to be cut back twice, the exact optimum is the better start: the game is left in the state
NEEDS_START until `mixsolve.kernels.batch_exact` has found it.

References: Meunier et al., ICML 2021, section 4.1; Nocedal and Wright, Numerical Optimization,
2006, chapters 3 and 16.
"""

import math

import numpy as np

from mixsolve.base.compilation import kernel
from mixsolve.kernels import batch as run
from mixsolve.kernels import batch_layout as layout
from mixsolve.kernels.batch_soft import gibbs, measures, soft_response
from mixsolve.kernels.batch_table import matrix, respond, vector
from mixsolve.kernels.constants import (
    ARMIJO,
    CUT_BACK,
    DAMPING,
    LEAST_DAMPING,
    MAX_CUT_BACK,
    NARROWER,
    NEARLY_EXACT,
    NEWTON_PATIENCE,
    ROUNDING,
    SECANT_LEAST,
    SECANT_MOST,
    TINY,
)
from mixsolve.kernels.linear_algebra import OPTIONS, copy_into
from mixsolve.kernels.simplex_qp import minimize_quadratic

_SHORTEST = 1e-10  # share of a step


@kernel(**OPTIONS)
def solve_entropic(
    columns, groups, prior, weight, alpha, tolerance, max_iter, started, weights, proof
):
    """Solve a game of positive sample weights and alphas to an absolute gap, from ``weights``.

    ``weights`` and ``proof`` (L,) become the points of the lowest value and of the highest bound.
    Returns that value and that bound, the number of iterations, and of passes over the rows. It
    ends early once two steps had to be cut back, unless ``started``: the weights are already those
    of the exact optimum.
    """
    size = weights.size
    gradient = vector(size)
    hessian = matrix(size, size)
    ahead_gradient = vector(size)
    ahead_hessian = matrix(size, size)
    trial = vector(size)
    target = vector(size)
    point = vector(size)
    copy_into(point, weights)
    nit = 0
    calls = 0
    value = np.inf
    bound = -np.inf
    narrowest = np.inf
    since = 0
    cuts = 0
    now = 0.0
    slope = 0.0
    length = 1.0
    while True:
        # F at the next trial: the starting point, or a place along the step to the target.
        mass = 0.0
        for k in range(size):
            trial[k] = point[k]
            if calls:
                trial[k] = max(point[k] + length * (target[k] - point[k]), 0.0)
        for k in range(size):
            mass += trial[k]
        for k in range(size):
            trial[k] /= mass
        there = soft_response(
            columns, groups, prior, weight, alpha, trial, ahead_gradient, ahead_hessian
        )
        calls += 1
        if calls > 1:
            ahead = 0.0
            for k in range(size):
                ahead += ahead_gradient[k] * (target[k] - point[k])
            wanted = now + ARMIJO * length * min(slope, 0.0) + ROUNDING * abs(now)
            if there > wanted and ahead > 0.0 and length >= _SHORTEST:
                # The slope's zero by the secant of its two values, kept away from both ends.
                length *= min(max(slope / (slope - ahead), SECANT_LEAST), SECANT_MOST)
                continue
        copy_into(point, trial)
        copy_into(gradient, ahead_gradient)
        for k in range(size):
            copy_into(hessian[k], ahead_hessian[k])
        now = there
        cuts += length < CUT_BACK
        slope = 0.0
        for k in range(size):
            slope += point[k] * gradient[k]
        below = now - slope + gradient.min()
        if now < value:
            value = now
            copy_into(weights, point)
        if below > bound:
            bound = below
            copy_into(proof, point)
        gap = value - bound
        since += 1
        if gap < NARROWER * narrowest:
            narrowest = gap
            since = 0
        over = gap <= tolerance or since > NEWTON_PATIENCE or nit >= max_iter
        if over or (cuts >= MAX_CUT_BACK and not started):
            return value, bound, nit, calls
        nit += 1
        largest = 0.0
        for k in range(size):
            largest = max(largest, hessian[k, k])
        ridge = max(DAMPING * (now - below), LEAST_DAMPING * largest, TINY)
        copy_into(target, minimize_quadratic(gradient, hessian, point, ridge))
        slope = 0.0
        for k in range(size):
            slope += gradient[k] * (target[k] - point[k])
        length = 1.0


@kernel(**OPTIONS)
def solve_entropic_games(
    rows, starts, samples, offsets, allowed, prior, sample_weight, alpha, tol, max_iter,
    weights, figures, attacked, nit, state, attack,
):  # fmt: skip
    """Solve the games of a run whose state is ENTROPIC, or STARTED: from the weights given.

    The arguments are those of `mixsolve.kernels.batch`. A game that should start from its exact
    optimum is left in the state NEEDS_START.
    """
    size = weights.shape[1]
    no_hessian = np.empty((0, 0))
    proof = vector(size)
    for g in range(starts.size):
        if state[g] != layout.ENTROPIC and state[g] != layout.STARTED:
            continue
        begin = samples[g]
        end = samples[g + 1]
        columns, groups, place, priors, weight, alphas, finite = run.load(
            rows, starts[g], offsets[begin : end + 1], allowed, prior, sample_weight[begin:end],
            alpha[begin:end],
        )  # fmt: skip
        given_alphas = alphas.copy()
        _, finite = run.measure(columns, groups, alphas, tol, finite, figures, state, g)
        if not finite:
            continue
        started = state[g] == layout.STARTED
        tolerance = figures[g, layout.TOLERANCE]
        if not started:
            weights[g] = 1.0 / size
            if size > 1 and alphas.max() <= NEARLY_EXACT * figures[g, layout.SPREAD]:
                state[g] = layout.NEEDS_START
                continue
        value, bound, done, calls = solve_entropic(
            columns, groups, priors, weight, alphas, tolerance, max_iter, started, weights[g],
            proof,
        )  # fmt: skip
        nit[g] += done
        figures[g, layout.N_PASSES] += calls
        if not value - bound <= tolerance and not started and nit[g] < max_iter:
            state[g] = layout.NEEDS_START
            continue

        gradient = attacked[g]
        played = vector(place.size)
        scores = vector(place.size)
        top = vector(weight.size)
        best = np.empty(weight.size, dtype=np.int64)
        figures[g, layout.RISK] = respond(
            columns, groups, weight, weights[g], scores, top, best, gradient
        )
        measure = measures(groups, priors, weight.size)
        figures[g, layout.SMOOTHING] = 0.0
        for i in range(weight.size):
            share = priors[best[i]] if priors.size else 1.0
            figures[g, layout.SMOOTHING] += (
                weight[i] * given_alphas[i] * math.log(measure[i] / share)
            )
        there = soft_response(
            columns, groups, priors, weight, alphas, weights[g], gradient, no_hessian
        )
        figures[g, layout.VALUE] = there
        elsewhere = False
        for k in range(size):
            elsewhere = elsewhere or proof[k] != weights[g, k]
        if elsewhere:
            there = soft_response(
                columns, groups, priors, weight, alphas, proof, gradient, no_hessian
            )
        lowest = gradient.min()
        for k in range(size):
            there -= proof[k] * gradient[k]
        figures[g, layout.RISK_LOWER_BOUND] = lowest
        figures[g, layout.LOWER_BOUND] = there + lowest
        # The extremes, the certificate, the Gibbs strategy.
        figures[g, layout.N_PASSES] += 4 + elsewhere
        run.close(figures, attacked, weights, state, g)
        if attack.size:
            gibbs(columns, groups, priors, alphas, proof, scores, top, best, played)
            run.spread_out(
                offsets[begin : end + 1], sample_weight[begin:end], allowed, place, played, attack
            )
