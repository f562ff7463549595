"""Games in folders: however they are interrupted, they end as they would have."""

import errno
import sys
from dataclasses import replace

import pytest
import torch
from forked import run_script

import mixsolve
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import APGD, PGD, Mixture, UniformSampling, solve_game
from mixsolve_torch.candidates.recorder import Recorder
from mixsolve_torch.runs import durable
from mixsolve_torch.runs.lock import Lock

ATTACKS = [PGD("Linf", 0.4, steps=2), UniformSampling("Linf", 0.4, draws=2)]
OPTIONS = {"loss": "cross-entropy", "tol": 0.01, "batch_size": 8, "confirmations": 2}


@pytest.fixture
def mixture(linear):
    return Mixture([linear(seed) for seed in range(3)], [0.5, 0.0, 0.5])


@pytest.fixture
def data(mixture, generator):
    """Images, each labelled by one of the classifiers in turn."""
    x = torch.rand(30, 1, 3, 3, generator=generator)
    each = torch.stack([model(x).argmax(dim=1) for model in mixture.models])
    return x, each[torch.arange(30) % 3, torch.arange(30)]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "game"


class Crash(BaseException):
    """What no handler in the package expects, as a killed process."""


@pytest.fixture
def attacked(monkeypatch):
    """Count the batches that were attacked, and crash at one of them."""
    record = Recorder.record

    class Count:
        batches = 0
        crash_at = None
        error = Crash

    def counted(self, number, *batch, **options):
        if len(self.sources) > 1:
            if Count.batches == Count.crash_at:
                raise Count.error
            Count.batches += 1
        return record(self, number, *batch, **options)

    monkeypatch.setattr(Recorder, "record", counted)
    return Count


def told(game):
    """All of a game but what the rounds took."""
    rounds = [
        vars(each) | {"seconds": 0, "weights": each.weights.tolist()} for each in game.history
    ]
    inputs = None if game.losses.inputs is None else game.losses.inputs.tolist()
    return {
        "weights": game.weights.tolist(),
        "value": game.value,
        "risk": game.risk,
        "rounds": rounds,
        "values": game.losses.values.tolist(),
        "names": game.losses.candidate_names,
        "labels": game.losses.labels.tolist(),
        "inputs": inputs,
        "found": game.found.tolist(),
        "solution": game.solution.weights.tolist(),
        "converged": game.converged,
        "message": game.message,
    }


@pytest.fixture
def whole(mixture, data, attacked):
    game = solve_game(mixture, data, ATTACKS, **OPTIONS)
    assert len(game.history) == 5
    assert attacked.batches == 4 * 7
    batches, attacked.batches = attacked.batches, 0
    return told(game), batches


def test_the_folder_changes_nothing_and_attacks_are_made_once(mixture, data, out, whole, attacked):
    expected, batches = whole
    assert told(solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)) == expected
    assert attacked.batches == batches
    again = solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)
    assert told(again) == expected
    assert attacked.batches == batches
    assert not list(out.glob(".lock"))


@pytest.mark.parametrize("keep_inputs", [False, True])
def test_a_game_that_was_interrupted_ends_as_it_would_have(
    keep_inputs, mixture, data, out, whole, attacked
):
    options = OPTIONS | {"keep_inputs": keep_inputs}
    attacked.batches = 0
    expected = told(solve_game(mixture, data, ATTACKS, **options))
    _, batches = whole
    for crash_at in (0, batches // 2, batches - 1):
        attacked.batches, attacked.crash_at = 0, crash_at
        folder = out / str(crash_at)
        with pytest.raises(Crash):
            solve_game(mixture, data, ATTACKS, out=folder, **options)
        attacked.crash_at = None
        assert told(solve_game(mixture, data, ATTACKS, out=folder, **options)) == expected
        assert attacked.batches == batches


def test_rounds_that_were_used_up_are_resumed(mixture, data, out, whole, attacked):
    expected, batches = whole
    with pytest.warns(mixsolve.base.errors.ConvergenceWarning):
        solve_game(mixture, data, ATTACKS, out=out, max_rounds=2, **OPTIONS)
    assert told(solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)) == expected
    assert attacked.batches == batches


KILLED = """
import os, random, signal, sys, torch
torch.set_num_threads(1)
from mixsolve_torch import PGD, Mixture, UniformSampling, solve_game
from mixsolve_torch.candidates.recorder import Recorder

mixture, data, out, seed = torch.load(sys.argv[1], weights_only=False)
attacks = [PGD("Linf", 0.4, steps=2), UniformSampling("Linf", 0.4, draws=2)]
draws = random.Random(seed)
EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "fcntl.flock")

def play():
    options = {"loss": "cross-entropy", "tol": 0.01, "batch_size": 8, "confirmations": 2}
    return solve_game(mixture, data, attacks, out=out, **options)

def child(left):
    def count(event, arguments):
        nonlocal left
        if event in EVENTS and str(arguments[0]).startswith(out):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    play()

kills = 0
for _ in range(8):
    left = int(2 ** draws.uniform(2, 8))
    pid = os.fork()
    if not pid:
        child(left)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if not status:
        break
    assert status == signal.SIGKILL, status
    kills += 1
print(kills)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks and signals")
def test_kills_at_random_points_change_nothing(mixture, data, out, whole, attacked, tmp_path):
    expected, _ = whole
    out.parent.mkdir(exist_ok=True)
    torch.save((mixture, data, str(out), 11), tmp_path / "call.pt")
    ended = run_script(KILLED, tmp_path / "call.pt", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= 3
    assert told(solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)) == expected
    assert not [*out.glob("*.part"), *out.glob("*.new"), *out.glob("*.lock")]


def test_ctrl_c_says_what_is_kept(mixture, data, out, attacked):
    attacked.crash_at, attacked.error = 9, KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as stopped:
        solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)
    (note,) = stopped.value.__notes__
    assert f"kept in {out}: repeat the call to go on, or give start={str(out)!r}" in note
    attacked.batches = 0
    with pytest.raises(KeyboardInterrupt) as stopped:
        solve_game(mixture, data, ATTACKS, **OPTIONS)
    (note,) = stopped.value.__notes__
    assert "nothing is kept: give out=" in note


@pytest.mark.parametrize("keep_inputs", [False, True])
def test_another_game_begins_with_what_was_kept(keep_inputs, mixture, data, out, attacked):
    options = OPTIONS | {"keep_inputs": keep_inputs}
    # The third run of the attacks is interrupted after two of its four batches.
    attacked.crash_at = 4 + 4 + 2
    with pytest.raises(Crash):
        solve_game(mixture, data, ATTACKS, out=out, **options)
    attacked.crash_at = None
    stronger = APGD("Linf", 0.4, steps=3)
    game = solve_game(mixture, data, stronger, start=out, out=out / "next", **options)
    names = game.losses.candidate_names
    kept = [name for name in names if name.startswith("game, ")]
    assert len(kept) >= 3
    assert names[: len(kept) + 1] == ("clean", *kept)
    # The columns are those of the game that was interrupted, the last one as far as it came.
    known = solve_game(mixture, data, ATTACKS, **options)
    columns = known.losses.values[:, 1 : len(kept) + 1]
    assert torch.equal(game.losses.values[:, 1 : len(kept)], columns[:, :-1])
    last = game.losses.values[:, len(kept)]
    partly = (last == columns[:, -1]).all(dim=1)
    assert partly.float().mean() > 0.5
    assert torch.equal(last[~partly], game.losses.values[~partly, 0])
    if keep_inputs:
        assert torch.equal(
            game.losses.inputs[:, 1 : len(kept)], known.losses.inputs[:, 1 : len(kept)]
        )
    value = mixsolve.solve(game.losses.values).value
    assert game.value - 1e-6 <= value <= game.risk + 1e-6
    # It is told apart from others, keeps its own beginning, and others may begin with it in turn.
    (out / "game.json").unlink()
    again = solve_game(mixture, data, stronger, start=out, out=out / "next", **options)
    assert told(again) == told(game)
    third = solve_game(mixture, data, stronger, start=out / "next", **options)
    assert torch.equal(
        third.losses.values[:, : len(kept) + 1], game.losses.values[:, : len(kept) + 1]
    )


def test_other_calls_are_told_apart(linear, mixture, data, out, attacked):
    attacked.crash_at = 9
    with pytest.raises(Crash):
        solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)
    attacked.crash_at = None
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    others = Mixture([linear(seed) for seed in range(1, 4)], [0.5, 0.0, 0.5])
    fewer = data[0][:20], data[1][:20]
    for changes, message in (
        ({"mixture": others}, "classifiers was"),
        ({"data": fewer}, r"data \(images and labels\) was"),
        ({"attacks": ATTACKS[:1]}, "attacks differs"),
        ({"alpha": 0.1}, "alpha was 0.0 and is 0.1"),
        ({"tol": 0.02}, "tol was 0.01 and is 0.02"),
        ({"batch_size": 7}, "batch_size was 8 and is 7"),
        ({"loss": "margin"}, 'loss was "cross-entropy" and is "margin"'),
        ({"keep_inputs": True}, "keep_inputs was false and is true"),
        ({"generator": torch.Generator().manual_seed(1)}, "generator differs"),
    ):
        call = {"mixture": mixture, "data": data, "attacks": ATTACKS, **OPTIONS, **changes}
        with pytest.raises(MixsolveError, match=f"begun with other settings: {message}") as refused:
            solve_game(out=out, **call)
        assert "start=" in str(refused.value)
        assert "overwrite" not in str(refused.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    for start, changes, message in (
        (out, {"data": fewer}, "of the same images and labels, in the same order"),
        (out, {"mixture": others}, "of the same classifiers"),
        (out, {"loss": "margin"}, "of the same loss"),
        (out, {"keep_inputs": True}, "start must hold the candidates themselves"),
        (out.parent, {}, "holds no game"),
        (out / "game.json", {}, "is a file"),
    ):
        call = {"mixture": mixture, "data": data, "attacks": ATTACKS, **OPTIONS, **changes}
        with pytest.raises(MixsolveError, match=message):
            solve_game(start=start, **call)


def test_folders_that_cannot_be(mixture, data, tmp_path, attacked):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("precious")
    for out, error, message in (
        (7, MixsolveTypeError, "out must be the path of a folder; got int"),
        (tmp_path / "file", MixsolveError, "is a file: give the name of a folder"),
        (tmp_path / "full", MixsolveError, r"holds notes\.txt, which is not of a game"),
        (tmp_path / "file" / "below", MixsolveError, "cannot be used: Not a directory"),
    ):
        with pytest.raises(error, match=message):
            solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)
    assert attacked.batches == 0
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    with (
        Lock(tmp_path / "full" / ".lock", "the folder"),
        pytest.raises(MixsolveError, match=r"full is in use by process .* wait for it"),
    ):
        solve_game(mixture, data, ATTACKS, out=tmp_path / "full", **OPTIONS)


def test_a_wrong_call_leaves_no_trap(mixture, data, out, whole):
    with pytest.raises(MixsolveError, match="alpha"):
        solve_game(mixture, data, ATTACKS, alpha=-1.0, out=out, **OPTIONS)
    with pytest.raises(MixsolveTypeError, match="start must be a CandidateLosses"):
        solve_game(mixture, data, ATTACKS, start=3, out=out, **OPTIONS)
    assert told(solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)) == whole[0]


def test_what_is_damaged_is_made_anew(mixture, data, out, whole, attacked):
    expected, _ = whole
    solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)
    file = out / "round-1-run-1.npy"
    file.write_bytes(file.read_bytes()[:-1])
    attacked.batches = 0
    assert told(solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)) == expected
    assert 0 < attacked.batches <= 4
    attacked.batches = 0
    assert told(solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)) == expected
    assert attacked.batches == 0


def test_weights_are_those_that_were_attacked(mixture, data, out, whole, attacked, monkeypatch):
    """Another machine's solve rounds otherwise, or finds another of several optimal mixtures."""
    expected, _ = whole
    solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)
    attacked.batches = 0
    solve = mixsolve.solve

    def elsewhere(*arguments, **options):
        solution = solve(*arguments, **options)
        weights = solution.weights + torch.tensor([1e-9, -1e-9, 0.0])
        return replace(solution, weights=weights)

    monkeypatch.setattr(mixsolve, "solve", elsewhere)
    game = told(solve_game(mixture, data, ATTACKS, out=out, **OPTIONS))
    assert attacked.batches == 0
    assert game | {"solution": None, "value": 0} == expected | {"solution": None, "value": 0}


def test_a_full_disk_leaves_what_was_found(mixture, data, out, whole, attacked, monkeypatch):
    expected, batches = whole
    flush = durable.flush
    refusals = 0
    for full_at in range(0, 10_000, 7):
        countdown = [full_at]

        def failing(file, left=countdown):
            if left[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            left[0] -= 1
            flush(file)

        with monkeypatch.context() as patch:
            patch.setattr(durable, "flush", failing)
            try:
                game = solve_game(mixture, data, ATTACKS, out=out, **OPTIONS)
                break
            except MixsolveError as error:
                said = str(error)
        refusals += 1
        assert "No space left on device" in said
        assert not list(out.glob("*.new"))
    assert refusals >= 3
    assert told(game) == expected
    assert attacked.batches <= batches + refusals
