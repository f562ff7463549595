"""What a solve returns: weights, the attacker's mixed strategy, and the certificate."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError, MixsolveTypeError

if TYPE_CHECKING:
    from mixsolve.feasible.base import Infeasibility, Prices
    from mixsolve.feasible.constraints import LinearConstraints
    from mixsolve.solver.sensitivity import Sensitivity


class Status(StrEnum):
    """How a solve ended.

    OPTIMAL: the certified gap is within the tolerance. MAX_ITER, TIME_LIMIT: a limit was hit, the
    best point so far is returned. STOPPED: the callback said so. FAILED: the method could do no
    better, or its backend gave up. INFEASIBLE: no weights meet the constraints.
    """

    OPTIMAL = "optimal"
    MAX_ITER = "max_iter"
    TIME_LIMIT = "time_limit"
    STOPPED = "stopped"
    FAILED = "failed"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True)
class Record:
    """One line of a solve's history.

    Attributes
    ----------
    nit : int
        Iterations done.
    value : float
        Best objective so far.
    lower_bound : float
        Best lower bound so far.
    gap : float
        ``value - lower_bound``.
    seconds : float
        Since the solve began, without those spent on imports and compilation.
    """

    nit: int
    value: float
    lower_bound: float
    gap: float
    seconds: float


@dataclass(frozen=True)
class Attack:
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
    """

    indptr: np.ndarray
    candidates: np.ndarray
    probabilities: np.ndarray
    n_candidates: int

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

    def part(self, first: int, last: int) -> "Attack":
        """The strategy on the samples first:last alone."""
        entries = slice(*self.indptr[[first, last]])
        return Attack(
            self.indptr[first : last + 1] - self.indptr[first],
            self.candidates[entries],
            self.probabilities[entries],
            self.n_candidates,
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
class Solution:
    """Optimal mixture, attacker's strategy, and the certificate, recomputed from the raw tensor.

    Attributes
    ----------
    weights : array of float64, shape (L,)
        Probability of each classifier, in the array type and on the device of the input.
    value : float
        The objective solved, at `weights`: the exact adversarial risk for alpha = 0, the
        entropic one (eq. 7 of the paper) for alpha > 0.
    risk : float
        The exact adversarial risk at `weights`, whatever alpha.
    lower_bound : float
        No mixture has an objective below this: what `attack` guarantees the attacker. With q the
        attack and g the `attacked_losses`, ``min(g)`` for alpha = 0, and
        ``min(g) - sum_i w_i alpha_i KL(q_i || p_i)`` for alpha > 0.
    gap : float
        ``value - lower_bound``, never negative.
    attack : Attack
        The attacker's mixed strategy, in candidates of the tensor that was given.
    status : Status
        OPTIMAL only when the gap is within the tolerance.
    message : str
        How the solve ended, in words.
    nit : int
        Iterations of the method.
    n_passes : float
        Passes over the whole tensor, checks and certificate included.
    history : tuple of Record
        One record an iteration.
    method : str
        The method that ran.
    alpha : float or ndarray of float64, shape (N,)
        Regularisation, as solved.
    timings : dict of str to float
        Seconds by phase: of work in each, then "compile" for kernels that no cache held, "load" for
        imports and for kernels read from the cache, "total" for everything.
    smoothing_bound : float
        ``risk - value`` is between 0 and this; 0 for alpha = 0.
    risk_lower_bound : float
        No mixture has an exact adversarial risk below this: ``min(g)``, whatever alpha.
    spread : float
        M = max(losses) - min(losses), over what can be played: not masked candidates, samples of
        weight 0, or classifiers that constraints keep at 0. `tol` is relative to it.
    tolerance : float
        The absolute gap asked for: ``tol * spread``, but at least the rounding of sums of such
        losses, 16 machine epsilons of the largest absolute one.
    sample_weight : ndarray of float64, shape (N,)
        Weights of the samples, of sum 1.
    prices : Prices or None
        What one more unit of each linear constraint is worth. None where constraints were given as
        a function, or no weights meet them.
    infeasibility : Infeasibility or None
        Which constraints clash, where no weights meet them.
    constraints : LinearConstraints or None
        The linear constraints, all together, that `prices` belong to.
    attacked_losses : ndarray of float64, shape (L,), or None
        Loss of each classifier under `attack`. None where no weights meet the constraints.
    max_models : int or None
        How many classifiers may have a weight, where that was limited. Then `lower_bound` holds for
        all mixtures of so many, which took many attacks to prove, and `attack`, `prices` and
        `attacked_losses` are about mixtures of the classifiers that `weights` uses.
    """

    weights: Any
    value: float
    risk: float
    lower_bound: float
    gap: float
    attack: Attack = field(repr=False)
    status: Status
    message: str
    nit: int
    n_passes: float
    history: tuple[Record, ...] = field(repr=False)
    method: str
    alpha: float | np.ndarray
    timings: dict[str, float] = field(repr=False)
    smoothing_bound: float
    risk_lower_bound: float
    spread: float
    tolerance: float
    sample_weight: np.ndarray = field(repr=False)
    prices: "Prices | None" = field(default=None, repr=False)
    infeasibility: "Infeasibility | None" = None
    constraints: "LinearConstraints | None" = field(default=None, repr=False)
    attacked_losses: np.ndarray | None = field(default=None, repr=False)
    max_models: int | None = None

    @property
    def success(self) -> bool:
        """Whether the certified gap is within the tolerance asked for."""
        return self.status is Status.OPTIMAL

    def raise_for_status(self) -> "Solution":
        """Return the solution itself, or raise `MixsolveError` when it is not a success."""
        if not self.success:
            raise MixsolveError(f"the solve did not succeed ({self.status}): {self.message}")
        return self

    def reduced_costs(self, new_losses: Any, *, A_ub: Any = None, A_eq: Any = None) -> np.ndarray:
        """How far each of some classifiers that are not in the pool could lower the value.

        A reduced cost is the classifier's loss under `attack` (and what the constraints charge for
        it) less what the mixture pays. With classifiers of reduced costs r added, one or several,
        the value is at least ``lower_bound + min(0, r.min())``: from 0 on a classifier cannot help,
        a negative one can at most by its size.

        Parameters
        ----------
        new_losses : array_like of shape (N, m, K), or list of N arrays of shape (m_i, K)
            Losses of K classifiers on the same samples and candidates. Only entries that `attack`
            plays are looked at.
        A_ub, A_eq : array_like of shape (p, K), (q, K), optional
            Coefficients of the new classifiers in the solution's constraints, which
            ``solution.constraints`` holds; needed where there are any.

        Returns
        -------
        ndarray of float64, shape (K,)

        Raises
        ------
        MixsolveError
            If shapes do not match, coefficients are missing, or constraints were given as a
            function, or ``max_models`` was.

        Examples
        --------
        >>> import numpy as np
        >>> import mixsolve
        >>> losses = np.random.default_rng(0).random((50, 4, 5))
        >>> solution = mixsolve.solve(losses[:, :, :3])
        >>> costs = solution.reduced_costs(losses[:, :, 3:])
        >>> bool(mixsolve.solve(losses).value >= solution.lower_bound + min(0.0, costs.min()))
        True
        """
        from mixsolve.solver.sensitivity import reduced_costs

        return reduced_costs(self, new_losses, A_ub, A_eq)

    def sensitivity(
        self, losses: Any = None, *, candidate_mask: Any = None, candidate_prior: Any = None
    ) -> "Sensitivity":
        """Which samples, candidates, classifiers and constraints carry the value.

        Parameters
        ----------
        losses : array_like, optional
            The losses that were solved; needed for what each sample adds.
        candidate_mask, candidate_prior : array_like, optional
            As they were given to `mixsolve.solve`; only looked at with `losses`.

        Returns
        -------
        Sensitivity

        Raises
        ------
        MixsolveError
            If the losses are not those that were solved, or nothing was.
        """
        from mixsolve.solver.sensitivity import sensitivity

        return sensitivity(self, losses, candidate_mask, candidate_prior)
