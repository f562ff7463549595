"""Callbacks: what they are told, that they change nothing, and errors in them."""

import re
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from tiny_runs import tiny_config

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training import Callback, train

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


def tiny(folder, **weights):
    return tiny_config(
        folder,
        data={"limit": 80},
        optimizer={"epochs": 2, "batch_size": 24},
        weights=weights,
        model={"count": 2},
    )


class Watch(Callback):
    """Notes what it is told, and spoils what it was given."""

    def __init__(self):
        self.steps, self.records, self.ends = [], [], []

    def on_step(self, step):
        self.steps.append((step.number, step.learning_rate, step.loss))
        assert step.steps == 6

    def on_epoch(self, record):
        self.records.append({**record})
        record.clear()

    def on_end(self, training):
        self.ends.append(training)


def test_callbacks_see_the_run_and_do_not_change_it(tmp_path):
    watch = Watch()
    training = train(tiny(tmp_path / "watched"), callbacks=[watch])
    plain = train(tiny(tmp_path / "plain"))
    for one, other in zip(training.mixture.parameters(), plain.mixture.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [number for number, _, _ in watch.steps] == [1, 2, 3, 4, 5, 6]
    assert [rate for _, rate, _ in watch.steps] == pytest.approx([0.05] * 3 + [0.005, 0.005, 5e-4])
    losses = [float(loss) for _, _, loss in watch.steps]
    for number, record in enumerate(watch.records):
        mean = sum(losses[3 * number : 3 * number + 3]) / 3
        assert record["train_loss"] == pytest.approx(mean)
    assert watch.records == training.records
    assert watch.ends == [training]


def test_a_step_that_updates_weights_has_no_loss(tmp_path):
    watch = Watch()
    train(tiny(tmp_path / "run", update="oracle", t_theta=2, t_lambda=3), callbacks=[watch])
    assert [loss is None for _, _, loss in watch.steps] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("on_step", "no checkpoint was written before"),
        ("on_epoch", "the checkpoint of step 3, before that, is in"),
        ("on_end", "the run is complete"),
    ],
)
def test_an_error_in_a_callback_is_named_and_the_run_resumes(tmp_path, name, kept):
    class Broken:
        pass

    def fail(self, told):
        raise ValueError("no connection")

    setattr(Broken, name, fail)
    config = tiny(tmp_path / "run")
    with pytest.raises(MixsolveError) as raised:
        train(config, callbacks=[Watch(), Broken()])
    assert f"callbacks[1].{name} (Broken) raised ValueError: no connection" in str(raised.value)
    assert kept in str(raised.value)
    assert not (tmp_path / "run" / ".lock").exists()
    if name != "on_step":
        state = checkpoint.load(tmp_path / "run" / "last.pt")["algorithm"]
        assert state["t"] == (3 if name == "on_epoch" else 6)
    watch = Watch()
    training = train(config, resume=True, callbacks=[watch])
    assert [record["epoch"] for record in training.records] == [1, 2]
    assert len(watch.steps) == {"on_step": 6, "on_epoch": 3, "on_end": 0}[name]


@pytest.mark.parametrize("given", [[print], [Watch], [None], Watch()])
def test_what_is_no_callback_is_refused_before_the_run(tmp_path, given):
    with pytest.raises(MixsolveTypeError, match="callbacks"):
        train(tiny(tmp_path / "run"), callbacks=given)
    assert not (tmp_path / "run").exists()


def test_the_examples_for_trackers_log_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trackers = {name: MagicMock() for name in ("wandb", "mlflow")}
    for name, tracker in trackers.items():
        monkeypatch.setitem(sys.modules, name, tracker)
    names = {"__name__": "example", "config": tiny("runs/first"), "train": train}
    blocks = re.findall(r"^```python\n(.*?)^```\n", PAGE.read_text("utf-8"), re.DOTALL | re.M)
    examples = [block for block in blocks if "import wandb" in block or "import mlflow" in block]
    assert len(examples) == 2
    for block in examples:
        exec(compile(block, PAGE.name, "exec"), names)
    logged = trackers["wandb"].log.call_args_list
    assert [call.kwargs["step"] for call in logged] == [3, 6]
    assert {"loss", "robust", "robust/0", "robust/1"} == set(logged[0].args[0])
    assert trackers["wandb"].summary.__setitem__.call_args.args[0] == "deploy"
    metrics = [call.args[0] for call in trackers["mlflow"].log_metric.call_args_list]
    assert metrics.count("loss") == 6
    assert metrics.count("robust") == 2
    (artifact,) = trackers["mlflow"].log_artifact.call_args.args
    assert Path(artifact).name == "deploy.pt"
