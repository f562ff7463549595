"""Passes on several threads: where none can be started, several solves at once, after a fork."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from corpus import seeds

import mixsolve
from mixsolve.arrays.read_ahead import read_ahead
from mixsolve.base import threads
from mixsolve.base.compilation import load
from mixsolve.base.threads import run_chunks, run_shares

HANGS = 300  # seconds after which a process is thought to hang


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr(threads, "n_threads", lambda: 3)
    threads._pool.cache_clear()
    yield
    threads._pool.cache_clear()


@pytest.fixture(params=["none", "first", "never started"])
def no_more_threads(request, monkeypatch, three_threads):
    """Pools that refuse work: all of it; all but the first; or take it and never do it."""
    taken = []
    submit = ThreadPoolExecutor.submit

    def refuse(self, function, *arguments):
        taken.append(function)
        if request.param == "never started":
            return Future()
        if request.param == "first" and len(taken) == 1:
            return submit(self, function, *arguments)
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    return taken


def each_once(n_chunks):
    """Run so many chunks; how often each was run."""
    counts = np.zeros(n_chunks, dtype=int)

    def count(chunk):
        counts[chunk] += 1

    run_chunks(count, n_chunks)
    return counts


@pytest.mark.parametrize("n_chunks", [1, 2, 3, 7, 64])
class TestChunks:
    def test_each_is_run_once(self, three_threads, n_chunks):
        assert (each_once(n_chunks) == 1).all()

    def test_each_is_run_once_where_no_thread_can_be_started(self, no_more_threads, n_chunks):
        assert (each_once(n_chunks) == 1).all()

    def test_each_is_run_once_in_a_thread_of_the_pool(self, three_threads, n_chunks):
        """The threads that would help are all busy with callers of their own."""
        pool = threads._pool(os.getpid())
        asked = [pool.submit(each_once, n_chunks) for _ in range(4)]
        for counts in asked:
            assert (counts.result(timeout=HANGS) == 1).all()


class TestErrors:
    def test_an_error_halts_the_others(self, three_threads):
        begun = []

        def share(chunks, halted):
            begun.append(chunks[0])
            if len(begun) == 1:
                raise OSError("gone")
            assert halted.wait(HANGS)

        with pytest.raises(OSError, match="gone"):
            run_shares(share, 3)

    def test_an_error_where_no_thread_can_be_started(self, no_more_threads):
        def share(chunks, halted):
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            run_shares(share, 3)

    @pytest.mark.parametrize("error", [IndexError, RuntimeError])
    def test_errors_of_a_share_are_its_own(self, three_threads, error):
        def share(chunks, halted):
            raise error("of the share")

        with pytest.raises(error, match="of the share"):
            run_shares(share, 3)


class TestReadAhead:
    @pytest.mark.parametrize("n_taken", [0, 1, 3])
    def test_where_no_more_threads_can_be_started(self, monkeypatch, n_taken):
        left = [None] * n_taken
        submit = ThreadPoolExecutor.submit

        def refuse(self, function, *arguments):
            if not left:
                raise RuntimeError("can't start new thread")
            left.pop()
            return submit(self, function, *arguments)

        monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
        done = []

        def read(each):
            done.append(each)
            return 10 * each

        assert list(read_ahead(range(5), read)) == [0, 10, 20, 30, 40]
        assert done == [0, 1, 2, 3, 4]


class TestSolve:
    @pytest.fixture
    def losses(self, rng):
        return rng.random((3000, 20, 5))

    @pytest.mark.parametrize("alpha", [0.0, 0.05])
    def test_where_no_thread_can_be_started(self, no_more_threads, losses, alpha):
        found = mixsolve.solve(losses, alpha)
        assert no_more_threads
        assert found.success
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threads, "n_threads", lambda: 1)
            alone = mixsolve.solve(losses, alpha)
        np.testing.assert_array_equal(found.weights, alone.weights)
        assert found.value == alone.value

    def test_several_at_once(self, three_threads, rng):
        games = [rng.random((2000, 20, 5)) for _ in range(6)]
        expected = [mixsolve.solve(game, alpha).value for game in games for alpha in (0.0, 0.05)]
        found = {}

        def work(place):
            found[place] = [mixsolve.solve(games[place], alpha).value for alpha in (0.0, 0.05)]

        workers = [threading.Thread(target=work, args=(place,)) for place in range(len(games))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(HANGS)
        assert [value for place in range(len(games)) for value in found[place]] == expected


def solve_there(losses, connection):
    connection.send(mixsolve.solve(losses).value)


def compile_there(connection):
    from mixsolve.base.compilation import kernel

    connection.send(kernel()(tripled)(3))


def tripled(x):
    return 3 * x


def answer_of(target, *arguments):
    """What a forked child sends."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(*arguments, sender))
    child.start()
    try:
        assert receiver.poll(HANGS), "the child hangs"
        found = receiver.recv()
        child.join(HANGS)
        assert child.exitcode == 0
        return found
    finally:
        child.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestFork:
    def test_a_child_of_a_process_whose_threads_have_worked(self, three_threads, rng):
        losses = rng.random((3000, 20, 5))
        value = mixsolve.solve(losses).value
        assert answer_of(solve_there, losses) == value

    def test_a_child_of_a_process_that_is_solving(self, three_threads, rng):
        losses = rng.random((3000, 20, 5))
        value = mixsolve.solve(losses).value
        ended = Event()

        def work():
            while not ended.is_set():
                mixsolve.solve(losses)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            assert answer_of(solve_there, losses) == value
        finally:
            ended.set()
            worker.join()

    def test_no_fork_happens_while_another_thread_compiles(self):
        """The child would wait for the compiler's lock for ever."""
        lock = load("numba.core.compiler_lock").global_compiler_lock
        mixsolve.solve([[[0.0, 1.0]]])  # the kernels are there, and with them the rule
        held, forking = Event(), Event()

        def compile_for_a_while():
            with lock:
                held.set()
                forking.wait(1.0)

        worker = threading.Thread(target=compile_for_a_while)
        worker.start()
        held.wait()
        try:
            assert answer_of(compile_there) == 9
        finally:
            forking.set()
            worker.join()


LATE = """
import atexit, sys, threading, time
import numpy as np
import mixsolve

losses = np.random.default_rng(0).random((3000, 20, 5))
before = mixsolve.solve(losses)

def late(where):
    for alpha in (0.0, 0.05):
        after = mixsolve.solve(losses, alpha)
        assert after.success
        if alpha == 0.0:
            assert after.value == before.value
            np.testing.assert_array_equal(after.weights, before.weights)
    print(where, flush=True)
"""


def run_late(script):
    environment = {**os.environ, "MIXSOLVE_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", LATE + script],
        capture_output=True,
        text=True,
        timeout=HANGS,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


class TestEndOfTheInterpreter:
    def test_in_a_hook_in_a_destructor_and_from_a_file_that_is_read_ahead(self, tmp_path):
        np.save(tmp_path / "losses.npy", np.random.default_rng(0).random((5, 3000, 20)).T)
        script = (
            f"stored = np.load({str(tmp_path / 'losses.npy')!r}, mmap_mode='r')\n"
            "stored = stored.transpose(1, 0, 2)\n"
            "expected = mixsolve.solve(stored).value\n"
            "def stored_late():\n"
            "    assert mixsolve.solve(stored).value == expected\n"
            "    print('file')\n"
            "class Last:\n"
            "    def __del__(self):\n"
            "        late('destructor')\n"
            "last = Last()\n"
            "atexit.register(lambda: globals().pop('last'))\n"
            "atexit.register(stored_late)\n"
            "atexit.register(late, 'hook')"
        )
        assert run_late(script) == ["hook", "file", "destructor"]

    def test_in_a_thread_that_outlives_the_main_one(self):
        script = (
            "def outlive():\n"
            "    threading.main_thread().join()\n"
            "    time.sleep(0.2)\n"
            "    late('thread')\n"
            "threading.Thread(target=outlive).start()"
        )
        assert run_late(script) == ["thread"]

    @pytest.mark.parametrize("scheduler", seeds(["threads", "sync", "processes"], quick=1))
    def test_through_dask(self, scheduler):
        pytest.importorskip("dask.array")
        script = (
            "import dask, dask.array\n"
            "from mixsolve.engines.dask import DaskLosses\n"
            "stored = dask.array.from_array(losses, chunks=(1000, -1, -1))\n"
            f"dask.config.set(scheduler={scheduler!r})\n"
            "def values():\n"
            "    return [mixsolve.solve(each).value for each in (stored, DaskLosses(stored))]\n"
            "expected = values()\n"
            "def dask_late():\n"
            "    assert values() == expected\n"
            "    print('dask')\n"
            "atexit.register(dask_late)"
        )
        assert run_late(script) == ["dask"]


def test_objects_of_a_class_do_not_wait_for_each_other():
    class Slow:
        def __init__(self):
            self.begun, self.over = threading.Event(), threading.Event()

        @threads.computed_once
        def value(self):
            self.begun.set()
            assert self.over.wait(60)
            return self

    one, other = Slow(), Slow()
    work = threading.Thread(target=lambda: one.value)
    work.start()
    assert one.begun.wait(60)
    other.over.set()
    assert other.value is other  # while the first one is still at it
    one.over.set()
    work.join()
    assert vars(one)["value"] is one
