"""Games under constraints: every method against models written out here, and the certificate."""

import itertools
import json
import warnings
from types import SimpleNamespace

import cvxpy as cp
import numpy as np
import pytest
from corpus import seeds
from in_process_shards import ShardedLosses
from reference import attacked_losses, entropic_risk, exact_risk
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint, linprog
from scipy.sparse import csr_array

import mixsolve
from mixsolve import ConvergenceWarning, LinearConstraints, MixsolveError, MixsolveTypeError, games
from mixsolve.commands.main import main
from mixsolve.feasible.constraints import expected_cost, group_weight, standard_risk, weight_bounds

EXACT = ("lp", "interior-point", "cvxpy")


def random_game(seed):
    """A small game and constraints that some weights meet."""
    rng = np.random.default_rng(seed)
    N, m, L = rng.integers((1, 1, 2), (25, 6, 7))
    draws = (
        lambda: rng.random((N, m, L)),
        lambda: rng.integers(0, 2, (N, m, L)).astype(float),
        lambda: rng.gamma(0.5, 1.5, (N, m, L)),
        lambda: 1e3 + rng.random((N, m, L)),
    )
    losses = draws[seed % 4]()
    inner = rng.dirichlet(np.ones(L))
    A, E = rng.standard_normal((int(rng.integers(0, 4)), L)), rng.standard_normal((seed % 2, L))
    if seed % 3 == 0:
        A, E = np.round(A), np.round(E)
    slack = rng.random(len(A)) * (seed % 5 > 0)
    A = np.vstack([A, -np.eye(L)[:1]])
    b = np.append(A[:-1] @ inner + slack, -0.5 * inner[0])
    return losses, LinearConstraints(A, b, E, E @ inner)


def linear_program(losses, constraints, sample_weight=None):
    """The optimal exact risk, by SciPy on the problem as written."""
    N, m, L = losses.shape
    weight = np.full(N, 1 / N) if sample_weight is None else sample_weight / sample_weight.sum()
    shift = losses.min(axis=(1, 2))
    rows = (losses - shift[:, None, None]).reshape(-1, L)
    none = np.zeros((len(constraints.b_ub), N)), np.zeros((len(constraints.b_eq), N))
    found = linprog(
        np.concatenate([np.zeros(L), weight]),
        A_ub=np.vstack(
            [
                np.hstack([rows, -np.repeat(np.eye(N), m, axis=0)]),
                np.hstack([constraints.A_ub, none[0]]),
            ]
        ),
        b_ub=np.concatenate([np.zeros(len(rows)), constraints.b_ub]),
        A_eq=np.vstack(
            [np.hstack([constraints.A_eq, none[1]]), np.append(np.ones(L), np.zeros(N))]
        ),
        b_eq=np.append(constraints.b_eq, 1.0),
        bounds=[(0, None)] * L + [(None, None)] * N,
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert found.status == 0
    return found.fun + weight @ shift


def cone_program(losses, alpha, constraints):
    """The optimal entropic risk, by cvxpy on the problem as written."""
    N, m, L = losses.shape
    weights, soft = cp.Variable(L, nonneg=True), cp.Variable(N)
    shift = losses.min(axis=(1, 2))
    rules = [
        cp.log_sum_exp((losses[i] - shift[i]) @ weights / alpha) - np.log(m) <= soft[i]
        for i in range(N)
    ]
    rules += [cp.sum(weights) == 1, constraints.A_ub @ weights <= constraints.b_ub]
    if len(constraints.b_eq):
        rules.append(constraints.A_eq @ weights == constraints.b_eq)
    model = cp.Problem(cp.Minimize(alpha * cp.sum(soft) / N), rules)
    return model.solve(solver="CLARABEL") + shift.mean()


def corners(constraints):
    """All vertices of the polytope: every choice of as many active constraints as are needed."""
    L = constraints.n_classifiers
    C = np.vstack([constraints.A_ub - constraints.b_ub[:, None], -np.eye(L)])
    F = np.vstack([constraints.A_eq - constraints.b_eq[:, None], np.ones((1, L))])
    right = np.append(np.zeros(len(F) - 1), 1.0)
    found = []
    for n_active in range(max(L - len(F), 0), L):
        for active in itertools.combinations(range(len(C)), n_active):
            rows = np.vstack([F, C[list(active)]])
            if np.linalg.matrix_rank(rows) == L:
                target = np.append(right, np.zeros(n_active))
                point = np.linalg.lstsq(rows, target, rcond=None)[0]
                if np.abs(F @ point - right).max() < 1e-9 and (C @ point).max() < 1e-9:
                    found.append(point)
    return np.array(found)


def check_feasible(constraints, weights):
    assert weights.min() >= 0.0
    assert abs(weights.sum() - 1.0) <= 1e-12
    for A, b, signed in (
        (constraints.A_ub, constraints.b_ub, False),
        (constraints.A_eq, constraints.b_eq, True),
    ):
        unit = np.maximum(np.abs(A).max(axis=1, initial=0.0), np.abs(b))
        over = A @ weights - b
        assert ((np.abs(over) if signed else over) <= 1e-9 * unit).all()


@pytest.mark.parametrize("seed", seeds(range(30), quick=10))
def test_exact_methods_solve_the_linear_program(seed):
    losses, constraints = random_game(seed)
    optimum = linear_program(losses, constraints)
    digits = 2e-8 * np.ptp(losses) + 1e-12 * np.abs(losses).max()
    everywhere = corners(constraints)
    for options in (*({"method": name} for name in EXACT), {"method": "lp", "presolve": False}):
        tol = 1e-6 if options["method"] == "cvxpy" else 1e-8
        found = mixsolve.solve(losses, constraints=constraints, tol=tol, **options)
        assert found.success
        check_feasible(constraints, found.weights)
        assert abs(found.value - optimum) <= digits + tol * found.spread
        assert found.value == pytest.approx(exact_risk(losses, found.weights), rel=1e-12)
        # The bound, from the raw losses: no vertex has less under the attack.
        attacked = attacked_losses(losses, found.attack)
        np.testing.assert_allclose(attacked, found.attacked_losses, rtol=1e-12)
        least = (everywhere @ attacked).min()
        assert found.lower_bound <= least + digits
        assert found.lower_bound >= least - digits - tol * found.spread
        assert found.lower_bound <= optimum + digits


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("seed", range(0, 60, 7))
@pytest.mark.parametrize("factor", [0.3, 0.03])
def test_entropic_methods_solve_the_cone_program(seed, factor):
    losses, constraints = random_game(seed)
    alpha = factor * (np.ptp(losses) or 1.0)
    reference = cone_program(losses, alpha, constraints)
    for method in ("newton", "apg"):
        found = mixsolve.solve(losses, alpha, method=method, constraints=constraints, tol=1e-7)
        assert found.success
        check_feasible(constraints, found.weights)
        assert abs(found.value - reference) <= 2e-6 * np.ptp(losses) + 1e-9 * np.abs(losses).max()
        assert found.value == pytest.approx(entropic_risk(losses, found.weights, alpha), rel=1e-12)
        for corner in corners(constraints):
            assert entropic_risk(losses, corner, alpha) >= found.lower_bound - 1e-12 * abs(
                reference
            )
    modelled = mixsolve.solve(losses, alpha, method="cvxpy", constraints=constraints, tol=1e-5)
    assert abs(modelled.value - reference) <= 2e-5 * np.ptp(losses) + 1e-9 * np.abs(losses).max()


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_algorithm_1_under_constraints(seed):
    losses, constraints = random_game(seed)
    optimum = linear_program(losses, constraints)
    found = mixsolve.solve(losses, method="oracle", max_iter=300, constraints=constraints)
    check_feasible(constraints, found.weights)
    digits = 1e-8 * np.ptp(losses)
    assert found.lower_bound <= optimum + digits
    assert optimum - digits <= found.value
    L = losses.shape[2]
    assert found.value <= optimum + 2 * np.ptp(losses) * np.sqrt(L / 300) + digits


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_a_larger_game(alpha):
    game = games.gamma_game(3000, 12, 8, seed=2).losses  # large enough for subsamples
    cost = np.linspace(1.0, 3.0, 8)
    free = mixsolve.solve(game, alpha)
    constraints = expected_cost(cost, 0.9 * float(cost @ free.weights)) & weight_bounds(8, 0.02)
    found = mixsolve.solve(game, alpha, constraints=constraints, tol=1e-8)
    assert found.success
    check_feasible(constraints, found.weights)
    assert found.value > free.value
    assert cost @ found.weights == pytest.approx(constraints.b_ub[0])
    again = mixsolve.solve(game, alpha, constraints=constraints, tol=1e-8, presolve=False)
    assert abs(again.value - found.value) <= 2e-8 * found.spread
    # What the interior point does in its own system, not with rows of penalties.
    assert found.n_passes <= free.n_passes + 4


@pytest.mark.parametrize("alpha", [0.0, 0.02])
def test_two_valued_losses(alpha):
    losses = games.paper2d(150, 80, 6, seed=4).losses
    best = losses.max(axis=1).mean(axis=0).argmin()
    constraints = weight_bounds(6, 0.0, np.where(np.arange(6) == best, 0.1, 1.0))
    for presolve in (True, False):
        found = mixsolve.solve(losses, alpha, constraints=constraints, presolve=presolve)
        assert found.success
        check_feasible(constraints, found.weights)
        if alpha == 0.0:
            assert found.value == pytest.approx(linear_program(losses, constraints), abs=2e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_units_of_losses_and_of_rows_do_not_matter(losses, alpha, factor):
    A, b = np.array([[1.0, 2.0, 4.0], [0.0, -1.0, 0.5]]), np.array([2.0, -0.2])
    plain = mixsolve.solve(losses, alpha, A_ub=A, b_ub=b, tol=1e-9)
    scales = np.array([factor, 1 / factor])
    other = mixsolve.solve(
        factor * losses, factor * alpha, A_ub=A * scales[:, None], b_ub=b * scales, tol=1e-9
    )
    np.testing.assert_allclose(other.weights, plain.weights, atol=1e-7)
    assert other.success
    np.testing.assert_allclose(other.prices.upper * scales, factor * plain.prices.upper, rtol=1e-5)


def test_rows_of_mixed_magnitude(losses):
    """Energy in joules beside a share: 1e8 and 1e-8 in one row."""
    constraints = LinearConstraints([[1e8, 1e-8, 1.0], [1e-8, 1e-8, 2e-8]], [2e7, 1.5e-8])
    found = mixsolve.solve(losses, constraints=constraints, tol=1e-8)
    check_feasible(constraints, found.weights)
    assert found.value == pytest.approx(linear_program(losses, constraints), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_constraints_that_do_not_bind_change_nothing(losses, alpha):
    loose = [expected_cost([1.0, 2.0, 3.0], 3.0), weight_bounds(3), group_weight(3, [0, 1])]
    free = mixsolve.solve(losses, alpha, tol=1e-9)
    found = mixsolve.solve(losses, alpha, constraints=loose, tol=1e-9)
    np.testing.assert_allclose(found.weights, free.weights, atol=1e-7)
    assert (found.prices.upper == 0.0).all()
    nothing = mixsolve.solve(losses, alpha, A_ub=[[1.0, 1.0, 1.0]], b_ub=[np.inf], tol=1e-9)
    np.testing.assert_allclose(nothing.weights, free.weights, atol=1e-7)
    assert nothing.prices.upper.size == 0


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("method", ["auto", "cvxpy"])
def test_degenerate_constraints(losses, alpha, method):
    """Zero rows, the same row twice, the same equality thrice, and all weights fixed."""
    fixed = np.array([0.5, 0.2, 0.3])
    A = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    E = np.array([[0.0, 1.0, 0.0], [0.0, 2.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    constraints = LinearConstraints(A, [0.5, 0.5, 0.0], E, [0.2, 0.4, 1.0, 0.8])
    options = {"method": method, "tol": 1e-5 if method == "cvxpy" else 1e-8}
    found = mixsolve.solve(losses, alpha, constraints=constraints, **options)
    assert found.success
    assert abs(found.weights[1] - 0.2) <= 1e-8
    point = LinearConstraints(A_eq=np.eye(3), b_eq=fixed)
    held = mixsolve.solve(losses, alpha, constraints=point, **options)
    assert held.success
    np.testing.assert_allclose(held.weights, fixed, atol=1e-8)
    by_hand = exact_risk(losses, fixed) if alpha == 0 else entropic_risk(losses, fixed, alpha)
    assert held.value == pytest.approx(by_hand, rel=1e-7)
    assert held.lower_bound == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("method", EXACT)
def test_one_classifier(method):
    game = np.random.default_rng(0).random((6, 3, 1))
    found = mixsolve.solve(game, method=method, constraints=weight_bounds(1, 0.5), tol=1e-7)
    assert found.success
    assert found.weights.tolist() == [1.0]


def test_a_budget_that_only_the_cheapest_meet(losses):
    cost = [1.0, 1.0, 2.0]
    found = mixsolve.solve(losses, constraints=expected_cost(cost, 1.0), tol=1e-8)
    alone = mixsolve.solve(losses[:, :, :2], tol=1e-8)
    assert found.weights[2] == 0.0
    np.testing.assert_allclose(found.weights[:2], alone.weights, atol=1e-7)
    assert found.success
    assert found.lower_bound == pytest.approx(alone.lower_bound, abs=1e-7)


def test_starts_outside_and_the_path(losses):
    constraints = weight_bounds(3, 0.0, [0.1, 1.0, 1.0])
    cold = mixsolve.solve(losses, 0.2, constraints=constraints, tol=1e-8)
    free = mixsolve.solve(losses, 0.2)
    for start in ([1.0, 0.0, 0.0], free, cold):
        warm = mixsolve.solve(losses, 0.2, constraints=constraints, warm_start=start, tol=1e-8)
        np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-6)
        exact = mixsolve.solve(losses, constraints=constraints, warm_start=start, tol=1e-8)
        assert exact.success
        whole = {"method": "interior-point", "warm_start": start, "tol": 1e-8}
        again = mixsolve.solve(losses, constraints=constraints, **whole)
        assert abs(again.value - exact.value) <= 2e-8 * exact.spread
    path = mixsolve.solve_path(losses, [0.0, 0.2, 1.0], constraints=constraints, tol=1e-8)
    assert abs(path[1].value - cold.value) <= 2e-8 * cold.spread
    assert all(solution.weights[0] <= 0.1 + 1e-9 for solution in path)


def test_every_other_option_with_constraints(rng):
    losses = rng.random((30, 5, 4))
    mask = rng.random((30, 5)) < 0.6
    mask[:, 3] = True
    weight, prior = rng.random(30), rng.random((30, 5)) + 0.1
    constraints = group_weight(4, [0, 3], upper=0.3)
    worst = np.where(mask[:, :, None], losses, losses.min() - 10.0)
    found = mixsolve.solve(
        losses, constraints=constraints, candidate_mask=mask, sample_weight=weight, tol=1e-8
    )
    assert found.value == pytest.approx(linear_program(worst, constraints, weight), abs=1e-7)
    options = {"candidate_mask": mask, "sample_weight": weight, "candidate_prior": prior}
    smooth = mixsolve.solve(losses, 0.1, constraints=constraints, tol=1e-8, **options)
    assert smooth.success
    check_feasible(constraints, smooth.weights)
    ragged = [table[keep] for table, keep in zip(losses, mask, strict=True)]
    again = mixsolve.solve(ragged, constraints=constraints, sample_weight=weight, tol=1e-8)
    assert again.value == pytest.approx(found.value, abs=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_other_engines(alpha, rng):
    losses = rng.random((40, 5, 4))
    constraints = expected_cost([1.0, 2.0, 3.0, 4.0], 1.9)
    here = mixsolve.solve(losses, alpha, constraints=constraints, tol=1e-8)
    shards = ShardedLosses(losses, [7, 7, 30])
    there = mixsolve.solve(shards, alpha, constraints=constraints, tol=1e-8)
    np.testing.assert_allclose(there.weights, here.weights, atol=1e-7)
    torch = pytest.importorskip("torch")
    from mixsolve_torch import TorchLosses

    tensor = torch.from_numpy(losses)
    for given in (tensor, TorchLosses(tensor, chunk=1000)):
        found = mixsolve.solve(given, alpha, constraints=constraints, tol=1e-8)
        assert isinstance(found.weights, torch.Tensor)
        np.testing.assert_allclose(found.weights.numpy(), here.weights, atol=1e-7)
        costs = found.reduced_costs(tensor, A_ub=constraints.A_ub)
        assert costs.min() == pytest.approx(0.0, abs=1e-7)


def test_limits_and_callbacks_return_feasible_weights():
    losses = games.paper2d(120, 40, 6, seed=2).losses
    constraints = weight_bounds(6, 0.05)
    with pytest.warns(ConvergenceWarning):
        rough = mixsolve.solve(losses, 0.001, method="apg", max_iter=2, constraints=constraints)
    assert rough.status == "max_iter"
    check_feasible(constraints, rough.weights)
    assert rough.lower_bound <= rough.value
    with pytest.warns(ConvergenceWarning):
        late = mixsolve.solve(losses, time_limit=1e-9, constraints=constraints)
    assert late.status == "time_limit"
    check_feasible(constraints, late.weights)
    seen = []
    with pytest.warns(ConvergenceWarning):
        mixsolve.solve(
            losses,
            method="oracle",
            constraints=constraints,
            callback=lambda state: seen.append(state.weights) or len(seen) == 3,
        )
    for weights in seen:
        check_feasible(constraints, weights)


def test_highs_takes_over_under_constraints(losses, monkeypatch):
    from dataclasses import replace

    from mixsolve.small_game import solve as small

    real = small.solve_interior_point

    def giving_up(rows, offsets, weight, cuts=None, **options):
        found = real(rows, offsets, weight, cuts, **options)
        lead = np.zeros(len(rows))
        lead[offsets[:-1]] = weight
        return replace(found, weights=cuts.centre, dual=lead, converged=False, path=())

    monkeypatch.setattr(small, "solve_interior_point", giving_up)
    constraints = LinearConstraints([[1.0, 2.0, 4.0]], [1.4], [[0.0, 0.0, 1.0]], [0.1])
    found = mixsolve.solve(losses, constraints=constraints)
    assert constraints.A_ub @ found.weights == pytest.approx(1.4)
    assert "HiGHS" in found.message
    assert found.success
    assert found.value == pytest.approx(linear_program(losses, constraints), abs=1e-6)


def test_functions_are_solved_on_small_models(monkeypatch):
    """cvxpy sees the weights and the rows of small games, never the whole tensor."""
    losses = games.gamma_game(400, 25, 5, seed=1).losses
    corner, largest = np.eye(5)[0], []
    real = cp.Problem.get_problem_data

    def counting(problem, *args, **options):
        data = real(problem, *args, **options)
        largest.append(data[0]["A"].shape[0])
        return data

    monkeypatch.setattr(cp.Problem, "get_problem_data", counting)
    for alpha in (0.0, 0.1):
        found = mixsolve.solve(losses, alpha, constraints=lambda w: [cp.norm(w - corner) <= 0.5])
        assert found.success
        assert np.linalg.norm(found.weights - corner) == pytest.approx(0.5, abs=1e-7)
        assert found.prices is None
    assert largest
    assert max(largest) < 0.25 * losses.shape[0] * losses.shape[1]


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_functions_against_a_model_written_out(losses, alpha):
    N, m, L = losses.shape
    rules = {
        "norm": lambda w: [cp.norm(w - np.array([1.0, 0.0, 0.0])) <= 0.7],
        "entropy": lambda w: [cp.sum(cp.entr(w)) >= 1.0],
        "together": lambda w: [cp.sum_squares(w) <= 0.4, w[0] == 0.5],
    }
    for constraints in rules.values():
        weights, soft = cp.Variable(L, nonneg=True), cp.Variable(N)
        scores = [losses[i] @ weights for i in range(N)]
        if alpha == 0.0:
            epigraph = [cp.max(scores[i]) <= soft[i] for i in range(N)]
        else:
            epigraph = [
                alpha * (cp.log_sum_exp(scores[i] / alpha) - np.log(m)) <= soft[i] for i in range(N)
            ]
        given = [cp.sum(weights) == 1, *constraints(weights), *epigraph]
        optimum = cp.Problem(cp.Minimize(cp.sum(soft) / N), given).solve(solver="CLARABEL")
        found = mixsolve.solve(losses, alpha, constraints=constraints)
        assert found.success
        assert abs(found.value - optimum) <= 1e-5
        assert found.lower_bound <= optimum + 1e-6


class TestInfeasible:
    CLASH = expected_cost([1.0, 2.0, 3.0], 1.2) & weight_bounds(3, [0.1, 0.0, 0.4])

    @pytest.mark.parametrize("method", ["auto", "cvxpy"])
    @pytest.mark.parametrize("alpha", [0.0, 0.3])
    def test_status_and_certificate(self, losses, alpha, method):
        with pytest.warns(ConvergenceWarning, match="clash"):
            found = mixsolve.solve(losses, alpha, method=method, constraints=self.CLASH)
        assert found.status is mixsolve.Status.INFEASIBLE
        assert not found.success
        assert np.isnan(found.weights).all()
        assert found.value == found.lower_bound == np.inf
        assert found.infeasibility.clash == ("expected cost <= 1.2", "weights[2] >= 0.4")
        with pytest.raises(MixsolveError, match="expected cost"):
            found.raise_for_status()
        with pytest.raises(MixsolveError, match="nothing was solved"):
            found.reduced_costs(losses)
        with pytest.raises(MixsolveError, match="nothing was solved"):
            found.sensitivity()

    def test_parts_are_told_apart(self, losses):
        parts = [{"A_ub": [1, 0, 0], "b_ub": 0.2}, {"A_ub": [[-1, 0, 0]], "b_ub": -0.3}]
        with pytest.warns(ConvergenceWarning):
            found = mixsolve.solve(losses, constraints=parts)
        assert found.infeasibility.clash == ("constraints[0].A_ub[0]", "constraints[1].A_ub[0]")

    def test_alone(self, losses):
        with pytest.warns(ConvergenceWarning, match="alone cannot be met"):
            mixsolve.solve(losses, constraints=weight_bounds(3, [0.0, 1.5, 0.0]))

    def test_a_path_says_so_for_each(self, losses):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            path = mixsolve.solve_path(losses, [0.0], constraints=self.CLASH)
        assert path[0].status == "infeasible"


class TestReading:
    def test_all_ways_to_say_the_same(self, losses):
        A, b = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.array([0.3, -0.4])
        expected = mixsolve.solve(losses, A_ub=A, b_ub=b)
        for constraints in (
            LinearConstraints(A, b),
            {"A_ub": A, "b_ub": b},
            LinearConstraint(A, ub=b),
            LinearConstraint(csr_array(-A), lb=-b),
            Bounds([0.0, 0.4, 0.0], [0.3, 1.0, np.inf]),
            [Bounds(0.0, [0.3, 1.0, 1.0]), weight_bounds(3, [0.0, 0.4, 0.0])],
            lambda w: [w[0] <= 0.3, w[1] >= 0.4],
        ):
            found = mixsolve.solve(losses, constraints=constraints)
            np.testing.assert_allclose(found.weights, expected.weights, atol=1e-6)
        tight = mixsolve.solve(losses, constraints=LinearConstraint([[1, 0, 0]], 0.3, 0.3))
        assert tight.constraints.b_eq.tolist() == [0.3]
        assert tight.weights[0] == pytest.approx(0.3, abs=1e-9)
        both = mixsolve.solve(losses, constraints=LinearConstraints(A, b), A_eq=[0, 0, 1], b_eq=0.1)
        assert both.weights[2] == pytest.approx(0.1, abs=1e-9)
        assert mixsolve.solve(losses, constraints=Bounds(0.3, 0.4)).weights.min() >= 0.3 - 1e-9

    def test_the_usual_constraints(self, rng):
        clean = rng.integers(0, 2, (20, 3))
        risk = standard_risk(clean, 0.4)
        np.testing.assert_allclose(risk.A_ub, clean.mean(axis=0)[None])
        weight = rng.random(20)
        weighted = standard_risk(clean, 0.4, weight)
        np.testing.assert_allclose(weighted.A_ub[0], weight @ clean / weight.sum())
        group = group_weight(4, [0, 2], 0.1, 0.6)
        assert group.A_ub.tolist() == [[-1, 0, -1, 0], [1, 0, 1, 0]]
        assert group.b_ub.tolist() == [-0.1, 0.6]
        assert group.labels_ub == ("weight of [0, 2] >= 0.1", "weight of [0, 2] <= 0.6")
        together = group & expected_cost([1, 2, 3, 4], 2)
        assert together.A_ub.shape == (3, 4)
        assert together.violation([0.0, 0.0, 0.0, 1.0]) == pytest.approx(2.0)
        assert together.violation([0.5, 0.5, 0.0, 0.0]) == 0.0
        assert weight_bounds(3).A_ub.shape == (0, 3)
        assert weight_bounds(2, -np.inf, np.inf).A_ub.shape == (0, 2)
        given = np.eye(2)
        kept = LinearConstraints(given, [1.0, 1.0], given, [0.5, 0.5])
        given[:] = 7.0
        assert kept.A_ub.max() == kept.A_eq.max() == 1.0

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: LinearConstraints(), "neither"),
            (lambda: LinearConstraints([[1.0]]), "b_ub"),
            (lambda: LinearConstraints(b_eq=[1.0]), "A_eq"),
            (lambda: LinearConstraints([[1.0, 2.0]], [1.0, 2.0]), "shapes"),
            (lambda: LinearConstraints([[1.0, 2.0]], [1.0], [[1.0]], [1.0]), "2 and 1"),
            (lambda: LinearConstraints([[np.nan, 2.0]], [1.0]), "finite"),
            (lambda: LinearConstraints([[1.0, 2.0]], [-np.inf]), "finite"),
            (lambda: LinearConstraints(A_eq=[[1.0, 2.0]], b_eq=[np.inf]), "finite"),
            (lambda: LinearConstraints([[1.0]], [1.0], labels_ub=["a", "b"]), "labels_ub"),
            (lambda: weight_bounds(2) & weight_bounds(3), "put together"),
            (lambda: weight_bounds(0), "n_classifiers"),
            (lambda: weight_bounds(3, [0.1, 0.2]), "lower"),
            (lambda: weight_bounds(3, 0.0, np.nan), "upper"),
            (lambda: expected_cost([[1.0, 2.0]], 1.0), "cost"),
            (lambda: expected_cost([1.0, 2.0], np.nan), "budget"),
            (lambda: standard_risk([0.1, 0.2], 0.1), "clean_losses"),
            (lambda: standard_risk([[0.1, 0.2]], 0.1, [1.0, 1.0]), "sample_weight"),
            (lambda: group_weight(3, [0, 3]), "members"),
            (lambda: group_weight(3, [-1]), "members"),
            (lambda: group_weight(3, [0], np.inf), "lower"),
            (lambda: mixsolve.solve([[[1.0, 2.0]]], constraints=3), "LinearConstraints"),
            (lambda: mixsolve.solve([[[1.0]]], constraints={"A": 1, "b": 2}), "dict"),
            (lambda: mixsolve.solve([[[1.0, 2.0]]], A_ub=[[1.0]], b_ub=[1.0]), "2 in all"),
            (
                lambda: mixsolve.solve(
                    [[[1.0, 2.0]]], A_ub=[[1.0, 1.0]], b_ub=1, constraints=lambda w: []
                ),
                "function",
            ),
        ],
    )
    def test_what_is_refused(self, make, words):
        with pytest.raises(MixsolveError, match=words):
            make()

    @pytest.mark.parametrize(
        ("constraints", "words"),
        [
            (NonlinearConstraint(lambda w: w @ w, 0.0, 0.5), "NonlinearConstraint.*cvxpy"),
            ({"type": "ineq", "fun": lambda w: w[0] - 0.5}, "dict.*cvxpy"),
            ([Bounds(0.0, 0.4), NonlinearConstraint(np.sum, 0, 1)], r"constraints\[1\]"),
            (SimpleNamespace(lb=0.0, ub=0.4), "SimpleNamespace"),
            (SimpleNamespace(A=np.eye(3), lb=0.0, ub=0.4), "SimpleNamespace"),
            (cp.Variable(3) <= 0.4, "function of the weights"),
            ([lambda w: [w <= 0.4]], "one function"),
        ],
    )
    def test_only_what_is_understood_is_taken(self, losses, constraints, words):
        with pytest.raises(MixsolveTypeError, match=words):
            mixsolve.solve(losses, constraints=constraints)

    def test_functions_must_constrain_the_weights(self, losses):
        other = cp.Variable(3)
        with pytest.raises(MixsolveError, match="other variables only"):
            mixsolve.solve(losses, constraints=lambda w: [other <= 0.4])
        found = mixsolve.solve(losses, constraints=lambda w: [w <= other, other <= 0.4])
        assert found.weights.max() == pytest.approx(0.4, abs=1e-6)

    def test_what_scipy_adds_to_constraints(self, losses):
        class Own(LinearConstraint):
            """A class derived from it means the same."""

        expected = mixsolve.solve(losses, A_ub=[[1, 0, 0]], b_ub=[0.1])
        for constraints in (
            Own([[1, 0, 0]], 0.0, 0.1),
            LinearConstraint([[1, 0, 0]], -np.inf, 0.1, keep_feasible=True),
            Bounds(0.0, [0.1, 1.0, 1.0], keep_feasible=True),
        ):
            found = mixsolve.solve(losses, constraints=constraints)
            np.testing.assert_allclose(found.weights, expected.weights, atol=1e-8)

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: LinearConstraint([[1, 0, np.nan]], 0, 1), r"constraints\.A .*nan.*A\[0, 2\]"),
            (lambda: LinearConstraint([[1, 0, 0]], np.nan, 1), r"constraints\.lb .*nan"),
            (lambda: LinearConstraint([[1, 0, 0]], 0, -np.inf), r"constraints\.ub .*-inf"),
            (lambda: [Bounds(np.nan, 1)], r"constraints\[0\]\.lb .*nan"),
        ],
    )
    def test_scipys_own_fields_are_named(self, losses, make, words):
        with pytest.raises(MixsolveError, match=words):
            mixsolve.solve(losses, constraints=make())

    def test_clashing_rows_of_scipy_are_named(self, losses):
        low, high = LinearConstraint([[1, 0, 0]], 0.3, 0.5), LinearConstraint([[1, 0, 0]], 0, 0.1)
        with pytest.warns(ConvergenceWarning, match=r"constraints\[0\]\.A\[0\] >= 0\.3 and"):
            mixsolve.solve(losses, constraints=[low, high])

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (lambda: weight_bounds(3, True, 1.0), "lower"),
            (lambda: weight_bounds(3, 0.0, [True, 0.5, 1.0]), "upper"),
            (lambda: expected_cost([True, False, True], 1.0), "cost"),
            (lambda: expected_cost([1.0, 2.0], True), "budget"),
            (lambda: LinearConstraints([[1.0, 0.0]], [True]), "b_ub"),
            (lambda: LinearConstraints(A_eq=[[1.0, 0.0]], b_eq=True), "b_eq"),
            (lambda: mixsolve.solve([[[1.0, 2.0]]], constraints=Bounds(False, True)), "lb"),
            (lambda: group_weight(3, [True], 0.1), "members"),
            (lambda: standard_risk([[0.1, 0.2]], True), "limit"),
        ],
    )
    def test_booleans_are_no_bounds(self, make, name):
        with pytest.raises(MixsolveTypeError, match=name):
            make()

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: expected_cost([1.0, np.nan], 1.0), r"^cost must .*nan.*cost\[1\]"),
            (lambda: standard_risk([[0.1, np.inf]], 0.1), r"^clean_losses .*inf.*\[0, 1\]"),
            (lambda: standard_risk([[0.1], [0.2]], 0.1, [1, -1]), r"^sample_weight .*-1.*\[1\]"),
            (lambda: standard_risk([[0.1]], 0.1, [0.0]), "^sample_weight .*zeros"),
            (
                lambda: LinearConstraints([[1, 2], [3, np.nan]], [1, 1]),
                r"^A_ub .*nan.*A_ub\[1, 1\]",
            ),
            (lambda: LinearConstraints([[1, 2]], [np.nan]), r"^b_ub .*nan.*b_ub\[0\]"),
        ],
    )
    def test_the_argument_that_is_wrong_is_named(self, make, words):
        with pytest.raises(MixsolveError, match=words):
            make()

    def test_weights_of_any_size_are_averaged(self):
        risk = standard_risk([[0.0, 1.0], [1.0, 1.0]], 0.5, [1e308, 1e308])
        np.testing.assert_allclose(risk.A_ub, [[0.5, 1.0]])

    def test_a_wrong_type_is_a_type_error(self):
        with pytest.raises(MixsolveTypeError):
            mixsolve.solve([[[1.0, 2.0]]], constraints="weights <= 0.5")
        assert weight_bounds(2).__and__(3) is NotImplemented


class TestCommandLine:
    @pytest.fixture
    def path(self, tmp_path, losses):
        np.save(tmp_path / "losses.npy", losses)
        return tmp_path / "losses.npy"

    def test_constraints_in_a_file(self, capsys, path, losses, tmp_path):
        np.savez(tmp_path / "limits.npz", A_ub=[[1.0, 2.0, 4.0]], b_ub=[1.5])
        arguments = ["solve", str(path), "--constraints", str(tmp_path / "limits.npz")]
        assert main([*arguments, "--json"]) == 0
        fields = json.loads(capsys.readouterr().out)
        expected = mixsolve.solve(losses, A_ub=[[1.0, 2.0, 4.0]], b_ub=[1.5])
        assert fields["weights"] == expected.weights.tolist()
        assert fields["price_ub"] == expected.prices.upper.tolist()
        assert main(arguments) == 0
        assert "A_ub[0]: " in capsys.readouterr().out

    def test_a_clash_is_said(self, capsys, path, tmp_path):
        A = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
        np.savez(tmp_path / "limits.npz", A_ub=A, b_ub=[0.2, -0.3])
        arguments = ["solve", str(path), "--constraints", str(tmp_path / "limits.npz")]
        assert main([*arguments, "--json", "--out", str(tmp_path / "out.npz")]) == 1
        fields = json.loads(capsys.readouterr().out)
        assert fields["status"] == "infeasible"
        assert fields["clash"] == ["A_ub[0]", "A_ub[1]"]
        assert fields["value"] is None
        assert main(arguments) == 1
        assert "A_ub[0] and A_ub[1] clash" in " ".join(capsys.readouterr().out.split())

    def test_a_file_without_constraints(self, capsys, path):
        assert main(["solve", str(path), "--constraints", str(path)]) == 2
        assert "A_ub" in capsys.readouterr().err
