"""All candidates at once by the interior point method, where the attacker also weighs the blocks.

    min_lam  max_{m in W}  sum_b m_b sum_{i in b} share_i max_j <lam, l_ij>

One small game (`mixsolve.small_game.grouped`) of every row that can be struck; its dual, rows and
masses, is the attack.
"""

import numpy as np

from mixsolve.methods.grouped_rounds import GroupedRounds, grouped
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Solve the exact grouped problem; the optimum does not depend on `start`."""
    rounds = GroupedRounds(grouped(problem.engine), problem.feasible, stop)
    weights = rounds.whole(start)
    return Outcome(weights, rounds.attack(), message=rounds.message())
