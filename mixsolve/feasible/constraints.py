"""Linear constraints on the weights of a mixture, in SciPy's convention.

    A_ub lam <= b_ub,    A_eq lam = b_eq,

besides lam >= 0 and sum lam = 1, which always hold. Small functions make the usual ones, and ``&``
puts several together.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.arrays.checks import check_sample_weight, numbers
from mixsolve.arrays.compared import Compared
from mixsolve.arrays.labels import GameLabels, matched, moves, read_losses
from mixsolve.arrays.named_arrays import Names, labelled
from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MixsolveError, MixsolveTypeError

__all__ = [
    "LinearConstraints",
    "expected_cost",
    "group_weight",
    "standard_risk",
    "weight_bounds",
]


@dataclass(frozen=True, eq=False, init=False)
class LinearConstraints(Compared):
    """Constraints ``A_ub @ weights <= b_ub`` and ``A_eq @ weights == b_eq``.

    Parameters
    ----------
    A_ub, A_eq : array_like of shape (p, L), (q, L), optional
        Coefficients, one row a constraint; a single row may be given as (L,). Columns with names
        are brought into the order in which the losses name their classifiers.
    b_ub, b_eq : array_like of shape (p,), (q,), or float, optional
        Right-hand sides; an infinite one drops an inequality that cannot bind.
    labels_ub, labels_eq : sequence of str, optional
        How messages call the constraints; "A_ub[0]" and so on by default.

    Raises
    ------
    MixsolveError
        If a matrix comes without its right-hand side, shapes do not match, or a number is not
        finite.

    Examples
    --------
    The first classifier gets at least a quarter, the last two share at most a half.

    >>> import numpy as np
    >>> import mixsolve
    >>> limits = mixsolve.LinearConstraints(A_ub=[[-1, 0, 0], [0, 1, 1]], b_ub=[-0.25, 0.5])
    >>> losses = np.random.default_rng(0).random((50, 4, 3))
    >>> solution = mixsolve.solve(losses, constraints=limits)
    >>> bool(solution.weights[0] >= 0.5 - 1e-9)
    True
    """

    A_ub: np.ndarray
    b_ub: np.ndarray
    A_eq: np.ndarray
    b_eq: np.ndarray
    labels_ub: tuple[str, ...]
    labels_eq: tuple[str, ...]
    classifiers: Names
    _moved: bool  # whether parts of it named the classifiers in other orders

    def __init__(
        self,
        A_ub: Any = None,
        b_ub: Any = None,
        A_eq: Any = None,
        b_eq: Any = None,
        *,
        labels_ub: Sequence[str] | None = None,
        labels_eq: Sequence[str] | None = None,
    ) -> None:
        upper, limits, columns = _rows(A_ub, b_ub, "ub")
        equal, levels, others = _rows(A_eq, b_eq, "eq")
        widths = {rows.shape[1] for rows in (upper, equal) if rows is not None}
        if not widths:
            raise MixsolveError(
                "constraints need A_ub with b_ub, or A_eq with b_eq; got neither, leave them out "
                "for no constraints"
            )
        if len(widths) > 1:
            raise MixsolveError(
                f"A_ub and A_eq must have one column per classifier, both the same number; got "
                f"{upper.shape[1]} and {equal.shape[1]}"
            )
        order = None
        if upper is not None and equal is not None:
            order = moves(columns, others, "A_eq names classifiers")
            equal = equal if order is None else equal[:, order]
        (size,) = widths
        none = np.empty((0, size)), np.empty(0)
        names_ub = _labels(labels_ub, "ub", limits.size)
        names_eq = _labels(labels_eq, "eq", levels.size)
        upper, limits = (upper, limits) if upper is not None else none
        equal, levels = (equal, levels) if equal is not None else none
        binding = limits < np.inf
        set_field = object.__setattr__
        set_field(self, "A_ub", upper[binding])
        set_field(self, "b_ub", limits[binding])
        set_field(self, "A_eq", equal.copy())
        set_field(self, "b_eq", levels.copy())
        kept = [name for name, keep in zip(names_ub, binding, strict=True) if keep]
        set_field(self, "labels_ub", tuple(kept))
        set_field(self, "labels_eq", names_eq)
        set_field(self, "classifiers", columns or others)
        set_field(self, "_moved", order is not None)

    @property
    def n_classifiers(self) -> int:
        """L."""
        return self.A_ub.shape[1]

    def __and__(self, other: "LinearConstraints") -> "LinearConstraints":
        """Both together."""
        if not isinstance(other, LinearConstraints):
            return NotImplemented
        if other.n_classifiers != self.n_classifiers:
            raise MixsolveError(
                f"constraints on {self.n_classifiers} and on {other.n_classifiers} weights cannot "
                "be put together; each needs one column per classifier"
            )
        order = moves(self.classifiers, other.classifiers, "the constraints name classifiers")
        moved = self._moved or other._moved or order is not None
        other = other if order is None else other._taking(order)
        together = LinearConstraints(
            np.vstack([self.A_ub, other.A_ub]),
            np.concatenate([self.b_ub, other.b_ub]),
            np.vstack([self.A_eq, other.A_eq]),
            np.concatenate([self.b_eq, other.b_eq]),
            labels_ub=self.labels_ub + other.labels_ub,
            labels_eq=self.labels_eq + other.labels_eq,
        )
        return together._naming(self.classifiers or other.classifiers, moved)

    def ordered(self, labels: GameLabels) -> "LinearConstraints":
        """The same with its columns in the order in which a game names its classifiers.

        Parameters
        ----------
        labels : GameLabels
            Of the game's losses.
        """
        if self._moved and "classifiers" not in labels.names:
            raise MixsolveError(
                "constraints name the classifiers in more than one order, and losses does not name "
                "them, so that the order of theirs is unknown; bring all into one"
            )
        order = labels.order_of("classifiers", self.classifiers, "constraints")
        return self if order is None else self._taking(order)

    def _taking(self, order: np.ndarray) -> "LinearConstraints":
        assert self.classifiers is not None
        taken = LinearConstraints(
            self.A_ub[:, order],
            self.b_ub,
            self.A_eq[:, order],
            self.b_eq,
            labels_ub=self.labels_ub,
            labels_eq=self.labels_eq,
        )
        return taken._naming(tuple(self.classifiers[place] for place in order))

    def _naming(self, classifiers: Names, moved: bool = False) -> "LinearConstraints":
        object.__setattr__(self, "classifiers", classifiers)
        object.__setattr__(self, "_moved", moved)
        return self

    def violation(self, weights: Any) -> float:
        """By how much the weights violate a constraint at most, in its own unit; 0 if they do not.

        Parameters
        ----------
        weights : array_like of shape (L,)
            Any weights.
        """
        lam = numbers(weights, "weights")
        if lam.shape != (self.n_classifiers,):
            raise MixsolveError(
                f"weights must hold one number per classifier, {self.n_classifiers} in all; got "
                f"shape {lam.shape}"
            )
        above = (self.A_ub @ lam - self.b_ub).max(initial=0.0)
        return float(max(above, np.abs(self.A_eq @ lam - self.b_eq).max(initial=0.0)))


def weight_bounds(n_classifiers: int, lower: Any = 0.0, upper: Any = 1.0) -> LinearConstraints:
    """Bounds on single weights: ``lower <= weights <= upper``.

    Parameters
    ----------
    n_classifiers : int
        L.
    lower, upper : float or array_like of shape (L,)
        Bounds, the same for all classifiers or one for each; infinite ones bound nothing.

    Raises
    ------
    MixsolveError
        If bounds have another shape, or are NaN.
    """
    n_classifiers = as_count("n_classifiers", n_classifiers)
    low, columns = _bounds(lower, "lower", n_classifiers)
    high, others = _bounds(upper, "upper", n_classifiers)
    order = moves(columns, others, "upper names classifiers")
    high = high if order is None else high[order]
    rows = np.eye(n_classifiers)
    below, above = np.flatnonzero(low > 0.0), np.flatnonzero(high < 1.0)
    return LinearConstraints(
        np.vstack([-rows[below], rows[above]]),
        np.concatenate([-low[below], high[above]]),
        labels_ub=[f"weights[{k}] >= {low[k]:g}" for k in below]
        + [f"weights[{k}] <= {high[k]:g}" for k in above],
    )._naming(columns or others, order is not None)


def expected_cost(cost: Any, budget: float) -> LinearConstraints:
    """A budget for the expected cost of one prediction: ``cost @ weights <= budget``.

    Parameters
    ----------
    cost : array_like of shape (L,)
        What one prediction of each classifier costs (seconds, joules, FLOPs).
    budget : float
        In the same unit.

    Raises
    ------
    MixsolveError
        If `cost` is not one number per classifier, or a number is not finite.
    """
    costs, columns = _named_numbers(cost, "cost", booleans=False)
    most = as_real("budget", budget)
    if costs.ndim != 1:
        raise MixsolveError(f"cost must hold one number per classifier; got shape {costs.shape}")
    _check_finite(costs, "cost", np.isfinite(costs))
    limit = LinearConstraints(costs, most, labels_ub=[f"expected cost <= {most:g}"])
    return limit._naming(columns)


def standard_risk(clean_losses: Any, limit: float, sample_weight: Any = None) -> LinearConstraints:
    """A floor on standard accuracy: the expected loss without an attack is at most `limit`.

    Parameters
    ----------
    clean_losses : array_like of shape (N, L)
        Loss of each classifier on each sample as it is.
    limit : float
        Most that the mean loss of the mixture may be: with 0/1 losses, 1 less the accuracy wanted.
    sample_weight : array_like of shape (N,), optional
        Weights of the samples; uniform by default.

    Raises
    ------
    MixsolveError
        If shapes do not match, or a number is not finite.
    """
    most = as_real("limit", limit)
    sample_weight = matched(clean_losses, sample_weight, "clean_losses", "sample_weight")
    losses, columns = _named_numbers(clean_losses, "clean_losses", ("samples", "classifiers"))
    if losses.ndim != 2 or not losses.shape[0]:
        raise MixsolveError(
            f"clean_losses must have the shape (samples, classifiers), got {losses.shape}"
        )
    _check_finite(losses, "clean_losses", np.isfinite(losses))
    if sample_weight is None:
        sample_weight = np.ones(losses.shape[0])
    weight = check_sample_weight(sample_weight, losses.shape[0])
    return LinearConstraints(
        weight @ losses,
        most,
        labels_ub=[f"standard risk <= {most:g}"],
    )._naming(columns)


def group_weight(
    n_classifiers: int, members: Iterable[int], lower: float = 0.0, upper: float = 1.0
) -> LinearConstraints:
    """Bounds on the weight of a group together: ``lower <= weights[members].sum() <= upper``.

    Parameters
    ----------
    n_classifiers : int
        L.
    members : iterable of int
        Classifiers of the group.
    lower, upper : float
        Bounds on the sum of their weights.

    Raises
    ------
    MixsolveError
        If a member is no classifier, or a bound not finite.
    """
    n_classifiers = as_count("n_classifiers", n_classifiers)
    chosen = [as_count("members", member, minimum=0) for member in members]
    if max(chosen, default=0) >= n_classifiers:
        raise MixsolveError(f"members must be classifiers 0 to {n_classifiers - 1}, got {chosen}")
    low, high = as_real("lower", lower), as_real("upper", upper)
    row = np.zeros(n_classifiers)
    row[chosen] = 1.0
    name = f"weight of {chosen}"
    return LinearConstraints(
        [-row, row],
        [-low if low > 0.0 else np.inf, high if high < 1.0 else np.inf],
        labels_ub=[f"{name} >= {low:g}", f"{name} <= {high:g}"],
    )


def as_linear(
    constraints: Any, n_classifiers: int, name: str = "constraints"
) -> list[LinearConstraints]:
    """Read the `constraints` argument of `mixsolve.solve` where it is no function.

    Parameters
    ----------
    constraints : LinearConstraints, SciPy's LinearConstraint or Bounds, dict, or list of these
        What was given.
    n_classifiers : int
        L.
    name : str
        How messages call it.

    Raises
    ------
    MixsolveTypeError
        If it is none of what `mixsolve.solve` lists.
    """
    if isinstance(constraints, LinearConstraints):
        return [constraints]
    if isinstance(constraints, (list, tuple)):
        return [
            _named(linear, f"{name}[{place}]")
            for place, part in enumerate(constraints)
            for linear in as_linear(part, n_classifiers, f"{name}[{place}]")
        ]
    if isinstance(constraints, dict) and constraints.keys() <= {"A_ub", "b_ub", "A_eq", "b_eq"}:
        return [LinearConstraints(**constraints)]
    # Objects of SciPy's classes can only come from a caller who has imported them. Others have
    # fields of these names too, NonlinearConstraint for one, and mean something else by them.
    scipy = sys.modules.get("scipy.optimize")
    if scipy is not None and isinstance(constraints, scipy.LinearConstraint):
        return [_of_scipy(constraints, name)]
    if scipy is not None and isinstance(constraints, scipy.Bounds):
        return [weight_bounds(n_classifiers, *_sides(constraints, n_classifiers, name))]
    raise MixsolveTypeError(
        f"{name} must be a LinearConstraints, SciPy's LinearConstraint or Bounds, a list of these, "
        "or a function from the weights to cvxpy constraints; got "
        f"{type(constraints).__name__}{_mend(constraints)}"
    )


def _mend(constraints: Any) -> str:
    """How to write what is not taken, for the message."""
    kinds = {kind.__name__ for kind in type(constraints).__mro__}
    if callable(constraints):
        return "; give one function that returns all constraints, in place of a list of functions"
    if "NonlinearConstraint" in kinds or (isinstance(constraints, dict) and "fun" in constraints):
        return (
            "; write its function, which must be convex, in cvxpy: "
            "constraints=lambda weights: [cvxpy.sum_squares(weights) <= 0.5]"
        )
    if type(constraints).__module__.partition(".")[0] == "cvxpy":
        return "; give a function of the weights that returns it: constraints=lambda weights: [...]"
    return ""


def _sides(given: Any, count: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The fields ``lb`` and ``ub`` of one of SciPy's objects, a number for each of its rows."""
    low = _numbers(given.lb, f"{name}.lb", booleans=False)
    high = _numbers(given.ub, f"{name}.ub", booleans=False)
    for side, field, never in ((low, "lb", np.inf), (high, "ub", -np.inf)):
        if side.shape not in ((), (1,), (count,)):
            raise MixsolveError(
                f"{name}.{field} must be one number or {count}; got shape {side.shape}"
            )
        _check_finite(side, f"{name}.{field}", ~np.isnan(side) & (side != never))
    return np.broadcast_to(low, count), np.broadcast_to(high, count)


def _of_scipy(given: Any, name: str) -> LinearConstraints:
    """SciPy's ``lb <= A @ weights <= ub``; equations where both limits are one number."""
    rows = np.atleast_2d(_numbers(given.A, f"{name}.A"))
    if rows.ndim != 2:
        raise MixsolveError(
            f"{name}.A must have the shape (constraints, classifiers); got {rows.shape}"
        )
    _check_finite(rows, f"{name}.A", np.isfinite(rows))
    low, high = _sides(given, rows.shape[0], name)
    tight = low == high
    label = [f"{name}.A[{row}]" for row in range(rows.shape[0])]
    loose = np.flatnonzero(~tight)
    return LinearConstraints(
        np.vstack([rows[~tight], -rows[~tight]]),
        np.concatenate([high[~tight], -low[~tight]]),
        rows[tight],
        high[tight],
        labels_ub=[f"{label[row]} <= {high[row]:g}" for row in loose]
        + [f"{label[row]} >= {low[row]:g}" for row in loose],
        labels_eq=[f"{label[row]} == {high[row]:g}" for row in np.flatnonzero(tight)],
    )


def _named(linear: LinearConstraints, name: str) -> LinearConstraints:
    """The same constraints; rows without labels are named after this part of a list."""
    plain = _labels(None, "ub", linear.b_ub.size), _labels(None, "eq", linear.b_eq.size)
    labels = (
        tuple(f"{name}.{label}" for label in given) if given == default else given
        for given, default in zip((linear.labels_ub, linear.labels_eq), plain, strict=True)
    )
    upper, equal = labels
    return LinearConstraints(
        linear.A_ub, linear.b_ub, linear.A_eq, linear.b_eq, labels_ub=upper, labels_eq=equal
    )._naming(linear.classifiers, linear._moved)


def _numbers(values: Any, name: str, booleans: bool = True) -> np.ndarray:
    dense = values.toarray() if hasattr(values, "toarray") else values  # SciPy's sparse matrices
    return numbers(dense, name, booleans=booleans)


def _named_numbers(
    values: Any, name: str, axes: tuple[str, ...] = ("rows", "classifiers"), booleans: bool = True
) -> tuple[np.ndarray, Names]:
    """Numbers of one or two axes, of which the last is that of the classifiers, and its names."""
    if isinstance(values, (list, tuple)):
        values, labels = read_losses(values, axes, name)
        return _numbers(values, name, booleans), labels.names.get("classifiers")
    found = labelled(values, name)
    if found is None or not found.entries:
        return _numbers(values, name, booleans), None
    found = found.ordered(axes[-len(found.entries) :], name)
    return _numbers(found.values, name, booleans), found.entries[-1]


def _bounds(values: Any, name: str, n_classifiers: int) -> tuple[np.ndarray, Names]:
    bounds, columns = _named_numbers(values, name, booleans=False)
    if bounds.shape not in ((), (1,), (n_classifiers,)) or np.isnan(bounds).any():
        raise MixsolveError(
            f"{name} must be one number or one per classifier, shape ({n_classifiers},), none of "
            f"them NaN; got {bounds}"
        )
    return np.broadcast_to(bounds, n_classifiers), columns


def _rows(matrix: Any, limits: Any, kind: str) -> tuple[Any, np.ndarray, Names]:
    """Coefficients (n, L), right-hand sides (n,), and names of the columns; None if not given."""
    names = f"A_{kind}", f"b_{kind}"
    if matrix is None and limits is None:
        return None, np.empty(0), None
    if matrix is None or limits is None:
        missing, given = names if matrix is None else names[::-1]
        raise MixsolveError(f"{given} came without {missing}; give both, or neither")
    if np.ndim(limits) and getattr(matrix, "ndim", 2) == 2:
        limits = matched(matrix, limits, *names)
    rows, columns = _named_numbers(matrix, names[0])
    rows = np.atleast_2d(rows)
    right = np.atleast_1d(_numbers(limits, names[1], booleans=False))
    if rows.ndim != 2 or right.shape != rows.shape[:1] or not rows.shape[1]:
        raise MixsolveError(
            f"{names[0]} must have the shape (constraints, classifiers) and {names[1]} one number "
            f"per constraint; got shapes {rows.shape} and {right.shape}"
        )
    _check_finite(rows, names[0], np.isfinite(rows))
    valid = np.isfinite(right) if kind == "eq" else ~np.isnan(right) & (right > -np.inf)
    _check_finite(right, names[1], valid)
    return rows, right, columns


def _check_finite(values: np.ndarray, name: str, valid: np.ndarray) -> None:
    if not valid.all():
        place = tuple(map(int, np.argwhere(~valid)[0]))
        where = "" if not values.ndim else f" first at {name}[{', '.join(map(str, place))}]"
        raise MixsolveError(
            f"{name} must hold finite numbers, got {values[place]}{where}; mend it, or leave the "
            "constraint out"
        )


def _labels(labels: Sequence[str] | None, kind: str, count: int) -> tuple[str, ...]:
    if labels is None:
        return tuple(f"A_{kind}[{row}]" for row in range(count))
    if isinstance(labels, str) or len(labels) != count:
        raise MixsolveTypeError(
            f"labels_{kind} must be one string per constraint, {count} in all; got {labels!r}"
        )
    return tuple(labels)
