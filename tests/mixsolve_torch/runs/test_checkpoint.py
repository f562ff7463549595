"""Checkpoints: what is read is what was written, and nothing that fails costs the one before."""

import errno
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import run_script

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import digits_cnn
from mixsolve_torch.runs import checkpoint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.pt"


def names(path):
    return sorted(entry.name for entry in path.parent.iterdir())


def state(step):
    return {"step": step, "values": torch.full((1000,), float(step))}


def step_in(path):
    return checkpoint.load(path)["step"]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        alike = type(a) is type(b) and len(a) == len(b)
        return alike and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def test_everything_a_run_has_comes_back(path):
    model = digits_cnn(width=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    whole = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.Generator().manual_seed(4).get_state(),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "records": [{"epoch": 1, "clean": {"mixture": 0.5}, "split": "validation"}],
        "plain": [None, True, 2**40, 0.1, "words", b"bytes", (1, 2), OrderedDict(a=1)],
    }
    checkpoint.save(whole, path)
    assert same(whole, checkpoint.load(path))
    assert names(path) == ["last.pt"]


def test_the_one_before_is_kept_as_well(path):
    for step in (1, 2, 3):
        checkpoint.save(state(step), path)
    assert names(path) == ["last.pt", "last.pt.previous"]
    assert (step_in(path), step_in(checkpoint.previous(path))) == (3, 2)


def test_where_links_are_unknown_the_new_one_is_still_written(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    checkpoint.save(state(1), path)
    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save(state(2), path)
    assert step_in(path) == 2
    assert names(path) == ["last.pt"]


KILLED = """
import os, signal, sys
import torch
from mixsolve_torch.runs import checkpoint

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def half(state, file):
    file.write(b"half of it")
    file.flush()
    die()

def third(*names):
    replace(*names) if calls else die()
    calls.pop()

replace, calls = os.replace, [1]
for moment in ("writing", "linked", "renaming"):
    child = os.fork()
    if not child:
        os.mkdir(moment)
        path = os.path.join(moment, "last.pt")
        for step in (1, 2):
            checkpoint.save({"step": step}, path)
        if moment == "writing":
            torch.save = half
        else:
            os.replace = die if moment == "linked" else third
        checkpoint.save({"step": 3}, path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
def test_a_killed_process_leaves_the_old_file(tmp_path):
    done = run_script(KILLED, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for moment, litter in (("writing", 1), ("linked", 2), ("renaming", 1)):
        path = tmp_path / moment / "last.pt"
        assert step_in(path) == 2
        there = {"last.pt", "last.pt.previous"}
        assert len(set(names(path)) - there) == litter  # it was in the middle of something
        for step, before in ((4, 2), (5, 4)):
            checkpoint.save(state(step), path)
            assert set(names(path)) == there
            assert (step_in(path), step_in(checkpoint.previous(path))) == (step, before)


class Full:
    """A file on a disk that has room for so many bytes more."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_a_full_disk_is_one_clear_error(path, monkeypatch, room):
    write = torch.save
    checkpoint.save(state(1), path)
    monkeypatch.setattr(torch, "save", lambda state, file: write(state, Full(file, room)))
    with pytest.raises(
        MixsolveError,
        match=r"last.pt could not be written: the disk is full; it needs about [\d,]+ bytes, "
        r"[\d,]+ are free; the checkpoint written before is intact in .*last.pt; make room",
    ):
        checkpoint.save(state(2), path)
    assert step_in(path) == 1
    assert names(path) == ["last.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device(path, monkeypatch):
    (path.parent / "last.pt.part").symlink_to("/dev/full")
    with pytest.raises(MixsolveError, match=r"the disk is full.*there is none from before"):
        checkpoint.save(state(1), path)
    assert names(path) == []


def test_other_reasons_are_told(path, monkeypatch):
    with pytest.raises(MixsolveError, match=r"the folder .*absent is missing"):
        checkpoint.save(state(1), path.parent / "absent" / "last.pt")

    def refuse(*_):
        raise RuntimeError("no such luck\nand a trace")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(MixsolveError, match=r"could not be written: no such luck; it needs about"):
        checkpoint.save(state(1), path)
    assert names(path) == []


def test_the_size_told_is_that_of_the_tensors():
    half = torch.zeros(1000)
    whole = {"a": half, "b": [half[:10], half.view(10, 100)], "c": torch.zeros(3, dtype=torch.int8)}
    assert checkpoint._bytes_of(whole) == 4003


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], "damaged, or not one"),
        (lambda data: b"", "damaged, or not one"),
        (lambda data: pickle.dumps({"step": 1}), "damaged, or not one"),
        (lambda data: data.replace(b"\0\0\x80\x3f" * 9, b"\0\0\x80\x40" * 9), "checksum of"),
    ],
)
def test_a_damaged_file_names_the_one_before(path, damage, words):
    checkpoint.save(state(1), path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    with pytest.raises(MixsolveError, match=rf"{words}.*there is none from before"):
        checkpoint.load(path)
    path.write_bytes(whole)
    checkpoint.save(state(2), path)
    path.unlink()
    path.write_bytes(damage(whole))
    with pytest.raises(MixsolveError, match=rf"{words}.*rename .*last.pt.previous to last.pt"):
        checkpoint.load(path)
    assert step_in(checkpoint.previous(path)) == 1


def test_files_that_are_no_checkpoints(path):
    with pytest.raises(MixsolveError, match=r"last.pt does not exist; there is none from before"):
        checkpoint.load(path)
    torch.save([1, 2], path)
    with pytest.raises(MixsolveError, match=r"must hold a dictionary; got a list"):
        checkpoint.load(path)
    torch.save({"model": digits_cnn(width=2)}, path)  # to read it would be to run its code
    with pytest.raises(MixsolveError, match=r"damaged, or not one"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"a": [{"b": np.float64(1)}]}, r"state\['a'\]\[0\]\['b'\] must be .* numpy.float64"),
        ({"model": torch.nn.ReLU()}, r"state\['model'\] must be .* got torch.nn.*ReLU"),
        ({np.int64(3): 1}, r"a key of state must be .* numpy.int64"),
        ({"weights": np.ones(2)}, r"numpy.ndarray; convert"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(path, wrong, where):
    with pytest.raises(MixsolveTypeError, match=where):
        checkpoint.save(wrong, path)
    assert names(path) == []
