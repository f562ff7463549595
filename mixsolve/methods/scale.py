"""Units in which no square over- or underflows, and regularisations that differ from their limits.

A game times 2^e is the same game, to the last bit, as long as nothing leaves the range of float64.
Losses within 2^-200 to 2^200 are taken as they are; others are scaled as they are read.

The entropic objective lies between the mean of the scores and their maximum. With M the spread of
the losses it is within M^2 / (8 alpha) of the one and alpha log(1 / p) of the other: beyond a
factor of 2^60 and 2^-90 these are less than the rounding of a sum, and alpha may as well be there.
"""

import math

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.engines.base import Engine

_PLAIN = 200  # exponents of losses that are taken as they are
_SMALLEST, _LARGEST = -90, 60  # exponents of alpha beside the spread
_EPSILON = float(np.finfo(np.float64).eps)


def finite_spread(lowest: float, highest: float, losses: str = "losses") -> float:
    """M, the largest of the losses less the smallest, if float64 can say it.

    Parameters
    ----------
    lowest, highest : float
        Their extremes.
    losses : str
        What a message calls them.

    Raises
    ------
    MixsolveError
        If it overflows.
    """
    with np.errstate(over="ignore"):
        spread = float(np.float64(highest) - np.float64(lowest))
    if not np.isfinite(spread):
        raise MixsolveError(
            f"{losses} range from {lowest} to {highest}, which overflows float64; divide them by "
            "their largest absolute value"
        )
    return spread


def unit_exponent(magnitude: float) -> int:
    """The exponent of the power of 2 in which losses of a magnitude are counted; 0 for plain."""
    exponent = math.frexp(magnitude)[1]
    return exponent if abs(exponent) > _PLAIN else 0


def within_reach(alpha: np.ndarray, engine: Engine) -> np.ndarray:
    """Regularisations (N,), those that make no difference to their limits brought nearer."""
    spread = max(engine.spread, _EPSILON * engine.magnitude)
    if spread == 0.0:
        return alpha
    lowest, highest = math.ldexp(spread, _SMALLEST), math.ldexp(spread, _LARGEST)
    if lowest <= alpha.min() and alpha.max() <= highest:
        return alpha
    return np.clip(alpha, lowest, highest)


def in_losses_unit(value: float, exponent: int) -> float:
    """A figure of the engine's unit in that of the losses; infinite where it overflows."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)
