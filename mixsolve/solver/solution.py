"""What a solve returns: weights, the attacker's mixed strategy, and the certificate."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.engines.responses import MixedStrategy
from mixsolve.methods.stopping import Record, Status

if TYPE_CHECKING:
    from mixsolve.feasible.constraints import LinearConstraints
    from mixsolve.feasible.simplex import Infeasibility, Prices
    from mixsolve.solver.sensitivity import Sensitivity


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
    attack : MixedStrategy
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
        The absolute gap allowed: ``tol * spread``, but at least the rounding of sums of such
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
    attack: MixedStrategy = field(repr=False)
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
        """Whether the certified gap is within the tolerance."""
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
