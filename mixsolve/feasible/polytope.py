"""The simplex cut by linear constraints: A_ub lam <= b_ub, A_eq lam = b_eq.

Since the weights sum to 1, <a, lam> <= b is <a - b 1, lam> <= 0: every constraint becomes a row c
with <c, lam> <= 0 or = 0, here scaled to entries of at most 1. A bound on a linear function follows
from any multipliers y >= 0, v:

    min over the polytope of <g, lam>  >=  min_k (g + C' y + F' v)_k,

so what an inner solver gets wrong costs tightness, never validity.

A small game over the polytope is one over the simplex with a sample for each constraint, whose
candidates are 0 and W c (W c and -W c for an equality): an exact penalty, once W exceeds the
constraint's multiplier. W rises until the constraint is met.

References: Nocedal and Wright, Numerical Optimization, 2006, sections 16.6 and 17.2; Chinneck,
Feasibility and Infeasibility in Optimization, 2008 (the deletion filter).
"""

from dataclasses import replace

import numpy as np

from mixsolve import simplex
from mixsolve.constraints import LinearConstraints
from mixsolve.errors import MixsolveError
from mixsolve.feasible.base import FeasibleSet, Infeasibility, Prices, SmallSolver
from mixsolve.small_game import SmallSolution, normalise

_FEASIBLE = 1e-8  # violation, in units of a row, that counts as none
_ROUNDING = 1e-14
_RANK = 1e-11  # singular values below this share of the largest count as zero
_FIRST_PENALTY = 3.0  # times the game's spread
_LARGEST_PENALTY = 1e12
_PENALTY_GROWTH = 30.0


class Polytope(FeasibleSet):
    """Weights on the simplex that meet linear constraints.

    Parameters
    ----------
    constraints : LinearConstraints
        Of L weights.
    """

    def __init__(self, constraints: LinearConstraints) -> None:
        self._given = constraints
        size = constraints.n_classifiers
        self._upper, self._upper_scale = _homogeneous(constraints.A_ub, constraints.b_ub)
        self._equal, self._equal_scale = _homogeneous(constraints.A_eq, constraints.b_eq)
        self._centre, depth = _deepest(self._upper, self._equal, size)
        if depth < -_FEASIBLE:
            self.infeasibility = self._explain()
            return
        # Ones are not in the row space of F, or F lam = 0 would have no solution of sum 1.
        self._independent = np.vstack([np.ones(size), _row_space(self._equal)])
        self._penalty = _FIRST_PENALTY

    def project(self, point: np.ndarray) -> np.ndarray:
        """See `FeasibleSet.project`."""
        onto_simplex = simplex.project(point)
        if self.violation(onto_simplex) <= 0.0:
            return onto_simplex
        far = float(np.ptp(point)) + 1.0
        flat = np.zeros(point.size)
        found, _, _ = self._minimize(flat, np.eye(point.size) / far, point - point.mean())
        return found

    def lowest(self, gradient: np.ndarray) -> float:
        """See `FeasibleSet.lowest`."""
        return self._linear(gradient)[0]

    def _linear(self, gradient: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """A lower bound, and the multipliers y (p,) and v (q,) that prove it."""
        shift, scale = float(gradient.min()), float(np.ptp(gradient)) or 1.0
        flat = np.zeros((gradient.size, gradient.size))
        slope = (gradient - shift) / scale
        _, upper, levels = self._minimize(slope, flat, self._centre)
        wanted = -self._independent[1:].T @ levels[1:]
        equal = np.linalg.lstsq(self._equal.T, wanted, rcond=None)[0]
        upper, equal = upper * scale, equal * scale
        bound = float((gradient + self._upper.T @ upper + self._equal.T @ equal).min())
        if bound >= shift:
            return bound, upper, equal
        return shift, np.zeros_like(upper), np.zeros_like(equal)  # that of the simplex

    def prices(self, gradient: np.ndarray) -> Prices:
        """See `FeasibleSet.prices`."""
        _, upper, equal = self._linear(gradient)
        return Prices(upper / self._upper_scale, equal / self._equal_scale)

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        """See `FeasibleSet.minimize_quadratic`."""
        raised = hessian + ridge * np.eye(gradient.size)
        scale = max(float(np.ptp(gradient)), float(np.abs(raised).max()))
        slope = (gradient - gradient.min()) / scale
        found, _, _ = self._minimize(slope, raised / scale, start)
        return found

    def _minimize(
        self, gradient: np.ndarray, hessian: np.ndarray, centre: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, multipliers of C and of the independent equalities, to rounding."""
        from mixsolve.kernels.polytope_qp import minimize_quadratic

        equal = self._independent
        inside = 0.9 * self._centre + 0.1 / self._centre.size
        found = minimize_quadratic(gradient, hessian, centre, self._upper, equal, inside)
        weights, upper, levels = found[:3]
        model = gradient, hessian, centre, self._upper, equal
        polished = _polish(weights, upper, levels, *model)
        if polished is not None:
            weights, upper, levels = polished
        return simplex.normalize(weights), upper, levels

    def solve_small(
        self, solver: SmallSolver, rows: np.ndarray, offsets: np.ndarray, weight: np.ndarray
    ) -> SmallSolution:
        """See `FeasibleSet.solve_small`."""
        unit = normalise(rows, offsets, weight).spread or 1.0
        nothing = np.zeros_like(self._upper)
        pairs = np.concatenate([[nothing, self._upper], [self._equal, -self._equal]], axis=1)
        penalties = np.ascontiguousarray(pairs.transpose(1, 0, 2).reshape(-1, rows.shape[1]))
        count = penalties.shape[0] // 2
        ends = offsets[-1] + 2 * np.arange(1, count + 1)
        while True:
            found = solver(
                np.concatenate([rows, self._penalty * unit * penalties]),
                np.concatenate([offsets, ends]),
                np.concatenate([weight, np.ones(count)]),
            )
            met = self.violation(found.weights) <= _FEASIBLE
            if met or not found.converged or self._penalty > _LARGEST_PENALTY:
                break
            self._penalty *= _PENALTY_GROWTH
        return replace(found, weights=self.project(found.weights), dual=found.dual[: rows.shape[0]])

    def violation(self, weights: np.ndarray) -> float:
        """By how much a constraint is violated at most, in units of its row; negative inside."""
        above = (self._upper @ weights).max(initial=-np.inf)
        return float(max(above, np.abs(self._equal @ weights).max(initial=-np.inf)))

    def _explain(self) -> Infeasibility:
        """Constraints of which none can be left out (the deletion filter), and multipliers."""
        n_upper, n_equal = self._upper.shape[0], self._equal.shape[0]
        size = self._given.n_classifiers
        kept = np.ones(n_upper + n_equal, dtype=bool)

        def depth(rows: np.ndarray) -> float:
            return _deepest(self._upper[rows[:n_upper]], self._equal[rows[n_upper:]], size)[1]

        for row in range(kept.size):
            kept[row] = False
            if depth(kept) >= -_FEASIBLE:
                kept[row] = True
        upper, equal = np.zeros(n_upper), np.zeros(n_equal)
        chosen = kept[:n_upper], kept[n_upper:]
        upper[chosen[0]], equal[chosen[1]] = _separate(
            self._upper[chosen[0]], self._equal[chosen[1]]
        )
        excess = float((self._upper.T @ upper + self._equal.T @ equal).min())
        labels = np.array([*self._given.labels_ub, *self._given.labels_eq], dtype=object)
        return Infeasibility(
            tuple(labels[kept].tolist()),
            upper / self._upper_scale,
            equal / self._equal_scale,
            excess,
        )


def _homogeneous(matrix: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows a - b 1, of entries of at most 1, and what they were divided by."""
    rows = matrix - limits[:, None]
    scale = np.abs(rows).max(axis=1, initial=0.0)
    given = np.maximum(np.abs(matrix).max(axis=1, initial=0.0), np.abs(limits))
    met = scale <= _ROUNDING * given  # by all weights, to rounding
    rows[met], scale[met] = 0.0, 1.0
    return rows / scale[:, None], scale


def _row_space(rows: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the rows, one a row."""
    _, values, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[values > _RANK * values.max(initial=0.0)]


def _deepest(upper: np.ndarray, equal: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Weights that are as far inside as can be, and how far: C lam <= -t, lam >= t / L."""
    from scipy.optimize import linprog

    n_equal = equal.shape[0]
    inside = np.vstack([upper, -size * np.eye(size)])
    # Equalities are met as nearly as the rest: within s, which the objective forbids.
    signs = np.vstack([equal, -equal])
    found = linprog(
        np.concatenate([np.zeros(size), [-1e-3, 1.0]]),
        A_ub=np.block(
            [
                [inside, np.ones((inside.shape[0], 1)), -np.ones((inside.shape[0], 1))],
                [signs, np.zeros((2 * n_equal, 1)), -np.ones((2 * n_equal, 1))],
            ]
        ),
        b_ub=np.zeros(inside.shape[0] + 2 * n_equal),
        A_eq=np.concatenate([np.ones(size), [0.0, 0.0]])[None],
        b_eq=[1.0],
        bounds=[(0.0, None)] * size + [(0.0, 1.0), (0.0, None)],
        method="highs",
    )
    if found.x is None:
        raise MixsolveError(f"constraints could not be examined: {found.message}")
    weights = simplex.normalize(found.x[:size])
    return weights, float(found.x[size] - found.x[size + 1])


def _separate(upper: np.ndarray, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers y >= 0 (p,) and v (q,) with the largest min_k (C' y + F' v)_k, |y|, |v| <= 1."""
    from scipy.optimize import linprog

    n_upper, n_equal, size = upper.shape[0], equal.shape[0], upper.shape[1]
    found = linprog(
        np.concatenate([np.zeros(n_upper + n_equal), [-1.0]]),
        A_ub=np.hstack([-upper.T, -equal.T, np.ones((size, 1))]),
        b_ub=np.zeros(size),
        bounds=[(0.0, 1.0)] * n_upper + [(-1.0, 1.0)] * n_equal + [(None, None)],
        method="highs",
    )
    return found.x[:n_upper], found.x[n_upper : n_upper + n_equal]


def _polish(
    point: np.ndarray,
    prices: np.ndarray,
    levels: np.ndarray,
    gradient: np.ndarray,
    hessian: np.ndarray,
    centre: np.ndarray,
    upper: np.ndarray,
    equal: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Onto the face that the interior point method came close to, each unknown in its own unit.

    The weights are projected onto the active constraints, then the multipliers onto stationarity.
    None where a sign is lost or the duality gap grows.
    """
    slope = gradient + hessian @ (point - centre) + upper.T @ prices - equal.T @ levels
    free = point > np.maximum(slope, 0.0)
    tight = prices > np.maximum(-(upper @ point), 0.0)
    if not free.any():
        return None
    rows = np.vstack([equal, upper[tight]])
    target = np.zeros(rows.shape[0])
    target[0] = 1.0
    weights = np.where(free, point, 0.0)
    move = np.linalg.lstsq(rows * weights, target - rows @ weights, rcond=_RANK)[0]
    weights = weights * (1.0 + move)
    slope = gradient + hessian @ (weights - centre)
    size = np.concatenate([prices[tight], np.ones(levels.size)])
    columns = np.vstack([upper[tight], -equal]).T
    now = slope + columns @ np.concatenate([prices[tight], levels])
    shift = size * np.linalg.lstsq((columns * size)[free], -now[free], rcond=_RANK)[0]
    n_tight = int(tight.sum())
    better = np.zeros_like(prices)
    better[tight] = prices[tight] + shift[:n_tight]
    raised = levels + shift[n_tight:]
    if weights.min() < 0.0 or better.min(initial=0.0) < 0.0:
        return None

    def gap(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        here = gradient + hessian @ (x - centre)
        below = here + upper.T @ y - equal[1:].T @ w[1:]
        outside = max((upper @ x).max(initial=0.0), np.abs(equal @ x - target[: w.size]).max())
        return float(here @ x - below.min()) + outside

    if gap(weights, better, raised) > max(gap(point, prices, levels), 0.0) + 1e-14:
        return None
    return weights, better, raised
