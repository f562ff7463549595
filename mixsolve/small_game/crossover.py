"""From near a solution of a small game onto it: the last digits, and duals with few rows.

Close to a solution it is plain which rows are tied for the maximum of their sample and which
classifiers are in use. Let T be the tied rows, a_r their difference to the first of their sample,
K the classifiers in use. Every solution satisfies

    <a_r, lam> = 0 for r in T,  sum_K lam = 1,  lam = 0 off K;
    linear_k + sum_{r in T} q_r a_rk = nu for k in K,  sum_{r in i} q_r = w_i,  q = 0 off T,

with ``linear`` the losses if every sample played its first row. Constraints of the weights that
bind, and their multipliers, stand in both systems like tied rows. Both are linear: the point
from the interior point method is projected onto each, with every unknown measured in units of its
present size. So small entries move little and signs survive, and where ties leave a whole face of
solutions (0/1 losses), the projection lies inside it. A generic game has as many equations as
unknowns, and the projection is a vertex. Neither the tied rows nor the classifiers in use are
trusted: the certificate is taken from all rows afterwards.
"""

import numpy as np
from numpy.typing import NDArray

from mixsolve.small_game.game import SmallGame, Vector
from mixsolve.uncompiled.choice import loops

_MAX_WORK = 2e7  # multiplications a projection may take
_OUTSIDE = 1e-13  # violation of a cut, in its own unit, that is rounding
_RCOND = 1e-11  # singular values below this share of the largest count as zero


def polish(
    game: SmallGame, weights: Vector, dual: Vector, gap: float
) -> tuple[Vector, Vector] | None:
    """Project a point near a solution onto the solutions.

    Parameters
    ----------
    game : SmallGame
        The rows.
    weights : ndarray of float64, shape (L,)
        Positive weights near a solution.
    dual : ndarray of float64, shape (R + p + q,)
        Positive duals near a solution; those of sample i sum to its weight. Then those of the cuts.
    gap : float
        Their gap in units of the spread; tells the tied rows from the others.

    Returns
    -------
    weights, dual : ndarray, ndarray
        The projected point, not certified; or None where no choice of tied rows makes sense.
    """
    # On the central path p_r = q_r / w_i = mu / s_r. The tied rows have p of 0.01 and more, the
    # closest of the others s of about 1 / n: the threshold lies between 0.01 and n mu.
    barrier = max(gap, 0.0) / max(game.mass, 1.0)
    share = min(0.1 * np.sqrt(len(game.weight) * barrier) + 1e-9, 0.1)
    n_rows, cuts = len(game.rows), game.cuts
    dual, multipliers = dual[:n_rows], dual[n_rows:]
    index = np.empty(len(dual), dtype=np.int64)
    offsets = np.zeros(len(game.offsets), dtype=np.int64)
    owners = np.empty(len(game.weight), dtype=np.int64)
    full = np.empty(len(dual))
    linear = game.linear.copy()
    n_tied = loops("interior_point").select(
        game.rows, game.offsets, game.weight, game.inverse, dual, share,
        index, offsets, owners, linear, full,
    )  # fmt: skip
    offsets, owners = offsets[: n_tied + 1], owners[:n_tied]
    leads, counts = index[offsets[:-1]], np.diff(offsets) - 1
    others = np.delete(index[: offsets[-1]], offsets[:-1])
    if len(others) * game.rows.shape[1] ** 2 > _MAX_WORK:
        return None
    ties = (game.rows[others] - game.rows[np.repeat(leads, counts)]) * game.inverse
    binding = np.ones(len(multipliers), dtype=bool)
    p = len(cuts.upper)
    binding[:p] = multipliers[:p] > -(cuts.upper @ weights)
    multipliers = np.where(binding, multipliers, 0.0)
    ties = np.concatenate([ties, np.concatenate([cuts.upper, cuts.equal[1:]])[binding]])
    played = np.append(dual[others], multipliers[binding])
    gradient = linear + played @ ties
    used = weights > gradient - gradient @ weights
    ties = ties[:, used]
    lam = _project_weights(weights[used], ties)
    if lam is None:
        return None
    size = np.abs(played)
    n_free = len(multipliers) - p
    size[len(size) - n_free :] = 1.0  # multipliers of equalities may be 0, and of either sign
    played = _project_dual(played, size, ties, gradient[used])
    multipliers[binding] = played[len(others) :]
    played = played[: len(others)]
    if multipliers[:p].min(initial=0.0) < 0.0:
        return None
    taken = np.bincount(np.repeat(np.arange(n_tied), counts), played, minlength=n_tied)
    lead = game.weight[owners] - taken
    if played.min(initial=0.0) < 0.0 or lead.min(initial=0.0) < 0.0:
        return None
    full[others] = played
    full[leads] = lead
    projected = np.zeros_like(weights)
    projected[used] = lam
    if cuts.excess(projected) > _OUTSIDE:  # the certificate assumes that the cuts are met
        return None
    return projected, np.append(full, multipliers)


def _project_weights(lam: Vector, ties: NDArray[np.float64]) -> Vector | None:
    """The point with <a_r, lam> = 0 and sum 1 that is nearest in units of ``lam``."""
    if len(lam) == 0:
        return None
    system = np.vstack([ties, np.ones(len(lam))]) * lam
    missing = np.append(-(ties @ lam), 1.0 - lam.sum())
    lam = lam * (1.0 + np.linalg.lstsq(system, missing, rcond=_RCOND)[0])
    return lam / lam.sum() if lam.min() >= 0.0 else None


def _project_dual(
    played: Vector, size: Vector, ties: NDArray[np.float64], gradient: Vector
) -> Vector:
    """The duals that make the gradient constant, nearest in units of ``size``."""
    if len(played) == 0:
        return played
    system = (size[:, None] * ties).T
    system -= system.mean(0)
    missing = gradient.mean() - gradient
    return played + size * np.linalg.lstsq(system, missing, rcond=_RCOND)[0]
