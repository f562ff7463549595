"""Regularisation paths: the values rise to the exact one, whatever the order asked for."""

import numpy as np
import pytest

import mixsolve
from mixsolve import MixsolveError, games

ALPHAS = [0.03, 0.0, 1.0, 0.0003, 0.003]


@pytest.mark.parametrize(
    "losses",
    [
        games.gamma_game(60, 8, 5, seed=1).losses,
        games.paper2d(80, 60, 6, seed=3).losses,
        games.integer_game(30, 6, 4, seed=2).losses,
    ],
)
def test_values_rise_to_the_exact_one(losses):
    path = mixsolve.solve_path(losses, ALPHAS, tol=1e-9)
    assert [solution.alpha for solution in path] == ALPHAS
    order = np.argsort(ALPHAS)
    values = np.array([path[place].value for place in order])
    assert (np.diff(values) <= 1e-9 * path[0].spread).all()
    exact = path[ALPHAS.index(0.0)]
    for solution in path:
        assert solution.success
        alone = mixsolve.solve(losses, solution.alpha, tol=1e-9)
        assert abs(solution.value - alone.value) <= solution.gap + alone.gap + 1e-12
        # Proposition 3 with its rate: the exact risk at the weights is at most alpha log m away.
        assert solution.risk - exact.lower_bound <= solution.smoothing_bound + solution.gap + 1e-12


def test_each_solution_counts_its_own_passes():
    losses = games.gamma_game(200, 8, 5, seed=1).losses
    first, second, third = mixsolve.solve_path(losses, [0.1, 0.1, 0.1])
    assert second.n_passes == third.n_passes < first.n_passes + 3


@pytest.mark.parametrize("alphas", [[], 0.1, [[0.1]]])
def test_alphas_must_be_a_list(alphas):
    with pytest.raises(MixsolveError, match="alphas must be a list of numbers"):
        mixsolve.solve_path(np.ones((2, 2, 2)), alphas)


def test_a_wrong_alpha_is_named():
    with pytest.raises(MixsolveError, match="alpha must be a finite number >= 0, got -1"):
        mixsolve.solve_path(np.ones((2, 2, 2)), [0.1, -1])
