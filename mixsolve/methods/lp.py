"""The exact problem as a linear program over all candidates, solved by HiGHS."""

import numpy as np

from mixsolve import highs
from mixsolve.problem import Outcome, Problem
from mixsolve.solution import Status
from mixsolve.stopping import Stop


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Solve the game's linear program; HiGHS starts from scratch, so `start` is the fallback."""
    engine = problem.engine
    samples, candidates = engine.every_candidate()
    counts = np.bincount(samples, minlength=engine.n_samples)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    for _ in stop.iterations(1):
        rows = engine.gather(samples, candidates)
        result = highs.solve_rows(rows, offsets, engine.sample_weight, time_limit=stop.seconds_left)
        if result.timed_out:
            stop.status = Status.TIME_LIMIT
        if result.weights is None or result.dual is None:
            return Outcome(start, message=result.message, failed=not result.timed_out)
        attack = engine.strategy(samples, candidates, result.dual)
        lower_bound = float(engine.expected_losses(attack).min())
        value = engine.best_response(result.weights).value
        stop.record(result.weights, value, lower_bound)
        return Outcome(result.weights, attack, result.message)
    return Outcome(start)
