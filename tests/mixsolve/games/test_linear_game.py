from itertools import chain, combinations

import numpy as np
import pytest
from scipy.optimize import nnls

import mixsolve
from mixsolve import MixsolveError, MixsolveTypeError, games
from mixsolve.base.tuning import tuning
from mixsolve.games.linear_game import linear_game, paper2d_exact


def shortest_move(normals, distances):
    """The least ||u|| with normals @ u <= -distances, inf where there is none.

    Least distance programming by non-negative least squares (Lawson and Hanson 1974, chapter 23).
    """
    system = np.vstack([-normals.T, distances])
    target = np.zeros(len(system))
    target[-1] = 1.0
    solution, residual = nnls(system, target)
    if residual < 1e-9:
        return np.inf
    ray = system @ solution - target
    return np.linalg.norm(ray[:-1] / ray[-1])


def all_sets(n):
    return chain.from_iterable(combinations(range(n), r) for r in range(n + 1))


def random_game(seed, n_samples, d, n_classifiers, eps):
    rng = np.random.default_rng(seed)
    return linear_game(
        rng.standard_normal((n_samples, d)),
        rng.choice([-1, 1], n_samples),
        rng.standard_normal((n_classifiers, d)),
        rng.standard_normal(n_classifiers),
        eps,
    )


def outputs(game):
    details = game.details
    return (
        np.einsum("nmd,kd->nmk", details["candidates"], details["directions"])
        + details["intercepts"]
    )


def distances_moved(game):
    return np.linalg.norm(game.details["candidates"] - game.details["points"][:, None], axis=2)


@pytest.mark.parametrize(
    ("seed", "d", "n_classifiers"),
    [(0, 1, 4), (1, 2, 5), (2, 2, 2), (3, 3, 5), (4, 3, 2), (5, 5, 4)],
)
def test_a_set_is_fooled_by_a_candidate_exactly_where_its_half_spaces_meet_the_ball(
    seed, d, n_classifiers
):
    eps = 0.8
    game = random_game(seed, 12, d, n_classifiers, eps)
    details = game.details
    fooled, not_fooled = 0, 0
    for i in range(12):
        normals = details["labels"][i] * details["directions"]
        margins = normals @ details["points"][i] + details["labels"][i] * details["intercepts"]
        for chosen in map(list, all_sets(n_classifiers)):
            possible = not chosen or shortest_move(normals[chosen], margins[chosen]) <= eps
            assert game.losses[i][:, chosen].all(axis=1).any() == possible
            fooled, not_fooled = fooled + possible, not_fooled + (not possible)
    assert min(fooled, not_fooled) >= 5


@pytest.mark.parametrize("d", [2, 3])
def test_losses_are_those_of_the_candidates(d):
    game = random_game(7, 30, d, 6, 1.0)
    margins = game.details["labels"][:, None, None] * outputs(game)
    clear = np.abs(margins) > 1e-9
    assert np.array_equal(game.losses[clear], (margins <= 0)[clear])
    assert game.losses[~clear].all()
    # Boundaries projected on are errors whatever the rounding of the margin says.
    assert (margins[game.losses == 1] > 0).any()
    assert game.losses.dtype == np.uint8
    assert distances_moved(game).max() <= 1.0 + 1e-9


def test_the_boundaries_of_a_projection_are_errors_without_a_margin():
    rng = np.random.default_rng(12)
    points, directions = rng.standard_normal((100, 2)), rng.standard_normal((5, 2))
    game = linear_game(points, np.ones(100), directions, 0.5 * np.ones(5), 3.0, tie=0.0)
    sets = [[k] for k in range(5)] + [list(pair) for pair in combinations(range(5), 2)]
    for j, chosen in enumerate(sets, start=1):
        inside = game.details["mask"][:, j]
        assert game.losses[inside, j][:, chosen].all()
    assert game.details["mask"][:, 6:].mean() > 0.3


def test_candidates_outside_of_the_ball_repeat_the_sample():
    game = random_game(8, 40, 2, 4, 0.5)
    mask = game.details["mask"]
    assert mask[:, 0].all()
    assert 0.05 < mask[:, 1:].mean() < 0.5
    repeated = np.broadcast_to(game.losses[:, :1], game.losses.shape)
    assert np.array_equal(game.losses[~mask], repeated[~mask])
    assert (distances_moved(game)[~mask] == 0).all()
    with_mask = mixsolve.solve(game.losses, candidate_mask=mask)
    without = mixsolve.solve(game.losses)
    assert with_mask.value == pytest.approx(without.value, abs=1e-9)


def test_the_plane_has_a_candidate_for_each_boundary_and_each_pair():
    assert random_game(0, 3, 2, 10, 1.0).losses.shape == (3, 1 + 10 + 45, 10)
    assert random_game(0, 3, 3, 2, 1.0).losses.shape == (3, 1 + 2 + 1, 2)


def fooled_sets(game, i=0):
    return {tuple(np.flatnonzero(row)) for row in game.losses[i]}


def test_parallel_boundaries():
    # x >= 1, x >= 2 and x <= -1 err; the first two together, never all three.
    game = linear_game([[0.0, 0.0]], [1], [[-1, 0], [-1, 0], [1, 0]], [1, 2, 1], 2.5)
    assert fooled_sets(game) == {(), (0,), (0, 1), (2,)}
    assert fooled_sets(linear_game([[0.0, 0.0]], [1], [[-1, 0], [-1, 0]], [1, 2], 1.5)) == {
        (),
        (0,),
    }


def test_copies_of_a_classifier_err_together():
    rng = np.random.default_rng(3)
    points, direction = rng.standard_normal((200, 3)), rng.standard_normal(3)
    labels = rng.choice([-1, 1], 200)
    scales = np.array([1.0, 1.0, 3.7, 1e-3])
    game = linear_game(points, labels, scales[:, None] * direction, scales * 0.3, 0.9)
    assert (game.losses == game.losses[..., :1]).all()
    assert 0 < game.losses.max(axis=1).mean() < 1


def test_three_boundaries_through_one_point_err_together_there():
    angles = np.array([0.1, 1.3, 2.9])
    normals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rng = np.random.default_rng(4)
    points = 0.3 * rng.standard_normal((300, 2))
    crossing = np.array([0.4, -0.2])
    game = linear_game(points, rng.choice([-1, 1], 300), normals, -normals @ crossing, 5.0)
    assert game.losses.all(axis=2).any(axis=1).all()


def test_a_radius_of_zero_leaves_the_sample():
    game = random_game(9, 50, 2, 5, 0.0)
    assert np.array_equal(game.details["mask"][:, 1:], np.zeros((50, 15), bool))
    clean = game.details["labels"][:, None] * outputs(game)[:, 0] <= 0
    assert np.array_equal(game.losses[:, 0], clean)
    assert (game.losses == game.losses[:, :1]).all()


def test_a_sample_on_a_boundary_and_a_boundary_on_the_sphere_are_errors():
    directions = [[0.3, 0.4], [-0.1, 0.7]]
    on = linear_game([[1.0, 2.0]], [1], directions, [-1.1, 5.0], 0.0)
    assert on.losses[0, 0].tolist() == [1, 0]
    rng = np.random.default_rng(5)
    normals = rng.standard_normal((40, 2))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    for normal in normals:
        touched = linear_game([[0.0, 0.0]], [1], [normal], [0.7], 0.7)
        assert touched.losses.max() == 1
        missed = linear_game([[0.0, 0.0]], [1], [normal], [0.7 * (1 + 1e-6)], 0.7)
        assert missed.losses.max() == 0


def test_a_classifier_without_direction_is_constant():
    directions, intercepts = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [1e-30, -1, 0, 1]
    game = linear_game([[0.0, 0.0], [0.0, 0.0]], [1, -1], directions, intercepts, 2.0)
    assert game.losses.shape == (2, 2, 4)
    assert (game.losses[0, :, :3] == [0, 1, 1]).all()
    assert (game.losses[1, :, :3] == [1, 0, 1]).all()
    assert game.losses[:, :, 3].tolist() == [[0, 1], [1, 1]]
    constant = linear_game([[0.0]], [1], [[0.0]], [1.0], 3.0)
    assert constant.losses.tolist() == [[[0]]]


def test_what_is_misclassified_already_needs_no_move():
    game = linear_game([[0.0, 0.0]], [-1], [[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0], 1.5)
    assert game.losses[0].tolist() == [[1, 0], [1, 0], [1, 1], [1, 1]]


def test_scaling_a_classifier_or_the_whole_plane_changes_nothing():
    game = random_game(10, 60, 2, 6, 0.9)
    details = game.details
    scales = np.array([1e-8, 1e-3, 1.0, 2.0, 1e4, 1e8])
    scaled = linear_game(
        details["points"], details["labels"], scales[:, None] * details["directions"],
        scales * details["intercepts"], 0.9,
    )  # fmt: skip
    assert np.array_equal(game.losses, scaled.losses)
    for factor in (1e-6, 1e6):
        plane = linear_game(
            factor * details["points"], details["labels"], details["directions"],
            factor * details["intercepts"], factor * 0.9,
        )  # fmt: skip
        assert np.array_equal(game.losses, plane.losses)


def test_draws_in_the_ball_never_beat_the_exact_attack_and_approach_it():
    for eps in (0.5, 2.0):
        exact = paper2d_exact(200, 6, eps, seed=5)
        drawn = games.paper2d(200, 3000, 6, eps=eps, seed=5)
        assert np.array_equal(exact.details["points"], drawn.details["points"])
        assert np.array_equal(exact.details["directions"], drawn.details["directions"])
        rng = np.random.default_rng(6)
        for lam in [np.full(6, 1 / 6), *rng.dirichlet(np.ones(6), 5)]:
            best = (exact.losses @ lam).max(axis=1)
            sampled = (drawn.losses @ lam).max(axis=1)
            assert (sampled <= best + 1e-12).all()
            few = (drawn.losses[:, :30] @ lam).max(axis=1)
            assert best.mean() - sampled.mean() < 0.02
            assert best.mean() - sampled.mean() < 0.5 * (best.mean() - few.mean())


def test_blocks_of_samples_do_not_matter(monkeypatch):
    whole = random_game(11, 50, 2, 4, 0.7)
    monkeypatch.setattr(tuning, "scored_entries", 100)
    parts = random_game(11, 50, 2, 4, 0.7)
    assert np.array_equal(whole.losses, parts.losses)
    np.testing.assert_allclose(whole.details["candidates"], parts.details["candidates"], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"points": [[[0.0]]]}, r"points must have the shape \(n_samples, d\).*got \(1, 1, 1\)"),
        ({"points": np.empty((0, 2))}, r"points must have .* got \(0, 2\)"),
        ({"points": [[0.0, np.nan]]}, r"points must be finite, got nan at index \(0, 1\)"),
        ({"labels": [1, 1]}, "labels must have one entry for each of the 1 points, got 2"),
        ({"labels": [0]}, "labels must be -1 or 1, got 0 at index 0"),
        ({"intercepts": [1.0]}, "intercepts must have one entry for each of the 2 directions"),
        ({"directions": np.ones((2, 3))}, "directions must have the 2 coordinates of the points"),
        ({"directions": [["a", "b"]]}, "directions must hold real numbers"),
        ({"eps": -1.0}, "eps must be a finite number >= 0"),
        ({"tie": 2.0}, "tie must be"),
    ],
)
def test_wrong_input_is_named(change, words):
    given = {
        "points": [[0.0, 0.0]],
        "labels": [1],
        "directions": [[1.0, 0.0], [0.0, 1.0]],
        "intercepts": [1.0, 1.0],
        "eps": 1.0,
    }
    with pytest.raises(MixsolveError, match=words):
        linear_game(**{**given, **change})


def test_complex_numbers_are_a_type_error_and_too_many_sets_are_refused():
    with pytest.raises(MixsolveTypeError, match="intercepts must hold real numbers"):
        linear_game([[0.0]], [1], [[1.0]], [1j], 1.0)
    with pytest.raises(MixsolveError, match=r"at most 65536 candidates a sample, got 1048576"):
        linear_game(np.zeros((1, 20)), [1], np.eye(20), np.zeros(20), 1.0)
