"""Whole training runs: what they write, resume after a kill, refuse, and do on two ranks."""

import json
import logging
import os
import signal
import socket
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from forked import run_script
from ranks import run_ranks
from tiny_runs import ALGORITHM2, FINAL, assert_same_run, tiny_config, toml

from mixsolve.base.errors import MixsolveError
from mixsolve.commands import main as cli
from mixsolve_torch.commands.train import read
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training import LossConfig, WeightsConfig, train
from mixsolve_torch.training.config import STAGED
from mixsolve_torch.training.methods import METHODS


def tiny(folder, **sections):
    return tiny_config(
        folder,
        **{
            "data": {"limit": 120},
            "attack": {"steps": 2},
            "weights": ALGORITHM2,
            "method": "algorithm2",
            "optimizer": {"epochs": 2},
            "evaluation": {"steps": 2, "images": 20},
        }
        | sections,
    )


def with_method(config, method):
    """The same settings for another method; those of weights only where it has them."""
    update = "none" if method in STAGED else config.weights.update
    return replace(config, method=method, weights=replace(config.weights, update=update))


SIGNALLED = """
import os, signal, sys
from mixsolve.commands import main as cli
from mixsolve_torch.training.methods import METHODS
def signalling(step):
    def signalled(self, batch):
        if batch.t == int(sys.argv[1]):
            os.kill(os.getpid(), int(sys.argv[2]))
        step(self, batch)
    return signalled
for method in METHODS.values():
    method.step = signalling(method.step)
sys.exit(cli.main(["train", "--config", sys.argv[3]]))
"""


def signalled(config, folder, step, number):
    """Run the command line in a process that sends itself a signal in the middle of a step."""
    file = folder / "run.toml"
    file.write_text(toml(config))
    return run_script(SIGNALLED, step, int(number), file, folder=folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return train(tiny(folder)), folder


def test_a_run_leaves_metrics_checkpoints_and_pictures(whole):
    training, folder = whole
    assert {"best.pt", "last.pt", "metrics.jsonl", "history.png"} <= set(os.listdir(folder))
    assert [record["epoch"] for record in training.records] == [1, 2]
    robust = [record["robust"]["mixture"] for record in training.records]
    assert training.best == training.records[robust.index(max(robust))]
    for record in training.records:
        assert record["split"] == "validation"
        assert len(record["robust"]["models"]) == len(record["weights"]) == 2
        assert 0 <= record["robust"]["mixture"] <= record["clean"]["mixture"] <= 1
    kept = checkpoint.load(folder / "best.pt")
    assert kept["record"] == training.best
    assert torch.equal(kept["weights"], training.mixture.weights)
    saved = kept["models"][0]["1.weight"]
    assert torch.equal(saved, training.mixture.models[0].state_dict()["1.weight"])
    assert training.evaluation is None


def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path):
    folder = tmp_path / "run"
    config = tiny(folder, run={"save_every": 2})
    done = signalled(config, tmp_path, 5, signal.SIGKILL)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint.load(folder / "last.pt")["algorithm"]["t"] == 4
    train(config, resume=True)
    assert_same_run(folder, whole[1])


@pytest.mark.parametrize("method", [name for name in METHODS if name != "algorithm2"])
def test_a_killed_run_of_any_method_goes_on_to_the_same_bits(tmp_path, method):
    def config(name):
        return with_method(tiny(tmp_path / name, run={"save_every": 2}), method)

    done = signalled(config("run"), tmp_path, 5, signal.SIGKILL)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint.load(tmp_path / "run" / "last.pt")["algorithm"]["t"] == 4
    train(config("run"), resume=True)
    train(config("whole"))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_a_schedulers_end_save_and_the_run_goes_on(whole, tmp_path, number, code):
    folder = tmp_path / "run"
    done = signalled(tiny(folder), tmp_path, 5, number)
    assert done.returncode == code, done.stderr
    assert not [name for name in os.listdir(folder) if name == ".lock" or ".part" in name]
    assert "--resume" in done.stdout
    assert checkpoint.load(folder / "last.pt")["algorithm"]["t"] == 5
    train(tiny(folder), resume=True)
    assert_same_run(folder, whole[1])


def test_a_run_in_the_way_is_refused(whole):
    _, folder = whole
    before = (folder / "last.pt").read_bytes()
    with pytest.raises(MixsolveError, match="holds a run"):
        train(tiny(folder))
    other = tiny(folder, attack={"eps": 0.2, "steps": 2})
    with pytest.raises(MixsolveError, match=r"attack\.eps was 0\.1 and is 0\.2"):
        train(other, resume=True)
    assert (folder / "last.pt").read_bytes() == before


def test_a_finished_run_can_be_attacked_again(whole):
    training, folder = whole
    final = FINAL | {"steps": 2, "images": 20}
    again = train(tiny(folder, evaluation=final), resume=True)
    assert again.records == training.records
    assert again.evaluation is not None
    assert (folder / "evaluation.json").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(tmp_path, method):
    healthy = with_method(tiny(tmp_path / "run", optimizer={"epochs": 3}), method)
    done = train(replace(healthy, optimizer=replace(healthy.optimizer, epochs=1))).records
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    state["config"] = healthy.to_dict()
    for model in state["algorithm"]["models"]:
        model["1.weight"].fill_(float("nan"))
    checkpoint.save(state, tmp_path / "run" / "last.pt")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    words = rf"became nan in epoch {len(done) + 1}; lower optimizer\.learning"
    with pytest.raises(MixsolveError, match=words):
        train(healthy, resume=True)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert checkpoint.load(tmp_path / "run" / "best.pt")["record"] == done[-1]


def test_selection_on_the_test_set_says_so(tmp_path):
    config = tiny(
        tmp_path / "run",
        evaluation={"select": "test"},
        optimizer={"batch_size": 64},
    )
    assert train(config).best["split"] == "test"


@pytest.mark.parametrize("loss", ["at", "trades"])
def test_the_command_line_changes_settings_and_reports(tmp_path, capsys, loss):
    file = tmp_path / "run.toml"
    config = tiny(
        tmp_path / "run",
        loss=LossConfig(loss),
        evaluation=FINAL | {"final": "standard"},
    )
    file.write_text(toml(config))
    level = logging.getLogger("mixsolve_torch").level
    code = cli.main(["train", "--config", str(file), "--optimizer.epochs", "1"])
    assert logging.getLogger("mixsolve_torch").level == level
    printed = capsys.readouterr().out
    assert code == 0
    assert "held-out images" in printed
    assert ", the worst: " in printed
    assert "by class: 0: " in " ".join(printed.split())
    assert "optimal mixture" in printed
    assert "Gain of the mixture: " in printed
    assert "What to deploy is in " in printed
    assert checkpoint.load(tmp_path / "run" / "last.pt")["config"]["optimizer"]["epochs"] == 1
    written = {"evaluation.json", "evaluation.png", "verdict.json", "deploy.pt"}
    assert written <= set(os.listdir(tmp_path / "run"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[optimiser]\nepochs = 3\n", "optimiser"),
        ("[optimizer]\nepoch = 3\n", "epoch"),
        ("[optimizer]\nepochs = 'many'\n", "epochs"),
        ("[loss]\nname = 'mse'\n", "loss.name"),
        ("method = 'alone'\n", "method"),
        ("[weights]\nfloor = 1.5\n", "weights.floor"),
        ("[attack]\neps = '8/x'\n", "attack.eps"),
        ("[data]\nname = 'nothing.npz'\n", "nothing.npz"),
        ("[model]\narchitecture = 'resnet7'\n", "resnet7"),
    ],
)
def test_wrong_settings_are_named(tmp_path, capsys, text, words):
    file = tmp_path / "run.toml"
    file.write_text(text + f"[run]\nout = {json.dumps(str(tmp_path / 'run'))}\n")
    assert cli.main(["train", "--config", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def states_after(config, port, rank):
    """Train as a rank that torchrun has started; the weights and the states of the networks."""
    from mixsolve_torch.training import loop, steps

    class Kept(steps.Steps):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            Kept.last = self

    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    loop.Steps = Kept
    train(config)
    mixture = Kept.last.mixture
    return [mixture.weights, *(p for m in mixture.models for p in m.state_dict().values())]


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_make_the_same_steps_and_end_with_the_same_weights(tmp_path, method):
    folder = tmp_path / "run"
    epochs = {"algorithm2": 1, "together": 4}.get(method, 2)
    config = with_method(tiny(folder, optimizer={"epochs": epochs}), method)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    states = run_ranks(2, partial(states_after, config, port), tmp_path, group=False)
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    weights = states[0][0].tolist()
    assert (weights != [0.5, 0.5]) == (config.weights.update != "none")
    assert checkpoint.load(folder / "last.pt")["algorithm"]["weights"].tolist() == weights


def stop_in_a_step(folder, number, rank):
    """Train on two ranks, of which the second sends itself a signal; the first ends it."""
    from mixsolve_torch.training.methods import Algorithm2

    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    step = Algorithm2.step

    def stopped(self, batch):
        if rank and batch.t == 3:
            os.kill(os.getpid(), number)
        step(self, batch)

    Algorithm2.step = stopped
    config = tiny(folder / "run", weights=WeightsConfig(update="none"), run={"save_every": 2})
    try:
        train(config)
    except MixsolveError as error:
        words = str(error)
    with suppress(ProcessLookupError):  # killed before, and collected by its parent
        os.kill(int((folder / "pid1").read_text()), signal.SIGKILL)
    return words, checkpoint.load(folder / "run" / "last.pt")["algorithm"]["t"]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")
@pytest.mark.parametrize(("name", "seconds"), [("SIGSTOP", 6), ("SIGKILL", 20)])
def test_a_rank_that_stops_ends_the_training_when_the_group_says_so(tmp_path, name, seconds):
    (words, kept), gone = run_ranks(
        2,
        partial(stop_in_a_step, tmp_path, signal.Signals[name]),
        tmp_path,
        timeout=timedelta(seconds=seconds),
    )
    assert gone is None
    assert kept == 2
    why = {
        "SIGSTOP": "did not answer within 6 s, the timeout of the process group: it hangs",
        "SIGKILL": "has ended or was killed",
    }
    assert f"rank 0 cannot reach the other ranks any more: one of them {why[name]}" in words


CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.toml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_is_what_its_name_says(file):
    config, resume = read(["--config", str(file)])
    data, loss, count = file.stem.split("-")
    assert not resume
    worst = (loss, count) == ("worst", "class")  # one network, adversarially trained
    loss, count = ("at", "l1") if worst else (loss, count)
    assert config.objective == ("worst-group" if worst else "mean")
    name = {"fashion": "fashion-mnist"}.get(data, data)
    assert (config.data.name, config.loss.name, f"l{config.model.count}") == (name, loss, count)
    assert config.run.out == f"runs/{file.stem}"
    if data.startswith("cifar"):  # as the article
        assert config.method == "algorithm2"
        assert (config.weights.update, config.weights.floor) == ("oracle", 0.0)
    else:
        assert (config.method, config.weights) == ("together", WeightsConfig())
    if data == "fashion":
        assert config.model.architecture == "mnist-cnn"
        assert config.data.dir is None
        assert (config.attack.norm, config.attack.radius) == ("Linf", 0.1)
        assert config.attack.steps == 10
    elif data != "digits":
        assert config.optimizer.epochs == 200
        assert config.optimizer.batch_size == 1024
        assert config.attack.radius == pytest.approx(8 / 255)
        assert (config.attack.steps, config.evaluation.steps) == (10, 20)
        assert (config.evaluation.final_steps, config.evaluation.final_restarts) == (100, 5)


# Attacks of one's own.


def darker(images, labels):
    return (images - 0.1).clamp(min=0)


def test_batches_are_trained_on_the_attack_given(tmp_path):
    seen = []

    def watched(images, labels):
        seen.append(len(images))
        return darker(images, labels)

    training = train(tiny(tmp_path / "a"), attack=watched)
    assert len(seen) > 4
    assert set(seen) == {32}
    again = train(tiny(tmp_path / "b"), attack=darker)
    for one, other in zip(training.mixture.parameters(), again.mixture.parameters(), strict=True):
        assert torch.equal(one, other)
    plain = train(tiny(tmp_path / "c"))
    pairs = zip(training.mixture.parameters(), plain.mixture.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_an_attack_given_is_held_against_the_configured_ball(tmp_path):
    with pytest.raises(MixsolveError, match="Linf"):
        train(tiny(tmp_path), attack=lambda images, labels: (images - 0.2).clamp(min=0))


def test_a_run_is_resumed_with_the_attack_that_it_was_begun_with(tmp_path):
    train(tiny(tmp_path), attack=darker)
    with pytest.raises(MixsolveError, match="attack"):
        train(tiny(tmp_path), resume=True)
    train(tiny(tmp_path), attack=darker, resume=True)


def test_the_final_attacks_may_be_of_ones_own(tmp_path):
    config = tiny(tmp_path, evaluation=FINAL)
    training = train(config, final=["pgd", darker])
    assert training.evaluation.attack_names == ("PGD", "darker")


def test_paths_may_be_path_objects(tmp_path):
    config = tiny(tmp_path, run={"out": tmp_path / "run"})
    train(config)
    train(config, resume=True)
    assert config.to_dict()["run"]["out"] == str(tmp_path / "run")
