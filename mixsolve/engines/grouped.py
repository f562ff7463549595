"""A game in which the attacker chooses a distribution over blocks of samples, too.

    max_{m in W}  sum_b m_b f_b(lam),   f_b(lam) = sum_{i in b} share_i max_j <lam, l_ij>

(and the same with eq. (7) in the maximum's place). A pass of the engine below finds each sample's
best candidate; the sums over blocks, B x L numbers, are taken where the tensor lies. Value and
gradient are those of the attacker's best distribution, so every method that only looks at these
runs as it is. An attack carries the weight of each sample: `MixedStrategy.weight`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixsolve.engines.base import Engine
from mixsolve.engines.bookkeeping import count_passes
from mixsolve.engines.responses import (
    BestResponse,
    MixedStrategy,
    NearResponse,
    SoftAnswer,
    SoftResponse,
)
from mixsolve.small_game.mass_set import MassSet


@dataclass(frozen=True)
class Blocks:
    """Which samples the attacker weighs together.

    Attributes
    ----------
    block : ndarray of int64, shape (N,)
        Of each sample.
    share : ndarray of float64, shape (N,)
        The sample's weight in its block: non-negative, of sum 1 in each block that is `active`.
    active : ndarray of int64, shape (A,)
        Blocks that may have a mass, ascending.
    n_blocks : int
        B.
    masses : MassSet
        What the attacker may put on the active ones.
    prior : ndarray of float64, shape (A,)
        Their weights in the game as it was given, of sum 1.
    temperature : float
        Above 0, the masses m are charged ``temperature * KL(m || prior)``.
    """

    block: np.ndarray
    share: np.ndarray
    active: np.ndarray
    n_blocks: int
    masses: MassSet
    prior: np.ndarray
    temperature: float = 0.0

    def in_unit(self, exponent: int) -> "Blocks":
        """The same for losses in units of 2^exponent."""
        if not exponent or not self.temperature:
            return self
        return replace(self, temperature=float(np.ldexp(self.temperature, -exponent)))

    def place(self) -> np.ndarray:
        """Number of each block among the active ones, int64 of shape (B,); -1 of the others."""
        place = np.full(self.n_blocks, -1, dtype=np.int64)
        place[self.active] = np.arange(self.active.size)
        return place

    def struck(self, mass: np.ndarray) -> np.ndarray:
        """Weight (N,) of each sample under masses (A,) of the active blocks."""
        every = np.zeros(self.n_blocks)
        every[self.active] = mass
        return every[self.block] * self.share

    def choose(self, heights: np.ndarray) -> tuple[float, np.ndarray]:
        """The attacker's best masses (A,) for heights (A,), and what they are worth."""
        if self.temperature == 0.0:
            return self.masses.support(heights)
        highest = float(heights.max())
        mass = self.prior * np.exp((heights - highest) / self.temperature)
        total = float(mass.sum())
        return highest + self.temperature * float(np.log(total)), mass / total


@dataclass(frozen=True)
class GroupedResponse(NearResponse):
    """A best response with the attacker's best masses.

    Attributes
    ----------
    sums : ndarray of float64, shape (A, L)
        Loss of each classifier on each active block.
    mass : ndarray of float64, shape (A,)
        Of the blocks.
    blocks : Blocks
        What they belong to.
    """

    sums: np.ndarray
    mass: np.ndarray
    blocks: Blocks

    @property
    def struck(self) -> np.ndarray:
        return self.blocks.struck(self.mass)


@dataclass(frozen=True)
class SoftBlocks:
    """Eq. (7) on each block.

    Attributes
    ----------
    values : ndarray of float64, shape (A,)
        Of each active block.
    gradients : ndarray of float64, shape (A, L)
        Loss of each classifier under the Gibbs strategy.
    """

    values: np.ndarray
    gradients: np.ndarray


class GroupedEngine:
    """The passes of an engine, for a game over the blocks. See `mixsolve.engines.Engine`.

    Parameters
    ----------
    engine : Engine
        Its samples have the weights of the game as it was given, 0 where they cannot be struck.
    blocks : Blocks
        Of its samples.
    """

    def __init__(self, engine: Any, blocks: Blocks) -> None:
        self.inner = engine
        self.blocks = blocks
        self.sample_weight = engine.sample_weight
        self._shared = engine.weighed(blocks.share)
        self._soft: tuple[np.ndarray, np.ndarray, SoftBlocks] | None = None

    def __getattr__(self, name: str) -> Any:
        # Sizes, extremes, masks and rows are those of the engine below.
        if name in ("inner", "_shared"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def n_passes(self) -> float:
        """Passes over the whole tensor so far."""
        count_passes(self.inner, self._shared)
        return float(self.inner.n_passes)

    @n_passes.setter
    def n_passes(self, count: float) -> None:
        self._shared.n_passes = 0.0
        self.inner.n_passes = count

    def best_response(self, weights: np.ndarray) -> GroupedResponse:
        """See `Engine.best_response`; the attacker plays his best distribution over blocks."""
        found = self._shared.best_response(weights)
        empty = np.empty(0, dtype=np.int64)
        return self._with_sums(weights, found, (empty, empty, 0))

    def near_response(
        self, weights: np.ndarray, radius: float, limit: int, slack: np.ndarray | None = None
    ) -> GroupedResponse:
        """See `Engine.near_response`."""
        found = self._shared.near_response(weights, radius, limit, slack)
        near = found.near_samples, found.near_candidates, found.n_near
        return self._with_sums(weights, found, near)

    def _with_sums(
        self, weights: np.ndarray, found: BestResponse, near: tuple[np.ndarray, np.ndarray, int]
    ) -> GroupedResponse:
        blocks, candidates = self.blocks, found.candidates
        sums = self._shared.group_sums(candidates, blocks.block, blocks.n_blocks)[blocks.active]
        value, mass = blocks.masses.support(sums @ weights)
        return GroupedResponse(value, mass @ sums, candidates, *near, sums, mass, blocks)

    def soft_blocks(self, weights: np.ndarray, alpha: np.ndarray) -> SoftBlocks:
        """Eq. (7) on each active block, in a pass."""
        if self._soft is not None and self._soft[1] is alpha:
            known, _, found = self._soft
            if np.array_equal(known, weights):
                return found
        blocks = self.blocks
        values, gradients = self._shared.soft_sums(weights, alpha, blocks.block, blocks.n_blocks)
        found = SoftBlocks(values[blocks.active], gradients[blocks.active])
        self._soft = weights.copy(), alpha, found
        return found

    def bend(self, weights: np.ndarray, alpha: np.ndarray, mass: np.ndarray) -> np.ndarray:
        """Hessian (L, L) of eq. (7) under some masses (A,), in a pass."""
        part = self.inner.weighed(self.blocks.struck(mass))
        hessian = part.soft_response(weights, alpha, True).hessian
        count_passes(self.inner, part)
        assert hessian is not None
        return hessian

    def soft_response(
        self, weights: np.ndarray, alpha: np.ndarray, hessian: bool = True
    ) -> SoftResponse:
        """See `Engine.soft_response`; the Hessian is that of a choice with a temperature."""
        soft = self.soft_blocks(weights, alpha)
        value, mass = self.blocks.choose(soft.values)
        gradient = mass @ soft.gradients
        square = None
        if hessian:
            square = self.bend(weights, alpha, mass)
            if self.blocks.temperature > 0.0:
                apart = soft.gradients - gradient
                square = square + (mass * apart.T) @ apart / self.blocks.temperature
        return SoftResponse(value, gradient, square)

    def rough_response(self, weights: np.ndarray, alpha: np.ndarray) -> SoftResponse:
        """See `Engine.rough_response`; exact here."""
        return self.soft_response(weights, alpha)

    def soft_answer(self, weights: np.ndarray, alpha: np.ndarray) -> SoftAnswer:
        """See `Engine.soft_answer`; each part takes a pass of its own here."""
        return SoftAnswer(self.soft_response(weights, alpha, False))

    def gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        """See `Engine.gibbs`; with the samples' weights under the attacker's best masses."""
        _, mass = self.blocks.choose(self.soft_blocks(weights, alpha).values)
        return self.inner.gibbs(weights, alpha).weighed(self.blocks.struck(mass))

    def expected_losses(self, attack: MixedStrategy) -> np.ndarray:
        """See `Engine.expected_losses`; the attack has weights of its own."""
        assert attack.weight is not None  # set by what made it
        part = self.inner.weighed(attack.weight)
        losses = part.expected_losses(attack)
        count_passes(self.inner, part)
        return np.asarray(losses)


def inner_engine(engine: Engine) -> Engine:
    """The engine of the samples, below that of the blocks if there is one."""
    return engine.inner if isinstance(engine, GroupedEngine) else engine
