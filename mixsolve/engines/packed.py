"""An attack as it is sent: few bytes a sample, since most samples play one candidate."""

from dataclasses import dataclass

import numpy as np

from mixsolve.engines.responses import MixedStrategy


@dataclass(frozen=True)
class PackedStrategy:
    """The entries of a `MixedStrategy` in the narrowest types, without probabilities of 1.

    Attributes
    ----------
    counts : ndarray of unsigned integers, shape (N,)
        Entries of each sample.
    candidates : ndarray of unsigned integers, shape (n_entries,)
        Candidate of each entry.
    probabilities : ndarray of float64, shape (n_mixed,)
        Those of the samples with several entries.
    n_candidates : int
        Length of the candidate axis.
    """

    counts: np.ndarray
    candidates: np.ndarray
    probabilities: np.ndarray
    n_candidates: int

    @classmethod
    def of(cls, attack: MixedStrategy) -> "PackedStrategy":
        """Pack an attack."""
        counts = np.diff(attack.indptr)
        mixed = np.repeat(counts > 1, counts)
        return cls(
            narrow(counts, attack.n_candidates),
            narrow(attack.candidates, attack.n_candidates),
            attack.probabilities[mixed],
            attack.n_candidates,
        )

    def unpacked(self) -> MixedStrategy:
        """The attack itself."""
        counts = self.counts.astype(np.int64)
        probabilities = np.ones(self.candidates.size)
        probabilities[np.repeat(counts > 1, counts)] = self.probabilities
        return MixedStrategy(
            np.concatenate([[0], np.cumsum(counts)]),
            self.candidates.astype(np.int64),
            probabilities,
            self.n_candidates,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.counts.nbytes + self.candidates.nbytes + self.probabilities.nbytes

    @classmethod
    def joined(cls, parts: "list[PackedStrategy]") -> "PackedStrategy":
        """Attacks on the samples of several parts, one after another."""
        return cls(
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.candidates for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            parts[0].n_candidates,
        )


def narrow(values: np.ndarray, largest: int) -> np.ndarray:
    """Non-negative integers in the narrowest type that holds `largest`."""
    return values.astype(np.min_scalar_type(largest))
