"""Which sets of linear classifiers are fooled around each sample of a plane, and how often.

With 0/1 losses an attack is known by the set of classifiers that err on it: 2^L sets at most, here
the bits of an integer. `Sets` holds a base measure over them for each sample, from

    `Draws.sets`     points drawn uniformly in the disc of radius eps: counts,
    `areas`          the uniform law itself: exact shares of the disc,

and both problems of the paper depend on nothing else. In units of eps, classifier k errs on x + u
where <a_k, u> <= c_k, a_k = y w_k and c_k = -y f_k(x) / eps, with norm(w_k) = 1. By the divergence
theorem, the area of the cell of a set is

    1/2 ( length of its arcs + sum_k +- c_k (length of its edge on boundary k) ),

+ where the cell is on the side that errs: no cell is too small to be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mixsolve
from mixsolve import games

_NOTHING = 1e-13  # a share of the disc below this is rounding


@dataclass(frozen=True)
class Plane:
    """Samples and linear classifiers of the paper's section 5.1, with unit normals."""

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    directions: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    @classmethod
    def drawn(cls, n_samples: int, n_classifiers: int, seed: int) -> Plane:
        """Return the points and classifiers of `mixsolve.games.paper2d`."""
        details = games.paper2d(n_samples, 1, n_classifiers, seed=seed).details
        return cls(*(details[n] for n in ("points", "labels", "directions", "intercepts")))

    @property
    def margins(self) -> NDArray[np.float64]:
        """Signed distances y f_k(x), (n_samples, n_classifiers), negative for an error."""
        return self.labels[:, None] * (self.points @ self.directions.T + self.intercepts)

    def on(self, points: NDArray[np.float64], labels: NDArray[np.int64]) -> Plane:
        """Return the same classifiers with other samples."""
        return Plane(points, labels, self.directions, self.intercepts)


@dataclass(frozen=True)
class Exact:
    """The exact problem: sets that no other contains, equal samples merged."""

    rows: NDArray[np.uint8]
    offsets: NDArray[np.intp]
    shares: NDArray[np.float64]

    def risks(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the adversarial risks of mixtures (n, L)."""
        losses = self.rows @ np.atleast_2d(weights).T
        return self.shares @ np.maximum.reduceat(losses, self.offsets[:-1], axis=0)

    def solve(self, **options: Any) -> mixsolve.Solution:
        """Return the solution of this game; options are those of `mixsolve.solve`."""
        losses = np.split(self.rows, self.offsets[1:-1])
        return mixsolve.solve(losses, sample_weight=self.shares, **options)


@dataclass(frozen=True)
class Sets:
    """A measure over the sets of fooled classifiers for each sample, (n_samples, 2^L)."""

    mass: NDArray

    @property
    def n_classifiers(self) -> int:
        """L."""
        return self.mass.shape[1].bit_length() - 1

    def exact(self) -> Exact:
        """Return the game in which the attacker takes the worst set that has a mass."""
        largest = maximal(self.mass > 0)
        groups: dict[bytes, list[int]] = {}
        for sample, row in enumerate(np.packbits(largest, axis=1)):
            groups.setdefault(row.tobytes(), []).append(sample)
        owner, sets = np.nonzero(largest[[members[0] for members in groups.values()]])
        offsets = np.searchsorted(owner, np.arange(len(groups) + 1))
        shares = np.array([len(members) for members in groups.values()]) / len(largest)
        return Exact(_bits(self.n_classifiers)[sets], offsets, shares)

    def entropic(self) -> dict[str, Any]:
        """Return the arguments of `mixsolve.solve` for the problem with this base measure."""
        owner, sets = np.nonzero(self.mass)
        cuts = np.searchsorted(owner, np.arange(1, len(self.mass)))
        return {
            "losses": np.split(_bits(self.n_classifiers)[sets], cuts),
            "candidate_prior": np.split(self.mass[owner, sets].astype(float), cuts),
        }

    def resampled(self, sizes: list[int], rng: np.random.Generator) -> Iterator[Sets]:
        """Yield growing samples of the measure: each size holds the draws of those before."""
        law = self.mass / self.mass.sum(axis=1, keepdims=True)
        counts = np.zeros(self.mass.shape, np.int64)
        for more in np.diff(sizes, prepend=0):
            counts = counts + rng.multinomial(more, law)
            yield Sets(counts)


class Draws:
    """Moves drawn uniformly in the unit disc, the same for every radius.

    Parameters
    ----------
    plane : Plane
        N samples and L classifiers.
    moves : ndarray of shape (N, m, 2)
        In the unit disc.
    """

    def __init__(self, plane: Plane, moves: NDArray[np.float64]) -> None:
        self._margins = plane.margins
        self._gains = np.stack(
            [plane.labels[:, None] * (moves @ direction) for direction in plane.directions]
        )

    def sets(self, eps: float) -> Sets:
        """Count the sets that the draws fool in the discs of radius `eps`."""
        n_classifiers, n_samples, n_draws = self._gains.shape
        codes = np.zeros((n_samples, n_draws), np.int32)
        limits = -self._margins / eps if eps > 0 else -self._margins
        for k in reversed(range(n_classifiers)):
            reached = self._gains[k] if eps > 0 else 0.0
            codes <<= 1
            codes |= reached <= limits[:, k, None]
        codes += np.arange(n_samples, dtype=np.int32)[:, None] << n_classifiers
        counts = np.bincount(codes.ravel(), minlength=n_samples << n_classifiers)
        return Sets(counts.reshape(n_samples, -1))


def moves(n_samples: int, n_draws: int, seed: int) -> NDArray[np.float64]:
    """Return the draws of `mixsolve.games.paper2d` in the unit disc."""
    details = games.paper2d(n_samples, n_draws, 1, eps=1.0, seed=seed).details
    return details["candidates"] - details["points"][:, None]


def areas(plane: Plane, eps: float) -> Sets:
    """Return the share of each disc of radius `eps` where exactly the classifiers of a set err."""
    limits = -plane.margins / eps
    normals = plane.labels[:, None, None] * plane.directions
    tangents = np.stack([-normals[..., 1], normals[..., 0]], axis=-1)
    crossing = np.abs(limits) < 1
    half = np.sqrt(np.where(crossing, 1 - limits**2, 0.0))
    n_samples, n_classifiers = limits.shape
    area = np.zeros((n_samples, 1 << n_classifiers))

    angles = np.arctan2(normals[..., 1], normals[..., 0])
    width = np.where(crossing, np.arccos(np.clip(limits, -1, 1)), 0.0)
    ends = np.sort(np.concatenate([angles - width, angles + width], axis=1) % (2 * np.pi), axis=1)
    arcs = np.diff(ends, append=ends[:, :1] + 2 * np.pi)
    middle = ends + arcs / 2
    where = np.stack([np.cos(middle), np.sin(middle)], axis=-1)
    errs = np.einsum("nsd,nld->nsl", where, normals) <= limits[:, None]
    _add(area, _codes(errs), arcs / 2)

    for k in range(n_classifiers):
        normal, tangent = normals[:, k], tangents[:, k]
        offset, reach = limits[:, k, None], half[:, k, None]
        slopes = np.einsum("nld,nd->nl", normals, tangent)
        with np.errstate(divide="ignore", invalid="ignore"):
            cuts = (limits - offset * np.einsum("nld,nd->nl", normals, normal)) / slopes
        cuts = np.clip(np.where(np.isfinite(cuts), cuts, 2.0), -reach, reach)
        ends = np.sort(np.concatenate([cuts, -reach, reach], axis=1), axis=1)
        lengths = np.diff(ends, axis=1)
        middle = (ends[:, :-1] + ends[:, 1:]) / 2
        where = offset[..., None] * normal[:, None] + middle[..., None] * tangent[:, None]
        errs = np.einsum("nsd,nld->nsl", where, normals) <= limits[:, None]
        for side, sign in ((True, 0.5), (False, -0.5)):
            errs[..., k] = side
            _add(area, _codes(errs), sign * offset * lengths)
    shares = area / np.pi
    return Sets(np.where(shares > _NOTHING, shares, 0.0))


def maximal(present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which sets (n_samples, 2^L) are present and in no other that is."""
    columns = np.ascontiguousarray(present.T)
    above = columns.copy()  # whether a set, or one that contains it, is present
    larger = np.zeros_like(columns)  # whether one that contains it and is not itself is
    splits = [(-1, 2, 1 << k, columns.shape[1]) for k in range(len(columns).bit_length() - 1)]
    for split in splits:
        halves = above.reshape(split)
        halves[:, 0] |= halves[:, 1]
    for split in splits:
        larger.reshape(split)[:, 0] |= above.reshape(split)[:, 1]
    return np.ascontiguousarray((columns & ~larger).T)


def _bits(n_classifiers: int) -> NDArray[np.uint8]:
    """Return the members of each set, (2^L, L)."""
    return (np.arange(1 << n_classifiers)[:, None] >> np.arange(n_classifiers) & 1).astype(np.uint8)


def _codes(errs: NDArray[np.bool_]) -> NDArray[np.int64]:
    return errs @ (1 << np.arange(errs.shape[-1]))


def _add(area: NDArray[np.float64], codes: NDArray[np.int64], amounts: NDArray) -> None:
    flat = codes + np.arange(len(area))[:, None] * area.shape[1]
    area += np.bincount(flat.ravel(), amounts.ravel(), area.size).reshape(area.shape)
