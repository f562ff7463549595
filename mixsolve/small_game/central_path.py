"""A point near the central path of a small game, and the predictor-corrector step along it.

The path, with rows r of sample i, slacks s_r, duals q_r, and of the weights' own constraints slacks
u, duals y and reduced costs z, is

    q_r s_r = mu w_i,    lam_k z_k = mu / L,    u y = mu / L.

A step walks the rows thrice: `Iterate.factor` moves to the point and sums the L x L system, then
`Iterate.step` follows the direction for mu = 0, sums what the corrector needs, and turns the
corrector's direction of the weights into those of heights and duals. Points are strictly feasible;
the dual residual that rounding leaves is carried along and counted in the gap.

References: S. Mehrotra, On the implementation of a primal-dual interior point method, SIAM J.
Optim. 1992; S. J. Wright, Primal-Dual Interior-Point Methods, SIAM 1997.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.threads import run_kernel
from mixsolve.kernels.constants import CORRECTION, LEAST_MARGIN, MOST_MARGIN
from mixsolve.small_game.game import SmallGame, Vector
from mixsolve.uncompiled.choice import loops

_SUMMED_TOGETHER = 1 << 16  # rows


class Iterate:
    """The point of the method; workspace of five numbers a row, two a sample, L x L a chunk."""

    def __init__(self, game: SmallGame, weights: Vector, barrier: float) -> None:
        n_rows, size = game.rows.shape
        n_chunks = len(game.bounds) - 1
        self.game = game
        self._kernels, self._dense = loops("interior_point"), loops("schur_system")
        self._walked = game.rows, game.offsets, game.weight, game.inverse
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
        run_kernel(
            self._kernels.centre, game.bounds,
            (*self._walked, self.weights, self.barrier, self.height, self.dual), (vector,),
        )  # fmt: skip
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
        primal, dual = self.steps
        run_kernel(
            self._kernels.factor, self.game.bounds,
            (*self._walked, self.weights, primal, dual,
             self.height, self.d_height, self.slack, self.dual, self.d_dual),
            (self.schur, self.vectors[0], self.sums),
        )  # fmt: skip
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
        """Centre anew at weights, with their certified gap.

        A solve with a nearly singular matrix leaves a dual residual. Once the barrier parameter has
        fallen far below it, no step can remove it.
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
        self._dense.predictor(
            self.schur, towards, game.linear, self.weights, self.reduced,
            upper, self.room, self.prices, equal,
            self.matrix, self.columns, self.gram, self.omega, self.centred, self.d_weights,
        )  # fmt: skip
        run_kernel(
            self._kernels.predict, game.bounds,
            (*self._walked, self.d_weights, CORRECTION * self.barrier,
             self.slack, self.dual, self.product),
            (towards, against, self.sums),
        )  # fmt: skip
        target = self._dense.corrector(
            towards, against, self.sums, self.total, lam_weight, self.complementarity,
            self.weights, self.reduced, upper, self.room, self.prices, equal,
            self.matrix, self.columns, self.gram, self.omega, self.centred,
            self.d_product, self.d_room, self.d_weights,
        )  # fmt: skip
        run_kernel(
            self._kernels.correct, game.bounds,
            (*self._walked, self.d_weights, target,
             self.slack, self.dual, self.product, self.d_height, self.d_dual),
            (self.sums,),
        )  # fmt: skip
        fraction = 1.0 - min(max(self.gap, LEAST_MARGIN), MOST_MARGIN)  # quadratic convergence
        self._dense.advance(
            self.sums, target, lam_weight, fraction, self.d_product, self.d_room, self.d_weights,
            self.omega, upper, self.weights, self.reduced, self.room, self.prices, self.levels,
            self.steps,
        )  # fmt: skip

    def shrink(self, share: float) -> "ScreenedGame | None":
        """The iterate on the rows with that share of their sample's dual, if it saves much."""
        game = self.game
        index = np.empty(len(self.dual), dtype=np.int64)
        offsets = np.zeros(len(game.offsets), dtype=np.int64)
        owners = np.empty(len(game.weight), dtype=np.int64)
        decided = np.empty(len(self.dual))
        linear = game.linear.copy()
        n_kept = self._kernels.select(
            game.rows, game.offsets, game.weight, game.inverse, self.dual, share,
            index, offsets, owners, linear, decided,
        )  # fmt: skip
        index, offsets, owners = index[: offsets[n_kept]], offsets[: n_kept + 1], owners[:n_kept]
        if n_kept == 0 or 2 * len(index) > len(self.dual):
            return None
        small = SmallGame(
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
        return ScreenedGame(iterate, index, decided)


@dataclass
class ScreenedGame:
    """An iterate on the rows ``index`` of a game, and the duals of the samples left out."""

    iterate: Iterate
    index: NDArray[np.int64]
    decided: Vector
