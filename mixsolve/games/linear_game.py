"""Linear classifiers in R^d and the exact attack of an l2 ball.

Classifier k errs on a point x' of label y where y (<w_k, x'> + b_k) <= 0: a closed half-space. An
attacker who moves x by at most eps can fool the set S of classifiers at once if and only if

    min { ||u||_2 : y (<w_k, x + u> + b_k) <= 0 for k in S }  <=  eps.

The minimiser is unique, and by Carathéodory's theorem it is the projection of 0 on the
intersection of at most min(d, |S|) boundaries with independent normals. So the centre and the
projections on the intersections of all independent sets of r <= d boundaries, those that lie in
the ball, hold an attack for every set that can be fooled: finitely many candidates, whose 0/1
losses are the whole game. In the plane there are 1 + L + L(L-1)/2 of them.

Nothing is sampled: this is the reference for attacks and sampled games.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixsolve.base.arguments import as_array, as_length, as_real
from mixsolve.base.errors import MixsolveError
from mixsolve.base.tuning import tuning
from mixsolve.games.game import Game, Seed
from mixsolve.games.paper import paper2d

__all__ = ["linear_game", "paper2d_exact"]

# More sets of boundaries than this do not fit in memory: d or L is too large.
_MAX_CANDIDATES = 1 << 16

# Outputs computed at once: 32 MiB of float64.


def linear_game(
    points: ArrayLike,
    labels: ArrayLike,
    directions: ArrayLike,
    intercepts: ArrayLike,
    eps: float | str,
    *,
    tie: float = 1e-10,
) -> Game:
    """Build the game of linear classifiers against the best attack in an l2 ball.

    The classifiers are f_k(x) = <w_k, x> + b_k; they err where y f_k(x) <= 0, and each sample moves
    by at most `eps` in the Euclidean norm. A set of classifiers errs together on some point of
    the ball if and only if it errs together on one of the candidates.

    Parameters
    ----------
    points : array_like of shape (n_samples, d)
        The samples x_i.
    labels : array_like of shape (n_samples,)
        Their labels y_i, each -1 or 1.
    directions : array_like of shape (n_classifiers, d)
        The normals w_k, of any length. A classifier with w_k = 0 is constant: it has no boundary
        and errs on the whole ball or nowhere.
    intercepts : array_like of shape (n_classifiers,)
        The intercepts b_k.
    eps : float or str
        Radius of the ball, >= 0; a fraction such as "1/3" is accepted.
    tie : float, default 1e-10
        Lengths within ``tie * (||x_i|| + |b_k| / ||w_k|| + eps)`` of a boundary or of the sphere
        count as on it, and normals whose smallest singular value is below `tie` as dependent. A
        candidate errs on the boundaries it was projected on by construction; this margin is for
        the others it meets, such as copies of a classifier or three lines through one point,
        which rounding would otherwise decide. The answer is that of a game whose boundaries are
        shifted by no more than that, always towards an error.

    Returns
    -------
    Game
        `losses` of shape (n_samples, n_candidates, n_classifiers), uint8; `details` has `points`,
        `labels`, `directions` and `intercepts` as given, the `candidates` (n_samples, n_candidates,
        d), and their `mask` (n_samples, n_candidates), False where a projection lies outside of
        the ball or does not exist. There the candidate is the sample itself once more, so that the
        losses can be solved with or without the mask. The first candidate is the sample.

    Raises
    ------
    MixsolveError
        Shapes that do not fit, numbers that are not finite, labels other than -1 and 1, a
        negative radius, or so many classifiers and dimensions that there are more than 65,536
        sets of boundaries.

    Examples
    --------
    Two lines, and a sample that can be moved over either but not over both:

    >>> game = linear_game([[0.0, 0.0]], [1], [[1.0, 0.0], [0.0, 2.0]], [1.0, 2.0], eps=1.2)
    >>> game.losses[0]
    array([[0, 0],
           [1, 0],
           [0, 1],
           [0, 0]], dtype=uint8)
    >>> game.details["candidates"][0, 1], game.details["mask"][0]
    (array([-1.,  0.]), array([ True,  True,  True, False]))
    """
    points, labels, directions, intercepts = _check(points, labels, directions, intercepts)
    eps = as_length("eps", eps)
    tie = as_real("tie", tie, at_least=0.0, below=1.0)
    lengths = np.linalg.norm(directions, axis=1)
    constant = lengths == 0
    # A constant classifier has its output as its distance, which no move changes.
    lengths[constant] = 1.0
    units, offsets = directions / lengths[:, None], intercepts / lengths

    sets = _boundary_sets(np.flatnonzero(~constant), points.shape[1])
    shape = len(points), 1 + sum(len(part) for part in sets)
    losses = np.empty((*shape, len(directions)), np.uint8)
    candidates = np.empty((*shape, points.shape[1]))
    mask = np.empty(shape, bool)
    projections = [_projections(units[part], tie) for part in sets]
    on_boundary = _membership(sets, len(directions))
    reach = np.where(constant, 0.0, np.abs(offsets) + eps)

    step = max(1, tuning.scored_entries // (shape[1] * max(units.shape)))
    for start in range(0, len(points), step):
        block = slice(start, start + step)
        x, y = points[block], labels[block]
        distances = x @ units.T + offsets
        size = np.linalg.norm(x, axis=1)[:, None]
        slack = tie * np.where(constant, 0.0, size + reach)

        moves = _moves(distances, sets, projections, x.shape[1])
        # A projection that does not exist is NaN, which this comparison counts as outside.
        inside = np.linalg.norm(moves, axis=2) <= eps + tie * (size + eps)
        moves[~inside] = 0.0
        margins = y[:, None, None] * (distances[:, None] + moves @ units.T)
        wrong = margins <= slack[:, None]
        wrong |= on_boundary & inside[..., None]
        losses[block], mask[block] = wrong, inside
        candidates[block] = x[:, None] + moves
    return Game(
        name=f"linear eps={eps:g}",
        losses=losses,
        details=MappingProxyType(
            {
                "points": points,
                "labels": labels,
                "candidates": candidates,
                "mask": mask,
                "directions": directions,
                "intercepts": intercepts,
            }
        ),
    )


def paper2d_exact(
    n_samples: int = 1000, n_classifiers: int = 10, eps: float | str = 3.0, seed: Seed = 0
) -> Game:
    """Build the game that `mixsolve.games.paper2d` samples, with the best attacks for draws.

    Parameters
    ----------
    n_samples, n_classifiers : int, default 1000, 10
        Sizes N and L of the game.
    eps : float or str, default 3.0
        Radius of the ball, >= 0; a fraction such as "1/3" is accepted.
    seed : int or numpy.random.Generator, default 0
        Source of the draws; an integer gives the points and classifiers of `paper2d`.

    Returns
    -------
    Game
        The `linear_game` of these points and classifiers, 1 + L + L(L-1)/2 candidates a sample.

    References
    ----------
    Meunier et al., ICML 2021, section 5.1.

    Examples
    --------
    >>> paper2d_exact(n_samples=50, n_classifiers=3, eps=1.0, seed=1)
    Game('paper2d exact eps=1', losses=(50, 7, 3) uint8)
    """
    eps = as_length("eps", eps)
    drawn = paper2d(n_samples, 1, n_classifiers, eps=eps, seed=seed).details
    exact = linear_game(
        drawn["points"], drawn["labels"], drawn["directions"], drawn["intercepts"], eps
    )
    return Game(name=f"paper2d exact eps={eps:g}", losses=exact.losses, details=exact.details)


def _check(
    points: ArrayLike, labels: ArrayLike, directions: ArrayLike, intercepts: ArrayLike
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return the four arrays as float64; refuse shapes that do not fit."""
    points = _numbers("points", points, "(n_samples, d)", 2)
    labels = _numbers("labels", labels, "(n_samples,)", 1)
    directions = _numbers("directions", directions, "(n_classifiers, d)", 2)
    intercepts = _numbers("intercepts", intercepts, "(n_classifiers,)", 1)
    for name, array, other, wanted in (
        ("labels", labels, "points", len(points)),
        ("intercepts", intercepts, "directions", len(directions)),
    ):
        if len(array) != wanted:
            raise MixsolveError(
                f"{name} must have one entry for each of the {wanted} {other}, got {len(array)}"
            )
    if directions.shape[1] != points.shape[1]:
        raise MixsolveError(
            f"directions must have the {points.shape[1]} coordinates of the points, "
            f"got {directions.shape[1]}"
        )
    if not np.isin(labels, (-1.0, 1.0)).all():
        index = int(np.flatnonzero(~np.isin(labels, (-1.0, 1.0)))[0])
        raise MixsolveError(f"labels must be -1 or 1, got {labels[index]:g} at index {index}")
    return points, labels, directions, intercepts


def _numbers(name: str, given: ArrayLike, axes: str, ndim: int) -> NDArray[np.float64]:
    return as_array(name, given, axes, ndim).astype(np.float64)


def _boundary_sets(movable: NDArray[np.intp], d: int) -> list[NDArray[np.intp]]:
    """Return the sets of r boundaries, (comb(L, r), r) for each r = 1 .. min(d, L)."""
    sizes = range(1, min(d, len(movable)) + 1)
    total = 1 + sum(comb(len(movable), r) for r in sizes)
    if total > _MAX_CANDIDATES:
        raise MixsolveError(
            f"directions must leave at most {_MAX_CANDIDATES} candidates a sample, got {total}: "
            f"the sets of up to {sizes[-1]} of {len(movable)} boundaries; take fewer classifiers "
            "or fewer dimensions"
        )
    return [np.array(list(combinations(movable.tolist(), r)), dtype=np.intp) for r in sizes]


def _membership(sets: list[NDArray[np.intp]], n_classifiers: int) -> NDArray[np.bool_]:
    """Return whose boundaries each candidate was projected on, (n_candidates, n_classifiers)."""
    parts = [np.zeros((1, n_classifiers), bool)]
    for part in sets:
        member = np.zeros((len(part), n_classifiers), bool)
        np.put_along_axis(member, part, True, axis=1)
        parts.append(member)
    return np.concatenate(parts)


def _projections(normals: NDArray[np.float64], tie: float) -> NDArray[np.float64]:
    """Return the pseudo-inverses (n_sets, d, r) of sets of unit normals (n_sets, r, d).

    Minus the pseudo-inverse takes the signed distances of the boundaries to the projection of the
    centre on their intersection. It is NaN where the normals are dependent: such an intersection
    is empty, or that of fewer boundaries.
    """
    u, values, vt = np.linalg.svd(normals, full_matrices=False)
    inverse = np.full(values.shape, np.nan)
    independent = values[:, -1] > max(tie, np.finfo(np.float64).eps)
    inverse[independent] = 1.0 / values[independent]
    return np.einsum("srd,sr,scr->sdc", vt, inverse, u)


def _moves(
    distances: NDArray[np.float64],
    sets: list[NDArray[np.intp]],
    projections: list[NDArray[np.float64]],
    d: int,
) -> NDArray[np.float64]:
    """Return the moves from the centres to the candidates, (n_samples, n_candidates, d)."""
    parts = [np.zeros((len(distances), 1, d))]
    for part, inverse in zip(sets, projections, strict=True):
        parts.append(-np.einsum("sdr,nsr->nsd", inverse, distances[:, part]))
    return np.concatenate(parts, axis=1)
