"""How far the time limit reaches: into every method, its subproblems and the presolve."""

import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
from corpus import seeds

import mixsolve
from mixsolve.base.errors import ConvergenceWarning, MixsolveError
from mixsolve.engines.memory import MemoryEngine
from mixsolve.feasible.constraints import LinearConstraints
from mixsolve.kernels import presolve as kernels
from mixsolve.methods import feasible_support as feasibility
from mixsolve.methods import presolve, stopping
from mixsolve.methods.feasible_support import find_few
from mixsolve.methods.stopping import Status, Stop
from mixsolve.small_game.interior_point import solve_interior_point

pytestmark = pytest.mark.filterwarnings(
    "ignore::mixsolve.base.errors.ConvergenceWarning", "ignore:cannot be read:UserWarning"
)


@pytest.fixture
def expire_after(monkeypatch):
    """Let the time run out once the clock was read so many times; whether it has."""
    state = SimpleNamespace(up=False)

    def expire(n_reads):
        reads = itertools.count()

        def seconds(began, ended=None):
            state.up = next(reads) >= n_reads
            return 1e9 if state.up else 0.0

        monkeypatch.setattr(stopping, "seconds_of_work", seconds)
        return state

    return expire


@pytest.fixture
def late_passes(monkeypatch):
    """How many passes over a tensor began after the time was up."""
    count = SimpleNamespace(late=0, state=SimpleNamespace(up=False))
    walk = MemoryEngine.each_block

    def counted(self, work):
        count.late += count.state.up
        return walk(self, work)

    monkeypatch.setattr(MemoryEngine, "each_block", counted)
    return count


def few_weights(weights):
    return [weights[0] <= 0.1]


CASES = [
    ("lp", 0.0, {}),
    ("oracle", 0.0, {}),
    ("interior-point", 0.0, {}),
    ("cvxpy", 0.0, {}),
    ("newton", 0.02, {}),
    ("newton", 1e-4, {}),
    ("apg", 0.02, {}),
    ("cvxpy", 0.02, {}),
    ("lp", 0.0, {"max_models": 3}),
    ("newton", 0.02, {"max_models": 3}),
    ("lp", 0.0, {"A_ub": [[1.0] + [0.0] * 11], "b_ub": [0.05]}),
    ("newton", 0.02, {"A_ub": [[1.0] + [0.0] * 11], "b_ub": [0.05]}),
    ("cvxpy", 0.0, {"constraints": few_weights}),
    ("cvxpy", 0.02, {"constraints": few_weights}),
]


@pytest.mark.parametrize(("method", "alpha", "options"), CASES)
@pytest.mark.parametrize("n_reads", seeds([0, 2, 1, 5], quick=2))
def test_every_method_ends_with_an_honest_certificate(
    expire_after, late_passes, rng, method, alpha, options, n_reads
):
    losses = rng.gamma(0.5, 1.5, (120, 8, 12))
    if "max_models" in options:  # hundreds of games are solved
        losses = losses[:40, :, :8]
    exact = mixsolve.solve(losses, alpha, **options).value
    late_passes.state = clock = expire_after(n_reads)
    late_passes.late = 0
    found = mixsolve.solve(losses, alpha, method=method, time_limit=1.0, tol=1e-12, **options)
    if clock.up:  # one call of cvxpy's solver, which has a clock of its own, may come first
        assert found.status is Status.TIME_LIMIT
        assert "the time limit of 1.0 s was reached" in found.message
    assert clock.up or method == "cvxpy"
    assert found.weights.min() >= 0.0
    assert found.weights.sum() == pytest.approx(1.0)
    assert found.lower_bound <= exact + 1e-9
    assert found.value >= exact - 1e-9
    assert found.gap == pytest.approx(found.value - found.lower_bound)
    # A node that is begun takes a few passes, its best mixture and the certificate likewise.
    assert late_passes.late <= 12


class TestSmallGames:
    @pytest.fixture
    def game(self, rng):
        rows = rng.random((400, 6))
        return rows, np.arange(0, 401, 8), np.full(50, 0.02)

    @pytest.mark.parametrize("n_asked", [0, 1, 4])
    def test_the_interior_point_stops_where_it_is(self, game, n_asked):
        asked = itertools.count()
        full = solve_interior_point(*game)
        part = solve_interior_point(*game, halted=lambda: next(asked) >= n_asked)
        assert part.nit == n_asked < full.nit
        assert not part.converged
        assert part.message == "the time was over"
        assert part.lower_bound <= full.value <= part.value
        assert part.gap == pytest.approx(part.value - part.lower_bound)

    def test_an_answer_in_time_is_the_same(self, game):
        full = solve_interior_point(*game)
        timed = solve_interior_point(*game, halted=lambda: False)
        np.testing.assert_array_equal(timed.weights, full.weights)
        assert timed.converged


class TestFewModels:
    LIMITS = LinearConstraints(np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([0.5]))

    def test_what_is_left_goes_to_the_integer_program(self, monkeypatch):
        optimize = feasibility.load("scipy.optimize")
        seen = []

        def milp(*arguments, options, **others):
            seen.append(options)
            return SimpleNamespace(x=None, status=1, message="Time limit reached")

        monkeypatch.setattr(optimize, "milp", milp)
        stop = Stop(0.0, time_limit=10.0, began=time.perf_counter() - 1e6)
        with pytest.raises(MixsolveError, match=r"before the time limit of 10.0 s.*time_limit"):
            find_few(self.LIMITS, 2, stop)
        assert seen == [{"time_limit": 0.0}]

    def test_without_a_limit_there_is_none(self):
        assert len(find_few(self.LIMITS, 2)) <= 2


class TestPresolve:
    @staticmethod
    def kept(reduce, rows, *more):
        """Rows kept of one sample, with room for all."""
        n_rows = rows.shape[0]
        empty = np.empty(0, dtype=np.uint8), np.empty(0)
        room = np.empty(n_rows, dtype=np.int32), np.empty(n_rows), np.empty(1, dtype=np.int64)
        return reduce(rows, np.array([0, n_rows]), *empty, *more, *room)

    @pytest.mark.parametrize(("n_rows", "kept"), [(256, 256), (5000, -1)])
    def test_rows_of_which_none_goes(self, n_rows, kept):
        """Each would be compared with all before it: the square of their number."""
        first = np.linspace(0.0, 1.0, n_rows)
        rows = np.column_stack([first, 1.0 - first])
        assert self.kept(kernels.reduce_values, rows, True) == kept

    @pytest.mark.parametrize("n_rows", [256, 5000])
    def test_rows_of_which_nearly_all_go(self, n_rows):
        rows = np.linspace(0.0, 1.0, n_rows)[:, None] * np.ones(3)
        assert self.kept(kernels.reduce_values, rows, True) == 1

    @pytest.mark.parametrize(("n_rows", "kept"), [(924, 924), (12870, -1)])
    def test_sets_of_which_none_goes(self, n_rows, kept):
        size = 12 if n_rows == 924 else 16
        half = list(itertools.combinations(range(size), size // 2))
        rows = np.zeros((len(half), size), dtype=np.uint8)
        for row, members in zip(rows, half, strict=True):
            row[list(members)] = 1
        codes = np.empty((len(half), 1), dtype=np.uint64)
        low, high = np.uint8(0), np.uint8(1)
        assert len(half) == n_rows
        assert self.kept(kernels.reduce_bits, rows, low, high, True, codes) == kept

    @pytest.mark.parametrize("alpha", [0.0, 0.01])
    def test_a_matrix_game_of_many_candidates(self, rng, alpha):
        losses = rng.random((1, 6000, 4))
        plain = mixsolve.solve(losses, alpha, presolve=False)
        assert mixsolve.solve(losses, alpha).value == pytest.approx(plain.value, abs=1e-6)

    def test_out_of_time(self, rng):
        losses = np.repeat(rng.integers(0, 2, (50, 4, 5)), 20, axis=1).astype(np.uint8)
        engine = mixsolve.solver.request.OpenGame(losses, None, None, None, (None,) * 5).engine
        assert presolve.reduce(engine, None) is not None
        assert presolve.reduce(engine, None, lambda: True) is None


def test_a_limit_that_is_not_reached_changes_nothing(rng):
    losses = rng.random((60, 8, 5))
    for method, alpha in (("lp", 0.0), ("interior-point", 0.0), ("newton", 0.02)):
        free = mixsolve.solve(losses, alpha, method=method)
        limited = mixsolve.solve(losses, alpha, method=method, time_limit=1e6)
        assert limited.status is Status.OPTIMAL
        np.testing.assert_array_equal(free.weights, limited.weights)


def test_it_is_told_with_a_warning(expire_after, rng):
    expire_after(0)
    with pytest.warns(ConvergenceWarning, match="the time limit of 2.5 s was reached"):
        mixsolve.solve(rng.random((60, 8, 5)), time_limit=2.5, tol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.02])
@pytest.mark.parametrize("method", ["cvxpy", "auto"])
def test_no_time_at_all_is_left_to_the_solver_of_cvxpy(monkeypatch, rng, method, alpha):
    """It then returns the point where it starts, whose weights are 0."""
    options = {} if method == "cvxpy" else {"constraints": few_weights}
    monkeypatch.setattr(Stop, "seconds_left", 1e-12)
    found = mixsolve.solve(rng.random((60, 8, 5)), alpha, method=method, time_limit=1.0, **options)
    assert np.isfinite(found.weights).all()
    assert found.weights.sum() == pytest.approx(1.0)
    assert found.lower_bound <= found.value
