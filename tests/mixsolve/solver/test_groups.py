"""Games in which the attacker also chooses whom: against HiGHS, NumPy and their own certificate."""

import numpy as np
import pytest
from corpus import seeds
from grouped_reference import draw, linear_program, risk
from scipy.special import logsumexp

import mixsolve
from mixsolve import MixsolveError, MixsolveTypeError, Status

CORPUS = seeds(range(2000), quick=24)


def attack_losses(solution, tables):
    """Loss of each classifier under the attack, sample by sample."""
    total = np.zeros(tables[0].shape[1])
    for table, weight, (candidates, shares) in zip(
        tables, solution.attack_weight, solution.attack, strict=True
    ):
        total += weight * (shares @ table[candidates])
    return total


def assert_certified(solution, tables, group, bounds, within, tail):
    """Both sides recomputed from the tables, and the attack within its limits."""
    values = np.array([(table @ solution.weights).max() for table in tables])
    digits = 1e-12 * max(np.abs(table).max() for table in tables)
    assert solution.value == pytest.approx(risk(values, group, bounds, within, tail), abs=digits)
    attacked = attack_losses(solution, tables)
    assert solution.lower_bound == pytest.approx(attacked.min(), abs=digits)
    np.testing.assert_allclose(attacked, solution.attacked_losses, atol=digits)
    struck = solution.attack_weight
    masses = np.bincount(group, struck, minlength=bounds.size)
    share = 1.0 if tail is None else tail
    assert struck.sum() == pytest.approx(1.0, abs=1e-12)
    assert (masses <= bounds + 1e-12).all()
    assert (struck <= masses[group] * within / share + 1e-12).all()


@pytest.mark.parametrize("seed", CORPUS)
def test_the_value_is_that_of_the_linear_program(seed):
    tables, options, choice = draw(seed)
    solution = mixsolve.solve(tables, tol=1e-9, **options)
    optimum = linear_program(tables, *choice)
    scale = max(solution.spread, 1e-12)
    assert abs(solution.value - optimum) <= 1e-8 * scale
    assert abs(solution.lower_bound - optimum) <= 1e-8 * scale
    assert_certified(solution, tables, *choice)


@pytest.fixture(scope="module")
def game():
    rng = np.random.default_rng(5)
    losses = rng.gamma(0.5, 1.5, (60, 8, 5))
    return losses, rng.integers(0, 4, 60), rng.random(60) + 0.1


def test_one_group_is_the_plain_game(game):
    losses, _, weight = game
    plain = mixsolve.solve(losses, sample_weight=weight)
    one = mixsolve.solve(losses, sample_weight=weight, groups=["all"] * 60)
    assert one.value == plain.value
    np.testing.assert_array_equal(one.weights, plain.weights)
    assert one.group_labels.tolist() == ["all"]
    assert one.group_risks == pytest.approx([plain.risk], abs=1e-12)
    assert one.group_weights == pytest.approx([1.0])
    np.testing.assert_allclose(plain.attack_weight, weight / weight.sum())
    assert plain.group_labels is None
    assert plain.group_risks is None


def test_a_group_of_each_sample_is_the_worst_sample(game):
    losses, _, _ = game
    each = mixsolve.solve(losses, groups=np.arange(60), tol=1e-9)
    tail = mixsolve.solve(losses, tail=1e-6, tol=1e-9)
    whole = mixsolve.solve(losses.reshape(1, -1, 5), tol=1e-9)  # one sample with all candidates
    assert each.value == pytest.approx(whole.value, abs=1e-8)
    assert tail.value == pytest.approx(whole.value, abs=1e-8)


def test_a_tail_of_one_and_bounds_of_one_are_the_mean(game):
    losses, groups, weight = game
    plain = mixsolve.solve(losses, sample_weight=weight)
    assert mixsolve.solve(losses, sample_weight=weight, tail=1.0).value == plain.value
    bounded = mixsolve.solve(losses, sample_weight=weight, groups=groups, group_weight=1.0)
    assert bounded.value == pytest.approx(plain.value, abs=1e-9)
    share = np.bincount(groups, weight) / weight.sum()
    np.testing.assert_allclose(bounded.group_weights, share, atol=1e-12)


def test_risks_of_groups_are_theirs(game):
    losses, groups, weight = game
    solution = mixsolve.solve(losses, sample_weight=weight, groups=groups)
    values = (losses @ solution.weights).max(axis=1)
    for g in range(4):
        own = groups == g
        expected = np.average(values[own], weights=weight[own])
        assert solution.group_risks[g] == pytest.approx(expected, abs=1e-12)
    assert solution.value == pytest.approx(solution.group_risks.max(), abs=1e-12)
    # A group that is struck is as bad as the worst, to the gap.
    struck = solution.group_weights > 1e-3
    assert (solution.group_risks[struck] >= solution.value - 1e3 * solution.tolerance).all()


def test_the_wider_the_attackers_choice_the_higher_the_value(game):
    losses, groups, _ = game
    values = [
        mixsolve.solve(losses, groups=groups, group_weight=c, tail=beta, tol=1e-9).value
        for c, beta in ((1.0, 1.0), (1.5, 1.0), (4.0, 1.0), (4.0, 0.5), (4.0, 0.05))
    ]
    assert (np.diff(values) > 1e-6).all()


def test_bounds_by_label_and_in_order_are_the_same(game):
    losses, groups, _ = game
    names = np.array(["d", "b", "a", "c"])[groups]
    given = {"a": 0.2, "b": 0.6, "c": 0.5, "d": 0.0}
    by_label = mixsolve.solve(losses, groups=names, group_weight=given)
    in_order = mixsolve.solve(losses, groups=names, group_weight=[0.2, 0.6, 0.5, 0.0])
    assert by_label.value == in_order.value
    assert by_label.group_weights[3] == 0.0
    assert by_label.group_weights.sum() == pytest.approx(1.0)
    assert np.isfinite(by_label.group_risks).all()  # also of the group that may not be struck


def test_a_group_without_weight_is_never_struck(game):
    losses, groups, weight = game
    weight = np.where(groups == 2, 0.0, weight)
    solution = mixsolve.solve(losses, groups=groups, sample_weight=weight)
    assert solution.group_weights[2] == 0.0
    assert np.isnan(solution.group_risks[2])
    kept = groups != 2
    without = mixsolve.solve(losses[kept], groups=groups[kept], sample_weight=weight[kept])
    assert solution.value == pytest.approx(without.value, abs=1e-8)


@pytest.mark.parametrize("scale", [1e-8, 1e8, 1e-80])
def test_scale_shift_and_order_change_nothing(game, scale):
    losses, groups, weight = game
    rng = np.random.default_rng(0)
    plain = mixsolve.solve(losses, groups=groups, sample_weight=weight, tol=1e-9)
    order = rng.permutation(60)
    moved = scale * (losses[order][:, rng.permutation(8)] + 3.0)
    other = mixsolve.solve(moved, groups=groups[order], sample_weight=weight[order], tol=1e-9)
    assert other.value / scale - 3.0 == pytest.approx(plain.value, abs=1e-7)
    np.testing.assert_allclose(other.group_risks / scale - 3.0, plain.group_risks, atol=1e-4)


def test_masks_and_classifiers_at_zero(game):
    losses, groups, _ = game
    mask = np.random.default_rng(1).random((60, 8)) < 0.5
    mask[:, 0] = True
    hidden = np.where(mask[:, :, None], losses, np.nan)
    tables = [table[kept] for table, kept in zip(losses, mask, strict=True)]
    options = {"groups": groups, "tail": 0.4, "A_ub": np.eye(5)[:1], "b_ub": [0.0], "tol": 1e-9}
    masked = mixsolve.solve(hidden, candidate_mask=mask, **options)
    assert masked.weights[0] == 0.0
    less = [table[:, 1:] for table in tables]
    alone = mixsolve.solve(less, groups=groups, tail=0.4, tol=1e-9)
    assert masked.value == pytest.approx(alone.value, abs=1e-8)


def test_constraints_and_few_models(game):
    losses, groups, _ = game
    options = {"groups": groups, "tol": 1e-8}
    free = mixsolve.solve(losses, **options)
    k = int(free.weights.argmax())
    limited = mixsolve.solve(losses, A_ub=np.eye(5)[[k]], b_ub=[0.1], **options)
    assert limited.success
    assert limited.weights[k] <= 0.1 + 1e-12
    assert limited.value > free.value
    few = mixsolve.solve(losses, max_models=2, **options)
    pairs = [
        mixsolve.solve(losses[:, :, [a, b]], **options).value for a in range(5) for b in range(a)
    ]
    assert few.value == pytest.approx(min(pairs), abs=1e-7)


def test_algorithm_1_is_certified(game):
    losses, groups, _ = game
    exact = mixsolve.solve(losses, groups=groups, tol=1e-9)
    oracle = mixsolve.solve(losses, groups=groups, method="oracle", tol=0.02)
    assert oracle.status is Status.OPTIMAL
    assert oracle.lower_bound <= exact.value + 1e-9 <= oracle.value + 1e-8
    attacked = attack_losses(oracle, losses)
    assert oracle.lower_bound == pytest.approx(attacked.min(), abs=1e-10)


@pytest.mark.parametrize("alpha", [0.003, 0.3])
@pytest.mark.parametrize("choice", [{}, {"group_weight": 1.5}, {"alpha_groups": 0.05}])
def test_entropic_groups(game, alpha, choice):
    losses, groups, weight = game
    solution = mixsolve.solve(
        losses, alpha, groups=groups, sample_weight=weight, tol=1e-8, **choice
    )
    assert solution.success

    def objective(lam):
        soft = alpha * (logsumexp(losses @ lam / alpha, axis=1) - np.log(8))
        share = np.bincount(groups, weight) / weight.sum()
        each = np.bincount(groups, weight * soft) / np.bincount(groups, weight)
        if "alpha_groups" in choice:
            return 0.05 * logsumexp(each / 0.05, b=share)
        bounds = np.full(4, 2.0) if not choice else 1.5 * share
        return risk(each, np.arange(4), bounds, np.ones(4))

    assert objective(solution.weights) == pytest.approx(solution.value, abs=1e-10)
    rng = np.random.default_rng(2)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        near = (1.0 - size) * solution.weights + size * rng.dirichlet(np.ones(5))
        assert objective(near) >= solution.value - solution.gap - 1e-12
    assert 0.0 <= solution.risk - solution.value <= solution.smoothing_bound + 1e-12


def test_apg_runs_where_groups_are_smoothed(game):
    losses, groups, _ = game
    options = {"groups": groups, "alpha_groups": 0.1, "tol": 1e-7}
    newton = mixsolve.solve(losses, 0.1, **options)
    apg = mixsolve.solve(losses, 0.1, method="apg", **options)
    assert apg.value == pytest.approx(newton.value, abs=1e-6)


def test_an_entropic_tail(game):
    losses, _, _ = game
    solution = mixsolve.solve(losses, 0.1, tail=0.25, tol=1e-8)
    soft = 0.1 * (logsumexp(losses @ solution.weights / 0.1, axis=1) - np.log(8))
    assert solution.value == pytest.approx(np.sort(soft)[-15:].mean(), abs=1e-10)
    assert solution.success


def test_a_path_of_alphas(game):
    losses, groups, _ = game
    path = mixsolve.solve_path(losses, [0.0, 0.01, 0.1], groups=groups)
    assert all(solution.success for solution in path)
    assert path[0].value > path[1].value > path[2].value
    assert path[0].value == pytest.approx(mixsolve.solve(losses, groups=groups).value, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": [0, 1]}, "one label per sample"),
        ({"groups": [0.5] * 60}, "whole numbers or strings"),
        ({"group_weight": 2.0}, "group_weight needs groups"),
        ({"alpha_groups": 0.1, "alpha": 0.1}, "alpha_groups needs groups"),
        ({"groups": [0] * 30 + [1] * 30, "group_weight": 0.5}, "group_weight must be"),
        ({"groups": [0] * 30 + [1] * 30, "group_weight": [0.2, 0.3]}, "no distribution"),
        ({"groups": [0] * 30 + [1] * 30, "group_weight": [1.0]}, "each of the 2 groups"),
        ({"groups": [0] * 30 + [1] * 30, "group_weight": {0: 1.0, 2: 1.0}}, "missing"),
        ({"tail": 0.0}, "tail must be"),
        ({"tail": 1.5}, "tail must be"),
        ({"groups": [0] * 30 + [1] * 30, "alpha_groups": 0.1}, "alpha is 0"),
        (
            {"groups": [0] * 30 + [1] * 30, "alpha_groups": 0.1, "alpha": 0.1, "tail": 0.5},
            "whole groups without bounds",
        ),
        ({"tail": 0.5, "alpha": 0.1, "method": "apg"}, "does not choose groups or tails"),
        ({"tail": 0.5, "constraints": lambda w: [w[0] <= 0.5], "method": "lp"}, "linear ones"),
    ],
)
def test_what_does_not_go_is_refused(game, options, words):
    with pytest.raises(MixsolveError, match=words):
        mixsolve.solve(game[0], **options)


def test_labels_of_several_types_are_refused(game):
    with pytest.raises(MixsolveTypeError, match="labels of one type"):
        mixsolve.solve(game[0], groups=np.array([None] * 30 + ["a"] * 30, dtype=object))


def test_reduced_costs_and_sensitivity_know_the_attackers_weights(game):
    losses, groups, _ = game
    part = mixsolve.solve(losses[:, :, :4], groups=groups, tol=1e-9)
    whole = mixsolve.solve(losses, groups=groups, tol=1e-9)
    cost = part.reduced_costs(losses[:, :, 4:])
    assert whole.value >= part.lower_bound + min(0.0, cost.min()) - 1e-9
    known = part.reduced_costs(losses[:, :, :4])
    np.testing.assert_allclose(known[part.weights > 1e-6], 0.0, atol=1e-6)
    sensitivity = part.sensitivity(losses[:, :, :4])
    assert sensitivity.sample_shares.sum() == pytest.approx(part.value, abs=1e-6)
    assert sensitivity.candidate_mass.sum() == pytest.approx(1.0)


def test_groups_are_told_and_kept(game, tmp_path):
    losses, groups, _ = game
    solution = mixsolve.solve(losses, groups=np.array(["a", "b", "c", "d"])[groups])
    worst = int(solution.group_risks.argmax())
    told = next(line for line in repr(solution).splitlines() if line.startswith("  groups"))
    assert told.split()[1] == f"{solution.group_labels[worst]}:"
    assert solution.to_dict()["group_labels"] == ["a", "b", "c", "d"]
    solution.save(tmp_path / "game.npz")
    kept = mixsolve.load(tmp_path / "game.npz")
    assert kept == solution
    np.testing.assert_array_equal(kept.attack.weight, solution.attack_weight)


@pytest.mark.parametrize("method", ["newton", "apg"])
def test_a_single_candidate_leaves_the_smoothing_of_the_groups(method):
    losses = np.random.default_rng(1).gamma(0.5, 1.5, (12, 1, 4))
    groups = np.arange(12) % 3
    solution = mixsolve.solve(losses, 0.03, groups=groups, alpha_groups=0.1, method=method)
    each = np.array([(losses[groups == g, 0] @ solution.weights).mean() for g in range(3)])
    assert solution.success
    assert solution.value == pytest.approx(0.1 * logsumexp(each / 0.1, b=1 / 3), abs=1e-12)


@pytest.mark.parametrize("method", ["cvxpy", "interior-point"])
@pytest.mark.parametrize("seed", range(12))
def test_all_candidates_at_once_have_the_same_value(seed, method):
    tables, options, choice = draw(seed)
    solution = mixsolve.solve(tables, tol=1e-6, method=method, **options)
    optimum = linear_program(tables, *choice)
    assert abs(solution.value - optimum) <= 2e-6 * max(solution.spread, 1e-12)
    assert solution.success
    assert_certified(solution, tables, *choice)


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_the_entropic_model_in_cvxpy_has_the_same_value(game, temperature):
    losses, label, weight = game
    options = {"sample_weight": weight, "groups": label, "alpha_groups": temperature}
    model = mixsolve.solve(losses, 0.3, method="cvxpy", tol=1e-5, **options)
    newton = mixsolve.solve(losses, 0.3, tol=1e-7, **options)
    assert model.success
    assert model.value == pytest.approx(newton.value, abs=2e-5 * model.spread)
    assert model.lower_bound <= newton.value + 1e-7 * model.spread


@pytest.mark.parametrize("choice", [{"tail": 0.3}, {"groups": None}, {"groups": None, "tail": 0.5}])
def test_constraints_may_be_a_function(game, choice):
    losses, label, weight = game
    choice = {**choice, "sample_weight": weight}
    if "groups" in choice:
        choice["groups"] = label
    linear = mixsolve.LinearConstraints(A_ub=[[1.0, 1.0, 0.0, 0.0, 0.0]], b_ub=[0.3])
    wanted = mixsolve.solve(losses, constraints=linear, tol=1e-8, **choice)
    found = mixsolve.solve(losses, constraints=lambda w: [w[0] + w[1] <= 0.3], tol=1e-5, **choice)
    assert found.success
    assert found.value == pytest.approx(wanted.value, abs=2e-5 * wanted.spread)
    assert found.weights[:2].sum() <= 0.3 + 1e-6

    def around(weights):
        import cvxpy as cp

        return [cp.norm(weights - 0.2) <= 0.1]

    bounded = mixsolve.solve(losses, constraints=around, tol=1e-5, **choice)
    assert bounded.success
    assert bounded.lower_bound >= mixsolve.solve(losses, **choice).lower_bound - 1e-5
    assert np.linalg.norm(bounded.weights - 0.2) <= 0.1 + 1e-6
