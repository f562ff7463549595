"""Every pass of the engine against the lines of NumPy that say the same."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from every_engine import (  # noqa: F401
    KINDS,
    Case,
    engine_of,
    everything_an_engine_says,
    make,
    near_rows,
    pairs,
    planted,
    test_best_response,
    test_derivatives_by_finite_differences,
    test_every_candidate_and_gather,
    test_gibbs,
    test_limits_of_the_soft_response,
    test_log_prior,
    test_losses_under_the_gibbs_strategy_are_the_gradient,
    test_lower_bound_is_one,
    test_near_response,
    test_passes_are_counted,
    test_range_of_the_losses,
    test_rough_response_has_the_same_value_and_gradient,
    test_soft_answer_is_the_three_responses,
    test_soft_response,
    test_strategy_and_expected_losses,
    test_strategy_of_pure_responses,
    test_subsample,
)

import mixsolve
from mixsolve.base import threads
from mixsolve.base.tuning import tuning


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request, monkeypatch):
    """Once with a small game in one piece, once in many chunks of many blocks, on three threads."""
    if request.param == "in pieces":
        monkeypatch.setattr(tuning, "chunk_entries", 256)
        monkeypatch.setattr(threads, "n_threads", lambda: 3)
        monkeypatch.setattr(tuning, "kept_bytes", 0)
        monkeypatch.setattr(tuning, "block_entries", 64)


@pytest.fixture(params=KINDS)
def case(request, pieces):
    return make(request.param)


def test_ties_go_to_the_first_candidate(pieces):
    losses = np.array([[[0, 4], [2, 2], [4, 0], [2, 2]], [[1, 1], [1, 1], [0, 2], [1, 0]]])
    for dtype in (np.float64, np.float32, np.uint8):
        engine = engine_of(losses.astype(dtype))
        weights = np.array([0.5, 0.5])
        np.testing.assert_array_equal(engine.best_response(weights).candidates, [0, 0])
        near = engine.near_response(weights, 0.0, 100)
        np.testing.assert_array_equal(near.candidates, [0, 0])
    masked = engine_of(losses, mask=np.array([[False, True, True, True], [False] * 2 + [True] * 2]))
    np.testing.assert_array_equal(masked.best_response(weights).candidates, [1, 2])


def test_of_many_near_rows_those_are_listed_that_win_when_one_weight_changes():
    case = Case(planted(np.random.default_rng(3), (20, 60, 3)))
    weights, radius = np.full(3, 1.0 / 3.0), 0.5
    listed, everything = near_rows(case, weights, radius, None)
    assert 0 < len(listed) < len(everything)
    near = case.engine.near_response(weights, radius, case.engine.n_rows)
    assert pairs(near) == listed
    for k in range(3):
        move = radius * np.sqrt(3) * np.eye(3)[k]
        for i, best in enumerate(near.candidates.tolist()):
            close = sorted({best} | {j for sample, j in everything if sample == i})
            for moved in (weights + move, weights - move):
                value = case.rows[i] @ moved
                wins = close[int(np.argmax(value[close]))]
                assert (i, wins) in listed or value[wins] <= value[best] + 1e-12


@pytest.mark.parametrize("kind", ["float64", "masked", "everything"])
def test_near_rows_beyond_the_limit_are_counted_and_dropped(kind):
    case = make(kind)
    weights = np.full(case.size, 1.0 / case.size)
    slack = np.full(case.engine.n_samples, 0.5 * case.engine.spread)
    whole = case.engine.near_response(weights, 0.1, case.engine.n_rows, slack)
    assert whole.n_near == whole.near_samples.size > 10
    for limit in (0, 1, 7, whole.n_near - 1, whole.n_near, case.engine.n_rows):
        near = case.engine.near_response(weights, 0.1, limit, slack)
        assert near.n_near == whole.n_near
        assert pairs(near) == pairs(whole)[:limit]
        assert near.value == whole.value


def test_near_rows_in_pieces_stay_within_the_limit(monkeypatch):
    monkeypatch.setattr(tuning, "chunk_entries", 256)
    case = make("float64")
    weights = np.full(case.size, 1.0 / case.size)
    slack = np.full(case.engine.n_samples, 0.5 * case.engine.spread)
    whole = case.engine.near_response(weights, 0.1, case.engine.n_rows, slack)
    near = case.engine.near_response(weights, 0.1, 40, slack)
    assert near.n_near == whole.n_near
    assert 0 < near.near_samples.size <= 40
    assert set(pairs(near)) < set(pairs(whole))
    assert (np.diff(near.near_samples) >= 0).all()


def test_gibbs_leaves_out_what_rounding_would_lose():
    losses = -np.array([0.0, 39.9, 40.1, 5.0])[None, :, None]  # exp(-40) = 4e-18
    candidates, probabilities = engine_of(losses).gibbs(np.ones(1), np.ones(1))[0]
    np.testing.assert_array_equal(candidates, [0, 1, 3])
    q = np.exp([0.0, -39.9, -5.0])
    np.testing.assert_allclose(probabilities, q / q.sum(), rtol=1e-13)


def test_a_subsample_of_no_weight_is_weighted_evenly():
    weight = np.array([0.0, 1.0, 0.0, 0.0])
    engine = engine_of(np.arange(24.0).reshape(4, 3, 2), weight)
    np.testing.assert_array_equal(engine.subsample(np.array([0, 2])).sample_weight, [0.5, 0.5])
    np.testing.assert_array_equal(engine.subsample(np.array([0, 1])).sample_weight, [0.0, 1.0])


@pytest.mark.parametrize("contiguous", [True, False])
def test_results_do_not_depend_on_the_number_of_threads(monkeypatch, contiguous):
    rng = np.random.default_rng(9)
    losses = rng.gamma(0.5, 1.0, (3000, 21, 5))
    if not contiguous:
        monkeypatch.setattr(tuning, "kept_bytes", 0)
        monkeypatch.setattr(tuning, "block_entries", 1 << 12)
        losses = np.asfortranarray(losses)
    assert threads.chunk_bounds(3000, losses.size).size > 4
    weights, alpha = rng.dirichlet(np.ones(5)), rng.uniform(0.05, 0.5, 3000)
    slack = 0.1 * rng.random(3000)
    answers = []
    for count in (1, 2, 5):
        with ThreadPoolExecutor(max(1, count - 1)) as pool:
            monkeypatch.setattr(threads, "n_threads", lambda count=count: count)
            monkeypatch.setattr(threads, "_pool", lambda _, pool=pool: pool)
            engine = engine_of(losses)
            answers.append(everything_an_engine_says(engine, weights, alpha, slack))
    for other in answers[1:]:
        for one, two in zip(answers[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_large_game_in_chunks_against_numpy():
    rng = np.random.default_rng(10)
    losses = planted(rng, (2000, 40, 4))
    assert threads.chunk_bounds(2000, losses.size).size > 3
    engine = engine_of(losses)
    weights = rng.dirichlet(np.ones(4))
    score = losses @ weights
    response = engine.best_response(weights)
    np.testing.assert_array_equal(response.candidates, score[:, :-1].argmax(axis=1))
    assert response.value == pytest.approx(score.max(axis=1).mean(), rel=1e-13)
    q = np.exp((score - score.max(axis=1, keepdims=True)) / 0.1)
    q /= q.sum(axis=1, keepdims=True)
    gradient = np.einsum("ij,ijk->k", q, losses) / 2000
    centred = losses - np.einsum("ij,ijk->ik", q, losses)[:, None]
    hessian = np.einsum("ij,ijk,ijl->kl", q, centred, centred) / (0.1 * 2000)
    found = engine.soft_response(weights, np.full(2000, 0.1))
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-11)
    np.testing.assert_allclose(found.hessian, hessian, rtol=1e-9)


def test_number_of_threads_from_the_environment(monkeypatch):
    count = threads.n_threads.__wrapped__
    monkeypatch.setenv(threads.ENVIRONMENT_VARIABLE, "3")
    assert count() == 3
    monkeypatch.delenv(threads.ENVIRONMENT_VARIABLE)
    cores = count()
    assert cores >= 1
    for nonsense in ("0", "-2", "many", ""):
        monkeypatch.setenv(threads.ENVIRONMENT_VARIABLE, nonsense)
        assert count() == cores


@pytest.mark.parametrize("count", [1, 3])
def test_every_chunk_runs_once_and_errors_come_through(monkeypatch, count):
    monkeypatch.setattr(threads, "n_threads", lambda: count)
    seen = []
    threads.run_chunks(seen.append, 11)
    assert sorted(seen) == list(range(11))

    def fail(chunk):
        if chunk == 10:
            raise ValueError("chunk 10")

    with pytest.raises(ValueError, match="chunk 10"):
        threads.run_chunks(fail, 11)


def test_a_masked_candidate_stays_out_when_alpha_is_next_to_overflow():
    losses = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [5.0, 5.0]]])
    mask = np.array([[True, True, True, False]])
    solution = mixsolve.solve(losses, 1e307, candidate_mask=mask)
    assert solution.value == pytest.approx(2.0 / 3.0)
