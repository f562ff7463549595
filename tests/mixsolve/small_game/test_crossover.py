import numpy as np
import pytest

from mixsolve.small_game.crossover import polish
from mixsolve.small_game.game import certify, normalise
from mixsolve.small_game.interior_point import solve_interior_point
from mixsolve.small_game.solve import solve_small


def random_game(kind, seed, n=150, m=6, size=5):
    rng = np.random.default_rng(seed)
    draws = {
        "normal": rng.standard_normal,
        "integers": lambda shape: rng.integers(0, 4, shape).astype(float),
        "zero-one": lambda shape: rng.integers(0, 2, shape).astype(float),
    }
    return draws[kind]((n * m, size)), m * np.arange(n + 1), np.full(n, 1.0 / n)


@pytest.mark.parametrize("kind", ["normal", "integers", "zero-one"])
@pytest.mark.parametrize("seed", range(5))
def test_polish_brings_a_rough_solution_to_rounding_level(kind, seed):
    rows, offsets, weight = random_game(kind, seed)
    rough = solve_interior_point(rows, offsets, weight, tol=1e-7)
    game = normalise(rows, offsets, weight)
    polished = polish(game, rough.weights, rough.dual, max(rough.gap / rough.spread, 1e-14))
    assert polished is not None
    weights, dual = polished
    assert weights.min() >= 0.0
    assert dual.min() >= 0.0
    assert certify(game, weights, dual)[2] <= 1e-13 * game.spread


def test_a_generic_solution_is_a_vertex():
    rows, offsets, weight = random_game("normal", 7)
    solution = solve_small(rows, offsets, weight, tol=1e-9)
    used = np.count_nonzero(solution.weights)
    tied = np.count_nonzero(solution.dual) - len(weight)
    assert tied == used - 1
    values = rows @ solution.weights
    highest = np.repeat(np.maximum.reduceat(values, offsets[:-1]), np.diff(offsets))
    np.testing.assert_allclose(values[solution.dual > 0], highest[solution.dual > 0], atol=1e-13)
    losses = solution.dual @ rows
    np.testing.assert_allclose(losses[solution.weights > 0], solution.value, atol=1e-13)


def test_unused_classifiers_get_exactly_nothing():
    rows, offsets, weight = random_game("normal", 8)
    rows[:, 2] += 5.0
    solution = solve_small(rows, offsets, weight)
    assert solution.converged
    assert solution.weights[2] == 0.0


def test_pure_solution():
    rows, offsets, weight = random_game("normal", 9)
    rows[:, 1] -= 20.0
    solution = solve_small(rows, offsets, weight)
    assert solution.converged
    np.testing.assert_array_equal(solution.weights, [0.0, 1.0, 0.0, 0.0, 0.0])
    best = np.maximum.reduceat(rows[:, 1], offsets[:-1])
    assert solution.value == pytest.approx(best.mean(), abs=1e-12)


def test_polish_of_a_point_far_away_is_harmless():
    rows, offsets, weight = random_game("normal", 10)
    game = normalise(rows, offsets, weight)
    rng = np.random.default_rng(0)
    for _ in range(20):
        weights = rng.dirichlet(np.ones(5))
        dual = rng.gamma(1.0, size=len(rows)) + 1e-6
        certify(game, weights, dual)  # scales the duals
        polished = polish(game, weights, dual, 1e-6)
        if polished is not None:
            weights, dual = polished
            value, bound, gap = certify(game, weights, dual)
            assert value >= bound
            assert gap >= 0.0
            np.testing.assert_allclose(np.add.reduceat(dual, offsets[:-1]), weight, rtol=1e-12)
