"""Units in which no square over- or underflows, and regularisations that differ from their limits.

A game times 2^e is the same game, to the last bit, as long as nothing leaves the range of float64.
Losses within 2^-200 to 2^200 are taken as they are; others are scaled as they are read.

The entropic objective lies between the mean of the scores and their maximum. With M the spread of
the losses it is within M^2 / (8 alpha) of the one and alpha log(1 / p) of the other: beyond a
factor of 2^60 and 2^-90 these are less than the rounding of a sum, and alpha is clipped there.
"""

import math

import numpy as np

from mixsolve.base.errors import MixsolveError
from mixsolve.engines.base import Engine
from mixsolve.kernels.constants import EPSILON, LEAST_ALPHA, MOST_ALPHA, PLAIN_EXPONENTS


def finite_spread(lowest: float, highest: float, losses: str = "losses") -> float:
    """M, the largest of the losses less the smallest; refuse one that float64 cannot represent.

    `losses` is their name in the message.
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
    return exponent if abs(exponent) > PLAIN_EXPONENTS else 0


def within_reach(alpha: np.ndarray, engine: Engine) -> np.ndarray:
    """Regularisations (N,), clipped to the range within which they differ from their limits."""
    spread = max(engine.spread, EPSILON * engine.magnitude)
    if spread == 0.0:
        return alpha
    lowest, highest = spread * LEAST_ALPHA, spread * MOST_ALPHA
    if lowest <= alpha.min() and alpha.max() <= highest:
        return alpha
    return np.clip(alpha, lowest, highest)


def in_losses_unit(value: float, exponent: int) -> float:
    """A figure of the engine's unit in that of the losses; infinite where it overflows."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)
