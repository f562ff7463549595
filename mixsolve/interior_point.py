"""A primal-dual interior point method for small games in memory.

    min_lam  sum_i w_i t_i   s.t.  s_r = t_i - <lam, l_r> >= 0 for the rows r of sample i,
                                   lam in the simplex

with duals q_r of the rows (sum_{r in i} q_r = w_i) and z of lam >= 0. Mehrotra's
predictor-corrector follows the weighted central path q_r s_r = mu w_i, lam_k z_k = mu / L. All but
lam is eliminated: with D_r = q_r / s_r and lbar_i the mean of the rows of sample i under D,

    ( sum_r D_r (l_r - lbar_i)(l_r - lbar_i)^T + diag(z / lam) ) dlam = rhs + nu 1,  <1, dlam> = 0,

so an iteration costs three walks over the rows and O(R L^2) operations. Inequalities C lam <= 0 of
the weights add C' diag(y / u) C to the matrix, with slacks u = -C lam and duals y on the same path,
u y = mu / L, and equalities F lam = 0 stand beside the sum; all points are strictly feasible.

Far from the solution all rows matter; near it few do. Once the gap is small the rows that hold next
to none of their sample's dual are left aside and the iterations go on with the others; the
certificate is always recomputed from all rows, and an answer that the rows left aside refute is
taken back.

References: S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J.
Optim. 1992; S. J. Wright, Primal-Dual Interior-Point Methods, SIAM 1997.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixsolve.kernels import interior_point as kernels
from mixsolve.kernels import schur_system
from mixsolve.small_game import Cuts, Game, PathPoint, SmallSolution, Vector, certify, normalise
from mixsolve.threads import run_chunks

logger = logging.getLogger(__name__)

Refinement = Callable[[Game, Vector, Vector, float], tuple[Vector, Vector] | None]

_FIRST_BARRIER = 0.05  # times the mean number of rows of a sample: about the gap to start at
_SHRINK_GAP = 3e-3  # leave rows aside from this gap on, ...
_SHRINK_SHARE = 3e-3  # ... those that hold less than this share of their sample's dual, ...
_SHRINK_ROWS = 1000  # ... if the game has so many rows
_REFINE_GAP = 1e-6  # hand the point to the refinement from this gap on
_BACK = 10.0  # a warm start begins at a gap so many times the one it is known to have
_CORRECTION = 5.0  # second-order terms count up to so many times mu w_i: outliers spoil steps
_SUMMED_TOGETHER = 1 << 16  # rows
_FLOOR = 1e-15  # of the gap, in units of the spread: rounding
_PATIENCE = 12  # iterations without a better gap before the method gives up


class Iterate:
    """The point of the method; workspace of five numbers a row, two a sample, L x L a chunk."""

    def __init__(self, game: Game, weights: Vector, barrier: float) -> None:
        n_rows, size = game.rows.shape
        n_chunks = len(game.bounds) - 1
        self.game = game
        self.weights = weights.copy()
        upper, equal = game.cuts.upper, game.cuts.equal
        # Shares of mu: of the rows, of the weights: L (1 / L), and of the inequalities.
        self.total = game.mass + 1.0 + len(upper) / size
        self.height = np.zeros(len(game.weight))
        self.d_height = np.zeros(len(game.weight))
        self.dual = np.zeros(n_rows)
        self.d_dual = np.zeros(n_rows)
        self.slack = np.ones(n_rows)
        self.product = np.empty(n_rows)
        self.schur = np.empty((n_chunks, size, size))
        self.vectors = np.empty((2, n_chunks, size))
        self.sums = np.empty((n_chunks, 5))
        self.matrix = np.empty((size, size))
        self.centred, self.d_weights, self.d_product = np.empty((3, size))
        self.columns, self.gram = np.empty_like(equal), np.empty((len(equal), len(equal)))
        self.omega = np.empty(len(equal))
        self.room = -(upper @ self.weights)
        self.prices, self.d_room = np.zeros(len(upper)), np.empty(len(upper))
        self.levels = np.zeros(len(equal) - 1)
        self.steps = np.zeros(2)
        self.gap = np.inf
        self.barrier = barrier
        self.residual = np.zeros(size)
        self.reduced = np.ones(size)

    def centre(self) -> None:
        """Centre all samples for the weights and the barrier parameter; a feasible dual start."""
        game, vector = self.game, self.vectors[0]

        def one(c: int) -> None:
            kernels.centre(
                game.rows, game.offsets, game.weight, game.bounds[c], game.bounds[c + 1],
                game.inverse, self.weights, self.barrier, self.height, self.dual, vector[c],
            )  # fmt: skip

        run_chunks(one, len(vector))
        self.room = -(game.cuts.upper @ self.weights)
        self.prices = self.barrier / len(self.weights) / self.room
        self.levels[:] = 0.0
        gradient = game.linear + vector.sum(0) + game.cuts.pull(self.multipliers)
        self.reduced = gradient - gradient.min() + self.barrier

    @property
    def multipliers(self) -> Vector:
        """Of the cuts: y, then v."""
        return np.concatenate([self.prices, self.levels])

    @property
    def point(self) -> tuple[Vector, Vector]:
        """The weights, and all duals as `certify` takes them."""
        return self.weights.copy(), np.concatenate([self.dual, self.multipliers])

    def factor(self) -> float:
        """Take the last step, walk the rows once; returns the gap of the point reached."""
        game = self.game
        primal, dual = self.steps

        def one(c: int) -> None:
            kernels.factor(
                game.rows, game.offsets, game.weight, game.bounds[c], game.bounds[c + 1],
                game.inverse, self.weights, primal, dual, self.height, self.d_height, self.slack,
                self.dual, self.d_dual, self.schur[c], self.vectors[0, c], self.sums[c],
            )  # fmt: skip

        run_chunks(one, len(self.schur))
        self.residual *= 1.0 - dual
        # The gradient of the rows under the dual, with the cuts' multiples, less nu.
        below = self.reduced + self.residual
        complementarity, closest = self.sums[:, :2].sum(0)
        complementarity += self.room @ self.prices
        self.complementarity = float(complementarity + self.weights @ self.reduced)
        self.barrier = self.complementarity / self.total
        self.gap = float(complementarity - closest + self.weights @ below - below.min())
        return self.gap

    def restart(self, weights: Vector, gap: float) -> None:
        """Centre anew at weights whose gap is what it truly is.

        A solve near a singular matrix leaves a dual residual behind. When the barrier parameter has
        meanwhile fallen far below it, no step can mend it.
        """
        self.barrier = gap / self.total
        share = min(self.barrier * len(weights), 0.5)
        self.weights = (1.0 - share) * weights + share * self.game.cuts.centre
        self.residual[:] = 0.0
        self.steps[:] = 0.0
        self.centre()

    def step(self) -> None:
        """One predictor-corrector step; the rows move with the next `factor`."""
        game = self.game
        towards, against = self.vectors
        lam_weight = 1.0 / len(self.weights)
        upper, equal = game.cuts.upper, game.cuts.equal
        schur_system.predictor(
            self.schur, towards, game.linear, self.weights, self.reduced,
            upper, self.room, self.prices, equal,
            self.matrix, self.columns, self.gram, self.omega, self.centred, self.d_weights,
        )  # fmt: skip

        def predict(c: int) -> None:
            kernels.predict(
                game.rows, game.offsets, game.weight, game.bounds[c], game.bounds[c + 1],
                game.inverse, self.d_weights, _CORRECTION * self.barrier, self.slack, self.dual,
                self.product, towards[c], against[c], self.sums[c],
            )  # fmt: skip

        run_chunks(predict, len(self.schur))
        target = schur_system.corrector(
            towards, against, self.sums, self.total, lam_weight, self.complementarity,
            self.weights, self.reduced, upper, self.room, self.prices, equal,
            self.matrix, self.columns, self.gram, self.omega, self.centred,
            self.d_product, self.d_room, self.d_weights,
        )  # fmt: skip

        def correct(c: int) -> None:
            kernels.correct(
                game.rows, game.offsets, game.weight, game.bounds[c], game.bounds[c + 1],
                game.inverse, self.d_weights, target, self.slack, self.dual, self.product,
                self.d_height, self.d_dual, self.sums[c],
            )  # fmt: skip

        run_chunks(correct, len(self.schur))
        fraction = 1.0 - min(max(self.gap, 1e-6), 0.01)  # quadratic convergence in the end
        schur_system.advance(
            self.sums, target, lam_weight, fraction, self.d_product, self.d_room, self.d_weights,
            self.omega, upper, self.weights, self.reduced, self.room, self.prices, self.levels,
            self.steps,
        )  # fmt: skip

    def shrink(self) -> "Shrunk | None":
        """The iterate on the rows that still matter, or None if that would save little."""
        game = self.game
        index = np.empty(len(self.dual), dtype=np.int64)
        offsets = np.zeros(len(game.offsets), dtype=np.int64)
        owners = np.empty(len(game.weight), dtype=np.int64)
        decided = np.empty(len(self.dual))
        linear = game.linear.copy()
        n_kept = kernels.select(
            game.rows, game.offsets, game.weight, game.inverse, self.dual, _SHRINK_SHARE,
            index, offsets, owners, linear, decided,
        )  # fmt: skip
        index, offsets, owners = index[: offsets[n_kept]], offsets[: n_kept + 1], owners[:n_kept]
        if n_kept == 0 or 2 * len(index) > len(self.dual):
            return None
        small = Game(
            game.rows[index], offsets, game.weight[owners], game.spread, linear, 0.0, game.cuts
        )
        iterate = Iterate(small, self.weights, self.barrier)
        leads, counts = offsets[:-1], np.diff(offsets)
        # Heights are relative to the first row of a sample, which is another one now.
        moved = small.rows[leads] - game.rows[game.offsets[owners]]
        iterate.height[:] = self.height[owners] - moved @ self.weights * game.inverse
        dual = self.dual[index]
        dual *= np.repeat(small.weight / np.add.reduceat(dual, leads), counts)
        iterate.dual[:] = dual
        iterate.reduced[:] = self.reduced
        iterate.prices[:], iterate.levels[:] = self.prices, self.levels
        total = np.zeros(small.rows.shape[1])
        first = np.repeat(leads, counts)
        for begin in range(0, len(dual), _SUMMED_TOGETHER):  # no second copy of the rows
            part = slice(begin, begin + _SUMMED_TOGETHER)
            total += dual[part] @ (small.rows[part] - small.rows[first[part]])
        pulled = game.cuts.pull(self.multipliers)
        iterate.residual[:] = linear + total * game.inverse + pulled - self.reduced
        return Shrunk(iterate, index, decided)


@dataclass
class Shrunk:
    """An iterate on the rows ``index`` of a game, and the duals of the samples left out."""

    iterate: Iterate
    index: NDArray[np.int64]
    decided: Vector


def solve_interior_point(
    rows: Vector,
    offsets: NDArray[np.int64],
    weight: Vector,
    cuts: Cuts | None = None,
    *,
    tol: float = 1e-10,
    max_iter: int = 100,
    start: SmallSolution | Vector | None = None,
    start_gap: float = 1e-3,
    refine: Refinement | None = None,
) -> SmallSolution:
    """Solve a small game by the interior point method.

    Parameters
    ----------
    rows : ndarray of float64, shape (R, L), C-contiguous
        The losses; sample i owns ``rows[offsets[i]:offsets[i + 1]]``, at least one row.
    offsets : ndarray of int64, shape (n + 1,)
        Where the rows of each sample begin.
    weight : ndarray of float64, shape (n,)
        Weights of the samples, positive, with sum 1.
    cuts : Cuts, optional
        Constraints of the weights.
    tol : float
        Stop when the certified gap is at most ``tol * spread``, with
        ``spread = sum_i w_i (max - min of the rows of sample i)``. About 1e-14 can be reached.
    max_iter : int
        Limit on the iterations.
    start : SmallSolution or ndarray of float64, shape (L,), optional
        The solution of a game that shares most rows, or weights to start near.
    start_gap : float
        How far the solution ``start`` is from solving this game, in units of the spread: the gap of
        its weights here. The way there is taken up again some ten times further from its end.
    refine : callable, optional
        ``refine(game, weights, dual, gap)`` may return better weights and duals or None; called
        once the gap is below 1e-6.

    Returns
    -------
    SmallSolution
        With the best certified gap met; ``converged`` says whether it is within ``tol``.
    """
    game = normalise(rows, offsets, weight, cuts)
    weights, barrier = _starting_point(game, start, start_gap)
    answer = _Answer(game, tol)
    if game.spread == 0.0:
        answer.offer(weights, np.append(np.ones(len(rows)), np.zeros(game.cuts.n_multipliers)), 0)
        return answer.solution("all losses are equal")
    whole = iterate = Iterate(game, weights, barrier)
    iterate.centre()
    shrunk: Shrunk | None = None
    shrink_gap, refine_gap, stop = _SHRINK_GAP, _REFINE_GAP, 0.5 * tol
    lowest, since = np.inf, 0
    for nit in range(max_iter + 1):
        gap = iterate.factor()
        since += 1
        if gap < lowest:
            lowest, since = gap, 0
            answer.path.append(PathPoint(gap, iterate.weights.copy(), iterate.barrier))
            point = iterate.point
        stalled = since > _PATIENCE or not np.isfinite(gap)
        ended = gap <= max(stop, _FLOOR) or stalled or nit == max_iter
        if refine is not None and lowest <= (_REFINE_GAP if ended else refine_gap):
            refine_gap = 0.01 * lowest
            better = refine(iterate.game, *point, lowest)
            if better is not None and answer.offer(*_lift(shrunk, *better), nit):
                break
        if ended:
            if answer.offer(*_lift(shrunk, *point), nit) or nit == max_iter:
                break
            if shrunk is not None:
                logger.debug("iteration %d: rows left aside matter, back to all of them", nit)
                shrunk, iterate, gap = None, whole, whole.gap
                lowest, since, point = gap, 0, whole.point
                shrink_gap, refine_gap = 0.03 * gap, _REFINE_GAP
            elif stop <= _FLOOR:
                return answer.solution("rounding stopped the interior point method")
            else:
                iterate.restart(*answer.place())
                stop, lowest, since = 0.1 * stop, np.inf, 0
                continue
        elif shrunk is None and gap <= shrink_gap and len(rows) >= _SHRINK_ROWS:
            shrink_gap = 0.1 * gap
            shrunk = whole.shrink()
            if shrunk is not None:
                iterate, lowest, since = shrunk.iterate, np.inf, 0
                continue
        iterate.step()
    return answer.solution(f"iteration limit {max_iter}")


def _starting_point(
    game: Game, start: SmallSolution | Vector | None, start_gap: float
) -> tuple[Vector, float]:
    centre = game.cuts.centre
    barrier = _FIRST_BARRIER / max(game.mass, 1.0)
    if start is None:
        return centre, barrier
    if isinstance(start, SmallSolution):
        for point in reversed(start.path):
            if point.gap >= _BACK * start_gap:
                return point.weights, point.barrier
        return centre, barrier
    weights = np.maximum(np.asarray(start, dtype=np.float64), 0.0)
    return 0.9 * weights / weights.sum() + 0.1 * centre, barrier


def _lift(shrunk: Shrunk | None, weights: Vector, dual: Vector) -> tuple[Vector, Vector]:
    """The duals of all rows, those left aside included, and of the cuts."""
    if shrunk is None:
        return weights, dual
    full = shrunk.decided.copy()
    n_kept = len(shrunk.index)
    full[shrunk.index] = dual[:n_kept]
    return weights, np.append(full, dual[n_kept:])


class _Answer:
    """The best certified point so far."""

    def __init__(self, game: Game, tol: float) -> None:
        self.game = game
        self.tol = tol * game.spread
        self.path: list[PathPoint] = []
        self.best: tuple[Vector, Vector, float, float, float] | None = None
        self.nit = 0

    def offer(self, weights: Vector, dual: Vector, nit: int) -> bool:
        """Certify a point on all rows; True if it is within the tolerance."""
        self.nit = nit
        weights = np.maximum(weights, 0.0)
        weights /= weights.sum()
        found = (weights, dual, *certify(self.game, weights, dual))
        if self.best is None or found[-1] < self.best[-1]:
            self.best = found
        return found[-1] <= self.tol

    def place(self) -> tuple[Vector, float]:
        """The best weights, and their gap in units of the spread."""
        assert self.best is not None  # called after an offer
        return self.best[0], self.best[-1] / self.game.spread

    def solution(self, otherwise: str) -> SmallSolution:
        assert self.best is not None  # every way out of the loop has offered a point
        weights, dual, value, lower_bound, gap = self.best
        converged = gap <= self.tol
        message = "the gap is within the tolerance" if converged else otherwise
        return SmallSolution(
            weights,
            dual[: len(self.game.rows)],
            value,
            lower_bound,
            gap,
            self.game.spread,
            self.nit,
            converged,
            message,
            tuple(self.path),
        )
