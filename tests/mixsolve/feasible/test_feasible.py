"""Sets of feasible weights: projections, linear and quadratic minima, faces and clashes."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from corpus import seeds
from scipy.optimize import linprog

from mixsolve import LinearConstraints, MixsolveError
from mixsolve.feasible import feasible_set
from mixsolve.feasible.constraints import expected_cost, weight_bounds
from mixsolve.feasible.convex import ConvexSet
from mixsolve.feasible.infeasibility import separate
from mixsolve.feasible.polytope import Polytope
from mixsolve.feasible.relative_interior import find_face


def in_units(constraints, weights):
    """Violation of each row in units of its largest coefficient."""
    worst = 0.0
    for A, b, signed in (
        (constraints.A_ub, constraints.b_ub, False),
        (constraints.A_eq, constraints.b_eq, True),
    ):
        for row, limit in zip(A, b, strict=True):
            unit = max(np.abs(row).max(), abs(limit)) or 1.0
            over = (row @ weights - limit) / unit
            worst = max(worst, abs(over) if signed else over)
    return worst


def vertices(constraints, size):
    """All vertices of the polytope, by solving every choice of L active constraints."""
    C = np.vstack([constraints.A_ub - constraints.b_ub[:, None], -np.eye(size)])
    F = np.vstack([constraints.A_eq - constraints.b_eq[:, None], np.ones((1, size))])
    right = np.append(np.zeros(len(F) - 1), 1.0)
    C = C / (np.abs(np.vstack([constraints.A_ub, np.eye(size)])).max(axis=1) + 1e-300)[:, None]
    found = []
    for active in itertools.chain.from_iterable(
        itertools.combinations(range(len(C)), n) for n in range(size)
    ):
        rows = np.vstack([F, C[list(active)]])
        if np.linalg.matrix_rank(rows) < size:
            continue
        point = np.linalg.lstsq(rows, np.append(right, np.zeros(len(active))), rcond=None)[0]
        fits = np.abs(F @ point - right).max() <= 1e-9
        if fits and (C @ point).max() <= 1e-9:
            found.append(point)
    return np.array(found)


def random_polytope(seed):
    """Constraints that some weights meet; every third seed without an interior, many degenerate."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 6))
    inner = rng.dirichlet(np.ones(size))
    if seed % 2 and size > 1:
        inner[rng.integers(size)] = 0.0
        inner /= inner.sum()
    p, q = int(rng.integers(0, 4)), int(rng.integers(0, 2))
    draw = rng.standard_normal if seed % 4 else lambda shape: rng.integers(-2, 3, shape)
    A, E = np.asarray(draw((p, size)), float), np.asarray(draw((q, size)), float)
    b = A @ inner + (rng.random(p) if seed % 3 else np.zeros(p))
    e = E @ inner
    scale = 10.0 ** rng.integers(-8, 9, p) if seed % 5 == 0 else np.ones(p)
    A, b = A * scale[:, None], b * scale
    if seed % 7 == 0:  # the same again, and the same from the other side
        A, b = np.vstack([A, A, -E]), np.concatenate([b, b, -e])
    return LinearConstraints(A, b, E, e), size, rng


CORPUS = seeds(range(50), quick=14)  # two of each form that `random_polytope` gives


@pytest.mark.parametrize("seed", CORPUS)
def test_linear_minima_are_those_over_all_vertices(seed):
    constraints, size, rng = random_polytope(seed)
    corners = vertices(constraints, size)
    polytope = Polytope(constraints)
    assert polytope.infeasibility is None
    for gradient in rng.standard_normal((4, size)):
        least = (corners @ gradient).min()
        bound = polytope.lowest(gradient)
        spread = np.ptp(gradient) or 1.0
        assert bound <= least + 1e-9 * spread
        assert bound >= least - 1e-7 * spread


@pytest.mark.parametrize("seed", CORPUS)
def test_prices_prove_the_bound(seed):
    """min over the polytope >= min_k (g + A'y + E'v)_k - b'y - e'v, for the reported y and v."""
    constraints, size, rng = random_polytope(seed)
    polytope = Polytope(constraints)
    gradient = rng.standard_normal(size)
    prices = polytope.prices(gradient)
    assert (prices.upper >= 0.0).all()
    charged = gradient + constraints.A_ub.T @ prices.upper + constraints.A_eq.T @ prices.equal
    proven = charged.min() - constraints.b_ub @ prices.upper - constraints.b_eq @ prices.equal
    assert proven == pytest.approx(polytope.lowest(gradient), abs=1e-7 * (np.ptp(gradient) + 1e-9))


@pytest.mark.parametrize("seed", CORPUS)
def test_the_own_multipliers_do(seed, monkeypatch):
    """Without the simplex method that helps out where they do not."""

    def nobody(*args):
        raise AssertionError("the simplex method was asked")

    monkeypatch.setattr("mixsolve.feasible.polytope.bound_multipliers", nobody)
    constraints, size, rng = random_polytope(seed)
    polytope = Polytope(constraints)
    for gradient in rng.standard_normal((4, size)):
        polytope.lowest(gradient)


@pytest.mark.parametrize("seed", CORPUS)
def test_projections_and_quadratic_minima(seed):
    """Optimality by the variational inequality: <slope, other - found> >= 0 for every vertex."""
    constraints, size, rng = random_polytope(seed)
    polytope, corners = Polytope(constraints), vertices(constraints, size)
    point = rng.standard_normal(size)
    found = polytope.project(point)
    assert in_units(constraints, found) <= 1e-9
    assert found.min() >= 0.0
    assert ((corners - found) @ (found - point)).min() >= -1e-7

    again = polytope.project(found)
    np.testing.assert_allclose(again, found, atol=1e-12)
    root = rng.standard_normal((size, size))
    gradient, hessian = rng.standard_normal(size), root.T @ root
    best = polytope.minimize_quadratic(gradient, hessian, found, 1e-9)
    assert in_units(constraints, best) <= 1e-9
    slope = gradient + (hessian + 1e-9 * np.eye(size)) @ (best - found)
    assert ((corners - best) @ slope).min() >= -1e-7


def test_a_weight_that_may_only_be_0_is_0():
    polytope = Polytope(expected_cost([1.0, 2.0, 1.0, 5.0], 1.0))  # what the cheapest cost
    assert polytope.project(np.array([0.1, 0.6, 0.2, 0.1])).tolist()[1::2] == [0.0, 0.0]
    found = polytope.minimize_quadratic(
        np.array([0.3, -1.0, 0.2, -3.0]), np.eye(4), np.array([0.5, 0.0, 0.5, 0.0]), 1e-9
    )
    assert found[1] == found[3] == 0.0


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_a_single_point(scale):
    fixed = np.array([0.2, 0.5, 0.3, 0.0])
    polytope = Polytope(LinearConstraints(A_eq=scale * np.eye(4), b_eq=scale * fixed))
    np.testing.assert_allclose(polytope.project(np.array([1.0, 0, 0, 0])), fixed, atol=1e-12)
    gradient = np.array([3.0, -1.0, 2.0, -9.0])
    assert polytope.lowest(gradient) == pytest.approx(gradient @ fixed, abs=1e-9)


def test_the_face_of_constraints_that_hold_with_equality():
    bounds = weight_bounds(3, [0.25, 0.0, 0.0], [0.25, 1.0, 0.0])
    upper = bounds.A_ub - bounds.b_ub[:, None]
    face = find_face(upper, np.empty((0, 3)))
    assert face.used.tolist() == [0, 1]
    assert not face.loose.any()
    assert face.is_point
    np.testing.assert_allclose(face.cuts.centre, [0.25, 0.75], atol=1e-12)
    prices, _, z = face.proof
    pulled = upper.T @ prices
    np.testing.assert_allclose(pulled, z, atol=1e-12)
    assert (prices > 0).all()
    assert z[2] > 0


def test_the_centre_is_strictly_inside():
    rng = np.random.default_rng(3)
    for _ in range(20):
        upper = rng.standard_normal((4, 6))
        upper -= (upper @ np.full(6, 1 / 6))[:, None] - 1e-3  # uniform weights are just outside
        face = find_face(upper / np.abs(upper).max(axis=1, keepdims=True), np.empty((0, 6)))
        assert face is not None
        assert face.loose.all()
        assert face.cuts.centre.min() > 1e-3
        assert (face.cuts.upper @ face.cuts.centre).max() < -1e-4


def test_no_room_at_all():
    assert find_face(np.array([[1.0, 0.5]]), np.empty((0, 2))) is None
    assert find_face(np.empty((0, 2)), np.array([[1.0, 0.5]])) is None


@pytest.mark.parametrize("seed", seeds(range(30), quick=10))
def test_a_clash_is_proven_and_has_nothing_to_spare(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 6))
    A, E = rng.standard_normal((4, size)), rng.standard_normal((2, size))
    b, e = A.min(axis=1) - rng.uniform(-0.5, 0.5, 4), E.mean(axis=1) + rng.uniform(-1, 1, 2)
    constraints = LinearConstraints(A, b, E, e)
    reference = linprog(
        np.zeros(size),
        A_ub=A,
        b_ub=b,
        A_eq=np.vstack([E, np.ones(size)]),
        b_eq=np.append(e, 1.0),
    )
    found = Polytope(constraints).infeasibility
    assert (found is not None) == (reference.status == 2)
    if found is None:
        return
    assert (found.upper >= 0.0).all()
    pulled = A.T @ found.upper + E.T @ found.equal - b @ found.upper - e @ found.equal
    assert pulled.min() > 0.0
    assert pulled.min() == pytest.approx(found.excess, rel=1e-9)
    names = [*constraints.labels_ub, *constraints.labels_eq]
    chosen = [names.index(name) for name in found.clash]
    multipliers = np.concatenate([found.upper, found.equal])
    assert set(np.flatnonzero(multipliers)) <= set(chosen)
    for left_out in chosen:
        kept = [row for row in chosen if row != left_out]
        upper = [row for row in kept if row < 4]
        equal = [row - 4 for row in kept if row >= 4]
        if kept:
            rest = LinearConstraints(A[upper], b[upper], E[equal], e[equal])
            assert Polytope(rest).infeasibility is None


def test_separating_multipliers_by_hand():
    """lam_0 >= 0.7 and lam_1 >= 0.7: together 1.4 of a weight of 1."""
    constraints = weight_bounds(2, [0.7, 0.7])
    found = Polytope(constraints).infeasibility
    assert found.clash == ("weights[0] >= 0.7", "weights[1] >= 0.7")
    assert found.upper[0] == pytest.approx(found.upper[1])
    assert found.excess == pytest.approx(0.4 * found.upper[0])
    assert separate(np.array([[1.0, 0.5]]), np.empty((0, 2)))[2] == pytest.approx(0.5)


@pytest.mark.parametrize("off", [1e-15, 1e-12, 1e-10])
def test_what_clashes_by_rounding_is_met(off):
    polytope = Polytope(weight_bounds(3, [0.3, 0.0, 0.0], [0.3 - off, 1.0, 1.0]))
    assert polytope.infeasibility is None
    found = polytope.project(np.array([1.0, 0.0, 0.0]))
    assert abs(found[0] - 0.3) <= 1e-9
    assert Polytope(weight_bounds(3, 0.3, [0.3 - 1e-6, 1.0, 1.0])).infeasibility is not None


SETS = {
    "norm": lambda w: [cp.norm(w) <= 0.6],
    "entropy": lambda w: [cp.sum(cp.entr(w)) >= 1.2],
    "largest": lambda w: [cp.max(w) <= 0.35, cp.sum_squares(w) <= 0.3],
    "cone": lambda w: [cp.SOC(0.3 + w[0], w)],
    "near": lambda w: [cp.norm1(w - 0.2) <= 0.3],
    "linear": lambda w: [w <= 0.4, w[0] == 0.25],
    "matrix": lambda w: [cp.diag(w) - 0.1 * np.eye(5) >> 0],
}


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("name", SETS)
def test_bounds_under_cvxpy_constraints(name):
    rng = np.random.default_rng(0)
    convex = ConvexSet(SETS[name], 5)
    other = cp.Variable(5, nonneg=True)
    for gradient in rng.standard_normal((4, 5)):
        model = cp.Problem(cp.Minimize(gradient @ other), [cp.sum(other) == 1, *SETS[name](other)])
        tight = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
        least = model.solve(solver="CLARABEL", **tight)
        bound = convex.lowest(gradient)
        assert bound <= least + 1e-10 * np.ptp(gradient)
        assert bound >= least - 1e-7 * np.ptp(gradient)


@pytest.mark.parametrize("name", SETS)
def test_a_bound_holds_however_bad_the_solver(name, monkeypatch):
    convex, gradient = ConvexSet(SETS[name], 5), np.arange(5.0)
    least = convex.lowest(gradient)
    bounds = []
    for n_iterations in range(1, 7):
        monkeypatch.setattr("mixsolve.small_game.clarabel.TOLERANCES", {"max_iter": n_iterations})
        bounds.append(convex.lowest(gradient))
    assert max(bounds) <= least + 1e-8
    assert bounds[0] < least - 0.1 or least == 0.0  # not the same answer


def test_models_are_compiled_once():
    convex = ConvexSet(SETS["norm"], 5)
    assert convex._linear[1].is_dpp()
    assert convex._quadratic[2].is_dpp()
    convex.lowest(np.arange(5.0))
    compiled = convex._linear[1]._cache.param_prog
    convex.lowest(np.arange(5.0)[::-1].copy())
    assert compiled is not None
    assert convex._linear[1]._cache.param_prog is compiled


@pytest.mark.parametrize("missing", [1e-16, 2.3e-16, 5e-16])
def test_what_constraints_exclude_gets_no_share_of_rounding(missing):
    polytope = Polytope(weight_bounds(3, upper=[1.0, 0.0, 1.0]))
    projected = polytope.project(np.array([0.25, 0.0, 0.75 - missing]))
    assert projected[1] == 0.0
    np.testing.assert_allclose(projected, [0.25, 0.0, 0.75], rtol=0, atol=1e-15)


def test_projection_under_cvxpy_constraints():
    convex = ConvexSet(lambda w: [cp.norm(w - 1 / 3) <= 0.1], 3)
    found = convex.project(np.array([1.0, 0.0, 0.0]))
    centre = np.full(3, 1 / 3)
    towards = np.array([2.0, -1.0, -1.0]) / np.sqrt(6)
    np.testing.assert_allclose(found, centre + 0.1 * towards, atol=1e-5)
    inside = np.array([0.36, 0.34, 0.30])
    np.testing.assert_array_equal(convex.project(inside), inside)


def test_cvxpy_constraints_that_cannot_be_met():
    convex = ConvexSet(lambda w: [w[0] >= 0.7, cp.norm(w) <= 0.8, w[1] >= 0.7], 3)
    assert len(convex.infeasibility.clash) == 2
    assert convex.infeasibility.clash[0].startswith("constraints[")


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        (lambda w: [w <= cp.Variable(3, boolean=True)], "integer"),
        (lambda w: [cp.norm(w) >= 0.7], "DCP"),
        (lambda w: [w <= 0.5, True], "bool"),
        (lambda w: w <= 0.5, "list"),
        (lambda w: 3, "int"),
    ],
)
def test_cvxpy_constraints_that_are_refused(constraints, words):
    with pytest.raises(MixsolveError, match=words):
        ConvexSet(constraints, 3)


def test_which_set():
    part = expected_cost([1.0, 2.0], 1.5)
    assert type(feasible_set(None, 2, False)).__name__ == "Simplex"
    assert type(feasible_set([], 2, False)).__name__ == "Simplex"
    assert isinstance(feasible_set([part], 2, False), Polytope)
    modelled = feasible_set([part], 2, True)
    assert isinstance(modelled, ConvexSet)
    assert modelled.linear is not None
