r"""Certified accuracy of a mixture against sets in the attacker's reach, and how sure it is.

With losses T (see `mixsolve.reach.losses`) and weights lam, sample i is classified rightly with a
probability of at least

    c_i = 1 - max_j <lam, T[i, j, :]>     under every attack in every set.

Weights that are optimal on some samples look better there than elsewhere. They are therefore chosen
on one half of the samples and reported on the other, where the c_i are independent of them. The
mean of the population then lies in

    { p : n kl(mean_i c_i, p) <= log(2 / (1 - level)) },
    kl(q, p) = q log(q / p) + (1 - q) log((1 - q) / (1 - p)),

with a probability of at least `level`, for every number n of samples and every distribution on
[0, 1] (Chernoff's bound, which Hoeffding showed to hold for fractions as for 0 and 1).

References
----------
Hoeffding. Probability inequalities for sums of bounded random variables. Journal of the American
Statistical Association 58, 1963, Theorem 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixsolve.base.arguments import as_array, as_count, as_real, check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve.base.halves import halves
from mixsolve.solver.solution import Solution
from mixsolve.solver.solve import solve

_SUM_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Interval:
    """The mean over samples of a number in [0, 1], and where that of the population lies.

    Attributes
    ----------
    value : float
        The mean over the samples.
    low, high : float
        The ends of the interval.
    """

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Return it in percent, as "61.2 [58.4, 64.0]"."""
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class ReachCertificate:
    """Weights, and the accuracy that no attack in reach can push the mixture below.

    Attributes
    ----------
    weights : ndarray of shape (L,)
        Probability of each classifier.
    certified : Interval
        Certified accuracy on the samples reported on.
    clean : Interval
        Expected accuracy on the same samples if nothing is attacked.
    fitted : float or None
        One minus the risk of the solution: certified accuracy on the samples that the weights were
        chosen on, which flatters them. None for given weights.
    alone : ndarray of shape (L,)
        Certified accuracy of each classifier alone, on the samples reported on.
    reported : int
        Number of samples reported on.
    held_out : bool
        Whether the weights were chosen on other samples.
    level : float
        Coverage of the intervals, at least.
    solution : Solution or None
        Of the game that gave the weights.
    """

    weights: NDArray[np.float64]
    certified: Interval
    clean: Interval
    fitted: float | None
    alone: NDArray[np.float64]
    reported: int
    held_out: bool
    level: float
    solution: Solution | None = None

    def sentences(self) -> list[str]:
        """Return the outcome in words."""
        where = f"{self.reported:,} {'held-out ' if self.held_out else ''}samples"
        found = [
            f"Certified: {100 * self.certified.value:.2f} % of {where} are classified rightly in "
            f"expectation under every attack in reach ({100 * self.level:g} % interval "
            f"{100 * self.certified.low:.2f} to {100 * self.certified.high:.2f}); "
            f"{100 * self.clean.value:.2f} % if nothing is attacked."
        ]
        if self.fitted is not None and self.held_out:
            found.append(
                f"On the samples that the weights were chosen on it is {100 * self.fitted:.2f} %."
            )
        elif self.fitted is not None:
            found.append("The weights were chosen on these samples, which flatters them.")
        best = int(self.alone.argmax())
        found.append(
            f"The best classifier alone, number {best}, has {100 * self.alone[best]:.2f} %."
        )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain values, without the solution."""
        return {
            "weights": self.weights.tolist(),
            "certified": vars(self.certified).copy(),
            "clean": vars(self.clean).copy(),
            "fitted": self.fitted,
            "alone": self.alone.tolist(),
            "reported": self.reported,
            "held_out": self.held_out,
            "level": self.level,
        }


def certify(
    values: NDArray[Any],
    errors: NDArray[np.bool_],
    *,
    weights: ArrayLike | None,
    held_out: bool,
    level: float,
    seed: int,
    options: Mapping[str, Any],
) -> ReachCertificate:
    """Choose weights and certify them, as `ReachLosses.certify` documents."""
    check_flags(held_out=held_out)
    level = as_real("level", level, above=0, below=1)
    seed = as_count("seed", seed, 0)
    if weights is not None:
        if options:
            raise MixsolveError(f"weights are given, so that {', '.join(options)} has no use")
        lam = _probabilities(weights, values.shape[2])
        return _report(values, errors, lam, None, False, level)
    chosen = rest = np.arange(len(values))
    if held_out:
        if len(values) < 2:
            raise MixsolveError(
                f"two halves need at least 2 samples, got {len(values)}; give held_out=False"
            )
        chosen, rest = halves(len(values), seed)
    solution = solve(values[chosen], **options)
    lam = np.asarray(solution.weights, dtype=np.float64)
    return _report(values[rest], errors[rest], lam, solution, held_out, level)


def certified_samples(values: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return c (N,): the probability, at least, that a sample in reach is classified rightly."""
    return np.clip(1.0 - (values @ weights).max(axis=1), 0.0, 1.0)


def chernoff_interval(mean: float, count: int, level: float) -> Interval:
    """Return the interval of the module's head around the mean of `count` numbers in [0, 1].

    Examples
    --------
    >>> interval = chernoff_interval(0.4, 1000, 0.95)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.358, 0.442)
    >>> chernoff_interval(0.0, 1000, 0.95).low
    0.0
    """
    room = np.log(2.0 / (1.0 - level)) / count
    return Interval(mean, _end(mean, 0.0, room), _end(mean, 1.0, room))


def _end(mean: float, far: float, room: float) -> float:
    """Bisect between the mean, where kl is 0, and 0 or 1 for the last p with kl(mean, p) <= room.

    The outer end of the last step is returned, so that rounding widens the interval.
    """
    inside, outside = mean, far
    if _kl(mean, far) <= room:
        return far
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        if _kl(mean, middle) <= room:
            inside = middle
        else:
            outside = middle
    return outside


def _kl(q: float, p: float) -> float:
    with np.errstate(divide="ignore"):
        first = 0.0 if q == 0 else q * (np.log(q) - np.log(p))
        second = 0.0 if q == 1 else (1 - q) * (np.log1p(-q) - np.log1p(-p))
    return float(first + second)


def _report(
    values: NDArray[Any],
    errors: NDArray[np.bool_],
    weights: NDArray[np.float64],
    solution: Solution | None,
    held_out: bool,
    level: float,
) -> ReachCertificate:
    count = len(values)
    certified = float(certified_samples(values, weights).mean())
    clean = float(np.clip(1.0 - errors @ weights, 0.0, 1.0).mean())
    return ReachCertificate(
        weights=weights,
        certified=chernoff_interval(certified, count, level),
        clean=chernoff_interval(clean, count, level),
        fitted=None if solution is None else 1.0 - solution.risk,
        alone=1.0 - values.max(axis=1).mean(axis=0),
        reported=count,
        held_out=held_out,
        level=level,
        solution=solution,
    )


def _probabilities(given: Any, count: int) -> NDArray[np.float64]:
    weights = as_array("weights", given, f"({count},)", 1).astype(np.float64)
    total = float(weights.sum())
    if weights.shape != (count,) or weights.min() < 0 or abs(total - 1) > _SUM_TOLERANCE:
        raise MixsolveError(
            f"weights must be {count} probabilities that sum to 1, one a classifier; got "
            f"{weights.tolist()}"
        )
    return weights / total
