"""The games of the paper's sections 2.1 and 5.1: points on a line, and classifiers in the plane.

References
----------
.. [1] L. Meunier, M. Scetbon, R. Pinot, J. Atif, Y. Chevaleyre, "Mixed Nash Equilibria in the
   Adversarial Examples Game", ICML 2021.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixsolve.base.arguments import as_count, as_length, check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve.base.tuning import tuning
from mixsolve.games.game import Game, Seed, generator

# The paper keeps the linear classifiers whose standard risk is below this.
_MAX_STANDARD_RISK = 0.4

# Draws before a set of points is declared too hard for random linear classifiers. About one
# draw in twenty is kept on the points of the paper.
_MAX_DRAWS = 1_000_000


def line_game() -> Game:
    """Three points on a line and two classifiers: randomising takes the risk from 1 to 3/4.

    The point x = 0 has label -1 and weight 1/2; the points x = -1 and x = 1 have label +1 and
    weight 1/4 each. The attacker moves a point by at most 1, here to x - 1, x or x + 1, which
    contains an optimal attack of the whole interval [x - 1, x + 1]. The classifiers are

        f_1(x) = -x - 1/2,    f_2(x) = x - 1/2,

    and the loss is 1 if f_k(x) y <= 0 and 0 otherwise. Each classifier alone has the standard risk
    1/4 and the adversarial risk 1. The optimal mixture (1/2, 1/2) has the adversarial risk 3/4,
    and the optimal attacker moves the middle point to -1 or to 1 with probability 1/2 each.

    Returns
    -------
    Game
        `losses` of shape (3, 3, 2), uint8, for the points 0, -1, 1 in this order; `details` has
        the `points` (3,), `labels` (3,) and `candidates` (3, 3).

    References
    ----------
    Meunier et al., ICML 2021, section 2.1.

    Examples
    --------
    >>> game = line_game()
    >>> game.losses[0]
    array([[1, 0],
           [0, 0],
           [0, 1]], dtype=uint8)
    >>> game.value, game.weights.tolist(), game.sample_weight.tolist()
    (0.75, [0.5, 0.5], [0.5, 0.25, 0.25])
    """
    points = np.array([0.0, -1.0, 1.0])
    labels = np.array([-1, 1, 1])
    candidates = points[:, None] + np.array([-1.0, 0.0, 1.0])
    outputs = np.stack([-candidates - 0.5, candidates - 0.5], axis=-1)
    return Game(
        name="line",
        losses=_zero_one(outputs, labels[:, None, None]),
        sample_weight=np.array([0.5, 0.25, 0.25]),
        value=0.75,
        weights=np.array([0.5, 0.5]),
        details=MappingProxyType({"points": points, "labels": labels, "candidates": candidates}),
    )


def paper2d(
    n_samples: int = 1000,
    n_candidates: int = 1000,
    n_classifiers: int = 10,
    eps: float | str = 3.0,
    loss: Literal["zero-one", "logistic"] = "zero-one",
    seed: Seed = 0,
    *,
    include_point: bool = False,
) -> Game:
    """Linear classifiers in the plane, attacked by random draws in a ball.

    The points follow

        P(Y = 1) = P(Y = -1) = 1/2,    X | Y = -1 ~ N(0, I_2),
        X | Y = 1 ~ 1/2 N((-3, 0), I_2) + 1/2 N((3, 0), I_2),

    and the candidates of a sample are drawn uniformly in the Euclidean ball of radius `eps` around
    it. The classifiers are f(x) = <w, x> + b, drawn at random and kept when their standard risk
    on the points is below 0.4. The reference does not specify their law; here w is uniform on the
    unit circle and b uniform on [-r, r], r the largest norm of a point. With norm(w) = 1, f(x) is
    the signed distance from x to the decision line, in the unit of `eps`. The losses are

        zero-one    1 if y f(x) <= 0 else 0,
        logistic    log(1 + exp(-y f(x))).

    For one integer seed the points depend on `n_samples` alone, the classifiers on the points alone
    (a larger `n_classifiers` appends some), and the candidates are the same draws in the unit ball
    scaled by `eps`.

    Parameters
    ----------
    n_samples, n_candidates, n_classifiers : int, default 1000, 1000, 10
        Sizes N, m and L of the game.
    eps : float or str, default 3.0
        Radius of the ball, >= 0; a fraction such as "1/3" is accepted.
    loss : {"zero-one", "logistic"}, default "zero-one"
        The loss of a classifier on a candidate.
    seed : int or numpy.random.Generator, default 0
        Source of the draws.
    include_point : bool, default False
        Whether the first of the `n_candidates` candidates is the sample itself.

    Returns
    -------
    Game
        `losses` of shape (n_samples, n_candidates, n_classifiers), uint8 for the zero-one loss and
        float64 for the logistic loss; `details` has the `points` (n_samples, 2), `labels`
        (n_samples,), `candidates` (n_samples, n_candidates, 2), `directions` (n_classifiers, 2)
        and `intercepts` (n_classifiers,).

    Raises
    ------
    MixsolveError
        If an argument is out of range, or almost no linear classifier has a standard risk below 0.4
        on the points (very few points).

    References
    ----------
    Meunier et al., ICML 2021, section 5.1.

    Examples
    --------
    >>> game = paper2d(n_samples=50, n_candidates=20, n_classifiers=3, seed=1)
    >>> game.losses.shape, game.losses.dtype
    ((50, 20, 3), dtype('uint8'))
    """
    n_samples = as_count("n_samples", n_samples)
    n_candidates = as_count("n_candidates", n_candidates)
    n_classifiers = as_count("n_classifiers", n_classifiers)
    eps = as_length("eps", eps)
    check_flags(include_point=include_point)
    if loss not in ("zero-one", "logistic"):
        raise MixsolveError(f"loss must be 'zero-one' or 'logistic', got {loss!r}")
    for_points, for_classifiers, for_candidates = generator(seed).spawn(3)

    labels = for_points.choice(np.array([-1, 1]), size=n_samples)
    side = for_points.choice(np.array([-3.0, 3.0]), size=n_samples)
    points = for_points.standard_normal((n_samples, 2))
    points[:, 0] += np.where(labels == 1, side, 0.0)

    directions, intercepts = _linear_classifiers(points, labels, n_classifiers, for_classifiers)

    radii = eps * np.sqrt(for_candidates.random((n_samples, n_candidates)))
    angles = for_candidates.uniform(0.0, 2.0 * np.pi, (n_samples, n_candidates))
    candidates = np.empty((n_samples, n_candidates, 2))
    candidates[..., 0] = points[:, None, 0] + radii * np.cos(angles)
    candidates[..., 1] = points[:, None, 1] + radii * np.sin(angles)
    if include_point:
        candidates[:, 0] = points

    dtype = np.uint8 if loss == "zero-one" else np.float64
    losses = np.empty((n_samples, n_candidates, n_classifiers), dtype)
    for classifier in range(n_classifiers):
        outputs = candidates @ directions[classifier] + intercepts[classifier]
        if loss == "zero-one":
            losses[..., classifier] = _zero_one(outputs, labels[:, None])
        else:
            losses[..., classifier] = np.logaddexp(0.0, -labels[:, None] * outputs)
    return Game(
        name=f"paper2d {loss} eps={eps:g}",
        losses=losses,
        details=MappingProxyType(
            {
                "points": points,
                "labels": labels,
                "candidates": candidates,
                "directions": directions,
                "intercepts": intercepts,
            }
        ),
    )


def _zero_one(outputs: NDArray, labels: NDArray) -> NDArray[np.uint8]:
    """Misclassified if and only if y f(x) <= 0: a point on the boundary is an error."""
    return (outputs * labels <= 0).astype(np.uint8)


def _linear_classifiers(
    points: NDArray, labels: NDArray, n_classifiers: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw (w, b) until `n_classifiers` of them have a standard risk below 0.4 on the points."""
    radius = np.linalg.norm(points, axis=1).max()
    directions = np.empty((n_classifiers, 2))
    intercepts = np.empty(n_classifiers)
    kept = 0
    # One size for every block, so that the first classifiers do not depend on their number.
    block = max(1, min(1024, tuning.drawn_entries // len(points)))
    for _ in range(0, _MAX_DRAWS, block):
        angles = rng.uniform(0.0, 2.0 * np.pi, block)
        offsets = rng.uniform(-radius, radius, block)
        drawn = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        risks = _zero_one(points @ drawn.T + offsets, labels[:, None]).mean(axis=0)
        good = np.flatnonzero(risks < _MAX_STANDARD_RISK)[: n_classifiers - kept]
        directions[kept : kept + len(good)] = drawn[good]
        intercepts[kept : kept + len(good)] = offsets[good]
        kept += len(good)
        if kept == n_classifiers:
            return directions, intercepts
    raise MixsolveError(
        f"only {kept} of {_MAX_DRAWS} random linear classifiers have a standard risk below "
        f"{_MAX_STANDARD_RISK} on these {len(points)} points, {n_classifiers} are needed: "
        "take more samples or another seed"
    )
