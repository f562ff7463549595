"""Runs that diverge, and ranks that are ended: what is kept, and resumed to the same bits."""

import os
import random
import signal
import socket
from functools import partial

import pytest
import torch
from ranks import run_ranks, torchrun
from tiny_runs import assert_same_run, tensors, tiny_config, toml

from mixsolve.base.errors import MixsolveError
from mixsolve.commands.main import main
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training import train
from mixsolve_torch.training.methods import METHODS, Together


def tiny(folder, rate=0.05, method="together", **run):
    return tiny_config(
        folder,
        data={"limit": 120},
        method=method,
        optimizer={"epochs": 2, "learning_rate": rate},
        run=run,
    )


def assert_finite(path):
    for place, value in tensors(checkpoint.load(path)).items():
        assert not value.is_floating_point() or value.isfinite().all(), place


@pytest.mark.parametrize("method", METHODS)
def test_a_diverged_run_says_what_to_lower_and_keeps_finite_networks(tmp_path, method):
    config = tiny(tmp_path / "run", rate=1e25, method=method, save_every=1)
    with pytest.raises(MixsolveError) as raised:
        train(config)
    words = str(raised.value)
    assert "lower optimizer.learning_rate, which was 1e+25" in words
    kept = checkpoint.load(tmp_path / "run" / "last.pt")["algorithm"]["t"]
    assert f"the checkpoint of step {kept}, before that, is in" in words
    for name in ("last.pt", "last.pt.previous"):
        if (tmp_path / "run" / name).exists():
            assert_finite(tmp_path / "run" / name)


def test_parameters_that_become_infinite_in_an_epochs_last_step_are_not_kept(tmp_path, monkeypatch):
    step = Together.step

    def spoilt(self, batch):
        step(self, batch)
        if batch.t == 6:  # the losses of the epoch were all finite
            with torch.no_grad():
                next(self.parts.networks.mixture.models[1].parameters())[0] = torch.inf

    monkeypatch.setattr(Together, "step", spoilt)
    with pytest.raises(MixsolveError, match=r"infinite by step 6; lower optimizer\.learning_rate"):
        train(tiny(tmp_path / "run"))
    assert_finite(tmp_path / "run" / "last.pt")
    assert checkpoint.load(tmp_path / "run" / "last.pt")["algorithm"]["t"] == 3


def test_a_run_that_diverges_before_its_first_checkpoint_says_that_there_is_none(tmp_path):
    with pytest.raises(MixsolveError, match="no checkpoint was written before"):
        train(tiny(tmp_path / "run", rate=1e25))
    assert not (tmp_path / "run" / "last.pt").exists()


# Several ranks.


def as_torchrun(port, rank):
    """The environment that torchrun makes for one of two processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def ended_by_a_signal(folder, port, rank):
    """Train with and without a SIGTERM that one of two ranks gets; resume the run that got it."""
    as_torchrun(port, rank)
    step = Together.step

    def signalled(self, batch):
        if rank == 1 and batch.t == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, batch)

    import torch.distributed as dist

    dist.init_process_group("gloo")
    train(tiny(folder / "whole"))
    Together.step = signalled
    try:
        train(tiny(folder / "run"))
        code = None
    except SystemExit as end:
        code = end.code
    Together.step = step
    kept = checkpoint.load(folder / "run" / "last.pt")["algorithm"]["t"]
    dist.barrier()
    train(tiny(folder / "run"), resume=True)
    return code, kept


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_all_ranks_save_after_the_same_step_when_one_is_to_end(tmp_path):
    program = partial(ended_by_a_signal, tmp_path, free_port())
    for code, kept in run_ranks(2, program, tmp_path, group=False):
        assert code == 128 + signal.SIGTERM
        assert kept in (2, 3)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from mixsolve.commands.main import main
from mixsolve_torch.training.methods import Together
step = Together.step
def killed(self, batch):
    if batch.t == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch)
Together.step = killed
sys.exit(main(["train", *sys.argv[2:]]))
"""


def command(port, words, rank):
    """The command line on one of two ranks."""
    as_torchrun(port, rank)
    return main(["train", *words])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
def test_two_ranks_of_torchrun_killed_at_a_random_step_resume_to_the_same_bits(tmp_path):
    config = tiny(tmp_path / "run", save_every=2)
    killed_in = random.SystemRandom().randrange(2, 7)
    file, script = tmp_path / "run.toml", tmp_path / "killed.py"
    file.write_text(toml(config))
    script.write_text(KILLED)

    def codes(*words):
        program = partial(command, free_port(), ["--config", str(file), *words])
        return run_ranks(2, program, tmp_path, group=False)

    assert codes("--run.out", str(tmp_path / "whole")) == [0, 0]
    port = "--master-port", free_port()
    done = torchrun(*port, script, killed_in, "--config", file, folder=tmp_path)
    assert "SIGKILL" in done.stderr or "-9" in done.stderr, done.stderr
    last = tmp_path / "run" / "last.pt"
    kept = checkpoint.load(last)["algorithm"]["t"] if last.exists() else 0
    assert kept < killed_in
    assert codes("--resume") == [0, 0], killed_in
    assert_same_run(tmp_path / "run", tmp_path / "whole")
