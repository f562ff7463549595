"""Every method against cvxpy, on random and degenerate games, and against its own certificate."""

import numpy as np
import pytest
from corpus import entropic_game, exact_game, magnitude_of, seeds, spread_of
from reference import as_rows, check_certificate, entropic_risk, exact_risk, normalized
from scipy.optimize import linprog

import mixsolve
from mixsolve import ConvergenceWarning, MixsolveError, Status, games
from mixsolve.games import bounds

EXACT = ["lp", "oracle", "cvxpy"]
ENTROPIC = ["newton", "apg", "cvxpy"]


CORPUS = seeds(range(200), quick=50)  # the first two of each of 25 kinds


def assert_agree(first, second, losses, options):
    """Each value is at most its gap above the optimum, and no bound is above it."""
    digits = 1e-11 * spread_of(losses, options) + 1e-13 * magnitude_of(losses, options)
    assert first.value - second.value <= first.gap + digits
    assert second.value - first.value <= second.gap + digits
    assert first.lower_bound <= second.value + digits
    assert second.lower_bound <= first.value + digits


def linear_program(losses, options):
    """The optimal exact risk, by SciPy on the problem as written; no code of the package."""
    rows, _ = as_rows(losses, options.get("candidate_mask"))
    N, L = len(rows), rows[0].shape[1]
    shift = np.array([table.min() for table in rows])
    scale = max((table - s).max() for table, s in zip(rows, shift, strict=True)) or 1.0
    weight = normalized(options.get("sample_weight"), N)
    table = np.concatenate([(t - s) / scale for t, s in zip(rows, shift, strict=True)])
    owner = -np.eye(N)[np.repeat(np.arange(N), [len(t) for t in rows])]
    found = linprog(
        np.concatenate([np.zeros(L), weight]),
        A_ub=np.hstack([table, owner]),
        b_ub=np.zeros(len(table)),
        A_eq=np.concatenate([np.ones(L), np.zeros(N)])[None],
        b_eq=[1.0],
        bounds=[(0, None)] * L + [(None, None)] * N,
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert found.success
    return scale * found.fun + weight @ shift


@pytest.mark.parametrize("seed", CORPUS)
def test_exact_methods_agree(seed):
    losses, options = exact_game(seed)
    M, digits = spread_of(losses, options), 1e-13 * magnitude_of(losses, options)
    reference = mixsolve.solve(losses, method="cvxpy", **options)
    check_certificate(reference, losses, **options)
    optimum = linear_program(losses, options)
    assert abs(reference.value - optimum) <= 1e-6 * M + digits

    exact = mixsolve.solve(losses, method="lp", tol=1e-9, **options)
    check_certificate(exact, losses, **options)
    assert_agree(exact, reference, losses, options)
    assert abs(exact.value - optimum) <= 2e-9 * M + digits
    for other in ({"method": "lp", "presolve": False}, {"method": "interior-point"}):
        again = mixsolve.solve(losses, tol=1e-9, **other, **options)
        check_certificate(again, losses, **options)
        assert_agree(again, exact, losses, options)


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
@pytest.mark.parametrize("seed", CORPUS)
def test_algorithm_1_keeps_its_promise(seed):
    losses, options = exact_game(seed)
    M = spread_of(losses, options)
    found = mixsolve.solve(losses, method="oracle", max_iter=64, **options)
    check_certificate(found, losses, **options)
    optimum = linear_program(losses, options)
    digits = 1e-9 * M + 1e-13 * magnitude_of(losses, options)
    assert found.lower_bound <= optimum + digits
    assert optimum <= found.value + digits
    if M > 0:
        promise = bounds.subgradient_bound(64, len(found.weights), M)
        assert found.value - optimum <= promise + digits
    assert found.status in (Status.OPTIMAL, Status.MAX_ITER)


@pytest.mark.parametrize("seed", CORPUS)
def test_entropic_methods_agree(seed):
    losses, alpha, options = entropic_game(seed)
    digits = 1e-13 * magnitude_of(losses, options)
    # What an interior point method on exponential cones certifies on every one of these games.
    reference = mixsolve.solve(losses, alpha, method="cvxpy", tol=1e-4, **options)
    check_certificate(reference, losses, alpha, **options)
    for method in ("newton", "apg"):
        found = mixsolve.solve(losses, alpha, method=method, **options)
        check_certificate(found, losses, alpha, **options)
        assert_agree(found, reference, losses, options)
        assert found.gap <= 1e-6 * spread_of(losses, options) + digits


@pytest.mark.parametrize("seed", seeds(range(0, 200, 5), quick=10))
def test_newton_solves_small_alpha(seed):
    """Where first-order methods need thousands of iterations."""
    losses, alpha, options = entropic_game(seed)
    alpha = 0.01 * alpha
    found = mixsolve.solve(losses, alpha, method="newton", **options)
    check_certificate(found, losses, alpha, **options)
    exact = {key: value for key, value in options.items() if key != "candidate_prior"}
    digits = 1e-9 * spread_of(losses, options) + 1e-13 * magnitude_of(losses, options)
    optimum = linear_program(losses, exact)
    assert found.lower_bound <= optimum + digits
    assert optimum <= found.risk + digits


@pytest.mark.parametrize("presolve", [True, False])
@pytest.mark.parametrize("alpha", [0.1, 0.01, 0.001])
def test_newton_where_equal_classifiers_make_the_hessian_singular(alpha, presolve):
    losses = np.array(
        [
            [[0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 1, 0, 0]],
            [[0, 1, 0, 0, 0, 0, 1, 0], [1, 0, 1, 0, 0, 1, 0, 1]],
        ],
        np.uint8,
    )
    found = mixsolve.solve(losses, alpha, method="newton", presolve=presolve)
    check_certificate(found, losses, alpha)
    reference = mixsolve.solve(losses, alpha, method="cvxpy", tol=1e-4)
    assert_agree(found, reference, losses, {})


@pytest.mark.parametrize("seed", [8129290, 7423690, 3214140, 4656640])
def test_newton_where_all_losses_share_a_large_constant(seed):
    """What the losses have in common moves no weight, and must not drown the certificate."""
    losses, alpha, _ = entropic_game(seed)
    assert losses.min() > 1e3 * np.ptp(losses)
    for factor in (0.01, 0.001):
        found = mixsolve.solve(losses, factor * alpha, method="newton")
        check_certificate(found, losses, factor * alpha)
        assert found.success


@pytest.mark.parametrize("method", ["lp", "interior-point", "cvxpy"])
@pytest.mark.parametrize("presolve", [True, False])
def test_the_line_game(method, presolve):
    game = games.line_game()
    solution = mixsolve.solve(
        game.losses, sample_weight=game.sample_weight, method=method, presolve=presolve, tol=1e-9
    )
    assert solution.success
    assert solution.value == pytest.approx(0.75, abs=1e-9)
    assert solution.risk == pytest.approx(0.75, abs=1e-9)
    assert solution.lower_bound == pytest.approx(0.75, abs=1e-9)
    np.testing.assert_allclose(solution.weights, [0.5, 0.5], atol=1e-8)
    np.testing.assert_allclose(solution.attack.dense()[0], [0.5, 0.0, 0.5], atol=1e-8)
    check_certificate(solution, game.losses, sample_weight=game.sample_weight)
    for k in range(2):
        alone = mixsolve.solve(game.losses[..., [k]], sample_weight=game.sample_weight)
        assert alone.value == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("method", ["newton", "apg", "cvxpy"])
@pytest.mark.parametrize("alpha", [1.0, 0.1, 0.02])
def test_the_line_game_smoothed(method, alpha):
    """By symmetry lam = (1/2, 1/2), where eq. (7) can be written out."""
    game = games.line_game()
    solution = mixsolve.solve(
        game.losses,
        alpha,
        sample_weight=game.sample_weight,
        method=method,
        tol=1e-4 if method == "cvxpy" else 1e-9,
    )
    # Scores at (1/2, 1/2): the middle point 1/2, 0, 1/2; the others 1, 1/2, 1/2 in some order.
    middle = alpha * np.log((2 * np.exp(0.5 / alpha) + 1) / 3)
    side = alpha * np.log((np.exp(1.0 / alpha) + 2 * np.exp(0.5 / alpha)) / 3)
    by_hand = 0.5 * middle + 0.5 * side
    assert solution.value == pytest.approx(by_hand, abs=2 * solution.tolerance)
    np.testing.assert_allclose(solution.weights, [0.5, 0.5], atol=1e-2)


@pytest.mark.parametrize("method", ["lp", "interior-point", "cvxpy"])
def test_rock_paper_scissors(method):
    game = games.rock_paper_scissors()
    solution = mixsolve.solve(game.losses, method=method)
    np.testing.assert_allclose(solution.weights, game.weights, atol=1e-8)
    np.testing.assert_allclose(solution.attack.dense()[0], 1.0 / 3.0, atol=1e-8)
    assert solution.value == pytest.approx(0.0, abs=1e-8)


def test_a_saddle_point_in_pure_strategies():
    """Row 1, column 2: the largest of its column and the smallest of its row."""
    matrix = np.array([[4.0, 7.0, 1.0], [5.0, 6.0, 3.0], [9.0, 0.0, 2.0]])
    solution = mixsolve.solve(matrix[None])
    assert solution.value == pytest.approx(3.0, abs=1e-9)
    np.testing.assert_allclose(solution.weights, [0.0, 0.0, 1.0], atol=1e-9)
    candidates, probabilities = solution.attack[0]
    assert candidates.tolist() == [1]
    assert probabilities.tolist() == [1.0]


def test_a_game_of_the_papers_plane():
    game = games.paper2d(100, 80, 6, seed=4)
    solution = mixsolve.solve(game.losses)
    check_certificate(solution, game.losses)
    assert solution.success
    assert abs(solution.value - linear_program(game.losses, {})) <= 1e-8
    alone = game.losses.max(axis=1).mean(axis=0)
    assert solution.value < alone.min()


@pytest.mark.parametrize("presolve", [True, False])
def test_a_game_of_many_candidates(presolve):
    losses = games.gamma_game(100, 40, 8, seed=1).losses
    solution = mixsolve.solve(losses, tol=1e-9, presolve=presolve)
    check_certificate(solution, losses)
    assert solution.success
    assert abs(solution.value - linear_program(losses, {})) <= 1e-8 * solution.spread


@pytest.mark.parametrize("factor", [1e2, 1e6, 1e10, 1e14])
@pytest.mark.parametrize("method", ["newton", "apg"])
def test_a_very_large_alpha_averages(losses, method, factor):
    """F tends to the risk under the base measure: 0 <= F(lam) - mean(lam) <= M^2 / (8 alpha)."""
    M = np.ptp(losses)
    solution = mixsolve.solve(losses, factor * M, method=method)
    average = losses.mean(axis=(0, 1)).min()
    assert solution.success
    assert -1e-9 * M <= solution.value - average <= M / (8 * factor) + 1e-6 * M
    recomputed = losses.mean(axis=1) @ solution.weights
    assert -1e-9 * M <= solution.value - recomputed.mean() <= M / (8 * factor) + 1e-9 * M


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
@pytest.mark.parametrize("factor", [1e-4, 1e-8, 1e-12])
def test_a_very_small_alpha_is_the_exact_problem(losses, factor):
    M = np.ptp(losses)
    solution = mixsolve.solve(losses, factor * M, max_iter=200)
    check_certificate(solution, losses, factor * M)
    assert np.isfinite(solution.gap)
    assert solution.risk - solution.value <= factor * M * np.log(losses.shape[1]) + 1e-12


def test_sample_weights_and_regularisation_in_one_formula(losses, rng):
    """The value, term by term, in a game that uses every option at once."""
    alpha = rng.uniform(0.2, 1.0, 12)
    sample_weight = rng.random(12)
    mask = rng.random((12, 6)) < 0.7
    mask[:, 2] = True
    prior = rng.random((12, 6)) + 0.1
    game = {"sample_weight": sample_weight, "candidate_mask": mask, "candidate_prior": prior}
    solution = mixsolve.solve(losses, alpha, **game)
    total = 0.0
    for i in range(12):
        p = np.where(mask[i], prior[i], 0.0)
        terms = p / p.sum() * np.exp(losses[i] @ solution.weights / alpha[i])
        total += sample_weight[i] / sample_weight.sum() * alpha[i] * np.log(terms.sum())
    assert solution.value == pytest.approx(total, rel=1e-12)
    assert solution.value == pytest.approx(
        entropic_risk(losses, solution.weights, alpha, **game), rel=1e-12
    )
    np.testing.assert_array_equal(solution.alpha, alpha)


@pytest.mark.parametrize("method", ENTROPIC)
def test_no_mixture_of_a_grid_beats_the_entropic_optimum(losses, method):
    alpha = 0.2
    solution = mixsolve.solve(losses, alpha, method=method)
    grid = np.random.default_rng(0).dirichlet(np.ones(3), 100)
    assert min(entropic_risk(losses, lam, alpha) for lam in grid) >= solution.lower_bound
    risks = [exact_risk(losses, lam) for lam in grid]
    assert min(risks) >= solution.risk_lower_bound
    assert min(risks) >= mixsolve.solve(losses).lower_bound


class TestAttack:
    @pytest.fixture(params=[0.0, 0.3])
    def solution(self, losses, request):
        return mixsolve.solve(losses, request.param)

    def test_layout(self, solution, losses):
        attack = solution.attack
        N, m, _ = losses.shape
        assert attack.indptr.shape == (N + 1,)
        assert attack.indptr[0] == 0
        assert attack.indptr[-1] == len(attack.candidates) == len(attack.probabilities)
        assert len(attack) == N
        dense = attack.dense()
        assert dense.shape == (N, m)
        np.testing.assert_allclose(dense.sum(axis=1), 1.0, atol=1e-12)
        for i, (candidates, probabilities) in enumerate(attack):
            assert np.array_equal(dense[i, candidates], probabilities)
            assert np.count_nonzero(dense[i]) == len(candidates)
            for same in (attack[i], attack[i - N]):
                assert np.array_equal(same[0], candidates)
        for wrong in (N, -N - 1):
            with pytest.raises(IndexError):
                attack[wrong]

    def test_it_plays_best_responses_or_gibbs(self, solution, losses):
        scores = losses @ solution.weights
        if solution.alpha == 0.0:
            for i, (candidates, _) in enumerate(solution.attack):
                assert (scores[i].max() - scores[i, candidates] <= 1e-4).all()
        else:
            gibbs = np.exp(scores / solution.alpha)
            gibbs /= gibbs.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(solution.attack.dense(), gibbs, atol=1e-9)

    def test_draws_have_its_frequencies(self, solution):
        dense = solution.attack.dense()
        rng = np.random.default_rng(3)
        n_draws = 4000
        counts = np.zeros_like(dense)
        for _ in range(n_draws):
            counts[np.arange(len(dense)), solution.attack.sample(rng)] += 1
        deviation = np.abs(counts / n_draws - dense)
        assert (deviation <= 5.0 * np.sqrt(dense * (1 - dense) / n_draws) + 1e-12).all()

    def test_draws_of_two_samples_are_independent(self):
        attack = mixsolve.MixedStrategy(
            np.array([0, 2, 4]), np.array([0, 1, 3, 5]), np.full(4, 0.5), n_candidates=6
        )
        rng = np.random.default_rng(0)
        draws = np.array([attack.sample(rng) for _ in range(4000)])
        assert set(draws[:, 0]) == {0, 1}
        assert set(draws[:, 1]) == {3, 5}
        assert abs(np.mean((draws[:, 0] == 0) == (draws[:, 1] == 3)) - 0.5) < 0.05

    def test_draws_have_a_seed(self, solution):
        drawn = solution.attack.sample(7)
        assert np.array_equal(drawn, solution.attack.sample(np.random.default_rng(7)))
        assert drawn.shape == (len(solution.attack),)

    def test_candidates_are_those_of_the_tensor_given(self):
        """Behind masks, duplicates and presolve, an index means the caller's candidate."""
        game = games.integer_game(30, 12, 4, seed=5)
        mask = np.random.default_rng(0).random((30, 12)) < 0.5
        mask[:, 7] = True
        for alpha in (0.0, 0.05):
            solution = mixsolve.solve(game.losses, alpha, candidate_mask=mask)
            assert (solution.attack.dense()[~mask] == 0.0).all()
            check_certificate(solution, game.losses, alpha, candidate_mask=mask)


HARD = games.paper2d(120, 40, 6, seed=2).losses
UNFINISHED = [(0.0, "oracle"), (1e-3, "apg"), (0.1, "newton")]


class TestLimits:
    @pytest.mark.parametrize(("alpha", "method"), UNFINISHED)
    def test_max_iter(self, alpha, method):
        with pytest.warns(ConvergenceWarning, match="limit of 2 iterations"):
            solution = mixsolve.solve(HARD, alpha, method=method, max_iter=2, tol=1e-9)
        assert solution.status is Status.MAX_ITER
        assert not solution.success
        assert solution.nit == 2
        assert len(solution.history) == 2
        assert solution.gap > solution.tolerance
        check_certificate(solution, HARD, alpha)
        with pytest.raises(MixsolveError, match="max_iter"):
            solution.raise_for_status()

    @pytest.mark.parametrize(("alpha", "method"), [*UNFINISHED, (0.0, "lp"), (0.0, "cvxpy")])
    def test_time_limit(self, alpha, method):
        with pytest.warns(ConvergenceWarning, match="time limit"):
            solution = mixsolve.solve(HARD, alpha, method=method, time_limit=1e-9, tol=1e-9)
        assert solution.status is Status.TIME_LIMIT
        assert np.isfinite(solution.gap)
        check_certificate(solution, HARD, alpha)

    @pytest.mark.parametrize(("alpha", "method"), UNFINISHED)
    def test_the_callback_sees_every_iteration_and_may_stop(self, alpha, method):
        states = []

        def callback(state):
            states.append(state)
            return state.nit == 3

        with pytest.warns(ConvergenceWarning, match="callback"):
            solution = mixsolve.solve(HARD, alpha, method=method, callback=callback, tol=1e-12)
        assert solution.status is Status.STOPPED
        assert [state.nit for state in states] == [1, 2, 3]
        assert solution.nit == 3
        for state, record in zip(states, solution.history, strict=True):
            assert state.weights.shape == (6,)
            assert abs(state.weights.sum() - 1.0) < 1e-12
            assert (state.value, state.lower_bound, state.gap) == (
                record.value,
                record.lower_bound,
                record.gap,
            )
        check_certificate(solution, HARD, alpha)

    def test_the_state_is_the_callbacks_own(self):
        def spoil(state):
            state.weights[:] = np.nan

        plain = mixsolve.solve(HARD, 0.5, method="apg")
        spoiled = mixsolve.solve(HARD, 0.5, method="apg", callback=spoil)
        assert spoiled.value == plain.value

    @pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
    @pytest.mark.parametrize(("alpha", "method"), [*UNFINISHED, (0.0, "lp"), (0.0, "cvxpy")])
    def test_history(self, alpha, method):
        solution = mixsolve.solve(HARD, alpha, method=method, max_iter=20)
        history = solution.history
        assert [record.nit for record in history] == list(range(1, solution.nit + 1))
        values, lower, seconds = (
            np.array([getattr(record, name) for record in history])
            for name in ("value", "lower_bound", "seconds")
        )
        assert (np.diff(values) <= 0.0).all()
        assert (np.diff(lower) >= 0.0).all()
        assert (np.diff(seconds) >= 0.0).all()
        assert np.isfinite(values).all()
        for record in history:
            assert record.gap == record.value - record.lower_bound
            assert record.lower_bound <= values[-1] + 1e-12
        assert solution.value <= values[-1] + 1e-12

    @pytest.mark.parametrize(("alpha", "method"), [(0.5, "newton"), (0.5, "apg"), (0.0, "lp")])
    def test_a_tolerance_is_reached_and_no_more_is_done(self, alpha, method):
        loose = mixsolve.solve(HARD, alpha, method=method, tol=1e-2)
        tight = mixsolve.solve(HARD, alpha, method=method, tol=1e-8)
        assert loose.gap <= 1e-2
        assert tight.gap <= 1e-8
        assert loose.nit <= tight.nit
        assert loose.tolerance == 1e-2


class TestWarmStart:
    @pytest.mark.parametrize("method", ["newton", "apg"])
    def test_from_a_solution_or_its_weights(self, losses, method):
        cold = mixsolve.solve(losses, 0.2, method=method)
        assert cold.nit > 2
        for start in (cold, cold.weights, cold.weights.tolist()):
            warm = mixsolve.solve(losses, 0.2, method=method, warm_start=start)
            assert warm.success
            assert warm.nit < cold.nit

    @pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
    @pytest.mark.parametrize(("alpha", "method"), UNFINISHED)
    def test_the_answer_is_never_worse_than_the_start(self, alpha, method):
        cold = mixsolve.solve(HARD, alpha, method="newton" if alpha else "lp")
        warm = mixsolve.solve(HARD, alpha, method=method, warm_start=cold, max_iter=1)
        assert warm.value <= cold.value + 1e-12

    @pytest.mark.parametrize(("alpha", "method"), [(0.0, "lp"), (0.0, "cvxpy"), (0.3, "cvxpy")])
    def test_methods_that_start_from_scratch_take_one_too(self, losses, alpha, method):
        plain = mixsolve.solve(losses, alpha, method=method)
        warm = mixsolve.solve(losses, alpha, method=method, warm_start=[0.0, 0.0, 1.0])
        assert abs(warm.value - plain.value) <= max(warm.gap, plain.gap)

    def test_a_vertex_and_a_rounded_start(self, losses):
        cold = mixsolve.solve(losses, 0.2)
        for start in ([1.0, 0.0, 0.0], [1.0 / 3.0 + 1e-9] * 3, np.float32([0.1, 0.2, 0.7])):
            warm = mixsolve.solve(losses, 0.2, warm_start=start)
            assert warm.success
            assert abs(warm.value - cold.value) <= max(warm.gap, cold.gap)


class TestConstraints:
    @pytest.mark.parametrize("alpha", [0.0, 0.3])
    @pytest.mark.parametrize("method", ["cvxpy", "auto"])
    def test_bounds_on_the_weights(self, losses, alpha, method):
        free = mixsolve.solve(losses, alpha)
        held = mixsolve.solve(
            losses, alpha, method=method, constraints=lambda weights: [weights >= 0.3]
        )
        assert held.success
        assert held.method == "cvxpy"
        assert held.weights.min() >= 0.3 - 1e-7
        assert held.value >= free.lower_bound - 1e-12
        objective = entropic_risk if alpha else exact_risk
        extra = (alpha,) if alpha else ()
        corners = 0.3 + 0.1 * np.random.default_rng(0).dirichlet(np.ones(3), 100)
        values = [objective(losses, lam, *extra) for lam in corners]
        assert held.value <= min(values) + 1e-6
        assert held.lower_bound <= held.value + 1e-9
        assert min(values) >= held.lower_bound - 1e-7

    def test_weights_that_are_fixed(self, losses):
        fixed = np.array([0.2, 0.3, 0.5])
        held = mixsolve.solve(losses, constraints=lambda weights: [weights == fixed])
        np.testing.assert_allclose(held.weights, fixed, atol=1e-7)
        assert held.value == pytest.approx(exact_risk(losses, fixed), abs=1e-6)
        assert held.success

    def test_a_constraint_that_does_not_bind(self, losses):
        free = mixsolve.solve(losses)
        held = mixsolve.solve(losses, constraints=lambda weights: [weights <= 1.0])
        assert abs(held.value - free.value) <= held.gap + 1e-8


class TestAnswer:
    @pytest.mark.parametrize(("alpha", "method"), [(0.0, "lp"), (0.3, "newton"), (0.3, "apg")])
    def test_twice_the_same(self, alpha, method):
        losses = games.gamma_game(3000, 20, 5, seed=0).losses
        first, second = (mixsolve.solve(losses, alpha, method=method) for _ in range(2))
        assert np.array_equal(first.weights, second.weights)
        assert first.value == second.value
        assert first.nit == second.nit

    def test_names(self, losses):
        assert mixsolve.solve(losses).method == "lp"
        assert mixsolve.solve(losses, 0.3).method == "newton"
        assert mixsolve.solve(losses, 0.3, method="entropic").method == "newton"
        assert mixsolve.solve(losses, np.zeros(12)).method == "lp"
        assert {status.name for status in Status} == {
            "OPTIMAL",
            "MAX_ITER",
            "TIME_LIMIT",
            "STOPPED",
            "FAILED",
            "INFEASIBLE",
        }

    def test_it_is_frozen_and_short(self, losses):
        solution = mixsolve.solve(losses)
        with pytest.raises(AttributeError):
            solution.value = 0.0
        assert len(repr(solution)) < 1500
        assert solution.raise_for_status() is solution

    def test_counts_and_timings(self, losses):
        for alpha in (0.0, 0.3):
            solution = mixsolve.solve(losses, alpha)
            assert solution.n_passes > 0
            assert all(np.isfinite(value) for value in solution.timings.values())
            assert all(value >= 0 for value in solution.timings.values())
            assert solution.timings["total"] > 0
            assert isinstance(solution.alpha, float)

    def test_verbose_prints_a_table_of_iterations(self, losses, capsys):
        solution = mixsolve.solve(losses, 0.3)
        assert capsys.readouterr() == ("", "")
        solution = mixsolve.solve(losses, 0.3, verbose=True)
        printed, errors = capsys.readouterr()
        title, heads, *lines, outcome = printed.splitlines()
        assert not errors
        assert title.startswith(f"{losses.shape[0]} samples x {losses.shape[1]} candidates x ")
        assert "method newton, alpha 0.3" in title
        assert heads.split() == ["iter", "value", "lower", "bound", "gap", "seconds"]
        assert len({len(line) for line in (heads, *lines)}) == 1
        assert [int(line.split()[0]) for line in lines] == [r.nit for r in solution.history]
        assert [float(line.split()[1]) for line in lines] == pytest.approx(
            [record.value for record in solution.history], rel=1e-8
        )
        assert outcome == f"optimal: {solution.message}"

    def test_numpys_error_state_and_random_state_are_left_alone(self, losses):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        with np.errstate(all="raise", under="ignore"):
            mixsolve.solve(losses)
            mixsolve.solve(losses, 0.3)
        assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
