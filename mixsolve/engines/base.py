"""What an engine is: a few passes over the tensor, each a sum over samples.

Methods are written against this protocol alone, so every method runs on every engine, and between
an engine's parts (threads, blocks, devices, ranks) only L or L x L numbers need to travel.

An engine counts losses in a unit of 2^e, so that no square over- or underflows. A game times 2^e is
the same game, to the last bit, as long as nothing leaves the range of float64. Losses within 2^-200
to 2^200 are taken as they are; others are scaled as they are read.
"""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np

from mixsolve.arrays.labels import GameLabels
from mixsolve.arrays.tensor import Shape
from mixsolve.engines.responses import (
    BestResponse,
    MixedStrategy,
    NearResponse,
    SoftAnswer,
    SoftResponse,
)


class Engine(Protocol):
    """Passes over a checked loss tensor.

    Attributes
    ----------
    n_samples, n_classifiers, n_rows : int
        N, L, and the candidates of all samples together.
    sample_weight : ndarray of float64, shape (N,)
        Non-negative, sum 1.
    lowest, highest : float
        Extremes of the losses that count: of candidates that may be played, samples of positive
        weight, and classifiers that may have one.
    spread : float
        M = ``highest - lowest``.
    magnitude : float
        max(abs(losses)) over the same.
    n_bytes : int
        Memory of the losses as they are stored.
    n_passes : float
        Passes over the whole tensor so far.
    classifiers : ndarray of int64, or None
        Those that may have a weight; None for all.
    """

    n_samples: int
    n_classifiers: int
    n_rows: int
    n_bytes: int
    sample_weight: np.ndarray
    lowest: float
    highest: float
    spread: float
    magnitude: float
    n_passes: float
    classifiers: np.ndarray | None

    def confined(self, classifiers: np.ndarray) -> "Engine":
        """The same game in which only some classifiers may have a weight; one pass."""
        ...

    def in_unit(self, exponent: int) -> "Engine":
        """The same game with its losses in units of 2^exponent."""
        ...

    def best_response(self, weights: np.ndarray) -> BestResponse:
        """The attacker's best response to `weights`, float64 of shape (L,)."""
        ...

    def near_response(
        self, weights: np.ndarray, radius: float, limit: int, slack: np.ndarray | None = None
    ) -> NearResponse:
        """The best response, and candidates that may win for weights `radius` away.

        A candidate counts when weights that differ from `weights` by `radius` (Euclidean) along the
        difference between its losses and the best candidate's bring it within `slack`, float64 of
        shape (N,), of the best. Without `slack`, of many near candidates only those count that win
        when one weight changes. About `limit` entries are kept at most.
        """
        ...

    def soft_response(
        self, weights: np.ndarray, alpha: np.ndarray, hessian: bool = True
    ) -> SoftResponse:
        """Eq. (7) at `weights`, float64 of shape (L,), for `alpha` > 0 of shape (N,)."""
        ...

    def rough_response(self, weights: np.ndarray, alpha: np.ndarray) -> SoftResponse:
        """Eq. (7) with a Hessian that may be an estimate from some of the samples."""
        ...

    def soft_answer(self, weights: np.ndarray, alpha: np.ndarray) -> SoftAnswer:
        """Eq. (7) without a Hessian where the method is expected to end.

        Best response and Gibbs strategy come from the same pass, where an engine can do that;
        `best_response` and `gibbs` then know them.
        """
        ...

    def gibbs(self, weights: np.ndarray, alpha: np.ndarray) -> MixedStrategy:
        """The attacker's Gibbs strategy, without candidates 40 alpha below the best and more.

        Their probabilities are below the rounding of the certificate.
        """
        ...

    def gather(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Losses of chosen candidates, float64 of shape (n, L); `samples` ascending."""
        ...

    def every_candidate(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples (ascending) and candidates of all rows that may be played."""
        ...

    def subsample(self, samples: np.ndarray) -> "Engine":
        """An engine on a few samples alone (ascending), their weights divided by their sum."""
        ...

    def log_prior(self, samples: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Logarithm of the base measure p_ij of chosen candidates, at most 0."""
        ...

    @property
    def surprise(self) -> float:
        """A bound on log(1 / p_ij) of all candidates that may be played."""
        ...

    def strategy(
        self, samples: np.ndarray, candidates: np.ndarray, mass: np.ndarray
    ) -> MixedStrategy:
        """An attack from non-negative masses of distinct candidates.

        `samples` is ascending and has every sample. A sample whose masses are all 0 plays the first
        of its candidates listed.
        """
        ...

    def expected_losses(self, attack: MixedStrategy) -> np.ndarray:
        """Loss of each classifier under an attack, float64 of shape (L,), from the raw tensor."""
        ...


class Losses(Shape, ABC):
    """Checked losses in memory or elsewhere, from which `mixsolve.solve` makes an engine."""

    labels: GameLabels = GameLabels()
    """Names of samples, candidates and classifiers."""

    @abstractmethod
    def engine(self, sample_weight: np.ndarray, allowed: np.ndarray, prior: np.ndarray) -> Engine:
        """Make the engine.

        Parameters
        ----------
        sample_weight : ndarray of float64, shape (N,)
            Non-negative, sum 1.
        allowed : ndarray of uint8, shape (n_rows,) or (0,)
            Candidates that may be played; empty for all.
        prior : ndarray of float64, shape (n_rows,) or (0,)
            Base measure up to a factor for each sample, 0 where a candidate may not be played;
            empty for uniform.

        Raises
        ------
        MixsolveError
            If a candidate that may be played has a NaN or infinite loss.
        """

    @abstractmethod
    def restore(self, weights: np.ndarray) -> Any:
        """Weights, float64 of shape (L,), as the caller's kind of array."""
