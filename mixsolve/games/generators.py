"""Games with a known origin: the paper's examples, matrix games and random losses.

Every generator returns a `Game`, whose `losses` of shape (samples, candidates, classifiers) go
straight to `mixsolve.solve`:

    game = games.line_game()
    solution = mixsolve.solve(game.losses, sample_weight=game.sample_weight)

The line game and the two-dimensional game are those of sections 2.1 and 5.1 of the reference.

References
----------
.. [1] L. Meunier, M. Scetbon, R. Pinot, J. Atif, Y. Chevaleyre, "Mixed Nash Equilibria in the
   Adversarial Examples Game", ICML 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mixsolve.base.arguments import as_array, as_count, as_length, check_flags
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.tuning import tuning

__all__ = [
    "Game",
    "gamma_game",
    "integer_game",
    "line_game",
    "matrix_game",
    "paper2d",
    "random_matrix_game",
    "rock_paper_scissors",
]

Seed = int | np.random.Generator

# Numbers drawn at once where the result is smaller than the draws: 8 MiB of float64.

# The paper keeps the linear classifiers whose standard risk is below this.
_MAX_STANDARD_RISK = 0.4

# Draws before a set of points is declared too hard for random linear classifiers. About one
# draw in twenty is kept on the points of the paper.
_MAX_DRAWS = 1_000_000


@dataclass(frozen=True, eq=False)
class Game:
    """A finite adversarial examples game.

    Attributes
    ----------
    name : str
        What was generated.
    losses : ndarray of shape (n_samples, n_candidates, n_classifiers)
        Loss of every classifier on every attack candidate of every sample.
    sample_weight : ndarray of shape (n_samples,) or None
        Probability of each sample, None when uniform.
    value : float or None
        Value of the game, where it is known in closed form.
    weights : ndarray of shape (n_classifiers,) or None
        An optimal mixture, where it is known in closed form.
    details : mapping of str to ndarray
        What the losses were computed from (points, labels, candidates, classifiers), where there
        is such a thing.
    """

    name: str
    losses: NDArray
    sample_weight: NDArray[np.float64] | None = None
    value: float | None = None
    weights: NDArray[np.float64] | None = None
    details: Mapping[str, NDArray] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        return f"Game({self.name!r}, losses={self.losses.shape} {self.losses.dtype})"


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
    on the points is below 0.4. The reference leaves their law open; here w is uniform on the unit
    circle and b uniform on [-r, r], r the largest norm of a point. With norm(w) = 1, f(x) is the
    signed distance from x to the decision line, in the unit of `eps`. The losses are

        zero-one    1 if y f(x) <= 0 else 0,
        logistic    log(1 + exp(-y f(x))).

    For one integer seed the points depend on `n_samples` alone, the classifiers on the points and
    on nothing else (asking for more appends some), and the candidates are the same draws in the
    unit ball scaled by `eps`.

    Parameters
    ----------
    n_samples, n_candidates, n_classifiers : int, default 1000, 1000, 10
        Sizes N, m and L of the game.
    eps : float or str, default 3.0
        Radius of the ball, >= 0; a fraction such as "1/3" will do.
    loss : {"zero-one", "logistic"}, default "zero-one"
        The loss of a classifier on a candidate.
    seed : int or numpy.random.Generator, default 0
        Where the draws come from.
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
        If an argument is out of range, or the points admit next to no linear classifier with a
        standard risk below 0.4 (very few points).

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
    for_points, for_classifiers, for_candidates = _generator(seed).spawn(3)

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


def gamma_game(
    n_samples: int,
    n_candidates: int,
    n_classifiers: int,
    seed: Seed = 0,
    dtype: DTypeLike = np.float64,
) -> Game:
    """Continuous positive losses, correlated within a sample.

        losses[i, j, k] = a_i / 2 + b_ijk,    a_i ~ Gamma(1, 1),    b_ijk ~ Gamma(0.5, 1.5)

    (shape and scale), everything independent. The numbers are drawn in blocks of samples and
    rounded to `dtype` block by block: the draws do not depend on `dtype`, and hardly any memory
    is used beyond the result.

    Parameters
    ----------
    n_samples, n_candidates, n_classifiers : int
        Sizes N, m and L of the game.
    seed : int or numpy.random.Generator, default 0
        Where the draws come from.
    dtype : dtype, default float64
        A floating point type for the losses.

    Returns
    -------
    Game
        `losses` of shape (n_samples, n_candidates, n_classifiers) and the type asked for.

    Raises
    ------
    MixsolveError
        If a size is not positive or `dtype` is not a floating point type.

    Examples
    --------
    >>> gamma_game(100, 20, 10, seed=0, dtype="float32")
    Game('gamma', losses=(100, 20, 10) float32)
    """
    n_samples = as_count("n_samples", n_samples)
    n_candidates = as_count("n_candidates", n_candidates)
    n_classifiers = as_count("n_classifiers", n_classifiers)
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise MixsolveTypeError(f"dtype must be a floating point type, got {dtype!r}") from None
    if dtype.kind != "f":
        raise MixsolveTypeError(f"dtype must be a floating point type, got {dtype}")
    rng = _generator(seed)
    losses = np.empty((n_samples, n_candidates, n_classifiers), dtype)
    offsets = 0.5 * rng.gamma(1.0, 1.0, (n_samples, 1, 1))
    step = max(1, tuning.drawn_entries // (n_candidates * n_classifiers))
    for start in range(0, n_samples, step):
        block = losses[start : start + step]
        block[...] = offsets[start : start + step] + rng.gamma(0.5, 1.5, block.shape)
    return Game(name="gamma", losses=losses)


def matrix_game(matrix: ArrayLike) -> Game:
    """Turn a zero-sum matrix game into an adversarial examples game with one sample.

    The attacker plays the rows and receives `matrix[j, k]` from the classifier, who plays the
    columns:

        value = min_lam max_j sum_k lam_k matrix[j, k].

    Parameters
    ----------
    matrix : array_like of shape (n_candidates, n_classifiers)
        Real payments to the row player; the type is kept.

    Returns
    -------
    Game
        `losses` of shape (1, n_candidates, n_classifiers).

    Raises
    ------
    MixsolveError
        If `matrix` is not a two-dimensional array of finite real numbers with at least one row and
        one column.

    Examples
    --------
    >>> matrix_game([[3, 1], [0, 2]])
    Game('matrix', losses=(1, 2, 2) int64)
    """
    array = as_array("matrix", matrix, "(n_candidates, n_classifiers)", 2)
    return Game(name="matrix", losses=array[None])


def rock_paper_scissors() -> Game:
    """Rock, paper, scissors: value 0, both players uniform.

    Rows and columns are in the order rock, paper, scissors; a win of the row player pays 1.

    Returns
    -------
    Game
        `losses` of shape (1, 3, 3), int8, with entries -1, 0 and 1.

    Examples
    --------
    >>> rock_paper_scissors().losses[0]
    array([[ 0, -1,  1],
           [ 1,  0, -1],
           [-1,  1,  0]], dtype=int8)
    """
    matrix = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=np.int8)
    return Game(
        name="rock-paper-scissors", losses=matrix[None], value=0.0, weights=np.full(3, 1.0 / 3.0)
    )


def random_matrix_game(n_candidates: int, n_classifiers: int, seed: Seed = 0) -> Game:
    """Zero-sum matrix game with independent N(0, 1) payments.

    Parameters
    ----------
    n_candidates, n_classifiers : int
        Rows m (the attacker's) and columns L (the classifier's).
    seed : int or numpy.random.Generator, default 0
        Where the draws come from.

    Returns
    -------
    Game
        `losses` of shape (1, n_candidates, n_classifiers), float64.

    Raises
    ------
    MixsolveError
        If a size is not positive.

    Examples
    --------
    >>> random_matrix_game(4, 3)
    Game('random matrix', losses=(1, 4, 3) float64)
    """
    shape = (1, as_count("n_candidates", n_candidates), as_count("n_classifiers", n_classifiers))
    return Game(name="random matrix", losses=_generator(seed).standard_normal(shape))


def integer_game(
    n_samples: int, n_candidates: int, n_classifiers: int, high: int = 1, seed: Seed = 0
) -> Game:
    """Uniform random integer losses in 0, ..., high: many ties and many optimal mixtures.

    Parameters
    ----------
    n_samples, n_candidates, n_classifiers : int
        Sizes N, m and L of the game.
    high : int, default 1
        Largest loss, reached. 0 makes every loss 0.
    seed : int or numpy.random.Generator, default 0
        Where the draws come from.

    Returns
    -------
    Game
        `losses` of shape (n_samples, n_candidates, n_classifiers), in the smallest unsigned
        integer type that holds `high`.

    Raises
    ------
    MixsolveError
        If a size is not positive or `high` is negative.

    Examples
    --------
    >>> integer_game(5, 4, 3, high=2)
    Game('integer 0..2', losses=(5, 4, 3) uint8)
    """
    n_samples = as_count("n_samples", n_samples)
    n_candidates = as_count("n_candidates", n_candidates)
    n_classifiers = as_count("n_classifiers", n_classifiers)
    high = as_count("high", high, minimum=0)
    losses = _generator(seed).integers(
        0,
        high,
        (n_samples, n_candidates, n_classifiers),
        dtype=np.min_scalar_type(high),
        endpoint=True,
    )
    return Game(name=f"integer 0..{high}", losses=losses)


def _generator(seed: Seed) -> np.random.Generator:
    """Make the generator of a seed; one that is given is used as it is, and advances."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(as_count("seed", seed, minimum=0))


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
    # One size for every block, so that the first classifiers do not depend on how many are asked.
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
        f"{_MAX_STANDARD_RISK} on these {len(points)} points, {n_classifiers} were asked for: "
        "take more samples or another seed"
    )
