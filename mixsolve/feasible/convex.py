"""The simplex cut by whatever cvxpy accepts.

Only models in the L weights, and of the rows of small games, are made: never one of the tensor. A
solver's optimum is no bound, but its multipliers give one. For the cone program that cvxpy makes,

    min <c, x>  s.t.  b - A x in K,    z in the dual cone,  r = c + A' z:
    <c, x>  >=  -<b, z> + <r, x>  >=  -<b, z> - sum_k |r_k| |x_k|,

and |x_k| <= 1 for the weights. Auxiliary variables of cvxpy's are taken to be at the optimum at
most twice as large as where the solver ended, or 1; r is rounding.

Reference: Diamond and Boyd, CVXPY: a Python-embedded modeling language for convex optimization,
2016; Goulart and Chen, Clarabel, 2024.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixsolve.base.compilation import load
from mixsolve.base.errors import MixsolveError
from mixsolve.base.threads import computed_once
from mixsolve.feasible import simplex
from mixsolve.feasible.constraints import LinearConstraints
from mixsolve.feasible.polytope import Polytope
from mixsolve.feasible.simplex import FeasibleSet, Infeasibility, Prices
from mixsolve.kernels.constants import TINY
from mixsolve.small_game import clarabel
from mixsolve.small_game.clarabel import solve_model
from mixsolve.small_game.game import ConvexCuts, SmallSolution

Constraints = Callable[[Any], Sequence[Any]]

_SOME = 1e-3  # times 1/L: more of a weight than shows that there may be some
_NONE = 1e-9  # of a weight that the constraints keep at 0


class ConvexSet(FeasibleSet):
    """Weights on the simplex that meet cvxpy constraints.

    Parameters
    ----------
    constraints : callable
        Maps a cvxpy variable of shape (L,) to a sequence of cvxpy constraints.
    n_classifiers : int
        L.
    polytope : Polytope, optional
        The same set, where it is one: it has the prices, which cvxpy's solver does not give.

    Raises
    ------
    MixsolveError
        If it returns no list of constraints, or one that is not convex or holds integers, or if
        cvxpy's solver cannot tell whether they can be met.
    """

    def __init__(
        self, constraints: Constraints, n_classifiers: int, polytope: Polytope | None = None
    ) -> None:
        cp = load("cvxpy")
        self._polytope = polytope
        if polytope is not None:
            self.linear, self.infeasibility = polytope.linear, polytope.infeasibility
            if self.infeasibility is not None:
                return
        self._cp = cp
        self._size = n_classifiers
        self._weights: Any = cp.Variable(n_classifiers, nonneg=True)
        self._given = _call(constraints, self._weights)
        self._rules = [cp.sum(self._weights) == 1, *self._given]
        model = cp.Problem(cp.Minimize(0), self._rules)
        if not model.is_dcp():
            wrong = next((c for c in self._given if not c.is_dcp()), None)
            raise MixsolveError(
                f"constraints must be convex by cvxpy's rules (DCP), got {wrong}; rewrite it"
            )
        if model.is_mixed_integer():
            raise MixsolveError(
                "constraints must be convex, got integer or boolean variables; leave them out"
            )
        if self._empty(model):
            nothing = np.empty(0)
            self.infeasibility = Infeasibility(self._clash(), nothing, nothing, float("nan"))
        elif self._weights.value is None:
            raise MixsolveError(
                f"constraints: cvxpy's solver could not tell whether they can be met "
                f"({model.status}); scale them to numbers of about 1"
            )
        else:
            self.used = self._find_used() if polytope is None else polytope.used
        self._kept = np.arange(n_classifiers) if self.used is None else self.used
        self.cuts = self._cuts = ConvexCuts(self._weights, self._rules, self._kept)

    @property
    def model(self) -> tuple[Any, list[Any]]:
        """The weights as a cvxpy variable, and all constraints on them."""
        return self._weights, self._rules

    def _find_used(self) -> np.ndarray | None:
        """Classifiers that may have a weight.

        One model gives as many of them as possible a positive weight; each of the others is then
        maximised alone.
        """
        cp = self._cp
        some = cp.sum(cp.minimum(self._weights, _SOME / self._size))
        if solve_model(cp.Problem(cp.Maximize(some), self._rules)) is None:
            return None
        may = self._weights.value > 10.0 * _NONE
        for k in np.flatnonzero(~may):
            most = solve_model(cp.Problem(cp.Maximize(self._weights[int(k)]), self._rules))
            may[k] = most is None or most > _NONE
        return None if may.all() or not may.any() else np.flatnonzero(may)

    def _empty(self, model: Any) -> bool:
        self._weights.value = None
        solve_model(model)
        return model.status in (self._cp.INFEASIBLE, self._cp.INFEASIBLE_INACCURATE)

    def _clash(self) -> tuple[str, ...]:
        """Constraints of which none can be left out (the deletion filter)."""
        cp = self._cp
        kept = list(range(len(self._given)))
        for place in list(kept):
            others = [self._given[k] for k in kept if k != place]
            if self._empty(cp.Problem(cp.Minimize(0), [self._rules[0], *others])):
                kept.remove(place)
        return tuple(f"constraints[{place}]: {self._given[place]}" for place in kept)

    @computed_once
    def _linear(self) -> tuple[Any, Any]:
        slope = self._cp.Parameter(self._size)
        return slope, self._cp.Problem(self._cp.Minimize(slope @ self._weights), self._rules)

    @computed_once
    def _quadratic(self) -> tuple[Any, Any, Any]:
        slope = self._cp.Parameter(self._size)
        root = self._cp.Parameter((self._size, self._size))
        bend = 0.5 * self._cp.sum_squares(root @ self._weights)
        model = self._cp.Problem(self._cp.Minimize(bend + slope @ self._weights), self._rules)
        return root, slope, model

    def prices(self, gradient: np.ndarray) -> Prices | None:
        return None if self._polytope is None else self._polytope.prices(gradient)

    def project(self, point: np.ndarray) -> np.ndarray:
        onto_simplex = simplex.project(point)
        if self._meets(onto_simplex):
            return onto_simplex
        start = point - point[self._kept].mean()
        return self.minimize_quadratic(np.zeros(point.size), np.eye(point.size), start, 0.0)

    def _meets(self, weights: np.ndarray) -> bool:
        self._weights.value = weights
        return all(float(np.max(rule.violation())) <= 0.0 for rule in self._given)

    def lowest(self, gradient: np.ndarray) -> float:
        """See `FeasibleSet.lowest`; below the minimum by the gap that the solver leaves."""
        played = gradient[self._kept]
        shift, scale = float(played.min()), float(np.ptp(played)) or 1.0
        slope, model = self._linear
        slope.value = np.zeros(self._size)
        slope.value[self._kept] = (played - shift) / scale
        return shift + scale * max(self._bound(model), 0.0)

    def _bound(self, model: Any) -> float:
        """The bound that a linear model's multipliers prove; minus infinity where it has none."""
        data, chain, _ = model.get_problem_data(self._cp.CLARABEL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = chain.solve_via_data(model, data, solver_opts=dict(clarabel.TOLERANCES))
        point, dual = np.asarray(raw.x), np.asarray(raw.z)
        if not (np.isfinite(point).all() and np.isfinite(dual).all()):
            return -np.inf
        residual = data["c"] + data["A"].T @ dual
        largest = np.maximum(2.0 * np.abs(point), 1.0)
        return -float(data["b"] @ dual) - float(np.abs(residual) @ largest)

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        root, slope, model = self._quadratic
        kept = np.ix_(self._kept, self._kept)
        raised = ridge * np.eye(self._size)
        raised[kept] += hessian[kept]
        linear = np.zeros(self._size)
        pulled = gradient[self._kept] - raised[kept] @ start[self._kept]
        linear[self._kept] = pulled - pulled.min()
        scale = max(float(np.abs(raised).max()), float(linear.max()), TINY)
        self._weights.value = None
        values, vectors = np.linalg.eigh(raised / scale)
        root.value = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        slope.value = linear / scale
        if solve_model(model) is None or self._weights.value is None:
            raise MixsolveError(
                f"constraints: cvxpy's solver failed on a quadratic in the weights ({model.status})"
                "; scale them to numbers of about 1"
            )
        return self._cuts.found()

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """See `FeasibleSet.columns`: all columns, 0 where a classifier may have no weight."""
        if self.used is None:
            return rows
        kept = np.zeros_like(rows)
        kept[:, self.used] = rows[:, self.used]
        return kept

    def restored(self, found: SmallSolution) -> SmallSolution:
        return found if found.meets_cuts else replace(found, weights=self.project(found.weights))


def of_arrays(linear: LinearConstraints) -> Constraints:
    """The same constraints for cvxpy."""

    def constraints(weights: Any) -> list[Any]:
        made = []
        if linear.b_ub.size:
            made.append(linear.A_ub @ weights <= linear.b_ub)
        if linear.b_eq.size:
            made.append(linear.A_eq @ weights == linear.b_eq)
        return made

    return constraints


def _call(constraints: Constraints, weights: Any) -> list[Any]:
    from cvxpy.constraints.constraint import Constraint

    made = constraints(weights)
    rules = list(made) if isinstance(made, Iterable) else [made]
    wrong = [type(rule).__name__ for rule in rules if not isinstance(rule, Constraint)]
    if wrong or not isinstance(made, Iterable):
        raise MixsolveError(
            "constraints must return a list of cvxpy constraints, got "
            f"{', '.join(wrong) or type(made).__name__}; wrap a single constraint in a list"
        )
    used = {variable.id for rule in rules for variable in rule.variables()}
    if used and weights.id not in used:
        raise MixsolveError(
            "constraints returned constraints on other variables only, which leave the weights as "
            "they are; write them on the variable that the function is called with"
        )
    return rules
