import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, hstack

import mixsolve.base.threads
from mixsolve.base.tuning import tuning
from mixsolve.small_game import central_path
from mixsolve.small_game.central_path import Iterate
from mixsolve.small_game.game import normalise
from mixsolve.small_game.interior_point import solve_interior_point
from mixsolve.small_game.solve import solve_small

SOLVERS = [solve_interior_point, solve_small]


def uniform(n):
    return np.full(n, 1.0 / n)


def ragged(rng, n, most, size, draw):
    counts = rng.integers(1, most + 1, n)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return np.ascontiguousarray(draw((offsets[-1], size)), dtype=np.float64), offsets


def random_weight(rng, n):
    weight = rng.gamma(1.0, size=n) + 1e-3
    return weight / weight.sum()


def gamma_rows(n, m, size, seed=0):
    rng = np.random.default_rng(seed)
    losses = 0.5 * rng.gamma(1, 1, (n, 1, 1)) + rng.gamma(0.5, 1.5, (n, m, size))
    return losses.reshape(n * m, size), m * np.arange(n + 1)


def highs_value(rows, offsets, weight):
    n_rows, size = rows.shape
    n = len(weight)
    owner = np.repeat(np.arange(n), np.diff(offsets))
    picks = csr_matrix((-np.ones(n_rows), (np.arange(n_rows), owner)), shape=(n_rows, n))
    result = linprog(
        np.concatenate([np.zeros(size), weight]),
        A_ub=hstack([csr_matrix(rows), picks]),
        b_ub=np.zeros(n_rows),
        A_eq=np.concatenate([np.ones(size), np.zeros(n)])[None],
        b_eq=[1.0],
        bounds=[(0, None)] * size + [(None, None)] * n,
        method="highs",
    )
    assert result.status == 0
    return result.fun


def check_certificate(solution, rows, offsets, weight):
    """Everything the solution claims, recomputed in NumPy."""
    scale = max(abs(rows).max(), 1e-300)
    assert solution.weights.min() >= 0.0
    assert solution.weights.sum() == pytest.approx(1.0, abs=1e-14)
    assert solution.dual.min() >= 0.0
    masses = np.add.reduceat(solution.dual, offsets[:-1])
    np.testing.assert_allclose(masses, weight, rtol=1e-13)
    value = weight @ np.maximum.reduceat(rows @ solution.weights, offsets[:-1])
    bound = (solution.dual @ rows).min()
    assert solution.value == pytest.approx(value, abs=1e-13 * scale)
    assert solution.lower_bound == pytest.approx(bound, abs=1e-13 * scale)
    assert solution.gap == pytest.approx(value - bound, abs=1e-13 * scale)
    spreads = np.maximum.reduceat(rows.max(1), offsets[:-1])
    spreads = spreads - np.minimum.reduceat(rows.min(1), offsets[:-1])
    assert solution.spread == pytest.approx(weight @ spreads)


def dense_newton(rows, owner, weight, lam, z, s, q, target, row_product, lam_product):
    """Solve the Newton system of all unknowns (dlam, dt, ds, dq, dz, dnu) at once."""
    n_rows, size = rows.shape
    n = len(weight)
    picks = np.eye(n)[owner]
    blocks = [size, n, n_rows, n_rows, size, 1]
    at = np.concatenate([[0], np.cumsum(blocks)])
    lam_, t_, s_, q_, z_, nu_ = (slice(at[b], at[b + 1]) for b in range(6))
    system = np.zeros((at[-1], at[-1]))
    rhs = np.zeros(at[-1])
    gradient = q @ rows
    nu = (gradient - z).min()
    system[lam_, q_], system[lam_, z_], system[lam_, nu_] = rows.T, -np.eye(size), -1.0
    rhs[lam_] = -(gradient - z - nu)
    system[t_, q_] = picks.T
    rhs[t_] = weight - picks.T @ q
    system[s_, s_], system[s_, t_], system[s_, lam_] = np.eye(n_rows), -picks, rows
    system[q_, s_], system[q_, q_] = np.diag(q), np.diag(s)
    rhs[q_] = target * weight[owner] - q * s - row_product
    system[z_, lam_], system[z_, z_] = np.diag(z), np.diag(lam)
    rhs[z_] = target / size - lam * z - lam_product
    system[nu_, lam_] = 1.0
    step = np.linalg.solve(system, rhs)
    return {"lam": step[lam_], "t": step[t_], "s": step[s_], "q": step[q_], "z": step[z_]}


def test_steps_solve_the_dense_newton_system():
    rng = np.random.default_rng(0)
    rows, offsets = ragged(rng, 7, 4, 5, rng.standard_normal)
    weight = random_weight(rng, 7)
    owner = np.repeat(np.arange(7), np.diff(offsets))
    many = np.diff(offsets)[owner] > 1
    game = normalise(rows, offsets, weight)
    scaled = rows / game.spread
    iterate = Iterate(game, uniform(5), 0.05)
    iterate.centre()
    gaps = []
    for _ in range(3):
        gaps.append(iterate.factor())
        before = iterate.weights.copy(), iterate.reduced.copy(), iterate.dual.copy()
        lam, z, q = before
        value = weight @ np.maximum.reduceat(scaled @ lam, offsets[:-1])
        assert gaps[-1] == pytest.approx(value - (q @ scaled).min(), abs=1e-12)
        # One row alone has no complementarity to follow: any slack gives the same weights.
        s = np.where(many, iterate.slack, 1.0)
        iterate.step()
        zero = np.zeros(len(q)), np.zeros(5)
        first = dense_newton(scaled, owner, weight, lam, z, s, q, 0.0, *zero)
        limit = central_path.CORRECTION * iterate.barrier * weight[owner]
        product = np.where(many, np.clip(first["s"] * first["q"], -limit, limit), 0.0)
        np.testing.assert_allclose(iterate.product[many], product[many], atol=1e-12)
        # The corrector's target is sigma mu; read it off one row and check all the others.
        r = np.flatnonzero(many)[0]
        p = rows[r] - rows[offsets[owner[r]]]
        ds = iterate.d_height[owner[r]] - p @ iterate.d_weights / game.spread
        target = q[r] * ds + s[r] * iterate.d_dual[r] + q[r] * s[r] + product[r]
        target /= weight[owner[r]]
        mu = (q[many] @ s[many] + lam @ z) / (weight[owner][many].sum() + 1.0)
        assert 0.0 <= target <= mu
        second = dense_newton(
            scaled, owner, weight, lam, z, s, q, target, product, first["lam"] * first["z"]
        )
        np.testing.assert_allclose(iterate.d_weights, second["lam"], atol=1e-11)
        np.testing.assert_allclose(iterate.d_dual[many], second["q"][many], atol=1e-11)
        primal, dual = iterate.steps
        assert 0.0 < primal <= 1.0
        assert 0.0 < dual <= 1.0
        np.testing.assert_allclose(iterate.weights, lam + primal * second["lam"], atol=1e-11)
        np.testing.assert_allclose(iterate.reduced, z + dual * second["z"], atol=1e-11)
    assert gaps[-1] < gaps[0]


def test_schur_matrix_in_one_line_of_numpy():
    rng = np.random.default_rng(1)
    rows, offsets = ragged(rng, 200, 5, 7, rng.standard_normal)
    game = normalise(rows, offsets, uniform(200))
    iterate = Iterate(game, random_weight(rng, 7), 0.01)
    iterate.centre()
    iterate.factor()
    owner = np.repeat(np.arange(200), np.diff(offsets))
    ratio = iterate.dual / iterate.slack
    mass = np.bincount(owner, ratio)
    means = np.add.reduceat(ratio[:, None] * rows, offsets[:-1]) / mass[:, None]
    centred = (rows - means[owner]) / game.spread
    expected = (ratio[:, None] * centred).T @ centred
    np.testing.assert_allclose(np.triu(iterate.schur.sum(0)), np.triu(expected), rtol=1e-10)


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("kind", ["normal", "integers", "zero-one", "duplicates", "equal columns"])
def test_matches_highs_on_random_games(solve, kind):
    rng = np.random.default_rng([SOLVERS.index(solve), len(kind)])
    draws = {
        "normal": rng.standard_normal,
        "integers": lambda shape: rng.integers(0, 4, shape),
        "zero-one": lambda shape: rng.integers(0, 2, shape),
        "duplicates": lambda shape: rng.standard_normal(shape).round(0),
        "equal columns": lambda shape: rng.standard_normal((shape[0], 1)) * np.ones(shape[1]),
    }
    for _ in range(25):
        n, most, size = rng.integers(1, 13), rng.integers(1, 9), rng.integers(1, 8)
        rows, offsets = ragged(rng, n, most, size, draws[kind])
        weight = random_weight(rng, n)
        solution = solve(rows, offsets, weight, tol=1e-10)
        assert solution.converged, solution.message
        check_certificate(solution, rows, offsets, weight)
        expected = highs_value(rows, offsets, weight)
        assert solution.lower_bound - 1e-8 <= expected <= solution.value + 1e-8
        assert solution.gap <= 1e-10 * solution.spread


@pytest.mark.parametrize("solve", SOLVERS)
def test_tight_tolerance_on_larger_games(solve):
    rng = np.random.default_rng(2)
    games = [
        gamma_rows(400, 5, 10),
        (rng.integers(0, 4, (3000, 6)).astype(float), 15 * np.arange(201)),
        (rng.integers(0, 2, (3000, 6)).astype(float), 15 * np.arange(201)),
        (rng.standard_normal((50, 30)), np.array([0, 50])),
        (rng.standard_normal((40, 40)), np.array([0, 40])),
    ]
    for rows, offsets in games:
        weight = uniform(len(offsets) - 1)
        solution = solve(rows, offsets, weight, tol=1e-13)
        assert solution.converged
        check_certificate(solution, rows, offsets, weight)


def test_known_games():
    cycle = np.array([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    solution = solve_small(cycle, np.array([0, 3]), np.ones(1))
    np.testing.assert_allclose(solution.weights, 1 / 3, atol=1e-9)
    np.testing.assert_allclose(solution.dual, 1 / 3, atol=1e-9)
    assert abs(solution.value) < 1e-9
    # One row a sample: the best classifier on average takes all.
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((20, 4))
    weight = random_weight(rng, 20)
    solution = solve_small(rows, np.arange(21), weight)
    assert solution.converged
    assert solution.value == pytest.approx((weight @ rows).min(), abs=1e-9)
    # One classifier: nothing to choose.
    solution = solve_small(rows[:, :1].copy(), 5 * np.arange(5), uniform(4))
    assert solution.converged
    assert solution.weights == pytest.approx([1.0])
    assert solution.value == pytest.approx(rows[:, 0].reshape(4, 5).max(1).mean())


def test_constant_losses_are_trivial():
    solution = solve_small(np.full((6, 3), 2.5), np.array([0, 2, 6]), np.array([0.3, 0.7]))
    assert solution.converged
    assert solution.value == pytest.approx(2.5)
    assert solution.gap == 0.0
    np.testing.assert_allclose(np.add.reduceat(solution.dual, [0, 2]), [0.3, 0.7])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_scaling_the_losses_changes_nothing(scale):
    rows, offsets = gamma_rows(100, 6, 5)
    plain = solve_small(rows, offsets, uniform(100), tol=1e-12)
    scaled = solve_small(scale * rows, offsets, uniform(100), tol=1e-12)
    assert scaled.converged
    np.testing.assert_allclose(scaled.weights, plain.weights, atol=1e-9)
    assert scaled.value == pytest.approx(scale * plain.value, rel=1e-12)


def test_offsets_of_the_samples_cancel():
    rows, offsets = gamma_rows(100, 6, 5)
    rows = np.round(rows * 2**20) / 2**20  # so that adding the constants below is exact
    constants = 2.0**20 * np.arange(100)
    moved = rows + np.repeat(constants, 6)[:, None]
    plain = solve_small(rows, offsets, uniform(100), tol=1e-12)
    shifted = solve_small(moved, offsets, uniform(100), tol=1e-12)
    np.testing.assert_allclose(shifted.weights, plain.weights, atol=1e-12)
    assert shifted.gap <= 1e-12 * shifted.spread
    assert shifted.value - constants.mean() == pytest.approx(plain.value, abs=1e-6)


def test_weights_over_twelve_orders_of_magnitude():
    rng = np.random.default_rng(4)
    rows, offsets = gamma_rows(300, 5, 6)
    weight = 10.0 ** rng.uniform(-12, 0, 300)
    weight /= weight.sum()
    for solve in SOLVERS:
        solution = solve(rows, offsets, weight, tol=1e-11)
        assert solution.converged
        check_certificate(solution, rows, offsets, weight)


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_rows_left_aside_too_early_are_taken_back(monkeypatch, share):
    monkeypatch.setattr(tuning, "shrink_gap", 1.0)
    monkeypatch.setattr(tuning, "shrink_share", share)
    monkeypatch.setattr(tuning, "shrink_rows", 1)
    for seed in range(5):
        rows, offsets = gamma_rows(60, 8, 5, seed)
        for solve in SOLVERS:
            solution = solve(rows, offsets, uniform(60), tol=1e-10)
            assert solution.converged
            check_certificate(solution, rows, offsets, uniform(60))


def test_limit_reports_the_true_gap():
    rows, offsets = gamma_rows(100, 6, 5)
    solution = solve_interior_point(rows, offsets, uniform(100), tol=1e-10, max_iter=3)
    assert not solution.converged
    assert "limit 3" in solution.message
    assert solution.gap > 1e-10 * solution.spread
    check_certificate(solution, rows, offsets, uniform(100))


def test_a_start_changes_the_path_not_the_answer():
    rows, offsets = gamma_rows(400, 8, 6)
    cold = solve_small(rows, offsets, uniform(400), tol=1e-11)
    for start in (cold, cold.weights, np.eye(6)[0]):
        warm = solve_small(rows, offsets, uniform(400), tol=1e-11, start=start)
        assert warm.converged
        np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-8)
    warm = solve_small(rows, offsets, uniform(400), tol=1e-11, start=cold)
    assert warm.nit < cold.nit


def test_result_does_not_depend_on_the_number_of_threads(monkeypatch):
    rows, offsets = gamma_rows(3000, 9, 10)
    assert len(normalise(rows, offsets, uniform(3000)).bounds) > 2
    several = solve_small(rows, offsets, uniform(3000))
    monkeypatch.setattr(mixsolve.base.threads, "n_threads", lambda: 1)
    single = solve_small(rows, offsets, uniform(3000))
    assert np.array_equal(several.weights, single.weights)
    assert np.array_equal(several.dual, single.dual)
