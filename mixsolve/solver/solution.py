"""What a solve returns: weights, the attacker's mixed strategy, and the certificate."""

from collections.abc import Hashable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mixsolve.arrays.compared import digest
from mixsolve.arrays.result_file import Kept
from mixsolve.base.errors import MixsolveError
from mixsolve.engines.responses import MixedStrategy
from mixsolve.feasible.constraints import LinearConstraints
from mixsolve.feasible.simplex import Infeasibility, Prices
from mixsolve.methods.stopping import Record, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mixsolve.solver.sensitivity import Sensitivity


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Kept):
    """Optimal mixture, attacker's strategy, and the certificate, recomputed from the raw tensor.

    ``print`` shows the figures in a few lines, a notebook with a bar for each weight. Two solutions
    are equal where all fields are but the seconds that the solve took; a hash goes with that.

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
    names : tuple of str or None
        What the classifiers are called, where the losses, another argument or ``names`` said it.
    attack_weight : ndarray of float64, shape (N,), or None
        Weight of each sample in `attack`, of sum 1: `sample_weight`, unless the attacker chose it
        because ``groups`` or ``tail`` were given. None where no weights meet the constraints.
    group_labels : ndarray of shape (G,), or None
        The labels in ``groups``, sorted. None where none were given, as in the next two.
    group_weights : ndarray of float64, shape (G,), or None
        The attacker's distribution over the groups: part of what proves `lower_bound`.
    group_risks : ndarray of float64, shape (G,), or None
        Exact adversarial risk of each group at `weights` (the mean over its worst share, where
        ``tail`` was given); NaN for a group whose samples all have weight 0.
    tail : float or None
        The share beta of the worst samples, where one below 1 was given.
    """

    _parts: ClassVar = (
        Infeasibility,
        LinearConstraints,
        MixedStrategy,
        Prices,
        Record,
        Status,
    )

    weights: Any
    value: float
    risk: float
    lower_bound: float
    gap: float
    attack: MixedStrategy
    status: Status
    message: str
    nit: int
    n_passes: float
    history: tuple[Record, ...]
    method: str
    alpha: float | np.ndarray
    timings: dict[str, float] = field(compare=False)
    smoothing_bound: float
    risk_lower_bound: float
    spread: float
    tolerance: float
    sample_weight: np.ndarray
    prices: Prices | None = None
    infeasibility: Infeasibility | None = None
    constraints: LinearConstraints | None = None
    attacked_losses: np.ndarray | None = None
    max_models: int | None = None
    names: tuple[str, ...] | None = None
    attack_weight: np.ndarray | None = None
    group_labels: np.ndarray | None = None
    group_weights: np.ndarray | None = None
    group_risks: np.ndarray | None = None
    tail: float | None = None

    @property
    def success(self) -> bool:
        """Whether the certified gap is within the tolerance."""
        return self.status is Status.OPTIMAL

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples, candidates (of the sample with the most) and classifiers."""
        return len(self.attack), self.attack.n_candidates, len(self.weights)

    @property
    def named_weights(self) -> dict[Hashable, float]:
        """Probability of each classifier by its name, by its place where there are no names."""
        from mixsolve.solver.view import as_vector

        weights = as_vector(self).tolist()
        names = range(len(weights)) if self.names is None else self.names
        return dict(zip(names, weights, strict=True))

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

    def to_dict(self, *, attack: bool = False) -> dict[str, Any]:
        """Return the fields as numbers, words, lists and dictionaries of Python.

        Constraints are told by `price_ub`, `price_eq` and `clash`.

        Parameters
        ----------
        attack : bool, default False
            With `attack` (its indptr, candidates and probabilities), `sample_weight` and
            `attack_weight`, which hold numbers for each sample.

        Returns
        -------
        dict
        """
        from mixsolve.solver.view import as_dict

        return as_dict(self, attack)

    def plot(
        self, losses: Any = None, *, candidate_mask: Any = None, candidate_prior: Any = None
    ) -> "Figure":
        """Draw the weights, the risks of classifiers and mixtures, and the gap over time.

        Parameters
        ----------
        losses : array_like, optional
            The losses that were solved. With them the risks are those of each classifier alone and
            of the uniform mixture, each against its own best response, beside the optimal one. They
            take a pass over the losses each. Without, only what each classifier loses to `attack`
            is known, which its risk is no less than.
        candidate_mask, candidate_prior : array_like, optional
            As they were given to `mixsolve.solve`; only looked at with `losses`.

        Returns
        -------
        matplotlib.figure.Figure
            To be written with ``mixsolve.plots.save``.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        MixsolveError
            The losses are not those that were solved, or nothing was.
        """
        from mixsolve.solver.picture import figure

        return figure(self, losses, candidate_mask, candidate_prior)

    def __hash__(self) -> int:
        return digest((str(self.status), self.method, self.nit, self.value, self.weights))

    def __repr__(self) -> str:
        from mixsolve.solver.view import text

        return text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from mixsolve.solver.view import html

        return html(self)

    def _entries(self) -> dict[str, Any]:
        """The fields to be kept, with an attack that may still have to be computed."""
        entries = {each.name: getattr(self, each.name) for each in fields(Solution)}
        strategy = self.attack
        parts = (strategy.indptr, strategy.candidates, strategy.probabilities)
        return entries | {"attack": MixedStrategy(*parts, strategy.n_candidates, strategy.weight)}

    def _arrays(self) -> dict[str, np.ndarray]:
        """All that the file holds; beside the fields, what is derived from them."""
        from mixsolve.solver.view import as_dict

        told = as_dict(self)
        derived = {name: told[name] for name in ("success", "price_ub", "price_eq") if name in told}
        return {name: np.array(value) for name, value in derived.items()} | super()._arrays()
