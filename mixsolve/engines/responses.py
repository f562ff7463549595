"""What the attacker answers to some weights: pure best responses, soft ones, mixed strategies."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mixsolve.arrays.compared import Compared
from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveTypeError


@dataclass(frozen=True)
class BestResponse:
    """The attacker's pure best response to some weights.

    Attributes
    ----------
    value : float
        ``sum_i w_i max_j <lam, l_ij>``, the exact adversarial risk.
    gradient : ndarray of float64, shape (L,)
        Loss of each classifier under this response: a subgradient.
    candidates : ndarray of int64, shape (N,)
        The (first) best candidate of each sample.
    """

    value: float
    gradient: np.ndarray
    candidates: np.ndarray

    @property
    def struck(self) -> np.ndarray | None:
        """Weight (N,) of each sample, where the attacker chooses it; None for the game's own."""
        return None

    def of(self, samples: np.ndarray) -> np.ndarray:
        """Best candidates of a few samples, int64 and ascending."""
        return self.candidates[samples]

    def moved(self, earlier: "BestResponse") -> np.ndarray:
        """Samples, ascending, whose best candidate is another than in an earlier response."""
        return np.flatnonzero(self.candidates != earlier.candidates)


@dataclass(frozen=True)
class NearResponse(BestResponse):
    """A best response, and the candidates that may win for slightly different weights.

    Attributes
    ----------
    near_samples, near_candidates : ndarray of int64, shape (n,)
        For each sample that has a near candidate besides its best one: all of them and the best,
        samples ascending.
    n_near : int
        How many there were; above n when there were more than were kept.
    """

    near_samples: np.ndarray
    near_candidates: np.ndarray
    n_near: int


@dataclass(frozen=True)
class SoftResponse:
    """The entropic objective of eq. (7) at some weights, with derivatives.

    Attributes
    ----------
    value : float
        ``sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i)``.
    gradient : ndarray of float64, shape (L,)
        Loss of each classifier under the Gibbs strategy.
    hessian : ndarray of float64, shape (L, L), or None
        ``sum_i w_i / alpha_i Cov_q(l_i)``; None where not computed.
    """

    value: float
    gradient: np.ndarray
    hessian: np.ndarray | None

    def lower_bound(self, weights: np.ndarray, lowest: float) -> float:
        """A bound on the optimum by convexity: ``F(lam) - <lam, g> + min <g, .>``."""
        return self.value - float(weights @ self.gradient) + lowest


@dataclass(frozen=True, eq=False)
class MixedStrategy(Compared):
    """The attacker's mixed strategy: for each sample, a distribution over its candidates.

    Only candidates of positive probability are kept, sample after sample. Of a Gibbs strategy
    (alpha > 0) those 40 alpha and more below the best are left out: rounding would lose them.

    Attributes
    ----------
    indptr : ndarray of int64, shape (N + 1,)
        Sample i owns the entries ``indptr[i]:indptr[i + 1]``.
    candidates : ndarray of int64, shape (n_entries,)
        Indices into the candidate axis of the tensor that was given.
    probabilities : ndarray of float64, shape (n_entries,)
        Positive, summing to 1 within each sample.
    n_candidates : int
        Length of the candidate axis (the longest, for a ragged tensor).
    weight : ndarray of float64, shape (N,), or None
        How the attacker weighs the samples, where he chooses that: of sum 1. None for the weights
        of the game.
    """

    indptr: np.ndarray
    candidates: np.ndarray
    probabilities: np.ndarray
    n_candidates: int
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return self.indptr.size - 1

    def __getitem__(self, sample: int) -> tuple[np.ndarray, np.ndarray]:
        """Candidate indices and probabilities of one sample."""
        n_samples = len(self)
        if isinstance(sample, bool | np.bool_):
            raise MixsolveTypeError(f"a sample must be an integer, got {sample!r} (bool)")
        if not -n_samples <= sample < n_samples:
            raise IndexError(f"sample {sample} is out of range for {n_samples} samples")
        entries = slice(*self.indptr[sample % n_samples :][:2])
        return self.candidates[entries], self.probabilities[entries]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[sample] for sample in range(len(self)))

    @property
    def samples(self) -> np.ndarray:
        """The sample each entry belongs to, int64 of shape (n_entries,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def part(self, first: int, last: int) -> "MixedStrategy":
        """The strategy on the samples first:last alone."""
        entries = slice(*self.indptr[[first, last]])
        return MixedStrategy(
            self.indptr[first : last + 1] - self.indptr[first],
            self.candidates[entries],
            self.probabilities[entries],
            self.n_candidates,
            None if self.weight is None else self.weight[first:last],
        )

    def weighed(self, weight: np.ndarray) -> "MixedStrategy":
        """The same strategy, with weights (N,) of the samples."""
        return MixedStrategy(
            self.indptr, self.candidates, self.probabilities, self.n_candidates, weight
        )

    def dense(self) -> np.ndarray:
        """Probabilities as a float64 array of shape (N, n_candidates), zeros included."""
        table = np.zeros((len(self), self.n_candidates))
        table[self.samples, self.candidates] = self.probabilities
        return table

    def sample(self, rng: np.random.Generator | int | None = None) -> np.ndarray:
        """Draw one candidate for each sample.

        Parameters
        ----------
        rng : numpy.random.Generator, int or None
            Source of randomness, or its seed.

        Returns
        -------
        ndarray of int64, shape (N,)
            Indices into the candidate axis of the tensor that was given.
        """
        if rng is not None and not isinstance(rng, np.random.Generator):
            rng = as_count("rng", rng, minimum=0)
        draws = np.random.default_rng(rng).random(len(self))
        cumulative = np.cumsum(self.probabilities)
        before = np.concatenate([[0.0], cumulative])[self.indptr]
        # Draw i looks up before[i] + u * (mass of sample i); clipping keeps rounding inside.
        entry = np.searchsorted(cumulative, before[:-1] + draws * np.diff(before), side="right")
        return self.candidates[np.clip(entry, self.indptr[:-1], self.indptr[1:] - 1)]


@dataclass(frozen=True)
class SoftAnswer:
    """All that a certificate of eq. (7) needs at some weights.

    Attributes
    ----------
    soft : SoftResponse
        Without a Hessian.
    best : BestResponse or None
        The pure best response; None where it has not been computed.
    attack : MixedStrategy or None
        The Gibbs strategy; likewise.
    """

    soft: SoftResponse
    best: BestResponse | None = None
    attack: MixedStrategy | None = None
