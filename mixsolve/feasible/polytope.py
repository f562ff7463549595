"""The simplex cut by linear constraints: A_ub lam <= b_ub, A_eq lam = b_eq.

Since the weights sum to 1, <a, lam> <= b is <a - b 1, lam> <= 0: every constraint becomes a row c
with <c, lam> <= 0 or = 0, here scaled to entries of at most 1. A bound on a linear function follows
from any multipliers y >= 0, v:

    min over the polytope of <g, lam>  >=  min_k (g + C' y + F' v)_k,

so an error of an inner solver costs tightness, never validity. Solvers work in the polytope's
relative interior (`mixsolve.feasible.relative_interior`).

Reference: Nocedal and Wright, Numerical Optimization, 2006, section 16.6.
"""

from dataclasses import replace

import numpy as np

from mixsolve.feasible import infeasibility as clash
from mixsolve.feasible import simplex
from mixsolve.feasible.constraints import LinearConstraints
from mixsolve.feasible.relative_interior import Face, find_face
from mixsolve.feasible.simplex import FeasibleSet, Infeasibility, Prices
from mixsolve.small_game.game import SmallSolution
from mixsolve.small_game.highs import bound_multipliers
from mixsolve.uncompiled.choice import loops

_ROUNDING = 1e-14
_MET = 1e-13  # violation, in units of a row, of weights that need no projection
_LOOSE = 1e-9  # of the gradient's spread: a bound looser than that is left to HiGHS
_NOISE = 1e-10  # of the gradient's spread: smaller multipliers are 0
_LIFT = 1e-15
_RANK = 1e-11  # singular values below this share of the largest count as zero


class Polytope(FeasibleSet):
    """Weights on the simplex that meet linear constraints."""

    linear: LinearConstraints

    def __init__(self, constraints: LinearConstraints) -> None:
        self.linear = constraints
        self._upper, self._upper_scale = _homogeneous(constraints.A_ub, constraints.b_ub)
        self._equal, self._equal_scale = _homogeneous(constraints.A_eq, constraints.b_eq)
        self._rows_upper = np.flatnonzero(self._upper.any(axis=1))
        self._rows_equal = np.flatnonzero(self._equal.any(axis=1))
        face = self._find_face()
        if face is not None:
            self._face = face
            self.used = face.used if face.used.size < constraints.n_classifiers else None
            self.cuts = face.cuts
            self._of_level = np.linalg.pinv(face.level.T, rcond=_RANK)

    def _find_face(self) -> Face | None:
        upper, equal = self._upper[self._rows_upper], self._equal[self._rows_equal]
        face = find_face(upper, equal)
        if face is not None:
            return face
        nearest, violation = clash.least_violation(upper, equal)
        if violation > clash.FEASIBLE:
            self.infeasibility = self._explain()
            return None
        # Met to rounding: loosened by what is left of the violation, they are met exactly.
        upper = upper - np.maximum(upper @ nearest, 0.0)[:, None]
        equal = equal - (equal @ nearest)[:, None]
        face = find_face(upper, equal)
        if face is None:
            self.infeasibility = self._explain()
        return face

    def project(self, point: np.ndarray) -> np.ndarray:
        onto_simplex, used = simplex.project(point), self._face.used
        if self.violation(onto_simplex) <= _MET:
            # A sum just below 1 is shared out among all: what the constraints exclude gets none.
            inside = np.zeros(point.size)
            inside[used] = onto_simplex[used]
            return (
                onto_simplex if np.array_equal(inside, onto_simplex) else simplex.normalize(inside)
            )
        centre = np.zeros(point.size)
        centre[used] = point[used] - point[used].mean()
        far = float(np.ptp(point[used])) + 1.0
        flat = np.zeros(point.size)
        found, _, _ = self._minimize(flat, np.eye(point.size) / far, centre)
        return found

    def lowest(self, gradient: np.ndarray) -> float:
        return self._linear(gradient)[0]

    def _linear(self, gradient: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """A lower bound, and the multipliers y (p,) and v (q,) that prove it."""
        played = gradient[self._face.used]
        shift, scale = float(played.min()), float(np.ptp(played)) or 1.0
        flat = np.zeros((gradient.size, gradient.size))
        slope = (gradient - shift) / scale
        weights, *multipliers = self._minimize(slope, flat, flat[0])
        upper, equal = self._multipliers(slope, *multipliers)
        bound = self._pulled(slope, upper, equal)
        if bound < float(slope @ weights) - _LOOSE:  # a sliver, or rounding
            used = self._face.used
            found = bound_multipliers(slope[used], self._upper[:, used], self._equal[:, used])
            others = self._lifted(slope, *found)
            if self._pulled(slope, *others) > bound:
                upper, equal = others
        upper, equal = upper * scale, equal * scale
        bound = self._pulled(gradient, upper, equal)
        simplex_bound = float(gradient.min())
        if bound >= simplex_bound:
            return bound, upper, equal
        return simplex_bound, np.zeros_like(upper), np.zeros_like(equal)

    def _pulled(self, gradient: np.ndarray, upper: np.ndarray, equal: np.ndarray) -> float:
        return float((gradient + self._upper.T @ upper + self._equal.T @ equal).min())

    def _multipliers(
        self, slope: np.ndarray, inner: np.ndarray, levels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those of the polytope's own rows, y >= 0 and v, from those on the face."""
        face = self._face
        n_tight = self._rows_upper.size - inner.size
        of_level = self._of_level @ (-face.cuts.equal[1:].T @ levels[1:])
        upper, equal = np.zeros(self._upper.shape[0]), np.zeros(self._equal.shape[0])
        tight = self._rows_upper[~face.loose]
        upper[self._rows_upper[face.loose]] = inner
        upper[tight], equal[self._rows_equal] = of_level[:n_tight], of_level[n_tight:]
        return self._lifted(slope, upper, equal)

    def _lifted(
        self, slope: np.ndarray, upper: np.ndarray, equal: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """With as much of the proof as gives all multipliers and all dropped weights their sign."""
        face = self._face
        tight = self._rows_upper[~face.loose]
        prices, values, z = face.proof
        below = slope + self._upper.T @ upper + self._equal.T @ equal
        proven = prices > 0.0
        times = (-upper[tight][proven] / prices[proven]).max(initial=0.0)
        dropped = z > 0.0
        wanted = below[face.used].min() - below[dropped]
        wanted += _LIFT * np.abs(below[dropped])  # beyond what their own size rounds away
        times = max(times, (wanted / z[dropped]).max(initial=0.0))
        upper[tight] += times * prices
        equal[self._rows_equal] += times * values
        return np.maximum(upper, 0.0), equal

    def prices(self, gradient: np.ndarray) -> Prices:
        _, upper, equal = self._linear(gradient)
        noise = _NOISE * float(np.ptp(gradient[self._face.used]))
        upper, equal = (np.where(np.abs(side) > noise, side, 0.0) for side in (upper, equal))
        return Prices(upper / self._upper_scale, equal / self._equal_scale)

    def minimize_quadratic(
        self, gradient: np.ndarray, hessian: np.ndarray, start: np.ndarray, ridge: float
    ) -> np.ndarray:
        raised = hessian + ridge * np.eye(gradient.size)
        used = self._face.used
        bend = float(np.abs(raised[np.ix_(used, used)]).max())
        scale = max(float(np.ptp(gradient[used])), bend)
        slope = (gradient - gradient[used].min()) / scale
        found, _, _ = self._minimize(slope, raised / scale, start)
        return found

    def _minimize(
        self, gradient: np.ndarray, hessian: np.ndarray, centre: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, multipliers of C and of the independent equalities, to rounding."""
        minimize_quadratic = loops("polytope_qp").minimize_quadratic
        used, cuts = self._face.used, self._face.cuts
        whole = np.zeros(gradient.size)
        if self._face.is_point:
            whole[used] = cuts.centre
            slope = (gradient + hessian @ (whole - centre))[used]
            levels = np.linalg.lstsq(cuts.equal.T, slope, rcond=None)[0]
            return whole, np.zeros(cuts.upper.shape[0]), levels
        hessian = np.ascontiguousarray(hessian[np.ix_(used, used)])
        model = gradient[used], hessian, centre[used], cuts.upper, cuts.equal
        weights, upper, levels, _ = minimize_quadratic(*model, cuts.centre)
        polished = _polish(weights, upper, levels, *model)
        if polished is not None:
            weights, upper, levels = polished
        whole[used] = weights
        return simplex.normalize(whole), upper, levels

    def restored(self, found: SmallSolution) -> SmallSolution:
        weights = np.zeros(self._upper.shape[1])
        weights[self._face.used] = found.weights
        return replace(found, weights=self.project(weights))

    def violation(self, weights: np.ndarray) -> float:
        """By how much a constraint is violated at most, in units of its row; negative inside."""
        above = (self._upper @ weights).max(initial=-np.inf)
        return float(max(above, np.abs(self._equal @ weights).max(initial=-np.inf)))

    def _explain(self) -> Infeasibility:
        """The constraints that clash, and multipliers that prove it."""
        n_upper = self._upper.shape[0]
        kept = clash.smallest_clash(self._upper, self._equal)
        chosen = kept[:n_upper], kept[n_upper:]
        upper, equal = np.zeros(n_upper), np.zeros(kept.size - n_upper)
        upper[chosen[0]], equal[chosen[1]], excess = clash.separate(
            self._upper[chosen[0]], self._equal[chosen[1]]
        )
        labels = np.array([*self.linear.labels_ub, *self.linear.labels_eq], dtype=object)
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
