"""Few models: every answer against all choices of classifiers, each solved by SciPy's HiGHS."""

from itertools import combinations

import numpy as np
import pytest
from in_process_shards import ShardedLosses
from reference import attacked_losses, entropic_risk, exact_risk, spread
from scipy.optimize import linprog

import mixsolve
from mixsolve import LinearConstraints, MixsolveError, MixsolveTypeError, Status
from mixsolve.base.tuning import tuning
from mixsolve.feasible import Simplex, simplex
from mixsolve.feasible.constraints import group_weight, weight_bounds
from mixsolve.feasible.subset import Restricted
from mixsolve.methods import bounded_sets, minorants
from mixsolve.methods import branch_and_bound as search
from mixsolve.methods.feasible_support import find_few
from mixsolve.methods.problem import Problem

TOL = 1e-8


def games():
    rng = np.random.default_rng(3)
    gamma = rng.gamma(0.5, 1.5, (15, 6, 6))
    bits = (rng.random((25, 8, 6)) < 0.5).astype(np.uint8)
    return {
        "continuous": gamma,
        "zero-one": bits,
        "one sample": rng.standard_normal((1, 12, 5)),
        "twins": np.concatenate([gamma[..., :3], gamma[..., :3]], axis=2),
        "bad classifiers": np.concatenate([gamma[..., :3], gamma[..., 3:] + 20.0], axis=2),
        "one candidate": rng.random((10, 1, 4)),
        "constant": np.full((4, 3, 4), 2.5),
        "two classifiers": gamma[..., :2],
    }


GAMES = games()


def linear_program(losses, sample_weight, classifiers, limits=None):
    """The best value of some classifiers, infinite where they cannot meet the limits."""
    n, m, size = losses.shape
    w = np.full(n, 1 / n) if sample_weight is None else sample_weight / np.sum(sample_weight)
    epigraph = np.kron(np.eye(n), np.ones((m, 1)))
    rows = np.hstack([losses.reshape(n * m, size), -epigraph])
    right = np.zeros(n * m)
    equal, level = np.concatenate([np.ones(size), np.zeros(n)])[None], np.ones(1)
    if limits is not None:
        extra = np.zeros((limits.b_ub.size, n))
        rows = np.vstack([rows, np.hstack([limits.A_ub, extra])])
        right = np.concatenate([right, limits.b_ub])
        extra = np.zeros((limits.b_eq.size, n))
        equal = np.vstack([equal, np.hstack([limits.A_eq, extra])])
        level = np.concatenate([level, limits.b_eq])
    used = np.isin(np.arange(size), classifiers)
    bounds = [(0, None if may else 0) for may in used] + [(None, None)] * n
    found = linprog(
        np.concatenate([np.zeros(size), w]), rows, right, equal, level, bounds, method="highs"
    )
    return found.fun if found.status == 0 else np.inf


def best_of_all(losses, k, sample_weight=None, limits=None):
    losses = np.asarray(losses, dtype=float)
    every = combinations(range(losses.shape[2]), k)
    return min(linear_program(losses, sample_weight, some, limits) for some in every)


def check(solution, losses, k, best, alpha=0.0, **game):
    """Everything that a solution of at most k models claims."""
    weights = np.asarray(solution.weights)
    digits = 1e-9 * max(1.0, spread(losses))
    assert np.count_nonzero(weights) <= k
    assert weights.min() >= 0.0
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    value = entropic_risk(losses, weights, alpha, **game) if alpha else None
    exact = {name: given for name, given in game.items() if name != "candidate_prior"}
    risk = exact_risk(losses, weights, **exact)
    assert solution.risk == pytest.approx(risk, abs=digits)
    assert solution.value == pytest.approx(value if alpha else risk, abs=digits)
    assert solution.lower_bound <= best + digits
    assert solution.risk_lower_bound <= best + (np.inf if alpha else digits)
    assert solution.value >= best - digits
    assert solution.gap == pytest.approx(solution.value - solution.lower_bound, abs=digits)
    assert solution.success == (solution.gap <= solution.tolerance)
    assert solution.max_models == k


@pytest.mark.parametrize("name", GAMES)
def test_the_best_of_all_choices_is_found(name):
    losses = GAMES[name]
    path = mixsolve.solve_cardinality_path(losses, tol=TOL)
    assert len(path) == losses.shape[2]
    for k, together in enumerate(path, 1):
        best = best_of_all(losses, k)
        check(together, losses, k, best)
        assert together.success
        if k < losses.shape[2]:
            alone = mixsolve.solve(losses, max_models=k, tol=TOL)
            check(alone, losses, k, best)
            assert alone.success
    assert (np.diff(path.values) <= 1e-12).all()
    assert (np.diff(path.lower_bounds) <= 0.0).all()


@pytest.mark.parametrize("name", ["continuous", "zero-one", "twins", "constant"])
@pytest.mark.parametrize("alpha", [1e-4, 0.2])
def test_the_best_of_all_choices_is_found_for_positive_alpha(name, alpha):
    losses = GAMES[name][..., :4] if name != "twins" else GAMES[name][..., 1:5]
    path = mixsolve.solve_cardinality_path(losses, alpha, tol=TOL)
    for k, solution in enumerate(path, 1):
        values = [
            mixsolve.solve(losses[..., list(some)], alpha, tol=TOL).value
            for some in combinations(range(4), k)
        ]
        check(solution, losses, k, min(values), alpha)
        assert solution.success
        assert solution.risk_lower_bound <= best_of_all(losses, k) + 1e-9


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_weights_masks_and_priors_count(rng, alpha):
    losses = rng.gamma(0.5, 1.5, (12, 5, 5))
    mask = rng.random((12, 5)) < 0.7
    mask[:, 0] = True
    game = {"sample_weight": rng.random(12) * (np.arange(12) > 1), "candidate_mask": mask}
    if alpha:
        game["candidate_prior"] = rng.random((12, 5)) + 0.1
    solution = mixsolve.solve(losses, alpha, max_models=2, tol=TOL, **game)
    values = [
        mixsolve.solve(losses[..., list(some)], alpha, tol=TOL, **game).value
        for some in combinations(range(5), 2)
    ]
    check(solution, losses, 2, min(values), alpha, **game)
    assert solution.value == pytest.approx(min(values), abs=1e-6)
    plain = mixsolve.solve(losses, alpha, max_models=2, tol=TOL)
    assert abs(solution.value - plain.value) > 1e-3


@pytest.mark.parametrize("method", ["lp", "interior-point", "oracle", "cvxpy"])
def test_every_exact_method_bounds_the_nodes(method):
    if method == "cvxpy":
        pytest.importorskip("cvxpy")
    losses = GAMES["continuous"][..., :4]
    tol = 0.05 if method == "oracle" else TOL
    solution = mixsolve.solve(losses, max_models=2, method=method, tol=tol)
    best = best_of_all(losses, 2)
    check(solution, losses, 2, best)
    assert solution.method == method
    assert solution.success


@pytest.mark.parametrize("method", ["newton", "apg"])
def test_every_entropic_method_bounds_the_nodes(method):
    losses = GAMES["continuous"][..., :4]
    solution = mixsolve.solve(losses, 0.3, max_models=2, method=method, tol=1e-5)
    values = [
        mixsolve.solve(losses[..., list(some)], 0.3, tol=TOL).value
        for some in combinations(range(4), 2)
    ]
    check(solution, losses, 2, min(values), 0.3)
    assert solution.success


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("name", ["continuous", "zero-one"])
def test_other_engines_give_the_same(name, alpha):
    losses = GAMES[name]
    here = mixsolve.solve_cardinality_path(losses, alpha, max_models=3, tol=TOL)
    there = mixsolve.solve_cardinality_path(
        ShardedLosses(losses, [4, 9]), alpha, max_models=3, tol=TOL
    )
    assert there.values == pytest.approx(here.values, abs=1e-7)
    for k, solution in enumerate(there, 1):
        check(solution, losses, k, here[k - 1].value, alpha)
        assert solution.success


def test_without_a_copy_of_the_losses_the_answer_is_the_same(monkeypatch):
    monkeypatch.setattr(tuning, "copied_bytes", 0)
    solution = mixsolve.solve(GAMES["continuous"], max_models=3, tol=TOL, presolve=False)
    check(solution, GAMES["continuous"], 3, best_of_all(GAMES["continuous"], 3))
    assert solution.success


def test_presolve_changes_nothing():
    values = [
        mixsolve.solve(GAMES["zero-one"], max_models=2, tol=TOL, presolve=presolve).value
        for presolve in (False, True)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-9)


def test_the_attack_is_the_best_one_on_the_classifiers_chosen():
    losses = GAMES["continuous"]
    solution = mixsolve.solve(losses, max_models=3, tol=TOL)
    chosen = np.flatnonzero(solution.weights)
    under_attack = attacked_losses(losses, solution.attack)
    assert under_attack[chosen].min() == pytest.approx(solution.value, abs=1e-6)
    assert solution.attacked_losses == pytest.approx(under_attack, abs=1e-9)
    with_all = mixsolve.solve(losses, tol=TOL).value
    assert under_attack.min() < with_all < solution.value  # no bound for other classifiers


def test_the_attack_is_one_on_the_tensor_that_was_given():
    losses = (np.random.default_rng(5).random((150, 40, 6)) < 0.2).astype(np.uint8)
    solution = mixsolve.solve(losses, max_models=2, tol=TOL)
    assert "presolve kept" in solution.message
    chosen = np.flatnonzero(solution.weights)
    under_attack = attacked_losses(losses, solution.attack)
    assert under_attack[chosen].min() == pytest.approx(solution.value, abs=1e-6)


@pytest.mark.parametrize("k", [6, 7, 100])
def test_as_many_models_as_there_are_is_no_limit(k):
    losses = GAMES["continuous"]
    limited, free = mixsolve.solve(losses, max_models=k), mixsolve.solve(losses)
    assert limited.weights == pytest.approx(free.weights, abs=1e-9)
    assert limited.lower_bound == pytest.approx(free.lower_bound, abs=1e-9)
    assert limited.max_models is None
    path = mixsolve.solve_cardinality_path(losses, max_models=k)
    assert len(path) == 6


def test_a_single_classifier():
    losses = GAMES["continuous"][..., :1]
    path = mixsolve.solve_cardinality_path(losses)
    assert path.risks == pytest.approx([losses.max(axis=1).mean()])
    assert mixsolve.solve(losses, max_models=1).weights.tolist() == [1.0]


def test_one_model_is_one_pass_for_each():
    losses = np.random.default_rng(0).gamma(0.5, 1.5, (30, 5, 6))
    solution = mixsolve.solve(losses, max_models=1, tol=TOL, presolve=False)
    assert solution.value == pytest.approx(losses.max(axis=1).mean(axis=0).min(), abs=1e-12)
    assert sorted(solution.weights) == [0.0] * 5 + [1.0]


def test_sparse_optimum_returns_at_once():
    solution = mixsolve.solve(GAMES["bad classifiers"], max_models=3, tol=TOL)
    assert solution.nit == 1
    assert solution.success


def many_nodes():
    """A game and k whose search takes more than a few nodes."""
    return np.random.default_rng(8).gamma(0.5, 1.5, (40, 6, 8)), 4


def test_limits_leave_a_mixture_and_its_true_gap():
    losses, k = many_nodes()
    best = best_of_all(losses, k)
    for limit, status in (
        ({"max_iter": 1}, Status.MAX_ITER),
        ({"max_iter": 5}, Status.MAX_ITER),
        ({"time_limit": 1e-9}, Status.TIME_LIMIT),
        ({"callback": lambda state: state.nit == 3}, Status.STOPPED),
    ):
        with pytest.warns(mixsolve.ConvergenceWarning):
            solution = mixsolve.solve(losses, max_models=k, tol=TOL, **limit)
        check(solution, losses, k, best)
        assert solution.status is status
        assert solution.gap > solution.tolerance


def test_the_callback_sees_every_node():
    losses, k = many_nodes()
    seen = []
    solution = mixsolve.solve(losses, max_models=k, tol=TOL, callback=seen.append)
    assert [state.nit for state in seen] == list(range(1, solution.nit + 1))
    assert all(np.count_nonzero(state.weights) <= k for state in seen)
    assert (np.diff([state.value for state in seen]) <= 0.0).all()
    assert (np.diff([state.lower_bound for state in seen]) >= 0.0).all()
    assert len(solution.history) == solution.nit
    assert solution.success


def test_fewer_nodes_than_choices_where_classifiers_differ():
    rng = np.random.default_rng(1)
    losses = rng.gamma(0.5, 1.5, (60, 5, 14)) + 0.4 * np.arange(14)
    solution = mixsolve.solve(losses, max_models=3, tol=TOL)
    assert solution.success
    assert solution.nit < 100 < 364  # choices of 3 of 14


def limits_of(name):
    return {
        "a model is forced in": weight_bounds(6, lower=[0, 0, 0, 0, 0.3, 0]),
        "no model above a half": weight_bounds(6, upper=0.5),
        "a group": group_weight(6, [1, 2, 5], lower=0.4, upper=0.7),
        "a budget": LinearConstraints(A_ub=[1.0, 5.0, 2.0, 4.0, 3.0, 6.0], b_ub=2.4),
        "an equation": LinearConstraints(A_eq=[1.0, 0.0, 0.0, -1.0, 0.0, 0.0], b_eq=0.1),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["a model is forced in", "no model above a half", "a group", "a budget", "an equation"],
)
def test_constraints_are_met_by_the_few(name):
    losses, limits = GAMES["continuous"], limits_of(name)
    for k in (2, 3):
        solution = mixsolve.solve(losses, max_models=k, constraints=limits, tol=TOL)
        best = best_of_all(losses, k, limits=limits)
        check(solution, losses, k, best)
        assert solution.success
        assert limits.violation(solution.weights) <= 1e-9
        assert solution.value == pytest.approx(best, abs=1e-6)


def test_constraints_for_positive_alpha():
    losses, limits = GAMES["continuous"][..., :4], weight_bounds(4, upper=0.6)
    solution = mixsolve.solve(losses, 0.1, max_models=2, constraints=limits, tol=TOL)
    values = [
        mixsolve.solve(
            losses[..., list(some)], 0.1, constraints=weight_bounds(2, upper=0.6), tol=TOL
        ).value
        for some in combinations(range(4), 2)
    ]
    check(solution, losses, 2, min(values), 0.1)
    assert solution.success
    assert max(solution.weights) <= 0.6 + 1e-9


def test_too_few_models_for_the_constraints():
    groups = [group_weight(6, [k, k + 1], lower=0.3) for k in (0, 2, 4)]
    with pytest.warns(mixsolve.ConvergenceWarning, match="max_models=2"):
        solution = mixsolve.solve(GAMES["continuous"], max_models=2, constraints=groups)
    assert solution.status is Status.INFEASIBLE
    assert solution.infeasibility.clash[-1] == "max_models=2"
    assert len(solution.infeasibility.clash) == 4  # each group is needed for that
    with pytest.warns(mixsolve.ConvergenceWarning):
        path = mixsolve.solve_cardinality_path(GAMES["continuous"], constraints=groups)
    assert path.risks[:2].tolist() == [np.inf, np.inf]
    assert np.isfinite(path.risks[2:]).all()
    assert path.supports[0] == ()
    assert "infeasible" in str(path)


def test_the_clash_names_no_constraint_that_can_go():
    limits = weight_bounds(5, lower=[0.2, 0.2, 0.2, 0.0, 0.0], upper=0.9)
    clash = find_few(limits, 2)
    assert set(clash.clash) == {*(f"weights[{k}] >= 0.2" for k in range(3)), "max_models=2"}
    assert find_few(limits, 3) == (0, 1, 2)


def test_constraints_that_no_mixture_meets():
    limits = weight_bounds(6, upper=0.1)
    with pytest.warns(mixsolve.ConvergenceWarning):
        solution = mixsolve.solve(GAMES["continuous"], max_models=2, constraints=limits)
    assert solution.status is Status.INFEASIBLE
    assert solution.infeasibility.excess > 0.0


def test_weights_that_are_nearly_nothing_count_as_a_model():
    limits = weight_bounds(4, lower=1e-7)  # below what the mixed-integer program can tell from 0
    with pytest.warns(mixsolve.ConvergenceWarning, match="max_models=2"):
        solution = mixsolve.solve(
            GAMES["continuous"][..., :4], max_models=2, constraints=limits, tol=TOL
        )
    assert solution.status is Status.INFEASIBLE


def test_wrong_arguments_are_named():
    losses = GAMES["continuous"]
    with pytest.raises(MixsolveError, match="max_models must be an integer >= 1, got 0"):
        mixsolve.solve(losses, max_models=0)
    with pytest.raises(MixsolveTypeError, match="max_models must be an integer"):
        mixsolve.solve(losses, max_models=2.5)
    with pytest.raises(MixsolveError, match="max_models must be an integer >= 1"):
        mixsolve.solve_cardinality_path(losses, max_models=-1)
    with pytest.raises(MixsolveError, match="constraints must be linear where max_models"):
        mixsolve.solve(losses, max_models=2, constraints=lambda weights: [weights[0] >= 0.1])


def test_nothing_is_said_about_other_classifiers():
    losses = GAMES["continuous"]
    solution = mixsolve.solve(losses, max_models=2)
    for ask in (solution.sensitivity, lambda: solution.reduced_costs(losses[..., :1])):
        with pytest.raises(MixsolveError, match="without max_models"):
            ask()


def test_a_warm_start_is_a_first_mixture():
    losses, k = many_nodes()
    found = mixsolve.solve(losses, max_models=k, tol=TOL)
    seen = []
    mixsolve.solve(losses, max_models=k, tol=TOL, warm_start=found, callback=seen.append)
    assert seen[0].value <= found.value + 1e-12


def test_scale_changes_nothing():
    losses = GAMES["continuous"]
    plain = mixsolve.solve(losses, max_models=2, tol=TOL)
    for scale in (1e-8, 1e8):
        scaled = mixsolve.solve(losses * scale, max_models=2, tol=TOL)
        assert scaled.weights == pytest.approx(plain.weights, abs=1e-6)
        assert scaled.success


def test_the_path_as_a_table_and_as_arrays():
    path = mixsolve.solve_cardinality_path(GAMES["continuous"], max_models=3)
    assert path.weights.shape == (3, 6)
    assert path[1] is path.solutions[1]
    assert path.max_models.tolist() == [1, 2, 3]
    for k, (support, row) in enumerate(zip(path.supports, path.weights, strict=True), 1):
        assert len(support) <= k
        assert row[list(support)].sum() == pytest.approx(1.0)
    lines = str(path).splitlines()
    assert len(lines) == 4
    assert f"{path.risks[1]:.6g}" in lines[2]
    assert "closed" in lines[2]


def test_the_path_as_a_picture():
    pytest.importorskip("matplotlib")
    losses, _ = many_nodes()
    path = mixsolve.solve_cardinality_path(losses, max_models=3)
    (axes,) = path.plot().axes
    assert axes.lines[0].get_ydata() == pytest.approx(path.risks)
    assert not axes.collections
    with pytest.warns(mixsolve.ConvergenceWarning):
        path = mixsolve.solve_cardinality_path(losses, max_models=3, max_iter=1)
    (axes,) = path.plot().axes
    assert axes.collections


def test_a_subset_of_the_simplex(rng):
    chosen = np.array([0, 2, 3])
    some = Restricted(Simplex(), chosen, 5)
    point, slope = rng.standard_normal(5), rng.standard_normal(5)
    nearest = some.project(point)
    assert nearest[[1, 4]].tolist() == [0.0, 0.0]
    assert nearest[chosen] == pytest.approx(simplex.project(point[chosen]))
    assert some.lowest(slope) == slope[chosen].min()
    root = rng.standard_normal((5, 5))
    hessian, start = root @ root.T + np.eye(5), some.project(np.ones(5))
    found = some.minimize_quadratic(slope, hessian, start, 1e-12)
    assert found[[1, 4]].tolist() == [0.0, 0.0]
    gradient = slope + hessian @ (found - start)
    assert found @ gradient == pytest.approx(gradient[chosen].min(), abs=1e-9)


@pytest.mark.parametrize("alpha", [None, 0.1])
def test_rows_are_below_the_objective_everywhere(rng, alpha):
    losses = rng.gamma(0.5, 1.5, (20, 5, 4))
    engine = mixsolve.engines.open_losses(losses).engine(
        np.full(20, 0.05), np.empty(0, dtype=np.uint8), np.empty(0)
    )
    below = minorants.Minorants(Problem(engine, None if alpha is None else np.full(20, alpha)))
    points = rng.dirichlet(np.ones(4), 30)
    values = np.array([below.touch(point) for point in points])
    heights = below.rows @ points.T
    assert np.diag(heights) == pytest.approx(values, abs=1e-12)
    assert (heights.max(axis=0) <= values + 1e-12).all()
    singles = below.single(np.array([1, 2]), np.array([0, 3]))
    expected = [below.rows[:, [1, 2, other]].min(axis=1).max() for other in (0, 3)]
    assert singles == pytest.approx(expected)


def test_old_rows_are_forgotten(monkeypatch):
    monkeypatch.setattr(tuning, "minorants", 8)
    monkeypatch.setattr(tuning, "kept_minorants", 4)
    losses, k = many_nodes()
    solution = mixsolve.solve(losses, max_models=k, tol=TOL)
    check(solution, losses, k, best_of_all(losses, k))
    assert solution.success


def test_branches_hold_every_choice_once():
    """The parts of a node are disjoint, and together they are the node."""
    node = bounded_sets.Node(0.0, 0, (1,), (0, 1, 2, 3, 4))
    finder = object.__new__(search.Search)
    finder._probes = None
    for most in (2, 3, 4):
        finder._most = most

        class Rows:
            def single(self, fixed, one_of):
                return np.full(one_of.size, -np.inf)

        finder._minorants = Rows()
        weights = np.array([0.1, 0.2, 0.4, 0.1, 0.2])
        parts = list(finder._branch(node, weights))
        for choice in combinations(range(5), most):
            if 1 in choice:
                holding = [
                    used for used, allowed, _ in parts if set(used) <= set(choice) <= set(allowed)
                ]
                assert len(holding) == 1
