"""Cross-fitting: halves within groups, risks on what was not fitted, errors of the mean."""

import numpy as np
import pytest
from grouped_reference import risk

import mixsolve
from mixsolve import MixsolveError


@pytest.fixture(scope="module")
def game():
    rng = np.random.default_rng(3)
    return rng.random((90, 4, 15)), np.array(["b", "a", "c"])[np.arange(90) % 3]


def test_a_fitted_value_is_optimistic_and_the_held_out_one_is_not(game):
    losses, groups = game
    fit = mixsolve.cross_fit(losses, groups=groups)
    many = np.random.default_rng(9).random((20000, 4, 15))
    truth = np.mean([(many @ lam).max(axis=1).mean() for lam in fit.weights])
    assert fit.fitted < truth - 2 * fit.standard_error
    assert abs(fit.group_risks.mean() - truth) < 4 * fit.group_errors.max()
    assert (fit.group_bounds > truth).all()
    assert fit.optimism == fit.held_out - fit.fitted > 0


def test_risks_are_those_of_the_other_half(game):
    losses, groups = game
    fit = mixsolve.cross_fit(losses, groups=groups, rng=4)
    rng = np.random.default_rng(4)
    code = np.unique(groups, return_inverse=True)[1]
    half = np.zeros(90, dtype=bool)
    for g in range(3):
        own = rng.permutation(np.flatnonzero(code == g))
        half[own[: (own.size + int(rng.integers(2))) // 2]] = True
    expected = np.zeros(3)
    for lam, held in zip(fit.weights, (half, ~half), strict=True):
        values = (losses[held] @ lam).max(axis=1)
        expected += 0.5 * np.array([values[code[held] == g].mean() for g in range(3)])
    np.testing.assert_allclose(fit.group_risks, expected, atol=1e-12)
    assert fit.group_labels.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("grouped", [False, True])
def test_each_sample_is_judged_by_the_weights_of_the_other_half(game, grouped):
    losses, groups = game
    fit = mixsolve.cross_fit(losses, groups=groups if grouped else None)
    other = fit.weights[1 - fit.halves]
    expected = np.einsum("ijk,ik->ij", losses, other).max(axis=1)
    np.testing.assert_allclose(fit.sample_risks, expected, atol=1e-12)
    for half in (0, 1):
        chosen = {"groups": groups[fit.halves == half]} if grouped else {}
        again = mixsolve.solve(losses[fit.halves == half], **chosen)
        np.testing.assert_allclose(again.weights, fit.weights[half], atol=1e-6)
    if not grouped:
        means = [fit.sample_risks[fit.halves == half].mean() for half in (0, 1)]
        assert fit.held_out == pytest.approx(np.mean(means), abs=1e-12)


def test_the_standard_error_is_that_of_repeated_draws():
    rng = np.random.default_rng(0)
    weights, groups = np.full(3, 1 / 3), np.repeat([0, 1], [40, 80])
    for tail in (None, 0.25):
        found = [
            mixsolve.group_risks(rng.random((120, 4, 3)), weights, groups, tail=tail)
            for _ in range(300)
        ]
        risks, errors = map(np.array, zip(*found, strict=True))
        np.testing.assert_allclose(errors.mean(axis=0), risks.std(axis=0), rtol=0.15)


def test_risks_of_given_weights(game):
    losses, groups = game
    weight = np.random.default_rng(1).random(90)
    code = np.unique(groups, return_inverse=True)[1]
    lam = np.eye(15)[2]
    values = (losses @ lam).max(axis=1)
    risks, _ = mixsolve.group_risks(losses, lam, groups, sample_weight=weight, tail=0.3)
    for g in range(3):
        own = code == g
        share = weight[own] / weight[own].sum()
        one = risk(values[own], np.zeros(own.sum(), dtype=int), np.array([2.0]), share, 0.3)
        assert risks[g] == pytest.approx(one, abs=1e-12)


def test_bounds_tails_and_no_groups(game):
    losses, groups = game
    for options in (
        {"groups": groups, "group_weight": {"a": 0.5, "b": 0.5, "c": 0.4}},
        {"groups": groups, "group_weight": 1.5, "tail": 0.5},
        {"tail": 0.3},
        {},
    ):
        fit = mixsolve.cross_fit(losses, 0.05, **options)
        assert fit.held_out > fit.fitted
        assert np.isfinite(fit.group_bounds).all()


def test_too_few_samples_are_refused(game):
    with pytest.raises(MixsolveError, match="at least 4 samples"):
        mixsolve.cross_fit(game[0][:3])
