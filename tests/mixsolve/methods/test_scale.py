"""Games of any scale: losses from subnormal to next to overflow, and any ratio of them to alpha."""

import itertools
import math

import numpy as np
import pytest
from reference import attack_bound, attacked_losses

import mixsolve
from mixsolve.base.tuning import tuning
from mixsolve.methods import presolve
from mixsolve.methods.problem import Problem
from mixsolve.methods.stopping import Status, Stop
from mixsolve.solver import request as checked

pytestmark = pytest.mark.filterwarnings("ignore::mixsolve.ConvergenceWarning")

B = np.random.default_rng(0).random((12, 5, 3))
EXACT = ("lp", "interior-point", "cvxpy")
ENTROPIC = ("newton", "apg", "cvxpy")
SCALES = [math.ldexp(1.0, e) for e in (-1040, -1000, -530, -240, -40, 40, 240, 530, 1000)]


def mean_losses(losses):
    return losses.mean(axis=(0, 1))


def assert_finite(solution):
    figures = solution.value, solution.risk, solution.lower_bound, solution.gap
    assert np.isfinite([*figures, solution.smoothing_bound, solution.tolerance]).all()
    assert np.isfinite(solution.weights).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", EXACT)
def test_the_exact_game_at_any_scale(method, scale):
    plain = mixsolve.solve(B, tol=1e-8)
    found = mixsolve.solve(B * scale, method=method, tol=1e-8)
    assert_finite(found)
    digits = 2e-8 + 2**-30 * (scale < 1e-300)  # of subnormal numbers few are left
    assert found.value == pytest.approx(plain.value * scale, rel=digits)
    assert found.lower_bound == pytest.approx(plain.value * scale, rel=digits)
    assert found.success
    assert found.spread == np.ptp(B * scale)
    assert found.attacked_losses == pytest.approx(
        attacked_losses(B, found.attack) * scale, rel=1e-6
    )
    if found.history:
        assert found.history[-1].value == pytest.approx(found.value, rel=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", ["newton", "apg"])
def test_the_entropic_game_at_any_scale(method, scale):
    plain = mixsolve.solve(B, 0.05, tol=1e-10)
    found = mixsolve.solve(B * scale, 0.05 * scale, method=method)
    assert_finite(found)
    assert found.success
    assert found.value == pytest.approx(plain.value * scale, rel=1e-6)
    np.testing.assert_allclose(found.weights, plain.weights, atol=2e-3)


def test_oracle_at_any_scale():
    plain = mixsolve.solve(B, method="oracle", max_iter=50).weights
    for scale in SCALES[1:]:
        with pytest.warns(mixsolve.ConvergenceWarning):
            found = mixsolve.solve(B * scale, method="oracle", max_iter=50)
        np.testing.assert_allclose(found.weights, plain, atol=1e-12)


@pytest.mark.parametrize("alpha", [5e-324, 1e-310, 1e-200, 1e-16, 1e-12, 1e-9])
@pytest.mark.parametrize("method", ["newton", "cvxpy"])
def test_a_tiny_alpha_is_the_exact_game(method, alpha):
    exact = mixsolve.solve(B, tol=1e-9).value
    found = mixsolve.solve(B, alpha, method=method)
    assert found.success
    assert exact - alpha * math.log(5) - 1e-6 <= found.value <= exact + 1e-6
    assert found.alpha == alpha
    assert found.smoothing_bound <= alpha * math.log(5) * (1 + 1e-12)
    assert 0.0 <= found.risk - found.value <= found.smoothing_bound + 1e-15
    bound = attack_bound(B, found.attack, alpha)
    assert found.lower_bound == pytest.approx(bound, abs=1e-14)


@pytest.mark.parametrize("alpha", [1e3, 1e6, 1e16, 1e100, 1e308])
@pytest.mark.parametrize("method", ENTROPIC)
def test_a_huge_alpha_is_the_mean(method, alpha):
    means = mean_losses(B)
    found = mixsolve.solve(B, alpha, method=method)
    assert_finite(found)
    assert found.success
    assert found.value == pytest.approx(means.min(), abs=1e-6 + 1.0 / alpha)
    assert found.weights[means.argmin()] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("scale", "alpha"),
    [(1e160, 1e-3), (1e154, 1e-3), (1e-300, 1e300), (1e300, 1e-300), (1, 1e-310)],
)
def test_extreme_ratios_end_with_the_right_answer(scale, alpha):
    losses = B * scale
    limit = mean_losses(losses).min() if alpha > scale else mixsolve.solve(B).value * scale
    found = mixsolve.solve(losses, alpha)
    assert_finite(found)
    assert found.success
    assert found.value == pytest.approx(limit, rel=3e-6)
    batch = mixsolve.solve_batch(np.stack([losses, B]), alpha)
    assert batch.success.all()
    assert batch.value[0] == pytest.approx(limit, rel=3e-6)
    assert np.isfinite(batch.weights).all()
    with np.errstate(all="ignore"):
        apg = mixsolve.solve(losses, alpha, method="apg", max_iter=50)
    assert_finite(apg)
    assert apg.lower_bound <= limit * (1 + 1e-12)
    assert apg.success == (apg.gap <= apg.tolerance)


@pytest.mark.parametrize("method", ["newton", "auto"])
def test_samples_of_all_kinds_of_alpha(method):
    alpha = np.array([5e-324, 1e-300, 1e-12, 1e-7, 1e-3, 0.1, 1.0, 1e5, 1e15, 1e200, 1e-9, 1e-2])
    found = mixsolve.solve(B, alpha, method=method)
    assert_finite(found)
    assert found.success
    soft = alpha.clip(1e-9, 1e9)  # the same to a millionth
    least = mixsolve.solve(B, soft, tol=1e-7)
    assert found.value == pytest.approx(least.value, abs=1.2e-6)
    plain = mixsolve.solve(B * 2.0**800, alpha.clip(1e-300, 1e50) * 2.0**800)
    assert plain.success
    assert plain.value == pytest.approx(found.value * 2.0**800, rel=4e-6)


def test_batches_at_any_scale():
    plain = mixsolve.solve(B, tol=1e-8), mixsolve.solve(B, 0.05, tol=1e-8)
    for scale, entropic in itertools.product(SCALES, (False, True)):
        found = mixsolve.solve_batch(
            np.stack([B * scale, B]), np.array([0.05 * scale, 0.05]) * entropic
        )
        assert found.success.all()
        value = plain[entropic].value
        np.testing.assert_allclose(found.value, [value * scale, value], rtol=2e-6)
        assert found.spread[0] == np.ptp(B * scale)
        assert found.tolerance[0] == pytest.approx(1e-6 * np.ptp(B * scale), rel=1e-3)


def test_a_batch_with_a_limit_says_what_it_could_not_do():
    with pytest.warns(mixsolve.ConvergenceWarning):
        found = mixsolve.solve_batch(np.stack([B * 1e160]), 1e-3, max_iter=1)
    assert not found.success.any()
    assert np.isfinite(found.weights).all()


def test_offsets_and_subnormal_losses():
    for offset in (0.0, -1.0, 1e6):
        losses = (B + offset) * 1e250
        found = mixsolve.solve(losses)
        value = mixsolve.solve(B).value + offset
        assert found.value == pytest.approx(value * 1e250, rel=2e-6)
        assert found.success
    nearly = np.array([[[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]]]) * 5e-324
    found = mixsolve.solve(nearly)
    assert found.value in (5e-324, 1e-323)  # 1.2 is no number here
    assert mixsolve.solve(np.zeros((2, 2, 2)), 1e-320).success


def test_few_models_and_constraints_at_any_scale():
    plain = mixsolve.solve(B, max_models=2, A_ub=[[1.0, 0.0, 0.0]], b_ub=[0.2])
    for scale, alpha in itertools.product((2.0**-1000, 2.0**900), (0.0, 0.02)):
        plain = mixsolve.solve(B, alpha, max_models=2, A_ub=[[1.0, 0.0, 0.0]], b_ub=[0.2])
        found = mixsolve.solve(
            B * scale, alpha * scale, max_models=2, A_ub=[[1.0, 0.0, 0.0]], b_ub=[0.2]
        )
        assert found.success
        assert found.value == pytest.approx(plain.value * scale, rel=2e-6)
        assert found.lower_bound == pytest.approx(plain.value * scale, rel=2e-6)
        upper = plain.prices.upper * scale
        np.testing.assert_allclose(found.prices.upper, upper, rtol=1e-3, atol=1e-5 * scale)


def test_a_callback_and_the_history_see_the_unit_of_the_losses():
    seen = []
    found = mixsolve.solve(B * 2.0**600, callback=lambda state: seen.append(state.value))
    assert seen[-1] == pytest.approx(found.value, rel=1e-6)
    assert found.history[-1].value == seen[-1]


def test_the_tensor_is_not_copied_whole(monkeypatch):
    monkeypatch.setattr(tuning, "kept_bytes", 0)
    monkeypatch.setattr(tuning, "block_entries", 30)
    found = mixsolve.solve(B * 2.0**700, 0.01 * 2.0**700)
    plain = mixsolve.solve(B, 0.01)
    assert found.value == pytest.approx(plain.value * 2.0**700, rel=1e-12)
    with checked.OpenGame(B, None, None, None, (None,) * 5) as game:
        assert not presolve.reduce(game.engine, None)


@pytest.mark.parametrize(("value", "bound"), [(np.nan, 0.0), (-np.inf, 0.0), (1.0, np.inf)])
def test_no_stop_on_what_is_no_number(value, bound):
    stop = Stop(1.0)
    assert not stop.record(np.ones(2), value, bound)
    assert stop.status is None
    stop.record(np.ones(2), 1.0, np.nan)
    assert stop.lower_bound == (0.0 if bound == 0.0 else -np.inf)


@pytest.mark.parametrize("kind", ["nan", "inf", "above"])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_a_certificate_that_is_no_number_is_a_failure(monkeypatch, kind, alpha):
    wrong = {"nan": np.nan, "inf": np.inf, "above": 1e3}[kind]
    monkeypatch.setattr("mixsolve.feasible.Simplex.lowest", lambda self, gradient: wrong)
    with pytest.warns(mixsolve.ConvergenceWarning):
        found = mixsolve.solve(B, alpha, max_iter=3)
    assert found.status is Status.FAILED
    assert found.gap != 0.0


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_a_bound_above_the_value_by_the_rounding_of_long_sums(alpha):
    losses = np.ones((5000, 2, 3))
    found = mixsolve.solve(losses, alpha)
    assert found.status is Status.OPTIMAL
    assert found.gap == 0.0
    assert abs(found.value - 1.0) <= 5000 * np.finfo(float).eps


def test_a_method_that_only_makes_nan_ends(monkeypatch):
    monkeypatch.setattr(
        "mixsolve.feasible.Simplex.minimize_quadratic", lambda self, *_: np.full(3, np.nan)
    )
    with pytest.warns(mixsolve.ConvergenceWarning):
        found = mixsolve.solve(B, 0.05, max_iter=5, presolve=False)
    assert_finite(found)
    assert not found.success
    monkeypatch.setattr("mixsolve.feasible.Simplex.project", lambda self, point: point * np.nan)
    with pytest.warns(mixsolve.ConvergenceWarning):
        found = mixsolve.solve(B, 0.05, max_iter=5, method="apg")
    assert not found.success


def test_a_message_does_not_contradict_itself():
    for method in (*EXACT, "newton"):
        with np.errstate(all="ignore"):
            found = mixsolve.solve(B, 0.01 if method == "newton" else 0.0, method=method, tol=1e-18)
        if not found.success:
            assert "within" not in found.message
        assert found.tolerance == 16 * np.finfo(float).eps * np.abs(B).max()


def test_a_candidate_next_to_never_played_costs_what_its_measure_is():
    losses = -np.array([[[0.0, 0.0], [0.0, 0.5], [39.0, 39.0]]])
    game = checked.OpenGame(losses, None, None, [[1e-3, 1e-3, 1.0]], (None,) * 5)
    alpha = np.ones(1)
    problem = Problem(game.engine, alpha)
    attack = game.engine.gibbs(np.array([0.5, 0.5]), alpha)
    bound = attack_bound(losses, attack, 1.0, candidate_prior=[[1e-3, 1e-3, 1.0]])
    played = attacked_losses(losses, attack)
    assert (attack.probabilities < 1e-13).any()
    assert played.min() - problem.divergence(attack) == pytest.approx(bound, rel=1e-13)
