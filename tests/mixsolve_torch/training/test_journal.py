"""What a run says of itself: every epoch once, wherever it is written, and numbers as they were."""

import json
import logging
import sys

import pytest

from mixsolve import plots
from mixsolve.base.errors import MixsolveError
from mixsolve.plots.history import training_history
from mixsolve_torch.runs.progress import ProgressBar
from mixsolve_torch.training.journal import Journal, summary


def record(epoch, weights=(0.75, 0.25)):
    share = epoch / 10
    return {
        "epoch": epoch,
        "seconds": 1.5 * epoch,
        "learning_rate": 0.1,
        "train_loss": 2 - share,
        "weights": list(weights),
        "clean": {"mixture": 0.5 + share / 2, "models": [0.5 + share / 4] * len(weights)},
        "robust": {"mixture": share, "models": [share / 2] * len(weights)},
        "split": "validation",
    }


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_epoch_is_a_line_at_once(tmp_path):
    with Journal(tmp_path, tensorboard=False) as journal:
        assert lines(tmp_path) == []
        for epoch in (1, 2, 3):
            journal.log(record(epoch))
            assert lines(tmp_path) == [record(k + 1) for k in range(epoch)]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_run_that_goes_on_forgets_what_its_checkpoint_does_not_know(tmp_path):
    with Journal(tmp_path, tensorboard=False) as journal:
        for epoch in (1, 2, 3):
            journal.log(record(epoch))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "seco')  # killed in the middle of a line
    known = [record(1), record(2)]
    with Journal(tmp_path, records=known, tensorboard=False) as journal:
        assert lines(tmp_path) == known
        journal.log(record(3))
    assert lines(tmp_path) == [record(1), record(2), record(3)]
    assert len(known) == 2


def curves(folder):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {
        tag: {point.step: point.value for point in found.Scalars(tag)}
        for tag in found.Tags()["scalars"]
    }


def test_curves_of_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    with Journal(tmp_path) as journal:
        for epoch in (1, 2, 3):
            journal.log(record(epoch))
    with Journal(tmp_path, records=[record(1)]) as journal:
        journal.log(record(2, weights=(0.5, 0.5)))
    found = curves(tmp_path)
    assert set(found) == {
        "seconds",
        "learning_rate",
        "train_loss",
        "weights/0",
        "weights/1",
        *(
            f"{kind}/{name}"
            for kind in ("clean", "robust")
            for name in ("mixture", "models/0", "models/1")
        ),
    }
    assert found["weights/0"] == pytest.approx({1: 0.75, 2: 0.5})
    assert found["robust/mixture"] == pytest.approx({1: 0.1, 2: 0.2})
    assert found["clean/models/1"] == pytest.approx({1: 0.525, 2: 0.55})


def test_without_tensorboard_the_log_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with caplog.at_level(logging.INFO), Journal(tmp_path) as journal:
        journal.log(record(1))
    assert lines(tmp_path) == [record(1)]
    (told,) = [line for line in caplog.messages if "TensorBoard" in line]
    assert "pip install 'mixsolve[train]'" in told


def test_a_journal_that_does_not_write(tmp_path, caplog):
    with caplog.at_level(logging.INFO), Journal(tmp_path, write=False) as journal:
        journal.advance()
        journal.log(record(1))
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == []


def test_what_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(MixsolveError, match=r"metrics in .*absent could not be written.*checkpoin"):
        Journal(tmp_path / "absent", tensorboard=False)
    with Journal(tmp_path, tensorboard=False) as journal:
        (tmp_path / "metrics.jsonl").unlink()
        (tmp_path / "metrics.jsonl").mkdir()
        with pytest.raises(MixsolveError, match=r"could not be written: .*Is a directory"):
            journal.log(record(1))


def test_a_line_for_people(caplog, tmp_path):
    text = "epoch 4, loss 1.600, weights 0.75 0.25, clean 70.0 %, robust 40.0 %"
    assert summary(record(4)) == text
    assert "weights" not in summary(record(4, weights=(1.0,)))
    with caplog.at_level(logging.INFO), Journal(tmp_path, tensorboard=False) as journal:
        journal.log(record(4))
    assert caplog.messages == [text]


def test_the_bar_shows_the_last_epoch(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(ProgressBar, "describe", lambda _, text: shown.append(text))
    monkeypatch.setattr(ProgressBar, "advance", lambda _, steps: shown.append(steps))
    with Journal(tmp_path, records=[record(1)], tensorboard=False, total=20) as journal:
        journal.advance(10)
        journal.log(record(2))
    assert shown == [f"Training: {summary(record(1))}", 10, f"Training: {summary(record(2))}"]


def test_the_text_of_a_bar_changes(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("mixsolve_torch.runs.progress._PATIENCE", -1.0)
    with ProgressBar("before", 3, enabled=True) as bar:
        bar.describe("early")
        bar.advance()
        assert bar._bar.tasks[0].description == "early"
        bar.describe("late")
        assert bar._bar.tasks[0].description == "late"
        assert bar._bar.tasks[0].completed == 1


def test_a_history_draws_the_numbers_it_is_given(tmp_path):
    records = [record(epoch) for epoch in (1, 2, 3)]
    accuracy, weights = training_history(records).axes
    drawn = {
        line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in accuracy.get_lines()
    }
    assert drawn["mixture, robust"] == pytest.approx({1: 10, 2: 20, 3: 30})
    assert drawn["mixture, clean"] == pytest.approx({1: 55, 2: 60, 3: 65})
    assert drawn["most robust: epoch 3, 30.0 %"] == pytest.approx({3: 30})
    assert len(accuracy.get_lines()) == 7
    shares = {line.get_label(): list(line.get_ydata()) for line in weights.get_lines()}
    assert shares["classifier 0"] == pytest.approx([75, 75, 75])
    assert shares["classifier 1"] == pytest.approx([25, 25, 25])
    assert "validation" in accuracy.get_title(loc="left")
    plots.save(training_history(records), tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 10_000


def test_a_single_classifier_has_no_weights_to_draw():
    (accuracy,) = training_history([record(1, weights=(1.0,))]).axes
    labels = [line.get_label() for line in accuracy.get_lines()]
    assert labels == ["classifier, robust", "classifier, clean", "most robust: epoch 1, 10.0 %"]


def test_a_history_needs_an_epoch():
    with pytest.raises(MixsolveError, match="records must hold at least one epoch"):
        training_history([])
