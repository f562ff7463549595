"""What must not matter does not: properties of the game that hold for every tensor.

Optimal mixtures need not be unique, so two solves are compared by what is: their values, and
whether the weights of one are optimal in the other's game, both within the certified gaps.
"""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import check_certificate, entropic_risk, exact_risk

import mixsolve

METHODS = pytest.mark.parametrize(
    ("method", "smoothing"), [("lp", 0.0), ("newton", 0.3), ("apg", 0.3), ("newton", 0.03)]
)


@st.composite
def tensors(draw, max_samples=5, max_candidates=5, max_classifiers=4):
    """Small tensors: continuous losses, or few integers with ties."""
    shape = (
        draw(st.integers(1, max_samples)),
        draw(st.integers(1, max_candidates)),
        draw(st.integers(1, max_classifiers)),
    )
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 10_000)))
        return rng.normal(size=shape)
    return draw(hnp.arrays(np.float64, shape, elements=st.integers(-1, 2).map(float)))


seeds = st.integers(0, 10_000).map(np.random.default_rng)


def regularisation(losses, smoothing):
    """An alpha in the unit of the losses, a different one for each sample."""
    M = float(np.ptp(losses)) or 1.0
    return smoothing * M * np.linspace(0.8, 1.2, len(losses)) if smoothing else 0.0


def solve(losses, alpha, method, **game):
    solution = mixsolve.solve(losses, alpha, method=method, **game)
    check_certificate(solution, losses, alpha, **game)
    assert solution.success
    return solution


def objective(losses, weights, alpha, **game):
    if np.any(alpha):
        return entropic_risk(losses, weights, alpha, **game)
    return exact_risk(losses, weights, **game)


def assert_same_value(first, second, value=None, rounding=1e-12):
    """Two certified values of one optimum differ by no more than the gaps allow."""
    value = second.value if value is None else value
    assert first.value - value <= first.gap + rounding
    assert value - first.value <= second.gap + rounding


@METHODS
@given(losses=tensors(), exponent=st.floats(-8.0, 8.0))
@example(losses=np.eye(3)[None], exponent=-8.0)
@example(losses=np.eye(3)[None], exponent=8.0)
@example(losses=np.full((1, 1, 1), 0.125), exponent=2.0)
def test_scaling_losses_and_alpha_together(method, smoothing, losses, exponent):
    c = 10.0**exponent
    alpha = regularisation(losses, smoothing)
    plain = solve(losses, alpha, method)
    scaled = solve(c * losses, c * alpha, method)
    assert scaled.value / c - plain.value <= scaled.gap / c + 1e-11
    assert plain.value - scaled.value / c <= plain.gap + 1e-11
    crossed = objective(losses, scaled.weights, alpha)
    assert crossed - plain.value <= scaled.gap / c + 1e-11


@pytest.mark.parametrize(("method", "alpha"), [("lp", 0.0), ("newton", 0.5), ("apg", 0.5)])
@pytest.mark.parametrize("c", [1e-8, 1e-3, 7.0, 1e8])
def test_scaling_keeps_weights_that_are_unique(losses, method, alpha, c):
    plain = mixsolve.solve(losses, alpha, method=method, tol=1e-10)
    scaled = mixsolve.solve(c * losses, c * alpha, method=method, tol=1e-10)
    np.testing.assert_allclose(scaled.weights, plain.weights, atol=1e-4 if alpha else 1e-7)


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
@pytest.mark.parametrize("c", [2.0**-26, 2.0**26])
def test_scaling_keeps_the_subgradient_path(losses, c):
    plain = mixsolve.solve(losses, method="oracle", max_iter=50)
    scaled = mixsolve.solve(c * losses, method="oracle", max_iter=50)
    np.testing.assert_allclose(scaled.weights, plain.weights, rtol=1e-12)
    assert scaled.gap / c == pytest.approx(plain.gap, rel=1e-9)


@METHODS
@given(losses=tensors(), rng=seeds, size=st.sampled_from([1.0, 30.0, -1000.0]))
@example(losses=np.zeros((1, 1, 1)), rng=np.random.default_rng(0), size=30.0)
@example(losses=np.zeros((2, 2, 2)), rng=np.random.default_rng(0), size=-1000.0)
def test_constants_of_a_sample_change_only_the_value(method, smoothing, losses, rng, size):
    constants = size * rng.random(len(losses))
    alpha = regularisation(losses, smoothing)
    plain = solve(losses, alpha, method)
    shifted = solve(losses + constants[:, None, None], alpha, method)
    rounding = 1e-12 * (1.0 + abs(size))
    assert_same_value(plain, shifted, shifted.value - constants.mean(), rounding)
    crossed = objective(losses, shifted.weights, alpha)
    assert crossed - plain.value <= shifted.gap + rounding


@pytest.mark.parametrize("method", ["lp", "cvxpy"])
@given(losses=tensors(), rng=seeds)
def test_duplicating_candidates_changes_nothing_at_alpha_0(method, losses, rng):
    repeated = losses[:, rng.integers(0, losses.shape[1], 3)]
    plain = solve(losses, 0.0, method)
    doubled = solve(np.concatenate([losses, repeated], axis=1), 0.0, method)
    assert_same_value(plain, doubled)
    assert exact_risk(losses, doubled.weights) - plain.value <= doubled.gap + 1e-12


@METHODS
@given(losses=tensors(), rng=seeds)
def test_doubling_every_candidate_changes_nothing(method, smoothing, losses, rng):
    """Uniformly doubled candidates keep the base measure, so this holds at every alpha."""
    alpha = regularisation(losses, smoothing)
    doubled = np.concatenate([losses, losses], axis=1)[:, rng.permutation(2 * losses.shape[1])]
    assert_same_value(solve(losses, alpha, method), solve(doubled, alpha, method))


@METHODS
@given(losses=tensors(), rng=seeds)
def test_permuting_permutes_the_answer(method, smoothing, losses, rng):
    samples, candidates, classifiers = (rng.permutation(n) for n in losses.shape)
    alpha = regularisation(losses, smoothing)
    sample_weight = rng.random(len(losses)) + 0.1
    plain = solve(losses, alpha, method, sample_weight=sample_weight)
    moved = solve(
        losses[samples][:, candidates][:, :, classifiers],
        alpha[samples] if smoothing else 0.0,
        method,
        sample_weight=sample_weight[samples],
    )
    assert_same_value(plain, moved)
    weights = np.empty_like(moved.weights)
    weights[classifiers] = moved.weights
    crossed = objective(losses, weights, alpha, sample_weight=sample_weight)
    assert crossed - plain.value <= moved.gap + 1e-12


@pytest.mark.parametrize(("method", "alpha"), [("lp", 0.0), ("newton", 0.5), ("apg", 0.5)])
def test_permuting_classifiers_permutes_unique_weights(losses, method, alpha):
    order = [2, 0, 1]
    plain = mixsolve.solve(losses, alpha, method=method, tol=1e-10)
    moved = mixsolve.solve(losses[:, :, order], alpha, method=method, tol=1e-10)
    np.testing.assert_allclose(moved.weights, plain.weights[order], atol=1e-4 if alpha else 1e-7)
    attack = mixsolve.solve(losses[:, ::-1], alpha, method=method, tol=1e-10).attack
    np.testing.assert_allclose(attack.dense()[:, ::-1], plain.attack.dense(), atol=1e-3)


@METHODS
@given(losses=tensors(), rng=seeds)
def test_a_sample_of_weight_zero_is_a_removed_sample(method, smoothing, losses, rng):
    extra = rng.permutation(losses.ravel()).reshape(losses.shape)
    sample_weight = rng.random(len(losses)) + 0.1
    alpha = regularisation(losses, smoothing)
    plain = solve(losses, alpha, method, sample_weight=sample_weight)
    padded = solve(
        np.concatenate([extra, losses]),
        np.concatenate([alpha, alpha]) if smoothing else 0.0,
        method,
        sample_weight=np.concatenate([np.zeros(len(extra)), sample_weight]),
    )
    assert_same_value(plain, padded)
    crossed = objective(losses, padded.weights, alpha, sample_weight=sample_weight)
    assert crossed - plain.value <= padded.gap + 1e-12


@METHODS
@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf, 1e6])
@given(losses=tensors(), rng=seeds)
def test_a_masked_candidate_is_a_removed_candidate(method, smoothing, hidden, losses, rng):
    mask = rng.random(losses.shape[:2]) < 0.6
    mask[np.arange(len(losses)), rng.integers(0, losses.shape[1], len(losses))] = True
    alpha = regularisation(losses, smoothing)
    prior = rng.random(mask.shape) + 0.1
    ragged = [table[allowed] for table, allowed in zip(losses, mask, strict=True)]
    hiding = np.where(mask[..., None], losses, hidden)
    game = {"candidate_prior": [row[allowed] for row, allowed in zip(prior, mask, strict=True)]}
    removed = solve(ragged, alpha, method, **(game if smoothing else {}))
    game = {"candidate_prior": np.where(mask, prior, hidden)} if smoothing else {}
    masked = solve(hiding, alpha, method, candidate_mask=mask, **game)
    assert_same_value(removed, masked)
    assert masked.spread == removed.spread
    assert masked.smoothing_bound == pytest.approx(removed.smoothing_bound, rel=1e-12)
    assert (masked.attack.dense()[~mask] == 0.0).all()


@METHODS
@given(losses=tensors(max_samples=4), rng=seeds)
def test_integer_weights_are_repeated_samples(method, smoothing, losses, rng):
    counts = rng.integers(1, 4, len(losses))
    alpha = regularisation(losses, smoothing)
    weighted = solve(losses, alpha, method, sample_weight=counts)
    repeated = solve(
        np.repeat(losses, counts, axis=0),
        np.repeat(alpha, counts) if smoothing else 0.0,
        method,
    )
    assert_same_value(weighted, repeated)


@METHODS
@given(losses=tensors(), rng=seeds, factor=st.floats(1e-6, 1e6))
def test_sample_weights_count_relative_to_each_other(method, smoothing, losses, rng, factor):
    sample_weight = rng.random(len(losses)) + 0.1
    alpha = regularisation(losses, smoothing)
    assert_same_value(
        solve(losses, alpha, method, sample_weight=sample_weight),
        solve(losses, alpha, method, sample_weight=factor * sample_weight),
    )


@pytest.mark.parametrize("method", ["newton", "apg"])
@given(losses=tensors(), rng=seeds, smoothing=st.sampled_from([0.03, 0.3, 3.0]))
def test_integer_priors_are_duplicated_candidates(method, losses, rng, smoothing):
    counts = rng.integers(1, 4, losses.shape[:2])
    alpha = regularisation(losses, smoothing)
    prior = solve(losses, alpha, method, candidate_prior=counts)
    duplicated = solve(
        [np.repeat(table, count, axis=0) for table, count in zip(losses, counts, strict=True)],
        alpha,
        method,
    )
    assert_same_value(prior, duplicated)
    scaled = solve(losses, alpha, method, candidate_prior=counts * 2.0 ** -rng.integers(1, 9))
    assert_same_value(prior, scaled)


@given(losses=tensors(), rng=seeds)
def test_a_duplicated_classifier_changes_no_value(losses, rng):
    copy = losses[..., rng.integers(0, losses.shape[2], 1)]
    for method, smoothing in (("lp", 0.0), ("newton", 0.3)):
        alpha = regularisation(losses, smoothing)
        more = solve(np.concatenate([losses, copy], axis=2), alpha, method)
        assert_same_value(solve(losses, alpha, method), more)


@given(losses=tensors())
def test_more_classifiers_never_hurt_and_more_candidates_never_help(losses):
    exact = solve(losses, 0.0, "lp")
    if losses.shape[2] > 1:
        fewer = solve(losses[..., 1:], 0.0, "lp")
        assert exact.lower_bound <= fewer.value + 1e-12
    if losses.shape[1] > 1:
        weaker = solve(losses[:, 1:], 0.0, "lp")
        assert weaker.lower_bound <= exact.value + 1e-12


@given(losses=tensors())
def test_the_entropic_value_rises_to_the_exact_one(losses):
    exact = solve(losses, 0.0, "lp")
    M = float(np.ptp(losses)) or 1.0
    above = exact
    for alpha in (0.01 * M, 0.1 * M, M):
        entropic = solve(losses, alpha, "newton")
        assert entropic.lower_bound <= above.value + 1e-12
        assert exact.lower_bound <= entropic.risk + 1e-12
        assert exact.lower_bound - entropic.value <= alpha * np.log(losses.shape[1]) + 1e-12
        assert entropic.risk_lower_bound <= exact.value + 1e-12
        above = entropic
