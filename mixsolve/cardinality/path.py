"""`solve_cardinality_path`: the best risk of at most k classifiers, for each k, in one call.

One search goes through k = 1, 2, ...: rows that lie below the objective, games of some classifiers
that were solved, and mixtures found stay with it. A mixture of k classifiers is one of k + 1 too,
so values fall with k; a bound for k + 1 is one for k too, so each takes the best of those after it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixsolve.arrays.interop import to_numpy
from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError
from mixsolve.cardinality.feasibility import find_few
from mixsolve.feasible import FeasibleSet, Infeasibility, Simplex, feasible_set
from mixsolve.feasible.constraints import LinearConstraints
from mixsolve.feasible.subset import Subset
from mixsolve.methods.problem import Outcome
from mixsolve.methods.stopping import Stop
from mixsolve.solver.certificate import finish, infeasible
from mixsolve.solver.request import Clock, Game, Options, check
from mixsolve.solver.solution import Solution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CardinalityPath", "solve_cardinality_path"]


@dataclass(frozen=True)
class CardinalityPath(Sequence[Solution]):
    """The best mixtures of at most 1, 2, ... classifiers; ``path[k - 1]`` is that of at most k.

    ``print`` shows a table.

    Attributes
    ----------
    solutions : tuple of Solution
        One for each k.
    """

    solutions: tuple[Solution, ...]

    def __len__(self) -> int:
        return len(self.solutions)

    def __getitem__(self, place: Any) -> Any:
        return self.solutions[place]

    def __iter__(self) -> Iterator[Solution]:
        return iter(self.solutions)

    @property
    def max_models(self) -> np.ndarray:
        """1, 2, ..., int64 of shape (n,)."""
        return np.arange(1, len(self) + 1)

    @property
    def risks(self) -> np.ndarray:
        """Exact adversarial risks, float64 of shape (n,); infinite where no mixture is feasible."""
        return np.array([solution.risk for solution in self])

    @property
    def values(self) -> np.ndarray:
        """Objectives solved, float64 of shape (n,): the risks for alpha = 0."""
        return np.array([solution.value for solution in self])

    @property
    def lower_bounds(self) -> np.ndarray:
        """What no mixture of at most k classifiers is below, float64 of shape (n,)."""
        return np.array([solution.lower_bound for solution in self])

    @property
    def weights(self) -> np.ndarray:
        """Of the classifiers, float64 of shape (n, L)."""
        return np.array([to_numpy(solution.weights, "weights") for solution in self], dtype=float)

    @property
    def supports(self) -> tuple[tuple[int, ...], ...]:
        """Which classifiers each mixture uses; none where no mixture is feasible."""
        return tuple(tuple(np.flatnonzero(row > 0.0).tolist()) for row in self.weights)

    def __str__(self) -> str:
        heads = ("models", "risk", "value", "lower bound", "gap")
        lines = ["{:>6} {:>11} {:>11} {:>11} {:>8}  classifiers".format(*heads)]
        for k, solution, support in zip(self.max_models, self, self.supports, strict=True):
            numbers = solution.risk, solution.value, solution.lower_bound
            shown = " ".join(f"{number:>11.6g}" for number in numbers)
            used = ", ".join(map(str, support)) if support else str(solution.status)
            gap = "closed" if solution.success else f"{solution.gap:.1e}"
            lines.append(f"{k:>6} {shown} {gap:>8}  {used}")
        return "\n".join(lines)

    def plot(self) -> "Figure":
        """Draw the risks over the numbers of models, with the lower bounds where a gap is open.

        Returns
        -------
        matplotlib.figure.Figure
            To be written with ``mixsolve.plots.risk.save``.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        """
        from mixsolve.plots.cardinality import draw

        return draw(self)


def solve_cardinality_path(
    losses: Any,
    alpha: Any = 0.0,
    *,
    max_models: int | None = None,
    method: str = "auto",
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    constraints: Any = None,
    A_ub: Any = None,
    b_ub: Any = None,
    A_eq: Any = None,
    b_eq: Any = None,
    tol: float = 1e-6,
    max_iter: int | None = None,
    time_limit: float | None = None,
    warm_start: Any = None,
    verbose: bool = False,
    presolve: bool = True,
) -> CardinalityPath:
    """The best mixtures of at most 1, 2, ... classifiers, what is learnt for one serving the next.

    Parameters
    ----------
    losses : array_like of shape (N, m, L), or list of N arrays of shape (m_i, L)
        See `solve`.
    alpha : float or array_like of shape (N,), default 0
        See `solve`.
    max_models : int, optional
        The largest number of classifiers; all of them by default.
    method, sample_weight, candidate_mask, candidate_prior, constraints, tol
        See `solve`; constraints must be linear.
    A_ub, b_ub, A_eq, b_eq
        See `solve`.
    max_iter : int, optional
        Nodes of each of the searches.
    time_limit : float, optional
        Seconds for each of the searches.
    warm_start, verbose, presolve
        See `solve`.

    Returns
    -------
    CardinalityPath
        One Solution for each number. What they say is said in `solve` under `max_models`.

    Raises
    ------
    MixsolveError
        As `solve` does.

    Examples
    --------
    Rock, paper, scissors: with one of them the attacker always wins, with two in two of three
    cases.

    >>> import mixsolve
    >>> game = [[[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]]
    >>> path = mixsolve.solve_cardinality_path(game)
    >>> path.risks.round(6)
    array([1.      , 0.666667, 0.5     ])
    """
    options = Options(tol, max_iter, time_limit, None, verbose, presolve)
    most = None if max_models is None else as_count("max_models", max_models)
    limits = (constraints, A_ub, b_ub, A_eq, b_eq)
    game = Game(losses, sample_weight, candidate_mask, candidate_prior, limits)
    try:
        size = game.losses.n_classifiers
        counts = range(1, min(size if most is None else most, size) + 1)
        found = solve_few(game, alpha, method, warm_start, options, counts, stacklevel=4)
    finally:
        game.close()
    return CardinalityPath(tuple(found))


@dataclass
class _Run:
    """What a search gave for one number of models, before it is certified."""

    outcome: Outcome
    stop: Stop
    clock: Clock
    n_passes: float


def solve_few(
    game: Game,
    alpha: Any,
    method: str,
    warm_start: Any,
    options: Options,
    counts: Sequence[int],
    stacklevel: int,
) -> list[Solution]:
    """Solve a game for ascending numbers of models; see `mixsolve.solve` for the arguments."""
    from mixsolve.cardinality.search import Search  # and Numba with it

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
    runs: list[_Run | Infeasibility] = []  # one for each count
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
        runs.append(_Run(outcome, stop, checked.clock, problem.engine.n_passes))
        problem.engine.n_passes = 0.0
    best = -np.inf
    for run in reversed(runs):
        if isinstance(run, _Run):
            assert run.outcome.lower_bound is not None
            best = max(best, run.outcome.lower_bound)
            run.outcome = replace(run.outcome, lower_bound=best)
    solutions = []
    for count, run in zip(counts, runs, strict=True):
        if isinstance(run, _Run):
            problem.engine.n_passes = run.n_passes
            solution = finish(checked, run.outcome, run.stop, run.clock, stacklevel)
        else:
            solution = infeasible(checked, run, stacklevel)
        solutions.append(replace(solution, max_models=count))
    return solutions


def _subset(linear: LinearConstraints | None, some: np.ndarray, size: int) -> Subset:
    """The feasible mixtures of some classifiers, int64 of shape (s,)."""
    inner: FeasibleSet = Simplex()
    if linear is not None:
        columns = linear.A_ub[:, some], linear.b_ub, linear.A_eq[:, some], linear.b_eq
        labels = linear.labels_ub, linear.labels_eq
        part = LinearConstraints(*columns, labels_ub=labels[0], labels_eq=labels[1])
        inner = feasible_set([part], some.size, modelled=False)
    return Subset(inner, some, size)


def _beyond_rounding(max_models: int) -> Infeasibility:
    """No choice of so many classifiers can meet the constraints, though one nearly does."""
    nothing = np.empty(0)
    return Infeasibility(
        ("the constraints", f"max_models={max_models}"), nothing, nothing, float("nan")
    )
