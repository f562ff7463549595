"""Samples of different numbers of rows: what each row belongs to, sums and extremes by sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Rows that lie sample after sample; n samples, R rows.

    Attributes
    ----------
    starts : ndarray of int64, shape (n,)
        Where each sample begins; every sample has a row.
    owner : ndarray of int64, shape (R,)
        The sample of each row.
    """

    starts: np.ndarray
    owner: np.ndarray

    @classmethod
    def of(cls, offsets: np.ndarray) -> Ragged:
        """From bounds (n + 1,), of which the first need not be 0."""
        counts = np.diff(offsets)
        return cls(offsets[:-1] - offsets[0], np.repeat(np.arange(counts.size), counts))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums (n, ...) of values (R, ...) by sample."""
        return np.add.reduceat(values, self.starts, axis=0) if self.starts.size else values[:0]

    def most(self, values: np.ndarray) -> np.ndarray:
        """Largest of values (R,) by sample."""
        return np.maximum.reduceat(values, self.starts) if self.starts.size else values[:0]

    def least(self, values: np.ndarray) -> np.ndarray:
        """Smallest of values (R,) by sample."""
        return np.minimum.reduceat(values, self.starts) if self.starts.size else values[:0]

    def first_with(self, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The first row of each sample whose value (R,) is the one wanted (n,), which one has."""
        rows = np.flatnonzero(values == wanted[self.owner])
        return rows[np.searchsorted(rows, self.starts)]
