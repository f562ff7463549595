"""The projection onto the simplex, and quadratic models minimised over it."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from mixsolve.feasible import simplex
from mixsolve.kernels.simplex_qp import minimize_quadratic

EPSILON = np.finfo(np.float64).eps


def vectors(largest):
    numbers = st.floats(-largest, largest, allow_nan=False)
    return hnp.arrays(np.float64, st.integers(1, 12), elements=numbers)


def assert_on_simplex(weights):
    assert weights.dtype == np.float64
    assert weights.min() >= 0.0
    assert abs(weights.sum() - 1.0) <= 4 * EPSILON * weights.size


@given(vectors(1e300))
@example(np.array([1e300, -1e300, 1e300]))
@example(np.array([5e-324, 0.0, -5e-324]))
@example(np.zeros(7))
@example(np.array([1e17, 1e17, 1e17 - 16]))
@example(np.array([0.5, 0.5, 0.0]))
def test_projection_is_feasible(point):
    given_point = point.copy()
    weights = simplex.project(point)
    assert_on_simplex(weights)
    np.testing.assert_array_equal(point, given_point)


@given(vectors(30.0), st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e12]))
@example(np.array([-1.0, 2.0]), 1e12)
def test_projection_is_the_nearest_point(point, scale):
    """<point - x, y - x> <= 0 for every y on the simplex: its vertices suffice."""
    point = scale * point
    weights = simplex.project(point)
    away = point - point.max() - weights
    reach = max(1.0, np.abs(away).max())
    assert away.max() - away @ weights <= 1e-15 * point.size**2 * reach


@given(vectors(5.0), st.floats(-1e3, 1e3))
def test_projection_does_not_see_a_shift(point, shift):
    shifted = simplex.project(point + shift)
    rounding = 4 * point.size * EPSILON * (1.0 + abs(shift) + 5.0)
    np.testing.assert_allclose(shifted, simplex.project(point), rtol=0.0, atol=rounding)


@given(vectors(10.0))
def test_projection_leaves_the_simplex_alone(point):
    weights = simplex.project(point)
    np.testing.assert_allclose(simplex.project(weights), weights, rtol=0.0, atol=1e-14)


@given(vectors(3.0), vectors(3.0))
def test_projection_brings_points_together(one, two):
    size = min(one.size, two.size)
    one, two = one[:size], two[:size]
    distance = np.linalg.norm(simplex.project(one) - simplex.project(two))
    assert distance <= np.linalg.norm(one - two) + 1e-13


@pytest.mark.parametrize(
    ("point", "weights"),
    [
        ([0.4, 0.4, -1.0], [0.5, 0.5, 0.0]),
        ([2.0, 0.0], [1.0, 0.0]),
        ([1.0, 0.0], [1.0, 0.0]),
        ([-5.0], [1.0]),
        ([0.75, 0.75], [0.5, 0.5]),
        ([1.0, 0.5, 0.0], [0.75, 0.25, 0.0]),
        ([1e20, 1e20, 0.0], [0.5, 0.5, 0.0]),
    ],
)
def test_projection_of_known_points(point, weights):
    np.testing.assert_allclose(simplex.project(np.array(point)), weights, rtol=0.0, atol=1e-15)


def test_normalize():
    weights = simplex.normalize(np.array([0.5, -1e-17, 1.5, 0.0]))
    np.testing.assert_array_equal(weights, [0.25, 0.0, 0.75, 0.0])
    np.testing.assert_array_equal(simplex.normalize(np.array([3e-300])), [1.0])


@given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-1e-9, 1e3)))
def test_normalized_is_feasible_and_proportional(point):
    point[0] = 1.0
    weights = simplex.normalize(point)
    assert_on_simplex(weights)
    kept = point > 0.0
    np.testing.assert_allclose(weights[kept], point[kept] / point[kept].sum(), rtol=1e-14)
    np.testing.assert_array_equal(weights[~kept], 0.0)


def test_uniform():
    for size in (1, 3, 10):
        np.testing.assert_array_equal(simplex.uniform(size), np.full(size, 1.0 / size))


def model(gradient, hessian, start, ridge, point):
    """Value and slope of the quadratic model at a point."""
    step = point - start
    curved = hessian @ step + ridge * step
    return gradient @ step + 0.5 * step @ curved, gradient + curved


def assert_minimum(gradient, hessian, start, ridge, digits):
    """Feasible, and of least slope wherever a weight is used: optimal, the model being convex."""
    given_start = start.copy()
    point = minimize_quadratic(gradient, hessian, start, ridge)
    np.testing.assert_array_equal(start, given_start)
    assert_on_simplex(point)
    _, slope = model(gradient, hessian, start, ridge, point)
    # <slope, point - y> over all y bounds the distance of the value from the optimum.
    assert slope @ point - slope.min() <= digits * np.abs(gradient).max()
    return point


def random_hessian(rng, size, rank, condition=1.0):
    factor = rng.normal(size=(size, rank)) * np.logspace(0, -np.log10(condition) / 2, rank)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return (hessian := basis @ factor @ factor.T @ basis.T) / 2 + hessian.T / 2


def starts(rng, size):
    sparse = rng.dirichlet(np.full(size, 0.1))
    sparse[sparse < 1e-3] = 0.0
    return [np.full(size, 1.0 / size), np.eye(size)[rng.integers(size)], sparse / sparse.sum()]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 30, 64])
@pytest.mark.parametrize("kind", ["full rank", "singular", "rank one", "zero"])
def test_minimum_of_random_models(rng, size, kind):
    rank = {"full rank": size + 2, "singular": (size + 1) // 2, "rank one": 1, "zero": 0}[kind]
    for scale in (1e-3, 1.0, 30.0):
        for start in starts(rng, size):
            hessian = scale * random_hessian(rng, size, rank)
            gradient = rng.normal(size=size)
            assert_minimum(gradient, hessian, start, 1e-9 * scale, 1e-9)


@pytest.mark.parametrize("condition", [1e4, 1e8, 1e13])
@pytest.mark.parametrize("size", [3, 10, 30])
def test_minimum_of_ill_conditioned_models(rng, size, condition):
    for start in starts(rng, size):
        hessian = random_hessian(rng, size, size, condition)
        gradient = 0.3 * rng.normal(size=size)
        assert_minimum(gradient, hessian, start, 1e-14, 1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_minimum_scales(rng, scale):
    hessian, gradient = random_hessian(rng, 6, 6), rng.normal(size=6)
    start = np.full(6, 1.0 / 6.0)
    point = assert_minimum(gradient, hessian, start, 1e-6, 1e-10)
    scaled = assert_minimum(scale * gradient, scale * hessian, start, 1e-6 * scale, 1e-10)
    np.testing.assert_allclose(scaled, point, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_minimum_against_slsqp(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 9))
    hessian = random_hessian(rng, size, int(rng.integers(1, size + 1)))
    gradient, ridge = rng.normal(size=size), 1e-3
    start = np.full(size, 1.0 / size)
    point = minimize_quadratic(gradient, hessian, start, ridge)
    found = minimize(
        lambda x: model(gradient, hessian, start, ridge, x),
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * size,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1.0},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    value, _ = model(gradient, hessian, start, ridge, point)
    assert value <= found.fun + 1e-9
    np.testing.assert_allclose(point, found.x, rtol=0.0, atol=1e-4)


def test_curvature_across_the_simplex_alone():
    """Losses that move all classifiers alike: the model is linear on the simplex."""
    gradient = np.array([0.3, 0.1, 0.2])
    for start in (np.full(3, 1.0 / 3.0), np.eye(3)[0]):
        point = minimize_quadratic(gradient, np.ones((3, 3)), start, 1e-12)
        np.testing.assert_allclose(point, [0.0, 1.0, 0.0], rtol=0.0, atol=1e-12)


def test_no_curvature_across_the_simplex(rng):
    """Losses that add up to the same for every candidate: H 1 = 0, and the ridge is no help."""
    for size in (3, 8, 20):
        centre = np.eye(size) - 1.0 / size
        hessian = centre @ random_hessian(rng, size, size) @ centre
        for start in starts(rng, size):
            assert_minimum(1.0 + 0.1 * rng.normal(size=size), hessian, start, 1e-16, 1e-12)


def test_classifiers_that_are_the_same():
    """Twins make the Hessian singular along the simplex; the ridge shares their weight out."""
    rng = np.random.default_rng(2)
    factor, slope = rng.normal(size=(5, 3)), rng.normal(size=3)
    twins = [0, 1, 2, 0, 1, 2]
    hessian, gradient = (factor.T @ factor)[np.ix_(twins, twins)], 0.1 * slope[twins]
    start = np.full(6, 1.0 / 6.0)
    point = assert_minimum(gradient, hessian, start, 1e-10, 1e-10)
    single = minimize_quadratic(0.1 * slope, factor.T @ factor, np.full(3, 1.0 / 3.0), 2e-10)
    np.testing.assert_allclose(point[:3] + point[3:], single, rtol=0.0, atol=1e-8)


def test_the_minimum_stays_the_minimum(rng):
    for size in (2, 5, 20):
        hessian, gradient = random_hessian(rng, size, size), rng.normal(size=size)
        first = minimize_quadratic(gradient, hessian, np.full(size, 1.0 / size), 1e-12)
        _, slope = model(gradient, hessian, np.full(size, 1.0 / size), 0.0, first)
        again = minimize_quadratic(slope, hessian, first, 1e-12)
        np.testing.assert_allclose(again, first, rtol=0.0, atol=1e-9)


@given(
    st.integers(1, 6).flatmap(
        lambda size: st.tuples(
            hnp.arrays(np.float64, (size, size), elements=st.integers(-3, 3).map(float)),
            hnp.arrays(np.float64, size, elements=st.integers(-3, 3).map(float)),
            st.integers(0, size - 1),
            st.booleans(),
        )
    )
)
def test_minimum_of_models_with_many_ties(parts):
    factor, gradient, vertex, inside = parts
    size = gradient.size
    start = np.full(size, 1.0 / size) if inside else np.eye(size)[vertex]
    point = minimize_quadratic(gradient, factor.T @ factor, start, 1e-9)
    assert_on_simplex(point)
    _, slope = model(gradient, factor.T @ factor, start, 1e-9, point)
    assert slope @ point - slope.min() <= 1e-9 * max(np.abs(gradient).max(), 1.0)
