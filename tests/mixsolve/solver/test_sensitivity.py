"""Reduced costs and sensitivity against games solved anew with what they speak of changed."""

import numpy as np
import pytest
from reference import exact_risk

import mixsolve
from mixsolve import LinearConstraints, MixsolveError, games
from mixsolve.feasible.constraints import expected_cost

LIMITS = LinearConstraints([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]], [1.9, 0.9], [[1.0, 0.0, 0.0]], [0.3])


def solved(losses, alpha=0.0, **options):
    return mixsolve.solve(losses, alpha, tol=1e-10, **options)


@pytest.fixture
def pool(rng):
    """Eight classifiers of which three are in the pool; smooth enough for a unique optimum."""
    return rng.gamma(0.5, 1.5, (40, 6, 8)) + np.linspace(0.0, 0.6, 8)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_further_classifier_lowers_the_value_by_more(alpha, seed):
    rng = np.random.default_rng(seed)
    losses = rng.gamma(0.5, 1.5, (30, 5, 9))
    if seed == 3:
        losses = rng.integers(0, 2, (30, 5, 9)).astype(float)
    losses[:, :, 6:] += 0.5  # some that do not help
    solution = solved(losses[:, :, :3], alpha)
    costs = solution.reduced_costs(losses[:, :, 3:])
    assert costs.shape == (6,)
    digits = 1e-9 * solution.spread
    for k, cost in enumerate(costs):
        larger = solved(losses[:, :, [0, 1, 2, 3 + k]], alpha)
        assert larger.value >= solution.lower_bound + min(0.0, cost) - digits
        if cost >= 0.0:
            assert larger.value >= solution.value - digits - solution.gap
        elif seed != 3:
            assert larger.value < solution.value - digits  # it helps indeed
    together = solved(losses, alpha)
    assert together.value >= solution.lower_bound + min(0.0, costs.min()) - digits
    assert costs[3:].min() > costs[:3].min()


def test_the_bound_is_reached():
    """A classifier whose losses do not depend on the attack takes the whole weight."""
    losses = np.random.default_rng(0).random((20, 4, 3))
    solution = solved(losses)
    constant = np.full((20, 4, 1), 0.1)
    (cost,) = solution.reduced_costs(constant)
    assert cost == pytest.approx(0.1 - solution.value, abs=1e-9)
    larger = solved(np.concatenate([losses, constant], axis=2))
    assert larger.value == pytest.approx(solution.value + cost, abs=1e-8)


def test_those_in_the_pool_cost_nothing_or_more(pool):
    pool[:, :, 5] += 1.0
    solution = solved(pool)
    costs = solution.reduced_costs(pool)
    assert costs.min() == pytest.approx(0.0, abs=1e-9)
    used = solution.weights > 0
    np.testing.assert_allclose(costs[used], 0.0, atol=1e-9)
    shown = solution.sensitivity()
    np.testing.assert_allclose(costs, shown.classifier_costs, atol=1e-9)
    assert (shown.classifier_costs[used] == 0.0).all()
    assert f"may be played: {used.sum()} of 8" in str(shown)
    assert f"  5: {costs[5]:.6g}" in str(shown)
    # Its own cost is by how much a classifier's losses may fall before it is played.
    idle = 5
    assert costs[idle] > 0.05
    for share, played in ((0.9, False), (1.1, True)):
        other = pool.copy()
        other[:, :, idle] -= share * costs[idle]
        assert (solved(other).weights[idle] > 1e-6) == played


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_further_classifiers_under_constraints(pool, alpha):
    solution = solved(pool[:, :, :3], alpha, constraints=LIMITS)
    rng = np.random.default_rng(1)
    A, E = rng.uniform(0.0, 4.0, (2, 5)), rng.integers(0, 2, (1, 5))
    costs = solution.reduced_costs(pool[:, :, 3:], A_ub=A, A_eq=E)
    digits = 1e-8 * solution.spread
    for k in range(5):
        limits = LinearConstraints(
            np.hstack([LIMITS.A_ub, A[:, [k]]]), LIMITS.b_ub,
            np.hstack([LIMITS.A_eq, E[:, [k]]]), LIMITS.b_eq,
        )  # fmt: skip
        larger = solved(pool[:, :, [0, 1, 2, 3 + k]], alpha, constraints=limits)
        assert larger.value >= solution.lower_bound + min(0.0, costs[k]) - digits
        if costs[k] < -1e-6:
            assert larger.value < solution.value - digits
        else:
            assert larger.value >= solution.value - digits
    assert costs.min() < -1e-6  # or nothing was tested
    own = solution.reduced_costs(pool[:, :, :3], A_ub=LIMITS.A_ub, A_eq=LIMITS.A_eq)
    np.testing.assert_allclose(own, solution.sensitivity().classifier_costs, atol=1e-9)
    np.testing.assert_allclose(own[solution.weights > 1e-9], 0.0, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_prices_are_derivatives(pool, alpha):
    """By central differences; the values are piecewise linear in the limits for alpha = 0."""
    losses, step = pool[:, :, :3], 1e-4
    solution = solved(losses, alpha, constraints=LIMITS)
    assert (solution.prices.upper >= 0.0).all()
    assert solution.prices.upper[0] > 1e-3
    assert solution.prices.upper[1] == 0.0  # it does not bind
    assert abs(solution.prices.equal[0]) > 1e-3

    def value(d_ub, d_eq):
        limits = LinearConstraints(LIMITS.A_ub, LIMITS.b_ub + d_ub, LIMITS.A_eq, LIMITS.b_eq + d_eq)
        return solved(losses, alpha, constraints=limits).value

    for row in range(2):
        change = np.eye(2)[row] * step
        slope = (value(change, 0.0) - value(-change, 0.0)) / (2 * step)
        assert slope == pytest.approx(-solution.prices.upper[row], abs=1e-4)
    slope = (value(0.0, step) - value(0.0, -step)) / (2 * step)
    assert slope == pytest.approx(-solution.prices.equal[0], abs=1e-4)
    shown = solution.sensitivity()
    np.testing.assert_array_equal(shown.price_ub, solution.prices.upper)
    np.testing.assert_array_equal(shown.price_eq, solution.prices.equal)
    assert shown.labels_ub == LIMITS.labels_ub


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_what_does_not_bind_has_no_price(alpha):
    """The multipliers of loose limits are 0 up to the gap; those of the table are 0."""
    losses = games.gamma_game(300, 8, 6, seed=0).losses
    free = mixsolve.solve(losses, alpha).weights
    limits = LinearConstraints(
        np.vstack([np.arange(6.0), np.eye(6), -np.eye(6)]),
        np.concatenate([[0.95 * free @ np.arange(6)], free + 0.02, 0.02 - free]),
    )
    solution = mixsolve.solve(losses, alpha, constraints=limits)
    found = solution.sensitivity()
    room = limits.b_ub - limits.A_ub @ solution.weights
    assert found.price_ub[0] > 0.01
    assert (found.price_ub[room > 1e-4] == 0.0).all()
    np.testing.assert_array_equal(found.price_ub[room < 1e-9], solution.prices.upper[room < 1e-9])


def test_prices_agree_across_methods(pool):
    losses = pool[:, :, :3]
    plain = solved(losses, constraints=LIMITS)
    for method in ("interior-point", "cvxpy"):
        other = mixsolve.solve(losses, method=method, constraints=LIMITS)
        np.testing.assert_allclose(other.prices.upper, plain.prices.upper, atol=1e-6)
        np.testing.assert_allclose(other.prices.equal, plain.prices.equal, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.2])
@pytest.mark.parametrize("constraints", [None, LIMITS])
def test_sample_weights(pool, alpha, constraints):
    rng = np.random.default_rng(2)
    losses, weight = pool[:, :, :3], rng.uniform(0.5, 1.5, 40)
    mask = rng.random((40, 6)) < 0.7
    mask[:, 0] = True
    prior = rng.random((40, 6)) + 0.2 if alpha else None
    game = {"candidate_mask": mask, "candidate_prior": prior}
    solution = solved(losses, alpha, sample_weight=weight, constraints=constraints, **game)
    found = solution.sensitivity(losses, **game)
    assert found.sample_shares.sum() == pytest.approx(solution.value, rel=1e-9)
    if alpha == 0.0:
        for i in range(40):
            worst = exact_risk(losses[[i]], solution.weights, candidate_mask=mask[[i]])
            assert found.sample_values[i] == pytest.approx(worst, rel=1e-9)
    np.testing.assert_allclose(found.sample_derivatives, found.sample_values - solution.value)
    share, step = weight / weight.sum(), 1e-4
    for i in (0, 7, 23):
        values = [
            solved(
                losses, alpha, sample_weight=share + sign * step * np.eye(40)[i],
                constraints=constraints, **game,
            ).value
            for sign in (1, -1)
        ]  # fmt: skip
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(found.sample_derivatives[i], abs=2e-3)
    # For whatever weights: the value is concave in them.
    for _ in range(5):
        other = rng.dirichlet(np.ones(40))
        above = solved(losses, alpha, sample_weight=other, constraints=constraints, **game).value
        assert above <= other @ found.sample_values + 1e-9 * solution.spread


@pytest.mark.parametrize("seed", range(3))
def test_candidates_that_are_not_played_can_go(seed):
    losses = np.random.default_rng(seed).random((10, 5, 3))
    solution = solved(losses)
    found = solution.sensitivity()
    dense = solution.attack.dense()
    np.testing.assert_array_equal(found.candidates_played, (dense > 0).sum(axis=1))
    assert found.candidate_mass.sum() == pytest.approx(1.0)
    played = solved(losses, candidate_mask=dense > 0)
    assert played.value == pytest.approx(solution.value, abs=1e-9)
    entries = zip(solution.attack.samples, solution.attack.candidates, strict=True)
    for mass, (i, j) in zip(found.candidate_mass, entries, strict=True):
        mask = np.ones((10, 5), bool)
        mask[i, j] = False
        without = solved(losses, candidate_mask=mask)
        assert without.value >= solution.value - mass * solution.spread - 1e-9


def test_the_table_says_who_carries_the_value(pool):
    losses = pool[:, :, :3]
    solution = solved(losses, constraints=LIMITS)
    shown = str(solution.sensitivity(losses))
    assert f"value {solution.value:.6g}" in shown
    assert f"A_ub[0]: {solution.prices.upper[0]:.6g}" in shown
    shares = solution.sensitivity(losses).sample_shares
    assert f"  {shares.argmax()}: {shares.max():.6g}" in shown
    assert "and 35 more" in shown
    plain = str(solved(losses).sensitivity())
    assert "constraints" not in plain
    assert "add to the value" not in plain


def test_ragged_losses_and_what_is_not_played(rng):
    tables = [rng.random((m, 4)) for m in (2, 5, 3)]
    pool = [table[:, :2] for table in tables]
    solution = solved(pool)
    new = [table[:, 2:].copy() for table in tables]
    costs = solution.reduced_costs(new)
    for table, (candidates, _) in zip(new, solution.attack, strict=True):
        unplayed = np.setdiff1d(np.arange(len(table)), candidates)
        table[unplayed] = np.nan
    np.testing.assert_array_equal(solution.reduced_costs(new), costs)
    assert solution.sensitivity(pool).sample_values.shape == (3,)


def test_under_a_function(losses):
    held = mixsolve.solve(losses, constraints=lambda w: [w <= 0.5])
    with pytest.raises(MixsolveError, match="function"):
        held.reduced_costs(losses)
    found = held.sensitivity(losses)
    assert found.classifier_costs is None
    assert found.price_ub.size == 0
    assert found.sample_shares.sum() == pytest.approx(held.value)
    assert "classifiers" not in str(found)


def test_with_few_models(losses):
    few = mixsolve.solve(losses, max_models=2)
    for ask in (few.reduced_costs, few.sensitivity):
        with pytest.raises(MixsolveError, match="max_models"):
            ask(losses)


def test_what_is_refused(losses):
    plain = mixsolve.solve(losses)
    bound = mixsolve.solve(losses, constraints=expected_cost([1.0, 2.0, 3.0], 2.0))
    for call, words in (
        (lambda: plain.reduced_costs(losses[:5]), "12 samples"),
        (lambda: plain.reduced_costs(losses[:, :1]), "candidates"),
        (lambda: bound.reduced_costs(losses), "A_ub must say"),
        (lambda: bound.reduced_costs(losses, A_ub=[[1.0, 2.0]]), "shape"),
        (lambda: bound.reduced_costs(losses, A_ub=[[1.0, 2.0, np.nan]]), "finite"),
        (lambda: plain.reduced_costs(losses, A_ub=[[1.0, 2.0, 3.0]]), "A_ub"),
        (lambda: plain.sensitivity(losses[:, :, :2]), "3 classifiers"),
        (lambda: plain.sensitivity(2.0 * losses), "those that were solved"),
        (lambda: mixsolve.solve(losses, 0.2).sensitivity(losses[::-1] + 0.1), "that were solved"),
    ):
        with pytest.raises(MixsolveError, match=words):
            call()
    np.testing.assert_array_equal(
        bound.reduced_costs(losses, A_ub=[1.0, 2.0, 3.0]),
        bound.reduced_costs(losses, A_ub=[[1.0, 2.0, 3.0]]),
    )


def test_two_valued_losses_with_ties():
    losses = games.paper2d(100, 60, 8, seed=1).losses
    solution = mixsolve.solve(losses[:, :, :4], tol=1e-9)
    costs = solution.reduced_costs(losses[:, :, 4:])
    for k in range(4):
        larger = mixsolve.solve(losses[:, :, [0, 1, 2, 3, 4 + k]], tol=1e-9)
        assert larger.value >= solution.lower_bound + min(0.0, costs[k]) - 1e-8
