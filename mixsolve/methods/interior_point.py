"""The structured interior point on all candidates at once, without constraint generation.

"lp" solves its small games this way; here the whole tensor is one: an L x L system an iteration, a
dozen iterations. It needs the tensor in memory as float64, and serves to measure what constraint
generation saves. The method itself is in `mixsolve.small_game.interior_point`.
"""

import numpy as np

from mixsolve.feasible import Simplex
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Status, Stop
from mixsolve.small_game.solve import solve_small

_TOLERANCE = 1e-10  # of the game's spread
_FINEST = 1e-14  # likewise: smaller gaps are rounding


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Solve the exact problem on all rows of positive weight, from `start`."""
    engine = problem.engine
    samples, candidates = engine.every_candidate()
    for _ in stop.iterations(1):
        weighed = engine.sample_weight[samples] > 0
        rows = engine.gather(samples[weighed], candidates[weighed])
        first = np.flatnonzero(np.diff(samples[weighed], prepend=-1))
        weight = engine.sample_weight[samples[weighed][first]]
        offsets = np.append(first, rows.shape[0])
        feasible = problem.feasible
        warm = start if problem.warm and isinstance(feasible, Simplex) else None
        gap = 0.5 * stop.tolerance / (engine.spread or 1.0)
        tol = min(max(gap, _FINEST), _TOLERANCE)
        small = solve_small(
            feasible.columns(rows),
            offsets,
            weight,
            feasible.cuts,
            tol=tol,
            start=warm,
            halted=stop.halted,
            time_limit=stop.seconds_left,
        )
        found = feasible.restored(small)
        mass = np.zeros(samples.size)
        mass[weighed] = found.dual
        attack = engine.strategy(samples, candidates, mass)
        bound = feasible.lowest(engine.expected_losses(attack))
        stop.record(found.weights, engine.best_response(found.weights).value, bound)
        if stop.status is None and stop.is_late():
            stop.status = Status.TIME_LIMIT
        words = f"; {found.message}" if found.message else ""
        return Outcome(found.weights, attack, message=f"{found.nit} iterations{words}")
    return Outcome(start)
