"""Linear constraints on the weights of a mixture, in SciPy's convention.

    A_ub lam <= b_ub,    A_eq lam = b_eq,

besides lam >= 0 and sum lam = 1, which always hold. Small functions make the usual ones, and ``&``
puts several together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixsolve.arguments import as_count, as_real
from mixsolve.errors import MixsolveError, MixsolveTypeError
from mixsolve.interop import to_numpy

__all__ = [
    "LinearConstraints",
    "expected_cost",
    "group_weight",
    "standard_risk",
    "weight_bounds",
]


@dataclass(frozen=True, eq=False, init=False)
class LinearConstraints:
    """Constraints ``A_ub @ weights <= b_ub`` and ``A_eq @ weights == b_eq``.

    Parameters
    ----------
    A_ub, A_eq : array_like of shape (p, L), (q, L), optional
        Coefficients, one row a constraint; a single row may be given as (L,).
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
        upper, limits = _rows(A_ub, b_ub, "ub")
        equal, levels = _rows(A_eq, b_eq, "eq")
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
        return LinearConstraints(
            np.vstack([self.A_ub, other.A_ub]),
            np.concatenate([self.b_ub, other.b_ub]),
            np.vstack([self.A_eq, other.A_eq]),
            np.concatenate([self.b_eq, other.b_eq]),
            labels_ub=self.labels_ub + other.labels_ub,
            labels_eq=self.labels_eq + other.labels_eq,
        )

    def violation(self, weights: Any) -> float:
        """By how much the weights violate a constraint at most, in its own unit; 0 if they do not.

        Parameters
        ----------
        weights : array_like of shape (L,)
            Any weights.
        """
        lam = to_numpy(weights, "weights")
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
    low = _bounds(lower, "lower", n_classifiers)
    high = _bounds(upper, "upper", n_classifiers)
    rows = np.eye(n_classifiers)
    below, above = np.flatnonzero(low > 0.0), np.flatnonzero(high < 1.0)
    return LinearConstraints(
        np.vstack([-rows[below], rows[above]]),
        np.concatenate([-low[below], high[above]]),
        labels_ub=[f"weights[{k}] >= {low[k]:g}" for k in below]
        + [f"weights[{k}] <= {high[k]:g}" for k in above],
    )


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
    costs, most = _numbers(cost, "cost"), as_real("budget", budget)
    if costs.ndim != 1:
        raise MixsolveError(f"cost must hold one number per classifier; got shape {costs.shape}")
    return LinearConstraints(costs, most, labels_ub=[f"expected cost <= {most:g}"])


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
    losses = _numbers(clean_losses, "clean_losses")
    if losses.ndim != 2 or not losses.shape[0]:
        raise MixsolveError(
            f"clean_losses must have the shape (samples, classifiers), got {losses.shape}"
        )
    weight = None if sample_weight is None else _numbers(sample_weight, "sample_weight")
    if weight is not None and weight.shape != losses.shape[:1]:
        raise MixsolveError(
            f"sample_weight must hold one number per sample, shape ({losses.shape[0]},); got "
            f"shape {weight.shape}"
        )
    return LinearConstraints(
        np.average(losses, axis=0, weights=weight),
        most,
        labels_ub=[f"standard risk <= {most:g}"],
    )


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


def as_linear(constraints: Any, n_classifiers: int) -> list[LinearConstraints]:
    """Read the `constraints` argument of `mixsolve.solve` where it is no function.

    Parameters
    ----------
    constraints : LinearConstraints, SciPy's LinearConstraint or Bounds, dict, or list of these
        What was given.
    n_classifiers : int
        L.

    Raises
    ------
    MixsolveTypeError
        If it is none of what `mixsolve.solve` lists.
    """
    if isinstance(constraints, LinearConstraints):
        return [constraints]
    if isinstance(constraints, (list, tuple)):
        return [
            _named(linear, f"constraints[{place}]")
            for place, part in enumerate(constraints)
            for linear in as_linear(part, n_classifiers)
        ]
    names = ("A_ub", "b_ub", "A_eq", "b_eq")
    if isinstance(constraints, dict) and constraints.keys() <= set(names):
        return [LinearConstraints(**constraints)]
    lower, upper = getattr(constraints, "lb", None), getattr(constraints, "ub", None)
    if lower is None or upper is None:
        raise MixsolveTypeError(
            "constraints must be a LinearConstraints, SciPy's LinearConstraint or Bounds, a list "
            f"of these, or a function from the weights to cvxpy constraints; got "
            f"{type(constraints).__name__}"
        )
    matrix = getattr(constraints, "A", None)
    if matrix is None:  # scipy.optimize.Bounds
        return [weight_bounds(n_classifiers, lower, upper)]
    rows = np.atleast_2d(_numbers(matrix, "A"))
    low, high = (np.broadcast_to(side, rows.shape[0]) for side in (lower, upper))
    tight = low == high
    return [
        LinearConstraints(
            np.vstack([rows[~tight], -rows[~tight]]),
            np.concatenate([high[~tight], -low[~tight]]),
            rows[tight],
            high[tight],
        )
    ]


def _named(linear: LinearConstraints, name: str) -> LinearConstraints:
    """The same, so that rows without labels of their own are told from those of other parts."""
    plain = _labels(None, "ub", linear.b_ub.size), _labels(None, "eq", linear.b_eq.size)
    labels = (
        tuple(f"{name}.{label}" for label in given) if given == default else given
        for given, default in zip((linear.labels_ub, linear.labels_eq), plain, strict=True)
    )
    upper, equal = labels
    return LinearConstraints(
        linear.A_ub, linear.b_ub, linear.A_eq, linear.b_eq, labels_ub=upper, labels_eq=equal
    )


def _numbers(values: Any, name: str) -> np.ndarray:
    dense = values.toarray() if hasattr(values, "toarray") else values  # SciPy's sparse matrices
    return np.asarray(to_numpy(dense, name), dtype=np.float64)


def _bounds(values: Any, name: str, n_classifiers: int) -> np.ndarray:
    bounds = _numbers(values, name)
    if bounds.shape not in ((), (1,), (n_classifiers,)) or np.isnan(bounds).any():
        raise MixsolveError(
            f"{name} must be one number or one per classifier, shape ({n_classifiers},), none of "
            f"them NaN; got {bounds}"
        )
    return np.broadcast_to(bounds, n_classifiers)


def _rows(matrix: Any, limits: Any, kind: str) -> tuple[Any, np.ndarray]:
    """Coefficients (n, L) and right-hand sides (n,), checked; None and nothing if not given."""
    names = f"A_{kind}", f"b_{kind}"
    if matrix is None and limits is None:
        return None, np.empty(0)
    if matrix is None or limits is None:
        missing, given = names if matrix is None else names[::-1]
        raise MixsolveError(f"{given} came without {missing}; give both, or neither")
    rows, right = (
        np.atleast_2d(_numbers(matrix, names[0])),
        np.atleast_1d(_numbers(limits, names[1])),
    )
    if rows.ndim != 2 or right.shape != rows.shape[:1] or not rows.shape[1]:
        raise MixsolveError(
            f"{names[0]} must have the shape (constraints, classifiers) and {names[1]} one number "
            f"per constraint; got shapes {rows.shape} and {right.shape}"
        )
    valid = np.isfinite(right) if kind == "eq" else ~np.isnan(right) & (right > -np.inf)
    if not np.isfinite(rows).all() or not valid.all():
        raise MixsolveError(
            f"{names[0]} and {names[1]} must be finite numbers; mend the NaN or infinite ones, or "
            "leave the constraint out"
        )
    return rows, right


def _labels(labels: Sequence[str] | None, kind: str, count: int) -> tuple[str, ...]:
    if labels is None:
        return tuple(f"A_{kind}[{row}]" for row in range(count))
    if isinstance(labels, str) or len(labels) != count:
        raise MixsolveTypeError(
            f"labels_{kind} must be one string per constraint, {count} in all; got {labels!r}"
        )
    return tuple(labels)
