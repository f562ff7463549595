"""Samples side by side: layout, exponentials and soft responses against the plain formulas."""

import numpy as np
import pytest

from mixsolve.kernels import batch, batch_soft, batch_table


def load(losses, allowed=None, prior=None, alpha=1.0):
    """One game of (N, m, L) losses as the kernels of a batch read it."""
    n_samples, n_candidates, size = losses.shape
    flags = np.empty(0, np.uint8) if allowed is None else allowed.reshape(-1).view(np.uint8)
    measure = np.empty(0) if prior is None else prior.reshape(-1)
    weight = np.full(n_samples, 1.0 / n_samples)
    offsets = np.arange(n_samples + 1) * n_candidates
    rows = np.ascontiguousarray(losses.reshape(-1, size))
    return batch.load(rows, 0, offsets, flags, measure, weight, np.full(n_samples, alpha))


def test_samples_of_equally_many_rows_lie_together(rng):
    losses = rng.random((9, 4, 3))
    allowed = rng.random((9, 4)) < 0.5
    allowed[:, 1] = True
    columns, groups, place, *_, finite = load(losses, allowed)
    assert finite
    np.testing.assert_array_equal(np.sort(place), np.flatnonzero(allowed.reshape(-1)))
    np.testing.assert_array_equal(columns[:, : place.size].T, losses.reshape(-1, 3)[place])
    for count, n, begin, _ in groups:
        of_sample = place[begin : begin + count * n].reshape(count, n) // 4
        assert (of_sample == of_sample[0]).all()
        np.testing.assert_array_equal(allowed[of_sample[0]].sum(axis=1), count)


def test_the_first_best_row_responds(rng):
    losses = rng.integers(0, 3, (20, 6, 4)).astype(float)
    columns, groups, place, _, weight, *_ = load(losses)
    weights = np.full(4, 0.25)
    top, best, gradient = np.empty(20), np.empty(20, dtype=np.int64), np.empty(4)
    value = batch_table.respond(
        columns, groups, weight, weights, np.empty(place.size), top, best, gradient
    )
    scores = losses @ weights
    assert value == pytest.approx(scores.max(axis=1).mean())
    np.testing.assert_array_equal(place[best] % 6, scores.argmax(axis=1))
    chosen = losses[np.arange(20), scores.argmax(axis=1)]
    np.testing.assert_allclose(gradient, chosen.mean(axis=0))


def test_exponentials_are_right_to_the_last_bits(rng):
    x = -np.concatenate([40 * rng.random(3000), rng.random(3000), 690 * rng.random(500), [0.0]])
    out = np.empty(x.size)
    batch_soft.exponentials(x, out)
    np.testing.assert_allclose(out, np.exp(x), rtol=5e-16)
    assert out[-1] == 1.0
    low = np.array([-1e4, -np.inf])
    batch_soft.exponentials(low, out[:2])
    assert (out[:2] < 1e-300).all()


@pytest.mark.parametrize("alpha", [0.01, 0.3, 1e6])
@pytest.mark.parametrize("measured", [False, True])
def test_soft_responses_are_those_of_the_formula(alpha, measured, rng):
    losses = rng.random((12, 5, 3))
    prior = rng.random((12, 5)) + 0.1 if measured else None
    columns, groups, _, priors, weight, alphas, _ = load(losses, prior=prior, alpha=alpha)
    weights = rng.dirichlet(np.ones(3))
    gradient, hessian = np.empty(3), np.empty((3, 3))
    value = batch_soft.soft_response(
        columns, groups, priors, weight, alphas, weights, gradient, hessian
    )
    share = np.full((12, 5), 0.2) if prior is None else prior / prior.sum(axis=1, keepdims=True)
    scores = losses @ weights
    mass = share * np.exp((scores - scores.max(axis=1, keepdims=True)) / alpha)
    expected = (scores.max(axis=1) + alpha * np.log(mass.sum(axis=1))).mean()
    q = mass / mass.sum(axis=1, keepdims=True)
    mean = np.einsum("ij,ijk->ik", q, losses)
    spread = losses - mean[:, None]
    assert value == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(gradient, mean.mean(axis=0), rtol=1e-12)
    curvature = np.einsum("ij,ija,ijb->ab", q, spread, spread) / (12 * alpha)
    np.testing.assert_allclose(hessian, curvature, rtol=1e-9, atol=1e-15 / alpha)
