"""The exact problem: presolve, then constraint generation on subsamples and on the whole.

With many samples the rounds (`mixsolve.methods.exact_rounds`) begin on a subsample, whose optimal
weights are near those of the whole, so that the whole tensor is read two or three times.
"""

import numpy as np

from mixsolve.engines.bookkeeping import count_passes
from mixsolve.methods.exact_rounds import ExactRounds, first_radius
from mixsolve.methods.presolve import PresolvedGame
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop
from mixsolve.methods.working_set import subsamples

_LEVEL_TOLERANCE = 1e-4  # of the spread: a subsample's weights need not be exact
_SAMPLING_RADIUS = 1.0  # times n^-1/2, about the optimal weights of a subsample of n


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Solve the exact problem from `start`."""
    game = PresolvedGame(problem, stop.halted, few_passes=True)
    engine = game.engine
    weights, radius = start, first_radius(engine)
    if not problem.warm:
        for samples in subsamples(engine):
            level = engine.subsample(samples)
            part = stop.part(_LEVEL_TOLERANCE * level.spread)
            weights = ExactRounds(level, problem.feasible, part).run(weights, radius)
            radius = _SAMPLING_RADIUS / np.sqrt(level.n_samples * engine.n_classifiers)
            count_passes(engine, level)
            del level  # a copy of part of the tensor
    rounds = ExactRounds(engine, problem.feasible, stop)
    weights = rounds.run(weights, radius)
    message, played = rounds.message(), rounds.attack()
    del rounds  # in a large game its arrays of a number for each sample are large
    attack = None if played is None else problem.engine.strategy(*game.lift(*played))
    return game.outcome(weights, message, attack=attack)
