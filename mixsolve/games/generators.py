"""Matrix games, and games of random losses.

Every generator returns a `Game`, whose `losses` of shape (samples, candidates, classifiers) are the
argument of `mixsolve.solve`:

    game = games.gamma_game(100, 20, 10)
    solution = mixsolve.solve(game.losses, sample_weight=game.sample_weight)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mixsolve.base.arguments import as_array, as_count
from mixsolve.base.errors import MixsolveTypeError
from mixsolve.base.tuning import tuning
from mixsolve.games.game import Game, Seed, generator


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
    rounded to `dtype` block by block: the draws do not depend on `dtype`, and little memory is
    used beyond the result.

    Parameters
    ----------
    n_samples, n_candidates, n_classifiers : int
        Sizes N, m and L of the game.
    seed : int or numpy.random.Generator, default 0
        Source of the draws.
    dtype : dtype, default float64
        A floating point type for the losses.

    Returns
    -------
    Game
        `losses` of shape (n_samples, n_candidates, n_classifiers) and type `dtype`.

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
    rng = generator(seed)
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
        Source of the draws.

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
    return Game(name="random matrix", losses=generator(seed).standard_normal(shape))


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
        Source of the draws.

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
    losses = generator(seed).integers(
        0,
        high,
        (n_samples, n_candidates, n_classifiers),
        dtype=np.min_scalar_type(high),
        endpoint=True,
    )
    return Game(name=f"integer 0..{high}", losses=losses)
