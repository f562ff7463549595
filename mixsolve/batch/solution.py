"""What `solve_batch` returns: arrays with an entry a game, and each game's own solution."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from mixsolve.arrays.interop import to_numpy
from mixsolve.arrays.result_file import Kept
from mixsolve.base.errors import MixsolveError
from mixsolve.base.plain import plain
from mixsolve.engines.deferred import DeferredStrategy
from mixsolve.engines.responses import MixedStrategy
from mixsolve.feasible.simplex import Prices
from mixsolve.methods.stopping import Status
from mixsolve.solver.solution import Solution


@dataclass(frozen=True, eq=False, repr=False)
class BatchSolution(Kept):
    """Optimal mixtures of B games, with a certificate for each, recomputed from its losses.

    ``len(solution)`` is B, ``solution[b]`` the `Solution` of game b, and iteration goes through
    them. Two batches are equal where all fields are but the seconds.

    Attributes
    ----------
    weights : array of float64, shape (B, L)
        Probability of each classifier, in the array type and on the device of the input.
    value, risk, lower_bound, gap : ndarray of float64, shape (B,)
        As in `Solution`: ``lower_bound <= optimum <= value`` and ``gap = value - lower_bound``.
    status : ndarray of Status, shape (B,)
        OPTIMAL where the gap is within the tolerance.
    nit : ndarray of int64, shape (B,)
        Iterations.
    attack : ndarray of float64, shape (B, N, m), list of arrays (N_b, m_b), or None
        Probability of each candidate in the attacker's strategy: a list where games have different
        sizes, None where it was not kept.
    attacked_losses : ndarray of float64, shape (B, L)
        Loss of each classifier under the attack.
    smoothing_bound, risk_lower_bound, spread, tolerance : ndarray of float64, shape (B,)
        As in `Solution`.
    n_passes : ndarray of float64, shape (B,)
        Passes over a game's losses.
    alpha, sample_weight : ndarray of float64, shape (B, N), or list of arrays (N_b,)
        As solved.
    n_one_by_one : int
        Games that were given to `mixsolve.solve`, because their gap was above the tolerance.
    timings : dict of str to float
        Seconds by phase: of work in each, then "compile" for kernels that no cache held, "load" for
        imports and for kernels read from the cache, "total" for everything.
    names : tuple of str or None
        What the classifiers are called, where the losses or ``names`` said it.
    """

    weights: Any
    value: np.ndarray
    risk: np.ndarray
    lower_bound: np.ndarray
    gap: np.ndarray
    status: np.ndarray
    nit: np.ndarray
    attack: np.ndarray | list[np.ndarray] | None
    attacked_losses: np.ndarray
    smoothing_bound: np.ndarray
    risk_lower_bound: np.ndarray
    spread: np.ndarray
    tolerance: np.ndarray
    n_passes: np.ndarray
    alpha: np.ndarray | list[np.ndarray]
    sample_weight: np.ndarray | list[np.ndarray]
    n_one_by_one: int
    timings: dict[str, float] = field(compare=False)
    _shapes: np.ndarray
    names: tuple[str, ...] | None = None

    @property
    def success(self) -> np.ndarray:
        """Whether each game's gap is within its tolerance, bool of shape (B,)."""
        return np.array([status is Status.OPTIMAL for status in self.status], dtype=np.bool_)

    @property
    def message(self) -> str:
        """How the games ended, in words."""
        words = f"{int(self.success.sum())} of {len(self)} games within their tolerance"
        if self.n_one_by_one:
            words += f"; {self.n_one_by_one} of them were solved one by one"
        return words

    def raise_for_status(self) -> "BatchSolution":
        """Return the solution itself, or raise `MixsolveError` unless all games are solved."""
        failed = np.flatnonzero(~self.success)
        if failed.size:
            first = int(failed[0])
            raise MixsolveError(
                f"{failed.size} of {len(self)} games were not solved to their tolerance, first "
                f"game {first} ({self.status[first]}, gap {self.gap[first]:.3g})"
            )
        return self

    def __len__(self) -> int:
        return self.value.size

    def __iter__(self) -> Iterator[Solution]:
        return (self[game] for game in range(len(self)))

    def __getitem__(self, game: int) -> Solution:
        """The solution of one game."""
        place = operator.index(game)
        if not -len(self) <= place < len(self):
            raise IndexError(f"game {place} is out of range for {len(self)} games")
        place %= len(self)
        alpha = self.alpha[place]
        status: Status = self.status[place]
        gap, tolerance = float(self.gap[place]), float(self.tolerance[place])
        return Solution(
            weights=self.weights[place],
            value=float(self.value[place]),
            risk=float(self.risk[place]),
            lower_bound=float(self.lower_bound[place]),
            gap=gap,
            attack=self._attack_of(place),
            status=status,
            message=f"{status} (gap {gap:.3g}, tolerance {tolerance:.3g}), as one of a batch",
            nit=int(self.nit[place]),
            n_passes=float(self.n_passes[place]),
            history=(),
            method="newton" if alpha[0] > 0 else "lp",
            alpha=float(alpha[0]) if (alpha == alpha[0]).all() else alpha,
            timings={},
            smoothing_bound=float(self.smoothing_bound[place]),
            risk_lower_bound=float(self.risk_lower_bound[place]),
            spread=float(self.spread[place]),
            tolerance=tolerance,
            sample_weight=self.sample_weight[place],
            prices=Prices(np.empty(0), np.empty(0)),
            attacked_losses=self.attacked_losses[place],
            names=self.names,
        )

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}: {self.message}"]
        for name in ("risk", "value", "gap"):
            figures = getattr(self, name)
            if figures.size:
                lines.append(f"  {name:<5}  {figures.min():.6g} to {figures.max():.6g}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of all games, without the attacks, in lists of Python's numbers.

        Returns
        -------
        dict
        """
        names = ("value", "risk", "lower_bound", "gap", "status", "success", "nit", "names")
        told = {name: getattr(self, name) for name in names}
        return plain(told | {"weights": to_numpy(self.weights, "weights"), "message": self.message})

    def _entries(self) -> dict[str, Any]:
        """The fields to be kept."""
        words = [str(status) for status in self.status]
        return super()._entries() | {"status": np.array(words, dtype=np.str_)}

    @classmethod
    def _restored(cls, entries: dict[str, Any]) -> Self:
        """The batch of these fields."""
        statuses = np.empty(len(entries["status"]), dtype=object)
        statuses[:] = [Status(word) for word in entries["status"].tolist()]
        return super()._restored(entries | {"status": statuses})

    def _attack_of(self, place: int) -> MixedStrategy:
        n_samples, n_candidates = map(int, self._shapes[place])
        if self.attack is None:
            return DeferredStrategy(n_samples, n_candidates, _not_kept)
        table = self.attack[place]
        samples, candidates = np.nonzero(table)
        indptr = np.searchsorted(samples, np.arange(n_samples + 1))
        return MixedStrategy(indptr, candidates, table[samples, candidates], n_candidates)


def _not_kept() -> MixedStrategy:
    raise MixsolveError(
        "the attacks of this batch were not kept; solve it with keep_attack=True for them"
    )
