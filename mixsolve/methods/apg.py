"""Accelerated proximal gradient on the entropic objective F of eq. (7).

    x_{t+1} = P(y_t - grad F(y_t) / C_t)
    y_{t+1} = x_{t+1} + (theta_t - 1) / theta_{t+1} (x_{t+1} - x_t)

with P the projection onto the feasible weights, theta the usual sequence, and C_t an estimate of
the curvature: doubled until <grad F(x) - grad F(y), x - y> <= C/2 |x - y|^2, which by convexity
implies the descent condition F(x) <= F(y) + <grad F(y), x - y> + C/2 |x - y|^2 and, unlike it,
does not drown in rounding near the optimum. The momentum is dropped whenever it points uphill. One
fused pass gives F and its gradient, hence the lower bound F(y) - <y, grad F> + min_k grad_k F.

References: Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm, 2009; Tseng, On
accelerated proximal gradient methods, 2008; O'Donoghue and Candes, Adaptive restart for
accelerated gradient schemes, 2015; Meunier et al., ICML 2021, section 4.2.
"""

import math

import numpy as np

from mixsolve.engines.base import Engine
from mixsolve.methods import presolve
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop

DEFAULT_MAX_ITER = 5000
_MAX_DOUBLINGS = 200  # M^2 / alpha, the largest curvature there is, is nearer to any guess
_SHRINK = 0.8  # of the curvature estimate after each accepted step, so that it can adapt


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Minimise eq. (7) from `start`; the best iterate is kept."""
    game = presolve.PresolvedGame(problem, stop.halted)
    engine, alpha = game.engine, game.alpha
    assert alpha is not None
    point = ahead = start
    theta = 1.0
    here = engine.soft_response(ahead, alpha, hessian=False)
    curvature = _first_curvature(engine, alpha)
    for _ in stop.iterations(DEFAULT_MAX_ITER):
        for _ in range(_MAX_DOUBLINGS):
            candidate = problem.feasible.project(ahead - here.gradient / curvature)
            there = engine.soft_response(candidate, alpha, hessian=False)
            step = candidate - ahead
            bend = float((there.gradient - here.gradient) @ step)
            if bend <= 0.5 * curvature * float(step @ step) or stop.is_late():
                break
            curvature *= 2.0
        bound = there.lower_bound(candidate, problem.feasible.lowest(there.gradient))
        if stop.record(candidate, there.value, bound):
            break
        if float((ahead - candidate) @ (candidate - point)) > 0.0:
            theta, point, ahead, here = 1.0, candidate, candidate, there
        else:
            theta_next = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * theta * theta))
            ahead = candidate + (theta - 1.0) / theta_next * (candidate - point)
            theta, point = theta_next, candidate
            here = engine.soft_response(ahead, alpha, hessian=False)
        curvature *= _SHRINK
    return game.outcome(start if stop.weights is None else stop.weights, proof=stop.proof)


def _first_curvature(engine: Engine, alpha: np.ndarray) -> float:
    """A guess below M^2 / min alpha, which bounds the curvature along any one coordinate."""
    guess = 0.1 * engine.spread**2 / float(alpha.max())
    return guess if guess > 0.0 else 1.0
