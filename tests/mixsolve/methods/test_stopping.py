import logging
import time

import numpy as np
import pytest

from mixsolve.base import compilation
from mixsolve.methods.iteration_table import IterationTable
from mixsolve.methods.stopping import ROUNDING, Status, Stop

ONE, TWO, THREE = np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([0.0, 1.0])


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    """In the seconds before a test, which some tests say that a solve has worked in."""
    monkeypatch.setattr(compilation, "preparing", compilation.Intervals())


def run(stop, values, default_max_iter=100):
    """Feed (value, bound) pairs to a stop until it has enough; the iterations it allowed."""
    done = []
    for nit in stop.iterations(default_max_iter):
        done.append(nit)
        if stop.record(ONE, *values[min(nit, len(values)) - 1]):
            break
    return done


def test_the_gap_ends_it():
    stop = Stop(0.1)
    assert run(stop, [(3.0, 0.0), (2.0, 1.0), (1.5, 1.45), (1.5, 1.5)]) == [1, 2, 3]
    assert stop.status is Status.OPTIMAL
    assert stop.nit == 3
    assert stop.gap == pytest.approx(0.05)


def test_a_gap_equal_to_the_tolerance_is_enough():
    stop = Stop(0.5)
    assert not stop.record(ONE, 1.0, 0.25)
    assert stop.record(ONE, 1.0, 0.5)


def test_the_gap_is_between_the_best_value_and_the_best_bound():
    stop = Stop(0.0)
    assert stop.gap == np.inf
    stop.record(ONE, 2.0, 1.0)
    stop.record(TWO, 3.0, 1.5)
    stop.record(THREE, 4.0, 0.5)
    assert (stop.value, stop.lower_bound, stop.gap) == (2.0, 1.5, 0.5)
    np.testing.assert_array_equal(stop.weights, ONE)
    np.testing.assert_array_equal(stop.proof, TWO)
    assert [(line.value, line.lower_bound, line.gap) for line in stop.history] == [
        (2.0, 1.0, 1.0),
        (2.0, 1.5, 0.5),
        (2.0, 1.5, 0.5),
    ]


@pytest.mark.parametrize(("max_iter", "allowed"), [(None, 7), (3, 3), (20, 20)])
def test_iterations_allowed(max_iter, allowed):
    stop = Stop(0.0, max_iter=max_iter)
    assert run(stop, [(1.0, 0.0)], default_max_iter=7) == list(range(1, allowed + 1))
    assert stop.status is Status.MAX_ITER
    assert len(stop.history) == allowed


def test_iterations_go_on_counting_in_a_second_loop():
    stop = Stop(0.0, max_iter=5)
    for nit in stop.iterations(100):
        if nit == 2:
            break
    assert run(stop, [(1.0, 0.0)]) == [3, 4, 5]
    assert list(stop.iterations(100)) == []


def test_time_is_up():
    stop = Stop(0.0, time_limit=60.0, began=time.perf_counter() - 61.0)
    assert stop.seconds >= 61.0
    assert stop.seconds_left == 0.0
    assert run(stop, [(1.0, 0.0)]) == []
    assert stop.status is Status.TIME_LIMIT


def test_time_runs_out_between_iterations(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    stop = Stop(0.0, time_limit=10.0)
    done = run(stop, [(1.0, 0.0)])
    assert 0 < len(done) < 10
    assert stop.status is Status.TIME_LIMIT


def test_no_time_limit():
    assert Stop(0.0).seconds_left is None
    assert 0.0 < Stop(0.0, time_limit=1e6).seconds_left <= 1e6


@pytest.mark.parametrize("value", [1.0, -1.0, 1e9, -3e-7])
def test_of_equal_values_the_better_bound_decides(value):
    bound = value - 0.5
    for nearly in (value, value + 0.5 * ROUNDING * abs(value), value - 0.5 * ROUNDING * abs(value)):
        stop = Stop(0.0)
        stop.record(ONE, value, bound)
        stop.record(TWO, nearly, bound + 0.25)
        np.testing.assert_array_equal(stop.weights, TWO)
        stop.record(THREE, nearly, bound + 0.125)
        np.testing.assert_array_equal(stop.weights, TWO)
        assert stop.value == min(value, nearly)


def test_values_that_differ_decide_by_themselves():
    stop = Stop(0.0)
    stop.record(ONE, 1.0, 0.5)
    stop.record(TWO, 1.0 + 4 * ROUNDING, 0.9)
    np.testing.assert_array_equal(stop.weights, ONE)
    np.testing.assert_array_equal(stop.proof, TWO)
    stop.record(THREE, 1.0 - 4 * ROUNDING, 0.0)
    np.testing.assert_array_equal(stop.weights, THREE)
    np.testing.assert_array_equal(stop.proof, TWO)


def test_a_bound_of_another_point():
    stop = Stop(0.0)
    stop.record(ONE, 1.0, 0.5, proof=THREE)
    np.testing.assert_array_equal(stop.weights, ONE)
    np.testing.assert_array_equal(stop.proof, THREE)
    stop.record(TWO, 0.9, 0.4, proof=ONE)
    np.testing.assert_array_equal(stop.weights, TWO)
    np.testing.assert_array_equal(stop.proof, THREE)


def test_without_any_bound_there_is_no_proof():
    stop = Stop(1e9)
    assert not stop.record(ONE, 1.0, -np.inf)
    assert stop.proof is None
    np.testing.assert_array_equal(stop.weights, ONE)


def test_points_are_copied():
    stop = Stop(0.0)
    weights, proof = ONE.copy(), TWO.copy()
    stop.record(weights, 1.0, 0.5, proof=proof)
    weights[:], proof[:] = 7.0, 8.0
    np.testing.assert_array_equal(stop.weights, ONE)
    np.testing.assert_array_equal(stop.proof, TWO)


def test_the_callback_sees_the_iterate_and_the_best_so_far():
    seen = []
    stop = Stop(0.0, callback=seen.append)
    stop.nit = 4
    stop.record(ONE, 1.0, 0.25)
    stop.record(TWO, 2.0, 0.5)
    assert stop.status is None
    first, second = seen
    np.testing.assert_array_equal(second.weights, TWO)
    assert (second.nit, second.value, second.lower_bound, second.gap) == (4, 1.0, 0.5, 0.5)
    assert 0.0 <= first.seconds <= second.seconds


def test_a_callback_cannot_spoil_the_weights():
    stop = Stop(0.0, callback=lambda state: state.weights.fill(9.0))
    weights = ONE.copy()
    stop.record(weights, 1.0, 0.0)
    np.testing.assert_array_equal(weights, ONE)
    np.testing.assert_array_equal(stop.weights, ONE)


def test_the_callback_can_stop():
    stop = Stop(0.0, callback=lambda state: state.nit == 2)
    assert run(stop, [(1.0, 0.0)]) == [1, 2]
    assert stop.status is Status.STOPPED


def test_optimal_even_if_the_callback_stops_there():
    stop = Stop(1.0, callback=lambda state: True)
    assert stop.record(ONE, 1.0, 0.5)
    assert stop.status is Status.OPTIMAL


def test_a_part_has_the_same_clock_and_nothing_else(capsys):
    seen = []
    began = time.perf_counter() - 50.0
    limits = {"max_iter": 3, "time_limit": 60.0}
    stop = Stop(0.1, **limits, callback=seen.append, table=IterationTable("x"), began=began)
    stop.record(ONE, 1.0, 0.0)
    capsys.readouterr()
    part = stop.part(0.7)
    assert (part.tolerance, part.time_limit, part.max_iter) == (0.7, 60.0, None)
    assert part.seconds >= 50.0
    assert part.seconds_left <= 10.0
    assert (part.nit, part.status, part.history, part.gap) == (0, None, [], np.inf)
    assert run(part, [(2.0, 0.0), (2.0, 1.0), (2.0, 1.5)]) == [1, 2, 3]
    assert len(seen) == 1
    assert not capsys.readouterr().out
    assert (stop.nit, stop.value, stop.status) == (0, 1.0, None)
    assert len(stop.history) == 1


def test_a_part_of_a_solve_whose_time_is_up_does_nothing():
    stop = Stop(0.1, time_limit=1.0, began=time.perf_counter() - 2.0)
    assert run(stop.part(0.1), [(1.0, 0.0)]) == []


def test_log(caplog):
    stop = Stop(0.0)
    with caplog.at_level(logging.DEBUG, logger="mixsolve"):
        run(stop, [(1.0, 0.5)], default_max_iter=1)
    (line,) = caplog.records
    assert line.levelno == logging.DEBUG
    assert line.getMessage().startswith("iteration 1: value 1, lower bound 0.5, gap 0.5")


def test_heads_stand_again_after_many_lines(capsys):
    table = IterationTable("a game")
    for nit in range(1, 100):
        table.add(nit, 1.0, 0.5, 0.5, 0.01)
    table.end("over")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a game"
    assert lines[-1] == "over"
    assert [place for place, line in enumerate(lines) if "lower bound" in line] == [1, 42, 83]


def test_ties_do_not_add_up_to_a_worse_point():
    """Many decreases below rounding are a decrease: the weights may not be left behind."""
    stop = Stop(0.0)
    for k in range(2000):
        stop.record(np.array([float(k)]), 1.0 - k * 3e-15, -float(k))
    assert stop.weights[0] > 1990


def test_imports_and_compilation_are_not_counted():
    now = time.perf_counter()
    stop = Stop(0.0, time_limit=20.0, began=now - 100.0)
    assert stop.is_late()
    compilation.preparing.add(now - 90.0)
    assert 10.0 <= stop.seconds < 20.0
    assert 0.0 < stop.seconds_left <= 10.0
    assert not stop.is_late()
    assert run(stop, [(1.0, 0.0)], default_max_iter=3) == [1, 2, 3]
    assert stop.history[0].seconds < 20.0
    assert run(stop.part(0.0), [(1.0, 1.0)]) == [1]
