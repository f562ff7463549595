"""Probes of sets of classifiers: bounds that hold, against SciPy's HiGHS."""

import numpy as np
import pytest
from scipy.optimize import linprog

from mixsolve.arrays.tensor import LossTensor, even_offsets
from mixsolve.engines.memory import MemoryEngine
from mixsolve.methods.probes import Probes
from mixsolve.methods.problem import Problem


def problem_of(losses, weight, allowed):
    n_samples, n_candidates, size = losses.shape
    rows = np.ascontiguousarray(losses.reshape(-1, size))
    tensor = LossTensor.from_rows(rows, even_offsets(n_samples, n_candidates))
    flags = np.empty(0, dtype=bool) if allowed is None else allowed.reshape(-1)
    engine = MemoryEngine(tensor, weight, flags, np.empty(0))
    engine.scan()
    return Problem(engine, None)


def optimum(losses, weight, allowed):
    """min sum_i w_i t_i, t_i >= <lam, l_ij> for the candidates that may be played."""
    n_samples, n_candidates, size = losses.shape
    rows = np.hstack(
        [losses.reshape(-1, size), -np.repeat(np.eye(n_samples), n_candidates, axis=0)]
    )
    if allowed is not None:
        rows = rows[allowed.reshape(-1)]
    found = linprog(
        np.concatenate([np.zeros(size), weight]),
        A_ub=rows,
        b_ub=np.zeros(len(rows)),
        A_eq=np.concatenate([np.ones(size), np.zeros(n_samples)])[None],
        b_eq=[1.0],
        bounds=[(0, None)] * size + [(None, None)] * n_samples,
    )
    assert found.status == 0
    return found.fun


GAMES = {
    "continuous": lambda rng: rng.gamma(0.5, 1.5, (60, 5, 7)),
    "zero-one": lambda rng: (rng.random((60, 5, 7)) < 0.4).astype(float),
    "negative": lambda rng: rng.standard_normal((20, 5, 7)) - 3.0,
    "one sample": lambda rng: rng.random((1, 9, 7)),
    "constant": lambda rng: np.full((4, 3, 7), 2.5),
    "one good classifier": lambda rng: rng.random((30, 4, 7)) + np.arange(7.0),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", GAMES)
def test_bounds_hold_and_values_are_those_of_the_weights(name, masked, rng):
    losses = GAMES[name](rng)
    weight = rng.dirichlet(np.ones(len(losses)))
    allowed = None
    if masked:
        allowed = rng.random(losses.shape[:2]) < 0.6
        allowed[:, 0] = True
    probes = Probes.of(problem_of(losses, weight, allowed))
    sets = [(0,), (2, 5), (0, 3, 4), (1, 2, 3, 6), tuple(range(7))]
    for most in (1, 2, 30):
        for some, found in zip(sets, probes(sets, np.inf, most), strict=True):
            best = optimum(losses[..., list(some)], weight, allowed)
            outside = np.setdiff1d(np.arange(7), some)
            assert not found.weights[outside].any()
            assert found.weights.sum() == pytest.approx(1.0, abs=1e-12)
            scores = losses @ found.weights
            if masked:
                scores = np.where(allowed, scores, -np.inf)
            assert found.value == pytest.approx(weight @ scores.max(axis=1), abs=1e-12)
            assert found.bound <= best + 1e-9 <= found.value + 2e-9


def test_a_few_passes_come_near_the_optimum_of_many_samples(rng):
    losses = rng.gamma(0.5, 1.5, (800, 8, 6))
    weight = np.full(800, 1 / 800)
    probes = Probes.of(problem_of(losses, weight, None))
    some = (0, 2, 5)
    best = optimum(losses[..., list(some)], weight, None)
    rough, fine = probes([some], np.inf, 1)[0], probes([some], np.inf, 8)[0]
    assert best - fine.bound < 0.1 * (best - rough.bound)
    assert probes([some], fine.bound - 0.05, 8)[0].bound >= fine.bound - 0.05


def test_passes_are_counted_by_their_share_of_the_tensor(rng):
    problem = problem_of(rng.random((20, 4, 6)), np.full(20, 0.05), None)
    probes = Probes.of(problem)
    before = problem.engine.n_passes
    probes([(0, 1, 2), (3, 4, 5)], -np.inf, 5)
    assert problem.engine.n_passes == before + 1.0


def test_entropic_games_are_not_probed(rng):
    problem = problem_of(rng.random((20, 4, 6)), np.full(20, 0.05), None)
    assert Probes.of(Problem(problem.engine, np.full(20, 0.1))) is None
