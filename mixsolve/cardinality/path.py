"""`solve_cardinality_path`: the best risk of at most k classifiers, for each k, in one call.

One search goes through k = 1, 2, ...: rows that lie below the objective, games of some classifiers
that were solved, and mixtures found stay with it. A mixture of k classifiers is one of k + 1 too,
so values fall with k; a bound for k + 1 is one for k too, so each takes the best of those after it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mixsolve.arrays.interop import to_numpy
from mixsolve.arrays.result_file import Kept
from mixsolve.base.arguments import as_count
from mixsolve.solver.few_models import solve_few
from mixsolve.solver.request import OpenGame, Options
from mixsolve.solver.solution import Solution
from mixsolve.solver.view import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class CardinalityPath(Kept, Sequence[Solution]):
    """The best mixtures of at most 1, 2, ... classifiers; ``path[k - 1]`` is that of at most k.

    ``print`` shows a table, a notebook too. Two paths are equal where their solutions are.

    Attributes
    ----------
    solutions : tuple of Solution
        One for each k.
    """

    _parts: ClassVar = (Solution, *Solution._parts)

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
        """Lower bounds for all mixtures of at most k classifiers, float64 of shape (n,)."""
        return np.array([solution.lower_bound for solution in self])

    @property
    def weights(self) -> np.ndarray:
        """Of the classifiers, float64 of shape (n, L)."""
        return np.array([to_numpy(solution.weights, "weights") for solution in self], dtype=float)

    @property
    def supports(self) -> tuple[tuple[int, ...], ...]:
        """Which classifiers each mixture uses; none where no mixture is feasible."""
        return tuple(tuple(np.flatnonzero(row > 0.0).tolist()) for row in self.weights)

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the classifiers are called, where anything named them."""
        return self.solutions[0].names if self.solutions else None

    def __repr__(self) -> str:
        heads, *rows = self._lines()
        return "\n".join(
            "{:>6} {:>11} {:>11} {:>11} {:>8}  {}".format(*cells) for cells in (heads, *rows)
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        heads, *rows = self._lines()
        head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _lines(self) -> list[tuple[str, ...]]:
        """The cells of the table, heads first."""
        lines: list[tuple[str, ...]] = [
            ("models", "risk", "value", "lower bound", "gap", "classifiers")
        ]
        for k, solution, support in zip(self.max_models, self, self.supports, strict=True):
            used = ", ".join(label(self.names, place) for place in support)
            numbers = (solution.risk, solution.value, solution.lower_bound)
            gap = "closed" if solution.success else f"{solution.gap:.1e}"
            risk, value, bound = (f"{number:.6g}" for number in numbers)
            lines.append((str(k), risk, value, bound, gap, used or str(solution.status)))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of Python's types: "solutions" holds each `Solution.to_dict`.

        Returns
        -------
        dict
        """
        return {
            "names": None if self.names is None else list(self.names),
            "max_models": self.max_models.tolist(),
            "risks": self.risks.tolist(),
            "lower_bounds": self.lower_bounds.tolist(),
            "solutions": [solution.to_dict() for solution in self],
        }

    def plot(self) -> "Figure":
        """Draw the risks over the numbers of models, with the lower bounds where a gap is open.

        Returns
        -------
        matplotlib.figure.Figure
            To be written with ``mixsolve.plots.save``.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        """
        from mixsolve.plots.cardinality import risk_of_few

        bounds = np.array([solution.risk_lower_bound for solution in self])
        proven = np.array([solution.success for solution in self])
        return risk_of_few(self.max_models, self.risks, bounds, proven)


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
    names: Any = None,
) -> CardinalityPath:
    """The best mixtures of at most 1, 2, ... classifiers; bounds found for one serve the next.

    Parameters
    ----------
    losses : array_like of shape (N, m, L), or list of N arrays of shape (m_i, L)
        See `solve`.
    max_models : int, optional
        The largest number of classifiers; all of them by default.
    alpha, method, sample_weight, candidate_mask, candidate_prior, constraints
        See `solve`; constraints must be linear.
    max_iter : int, optional
        Nodes of each of the searches.
    time_limit : float, optional
        Seconds for each of the searches.
    A_ub, b_ub, A_eq, b_eq, tol, warm_start, verbose, presolve, names
        See `solve`.

    Returns
    -------
    CardinalityPath
        One Solution for each number; `solve` describes them under `max_models`.

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
    with OpenGame(losses, sample_weight, candidate_mask, candidate_prior, limits, names) as game:
        size = game.losses.n_classifiers
        counts = range(1, min(size if most is None else most, size) + 1)
        found = solve_few(game, alpha, method, warm_start, options, counts, stacklevel=4)
    return CardinalityPath(tuple(found))
