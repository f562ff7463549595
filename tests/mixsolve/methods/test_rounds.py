"""Constraint generation: few passes, subsamples first, HiGHS where the interior point gives up."""

from dataclasses import replace

import numpy as np
import pytest
from corpus import seeds
from reference import check_certificate

import mixsolve
from mixsolve import games
from mixsolve.methods import exact_rounds
from mixsolve.small_game import highs
from mixsolve.small_game import solve as small

LARGE = games.gamma_game(9000, 5, 4, seed=5).losses  # large enough to begin on a subsample


def test_a_large_game_is_seen_a_few_times():
    solution = mixsolve.solve(LARGE, tol=1e-10)
    check_certificate(solution, LARGE)
    assert solution.success
    assert solution.n_passes < 8
    whole = mixsolve.solve(LARGE, tol=1e-10, method="interior-point")
    assert abs(solution.value - whole.value) <= solution.gap + whole.gap + 1e-12


@pytest.mark.parametrize("alpha", seeds([2.0, 0.003, 0.1, 1e-5], quick=2))
def test_a_large_entropic_game_too(alpha):
    solution = mixsolve.solve(LARGE, alpha, tol=1e-10)
    check_certificate(solution, LARGE, alpha)
    assert solution.success
    assert solution.n_passes < 20
    reference = mixsolve.solve(LARGE[:60], alpha, tol=1e-10)
    slow = mixsolve.solve(LARGE[:60], alpha, method="apg", tol=1e-6, max_iter=100_000)
    assert abs(reference.value - slow.value) <= slow.gap + 1e-9


def test_sorted_samples_do_not_mislead_the_subsample():
    order = np.argsort(LARGE[:, 0, 0])
    assert mixsolve.solve(LARGE[order], tol=1e-9).success


def test_a_far_warm_start_costs_rounds_not_the_answer():
    cold = mixsolve.solve(LARGE, tol=1e-9)
    far = mixsolve.solve(LARGE, tol=1e-9, warm_start=[0.0, 0.0, 0.0, 1.0])
    assert far.success
    assert abs(far.value - cold.value) <= far.gap + cold.gap + 1e-12


def test_weights_at_a_vertex_are_found():
    """One classifier is better against every attack: far from uniform weights."""
    losses = LARGE.copy()
    losses[:, :, 2] -= 3.0
    solution = mixsolve.solve(losses, tol=1e-9)
    assert solution.success
    assert solution.weights[2] > 0.99


def test_the_message_tells_rounds_and_rows():
    solution = mixsolve.solve(games.gamma_game(300, 8, 4, seed=0).losses)
    assert "rounds" in solution.message
    assert "of 2400 rows" in solution.message
    bits = mixsolve.solve(games.paper2d(100, 200, 6, seed=0).losses)
    assert "presolve kept" in bits.message
    assert bits.timings["presolve"] > 0


def test_highs_takes_over_where_the_interior_point_gives_up(monkeypatch):
    real = small.solve_interior_point

    def giving_up(*args, **kwargs):
        found = real(*args, **kwargs)
        uniform = np.full(found.weights.size, 1.0 / found.weights.size)
        return replace(found, weights=uniform, converged=False)

    monkeypatch.setattr(small, "solve_interior_point", giving_up)
    losses = games.gamma_game(200, 6, 4, seed=3).losses
    solution = mixsolve.solve(losses, tol=1e-9)
    check_certificate(solution, losses)
    assert solution.success
    assert "HiGHS" in solution.message


def test_what_neither_can_solve_is_not_called_a_success(monkeypatch):
    nothing = highs.LinearProgramResult(None, None, "no", False, 0)
    monkeypatch.setattr(highs, "solve_rows", lambda *args, **kwargs: nothing)
    real = small.solve_interior_point

    def giving_up(*args, **kwargs):
        found = real(*args, **kwargs)
        uniform = np.full(found.weights.size, 1.0 / found.weights.size)
        return replace(found, weights=uniform, converged=False)

    monkeypatch.setattr(small, "solve_interior_point", giving_up)
    with pytest.warns(mixsolve.ConvergenceWarning):
        solution = mixsolve.solve(games.gamma_game(200, 6, 4, seed=3).losses, tol=1e-12)
    assert not solution.success
    assert solution.gap > solution.tolerance


def test_newton_asks_for_the_exact_optimum_once_however_many_steps_are_cut_back(monkeypatch):
    losses = games.paper2d(n_samples=300, n_candidates=200, seed=0).losses
    asked = []
    optimal = exact_rounds.optimal_weights

    def counted(*arguments):
        asked.append(1)
        return optimal(*arguments)

    monkeypatch.setattr(exact_rounds, "optimal_weights", counted)
    solution = mixsolve.solve(losses, 0.001, tol=1e-9)
    assert solution.success
    assert solution.nit > 5
    assert len(asked) == 1


@pytest.mark.parametrize("method", ["newton", "apg"])
def test_repeated_candidates_are_merged_before_either_entropic_method(method):
    losses = games.paper2d(n_samples=200, n_candidates=200, seed=0).losses
    shrunk = mixsolve.solve(losses, 0.1, method=method, tol=1e-7)
    plain = mixsolve.solve(losses, 0.1, method=method, tol=1e-7, presolve=False)
    assert shrunk.n_passes < 0.7 * plain.n_passes
    assert "presolve kept" in shrunk.message
    assert "presolve" not in plain.message
    assert abs(shrunk.value - plain.value) <= 2e-7
