"""Responses whose best candidates stay where the losses are until somebody asks for them."""

from typing import Any, Protocol

import numpy as np

from mixsolve.base.threads import computed_once
from mixsolve.engines.base import BestResponse, NearResponse


class PlacedWinners(Protocol):
    """The best candidates of all samples, elsewhere."""

    def receive(self) -> np.ndarray:
        """All of them, int64 of shape (N,)."""
        ...

    def of(self, samples: np.ndarray) -> np.ndarray:
        """Those of a few samples, int64 and ascending."""
        ...

    def moved(self, earlier: Any) -> np.ndarray:
        """Samples, ascending, whose best candidate is another than in an earlier response."""
        ...


class PlacedBestResponse(BestResponse):
    """A best response whose candidates are elsewhere.

    Parameters
    ----------
    sums : ndarray of float64, shape (1 + L,)
        Value and gradient.
    winners : PlacedWinners
        Where its candidates are.
    """

    winners: PlacedWinners

    def __init__(self, sums: np.ndarray, winners: PlacedWinners) -> None:
        # The dataclass is frozen, and its own __init__ would want the candidates now.
        vars(self).update(value=float(sums[0]), gradient=sums[1:], winners=winners)

    @computed_once
    def candidates(self) -> np.ndarray:
        """All best candidates, which travel now."""
        return self.winners.receive()

    def of(self, samples: np.ndarray) -> np.ndarray:
        """See `BestResponse.of`."""
        return self.winners.of(samples)

    def moved(self, earlier: BestResponse) -> np.ndarray:
        """See `BestResponse.moved`."""
        if isinstance(earlier, PlacedBestResponse):
            return self.winners.moved(earlier.winners)
        return super().moved(earlier)


class PlacedNearResponse(PlacedBestResponse, NearResponse):
    """The same with the near rows, which are here already.

    Parameters
    ----------
    sums, winners
        See `PlacedBestResponse`.
    samples, candidates : ndarray of int64, shape (n,)
        The near rows.
    n_near : int
        How many there were.
    """

    def __init__(
        self,
        sums: np.ndarray,
        winners: PlacedWinners,
        samples: np.ndarray,
        candidates: np.ndarray,
        n_near: int,
    ) -> None:
        super().__init__(sums, winners)
        vars(self).update(near_samples=samples, near_candidates=candidates, n_near=n_near)
