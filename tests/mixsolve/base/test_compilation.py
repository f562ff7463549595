"""Kernels on disk, whatever becomes of the files; seconds of preparation; signals meanwhile."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from corpus import seeds
from forked import CORE, forking

import mixsolve
from mixsolve.base import compilation, kernel_cache
from mixsolve.base.compilation import Intervals, kernel, load, preparation, seconds_of_work
from mixsolve.base.errors import CacheWarning

UNWRITABLE, UNREADABLE = "NUMBA_CACHE_DIR", "compiled again"


def doubled(x):
    return x + x


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for compiled kernels, and no warning given yet."""
    config = load("numba.core.config")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_warned", set())
    return tmp_path


def files(folder):
    return sorted(path for path in folder.rglob("*.kernel"))


def cached(folder):
    """Compile one signature of a kernel into the folder; its file."""
    assert kernel()(doubled)(3) == 6
    (path,) = files(folder)
    return path


def check_quietly():
    """What a new process would do; whether it had to compile."""
    again = kernel()(doubled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert again(4) == 8
    return again._cache.n_missed > 0


class TestCache:
    def test_what_was_compiled_is_read(self, folder):
        path = cached(folder)
        before = path.stat().st_mtime_ns
        assert not check_quietly()
        assert path.stat().st_mtime_ns == before

    def test_signatures_are_files_of_their_own(self, folder):
        both = kernel()(doubled)
        assert both(3) == 6
        assert both(1.5) == 3.0
        assert len(files(folder)) == 2
        again = kernel()(doubled)
        assert again(1.5) == 3.0
        assert again(3) == 6
        assert again._cache.n_missed == 0

    @pytest.mark.parametrize(
        "damaged",
        [
            lambda data: b"",
            lambda data: data[:1],
            lambda data: data[: len(data) // 2],
            lambda data: data[:-1],
            lambda data: data + b"\0",
            lambda data: b"\x80\x05garbage",
            lambda data: b"\0" * len(data),
            lambda data: data[:-100] + bytes(255 - byte for byte in data[-100:]),
        ],
    )
    def test_a_damaged_file_is_compiled_again(self, folder, damaged):
        path = cached(folder)
        whole = path.read_bytes()
        path.write_bytes(damaged(whole))
        with pytest.warns(CacheWarning, match=UNREADABLE):
            assert kernel()(doubled)(5) == 10
        assert path.stat().st_size > 1000
        assert not check_quietly()

    def test_whole_bytes_that_numba_cannot_use(self, folder):
        """A good digest says nothing about what is behind it."""
        path = cached(folder)
        payload = b"cos\nsystem\n"  # cut short: pickle fails
        path.write_bytes(kernel_cache.hashlib.sha256(payload).digest() + payload)
        with pytest.warns(CacheWarning, match=UNREADABLE):
            assert kernel()(doubled)(5) == 10
        assert not check_quietly()

    def test_an_empty_folder_in_its_place(self, folder):
        path = cached(folder)
        path.unlink()
        path.mkdir()
        with pytest.warns(CacheWarning, match=UNREADABLE):
            assert kernel()(doubled)(5) == 10
        assert path.is_file()

    def test_a_folder_with_something_in_it_stays(self, folder):
        path = cached(folder)
        path.unlink()
        path.mkdir()
        (path / "mine.txt").write_text("kept")
        with pytest.warns(CacheWarning) as told:
            answers = kernel()(doubled)(5), kernel()(doubled)(5.0)
        assert answers == (10, 10.0)
        assert len(told) == 2  # that it cannot be read, and that it cannot be written, once each
        assert (path / "mine.txt").read_text() == "kept"
        assert not list(path.parent.glob(".*"))

    def test_another_version_of_numba(self, folder, monkeypatch):
        path = cached(folder)
        kernel_cache._versions.cache_clear()
        monkeypatch.setattr(load("numba"), "__version__", "0.0.1")
        try:
            assert check_quietly()
        finally:
            kernel_cache._versions.cache_clear()
        assert path in files(folder)
        assert len(files(folder)) == 2

    def test_other_sources_of_any_kernel(self, folder, monkeypatch):
        """Kernels are compiled into one another: a change of one is a change of all."""
        cached(folder)
        monkeypatch.setattr(kernel_cache, "_digest_of_sources", lambda where: "0123456789abcdef")
        assert check_quietly()
        (path,) = files(folder)  # what the old sources left is gone
        assert "0123456789abcdef" in path.name

    def test_the_sources_are_those_beside_the_kernel(self, tmp_path):
        (tmp_path / "a.py").write_text("1")
        (tmp_path / "b.py").write_text("2")
        kernel_cache._digest_of_sources.cache_clear()
        one = kernel_cache._digest_of_sources(tmp_path)
        (tmp_path / "b.py").write_text("3")
        kernel_cache._digest_of_sources.cache_clear()
        assert kernel_cache._digest_of_sources(tmp_path) != one

    def test_old_files_of_numba_do_not_matter(self, folder):
        path = cached(folder)
        stem = path.parent / "test_compilation.doubled-22.py311"
        stem.with_suffix(".py311.nbi").write_bytes(b"garbage")
        stem.with_suffix(".py311.1.nbc").write_bytes(b"")
        assert not check_quietly()

    def test_a_full_disk(self, folder, monkeypatch):
        def full(path, data):
            with open(path, "wb") as file:
                file.write(data[:10])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(kernel_cache.Path, "write_bytes", full)
        with pytest.warns(CacheWarning, match=r"No space left on device.*NUMBA_CACHE_DIR") as told:
            answers = kernel()(doubled)(3), kernel()(doubled)(1.5)
        assert answers == (6, 3.0)
        assert len(told) == 1
        assert not [path for path in folder.rglob("*") if path.is_file()]

    def test_a_folder_that_cannot_be_made_any_more(self, folder):
        ready = kernel()(doubled)
        for path in folder.iterdir():
            path.rmdir()
        folder.rmdir()
        folder.write_text("a file")
        with pytest.warns(CacheWarning, match=UNWRITABLE):
            assert ready(3) == 6

    def test_no_folder_can_be_written_to(self, folder, monkeypatch):
        """A package and a home that belong to somebody else, as in a container."""
        caching = load("numba.core.caching")

        def unwritable(self):
            raise PermissionError(13, "Permission denied", self.get_cache_path())

        monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", unwritable)
        with pytest.warns(CacheWarning, match=UNWRITABLE) as told:
            first, second = kernel()(doubled), kernel()(doubled)
        assert len(told) == 1
        assert first(3) == 6
        assert second(1.5) == 3.0
        assert first._cache.cache_path is None
        first.recompile()
        assert first(4) == 8
        assert files(folder) == []

    def test_a_file_where_the_folder_should_be(self, folder, monkeypatch, tmp_path):
        target = tmp_path / "file"
        target.write_text("")
        monkeypatch.setattr(load("numba.core.config"), "CACHE_DIR", str(target))
        caching = load("numba.core.caching")
        monkeypatch.setattr(
            caching.CompileResultCacheImpl, "_locator_classes", [caching.UserProvidedCacheLocator]
        )
        with pytest.warns(CacheWarning, match=UNWRITABLE):
            assert kernel()(doubled)(3) == 6

    def test_a_kernel_compiled_again_on_demand(self, folder):
        path = cached(folder)
        one = kernel()(doubled)
        assert one(3) == 6
        one.recompile()
        assert one(3) == 6
        assert files(folder) == [path]

    def test_several_processes_at_once(self, folder):
        """Each leaves a whole file, and reads the whole file of another."""
        with forking(*CORE).Pool(3) as pool:
            assert pool.map(compile_there, [str(folder)] * 3) == [10, 10, 10]
        assert len(files(folder)) == 1
        assert not check_quietly()


def compile_there(folder):
    load("numba.core.config").CACHE_DIR = folder
    warnings.simplefilter("error")
    return kernel()(doubled)(5)


class TestIntervals:
    @pytest.fixture
    def clock(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])

        def spend(intervals, *spans):
            for start, stop in spans:
                now[0] = stop
                intervals.add(start)
            return intervals

        return spend

    def test_nothing_yet(self):
        assert Intervals().seconds(0.0, 10.0) == 0.0

    @pytest.mark.parametrize(
        ("spans", "total"),
        [
            ([(1, 2)], 1),
            ([(1, 2), (4, 7)], 4),
            ([(5, 6), (1, 7)], 6),  # one within another
            ([(1, 4), (2, 5)], 4),  # two threads
            ([(1, 2), (3, 4), (5, 6), (0, 6)], 6),
            ([(2, 3), (2, 5), (4, 6), (7, 8)], 5),
        ],
    )
    def test_what_overlaps_counts_once(self, clock, spans, total):
        assert clock(Intervals(), *spans).seconds(0.0, 10.0) == total

    @pytest.mark.parametrize(
        ("began", "ended", "total"),
        [(0, 10, 5), (3, 10, 4), (6, 10, 2), (7, 10, 1), (8, 10, 0), (0, 3, 1), (3, 4.5, 1.5)],
    )
    def test_only_what_lies_between_the_moments(self, clock, began, ended, total):
        intervals = clock(Intervals(), (2, 5), (6, 8))
        assert intervals.seconds(began, ended) == total

    def test_seconds_of_work(self, monkeypatch):
        monkeypatch.setattr(compilation, "preparing", Intervals())
        began = time.perf_counter() - 100.0
        compilation.preparing.add(time.perf_counter() - 90.0)
        assert 10.0 <= seconds_of_work(began) < 15.0


class TestCounting:
    def test_a_compilation_is_counted_and_a_second_call_is_not(self, folder):
        began = time.perf_counter()
        one = kernel()(doubled)
        one(3)
        compiled = time.perf_counter()
        one(4)
        ended = time.perf_counter()
        spent = compilation.preparations((began, compiled))
        assert 0.0 < spent["compile"] <= compiled - began
        assert compilation.preparations((compiled, ended)) == {"compile": 0.0, "load": 0.0}

    def test_reading_from_the_cache_is_loading(self, folder):
        cached(folder)
        began = time.perf_counter()
        kernel()(doubled)(3)
        spent = compilation.preparations((began, time.perf_counter()))
        assert spent["compile"] == 0.0
        assert spent["load"] > 0.0

    def test_a_compilation_in_another_thread(self, folder):
        began = time.perf_counter()
        thread = threading.Thread(target=kernel()(doubled), args=(3,))
        thread.start()
        thread.join()
        assert compilation.compiling.seconds(began, time.perf_counter()) > 0.0

    def test_a_compilation_that_fails(self, folder):
        began = time.perf_counter()
        with pytest.raises(load("numba").errors.TypingError):
            kernel()(wrong)(3)
        assert compilation.compiling.seconds(began, time.perf_counter()) > 0.0
        assert kernel()(doubled)(3) == 6


def wrong(x):
    return x + "text"


class TestSignals:
    def test_they_wait_until_the_end(self):
        done = []

        def prepare():
            with preparation():
                with preparation():
                    os.kill(os.getpid(), signal.SIGINT)
                    done.append("inner")
                done.append("outer")

        with pytest.raises(KeyboardInterrupt):
            prepare()
        assert done == ["inner", "outer"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_a_handler_of_the_users(self):
        seen = []
        before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
        try:
            with preparation():
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)
                assert seen == []
            assert seen == [signal.SIGTERM]
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_an_error_passes(self):
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(OSError, match="no"), preparation():
            raise OSError("no")
        assert signal.getsignal(signal.SIGINT) is before

    def test_other_threads_leave_them_alone(self):
        inside, seen = threading.Event(), []

        def prepare():
            with preparation():
                seen.append(signal.getsignal(signal.SIGINT))
                inside.set()

        thread = threading.Thread(target=prepare)
        thread.start()
        thread.join()
        assert seen == [signal.default_int_handler]

    def test_an_interrupt_while_a_kernel_is_compiled(self, folder):
        one = kernel()(doubled)
        compile_plainly = one._compiler.compile

        def interrupted(*arguments):
            os.kill(os.getpid(), signal.SIGINT)
            return compile_plainly(*arguments)

        one._compiler.compile = interrupted
        with pytest.raises(KeyboardInterrupt):
            one(3)
        assert one(3) == 6
        assert len(files(folder)) == 1


def total(values, scale):
    found = 0.0
    for k in range(values.size):
        found += scale * values[k]
    return found


def test_one_form_for_arrays_that_may_be_written_to_and_others(folder):
    summed = kernel()(total)
    values = np.arange(4.0)
    frozen = values.copy()
    frozen.flags.writeable = False
    assert [summed(given, 2) for given in (frozen, values, frozen)] == [12.0] * 3
    assert summed._cache.n_missed == len(files(folder)) == 1
    assert summed(values.astype(np.float32), 2) == 12.0
    assert len(files(folder)) == 2


def test_one_form_for_numbers_that_a_calling_kernel_knows_and_others(folder):
    summed = kernel()(total)

    @kernel()
    def calls(values, scale):
        return summed(values, 2) + summed(values, 3) + summed(values, scale)

    assert calls(np.arange(4.0), 5) == 60.0
    assert summed._cache.n_missed == 1
    assert summed(np.arange(4.0), 5) == 30.0
    assert summed._cache.n_missed == 1


def test_arrays_are_passed_through():
    assert np.array_equal(kernel()(doubled)(np.arange(3.0)), [0.0, 2.0, 4.0])


COLD = """
import json, time, warnings
import numpy as np
import mixsolve
from mixsolve.base.errors import CacheWarning

warnings.simplefilter("error", CacheWarning)
losses = np.random.default_rng(0).random((50, 5, 4))
told = []

def tell(solution, seconds):
    told.append([str(solution.status), solution.message, solution.timings, seconds])

for options in ({}, {}, {"A_ub": [[1.0, 0.0, 0.0, 0.0]], "b_ub": [0.2]}):
    began = time.perf_counter()
    solution = mixsolve.solve(losses, time_limit=LIMIT, **options)
    tell(solution, time.perf_counter() - began)
impossible = mixsolve.solve(losses, method="cvxpy", time_limit=1e-9)
tell(impossible, 0.0)
print(json.dumps(told))
"""
LIMIT = 2.0  # seconds: compiling takes longer, the work far less
# What is compiled of a linear program, of the search under constraints, and of "apg".
NEW = {"near_response", "best_response", "factor", "predictor", "corrector"}
NEW |= {"minimize_quadratic", "soft_answer"}


# For a small game a process takes NumPy as long as it can.
KERNELS = "from mixsolve.base.tuning import tuning\ntuning.uncompiled_entries = 0\n"


def run_python(script, cache, **environment):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment}
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::mixsolve.base.errors.ConvergenceWarning",
            "-c",
            KERNELS + script,
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def known_here(folder):
    """Copy what this session has compiled to where a process given `folder` looks for it."""
    losses = np.random.default_rng(0).random((50, 5, 4))
    mixsolve.solve(losses)
    mixsolve.solve(losses, A_ub=[[1.0, 0.0, 0.0, 0.0]], b_ub=[0.2])
    passes = load("mixsolve.kernels.passes")
    where = load("numba.core.caching").UserProvidedCacheLocator
    there = folder / where.get_suitable_cache_subpath(passes.__file__)
    there.mkdir()
    for path in Path(passes.best_response._cache.cache_path).glob("mixsolve.*.kernel"):
        if not NEW & set(path.name.split(".")):
            shutil.copy(path, there)


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A process to which kernels are new: the folder it left, and what it told of each solve."""
    folder = tmp_path_factory.mktemp("kernels")
    known_here(folder)
    out, _ = run_python(COLD.replace("LIMIT", str(LIMIT)), folder)
    return folder, json.loads(out)


class TestFirstProcess:
    def test_the_time_limit_is_on_solving(self, cold):
        _, told = cold
        assert [status for status, *_ in told[:3]] == ["optimal"] * 3

    def test_every_compilation_is_counted(self, cold):
        """That of the kernels for constraints is done while the problem is checked."""
        _, (first, second, constrained, _) = cold
        for _, _, timings, seconds in (first, constrained):
            work = timings["check"] + timings["solve"] + timings["certify"]
            assert timings["compile"] > 0.0
            assert timings["total"] == pytest.approx(
                work + timings["compile"] + timings["load"], abs=1e-6
            )
            assert timings["total"] <= seconds
            assert work < timings["compile"]
            assert timings["check"] < timings["compile"]
        assert second[2]["compile"] == second[2]["load"] == 0.0

    def test_a_message_names_what_is_not_counted(self, cold):
        """Here the seconds that importing cvxpy took."""
        _, (*_, (status, message, timings, _)) = cold
        assert status == "time_limit"
        assert timings["load"] > 0.05
        assert re.match(
            r"the time limit of 1e-09 s was reached, not counting \d+\.\d s of imports and compila",
            message,
        )


INTERRUPTED = """
import os, signal, sys
import numpy as np
import mixsolve

class Interrupt:
    module = seen = None
    def find_spec(self, name, path=None, target=None):
        if name == Interrupt.module and not Interrupt.seen:
            Interrupt.seen = True
            os.kill(os.getpid(), signal.SIGINT)

losses = np.random.default_rng(0).random((50, 5, 4))
sys.meta_path.insert(0, Interrupt())
for Interrupt.module, options in STEPS:
    Interrupt.seen = False
    try:
        mixsolve.solve(losses, **options)
    except KeyboardInterrupt:
        print("interrupted")
    assert Interrupt.seen
    print(round(mixsolve.solve(losses, **options).value, 4))
"""
CAPPED = {"A_ub": [[1.0, 0, 0, 0]], "b_ub": [0.1]}


class TestInterrupt:
    """Ctrl-C while a package is half imported, at its beginning, in its depth, near its end."""

    @pytest.mark.parametrize(
        "steps",
        seeds(
            [
                [
                    ("numba.core", {}),
                    ("scipy.optimize._linprog_highs", CAPPED),
                    ("cvxpy.reductions", {"method": "cvxpy"}),
                ],
                [("numba.core.typing.templates", {})],
                [("numba.np.ufunc", {})],
                [("numba.core.config", {})],
                [("llvmlite.binding", {})],
            ],
            quick=3,
        ),
    )
    def test_the_next_solve_works(self, cold, steps):
        losses = np.random.default_rng(0).random((50, 5, 4))
        out, err = run_python(INTERRUPTED.replace("STEPS", repr(steps)), cold[0])
        expected = []
        for _, options in steps:
            expected += ["interrupted", str(round(mixsolve.solve(losses, **options).value, 4))]
        assert out.split() == expected, err

    @pytest.mark.parametrize("seconds", seeds([0.3, 1.0, 0.05, 2.0], quick=2))
    def test_at_any_moment_from_outside(self, cold, seconds):
        """The first process of its kind: some kernels are read, those of "apg" are compiled."""
        script = (
            "import sys, numpy as np, mixsolve\n"
            "losses = np.random.default_rng(0).random((50, 5, 4)).astype(np.float32)\n"
            "print('ready', flush=True)\n"
            "try:\n"
            "    mixsolve.solve(losses, 0.05, method='apg')\n"
            "    sys.stdin.read()\n"
            "except KeyboardInterrupt:\n"
            "    pass\n"
            "print(mixsolve.solve(losses, 0.05, method='apg').success)\n"
        )
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(cold[0])}
        with subprocess.Popen(
            [sys.executable, "-c", KERNELS + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=500)
        assert process.returncode == 0, err
        assert out == "True\n"


class TestContainer:
    def test_package_and_home_belong_to_somebody_else(self, tmp_path):
        """Every kernel is compiled, one warning is given, and the answer is right."""
        script = (
            "import sys, numba.core.caching as caching\n"
            "def unwritable(self):\n"
            "    raise PermissionError(13, 'Permission denied')\n"
            "caching._CacheLocator.ensure_cache_path = unwritable\n"
            "import mixsolve\n"
            "pennies = [[[1.0, 0.0], [0.0, 1.0]]]\n"
            "found = mixsolve.solve(pennies, method='oracle', max_iter=200, tol=0.1)\n"
            "print(found.value, found.success)"
        )
        out, err = run_python(script, tmp_path)
        assert out == "0.5 True\n"
        assert err.count("CacheWarning") == 1
        assert "NUMBA_CACHE_DIR" in err
        assert list(tmp_path.rglob("*.kernel")) == []

    def test_every_file_damaged(self, cold, tmp_path):
        """In one of five ways each: one warning, right answers, and the files are whole again."""
        script = (
            "import mixsolve\n"
            "pennies = [[[1.0, 0.0], [0.0, 1.0]]]\n"
            "found = mixsolve.solve(pennies, method='oracle', max_iter=200, tol=0.1)\n"
            "print(found.value, found.success)"
        )
        shutil.copytree(cold[0], tmp_path / "kernels")
        damage = itertools.cycle(
            [b"", b"x", b"\x80\x05", bytes(100), kernel_cache.hashlib.sha256().digest()]
        )
        for path in files(tmp_path):
            path.write_bytes(next(damage))
        for n_warnings in (1, 0):
            out, err = run_python(script, tmp_path / "kernels")
            assert out == "0.5 True\n"
            assert err.count("CacheWarning:") == n_warnings
