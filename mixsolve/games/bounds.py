"""The bounds of the theory in numbers: Propositions 4, 5 and 6 of the paper, and a sharper one.

Notation: N samples, m candidates a sample, L classifiers, losses in [0, M], alpha the entropic
regularisation; R* is the optimal adversarial risk over mixtures, R*_alpha the optimum of the
entropic problem with the whole base measure U, R*_alpha,m its estimate from m draws of U (eq. 7).

=========================  =====================================================================
`sampling_bound`           Proposition 4: abs(R*_alpha,m - R*_alpha), with high probability
`regularization_bound`     Proposition 5: abs(R*_alpha - R*)
`subgradient_bound`        Proposition 6: error of Algorithm 1 after T iterations
`subgradient_iterations`   Proposition 6 solved for T, given an accuracy
`smoothing_bound`          exact(lam) - F_alpha(lam) on the given candidates, at every lam
=========================  =====================================================================

Losses that take negative values can be shifted without changing the game: M is then the spread
max - min.

References
----------
.. [1] L. Meunier, M. Scetbon, R. Pinot, J. Atif, Y. Chevaleyre, "Mixed Nash Equilibria in the
   Adversarial Examples Game", ICML 2021, sections 4.1 and 4.2.
.. [2] P. Massart, "Some applications of concentration inequalities to statistics", Annales de la
   Faculte des Sciences de Toulouse 9(2), 2000, Lemma 5.2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixsolve.base.arguments import as_count, as_real
from mixsolve.base.errors import MixsolveError, MixsolveTypeError

__all__ = [
    "rademacher_bound",
    "regularization_bound",
    "sampling_bound",
    "smoothing_bound",
    "subgradient_bound",
    "subgradient_iterations",
]


def rademacher_bound(spread: float, n_candidates: int, n_classifiers: int) -> float:
    r"""Massart's bound on the Rademacher complexity of L classifiers on m candidates.

    .. math:: R_i = \frac{1}{m} E_\sigma \sup_k \sum_j \sigma_j l_{ijk}
              \le M \sqrt{2 \log L / m}

    Mixtures of the classifiers have the same complexity: the supremum over the simplex is reached
    at a vertex.

    Parameters
    ----------
    spread : float
        M, such that every loss is in [0, M]; > 0.
    n_candidates : int
        m.
    n_classifiers : int
        L.

    Raises
    ------
    MixsolveError
        If an argument is out of range.

    Examples
    --------
    >>> round(rademacher_bound(1.0, n_candidates=1000, n_classifiers=10), 6)
    0.067861
    """
    spread = as_real("spread", spread, above=0.0)
    n_candidates = as_count("n_candidates", n_candidates)
    n_classifiers = as_count("n_classifiers", n_classifiers)
    return spread * math.sqrt(2.0 * math.log(n_classifiers) / n_candidates)


def sampling_bound(
    alpha: float,
    n_samples: int,
    n_candidates: int,
    n_classifiers: int,
    spread: float = 1.0,
    delta: float = 0.05,
) -> float:
    r"""Proposition 4 for a finite class: the error of drawing m candidates instead of integrating.

    With probability at least 1 - delta over the draws of the candidates,

    .. math::
        |R^*_{\alpha,m} - R^*_\alpha| \le \frac{2 e^{M/\alpha}}{N} \sum_i R_i
        + 6 \max(M, 1) e^{M/\alpha} \sqrt{\frac{\log(4/\delta)}{2 m N}},

    and the Rademacher complexities R_i are replaced by Massart's bound
    :math:`M \sqrt{2 \log L / m}`, so that what is returned is

    .. math::
        e^{M/\alpha} \left( 2 M \sqrt{\frac{2 \log L}{m}}
        + 6 \max(M, 1) \sqrt{\frac{\log(4/\delta)}{2 m N}} \right).

    The bound is vacuous where alpha is small compared with M: for 0/1 losses and alpha = 0.1 the
    factor :math:`e^{M/\alpha}` alone is 2e4.

    Parameters
    ----------
    alpha : float
        Regularisation, the same for every sample; > 0.
    n_samples, n_candidates, n_classifiers : int
        N, m and L.
    spread : float, default 1.0
        M, such that every loss is in [0, M]; > 0.
    delta : float, default 0.05
        Probability of failure, in (0, 1).

    Returns
    -------
    float
        The bound; ``inf`` where it is too large for a float.

    Raises
    ------
    MixsolveError
        If an argument is out of range.

    Examples
    --------
    >>> round(sampling_bound(1.0, n_samples=1000, n_candidates=1000, n_classifiers=10), 4)
    0.3931
    """
    alpha = as_real("alpha", alpha, above=0.0)
    n_samples = as_count("n_samples", n_samples)
    complexity = rademacher_bound(spread, n_candidates, n_classifiers)
    delta = as_real("delta", delta, above=0.0, below=1.0)
    deviation = math.sqrt(math.log(4.0 / delta) / (2.0 * n_candidates * n_samples))
    try:
        growth = math.exp(spread / alpha)
    except OverflowError:
        return math.inf
    return growth * (2.0 * complexity + 6.0 * max(spread, 1.0) * deviation)


def regularization_bound(alpha: float, mass: float, beta: float = 0.0) -> float:
    r"""Proposition 5: the error of the entropic term when good attacks are not rare.

    .. math:: |R^*_\alpha - R^*| \le 2 \alpha |\log C_\beta| + \beta

    Parameters
    ----------
    alpha : float
        Regularisation, the same for every sample; >= 0.
    mass : float
        :math:`C_\beta`: at every sample and for every mixture, the base measure gives at least this
        much to the attacks within `beta` of the best; in (0, 1]. Over m equally likely candidates,
        1 / m holds for every `beta`.
    beta : float, default 0.0
        How far below the best an attack may be and still be counted; >= 0.

    Raises
    ------
    MixsolveError
        If an argument is out of range.

    See Also
    --------
    smoothing_bound : Half of it, for the given candidates and ``beta = 0``.

    Examples
    --------
    >>> round(regularization_bound(0.01, mass=0.2, beta=0.05), 6)
    0.082189
    """
    alpha = as_real("alpha", alpha, at_least=0.0)
    mass = as_real("mass", mass, above=0.0, at_most=1.0)
    beta = as_real("beta", beta, at_least=0.0)
    return 2.0 * alpha * abs(math.log(mass)) + beta


def subgradient_bound(
    n_iterations: int, n_classifiers: int, spread: float = 1.0, oracle_error: float = 0.0
) -> float:
    r"""Proposition 6: distance to the optimal risk after T iterations of Algorithm 1.

    .. math:: \min_{t \le T} R(\lambda_t) - R^* \le 2 \delta + 2 M \sqrt{L / T}

    Parameters
    ----------
    n_iterations : int
        T, fixed in advance: the step is :math:`\eta = 2 / (M \sqrt{L T})`.
    n_classifiers : int
        L.
    spread : float, default 1.0
        M, such that every loss is in [0, M]; > 0.
    oracle_error : float, default 0.0
        delta: error on each classifier's risk under the oracle's attack; >= 0. An exact best
        response has 0.

    Raises
    ------
    MixsolveError
        If an argument is out of range.

    See Also
    --------
    subgradient_iterations : The inverse.

    Examples
    --------
    >>> subgradient_bound(n_iterations=1600, n_classifiers=4)
    0.1
    """
    n_iterations = as_count("n_iterations", n_iterations)
    n_classifiers = as_count("n_classifiers", n_classifiers)
    spread = as_real("spread", spread, above=0.0)
    oracle_error = as_real("oracle_error", oracle_error, at_least=0.0)
    return 2.0 * oracle_error + 2.0 * spread * math.sqrt(n_classifiers / n_iterations)


def subgradient_iterations(
    accuracy: float, n_classifiers: int, spread: float = 1.0, oracle_error: float = 0.0
) -> int:
    r"""Proposition 6 solved for T: the iterations of Algorithm 1 that guarantee an accuracy.

    .. math:: T = \left\lceil L \left( \frac{2 M}{\epsilon - 2 \delta} \right)^2 \right\rceil

    Parameters
    ----------
    accuracy : float
        :math:`\epsilon`, the distance to the optimal risk wanted; above ``2 * oracle_error``.
    n_classifiers : int
        L.
    spread : float, default 1.0
        M, such that every loss is in [0, M]; > 0.
    oracle_error : float, default 0.0
        delta: error on each classifier's risk under the oracle's attack; >= 0.

    Returns
    -------
    int
        The smallest T with ``subgradient_bound(T, ...) <= accuracy``.

    Raises
    ------
    MixsolveError
        If an argument is out of range; in particular where no number of iterations is enough.

    Examples
    --------
    >>> subgradient_iterations(0.1, n_classifiers=4)
    1600
    >>> subgradient_iterations(1e-6, n_classifiers=10)
    40000000000000
    """
    accuracy = as_real("accuracy", accuracy, above=0.0)
    n_classifiers = as_count("n_classifiers", n_classifiers)
    spread = as_real("spread", spread, above=0.0)
    oracle_error = as_real("oracle_error", oracle_error, at_least=0.0)
    left = accuracy - 2.0 * oracle_error
    if left <= 0.0:
        raise MixsolveError(
            f"accuracy must be above 2 * oracle_error = {2.0 * oracle_error:g}, which no number of "
            f"iterations brings down, got {accuracy:g}"
        )
    needed = n_classifiers * (2.0 * spread / left) ** 2
    if not math.isfinite(needed):
        raise MixsolveError(f"accuracy {accuracy:g} is out of reach for a spread of {spread:g}")
    # A whole number that rounding made an ulp larger is not rounded up.
    return max(1, math.ceil(needed * (1.0 - 4.0 * np.finfo(float).eps)))


def smoothing_bound(
    alpha: ArrayLike,
    mass: ArrayLike | None = None,
    *,
    n_candidates: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""How far the entropic objective can be below the exact risk, at one mixture.

    With :math:`F_\alpha(\lambda) = \sum_i w_i \alpha_i \log \sum_j p_{ij} e^{\langle\lambda,
    l_{ij}\rangle / \alpha_i}` and :math:`j^*_i` a best attack on sample i at lambda,

    .. math::
        0 \le \sum_i w_i \max_j \langle \lambda, l_{ij} \rangle - F_\alpha(\lambda)
        \le \sum_i w_i \alpha_i \log(1 / p_{i j^*_i}),

    which is alpha log(m) over m equally likely candidates. Taken at a minimiser of one and of the
    other objective, the bound holds for the optima too, and is half of Proposition 5 with beta = 0.

    Parameters
    ----------
    alpha : float or array_like of shape (n_samples,)
        Regularisation, >= 0.
    mass : float or array_like of shape (n_samples,), optional
        Base probability :math:`p_{i j^*_i}` of a best attack on each sample, in (0, 1]. The
        smallest base probability of a sample holds at every mixture.
    n_candidates : int or array_like of shape (n_samples,), optional
        Numbers of equally likely candidates, in place of `mass`: ``mass = 1 / n_candidates``.
    sample_weight : array_like of shape (n_samples,), optional
        Weights of the samples, normalised to sum 1; uniform by default. Not needed where `alpha`
        and `mass` are numbers.

    Raises
    ------
    MixsolveError
        If an argument is out of range, shapes differ, or not exactly one of `mass` and
        `n_candidates` is given.

    Examples
    --------
    >>> round(smoothing_bound(0.01, n_candidates=1000), 6)
    0.069078
    >>> round(smoothing_bound([0.1, 0.2], mass=[0.5, 0.25], sample_weight=[3, 1]), 6)
    0.121301
    """
    if (mass is None) == (n_candidates is None):
        raise MixsolveError("give exactly one of mass and n_candidates to smoothing_bound")
    alphas = _per_sample("alpha", alpha)
    if (alphas < 0.0).any():
        raise MixsolveError(f"alpha must be >= 0, got {alphas.min():g}")
    if n_candidates is not None:
        counts = _per_sample("n_candidates", n_candidates)
        if (counts < 1).any() or (counts != np.floor(counts)).any():
            raise MixsolveError(f"n_candidates must be integers >= 1, got {n_candidates!r}")
        logs = np.log(counts)
    else:
        masses = _per_sample("mass", mass)
        if (masses <= 0.0).any() or (masses > 1.0).any():
            raise MixsolveError(f"mass must be in (0, 1], got {mass!r}")
        logs = -np.log(masses)
    weights = np.ones(1) if sample_weight is None else _per_sample("sample_weight", sample_weight)
    if (weights < 0.0).any() or not weights.sum() > 0.0:
        raise MixsolveError(
            f"sample_weight must be >= 0 with a positive sum, got {sample_weight!r}"
        )
    try:
        alphas, logs, weights = np.broadcast_arrays(alphas, logs, weights)
    except ValueError:
        raise MixsolveError(
            "alpha, mass (or n_candidates) and sample_weight must be numbers or have one entry a "
            f"sample, got lengths {alphas.size}, {logs.size} and {weights.size}"
        ) from None
    return float(weights @ (alphas * logs) / weights.sum())


def _per_sample(name: str, value: ArrayLike | None) -> NDArray[np.float64]:
    """Return finite numbers, one or one a sample, as a one-dimensional float64 array."""
    if isinstance(value, np.ma.MaskedArray):
        raise MixsolveTypeError(f"{name} is a masked array, whose mask would be lost; fill it")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise MixsolveError(f"{name} must be a number or a flat sequence: {error}") from None
    if array.dtype.kind not in "iuf":
        raise MixsolveTypeError(f"{name} must hold real numbers, got {value!r}")
    if array.ndim > 1 or array.size == 0:
        raise MixsolveError(
            f"{name} must be a number or have the shape (n_samples,), got the shape {array.shape}"
        )
    numbers = np.atleast_1d(array).astype(np.float64)
    if not np.isfinite(numbers).all():
        first = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise MixsolveError(f"{name} must be finite, got {numbers[first]} at index {first}")
    return numbers
