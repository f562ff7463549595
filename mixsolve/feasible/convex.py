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
from mixsolve.feasible import projection as simplex
from mixsolve.feasible.base import FeasibleSet, Infeasibility, Prices, SmallSolver
from mixsolve.feasible.constraints import LinearConstraints
from mixsolve.feasible.polytope import Polytope
from mixsolve.small_game.game import SmallSolution, certify, normalise

Constraints = Callable[[Any], Sequence[Any]]

_TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
_TINY = float(np.finfo(np.float64).tiny)
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
        The same set, where it is one: of cvxpy's answers its prices cannot be told.

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

    def _find_used(self) -> np.ndarray | None:
        """Classifiers that may have a weight: few are in doubt once all have what they can get."""
        cp = self._cp
        some = cp.sum(cp.minimum(self._weights, _SOME / self._size))
        if self._solve(cp.Problem(cp.Maximize(some), self._rules)) is None:
            return None
        may = self._weights.value > 10.0 * _NONE
        for k in np.flatnonzero(~may):
            most = self._solve(cp.Problem(cp.Maximize(self._weights[int(k)]), self._rules))
            may[k] = most is None or most > _NONE
        return None if may.all() or not may.any() else np.flatnonzero(may)

    def _found(self) -> np.ndarray:
        """The solver's weights; those that must be 0 are."""
        weights = np.zeros(self._size)
        weights[self._kept] = self._weights.value[self._kept]
        return simplex.normalize(weights)

    def _empty(self, model: Any) -> bool:
        self._weights.value = None
        self._solve(model)
        return model.status in (self._cp.INFEASIBLE, self._cp.INFEASIBLE_INACCURATE)

    def _solve(self, model: Any, time_limit: float | None = None) -> float | None:
        """The optimum, or None where the solver found none."""
        limits = {} if time_limit is None else {"time_limit": time_limit}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cvxpy's word on accuracy; the certificate says it
            try:
                found = model.solve(solver=self._cp.CLARABEL, **_TIGHT, **limits)
            except self._cp.error.SolverError:
                return None
        return None if found is None or not np.isfinite(found) else float(found)

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
        """See `FeasibleSet.prices`."""
        return None if self._polytope is None else self._polytope.prices(gradient)

    def project(self, point: np.ndarray) -> np.ndarray:
        """See `FeasibleSet.project`."""
        onto_simplex = simplex.project(point)
        if self._meets(onto_simplex):
            return onto_simplex
        start = point - point[self._kept].mean()
        return self.minimize_quadratic(np.zeros(point.size), np.eye(point.size), start, 0.0)

    def _meets(self, weights: np.ndarray) -> bool:
        self._weights.value = weights
        return all(float(np.max(rule.violation())) <= 0.0 for rule in self._given)

    def lowest(self, gradient: np.ndarray) -> float:
        """See `FeasibleSet.lowest`; below the minimum by what the solver leaves open."""
        played = gradient[self._kept]
        shift, scale = float(played.min()), float(np.ptp(played)) or 1.0
        slope, model = self._linear
        slope.value = np.zeros(self._size)
        slope.value[self._kept] = (played - shift) / scale
        return shift + scale * max(self._bound(model), 0.0)

    def _bound(self, model: Any) -> float:
        """Solve a linear model; what its multipliers prove. Minus infinity where it has none."""
        data, chain, _ = model.get_problem_data(self._cp.CLARABEL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = chain.solve_via_data(model, data, solver_opts=dict(_TIGHT))
        point, dual = np.asarray(raw.x), np.asarray(raw.z)
        if not (np.isfinite(point).all() and np.isfinite(dual).all()):
            return -np.inf
        residual = data["c"] + data["A"].T @ dual
        largest = np.maximum(2.0 * np.abs(point), 1.0)
        return -float(data["b"] @ dual) - float(np.abs(residual) @ largest)

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        """See `FeasibleSet.minimize_quadratic`."""
        root, slope, model = self._quadratic
        kept = np.ix_(self._kept, self._kept)
        raised = ridge * np.eye(self._size)
        raised[kept] += hessian[kept]
        linear = np.zeros(self._size)
        pulled = gradient[self._kept] - raised[kept] @ start[self._kept]
        linear[self._kept] = pulled - pulled.min()
        scale = max(float(np.abs(raised).max()), float(linear.max()), _TINY)
        self._weights.value = None
        values, vectors = np.linalg.eigh(raised / scale)
        root.value = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        slope.value = linear / scale
        if self._solve(model) is None or self._weights.value is None:
            raise MixsolveError(
                f"constraints: cvxpy's solver failed on a quadratic in the weights ({model.status})"
                "; scale them to numbers of about 1"
            )
        return self._found()

    def solve_small(
        self,
        solver: SmallSolver,
        rows: np.ndarray,
        offsets: np.ndarray,
        weight: np.ndarray,
        time_limit: float | None = None,
    ) -> SmallSolution:
        """See `FeasibleSet.solve_small`: one linear program of the rows, by cvxpy."""
        cp = self._cp
        if self.used is not None:
            whole, rows = rows, np.zeros_like(rows)
            rows[:, self.used] = whole[:, self.used]
        game = normalise(rows, offsets, weight)
        samples = np.repeat(np.arange(weight.size), np.diff(offsets))
        relative = (rows - rows[offsets[:-1]][samples]) * game.inverse
        worst = cp.Variable(weight.size)
        above = relative @ self._weights <= worst[samples]
        objective = weight @ worst + game.linear @ self._weights
        found = self._solve(cp.Problem(cp.Minimize(objective), [*self._rules, above]), time_limit)
        # Ended by the limit, the solver may be at its starting point, where all weights are 0.
        if found is None or above.dual_value is None or not self._weights.value.max() > 0.0:
            free = solver(rows, offsets, weight)  # its attack gives a bound all the same
            return replace(free, weights=self.project(free.weights))
        weights = self._found()
        dual = np.maximum(above.dual_value, 0.0)
        idle = np.add.reduceat(dual, offsets[:-1]) <= 0.0
        dual[offsets[:-1][idle]] = weight[idle]
        value, lower_bound, gap = certify(game, weights, dual)
        return SmallSolution(
            weights, dual, value, lower_bound, gap, game.spread, 0, True, "Clarabel", ()
        )


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
