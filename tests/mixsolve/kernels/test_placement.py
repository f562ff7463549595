"""The same numbers give the same bits, wherever in memory their arrays lie.

A compiled loop may have two forms, and the distance between its arrays decides at run time which is
used. Here arrays lie side by side, in any order, and before those that kernels allocate themselves.
"""

import numpy as np
import pytest

import mixsolve
from mixsolve import games
from mixsolve.kernels import interior_point, schur_system
from mixsolve.kernels.constants import CORRECTION


def scattered(array, size):
    """Copies on the heap, each before a hole where a kernel may place an array of its own."""
    lengths = [size + header for header in range(12, 17)]
    filled = [np.empty(length) for _ in range(20) for length in lengths]  # holes that are elsewhere
    copies, holes = [], []
    for _ in range(20):
        for length in lengths:
            copies.append(array.copy())
            holes.append(np.empty(length))
    del holes
    yield from copies
    del filled


def placed(arrays, rng, apart=0):
    """Copies in one block of memory, in any order, a few numbers more apart than given."""
    gaps = rng.integers(apart, apart + 4, len(arrays))
    block = np.empty(sum(array.size for array in arrays) + gaps.sum())
    copies, begin = list(arrays), 0
    for place in rng.permutation(len(arrays)):
        array, begin = arrays[place], begin + int(gaps[place])
        copies[place] = block[begin : begin + array.size].reshape(array.shape)
        copies[place][...] = array
        begin += array.size
    return copies


def iteration(arrays, offsets):
    """One iteration of the interior point method, by its kernels; all that it computes."""
    (rows, weight, weights, height, d_height, slack, dual, d_dual, product, schur,
     towards, against, sums, matrix, columns, gram, equal, upper, room, prices, linear, reduced,
     centred, d_weights, d_product, omega, d_room, steps) = arrays  # fmt: skip
    n, levels = len(weight), np.empty(0)
    walked = rows, offsets, weight, 0.7
    found = []

    def note(*made):
        found.extend(array.tobytes() for array in made)

    interior_point.spread_and_reference(rows, offsets, weight, 0, n, linear, sums[0, :2])
    interior_point.centre(*walked, weights, 0.01, height, dual, 0, n, towards[0])
    note(linear, height, dual, towards)
    reduced[:] = linear + towards[0] - (linear + towards[0]).min() + 0.01
    interior_point.factor(
        *walked, weights, 0.5, 0.5, height, d_height, slack, dual, d_dual, 0, n,
        schur[0], towards[0], sums[0],
    )  # fmt: skip
    note(np.triu(schur[0]), towards, sums[0, :2], height, slack, dual)
    schur_system.predictor(
        schur, towards, linear, weights, reduced, upper, room, prices, equal,
        matrix, columns, gram, omega, centred, d_weights,
    )  # fmt: skip
    note(np.tril(matrix), columns, gram, omega, centred, d_weights)
    interior_point.predict(
        *walked, d_weights, CORRECTION * 0.01, slack, dual, product, 0, n,
        towards[0], against[0], sums[0],
    )  # fmt: skip
    note(product, towards, against, sums)
    target = schur_system.corrector(
        towards, against, sums, 10.0, 0.2, 0.1, weights, reduced, upper, room, prices, equal,
        matrix, columns, gram, omega, centred, d_product, d_room, d_weights,
    )  # fmt: skip
    note(d_product, d_room, d_weights, omega, np.array(target))
    interior_point.correct(
        *walked, d_weights, target, slack, dual, product, d_height, d_dual, 0, n, sums[0]
    )
    note(d_height, d_dual, sums[0, :2])
    schur_system.advance(
        sums, target, 0.2, 0.99, d_product, d_room, d_weights, omega, upper,
        weights, reduced, room, prices, levels, steps,
    )  # fmt: skip
    note(weights, reduced, room, prices, steps)
    interior_point.certificate_sums(rows, offsets, weight, weights, dual, 0, n, linear, sums[0])
    note(linear, dual, sums[0, :1])
    return found


@pytest.fixture(params=[3, 5, 7, 12])
def point(request, rng):
    """A point of a game of so many classifiers, with two cuts of the weights."""
    size = request.param
    offsets = np.array([0, 4, 7, 8, 13, 21, 23])
    rows, n_rows, n = rng.random((23, size)), 23, 6
    upper = rng.random((2, size)) - 1.5
    arrays = [
        rows, np.full(n, 1.0 / n), rng.dirichlet(np.ones(size)), np.zeros(n), 0.1 * rng.random(n),
        np.ones(n_rows), np.ones(n_rows), 0.01 * rng.random(n_rows), np.zeros(n_rows),
        np.zeros((1, size, size)), np.zeros((1, size)), np.zeros((1, size)), np.zeros((1, 5)),
        np.zeros((size, size)), np.zeros((1, size)), np.zeros((1, 1)), np.ones((1, size)),
        upper, rng.random(2) + 0.1, rng.random(2) + 0.1, np.zeros(size), np.zeros(size),
        np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(1), np.zeros(2), np.zeros(2),
    ]  # fmt: skip
    return arrays, offsets


def test_kernels_on_arrays_side_by_side(point, rng):
    arrays, offsets = point
    expected = iteration(placed(arrays, rng, apart=100), offsets)
    for _ in range(300):
        assert iteration(placed(arrays, rng), offsets) == expected


def test_kernels_on_arrays_beside_their_own(point, rng):
    arrays, offsets = point
    expected = iteration(placed(arrays, rng, apart=100), offsets)
    for place, array in enumerate(arrays):
        for moved in scattered(array, arrays[0].shape[1]):
            given = [other.copy() for other in arrays]
            given[place] = moved
            assert iteration(given, offsets) == expected


@pytest.mark.parametrize(
    ("method", "alpha"), [("lp", 0.0), ("oracle", 0.0), ("newton", 0.05), ("apg", 0.05)]
)
@pytest.mark.filterwarnings("ignore::mixsolve.ConvergenceWarning")
def test_solves(method, alpha, rng):
    losses = games.gamma_game(40, 8, 5, seed=2).losses
    found = set()
    for _ in range(16):
        (given,) = placed([losses], rng)
        solution = mixsolve.solve(given, alpha, method=method, tol=1e-9, max_iter=30)
        found.add((solution.weights.tobytes(), solution.value, solution.lower_bound))
    assert len(found) == 1


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_batches(alpha, rng):
    losses = np.stack([games.gamma_game(15, 6, 5, seed=seed).losses for seed in range(20)])
    found = set()
    for _ in range(16):
        (given,) = placed([losses], rng)
        found.add(mixsolve.solve_batch(given, alpha).weights.tobytes())
    assert len(found) == 1
