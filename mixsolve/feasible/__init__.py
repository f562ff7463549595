"""The weights a mixture may have: the simplex, or what constraints leave of it.

A set offers projections, linear and quadratic minima, and the constraints of a small game; methods
work on every set alike.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mixsolve.arrays.labels import GameLabels
from mixsolve.base.errors import MixsolveError
from mixsolve.feasible.simplex import FeasibleSet, Infeasibility, Prices, Simplex

if TYPE_CHECKING:
    from mixsolve.feasible.constraints import LinearConstraints

    Limits = Sequence[LinearConstraints] | Callable[[Any], Sequence[Any]] | None

__all__ = [
    "FeasibleSet",
    "Infeasibility",
    "Prices",
    "Simplex",
    "check_constraints",
    "feasible_set",
]


def check_constraints(
    given: tuple[Any, ...], n_classifiers: int, labels: GameLabels | None = None
) -> "Limits":
    """The constraint arguments of `mixsolve.solve`, as linear constraints or one function.

    Parameters
    ----------
    given : tuple
        ``constraints``, then ``A_ub``, ``b_ub``, ``A_eq`` and ``b_eq``; not all of them None.
    n_classifiers : int
        L.
    labels : GameLabels, optional
        The names that the losses give the classifiers.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        If an argument cannot be read or is of another number of weights, or arrays and a function
        come together.
    """
    constraints, *arrays = given
    from_arrays = any(array is not None for array in arrays)
    if callable(constraints):
        if from_arrays:
            raise MixsolveError(
                "constraints is a function, so A_ub, b_ub, A_eq and b_eq must be None; add them to "
                "its list as A_ub @ weights <= b_ub"
            )
        return constraints
    from mixsolve.feasible.constraints import LinearConstraints, as_linear

    linear = [] if constraints is None else as_linear(constraints, n_classifiers)
    if from_arrays:
        linear.append(LinearConstraints(*arrays))
    for part in linear:
        if part.n_classifiers != n_classifiers:
            raise MixsolveError(
                f"constraints must have one column per classifier, {n_classifiers} in all; got "
                f"{part.n_classifiers}"
            )
    return linear if labels is None else [part.ordered(labels) for part in linear]


def feasible_set(
    limits: "Limits",
    n_classifiers: int,
    modelled: bool,
) -> FeasibleSet:
    """The weights that meet `limits`, constraints that `check_constraints` returned.

    Linear ones are `modelled` in cvxpy too if that is set. Refuses constraints that are not convex.
    """
    if limits is None:
        return Simplex()
    if callable(limits):
        from mixsolve.feasible.convex import ConvexSet

        return ConvexSet(limits, n_classifiers)
    if not limits:
        return Simplex()
    together = limits[0]
    for part in limits[1:]:
        together = together & part
    from mixsolve.feasible.polytope import Polytope

    polytope = Polytope(together)
    if modelled:
        from mixsolve.feasible.convex import ConvexSet, of_arrays

        return ConvexSet(of_arrays(together), n_classifiers, polytope)
    return polytope
