"""Games of at most so many classifiers: ``max_models`` of `mixsolve.solve`, and whole paths."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.engines.bookkeeping import restart_count
from mixsolve.feasible import FeasibleSet, Infeasibility, Simplex, feasible_set
from mixsolve.feasible.constraints import LinearConstraints
from mixsolve.feasible.subset import Restricted
from mixsolve.methods.feasible_support import find_few
from mixsolve.methods.problem import Outcome
from mixsolve.methods.stopping import Stop
from mixsolve.solver.certificate import finish, infeasible
from mixsolve.solver.request import Clock, OpenGame, Options, check
from mixsolve.solver.solution import Solution

_IN_NUMPY = 6  # classifiers, at most: more make so many nodes that compiling pays


@dataclass
class _Search:
    """The outcome of a search for one number of models, not yet certified."""

    outcome: Outcome
    stop: Stop
    clock: Clock
    n_passes: float


def solve_few(
    game: OpenGame,
    alpha: Any,
    method: str,
    warm_start: Any,
    options: Options,
    counts: Sequence[int],
    stacklevel: int,
) -> list[Solution]:
    """Solve a game for ascending numbers of models; see `mixsolve.solve` for the arguments."""
    with game.form(alpha, _IN_NUMPY):
        return _solve_few(game, alpha, method, warm_start, options, counts, stacklevel + 1)


def _solve_few(
    game: OpenGame,
    alpha: Any,
    method: str,
    warm_start: Any,
    options: Options,
    counts: Sequence[int],
    stacklevel: int,
) -> list[Solution]:
    from mixsolve.methods.branch_and_bound import Search

    if callable(game.constraints):
        raise MixsolveError(
            "constraints must be linear where max_models is given, got a function; give A_ub and "
            "b_ub, or mixsolve.LinearConstraints"
        )
    checked = check(game, alpha, method, warm_start, options)
    if checked.feasible.infeasibility is not None:
        clash = checked.feasible.infeasibility
        return [
            replace(infeasible(checked, clash, stacklevel), max_models=count) for count in counts
        ]
    linear, size = checked.feasible.linear, game.losses.n_classifiers
    problem, began = checked.problem, checked.clock.began
    search = Search(problem, checked.entry, lambda some: _subset(linear, some, size), checked.start)
    runs: list[_Search | Infeasibility] = []  # one for each count
    for count in counts:
        checked.clock = Clock(began)
        stop = checked.stop()
        first = () if linear is None else find_few(linear, count, stop)
        if isinstance(first, Infeasibility):
            runs.append(first)
            continue
        checked.clock.ready = time.perf_counter()
        outcome = search.run(count, stop, first)
        if outcome is None:
            runs.append(_beyond_rounding(count))
            continue
        checked.clock.minimized = began = time.perf_counter()
        runs.append(_Search(outcome, stop, checked.clock, restart_count(problem.engine)))
    best = -np.inf
    for run in reversed(runs):
        if isinstance(run, _Search):
            assert run.outcome.lower_bound is not None
            best = max(best, run.outcome.lower_bound)
            run.outcome = replace(run.outcome, lower_bound=best)
    solutions = []
    for count, run in zip(counts, runs, strict=True):
        if isinstance(run, _Search):
            restart_count(problem.engine, run.n_passes)
            solution = finish(checked, run.outcome, run.stop, run.clock, stacklevel)
        else:
            solution = infeasible(checked, run, stacklevel)
        solutions.append(replace(solution, max_models=count))
    return solutions


def _subset(linear: LinearConstraints | None, some: np.ndarray, size: int) -> Restricted:
    """The feasible mixtures of some classifiers, int64 of shape (s,)."""
    inner: FeasibleSet = Simplex()
    if linear is not None:
        columns = linear.A_ub[:, some], linear.b_ub, linear.A_eq[:, some], linear.b_eq
        labels = linear.labels_ub, linear.labels_eq
        part = LinearConstraints(*columns, labels_ub=labels[0], labels_eq=labels[1])
        inner = feasible_set([part], some.size, modelled=False)
    return Restricted(inner, some, size)


def _beyond_rounding(max_models: int) -> Infeasibility:
    """No choice of so many classifiers can meet the constraints, though one nearly does."""
    nothing = np.empty(0)
    return Infeasibility(
        ("the constraints", f"max_models={max_models}"), nothing, nothing, float("nan")
    )
