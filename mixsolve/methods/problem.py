"""The problem that a method is given, and the outcome that it returns.

The entropic objective lies between the mean of the scores and their maximum. With M the spread of
the losses it is within M^2 / (8 alpha) of the one and alpha log(1 / p) of the other: beyond a
factor of 2^60 and 2^-90 these are less than the rounding of a sum, and alpha is clipped there.
"""

from dataclasses import dataclass, field

import numpy as np

from mixsolve.engines.base import Engine
from mixsolve.engines.grouped import Blocks, GroupedEngine
from mixsolve.engines.responses import MixedStrategy, SoftResponse
from mixsolve.feasible import FeasibleSet, Simplex
from mixsolve.kernels.constants import EPSILON, LEAST_ALPHA, MOST_ALPHA

_ROUNDED = 1e-13  # a share of a sample's measure that is none


@dataclass(frozen=True)
class Problem:
    """The game to solve.

    Attributes
    ----------
    engine : Engine
        Passes over the tensor.
    alpha : ndarray of float64, shape (N,), or None
        Regularisation of each sample, all positive; None for the exact problem.
    feasible : FeasibleSet
        Weights that the mixture may have; not empty.
    presolve : bool
        Whether the method may shrink the game first.
    warm : bool
        Whether the start was given by the caller and is therefore taken to be near the optimum.
    """

    engine: Engine
    alpha: np.ndarray | None
    feasible: FeasibleSet = field(default_factory=Simplex)
    presolve: bool = True
    warm: bool = False

    def smoothing(self) -> float:
        """A bound on how far eq. (7) is below the exact risk, at any weights."""
        assert self.alpha is not None
        if blocks_of(self) is not None:  # the attacker may strike where alpha is largest
            return float(self.alpha.max()) * self.engine.surprise
        return float(self.engine.sample_weight @ self.alpha) * self.engine.surprise

    def divergence(self, attack: MixedStrategy) -> float:
        """sum_i w_i alpha_i KL(q_i || p_i): what eq. (7) takes from an attack q.

        With r = q / p - 1, KL is the sum of p ((1 + r) log(1 + r) - r) >= 0 over the candidates
        played and of p over the others: no digits are lost where q is nearly p and alpha is large.
        """
        assert self.alpha is not None
        samples, share = attack.samples, attack.probabilities
        measure = np.exp(self.engine.log_prior(samples, attack.candidates))
        excess = (share - measure) / measure
        rare = excess < -0.5  # perhaps so rare that 1 + r is 0
        surprise = np.log1p(np.where(rare, 0.0, excess))
        surprise[rare] = np.log(share[rare] / measure[rare])
        terms = measure * ((1.0 + excess) * surprise - excess)
        terms[rare] = share[rare] * surprise[rare] - (share[rare] - measure[rare])
        size = self.engine.n_samples
        left = 1.0 - np.bincount(samples, measure, minlength=size)
        left[left < _ROUNDED] = 0.0
        each = np.bincount(samples, terms, minlength=size) + left
        weight = self.engine.sample_weight if attack.weight is None else attack.weight
        return float((weight * self.alpha) @ each)

    def soft_response(self, weights: np.ndarray, hessian: bool = False) -> SoftResponse:
        """Eq. (7) at `weights` of shape (L,), with this problem's alpha."""
        assert self.alpha is not None
        return self.engine.soft_response(weights, self.alpha, hessian)


def blocks_of(problem: Problem) -> Blocks | None:
    """The blocks of samples that the attacker weighs; None in the ordinary game."""
    engine = problem.engine
    return engine.blocks if isinstance(engine, GroupedEngine) else None


def within_reach(alpha: np.ndarray, engine: Engine) -> np.ndarray:
    """Regularisations (N,), clipped to the range within which they differ from their limits."""
    spread = max(engine.spread, EPSILON * engine.magnitude)
    if spread == 0.0:
        return alpha
    lowest, highest = spread * LEAST_ALPHA, spread * MOST_ALPHA
    if lowest <= alpha.min() and alpha.max() <= highest:
        return alpha
    return np.clip(alpha, lowest, highest)


@dataclass(frozen=True)
class Outcome:
    """The result of a method; the certificate is computed from it afterwards.

    Attributes
    ----------
    weights : ndarray of float64, shape (L,)
        Feasible.
    attack : MixedStrategy or None
        The attacker's strategy; None for the Gibbs strategy at `proof` (alpha > 0), or the best
        response to `weights` (alpha = 0). For alpha > 0 any strategy proves a bound.
    proof : ndarray of float64, shape (L,), or None
        For alpha > 0, the point whose Gibbs strategy gives the lower bound; None for `weights`.
    message : str
        What a reader of the solution may want to know of the run; may be empty.
    timings : dict of str to float, or None
        Seconds by phase of the method.
    feasible : FeasibleSet or None
        The mixtures that `attack` is played against; None for all of the problem's.
    lower_bound : float or None
        Where that is only a part: a bound for all of them, which took many attacks to prove.
    """

    weights: np.ndarray
    attack: MixedStrategy | None = None
    proof: np.ndarray | None = None
    message: str = ""
    timings: dict[str, float] | None = None
    feasible: FeasibleSet | None = None
    lower_bound: float | None = None
