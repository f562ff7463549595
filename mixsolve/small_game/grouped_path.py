"""A point near the central path of a grouped game, and the predictor-corrector step along it.

The path, with the rows' duals q_r and slacks s_r of `mixsolve.kernels.group_rows` and each level's
masses and slacks of `mixsolve.kernels.group_levels`, is

    q_r s_r = mu share_i path_b,   m_c y_c = n_c xi_c = mu path_c,   lam_k z_k = mu / L,

with fixed path weights. A step eliminates rows and levels from below, solves the L x L system for
the weights (`mixsolve.kernels.schur_system`) and hands the masses' steps down again.
"""

import numpy as np

from mixsolve.kernels.constants import CORRECTION, LEAST_MARGIN, MOST_MARGIN
from mixsolve.small_game.game import Vector
from mixsolve.small_game.grouped_game import GroupedGame
from mixsolve.small_game.mass_set import Level
from mixsolve.uncompiled.choice import loops

_LEAST_PATH = 0.3  # of a block's mass at the centre: rows of blocks that lose stay inside


class _LevelIterate:
    """Masses and slacks of one level; the names of `mixsolve.kernels.group_levels`."""

    def __init__(self, level: Level, size: int, mass: Vector, n_parents: int) -> None:
        count = mass.size
        self.parent, self.cap = level.parent, np.minimum(level.cap, 2.0)  # 2 does not bind either
        self.path = mass
        self.mass, self.idle = mass.copy(), np.empty(count)
        self.height, self.slopes = np.empty(count), np.empty((count, size))
        self.curvature = np.zeros(count)
        self.above, self.excess, self.left = np.empty((3, count))
        self.weight, self.pull = np.empty((2, count))
        self.d_mass, self.d_idle, self.d_excess, self.d_above = np.zeros((4, count))
        self.for_mass, self.for_excess, self.constant, self.rho = np.empty((4, count))
        self.eta, self.d_eta = np.zeros((2, n_parents))
        self.total, self.rho_mean, self.pull_mean = np.empty((3, n_parents))
        self.slope_mean = np.empty((n_parents, size))


class GroupedIterate:
    """The point of the method."""

    def __init__(self, game: GroupedGame, weights: Vector, barrier: float) -> None:
        self.game = game
        names = "group_levels", "group_rows", "schur_system"
        self._of_levels, self._of_rows, self._dense = map(loops, names)
        size = weights.size
        self.inverse = 1.0 / game.unit
        self.weights, self.barrier = weights.copy(), barrier
        first = game.rows[game.offsets[:-1]]
        block = np.repeat(np.arange(game.linear.shape[0]), np.diff(game.blocks))
        linear = game.linear.copy()
        np.add.at(linear, block, game.share[:, None] * first)
        self.linear = (linear - linear.mean()) * self.inverse
        self.bend = None if game.bend is None else game.bend.hessian * self.inverse
        sizes = [*(level.parent.size for level in game.masses.levels[1:]), game.masses.top.size]
        masses = game.masses.centre()
        self.levels = [
            _LevelIterate(level, size, mass, n_parents)
            for level, mass, n_parents in zip(game.masses.levels, masses, sizes, strict=True)
        ]
        # Slopes, curvatures and heights of the last level's parents, which have fixed masses.
        self.top_slopes = np.empty((sizes[-1], size))
        self.top_curvature, self.top_height = np.empty((2, sizes[-1]))
        self.fixed = np.zeros(sizes[-1])
        self._walked = game.rows, game.offsets, game.share, game.blocks, self.inverse
        n_rows, n_samples = game.rows.shape[0], game.share.size
        self.height, self.d_height = np.zeros((2, n_samples))
        self.dual, self.d_dual, self.product = np.zeros((3, n_rows))
        self.slack = np.ones(n_rows)
        upper, equal = game.cuts.upper, game.cuts.equal
        self.schur = np.zeros((2, size, size))
        self.centred = np.zeros((2, size))
        # Sums over the rows, then over each level, whose right-hand sides stand with the rows'.
        self.towards, self.against = np.zeros((2, 1 + len(self.levels), size))
        self.sums = np.zeros((1 + len(self.levels), 5))
        self.closest, self.up, self.down = np.empty((3, game.linear.shape[0]))
        self.gradient, self.d_product, self.d_weights, self.ignored = np.zeros((4, size))
        self.matrix = np.empty((size, size))
        self.columns, self.gram = np.empty_like(equal), np.empty((len(equal), len(equal)))
        self.omega = np.empty(len(equal))
        self.d_room, self.levels_eq = np.empty(len(upper)), np.zeros(len(equal) - 1)
        self.room = -(upper @ self.weights)
        self.prices = barrier / size / self.room
        self.reduced = np.ones(size)
        self.steps = np.zeros(2)
        self._centre()

    def _centre(self) -> None:
        """Put all levels on the path of the barrier at the weights, from the rows upwards.

        For fixed weights that needs no iteration: the path of what lies below a parent is weighed
        with the mass that the parent turns out to have.
        """
        blocks, barrier = self.levels[0], self.barrier
        ones = np.ones(blocks.mass.size)
        self._of_rows.centre(
            *self._walked, self.weights, barrier * ones, ones, self.height, self.dual
        )
        self._find_heights()
        sizes = [*(level.mass.size for level in self.levels[1:]), self.fixed.size]
        above = [*(level.mass for level in self.levels[1:]), self.game.masses.top]
        for place, level in enumerate(self.levels):
            self._of_levels.masses_on_path(
                level.height, level.parent, level.cap, above[place], level.path, barrier,
                level.eta, level.mass, level.idle,
            )  # fmt: skip
            level.above = barrier * level.path / level.mass
            level.excess = barrier * level.path / level.idle
            level.left = level.above - (level.eta[level.parent] + level.excess - level.height)
            if place + 1 < len(self.levels):
                sums = np.bincount(level.parent, level.cap * level.excess, sizes[place])
                self.levels[place + 1].height[:] = level.eta + sums
        for upper, level in zip(self.levels[:0:-1], self.levels[-2::-1], strict=True):
            sums = np.bincount(level.parent, level.mass, upper.mass.size)
            scale = (upper.mass / sums)[level.parent]
            level.mass, level.idle = scale * level.mass, scale * level.idle
            level.path = scale * level.path
        self.rows_path = np.maximum(blocks.mass, _LEAST_PATH * blocks.path)
        game = self.game
        block = np.repeat(np.arange(blocks.mass.size), np.diff(game.blocks))
        counts = np.diff(game.offsets)
        self.dual *= np.repeat(blocks.mass[block], counts)
        many = np.where(counts > 1, counts, 0)
        upper_shares = len(game.cuts.upper) / self.weights.size
        rows_path = float(many @ (game.share * self.rows_path[block]))
        levels_path = 2.0 * sum(float(level.path.sum()) for level in self.levels)
        self.total = rows_path + levels_path + 1.0 + upper_shares
        self._fresh = True

    def _find_heights(self) -> None:
        game, blocks = self.game, self.levels[0]
        self._of_rows.heights(
            game.share, game.blocks, game.offsets, self.height, self.linear, self.weights,
            blocks.height,
        )  # fmt: skip

    @property
    def point(self) -> tuple[Vector, Vector, Vector, Vector]:
        """Weights, duals of the rows, masses of the blocks, multipliers of the cuts."""
        multipliers = np.concatenate([self.prices, self.levels_eq])
        dual = self.dual.copy()
        single = np.flatnonzero(np.diff(self.game.offsets) == 1)
        dual[self.game.offsets[single]] = 1.0
        return self.weights.copy(), dual, self.levels[0].mass.copy(), multipliers

    def factor(self) -> float:
        """Take the last step, sum the matrix, and return the gap of the point reached."""
        game, blocks = self.game, self.levels[0]
        primal, dual = self.steps
        for level in self.levels:  # masses first: the rows' gradient needs those of the blocks
            level.mass = np.maximum(level.mass + dual * level.d_mass, 1e-300)
            level.d_mass[:] = 0.0
        complementarity = self._of_rows.factor(
            *self._walked, self.weights, primal, dual, self.height, self.d_height, self.slack,
            self.dual, self.d_dual, self.linear, blocks.mass,
            self.schur[0], blocks.slopes, blocks.curvature, self.closest, self.gradient,
        )  # fmt: skip
        self._find_heights()
        self.schur[1] = 0.0
        for level, (slopes, curvature, height) in zip(self.levels, self._parents(), strict=True):
            self._of_levels.take_step(
                level.parent, level.cap, level.height, primal, dual, level.eta, level.d_eta,
                level.left, level.mass, level.d_mass, level.idle, level.d_idle, level.above,
                level.excess, level.d_excess, height,
            )  # fmt: skip
            self._of_levels.eliminate(
                level.parent, level.cap, level.slopes, level.curvature, level.mass, level.above,
                level.excess, level.idle, level.weight, level.pull, level.total, level.slope_mean,
                level.pull_mean, slopes, curvature, self.schur[1],
            )  # fmt: skip
            complementarity += float(level.mass @ level.above + level.idle @ level.excess)
        pulled = self.gradient + game.cuts.pull(np.concatenate([self.prices, self.levels_eq]))
        bent = 0.0
        if self.bend is not None:
            self.schur[1] += np.triu(self.bend)
            slope = self._slope()
            pulled = pulled + slope
            bent = float(self.weights @ slope)
        if self._fresh:
            self.reduced = pulled - pulled.min() + self.barrier
            self._fresh = False
        complementarity += float(self.weights @ self.reduced + self.room @ self.prices)
        self.complementarity = complementarity
        self.barrier = complementarity / self.total
        value, _ = game.masses.support(blocks.height - self.closest)
        self.gap = float(value + bent - pulled.min())
        return self.gap

    def _slope(self) -> Vector:
        """Gradient of the quadratic term."""
        assert self.bend is not None
        assert self.game.bend is not None
        return np.asarray(self.bend @ (self.weights - self.game.bend.around))

    def _parents(self) -> list[tuple[Vector, Vector, Vector]]:
        """Where each level's parents keep slopes, curvatures and heights."""
        kept = [(level.slopes, level.curvature, level.height) for level in self.levels[1:]]
        return [*kept, (self.top_slopes, self.top_curvature, self.top_height)]

    def _carry(self, constant: Vector, zero: bool) -> None:
        """Constants of all levels, upwards; with `zero` those of a homogeneous right-hand side."""
        for place, level in enumerate(self.levels):
            level.constant[:] = constant
            last = place + 1 == len(self.levels)
            constant = self.ignored_top if last else np.empty(self.levels[place + 1].mass.size)
            self._of_levels.carry(
                level.parent, level.cap, level.mass, level.idle, level.weight, level.pull,
                level.total, level.constant, level.for_mass, level.for_excess,
                np.zeros(level.mass.size) if zero else level.left,
                level.rho, level.rho_mean, constant,
            )  # fmt: skip

    @property
    def ignored_top(self) -> Vector:
        """Constants of parents that have no level above."""
        return np.empty(self.fixed.size)

    def _hand_down(self, d_weights: Vector) -> Vector:
        """The steps of all masses for a step of the weights; returns those of the blocks."""
        above = self.fixed
        for level in reversed(self.levels):
            self._of_levels.hand_down(
                level.parent, level.slopes, level.weight, level.pull, level.total,
                level.slope_mean, level.pull_mean, level.rho, level.rho_mean, above, d_weights,
                level.d_eta, level.d_mass,
            )  # fmt: skip
            above = level.d_mass
        return self.levels[0].d_mass

    def _complete(self) -> None:
        above = self.fixed
        for place in range(len(self.levels) - 1, -1, -1):
            level = self.levels[place]
            self._of_levels.complete(
                level.parent, level.cap, level.mass, level.above, level.excess, level.idle,
                level.for_mass, level.for_excess, above, level.d_mass,
                level.d_above, level.d_excess, level.d_idle, self.sums[1 + place],
            )  # fmt: skip
            above = level.d_mass

    def step(self) -> None:
        """One predictor-corrector step; rows and levels move with the next `factor`."""
        game, blocks = self.game, self.levels[0]
        size = self.weights.size
        nothing = np.zeros(size)
        limit = CORRECTION * self.barrier
        upper, equal = game.cuts.upper, game.cuts.equal
        weights_rules = upper, self.room, self.prices, equal
        solved = self.matrix, self.columns, self.gram, self.omega
        # The predictor: right-hand sides for mu = 0.
        base = -blocks.mass * blocks.curvature
        for level in self.levels:
            np.multiply(-level.mass, level.above, out=level.for_mass)
            np.multiply(-level.idle, level.excess, out=level.for_excess)
        self._carry(base, zero=False)
        self.centred[0] = (blocks.mass + self._hand_down(nothing)) @ blocks.slopes
        if self.bend is not None:
            self.centred[0] += self._slope()
        centred = np.empty(size)
        self._dense.predictor(
            self.schur, self.centred, nothing, self.weights, self.reduced,
            *weights_rules, *solved, centred, self.d_weights,
        )  # fmt: skip
        new_mass = blocks.mass + self._hand_down(self.d_weights)
        self._complete()
        self._of_rows.predict(
            *self._walked, self.d_weights, new_mass, self.rows_path, limit,
            self.slack, self.dual, self.product,
            self.towards[0], self.against[0], self.up, self.down, self.sums[0],
        )  # fmt: skip
        # What mu and the second-order terms add to the right-hand side.
        products = []
        for level in self.levels:
            bound = limit * level.path
            products.append(
                [
                    np.clip(level.d_above * level.d_mass, -bound, bound),
                    np.clip(level.d_excess * level.d_idle, -bound, bound),
                ]
            )
            level.for_mass[:] = level.for_excess[:] = level.path
        self._carry(self.up, zero=True)
        self.towards[0] += self._hand_down(nothing) @ blocks.slopes
        for level, (of_mass, of_excess) in zip(self.levels, products, strict=True):
            level.for_mass[:], level.for_excess[:] = of_mass, of_excess
        self._carry(self.down, zero=True)
        self.against[0] += self._hand_down(nothing) @ blocks.slopes
        target = self._dense.corrector(
            self.towards, self.against, self.sums, self.total, 1.0 / size, self.complementarity,
            self.weights, self.reduced, *weights_rules, *solved, centred,
            self.d_product, self.d_room, self.d_weights,
        )  # fmt: skip
        for level, (of_mass, of_excess) in zip(self.levels, products, strict=True):
            level.for_mass[:] = target * level.path - of_mass - level.mass * level.above
            level.for_excess[:] = target * level.path - of_excess - level.idle * level.excess
        self._carry(base + target * self.up - self.down, zero=False)
        new_mass = blocks.mass + self._hand_down(self.d_weights)
        self._complete()
        self._of_rows.correct(
            *self._walked, self.d_weights, new_mass, self.rows_path, target,
            self.slack, self.dual, self.product, self.d_height, self.d_dual, self.sums[0],
        )  # fmt: skip
        fraction = 1.0 - min(max(self.gap, LEAST_MARGIN), MOST_MARGIN)
        self._dense.advance(
            self.sums, target, 1.0 / size, fraction, self.d_product, self.d_room, self.d_weights,
            self.omega, upper, self.weights, self.reduced, self.room, self.prices, self.levels_eq,
            self.steps,
        )  # fmt: skip
