"""Tensors in a file: any interruption leaves the same bytes in the end, and nothing is lost."""

import errno
import json
import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
from forked import PLUGIN, forking, lock_holder, run_script

import mixsolve
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.commands.main import main
from mixsolve_torch import PGD, Mixture, UniformSampling, build_losses
from mixsolve_torch.candidates.recorder import Recorder
from mixsolve_torch.candidates.row_file import load_values
from mixsolve_torch.runs import durable
from mixsolve_torch.runs.fingerprint import describe

ATTACKS = [PGD("Linf", 0.2, steps=2), UniformSampling("L2", 0.4, draws=2)]


@pytest.fixture
def mixture(linear):
    return Mixture([linear(seed) for seed in range(3)], [0.5, 0.0, 0.5])


@pytest.fixture
def data(generator):
    return torch.rand(10, 1, 3, 3, generator=generator), torch.arange(10) % 4


@pytest.fixture
def out(tmp_path):
    return tmp_path / "losses.npy"


class Crash(BaseException):
    """What no handler in the package expects, as a killed process."""


def stream(data, size, crash_at=None):
    """Batches of a stream that dies before one of them."""
    for number, part in enumerate(torch.arange(len(data[1])).split(size)):
        if number == crash_at:
            raise Crash
        yield data[0][part], data[1][part]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def whole(mixture, data, tmp_path):
    """The files of a run that nothing interrupted."""
    folder = tmp_path / "whole"
    folder.mkdir()
    build_losses(mixture, stream(data, 3), ATTACKS, out=folder / "losses.npy")
    return files(folder)


@pytest.fixture
def attacked(monkeypatch):
    """The numbers of the batches that were attacked."""
    numbers = []
    record = Recorder.record

    def counted(self, number, *batch, **options):
        numbers.append(number)
        return record(self, number, *batch, **options)

    monkeypatch.setattr(Recorder, "record", counted)
    return numbers


@pytest.mark.parametrize("kind", ["zero-one", "margin"])
def test_the_file_holds_what_memory_would(kind, mixture, data, out, capsys):
    expected = build_losses(mixture, data, ATTACKS, loss=kind, batch_size=3)
    losses = build_losses(mixture, data, ATTACKS, loss=kind, batch_size=3, out=out)
    assert losses.candidate_names == expected.candidate_names
    assert losses.loss == kind
    assert torch.equal(losses.labels, expected.labels)
    assert losses.values.dtype == expected.values.dtype
    assert torch.equal(losses.values, expected.values)
    assert sorted(files(out.parent)) == ["losses.npy", "losses.npy.json"]
    notes = json.loads((out.parent / "losses.npy.json").read_text())
    assert notes["settings"]["candidates"] == list(expected.candidate_names)
    # Mapped, not read: it shares its pages with the file, but keeps what is written to itself.
    assert isinstance(np.load(out, mmap_mode="r"), np.memmap)
    before = out.read_bytes()
    losses.values[0] = 1
    assert out.read_bytes() == before
    solution = mixsolve.solve(
        build_losses(mixture, data, ATTACKS, loss=kind, batch_size=3, out=out).values
    )
    assert solution.value == pytest.approx(mixsolve.solve(expected.values).value, abs=1e-9)
    assert main(["solve", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(solution.value)


def test_a_system_without_private_pages_gets_shared_ones(mixture, data, out, monkeypatch):
    expected = build_losses(mixture, data, ATTACKS)
    build_losses(mixture, data, ATTACKS, out=out)
    load = np.load

    def refusing(path, mmap_mode, **options):
        if mmap_mode == "c":
            raise OSError(12, "Cannot allocate memory")
        return load(path, mmap_mode=mmap_mode, **options)

    monkeypatch.setattr(np, "load", refusing)
    assert torch.equal(load_values(out), expected.values)


@pytest.mark.parametrize("crash_at", [0, 1, 3])
def test_an_interrupted_run_goes_on_where_it_stopped(crash_at, mixture, data, out, whole, attacked):
    with pytest.raises(Crash):
        build_losses(mixture, stream(data, 3, crash_at), ATTACKS, out=out)
    assert not out.exists()
    assert attacked == list(range(crash_at))
    losses = build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    assert attacked == [0, 1, 2, 3]
    assert files(out.parent) == whole
    assert torch.equal(losses.labels, data[1])
    # A finished call finds its result.
    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    assert attacked == [0, 1, 2, 3]
    assert files(out.parent) == whole


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_crash_at_any_write_loses_one_batch_at_most(
    function, mixture, data, out, whole, attacked, monkeypatch
):
    call = getattr(os, function)
    for crash_at in range(100):
        countdown = [crash_at]

        def failing(*arguments, left=countdown):
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return call(*arguments)

        attacked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, function, failing)
            try:
                build_losses(mixture, stream(data, 3), ATTACKS, out=out)
            except Crash:
                pass
            else:
                break
        build_losses(mixture, stream(data, 3), ATTACKS, out=out)
        assert len(attacked) <= 5
        assert files(out.parent) == whole
        for path in out.parent.glob("losses.npy*"):
            path.unlink()
    assert crash_at >= 6


def test_a_run_that_ran_short_of_memory_goes_on_in_the_same_parts(mixture, data, tmp_path):
    class Short(UniformSampling):
        def generate(self, mixture, x, y, generator):
            if shortages:
                raise shortages.pop()
            yield from super().generate(mixture, x, y, generator)

    attack = Short("L2", 0.4, draws=3)
    for name, crash_at in (("whole", None), ("parts", 2)):
        folder = tmp_path / name
        folder.mkdir()
        shortages = [torch.cuda.OutOfMemoryError("full")]
        if crash_at:
            with pytest.raises(Crash):
                build_losses(
                    mixture, stream(data, 4, 2), attack, "margin", out=folder / "losses.npy"
                )
        build_losses(mixture, stream(data, 4), attack, "margin", out=folder / "losses.npy")
        assert not shortages
    assert files(tmp_path / "whole") == files(tmp_path / "parts")
    whole = build_losses(mixture, stream(data, 4), attack, "margin").values
    assert not np.array_equal(np.load(tmp_path / "whole" / "losses.npy"), whole)


KILLED = """
import os, signal, sys, torch
from mixsolve_torch import PGD, Mixture, UniformSampling, build_losses

mixture, data, out = torch.load(sys.argv[1], weights_only=False)

def stream():
    for number, part in enumerate(torch.arange(10).split(3)):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield data[0][part], data[1][part]

attacks = [PGD("Linf", 0.2, steps=2), UniformSampling("L2", 0.4, draws=2)]
build_losses(mixture, stream(), attacks, out=out)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills otherwise")
def test_a_killed_process_is_resumed(mixture, data, out, whole, attacked, tmp_path):
    torch.save((mixture, data, str(out)), tmp_path / "call.pt")
    ended = run_script(KILLED, tmp_path / "call.pt", folder=tmp_path)
    assert ended.returncode == -signal.SIGKILL
    assert attacked == []
    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    assert attacked == [2, 3]
    (tmp_path / "call.pt").unlink()
    assert files(out.parent) == whole


def test_two_processes_do_not_write_one_file(mixture, data, out, whole):
    pytest.importorskip("fcntl")
    with pytest.raises(Crash):
        build_losses(mixture, stream(data, 3, 2), ATTACKS, out=out)
    begun = files(out.parent)
    with lock_holder(f"{out}.lock", "out") as other:
        for overwrite in (False, True):
            with pytest.raises(MixsolveError, match=r"losses\.npy is in use by process .* wait"):
                build_losses(mixture, stream(data, 3), ATTACKS, out=out, overwrite=overwrite)
        other.kill()  # its lock goes with it
        other.join()
    (out.parent / "losses.npy.lock").unlink()
    assert files(out.parent) == begun
    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    assert files(out.parent) == whole


@pytest.mark.parametrize("crash_at", [None, 2])
def test_a_run_that_looks_while_another_one_writes_is_refused(crash_at, mixture, data, out, whole):
    if crash_at:
        with pytest.raises(Crash):
            build_losses(mixture, stream(data, 3, crash_at), ATTACKS, out=out)

    def meanwhile():
        for number, batch in enumerate(stream(data, 3)):
            if number in (0, 3):
                with pytest.raises(MixsolveError, match="is in use by process"):
                    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
            yield batch

    build_losses(mixture, meanwhile(), ATTACKS, out=out)
    assert files(out.parent) == whole


def race(together, call):
    """Build the file as soon as the other process is ready to, when the lock is free."""
    mixture, data, out = torch.load(call, weights_only=False)
    batches = [(data[0][part], data[1][part]) for part in torch.arange(10).split(3)]
    together.wait(60)
    for _ in range(2000):
        try:
            build_losses(mixture, batches, ATTACKS, out=out)
            break
        except MixsolveError as error:
            if "is in use by" not in str(error):
                raise
            time.sleep(0.01)
    else:
        sys.exit("never had its turn")


def test_processes_that_start_together_end_with_one_file(mixture, data, out, whole, tmp_path):
    pytest.importorskip("fcntl")
    torch.save((mixture, data, str(out)), tmp_path / "call.pt")
    context = forking(*PLUGIN)
    call = context.Barrier(2), tmp_path / "call.pt"
    runs = [context.Process(target=race, args=call) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(300)
    assert [run.exitcode for run in runs] == [0, 0]
    (tmp_path / "call.pt").unlink()
    assert files(out.parent) == whole


def test_a_finished_file_wins_over_one_that_was_left_beside_it(mixture, data, out, whole, attacked):
    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    attacked.clear()
    part = out.with_name("losses.npy.part")
    part.write_bytes(whole["losses.npy"][:128] + bytes(len(whole["losses.npy"]) - 128))
    part.with_name(part.name + ".json").write_bytes(whole["losses.npy.json"])
    losses = build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    assert attacked == []
    assert {name: files(out.parent)[name] for name in whole} == whole
    assert torch.equal(losses.values, build_losses(mixture, stream(data, 3), ATTACKS).values)


def test_a_finished_file_is_read_where_nobody_can_write(mixture, data, out, whole, monkeypatch):
    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    monkeypatch.setattr(os, "open", None)
    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    assert files(out.parent) == whole


def test_a_full_disk_leaves_what_was_done(mixture, data, out, whole, attacked, monkeypatch):
    flush = durable.flush
    for full_at in range(100):
        countdown = [full_at]

        def failing(file, left=countdown):
            if left[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            left[0] -= 1
            flush(file)

        attacked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(durable, "flush", failing)
            try:
                build_losses(mixture, stream(data, 3), ATTACKS, out=out)
            except MixsolveError as error:
                said = str(error)
            else:
                break
        assert "losses.npy could not be written: No space left on device" in said
        assert "repeat the call to" in said
        assert not [*out.parent.glob("*.new"), *out.parent.glob("*.lock")]
        build_losses(mixture, stream(data, 3), ATTACKS, out=out)
        assert len(attacked) <= 5
        assert files(out.parent) == whole
        for path in out.parent.glob("losses.npy*"):
            path.unlink()
    assert full_at >= 6


def test_a_file_that_may_not_grow_says_so(mixture, data, out, whole):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
    try:
        with pytest.raises(
            MixsolveError, match=r"losses\.npy could not be written: File too large"
        ):
            build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(out.parent.glob("*.new"))
    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    assert files(out.parent) == whole


def test_ctrl_c_says_what_is_kept(mixture, data, out):
    def pressed():
        yield from list(stream(data, 3))[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        build_losses(mixture, pressed(), ATTACKS, out=out)
    (note,) = stopped.value.__notes__
    assert "2 batches (6 images) are kept" in note
    assert f"{out}.part: repeat the call to go on" in note
    with pytest.raises(KeyboardInterrupt) as stopped:
        build_losses(mixture, pressed(), ATTACKS)
    (note,) = stopped.value.__notes__
    assert "give out=" in note


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_candidates_are_kept_beside_their_losses(function, mixture, data, out, monkeypatch):
    expected = build_losses(mixture, data, ATTACKS, "margin", batch_size=3, keep_inputs=True)

    def build():
        return build_losses(
            mixture, data, ATTACKS, "margin", batch_size=3, keep_inputs=True, out=out
        )

    call = getattr(os, function)
    for crash_at in range(100):
        countdown = [crash_at]

        def failing(*arguments, left=countdown):
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return call(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, function, failing)
            try:
                build()
            except Crash:
                pass
            else:
                break
        losses = build()
        assert torch.equal(losses.values, expected.values)
        assert torch.equal(losses.inputs, expected.inputs)
        assert sorted(files(out.parent)) == [
            "losses.inputs.npy",
            "losses.npy",
            "losses.npy.json",
        ]
        for path in out.parent.iterdir():
            path.unlink()
    assert crash_at >= 7
    with pytest.raises(MixsolveError, match="keep_inputs was true and is not set"):
        build_losses(mixture, data, ATTACKS, "margin", batch_size=3, out=out)


def test_what_does_not_belong_to_the_call_is_refused(linear, mixture, data, out, whole):
    with pytest.raises(Crash):
        build_losses(mixture, stream(data, 3, 2), ATTACKS, out=out)
    begun = files(out.parent)

    def build(new=mixture, given=None, attacks=ATTACKS, **options):
        batches = stream(data, 3) if given is None else given
        return build_losses(new, batches, attacks, out=out, **options)

    heavier = Mixture(mixture.models, [0.25, 0.0, 0.75])
    stronger = [PGD("Linf", 0.2, steps=3), ATTACKS[1]]
    shuffled = data[0].flip(0), data[1].flip(0)
    for call, message in (
        (lambda: build(Mixture([linear(k) for k in range(1, 4)], [0.5, 0, 0.5])), "classifiers"),
        (lambda: build(heavier), r"weights was \[0.5, 0.0, 0.5\] and is \[0.25, 0.0, 0.75\]"),
        (lambda: build(attacks=stronger), "attacks differs"),
        (lambda: build(loss="margin"), 'loss was "zero-one" and is "margin"'),
        (lambda: build(keep="trajectory"), 'keep was "final" and is "trajectory"'),
        (lambda: build(generator=torch.Generator().manual_seed(1)), "generator was .* and is"),
        (lambda: build(given=data, batch_size=3), "batch_size was null and is 3"),
        (lambda: build(given=stream(shuffled, 3)), "same order .*: the first 2 batches differ"),
        (lambda: build(given=stream(data, 2)), "the first 2 batches differ"),
        (lambda: build(given=stream((data[0][:3], data[1][:3]), 3)), "they have only 1 batches"),
    ):
        with pytest.raises(MixsolveError, match=message) as refused:
            call()
        assert "overwrite=True" in str(refused.value)
        assert files(out.parent) == begun
    build()
    assert files(out.parent) == whole
    with pytest.raises(MixsolveError, match="it ended after 4 batches"):
        build(given=[*stream(data, 3), *stream(data, 3)])
    with pytest.raises(MixsolveError, match=r"is not the result of this call: .*weights was"):
        build(heavier)
    assert files(out.parent) == whole
    other = build(heavier, overwrite=True)
    assert torch.equal(other.values, build_losses(heavier, stream(data, 3), ATTACKS).values)
    assert files(out.parent) != whole


def test_starting_anew_keeps_the_old_file_until_the_new_one_is_done(
    mixture, data, out, whole, attacked
):
    np.save(out, [7])
    with pytest.raises(MixsolveError, match="is not the result of this call: no manifest lies"):
        build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    with pytest.raises(Crash):
        build_losses(mixture, stream(data, 3, 2), ATTACKS, out=out, overwrite=True)
    assert np.load(out) == [7]
    with pytest.raises(MixsolveError, match="came while the call was interrupted"):
        build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    build_losses(mixture, stream(data, 3), ATTACKS, out=out, overwrite=True)
    assert attacked == [0, 1, 2, 3]
    assert files(out.parent) == whole


@pytest.mark.parametrize("ending", ["", ".part", ".part.json", ".json"])
def test_nothing_of_the_users_is_touched(ending, mixture, data, out):
    precious = out.with_name(out.name + ending)
    precious.write_text("precious")
    with pytest.raises(MixsolveError, match=r"losses\.npy.*overwrite=True"):
        build_losses(mixture, data, ATTACKS, out=out)
    assert files(out.parent) == {precious.name: b"precious"}


def test_a_file_that_comes_during_the_run_stays(mixture, data, out, attacked):
    def late():
        yield from stream(data, 3)
        out.write_text("precious")

    with pytest.raises(MixsolveError, match="came in the meantime"):
        build_losses(mixture, late(), ATTACKS, out=out)
    assert out.read_text() == "precious"
    out.unlink()
    build_losses(mixture, stream(data, 3), ATTACKS, out=out)
    assert attacked == [0, 1, 2, 3]
    assert np.load(out).shape == (10, 4, 3)


def test_a_file_shorter_than_its_notes_is_refused(mixture, data, out):
    with pytest.raises(Crash):
        build_losses(mixture, stream(data, 3, 2), ATTACKS, out=out)
    part = out.with_name("losses.npy.part")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(MixsolveError, match="has 199 bytes where its manifest counts 200"):
        build_losses(mixture, stream(data, 3), ATTACKS, out=out)


def test_paths_that_cannot_be(mixture, data, tmp_path):
    (tmp_path / "folder.npy").mkdir()
    for out, error, message in (
        (tmp_path / "losses.npz", MixsolveError, "out must end in .npy"),
        (tmp_path / "folder.npy", MixsolveError, "is a directory"),
        (tmp_path / "none" / "losses.npy", MixsolveError, "needs an existing directory"),
        (7, MixsolveTypeError, "out must be the path of a .npy file; got 7"),
    ):
        with pytest.raises(error, match=message):
            build_losses(mixture, data, ATTACKS, out=out)
    with pytest.raises(MixsolveError, match="device must be left out with out"):
        build_losses(mixture, data, ATTACKS, out=tmp_path / "losses.npy", device="cpu")
    with pytest.raises(MixsolveError, match="data must hold at least one batch"):
        build_losses(mixture, [], ATTACKS, out=tmp_path / "losses.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npy"]


def test_settings_are_described_alike_in_every_process(linear):
    def scaled(logits, labels, factor=2.0):
        return factor * logits.gather(1, labels[:, None])[:, 0]

    for value, other in (
        (PGD("Linf", 0.1), PGD("Linf", 0.2)),
        (PGD("Linf", 0.1), UniformSampling("Linf", 0.1)),
        (PGD("Linf", 0.1, weights=torch.tensor([0.5, 0.5])), PGD("Linf", 0.1, weights=[1.0, 0.0])),
        (PGD("Linf", 0.1, loss=scaled), PGD("Linf", 0.1, loss=lambda z, y: z[:, 0])),
        (linear(0), linear(1)),
        (torch.nn.Sequential(linear(0), torch.nn.ReLU()), linear(0)),
        (np.arange(3), np.arange(3.0)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
    ):
        said = json.dumps(describe(value))
        assert said == json.dumps(describe(value))
        assert said != json.dumps(describe(other))
        assert " at 0x" not in said


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_programs_of_one_form_are_told_apart():
    class Scaled(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return self.factor * x.flatten(1)

    x = torch.ones(2, 3)
    traced = [torch.jit.trace(Scaled(factor), x) for factor in (1.0, 2.0, 1.0)]
    exported = [torch.export.export(Scaled(factor), (x,)).module() for factor in (1.0, 2.0, 1.0)]
    for one, other, same in (traced, exported):
        assert describe(one) == describe(same)
        assert describe(one) != describe(other)


def test_addresses_are_no_settings():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.thing = object()

        def extra_repr(self):
            return repr(self.thing)

    here, there = Odd(), Odd()
    assert repr(here) != repr(there)
    assert describe(here) == describe(there)
    assert describe(here.thing) == describe(there.thing)
