"""Each function in NumPy against its compiled twin, on the same arguments."""

import inspect
from importlib import import_module

import numpy as np
import pytest

from mixsolve.kernels.constants import CORRECTION, CUTOFF
from mixsolve.uncompiled.choice import loops

NAMES = ["interior_point", "passes", "polytope_qp", "schur_system", "simplex_qp", "soft_passes"]
NAMES += ["group_levels", "group_passes", "group_rows"]


def of_both_forms(name):
    return import_module(f"mixsolve.kernels.{name}"), import_module(f"mixsolve.uncompiled.{name}")


def agree(compiled, uncompiled, digits=1e-9):
    for one, other in zip(compiled, uncompiled, strict=True):
        if isinstance(one, np.ndarray):
            np.testing.assert_allclose(other, one, rtol=digits, atol=digits)
        elif one is not None:
            assert other == pytest.approx(one, rel=digits, abs=digits)


def twice(name, function, *arguments):
    """Call both forms on copies; what each returned and left in its arrays."""
    found = []
    for module in of_both_forms(name):
        given = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        found.append([getattr(module, function)(*given), *given])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_public_functions_have_the_same_arguments(name):
    compiled, uncompiled = of_both_forms(name)
    for function, own in vars(uncompiled).items():
        if function.startswith("_") or not inspect.isfunction(own):
            continue
        if own.__module__ != uncompiled.__name__ or function in ("score_all", "played"):
            continue  # imported, or shared by NumPy's functions alone
        twin = getattr(compiled, function)
        twin = getattr(twin, "py_func", twin)
        assert list(inspect.signature(own).parameters) == list(inspect.signature(twin).parameters)


def test_outside_a_small_solve_kernels_are_compiled():
    for name in NAMES:
        assert loops(name).__name__ == f"mixsolve.kernels.{name}"


@pytest.fixture(params=[0, 1])
def game(request):
    """Rows, offsets that do not begin at 0, weights (one of them 0), and weights of classifiers."""
    rng = np.random.default_rng(request.param)
    size = 3 + 2 * request.param
    counts = rng.integers(1, 9, 40)
    offsets = np.concatenate([[0], np.cumsum(counts)]) + 5
    rows = rng.gamma(0.5, 1.5, (counts.sum(), size))
    rows[10] = rows[11]  # of one sample or of two
    rows[30:60] = rows[30:60].round()  # ties
    sample_weight = rng.dirichlet(np.ones(40))
    sample_weight[7] = 0.0
    return rng, rows, offsets, sample_weight, rng.dirichlet(np.ones(size))


def masked(rng, offsets):
    """A mask that leaves each sample its first row."""
    allowed = (rng.random(offsets[-1] - offsets[0]) < 0.8).astype(np.uint8)
    allowed[offsets[:-1] - offsets[0]] = 1
    return allowed


NOTHING = np.empty(0, dtype=np.uint8)


class TestPasses:
    @pytest.mark.parametrize("values", [[], [2.0], [3.0, -1.0, 7.0], [1.0, np.nan], [np.inf, 0.0]])
    def test_extremes(self, values):
        compiled, uncompiled = of_both_forms("passes")
        values = np.array(values)
        found = uncompiled.extremes(values)
        if values.size and not np.isfinite(values).all():
            assert not np.isfinite(found).all()
        else:
            assert found == compiled.extremes(values)

    @pytest.mark.parametrize("mask", [False, True])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_best_response(self, game, mask, dtype):
        rng, rows, offsets, sample_weight, weights = game
        allowed = masked(rng, offsets) if mask else NOTHING
        best, gradient = np.zeros(len(sample_weight), dtype=np.int64), rng.random(weights.size)
        agree(
            *twice(
                "passes", "best_response", rows.astype(dtype), offsets, allowed, sample_weight,
                weights, best, gradient,
            )
        )  # fmt: skip

    @pytest.mark.parametrize("radius", [0.0, 0.02, 0.3, 2.0])
    @pytest.mark.parametrize("pure", [False, True])
    @pytest.mark.parametrize("room", [1000, 12])
    def test_near_response(self, game, radius, pure, room):
        rng, rows, offsets, sample_weight, weights = game
        slack = np.empty(0) if pure else 0.3 * rng.random(len(sample_weight))
        allowed = masked(rng, offsets)
        best, gradient = np.zeros(len(sample_weight), dtype=np.int64), rng.random(weights.size)
        listed = np.full((2, room), -1)
        agree(
            *twice(
                "passes", "near_response", rows, offsets, allowed, sample_weight, weights, radius,
                np.ptp(rows) * weights.size**0.5, slack, best, gradient, *listed,
            )
        )  # fmt: skip


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 3.0, 1e6])
@pytest.mark.parametrize("rules", [False, True])
class TestSoftPasses:
    def test_soft_response(self, game, alpha, rules):
        rng, rows, offsets, sample_weight, weights = game
        allowed, prior = NOTHING, np.empty(0)
        if rules:
            allowed = masked(rng, offsets)
            prior = rng.random(rows.shape[0]) * allowed + 0.1 * allowed
        alphas = alpha * (1.0 + rng.random(len(sample_weight)))
        size = weights.size
        found = twice(
            "soft_passes", "soft_response", rows, offsets, allowed, prior, sample_weight, alphas,
            weights, CUTOFF, np.zeros(size), np.zeros((size, size)),
        )  # fmt: skip
        hessians = [part.pop() for part in found]
        agree(*found)
        compiled, uncompiled = (np.triu(hessian) for hessian in hessians)
        np.testing.assert_allclose(uncompiled, compiled, rtol=1e-9, atol=1e-9 * compiled.max())

    @pytest.mark.parametrize("pure", [False, True])
    @pytest.mark.parametrize("played", [False, True])
    def test_soft_answer(self, game, alpha, rules, pure, played):
        rng, rows, offsets, sample_weight, weights = game
        allowed, prior = NOTHING, np.empty(0)
        if rules:
            allowed = masked(rng, offsets)
            prior = rng.random(rows.shape[0]) * allowed + 0.1 * allowed
        alphas = np.full(len(sample_weight), alpha)
        size, n = weights.size, len(sample_weight)
        best = np.full(n if pure else 0, -1)
        counts = np.zeros(n if played else 0, dtype=np.int64)
        candidates, probabilities = np.full(len(rows), -1), np.zeros(len(rows))
        curved = 3.0 * sample_weight * (np.arange(n) % 3 == 0)
        found = twice(
            "soft_passes", "soft_answer", rows, offsets, allowed, prior, sample_weight, curved,
            alphas, weights, CUTOFF, np.zeros(size), np.zeros((size, size)), best,
            np.zeros(size + 1), counts, candidates, probabilities,
        )  # fmt: skip
        hessians = [part.pop(11) for part in found]
        agree(*found)
        compiled, uncompiled = (np.triu(hessian) for hessian in hessians)
        np.testing.assert_allclose(uncompiled, compiled, rtol=1e-9, atol=1e-9 * compiled.max())
        assert (found[0][11] >= 0).all()  # the best candidates, were they asked for
        assert played == (found[0][14] >= 0).any()


class TestInteriorPoint:
    """One iteration; each function is given what the compiled one before it left."""

    @pytest.mark.parametrize("span", [(0, 40), (3, 31)])
    def test_an_iteration(self, game, span):
        rng, rows, offsets, sample_weight, weights = game
        offsets = offsets - offsets[0]
        n_rows, n, size = len(rows), len(sample_weight), weights.size
        weight = sample_weight + 0.01
        inverse = 0.7

        def both(function, *arguments):
            found = twice("interior_point", function, *arguments)
            agree(*found)
            return found[0]

        both("spread_and_reference", rows, offsets, weight, *span, np.empty(size), np.empty(2))
        dual = rng.random(n_rows)
        both(
            "certificate_sums", rows, offsets, weight, weights, dual, *span, np.empty(size),
            np.empty(1),
        )  # fmt: skip
        *_, height, dual, _, _, _ = both(
            "centre", rows, offsets, weight, inverse, weights, 0.01, np.zeros(n),
            np.ones(n_rows), *span, np.empty(size),
        )  # fmt: skip
        several = np.repeat(np.diff(offsets) > 1, np.diff(offsets))
        d_dual = np.where(several, 0.01 * rng.random(n_rows), 0.0)
        walked = rows, offsets, weight, inverse
        schurs = []
        given = (
            weights, 0.5, 0.5, height, 0.1 * rng.random(n), np.ones(n_rows), dual, d_dual,
            *span, np.zeros((size, size)), np.zeros(size), np.zeros(2),
        )  # fmt: skip
        found = twice("interior_point", "factor", *walked, *given)
        for part in found:
            schurs.append(np.triu(part.pop(-3)))
        agree(*found)
        np.testing.assert_allclose(schurs[1], schurs[0], rtol=1e-9, atol=1e-9 * schurs[0].max())
        slack, dual = found[0][10], found[0][11]
        d_weights = rng.standard_normal(size) * 0.1
        d_weights -= d_weights.mean()
        *_, product, _, _, _, _, _ = both(
            "predict", *walked, d_weights, CORRECTION * 0.01, slack, dual, np.zeros(n_rows),
            *span, np.empty(size), np.empty(size), np.empty(5),
        )  # fmt: skip
        both(
            "correct", *walked, d_weights, 0.004, slack, dual, product, np.zeros(n),
            np.zeros(n_rows), *span, np.empty(2),
        )  # fmt: skip

    @pytest.mark.parametrize("share", [0.01, 0.2, 0.6])
    def test_select(self, game, share):
        rng, rows, offsets, sample_weight, weights = game
        offsets = offsets - offsets[0]
        n_rows, n = len(rows), len(sample_weight)
        owner = np.repeat(np.arange(n), np.diff(offsets))
        dual = rng.random(n_rows) ** 4
        dual *= (sample_weight / np.bincount(owner, dual))[owner]
        index, kept = np.zeros(n_rows, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
        compiled, uncompiled = twice(
            "interior_point", "select", rows, offsets, sample_weight, 0.7, dual, share, index,
            kept, np.zeros(n, dtype=np.int64), np.zeros(weights.size), np.empty(n_rows),
        )  # fmt: skip
        n_kept = compiled[0]
        assert uncompiled[0] == n_kept
        for found in (compiled, uncompiled):  # beyond these entries nothing is said
            found[8] = found[8][: n_kept + 1]
            found[7] = found[7][: found[8][-1]]
            found[9] = found[9][:n_kept]
        agree(compiled, uncompiled)


@pytest.mark.parametrize(("n_upper", "n_equal"), [(0, 1), (2, 1), (3, 2)])
class TestDense:
    def test_a_step(self, rng, n_upper, n_equal):
        size, n_chunks = 5, 3
        half = rng.random((n_chunks, size, 9))
        schurs = half @ half.transpose(0, 2, 1)
        weights = rng.dirichlet(np.ones(size))
        reduced, room, prices = rng.random(size), rng.random(n_upper), rng.random(n_upper)
        upper = rng.random((n_upper, size)) - 1.5
        equal = np.vstack([np.ones(size), rng.standard_normal((n_equal - 1, size))])
        towards, against, sums = rng.random((3, n_chunks, size))
        made = np.zeros((size, size)), np.zeros((n_equal, size)), np.zeros((n_equal, n_equal))
        found = twice(
            "schur_system", "predictor", schurs, towards, rng.random(size), weights, reduced,
            upper, room, prices, equal, *made, np.zeros(n_equal), np.zeros(size), np.zeros(size),
        )  # fmt: skip
        for part in found:
            part[10], part[12] = np.tril(part[10]), np.tril(part[12])
        agree(*found)
        matrix, columns, gram, omega, centred, d_weights = found[0][10:]
        found = twice(
            "schur_system", "corrector", towards, against, sums, 10.0, 0.2, 0.1, weights, reduced,
            upper, room, prices, equal, matrix, columns, gram, omega, centred, np.zeros(size),
            np.zeros(n_upper), d_weights,
        )  # fmt: skip
        agree(*found)
        target = found[0][0]
        omega, _, product, room_product, d_weights = found[0][-5:]
        agree(
            *twice(
                "schur_system", "advance", sums, target, 0.2, 0.99, product, room_product,
                d_weights, omega, upper, weights, reduced, room, prices, np.zeros(n_equal - 1),
                np.zeros(2),
            )
        )  # fmt: skip

    @pytest.mark.parametrize("curved", [False, True])
    def test_a_quadratic_over_a_polytope(self, rng, n_upper, n_equal, curved):
        size = 6
        centre = rng.dirichlet(np.ones(size))
        upper = rng.standard_normal((n_upper, size))
        upper -= (upper @ centre + 0.05)[:, None]
        equal = np.vstack([np.ones(size), rng.standard_normal((n_equal - 1, size))])
        equal[1:] -= (equal[1:] @ centre)[:, None]
        half = rng.standard_normal((size, size)) / size
        hessian = half @ half.T if curved else np.zeros((size, size))
        gradient = rng.random(size)
        for module in of_both_forms("polytope_qp"):
            point, prices, levels, error = module.minimize_quadratic(
                gradient, hessian, centre, upper, equal, centre
            )
            slope = gradient + hessian @ (point - centre) + upper.T @ prices - equal.T @ levels
            assert error <= 1e-12
            assert slope.min() >= -1e-12
            assert slope @ point <= 1e-12
            assert (upper @ point).max(initial=0.0) <= 1e-12
            assert prices.min(initial=0.0) >= 0.0
            assert abs(prices @ (upper @ point)) <= 1e-12
            np.testing.assert_allclose(equal @ point, [1.0] + [0.0] * (n_equal - 1), atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_a_quadratic_over_the_simplex(rng, size):
    for _ in range(10):
        half = rng.standard_normal((size, max(1, size - 2)))
        start = rng.dirichlet(np.ones(size)) * (rng.random(size) < 0.7)
        start = np.full(size, 1 / size) if start.sum() == 0 else start / start.sum()
        gradient = rng.standard_normal(size)
        given = gradient, half @ half.T, start, 1e-3
        compiled, uncompiled = (m.minimize_quadratic(*given) for m in of_both_forms("simplex_qp"))
        np.testing.assert_allclose(uncompiled, compiled, atol=1e-10)


class TestGroups:
    def test_rows(self, game):
        rng, rows, offsets, sample_weight, weights = game
        offsets = offsets - offsets[0]
        n_rows, n, size = len(rows), len(sample_weight), weights.size
        blocks = np.array([0, 7, 8, 30, n])
        count, share = len(blocks) - 1, sample_weight + 0.01
        mass, path = rng.dirichlet(np.ones(count)), rng.random(count)
        walked = rows, offsets, share, blocks, 0.7

        def both(function, *arguments):
            return twice("group_rows", function, *arguments)

        found = both(
            "centre", *walked, weights, 0.01 * (1 + path), mass, np.zeros(n), np.ones(n_rows)
        )
        agree(*found)
        height, dual = found[0][-2:]
        linear = rng.random((count, size))
        agree(*both("heights", share, blocks, offsets, height, linear, weights, np.empty(count)))
        several = np.repeat(np.diff(offsets) > 1, np.diff(offsets))
        found = both(
            "factor", *walked, weights, 0.5, 0.5, height, 0.1 * rng.random(n), np.ones(n_rows),
            dual, np.where(several, 0.01 * rng.random(n_rows), 0.0), linear, mass,
            np.zeros((size, size)), np.empty((count, size)), *np.empty((2, count)), np.empty(size),
        )  # fmt: skip
        schurs = [np.triu(part.pop(-5)) for part in found]
        agree(*found)
        np.testing.assert_allclose(schurs[1], schurs[0], rtol=1e-9, atol=1e-9 * schurs[0].max())
        slack, dual = found[0][11], found[0][12]
        d_weights = rng.standard_normal(size) * 0.1
        new_mass = mass + 0.1 * rng.random(count)
        found = both(
            "predict", *walked, d_weights, new_mass, path, CORRECTION * 0.01, slack, dual,
            np.zeros(n_rows), *np.empty((2, size)), *np.empty((2, count)), np.empty(5),
        )  # fmt: skip
        agree(*found)
        product = found[0][-6]
        agree(
            *both(
                "correct", *walked, d_weights, new_mass, path, 0.004, slack, dual, product,
                np.zeros(n), np.zeros(n_rows), np.empty(2),
            )
        )  # fmt: skip

    @pytest.mark.parametrize("n_parents", [1, 4])
    def test_levels(self, rng, n_parents):
        count, size = 12, 5
        parent = np.arange(count) % n_parents
        cap = 0.5 + rng.random(count)
        above_mass = rng.dirichlet(np.ones(n_parents))
        height, path = rng.random(count), rng.random(count)
        found = twice(
            "group_levels", "masses_on_path", height, parent, cap, above_mass, path, 0.01,
            np.empty(n_parents), np.empty(count), np.empty(count),
        )  # fmt: skip
        agree(*found)
        eta, mass, idle = found[0][-3:]
        assert np.bincount(parent, mass) == pytest.approx(above_mass)
        above, excess = 0.1 + rng.random((2, count))
        slopes, curvature = rng.random((count, size)), rng.random(count)
        found = twice(
            "group_levels", "eliminate", parent, cap, slopes, curvature, mass, above, excess,
            idle, *np.empty((2, count)), np.empty(n_parents), np.empty((n_parents, size)),
            np.empty(n_parents), np.empty((n_parents, size)), np.empty(n_parents),
            np.zeros((size, size)),
        )  # fmt: skip
        matrices = [np.triu(part.pop()) for part in found]
        agree(*found)
        agree([matrices[0]], [matrices[1]])
        weight, pull, total, slope_mean, pull_mean = found[0][9:14]
        constant, for_mass, for_excess, left = rng.random((4, count))
        found = twice(
            "group_levels", "carry", parent, cap, mass, idle, weight, pull, total, constant,
            for_mass, for_excess, left, np.empty(count), *np.empty((2, n_parents)),
        )  # fmt: skip
        agree(*found)
        rho, rho_mean = found[0][12:14]
        found = twice(
            "group_levels", "hand_down", parent, slopes, weight, pull, total, slope_mean,
            pull_mean, rho, rho_mean, rng.random(n_parents), rng.random(size),
            np.empty(n_parents), np.empty(count),
        )  # fmt: skip
        agree(*found)
        d_eta, d_mass = found[0][-2:]
        found = twice(
            "group_levels", "complete", parent, cap, mass, above, excess, idle, for_mass,
            for_excess, rng.random(n_parents), d_mass, *np.empty((3, count)), np.empty(5),
        )  # fmt: skip
        agree(*found)
        d_excess, d_idle = found[0][-3:-1]
        agree(
            *twice(
                "group_levels", "take_step", parent, cap, height, 0.3, 0.4, eta, d_eta, left,
                mass, d_mass, idle, d_idle, above, excess, d_excess, np.empty(n_parents),
            )
        )  # fmt: skip

    def test_a_pass(self, game):
        _rng, rows, offsets, sample_weight, weights = game
        n = len(sample_weight)
        agree(
            *twice(
                "group_passes", "soft_response", rows, offsets, NOTHING, np.empty(0),
                sample_weight, np.full(n, 0.05), weights, CUTOFF, np.arange(n) % 3,
                np.zeros(3), np.zeros((3, weights.size)),
            )
        )  # fmt: skip
