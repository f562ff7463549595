import tracemalloc

import numpy as np
import pytest

from mixsolve import MixsolveError, games
from mixsolve.base.tuning import tuning


def test_line_game_is_the_papers():
    game = games.line_game()
    points, labels = game.details["points"], game.details["labels"]
    classifiers = [lambda x: -x - 0.5, lambda x: x - 0.5]
    risk = [sum(w * (f(x) * y <= 0) for x, y, w in zip(points, labels, game.sample_weight,
            strict=True)) for f in classifiers]  # fmt: skip
    assert risk == [0.25, 0.25]
    assert np.abs(game.details["candidates"] - points[:, None]).max() <= 1.0
    for i in range(3):
        for j in range(3):
            x = game.details["candidates"][i, j]
            assert game.losses[i, j].tolist() == [int(f(x) * labels[i] <= 0) for f in classifiers]
    assert game.losses.dtype == np.uint8
    assert (game.sample_weight @ game.losses.max(axis=1)).tolist() == [1.0, 1.0]
    mixed = (game.losses @ game.weights).max(axis=1)
    assert game.sample_weight @ mixed == game.value == 0.75


def test_line_game_candidates_hold_an_optimal_attack_of_the_interval():
    game = games.line_game()
    for i, (x, y) in enumerate(zip(game.details["points"], game.details["labels"], strict=True)):
        moved = np.linspace(x - 1.0, x + 1.0, 4001)
        outputs = np.stack([-moved - 0.5, moved - 0.5], axis=-1)
        for share in np.linspace(0.0, 1.0, 11):
            lam = np.array([share, 1.0 - share])
            everywhere = ((outputs * y <= 0) @ lam).max()
            assert (game.losses[i] @ lam).max() == pytest.approx(everywhere, abs=1e-15)


@pytest.fixture(scope="module")
def plane():
    return games.paper2d(n_samples=400, n_candidates=300, n_classifiers=6, eps=2.0, seed=3)


def test_paper2d_losses_are_those_of_its_classifiers(plane):
    details = plane.details
    outputs = (
        np.einsum("ijd,kd->ijk", details["candidates"], details["directions"])
        + details["intercepts"]
    )
    margins = details["labels"][:, None, None] * outputs
    assert plane.losses.dtype == np.uint8
    assert np.array_equal(plane.losses, margins <= 0)
    logistic = games.paper2d(400, 300, 6, eps=2.0, loss="logistic", seed=3)
    assert logistic.losses.dtype == np.float64
    np.testing.assert_allclose(logistic.losses, np.log1p(np.exp(-margins)), rtol=1e-12)


def test_paper2d_keeps_good_normalised_classifiers(plane):
    details = plane.details
    np.testing.assert_allclose(np.linalg.norm(details["directions"], axis=1), 1.0, rtol=1e-14)
    margins = details["labels"][:, None] * (
        details["points"] @ details["directions"].T + details["intercepts"]
    )
    assert ((margins <= 0).mean(axis=0) < 0.4).all()
    assert len(np.unique(details["intercepts"])) == 6


def test_paper2d_points_follow_the_papers_law():
    details = games.paper2d(20_000, 1, 1, seed=0).details
    points, labels = details["points"], details["labels"]
    assert set(labels) == {-1, 1}
    assert abs((labels == 1).mean() - 0.5) < 0.02
    negative, positive = points[labels == -1], points[labels == 1]
    assert np.abs(negative.mean(axis=0)).max() < 0.05
    assert np.abs(np.cov(negative.T) - np.eye(2)).max() < 0.06
    assert abs((positive[:, 0] > 0).mean() - 0.5) < 0.02
    folded = np.stack([np.abs(positive[:, 0]) - 3.0, positive[:, 1]])
    assert np.abs(folded.mean(axis=1)).max() < 0.05
    assert np.abs(np.cov(folded) - np.eye(2)).max() < 0.06


def test_paper2d_candidates_are_uniform_in_the_ball(plane):
    steps = plane.details["candidates"] - plane.details["points"][:, None]
    radii = np.linalg.norm(steps, axis=-1).ravel() / 2.0
    assert radii.max() <= 1.0 + 1e-12
    # Of a uniform law on the disc, half the mass lies within 1 / sqrt(2) of the centre.
    assert abs((radii < np.sqrt(0.5)).mean() - 0.5) < 0.01
    assert np.abs(steps.mean(axis=(0, 1))).max() < 0.02


def test_paper2d_scales_one_set_of_draws(plane):
    other = games.paper2d(400, 300, 8, eps=0.5, seed=3)
    for name in ("points", "labels"):
        assert np.array_equal(other.details[name], plane.details[name])
    assert np.array_equal(other.details["directions"][:6], plane.details["directions"])
    assert np.array_equal(other.details["intercepts"][:6], plane.details["intercepts"])
    steps = [
        game.details["candidates"] - game.details["points"][:, None] for game in (plane, other)
    ]
    np.testing.assert_allclose(steps[1] * 4.0, steps[0], atol=1e-13)


def test_paper2d_can_include_the_point_itself(plane):
    game = games.paper2d(400, 300, 6, eps=2.0, seed=3, include_point=True)
    assert game.losses.shape == plane.losses.shape
    assert np.array_equal(game.details["candidates"][:, 0], game.details["points"])
    assert np.array_equal(game.losses[:, 1:], plane.losses[:, 1:])
    assert not np.array_equal(plane.details["candidates"][:, 0], game.details["points"])


def test_paper2d_says_when_no_classifier_is_good_enough(monkeypatch):
    monkeypatch.setattr("mixsolve.games.paper._MAX_STANDARD_RISK", 0.0)
    monkeypatch.setattr("mixsolve.games.paper._MAX_DRAWS", 2000)
    with pytest.raises(MixsolveError, match=r"only 0 of 2000 .* take more samples"):
        games.paper2d(50, 2, 1)


def test_gamma_game_is_its_formula():
    rng = np.random.default_rng(5)
    expected = 0.5 * rng.gamma(1, 1, (70, 1, 1)) + rng.gamma(0.5, 1.5, (70, 9, 4))
    assert np.array_equal(games.gamma_game(70, 9, 4, seed=5).losses, expected)


def test_gamma_game_does_not_depend_on_blocks_or_type(monkeypatch):
    whole = games.gamma_game(70, 9, 4, seed=5).losses
    monkeypatch.setattr(tuning, "drawn_entries", 100)
    assert np.array_equal(games.gamma_game(70, 9, 4, seed=5).losses, whole)
    single = games.gamma_game(70, 9, 4, seed=5, dtype="float32").losses
    assert single.dtype == np.float32
    assert np.array_equal(single, whole.astype(np.float32))


def test_gamma_game_in_float32_needs_little_beyond_itself():
    tracemalloc.start()
    try:
        losses = games.gamma_game(500_000, 10, 5, dtype=np.float32).losses
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.35 * losses.nbytes


def test_rock_paper_scissors_is_solved_by_its_weights():
    game = games.rock_paper_scissors()
    assert np.array_equal(game.losses[0], -game.losses[0].T)
    assert (game.losses[0] @ game.weights).tolist() == [0.0, 0.0, 0.0]
    assert game.value == 0.0


def test_matrix_game_keeps_rows_columns_and_type():
    matrix = np.array([[3, 1, 2], [0, 2, 5]], dtype=np.int16)
    game = games.matrix_game(matrix)
    assert game.losses.dtype == np.int16
    assert np.array_equal(game.losses, matrix[None])


def test_integer_game_reaches_both_ends_and_nothing_else():
    for high, dtype in ((0, np.uint8), (1, np.uint8), (3, np.uint8), (300, np.uint16)):
        losses = games.integer_game(40, 30, 20, high=high, seed=1).losses
        assert losses.dtype == dtype
        assert losses.shape == (40, 30, 20)
        assert (losses.min(), losses.max()) == (0, high)


GENERATORS = [
    lambda seed: games.paper2d(30, 10, 2, seed=seed),
    lambda seed: games.gamma_game(4, 3, 2, seed=seed),
    lambda seed: games.random_matrix_game(4, 3, seed=seed),
    lambda seed: games.integer_game(4, 3, 2, high=9, seed=seed),
]


@pytest.mark.parametrize("make", GENERATORS)
def test_a_seed_fixes_the_game_and_a_generator_advances(make):
    assert np.array_equal(make(7).losses, make(7).losses)
    assert not np.array_equal(make(7).losses, make(8).losses)
    assert np.array_equal(make(np.random.default_rng(7)).losses, make(7).losses)
    rng = np.random.default_rng(7)
    assert not np.array_equal(make(rng).losses, make(rng).losses)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make(7)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: games.gamma_game(0, 2, 2), "n_samples must be an integer >= 1, got 0"),
        (lambda: games.gamma_game(2, 2.5, 2), "n_candidates must be an integer .* got 2.5"),
        (lambda: games.gamma_game(2, 2, True), "n_classifiers must be an integer .* got True"),
        (lambda: games.gamma_game(2, 2, 2, dtype=int), "dtype must be a floating point type"),
        (lambda: games.integer_game(2, 2, 2, high=-1), "high must be an integer >= 0, got -1"),
        (lambda: games.paper2d(eps=-1.0), "eps must be a finite number >= 0, got -1.0"),
        (lambda: games.paper2d(eps=np.nan), "eps must be a finite number >= 0, got nan"),
        (lambda: games.paper2d(loss="hinge"), "loss must be 'zero-one' or 'logistic'.*'hinge'"),
        (lambda: games.paper2d(seed="x"), "seed must be an integer >= 0, got 'x'"),
        (lambda: games.matrix_game([1, 2]), r"matrix must have the shape .* got \(2,\)"),
        (lambda: games.matrix_game(np.empty((0, 2))), r"no empty axis, got \(0, 2\)"),
        (lambda: games.matrix_game([["a"]]), "matrix must hold real numbers"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(MixsolveError, match=words):
        call()


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ([[1.0, np.nan]], r"matrix must be finite, got nan at index \(0, 1\)"),
        ([[1.0], [-np.inf]], r"matrix must be finite, got -inf at index \(1, 0\)"),
        ([[1.0], [1.0, 2.0]], r"matrix must have the shape \(n_candidates, n_classifiers\)"),
        (np.ma.masked_array([[1, 2]], mask=[[0, 1]]), "matrix is a masked array"),
    ],
)
def test_a_matrix_of_no_game_is_refused(matrix, words):
    with pytest.raises(MixsolveError, match=words):
        games.matrix_game(matrix)


def test_a_type_that_is_none():
    with pytest.raises(MixsolveError, match="dtype must be a floating point type, got 'nonsense'"):
        games.gamma_game(2, 2, 2, dtype="nonsense")
