"""The whole game over groups and tails as one cvxpy model: the reference, and any constraints.

    min_lam  max_{m in W}  sum_b m_b f_b(lam),    f_b(lam) = sum_{i in b} share_i t_i(lam)

with t_i the exact maximum or eq. (7), as in `mixsolve.methods.cvxpy_model`. A level of W is
eliminated by its dual,

    max { sum_c m_c h_c : sum_c m_c = 1, 0 <= m_c <= u_c } = min_eta eta + sum_c u_c (h_c - eta)^+,

so that the model is one of heights: those of blocks bound the f_b, and the multipliers of these
bounds are the masses of the attack. With a temperature T the choice is
T log sum_b p_b exp(h_b / T).
The model holds every candidate: it is for games of some thousand rows.

References: Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000; Diamond and
Boyd, CVXPY, 2016.
"""

from typing import Any

import numpy as np

from mixsolve.base.compilation import load
from mixsolve.engines.grouped import Blocks
from mixsolve.feasible import Simplex
from mixsolve.feasible.convex import ConvexSet
from mixsolve.feasible.simplex import normalize
from mixsolve.methods import METHODS
from mixsolve.methods.cvxpy_model import smooth_heights, solve_by_clarabel
from mixsolve.methods.grouped_rounds import grouped
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop

_LIMIT = 0.25  # of the tolerance: what a simpler model may leave out


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Build the model on all candidates, hand it to cvxpy's solver, read both strategies."""
    feasible, alpha = problem.feasible, problem.alpha
    if not isinstance(feasible, Simplex | ConvexSet):
        method = METHODS["lp" if alpha is None else "newton"]
        return method.minimize(problem, start, stop)
    cp = load("cvxpy")
    engine = grouped(problem.engine)
    blocks = engine.blocks
    tempered = blocks.temperature > 0.0
    exact = alpha is None
    if alpha is not None and not tempered:
        exact = problem.smoothing() <= _LIMIT * stop.tolerance
    struck = (blocks.share > 0.0) & (blocks.place()[blocks.block] >= 0)
    for _ in stop.iterations(1):
        samples, candidates = engine.every_candidate()
        kept = struck[samples]
        samples, candidates = samples[kept], candidates[kept]
        rows = engine.gather(samples, candidates)
        rows = rows - rows.min()  # for all samples alike: their weights are the attacker's choice
        scale = float(rows.max()) or 1.0
        known, owners = np.unique(samples, return_inverse=True)
        weights: Any = cp.Variable(engine.n_classifiers, nonneg=True)
        rules = [cp.sum(weights) == 1]
        if isinstance(feasible, ConvexSet):
            weights, rules = feasible.model
        scores = (rows / scale) @ weights
        if exact or alpha is None:
            heights = cp.Variable(known.size)
            attack_rows = [scores <= heights[owners]]
        else:
            log_prior = engine.log_prior(samples, candidates)
            heights, attack_rows = smooth_heights(
                cp, scores, owners, alpha[known] / scale, log_prior
            )
        of_blocks = cp.Variable(blocks.active.size)
        below = _sums(blocks.place()[blocks.block[known]], blocks.share[known]) @ heights
        bounds = below <= of_blocks
        objective = _chosen(cp, blocks, of_blocks, scale)
        model = cp.Problem(cp.Minimize(objective), [*rules, *attack_rows, bounds])
        message, stop.status = solve_by_clarabel(cp, model, stop)
        if weights.value is None or not 0.0 < weights.value.max() < np.inf:  # or NaN
            return Outcome(start, message=message)
        found = feasible.project(normalize(weights.value))
        if tempered:
            soft = problem.soft_response(found)
            lowest = soft.lower_bound(found, feasible.lowest(soft.gradient))
            stop.record(found, soft.value, lowest)
            return Outcome(found, message=message)
        mass = blocks.masses.project(np.maximum(bounds.dual_value, 0.0))
        if exact:
            played = np.zeros(kept.size)
            played[kept] = np.maximum(attack_rows[0].dual_value, 0.0)
            attack = engine.strategy(*engine.every_candidate(), played)
            attack = attack.weighed(blocks.struck(mass))
            lowest = feasible.lowest(engine.expected_losses(attack))
            if alpha is not None:
                lowest -= problem.divergence(attack)
            stop.record(found, engine.best_response(found).value, lowest)
            return Outcome(found, attack, message=message)
        assert alpha is not None
        parts = engine.soft_blocks(found, alpha)
        gradient = mass @ parts.gradients
        lowest = float(mass @ parts.values - found @ gradient) + feasible.lowest(gradient)
        stop.record(found, problem.soft_response(found).value, lowest)
        attack = engine.inner.gibbs(found, alpha).weighed(blocks.struck(mass))
        return Outcome(found, attack, message=message)
    return Outcome(start)


def _sums(parent: np.ndarray, factor: np.ndarray, n_parents: int | None = None) -> Any:
    """The matrix that adds children, times their factors, to their parents."""
    csr_array = load("scipy.sparse").csr_array
    size = int(parent.max()) + 1 if n_parents is None else n_parents
    return csr_array((factor, (parent, np.arange(parent.size))), shape=(size, parent.size))


def _chosen(cp: Any, blocks: Blocks, heights: Any, scale: float) -> Any:
    """The attacker's choice of blocks of these heights, in units of `scale`."""
    if blocks.temperature > 0.0:
        temperature = blocks.temperature / scale
        return temperature * cp.log_sum_exp(heights / temperature + np.log(blocks.prior))
    levels, top = blocks.masses.levels, blocks.masses.top
    sizes = [*(level.parent.size for level in levels[1:]), top.size]
    for level, size in zip(levels, sizes, strict=True):
        eta = cp.Variable(size)
        above = cp.pos(heights - eta[level.parent])
        heights = eta + _sums(level.parent, np.minimum(level.cap, 2.0), size) @ above
    return top @ heights
