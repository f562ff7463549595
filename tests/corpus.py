"""Random and degenerate games, many shapes and kinds of losses, and their magnitudes."""

import numpy as np
import pytest
from reference import as_rows

from mixsolve import games


def seeds(every, quick):
    """Values for a test: the first `quick` always, the others with ``--slow``."""
    every = list(every)
    slow = [
        pytest.param(*(seed if isinstance(seed, tuple) else (seed,)), marks=pytest.mark.slow)
        for seed in every[quick:]
    ]
    return every[:quick] + slow


def corpus_game(seed):
    """One of 25 kinds of games, eight of each: losses, and the options that go with them."""
    kind, seed = seed % 25, 1000 + seed
    rng = np.random.default_rng(seed)
    N, m, L = rng.integers(2, 9), rng.integers(2, 8), rng.integers(2, 6)
    gamma = games.gamma_game(N, m, L, seed=rng).losses
    bits = games.integer_game(N, m, L, seed=rng).losses
    match kind:
        case 0 | 1:
            return gamma, {}
        case 2:
            return rng.normal(size=(N, m, L)), {}
        case 3:
            return bits, {}
        case 4:
            return games.integer_game(N, m, L, high=2, seed=rng).losses, {}
        case 5:
            return np.zeros((N, m, L)), {}
        case 6:
            return np.full((N, m, L), -3.7), {}
        case 7:
            return gamma[:, :, :1], {}
        case 8:
            return gamma[:, :1], {}
        case 9:
            return games.random_matrix_game(m, L, seed=rng).losses, {}
        case 10:
            return np.concatenate([gamma, gamma[:, ::-1], gamma[:, :1]], axis=1), {}
        case 11:
            return np.concatenate([bits, bits[..., ::-1]], axis=2), {}
        case 12:
            return np.concatenate([gamma, gamma.min(axis=2, keepdims=True) - 0.1], axis=2), {}
        case 13:
            return 1e-8 * gamma, {}
        case 14:
            return 1e8 * gamma, {}
        case 15:
            return gamma + 1e4, {}
        case 16:
            return [table[: 1 + i % m] for i, table in enumerate(gamma)], {}
        case 17:
            mask = rng.random((N, m)) < 0.5
            mask[:, 0] = True
            return np.where(mask[..., None], gamma, np.nan), {"candidate_mask": mask}
        case 18:
            return gamma, {"sample_weight": 10.0 ** rng.uniform(-6, 3, N)}
        case 19:
            return bits, {"sample_weight": np.arange(N) % 3}
        case 20:
            return gamma, {"candidate_prior": 10.0 ** rng.uniform(-3, 3, (N, m))}
        case 21:
            return gamma, {"alpha": rng.uniform(0.05, 1.0, N)}
        case 22:
            mask = np.arange(N * m).reshape(N, m) % 3 != 1
            prior = 1 + rng.integers(0, 3, (N, m))
            alpha = rng.uniform(0.1, 1.0, N)
            options = {"candidate_mask": mask, "candidate_prior": prior, "alpha": alpha}
            return bits, options | {"sample_weight": rng.random(N) + 0.01}
        case 23:
            return games.paper2d(20, 15, L, seed=rng).losses, {}
        case _:
            nearly = np.repeat(gamma[:, :1], m, axis=1)
            return nearly + 1e-7 * rng.random(nearly.shape), {}


def exact_game(seed):
    """Losses, options of an exact solve, and the options the reference formulas take."""
    losses, options = corpus_game(seed)
    options = {k: v for k, v in options.items() if k not in ("alpha", "candidate_prior")}
    return losses, options


def entropic_game(seed):
    losses, options = corpus_game(seed)
    rows, _ = as_rows(losses, options.get("candidate_mask"))
    M = max(t.max() for t in rows) - min(t.min() for t in rows) or 1.0
    alpha = options.pop("alpha", np.array((1.0, 0.1)[seed // 25 % 2])) * M
    return losses, alpha, options


def spread_of(losses, options):
    rows, _ = as_rows(losses, options.get("candidate_mask"))
    return max(t.max() for t in rows) - min(t.min() for t in rows)


def magnitude_of(losses, options):
    rows, _ = as_rows(losses, options.get("candidate_mask"))
    return max(np.abs(t).max() for t in rows)
