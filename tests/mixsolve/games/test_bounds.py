import itertools
import math

import numpy as np
import pytest
from reference import entropic_risk, exact_risk

import mixsolve
from mixsolve import MixsolveError, MixsolveTypeError
from mixsolve.games import bounds


def test_rademacher_bound_holds_and_is_massarts():
    """Against the complexity itself, the average over all 2^m sign vectors."""
    rng = np.random.default_rng(0)
    for m, L in ((1, 2), (4, 3), (8, 5), (10, 30)):
        losses = rng.uniform(0.0, 2.0, (m, L))
        signs = np.array(list(itertools.product([-1, 1], repeat=m)))
        complexity = (signs @ losses).max(axis=1).mean() / m
        bound = bounds.rademacher_bound(2.0, m, L)
        assert complexity <= bound
        assert bound == pytest.approx(2.0 * math.sqrt(2.0 * math.log(L) / m), rel=1e-15)
    assert bounds.rademacher_bound(2.0, 5, 1) == 0.0


def test_sampling_bound_has_the_constants_of_the_statement():
    alpha, N, m, L, M, delta = 0.7, 50, 30, 4, 1.5, 0.1
    R = M * math.sqrt(2 * math.log(L) / m)
    growth = math.exp(M / alpha)
    expected = 2 * growth / N * sum([R] * N) + 6 * max(M, 1) * growth * math.sqrt(
        math.log(4 / delta) / (2 * m * N)
    )
    assert bounds.sampling_bound(alpha, N, m, L, M, delta) == pytest.approx(expected, rel=1e-13)
    # Below M = 1 the second term keeps the factor max(M, 1) = 1.
    half = bounds.sampling_bound(1.0, N, m, 1, spread=0.5, delta=delta)
    expected = 6 * math.exp(0.5) * math.sqrt(math.log(4 / delta) / (2 * m * N))
    assert half == pytest.approx(expected, rel=1e-13)
    assert bounds.sampling_bound(1e-4, N, m, L) == math.inf


def test_sampling_bound_holds_on_drawn_candidates():
    """Losses with a known integral: l_k = 1 with probability p_k under the base measure."""
    rng = np.random.default_rng(1)
    p = np.array([0.2, 0.3])
    alpha, N, m, delta = 1.0, 40, 200, 0.05
    # Independent classifiers: E exp(<lam, l> / alpha) = prod_k (1 + p_k (e^(lam_k / alpha) - 1)).
    grid = np.linspace(0.0, 1.0, 1001)
    factors = [1 + p[0] * np.expm1(grid / alpha), 1 + p[1] * np.expm1((1 - grid) / alpha)]
    whole = (alpha * np.log(factors[0] * factors[1])).min()
    bound = bounds.sampling_bound(alpha, N, m, 2, 1.0, delta)
    errors = []
    for _ in range(4):
        losses = (rng.random((N, m, 2)) < p).astype(np.float64)
        drawn = min(entropic_risk(losses, [lam, 1 - lam], alpha) for lam in grid[::50])
        errors.append(abs(drawn - whole))
    assert max(errors) <= bound


def test_regularization_bound_holds_with_the_mass_of_near_best_attacks(rng):
    losses = rng.random((20, 40, 3))
    exact = mixsolve.solve(losses).lower_bound
    corners = [lam for lam in itertools.product(np.linspace(0, 1, 21), repeat=3) if sum(lam) == 1.0]
    for alpha, beta in itertools.product((0.01, 0.1, 1.0), (0.0, 0.1, 0.3)):
        # C_beta over a grid of mixtures, from below elsewhere by a slack on beta.
        scores = losses @ np.array(corners).T
        near = scores >= scores.max(axis=1, keepdims=True) - beta
        mass = near.mean(axis=1).min()
        entropic = mixsolve.solve(losses, alpha).value
        slack = 0.2 if beta else 0.0  # two mixtures of the grid's cell differ by at most this
        assert abs(entropic - exact) <= bounds.regularization_bound(alpha, mass, beta + slack)
    assert bounds.regularization_bound(0.1, 0.25, 0.5) == pytest.approx(0.2 * math.log(4) + 0.5)
    assert bounds.regularization_bound(0.1, 1.0) == 0.0


def test_subgradient_bound_and_its_inverse():
    assert bounds.subgradient_bound(100, 9, 2.0, 0.5) == pytest.approx(1.0 + 4.0 * 3 / 10)
    for accuracy, L, M, delta in itertools.product(
        (0.3, 0.01, 1e-5), (1, 3, 10), (0.1, 1.0, 50.0), (0.0, 1e-6)
    ):
        T = bounds.subgradient_iterations(accuracy, L, M, delta)
        assert bounds.subgradient_bound(T, L, M, delta) <= accuracy * (1 + 1e-14)
        if T > 1:
            assert bounds.subgradient_bound(T - 1, L, M, delta) > accuracy * (1 - 1e-14)
    assert bounds.subgradient_iterations(10.0, 1) == 1


def test_subgradient_iterations_refuses_what_no_number_of_them_reaches():
    with pytest.raises(MixsolveError, match=r"accuracy must be above 2 \* oracle_error = 0\.2"):
        bounds.subgradient_iterations(0.2, 3, oracle_error=0.1)


def test_smoothing_bound_holds_at_every_mixture(rng):
    for _ in range(20):
        losses = rng.random((6, 5, 3))
        prior = rng.random((6, 5)) + 0.05
        alpha = rng.uniform(0.01, 1.0, 6)
        sample_weight = rng.random(6)
        lam = rng.dirichlet(np.ones(3))
        exact = exact_risk(losses, lam, sample_weight)
        soft = entropic_risk(losses, lam, alpha, sample_weight, candidate_prior=prior)
        best = (losses @ lam).argmax(axis=1)
        mass = prior[np.arange(6), best] / prior.sum(axis=1)
        bound = bounds.smoothing_bound(alpha, mass, sample_weight=sample_weight)
        assert 0.0 <= exact - soft <= bound
        by_hand = sum(
            w / sample_weight.sum() * a * math.log(1 / p)
            for w, a, p in zip(sample_weight, alpha, mass, strict=True)
        )
        assert bound == pytest.approx(by_hand, rel=1e-13)


def test_smoothing_bound_is_reached_by_a_single_good_candidate():
    """One candidate at 1 and the rest far below: the bound is attained, so no constant is lost."""
    losses = np.zeros((1, 50, 1))
    losses[0, 7] = 1.0
    gap = exact_risk(losses, [1.0]) - entropic_risk(losses, [1.0], 0.01)
    assert gap == pytest.approx(bounds.smoothing_bound(0.01, n_candidates=50), rel=1e-12)
    assert bounds.smoothing_bound(0.01, n_candidates=1000) == pytest.approx(0.0690776, abs=1e-7)
    assert bounds.smoothing_bound(0.0, n_candidates=1000) == 0.0


def test_solutions_carry_the_smoothing_bound(losses):
    solution = mixsolve.solve(losses, 0.05)
    assert solution.smoothing_bound == pytest.approx(
        bounds.smoothing_bound(0.05, n_candidates=losses.shape[1]), rel=1e-12
    )


def test_proposition_6_holds_for_algorithm_1(losses):
    optimum = mixsolve.solve(losses).lower_bound
    for T in (4, 16, 64):
        with pytest.warns(mixsolve.ConvergenceWarning):
            found = mixsolve.solve(losses, method="oracle", max_iter=T)
        bound = bounds.subgradient_bound(T, losses.shape[2], found.spread)
        assert found.value - optimum <= bound


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: bounds.sampling_bound(0.0, 1, 1, 1), MixsolveError, "alpha .* > 0, got 0.0"),
        (lambda: bounds.sampling_bound(1, 0, 1, 1), MixsolveError, "n_samples .* got 0"),
        (lambda: bounds.sampling_bound(1, 1, 0, 1), MixsolveError, "n_candidates .* got 0"),
        (lambda: bounds.sampling_bound(1, 1, 1, 0), MixsolveError, "n_classifiers .* got 0"),
        (lambda: bounds.sampling_bound(1, 1, 1, 1, -2), MixsolveError, "spread .* got -2"),
        (lambda: bounds.sampling_bound(1, 1, 1, 1, 1, 1), MixsolveError, "delta .* < 1, got 1"),
        (lambda: bounds.sampling_bound("1", 1, 1, 1), MixsolveTypeError, "alpha .* got '1'"),
        (lambda: bounds.regularization_bound(1, 0.0), MixsolveError, "mass .* > 0 .* got 0"),
        (lambda: bounds.regularization_bound(1, 1.5), MixsolveError, "mass .* <= 1, got 1.5"),
        (lambda: bounds.regularization_bound(1, 1, -1), MixsolveError, "beta .* got -1"),
        (lambda: bounds.subgradient_bound(0, 1), MixsolveError, "n_iterations .* got 0"),
        (lambda: bounds.subgradient_bound(1.5, 1), MixsolveTypeError, "n_iterations .* got 1.5"),
        (lambda: bounds.subgradient_bound(1, 1, math.inf), MixsolveError, "spread .* got inf"),
        (lambda: bounds.smoothing_bound(1), MixsolveError, "exactly one of mass and n_candidates"),
        (lambda: bounds.smoothing_bound(1, 1, n_candidates=1), MixsolveError, "exactly one"),
        (lambda: bounds.smoothing_bound(-1, 1), MixsolveError, "alpha must be >= 0, got -1"),
        (
            lambda: bounds.smoothing_bound([1, math.nan], 1),
            MixsolveError,
            "alpha .* nan at index 1",
        ),
        (lambda: bounds.smoothing_bound("a", 1), MixsolveTypeError, "alpha .* got 'a'"),
        (lambda: bounds.smoothing_bound([1, 2], [1, 1, 1]), MixsolveError, "lengths 2, 3 and 1"),
        (lambda: bounds.smoothing_bound(1, [[1]]), MixsolveError, r"mass .* shape \(1, 1\)"),
        (lambda: bounds.smoothing_bound(1, 0.0), MixsolveError, r"mass must be in \(0, 1\]"),
        (lambda: bounds.smoothing_bound(1, n_candidates=0), MixsolveError, "n_candidates"),
        (lambda: bounds.smoothing_bound(1, n_candidates=1.5), MixsolveError, "n_candidates"),
        (lambda: bounds.smoothing_bound(1, 1, sample_weight=[0]), MixsolveError, "positive sum"),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
