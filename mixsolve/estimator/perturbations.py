"""Attack candidates for samples that are rows of numbers, for `MixtureClassifier`.

A perturbation is any callable ``perturb(estimators, X, y, rng)``: the fitted members, samples X of
shape (n, features), their true classes y of shape (n,) and a `numpy.random.Generator`. It returns
the candidates: an iterable of arrays shaped like X, the j-th with candidate j of all samples. It
may be an array of shape (candidates, n, features), or a generator, which keeps one candidate at a
time in memory.

The random draws below do not use the members and find weak attacks in many dimensions: a guarantee
against them is a guarantee against noise. Attacks that use the members are written by the caller.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, sections 4.1, 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixsolve.base.arguments import as_count, as_length, as_norm, as_real
from mixsolve.base.errors import MixsolveError

__all__ = ["Perturbation", "UniformBall"]

Perturbation = Callable[
    [Sequence[Any], NDArray[Any], NDArray[Any], np.random.Generator], Iterable[ArrayLike]
]


@dataclass(frozen=True)
class UniformBall:
    """Draw points uniformly in a ball around each sample, the attack of the paper's section 5.1.

    Parameters
    ----------
    norm : {"Linf", "L2", "L1"}
        The norm of the ball over the features of one sample; other spellings such as "inf" or "l2"
        are accepted.
    eps : float or str
        The radius, at least 0, in the unit of the features: a number, or a fraction as "8/255".
    draws : int, default 10
        Candidates for each sample.
    low, high : float, optional
        Limits of the features; draws are clipped to them.

    Raises
    ------
    MixsolveError
        A parameter that is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> perturb = UniformBall("Linf", 0.5, draws=3, low=0.0)
    >>> candidates = list(perturb([], np.zeros((4, 2)), np.zeros(4), np.random.default_rng(0)))
    >>> len(candidates), candidates[0].shape
    (3, (4, 2))
    >>> bool(0 <= np.min(candidates) and np.max(candidates) <= 0.5)
    True
    """

    norm: str
    eps: float
    _: KW_ONLY
    draws: int = 10
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "norm", as_norm("norm", self.norm))
        object.__setattr__(self, "eps", as_length("eps", self.eps))
        as_count("draws", self.draws)
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                as_real(name, getattr(self, name))
        if self.low is not None and self.high is not None and self.low > self.high:
            raise MixsolveError(f"low must be at most high; got {self.low} and {self.high}")

    def __call__(
        self,
        estimators: Sequence[Any],
        X: NDArray[Any],
        y: NDArray[Any],
        rng: np.random.Generator,
    ) -> Iterator[NDArray[np.float64]]:
        """Yield the draws (n, features) around the samples; members and classes are not used."""
        for _ in range(self.draws):
            points = X + self.eps * self._unit(X.shape, rng)
            if self.low is not None or self.high is not None:
                points = np.clip(points, self.low, self.high)
            yield points

    def _unit(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw one point of the unit ball a row."""
        if self.norm == "Linf":
            return rng.uniform(-1.0, 1.0, shape)
        if self.norm == "L1":
            sizes = rng.standard_exponential((shape[0], shape[1] + 1))
            sizes = sizes[:, :-1] / sizes.sum(axis=1, keepdims=True)
            return sizes * rng.choice([-1.0, 1.0], shape)
        directions = rng.standard_normal(shape)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return directions * rng.random((shape[0], 1)) ** (1.0 / shape[1])
