"""Batches of games: each as `mixsolve.solve` and an independent linear program solve it."""

import warnings

import numpy as np
import pytest
import reference
import torch
from scipy.optimize import linprog

import mixsolve
from mixsolve.base import threads
from mixsolve.base.errors import ConvergenceWarning, MixsolveError, MixsolveTypeError
from mixsolve.batch import solver
from mixsolve.kernels import batch_entropic, batch_exact
from mixsolve.kernels import batch_layout as layout
from mixsolve.methods.stopping import Status

ALPHAS = [0.0, 0.05]


def optimum(losses, sample_weight=None, candidate_mask=None):
    """The value of an exact game by HiGHS: min sum_i w_i t_i, t_i >= <lam, l_ij>."""
    rows, _ = reference.as_rows(losses, candidate_mask)
    weight = reference.normalized(sample_weight, len(rows))
    size = rows[0].shape[1]
    owner = np.repeat(np.eye(len(rows)), [len(table) for table in rows], axis=0)
    shift = min(table.min() for table in rows)
    rows = [np.asarray(table, dtype=np.float64) - shift for table in rows]
    unit = max(table.max() for table in rows) or 1.0
    found = linprog(
        np.concatenate([np.zeros(size), weight]),
        A_ub=np.hstack([np.concatenate(rows) / unit, -owner]),
        b_ub=np.zeros(len(owner)),
        A_eq=np.concatenate([np.ones(size), np.zeros(len(rows))])[None],
        b_eq=[1.0],
        bounds=[(0, None)] * size + [(None, None)] * len(rows),
    )
    assert found.status == 0
    return found.fun * unit + shift


def check(solution, games, alpha=0.0, **given):
    """Every game's certificate from the raw losses, and its value against the other solvers."""
    alphas = np.broadcast_to(alpha, len(games)) if np.ndim(alpha) < 2 else alpha
    assert len(solution) == len(games)
    assert solution.success.all()
    for b, losses in enumerate(games):
        game = {name: values[b] for name, values in given.items()}
        one = solution[b]
        reference.check_certificate(one, losses, alphas[b], **game)
        assert one.value == solution.value[b]
        np.testing.assert_array_equal(one.weights, solution.weights[b])
        np.testing.assert_array_equal(one.attack.dense(), solution.attack[b])
        alone = mixsolve.solve(losses, alphas[b], tol=1e-8, **game)
        room = one.tolerance + alone.tolerance
        assert abs(one.value - alone.value) <= room
        assert one.lower_bound <= alone.value + 1e-14 * abs(alone.value)
        if not np.any(alphas[b]):
            exact = {name: value for name, value in game.items() if name != "candidate_prior"}
            assert abs(one.value - optimum(losses, **exact)) <= room


GAMES = {
    "continuous": lambda rng: rng.gamma(0.5, 1.5, (5, 12, 6, 3)),
    "two-valued": lambda rng: rng.random((5, 15, 7, 4)) < 0.4,
    "many zeros": lambda rng: rng.random((4, 10, 5, 4)) * (rng.random((4, 10, 5, 4)) < 0.2),
    "duplicates": lambda rng: np.repeat(np.repeat(rng.random((4, 6, 3, 2)), 2, axis=2), 2, axis=3),
    "one sample": lambda rng: rng.standard_normal((6, 1, 9, 5)),
    "one candidate": lambda rng: rng.random((4, 8, 1, 3)),
    "one classifier": lambda rng: rng.random((4, 8, 3, 1)),
    "one of all": lambda rng: rng.random((3, 1, 1, 1)),
    "one game": lambda rng: rng.random((1, 9, 4, 3)),
    "constant": lambda rng: np.full((2, 4, 3, 3), 0.7),
    "many classifiers": lambda rng: rng.random((2, 20, 4, 13)),
    "tiny": lambda rng: 1e-8 * rng.gamma(0.5, 1.5, (4, 9, 4, 3)),
    "huge": lambda rng: 1e8 * rng.gamma(0.5, 1.5, (4, 9, 4, 3)),
    "far from zero": lambda rng: 1e6 + rng.random((3, 9, 4, 3)),
    "float32": lambda rng: rng.random((4, 10, 5, 3), dtype=np.float32),
    "uint8": lambda rng: rng.integers(0, 256, (4, 10, 5, 3), dtype=np.uint8),
    "integers": lambda rng: rng.integers(-50, 50, (4, 10, 5, 3)),
}


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.05], ids=["exact", "nearly exact", "entropic"])
@pytest.mark.parametrize("name", GAMES)
def test_games_are_solved_as_one_by_one(name, share, rng):
    games = GAMES[name](rng)
    alpha = share * (float(games.max()) - float(games.min()) or 1.0)
    solution = mixsolve.solve_batch(games, alpha)
    check(solution, games, alpha)
    assert solution.n_one_by_one == 0


@pytest.mark.parametrize("alpha", ALPHAS)
def test_weights_masks_and_measures_of_each_game(alpha, rng):
    games = rng.gamma(0.5, 1.5, (6, 10, 5, 3))
    weight = rng.integers(0, 3, (6, 10)).astype(float)
    weight[:, 0] = 1.0
    mask = rng.random((6, 10, 5)) < 0.6
    mask[:, :, 2] = True
    games[~mask] = np.nan
    given = {"sample_weight": weight, "candidate_mask": mask}
    check(mixsolve.solve_batch(games, alpha, **given), games, alpha, **given)
    if alpha:
        given["candidate_prior"] = np.where(mask, rng.random((6, 10, 5)) + 0.01, -1.0)
        check(mixsolve.solve_batch(games, alpha, **given), games, alpha, **given)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_what_lacks_the_axis_of_games_is_shared(alpha, rng):
    losses = rng.gamma(0.5, 1.5, (10, 5, 3))
    weight = rng.dirichlet(np.ones(10), 4)
    mask = rng.random((10, 5)) < 0.7
    mask[:, 0] = True
    shared = {"candidate_mask": mask, "candidate_prior": rng.random((10, 5)) + 0.1}
    each = {name: [table] * 4 for name, table in shared.items()}
    for given in (losses, losses[None]):
        solution = mixsolve.solve_batch(given, alpha, sample_weight=weight, **shared)
        check(solution, [losses] * 4, alpha, sample_weight=weight, **each)
    games = rng.gamma(0.5, 1.5, (3, 10, 5, 3))
    solution = mixsolve.solve_batch(games, alpha, sample_weight=weight[0])
    check(solution, games, alpha, sample_weight=[weight[0]] * 3)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_next_to_no_weight_leaves_no_game_open(alpha, rng):
    games = rng.gamma(0.5, 1.5, (40, 10, 5, 3))
    games[::2] = games[::2] > 0.5
    weight = 10.0 ** rng.uniform(-300, 0, (40, 10))
    weight[::4] = rng.dirichlet(np.full(10, 0.02), 10) + 1e-305
    solution = mixsolve.solve_batch(games, alpha, sample_weight=weight)
    assert solution.n_one_by_one == 0
    check(solution, games, alpha, sample_weight=weight)


def test_each_game_and_each_sample_may_have_its_alpha(rng):
    games = rng.gamma(0.5, 1.5, (4, 10, 5, 3))
    alpha = np.array([0.0, 1e-3, 0.1, 0.0])
    check(mixsolve.solve_batch(games, alpha), games, alpha)
    alpha = rng.uniform(0.01, 0.2, (4, 10))
    alpha[1] = 0.0
    check(mixsolve.solve_batch(games, alpha), games, alpha)
    path = mixsolve.solve_batch(games[0], [0.0, 0.01, 0.1])
    check(path, [games[0]] * 3, np.array([0.0, 0.01, 0.1]))
    assert path[1].alpha == 0.01


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_list_holds_games_of_different_sizes(alpha, rng):
    games = [rng.gamma(0.5, 1.5, shape) for shape in [(4, 6, 3), (1, 2, 3), (9, 1, 3), (5, 5, 3)]]
    weight = [rng.dirichlet(np.ones(len(game))) for game in games]
    mask = [rng.random(game.shape[:2]) < 0.8 for game in games]
    for table in mask:
        table[:, 0] = True
    solution = mixsolve.solve_batch(games, alpha, sample_weight=weight, candidate_mask=mask)
    check(solution, games, alpha, sample_weight=weight, candidate_mask=mask)
    assert [table.shape for table in solution.attack] == [game.shape[:2] for game in games]
    check(mixsolve.solve_batch(games[:1], alpha), games[:1], alpha)


def test_arrays_of_any_layout_and_framework(rng):
    games = rng.gamma(0.5, 1.5, (4, 10, 5, 6))
    expected = mixsolve.solve_batch(np.ascontiguousarray(games[:, :, :, ::2]))
    strided = mixsolve.solve_batch(games[:, :, :, ::2])
    np.testing.assert_array_equal(strided.weights, expected.weights)
    turned = mixsolve.solve_batch(np.asfortranarray(games)[:, :, :, ::2])
    np.testing.assert_array_equal(turned.weights, expected.weights)
    tensor = torch.from_numpy(games)[:, :, :, ::2]
    given = mixsolve.solve_batch(tensor)
    assert isinstance(given.weights, torch.Tensor)
    assert given.weights.dtype == torch.float64
    np.testing.assert_array_equal(given.weights.numpy(), expected.weights)
    assert isinstance(given[1].weights, torch.Tensor)
    listed = mixsolve.solve_batch(games[:, :, :, ::2].tolist())
    np.testing.assert_array_equal(listed.weights, expected.weights)
    games.flags.writeable = False
    np.testing.assert_array_equal(
        mixsolve.solve_batch(games).value, mixsolve.solve_batch(games.copy()).value
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_answers_do_not_depend_on_threads_or_company(alpha, rng, monkeypatch):
    monkeypatch.setattr(solver, "_LEAST_RUN_ENTRIES", 1 << 12)
    games = rng.gamma(0.5, 1.5, (70, 40, 8, 4))  # several runs
    answers = []
    for count in (1, 3):
        monkeypatch.setattr(threads, "n_threads", lambda count=count: count)
        threads._pool.cache_clear()
        answers.append(mixsolve.solve_batch(games, alpha))
    threads._pool.cache_clear()
    np.testing.assert_array_equal(answers[0].weights, answers[1].weights)
    np.testing.assert_array_equal(answers[0].attack, answers[1].attack)
    alone = mixsolve.solve_batch(games[13:14], alpha)
    np.testing.assert_array_equal(alone.weights[0], answers[0].weights[13])


def test_no_games_are_a_batch_too():
    solution = mixsolve.solve_batch(np.empty((0, 4, 3, 2)))
    assert len(solution) == 0
    assert solution.weights.shape == (0, 2)
    assert solution.attack.shape == (0, 4, 3)
    assert list(solution) == []
    assert solution.raise_for_status() is solution


def test_a_batch_is_a_sequence_of_solutions(rng):
    solution = mixsolve.solve_batch(rng.random((3, 5, 4, 2)))
    assert [one.value for one in solution] == solution.value.tolist()
    assert solution[-1].value == solution.value[2]
    assert solution[np.int64(1)].status is Status.OPTIMAL
    assert "3 of 3" in solution.message
    for place in (3, -4):
        with pytest.raises(IndexError, match="out of range for 3 games"):
            solution[place]


def test_attacks_need_not_be_kept(rng):
    games = rng.random((3, 5, 4, 2))
    kept, left = mixsolve.solve_batch(games), mixsolve.solve_batch(games, keep_attack=False)
    assert left.attack is None
    np.testing.assert_array_equal(left.lower_bound, kept.lower_bound)
    with pytest.raises(MixsolveError, match="keep_attack=True"):
        left[1].attack.dense()


@pytest.fixture
def two_left_open(monkeypatch):
    """Kernels that take games 1 and 3 for unsolved, and leave nothing of use behind."""
    for module, name in [
        (batch_exact, "solve_exact_games"),
        (batch_entropic, "solve_entropic_games"),
    ]:
        kernel = getattr(module, name)

        def worse(*game, kernel=kernel):
            kernel(*game)
            weights, figures, attacked, _, state, attack = game[10:]
            figures[[1, 3], layout.LOWER_BOUND] -= 1.0
            state[[1, 3]] = layout.OPEN
            weights[[1, 3]] = attacked[[1, 3]] = np.nan
            attack.reshape(4, -1)[[1, 3]] = np.nan

        monkeypatch.setattr(module, name, worse)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_what_the_kernel_cannot_close_is_solved_alone(alpha, rng, two_left_open):
    games = rng.gamma(0.5, 1.5, (4, 10, 5, 3))
    mask = rng.random((4, 10, 5)) < 0.8
    mask[:, :, 0] = True
    weight = rng.dirichlet(np.ones(10), 4)
    given = {"candidate_mask": mask, "sample_weight": weight}
    solution = mixsolve.solve_batch(games, alpha, **given)
    check(solution, games, alpha, **given)
    assert solution.n_one_by_one == 2
    assert "2 of them" in solution.message


def test_a_failure_is_told_and_spoils_no_other_game(rng):
    games = rng.gamma(0.5, 1.5, (4, 10, 5, 3))
    games[0] = games[2] = 0.5  # solved without an iteration
    with pytest.warns(ConvergenceWarning, match=r"in 2 of 4 games, first in game 1: max_iter"):
        solution = mixsolve.solve_batch(games, max_iter=1)
    assert solution.success.tolist() == [True, False, True, False]
    assert solution[1].status is Status.MAX_ITER
    assert not solution[1].success
    assert solution.n_one_by_one == 0
    with pytest.raises(MixsolveError, match=r"2 of 4 games .* first game 1"):
        solution.raise_for_status()
    for b, losses in enumerate(games):  # the best so far, with its true gap
        reference.check_certificate(solution[b], losses)
    assert solution.gap[1] > solution.tolerance[1]


def test_a_tolerance_out_of_reach_is_told(rng):
    games = 1e3 + rng.random((2, 10, 5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = mixsolve.solve_batch(games, tol=1e-300)
    for b, losses in enumerate(games):
        reference.check_certificate(solution[b], losses)
        assert solution.gap[b] <= 1e-9


@pytest.mark.parametrize("tol", [1e-3, 1e-10])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_tolerance_is_each_games_own(alpha, tol, rng):
    scale = np.array([1e-3, 1.0, 1e3])[:, None, None, None]
    games = scale * rng.gamma(0.5, 1.5, (3, 12, 6, 4))
    solution = mixsolve.solve_batch(games, alpha * scale[:, 0, 0, 0], tol=tol)
    assert solution.success.all()
    np.testing.assert_allclose(solution.tolerance, tol * solution.spread, rtol=1e-12)
    assert (solution.gap <= solution.tolerance).all()


def nan_at(games, *place):
    games = games.copy()
    games[place] = np.nan
    return games


GAME = np.random.default_rng(5).random((3, 4, 2, 2))


@pytest.mark.parametrize(
    ("losses", "given", "words"),
    [
        (nan_at(GAME, 2, 1, 0, 1), {}, r"got nan first at index \(2, 1, 0, 1\) \(game, sample"),
        ([GAME[0], nan_at(GAME[1], 3, 1, 0)], {}, r"got nan first at index \(1, 3, 1, 0\)"),
        (np.array([[[[1e308, -1e308]]]]), {}, "losses of game 0 range from -1e"),
        (GAME[0], {}, r"pass losses\[None\] for a batch of one"),
        (GAME[0, 0], {}, "losses must have four axes"),
        (np.empty((2, 0, 3, 4)), {}, "losses has no samples"),
        ([GAME[0], GAME[1, 0]], {}, r"losses\[1\] must have three axes"),
        ([GAME[0], GAME[1, :, :, :1]], {}, r"losses\[1\] has losses of 1 classifiers"),
        (GAME, {"sample_weight": np.ones((2, 4))}, "losses 3, sample_weight 2"),
        (GAME, {"sample_weight": np.ones(5)}, r"sample_weight must hold .* \(4,\) for game 0"),
        (GAME, {"sample_weight": np.ones((1, 3, 4))}, "sample_weight must have the axes"),
        (GAME, {"sample_weight": [[1] * 4, [0] * 4, [1] * 4]}, "game 1: sample_weight must be pos"),
        (GAME, {"sample_weight": [1, 1, -2, 1]}, r"game 0: .* sample_weight\[2\]"),
        (GAME, {"alpha": [0, 0.1, -1]}, "game 2: alpha must be"),
        (GAME, {"alpha": [[0.1] * 4, [0, 0.1, 1, 1], [0.1] * 4]}, "game 1: alpha .* every sample"),
        (GAME, {"alpha": np.ones((3, 5))}, r"alpha must hold an array of shape \(4,\)"),
        (GAME, {"alpha": np.ones((3, 4, 1))}, "alpha must be a number, one per game"),
        (GAME, {"candidate_mask": np.ones((4, 3), bool)}, r"candidate_mask must hold .* \(4, 2\)"),
        (GAME, {"candidate_mask": np.eye(4, 2, dtype=bool)}, "game 0: .* sample 2 without"),
        (GAME, {"candidate_mask": np.full((4, 2), 2)}, "game 0: candidate_mask must be boolean"),
        (GAME, {"candidate_prior": np.zeros((3, 4, 2))}, "game 0: candidate_prior must be finite"),
        (GAME, {"tol": 0.0}, "tol must be"),
        (GAME, {"max_iter": 0}, "max_iter must be"),
    ],
)
def test_wrong_input_is_named_with_its_game(losses, given, words):
    with pytest.raises(MixsolveError, match=words):
        mixsolve.solve_batch(losses, **given)


def test_wrong_types_are_type_errors():
    for given in ({"alpha": "0"}, {"alpha": None}, {"candidate_mask": np.full((4, 2), "a")}):
        with pytest.raises(MixsolveTypeError):
            mixsolve.solve_batch(GAME, **given)
    with pytest.raises(MixsolveTypeError, match="complex"):
        mixsolve.solve_batch(GAME * 1j)
