"""The distributions over blocks of samples that the attacker may choose from.

    W = {m >= 0 : sum of the children's masses = the parent's, m_c <= cap_c times the parent's}

in one level or two, below parents of given masses. Distributions over groups are one level under a
parent of mass 1, caps being the groups' bounds; the mean over the worst share beta of the samples
is the same with a block for each sample and caps w_i / beta (the conditional value at risk); that
mean within groups is both, one above the other. W is compact and convex, so the game over
it has an equilibrium. Its support function is a greedy filling: the highest children first, each up
to its cap.

Reference: Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000.
"""

from dataclasses import dataclass

import numpy as np

_ROUNDS = 4  # of scaling and clipping, before what is left goes where there is room


@dataclass(frozen=True)
class Level:
    """Children under parents.

    Attributes
    ----------
    parent : ndarray of int64, shape (C,)
        Of each child; every parent has one.
    cap : ndarray of float64, shape (C,)
        Positive; the most a child may have of its parent's mass. Above 1 it does not bind. Those
        of a parent sum to more than 1.
    """

    parent: np.ndarray
    cap: np.ndarray

    def fill(self, heights: np.ndarray, n_parents: int) -> tuple[np.ndarray, np.ndarray]:
        """Each child's share (C,) of its parent's mass, and the parents' heights (P,)."""
        order = np.lexsort((-heights, self.parent))
        caps = self.cap[order]
        first = np.searchsorted(self.parent[order], np.arange(n_parents))
        before = np.cumsum(caps) - caps
        room = 1.0 - (before - before[first][self.parent[order]])
        share = np.zeros(caps.size)
        share[order] = np.clip(room, 0.0, caps)
        share /= np.bincount(self.parent, share, minlength=n_parents)[self.parent]
        return share, np.bincount(self.parent, share * heights, minlength=n_parents)

    def project(self, mass: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Masses (C,) near those given, whose sums are the parents' (P,), within the caps."""
        most = self.cap * above[self.parent]
        mass = np.clip(mass, 0.0, most)
        for _ in range(_ROUNDS):
            total = np.bincount(self.parent, mass, minlength=above.size)
            empty = total <= 0.0
            if empty.any():
                mass = np.where(empty[self.parent], most, mass)
                total = np.bincount(self.parent, mass, minlength=above.size)
            scale = np.divide(above, total, out=np.zeros_like(above), where=total > 0.0)
            mass = np.minimum(mass * scale[self.parent], most)
        room = most - mass
        left = above - np.bincount(self.parent, mass, minlength=above.size)
        rooms = np.bincount(self.parent, room, minlength=above.size)
        share = np.divide(left, rooms, out=np.zeros_like(left), where=(rooms > 0.0) & (left > 0.0))
        return mass + np.minimum(share, 1.0)[self.parent] * room


@dataclass(frozen=True)
class MassSet:
    """What the attacker may put on blocks.

    Attributes
    ----------
    levels : tuple of Level
        From the blocks upwards; one or two.
    top : ndarray of float64, shape (P,)
        Masses of the last level's parents, positive, of sum 1.
    """

    levels: tuple[Level, ...]
    top: np.ndarray

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return self.levels[0].parent.size

    def _sizes(self) -> list[int]:
        """Parents of each level."""
        return [*(level.parent.size for level in self.levels[1:]), self.top.size]

    def support(self, heights: np.ndarray) -> tuple[float, np.ndarray]:
        """The largest ``<m, heights>`` over the set, and masses (B,) that reach it."""
        shares, now = [], heights
        for level, size in zip(self.levels, self._sizes(), strict=True):
            share, now = level.fill(now, size)
            shares.append(share)
        mass = self.top
        for level, share in zip(reversed(self.levels), reversed(shares), strict=True):
            mass = share * mass[level.parent]
        return float(mass @ heights), mass

    def project(self, mass: np.ndarray) -> np.ndarray:
        """Masses (B,) of the set near those given."""
        sums = [mass]
        for level, size in zip(self.levels[:-1], self._sizes(), strict=False):
            sums.append(np.bincount(level.parent, sums[-1], minlength=size))
        above = self.top
        for level, given in zip(reversed(self.levels), reversed(sums), strict=True):
            above = level.project(given, above)
        return above

    def centre(self) -> list[np.ndarray]:
        """Masses inside the set, of each level's children."""
        above = self.top
        found: list[np.ndarray] = []
        for level in reversed(self.levels):
            cap = np.minimum(level.cap, 1.0)
            total = np.bincount(level.parent, cap, minlength=above.size)
            above = cap / total[level.parent] * above[level.parent]
            found.insert(0, above)
        return found
