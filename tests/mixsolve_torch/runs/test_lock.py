"""Locks: one holder at a time, named to the others, and none left behind by a kill."""

import errno
import os
import signal
import sys

import pytest
from forked import lock_holder

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.runs.lock import Lock

posix = pytest.mark.skipif(sys.platform == "win32", reason="forks and signals")


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def holder(path):
    """A process that holds the lock."""
    with lock_holder(path, "the folder") as process:
        yield process


def test_a_lock_that_is_let_go_of_leaves_nothing(path):
    for _ in range(2):
        with Lock(path, "the folder"):
            assert path.exists()
        assert not path.exists()


def test_two_runs_of_one_process_exclude_each_other(path):
    with Lock(path, "run.out 'x'"):
        with pytest.raises(
            MixsolveError, match=rf"run\.out 'x' is in use by process {os.getpid()}"
        ):
            Lock(path, "run.out 'x'").acquire()
        assert path.exists()  # the refused one has not removed it
    with Lock(path, "run.out 'x'"):
        pass


def test_the_holder_is_named_and_what_to_do(path, holder):
    words = rf"the folder is in use by process {holder.pid} on .* since .*; give another name"
    with pytest.raises(MixsolveError, match=words):
        Lock(path, "the folder", "give another name").acquire()


@posix
def test_a_killed_holder_holds_nothing(path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert path.exists()
    with Lock(path, "the folder"):
        assert path.read_text().startswith(f"process {os.getpid()} on")
    assert not path.exists()


@posix
def test_a_forked_child_does_not_keep_the_lock_of_its_parent(path):
    asked, told = os.pipe(), os.pipe()
    with Lock(path, "the folder"):
        child = os.fork()
        if not child:
            os.write(told[1], b"1")
            os.read(asked[0], 1)
            os._exit(0)
        os.read(told[0], 1)
    try:
        with Lock(path, "the folder"), pytest.raises(MixsolveError, match="is in use"):
            Lock(path, "the folder").acquire()
    finally:
        os.write(asked[1], b"1")
        os.waitpid(child, 0)
        for end in (*asked, *told):
            os.close(end)


@posix
def test_a_file_system_without_locks_is_warned_of(path, monkeypatch, caplog):
    import fcntl

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Lock(path, "the folder"):
        assert "the folder is not protected from other processes: Operation not" in caplog.text


def test_a_place_that_cannot_be_written_to_is_named(path):
    with pytest.raises(MixsolveError, match=r"the folder could not be locked: .*No such file"):
        Lock(path.parent / "missing" / ".lock", "the folder").acquire()
