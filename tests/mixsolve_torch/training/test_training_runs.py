"""What a run stands on: images that it was not trained on, one process, the files of its folder."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import ALGORITHM2, FINAL, tiny_config
from torch.utils.data import TensorDataset

from mixsolve.base.errors import MixsolveError
from mixsolve.commands import main as cli
from mixsolve_torch import LabelledImages
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.lock import Lock
from mixsolve_torch.training import DataConfig, RunConfig, TrainConfig, train

NONE = tiny_config("unused").evaluation
WITH_FINAL = replace(NONE, **FINAL)


def arrays(seed, count=60):
    """Images of noise with labels of no meaning: nothing can be learnt of others from them."""
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (count, 8, 8), dtype=np.uint8), draws.integers(0, 10, count)


def save(path, **parts):
    """Save images and labels by part, "" for a file that is one set."""
    content = {}
    for part, (images, labels) in parts.items():
        prefix = "" if part == "whole" else f"{part}_"
        content |= {f"{prefix}images": images, f"{prefix}labels": labels}
    np.savez(path, classes=10, **content)
    return str(path)


def tiny(folder, data=None, evaluation=NONE, epochs=1, **sections):
    return tiny_config(
        folder,
        data=data or {},
        weights=ALGORITHM2,
        method="algorithm2",
        optimizer={"epochs": epochs},
        evaluation=evaluation,
        **sections,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of two epochs, of which nothing is to be written to."""
    folder = tmp_path_factory.mktemp("done") / "run"
    train(tiny(folder, epochs=2))
    return folder


@pytest.fixture
def run(done, tmp_path):
    """A copy of that run."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in contents(done).items():
        (folder / name).write_bytes(content)
    return folder


# Images that were not trained on.


@pytest.mark.parametrize("evaluation", [WITH_FINAL, replace(NONE, select="test")])
def test_a_test_on_what_was_trained_on_is_refused_before_anything_is_done(tmp_path, evaluation):
    name = save(tmp_path / "noise.npz", whole=arrays(0))
    words = r"evaluation\.(final|select) = '(pgd|test)' needs images that were not trained on.*"
    mend = r"test_images and test_labels into one .npz.*data\.test.*evaluation\.final = 'none'"
    with pytest.raises(MixsolveError, match=words + mend):
        train(tiny(tmp_path / "run", DataConfig(name), evaluation))
    for test in (name, save(tmp_path / "copy.npz", whole=arrays(0, 60))):
        with pytest.raises(MixsolveError, match=r"all 60 test images of .* stand among the images"):
            train(tiny(tmp_path / "run", DataConfig(name, test=test), evaluation))
    assert not (tmp_path / "run").exists()


def test_without_a_test_one_set_will_do(tmp_path):
    name = save(tmp_path / "noise.npz", whole=arrays(0))
    training = train(tiny(tmp_path / "run", DataConfig(name)))
    assert training.evaluation is None
    assert training.best["split"] == "validation"


def given(seed, count=60):
    images, labels = arrays(seed, count)
    return LabelledImages(torch.from_numpy(images)[:, None], torch.from_numpy(labels), 10)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """A run on the images of a file."""
    folder = tmp_path_factory.mktemp("named")
    known = DataConfig(save(folder / "both.npz", train=arrays(0), test=arrays(1, 20)))
    return train(tiny(folder / "run", known, WITH_FINAL))


@pytest.mark.parametrize("form", ["loaded", "dataset", "pair", "batches"])
def test_images_that_are_given_are_trained_on_as_those_of_a_file(tmp_path, form, expected):
    data, test = given(0), given(1, 20)
    forms = {
        "loaded": lambda images: images,
        "dataset": lambda images: TensorDataset(*images[:2]),
        "pair": lambda images: images[:2],
        "batches": lambda images: zip(
            (images.images / 255).split(7), images.labels.split(7), strict=True
        ),
    }
    config = tiny(tmp_path / "run", DataConfig(), WITH_FINAL)
    training = train(config, data=forms[form](data), test=forms[form](test))
    assert training.evaluation.players[0].clean == expected.evaluation.players[0].clean
    for one, other in zip(
        training.mixture.parameters(), expected.mixture.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_what_is_given_to_train_on_alone_needs_a_test(tmp_path):
    with pytest.raises(MixsolveError, match=r"data has no test part; give them as test=, name th"):
        train(tiny(tmp_path / "run", evaluation=WITH_FINAL), data=given(0))
    with pytest.raises(MixsolveError, match=r"all 60 test images of 'test' stand among"):
        train(tiny(tmp_path / "run", evaluation=WITH_FINAL), data=given(0), test=given(0))
    train(tiny(tmp_path / "run", DataConfig(limit=40)), data=given(0))
    with pytest.raises(MixsolveError, match=r"data \(train images and labels\)"):
        train(tiny(tmp_path / "run", DataConfig(limit=40)), data=given(1), resume=True)


def test_a_run_on_a_tree_of_image_files(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for part, seed in (("train", 0), ("val", 1)):
        for k, (pixels, label) in enumerate(zip(*arrays(seed), strict=True)):
            file = tmp_path / "tree" / part / str(label) / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(np.kron(pixels, np.ones((2, 2), np.uint8))).save(file)
    data = DataConfig(str(tmp_path / "tree"), limit=50, size=8, validation=0.3)
    training = train(tiny(tmp_path / "run", data, WITH_FINAL))
    assert len(training.evaluation.images) == 8


@pytest.mark.parametrize("loss", ["at", "trades"])
def test_a_config_of_fashion_mnist_runs_on_its_files(tmp_path, loss):
    draws = np.random.default_rng(0)
    for stem, count in (("train", 120), ("t10k", 20)):
        images = draws.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for entries, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            header = bytes([0, 0, 8, entries.ndim])
            lengths = b"".join(length.to_bytes(4, "big") for length in entries.shape)
            (tmp_path / f"{stem}-{kind}-ubyte").write_bytes(header + lengths + entries.tobytes())
    file = Path(__file__).parents[3] / "configs" / f"fashion-{loss}-l2.toml"
    short = "--optimizer.epochs 1 --attack.steps 1 --evaluation.steps 1 --evaluation.final none"
    where = ["--data.dir", str(tmp_path), "--run.out", str(tmp_path / "run")]
    assert cli.main(["train", "--config", str(file), *short.split(), *where]) == 0
    kept = checkpoint.load(tmp_path / "run" / "best.pt")
    assert [len(model) for model in kept["models"]] == [10, 10]


@pytest.mark.parametrize("where", ["a part", "a file", "a part of a file"])
def test_the_test_images_are_those_told(tmp_path, where):
    held, whole = arrays(1, 20), arrays(0)
    if where == "a part":
        data = DataConfig(save(tmp_path / "both.npz", train=whole, test=held))
    else:
        parts = {"whole": held} if where == "a file" else {"train": arrays(2), "test": held}
        test = save(tmp_path / "test.npz", **parts)
        data = DataConfig(save(tmp_path / "train.npz", whole=whole), test=test)
    training = train(tiny(tmp_path / "run", data, replace(WITH_FINAL, final_images=None)))
    x = torch.from_numpy(held[0])[:, None] / 255
    y = torch.from_numpy(held[1])
    with torch.no_grad():
        right = training.mixture.models[0](x).argmax(1) == y
    assert training.evaluation.players[0].clean.value == pytest.approx(float(right.double().mean()))


def test_a_test_set_that_does_not_fit_is_refused(tmp_path):
    whole = save(tmp_path / "train.npz", whole=arrays(0))
    images, labels = arrays(1, 20)
    wide = save(tmp_path / "wide.npz", whole=(np.repeat(images, 2, axis=2), labels))
    many = tmp_path / "many.npz"
    np.savez(many, images=images, labels=labels + 10)
    for test, words in (
        (wide, r"\(1, 8, 8\); got \(1, 8, 16\)"),
        (str(many), "below the 10 classes"),
    ):
        with pytest.raises(MixsolveError, match=words):
            train(tiny(tmp_path / "run", DataConfig(whole, test=test), WITH_FINAL))


# The same images when a run goes on.


def test_a_run_does_not_go_on_with_other_images_or_labels(tmp_path):
    images, labels = arrays(0)
    held = arrays(1, 20)
    name = save(tmp_path / "data.npz", train=(images, labels), test=held)
    config = tiny(tmp_path / "run", DataConfig(name), replace(NONE, select="test"))
    train(config)
    before = contents(tmp_path / "run")
    other = np.where(np.arange(60) == 3, (labels + 1) % 10, labels)
    changed = images.copy()
    changed[7, 3, 3] ^= 1
    for part, parts in (
        ("train", {"train": (images, other), "test": held}),
        ("train", {"train": (changed, labels), "test": held}),
        ("test", {"train": (images, labels), "test": arrays(2, 20)}),
    ):
        save(name, **parts)
        with pytest.raises(
            MixsolveError, match=rf"begun with other .*: data \({part} images and labels\) was"
        ):
            train(config, resume=True)
        assert contents(tmp_path / "run") == before
    moved = save(tmp_path / "moved.npz", train=(images, labels), test=held)
    os.replace(moved, name)
    train(config, resume=True)


# One process.


def test_a_folder_that_another_process_writes_to_is_refused(run):
    before = contents(run)
    words = rf"run\.out .*run' is in use by process {os.getpid()} on .*; wait for it to end, or ch"
    with Lock(run / ".lock", "the folder"):
        for resume in (False, True):
            with pytest.raises(MixsolveError, match=words):
                train(tiny(run, epochs=2), resume=resume)
    assert contents(run) == before


def test_a_folder_is_locked_while_a_run_writes_and_free_after_it(tmp_path, monkeypatch):
    from mixsolve_torch.training import loop

    tried = []

    def measured(*arguments):
        with pytest.raises(MixsolveError, match="is in use by process"):
            Lock(tmp_path / "run" / ".lock", "the folder").acquire()
        tried.append(1)
        raise MixsolveError("stopped")

    monkeypatch.setattr(loop, "measure_epoch", measured)
    with pytest.raises(MixsolveError, match="stopped"):
        train(tiny(tmp_path / "run"))
    assert tried == [1]
    assert not (tmp_path / "run" / ".lock").exists()


# The files of its folder.


def test_a_run_whose_last_checkpoint_was_deleted_does_not_start_over(run, caplog):
    (run / "last.pt").unlink()
    before = contents(run)
    with pytest.raises(MixsolveError, match=r"holds a run \(last.pt.previous, best.pt\)"):
        train(tiny(run, epochs=2))
    assert contents(run) == before
    training = train(tiny(run, epochs=2), resume=True)
    assert "last.pt does not exist; resuming from the checkpoint before it" in caplog.text
    assert [record["epoch"] for record in training.records] == [1, 2]


def test_without_any_last_checkpoint_the_best_one_is_not_overwritten(run):
    (run / "last.pt").unlink()
    (run / "last.pt.previous").unlink()
    before = contents(run)
    with pytest.raises(MixsolveError, match=r"holds best\.pt of a run but no last\.pt"):
        train(tiny(run, epochs=2), resume=True)
    assert contents(run) == before


def test_a_damaged_last_checkpoint_is_set_aside_for_the_one_before(run, done, caplog):
    damaged = (run / "last.pt").read_bytes()[:1000]
    (run / "last.pt").write_bytes(damaged)
    training = train(tiny(run, epochs=2), resume=True)
    assert "last.pt is damaged" in caplog.text
    assert (run / "last.pt.damaged").read_bytes() == damaged
    whole = checkpoint.load(done / "last.pt")["algorithm"]["models"][1]
    again = checkpoint.load(run / "last.pt")["algorithm"]["models"][1]
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert [record["epoch"] for record in training.records] == [1, 2]


def best_of(*robust):
    """Records and checkpoints as of epochs of these robust accuracies."""
    return [
        {
            "epoch": k + 1,
            "step": 4 * (k + 1),
            "robust": {"mixture": value},
            "clean": {"mixture": 1.0},
        }
        for k, value in enumerate(robust)
    ]


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_best_checkpoint_that_is_lost_is_told_at_once(run, caplog, monkeypatch, damage):
    """The last epoch, which is in last.pt, takes its place."""
    from mixsolve_torch.training import loop

    monkeypatch.setattr(loop.Journal, "__init__", lambda *_, **__: pytest.fail("too late"))
    if damage == "missing":
        (run / "best.pt").unlink()
    else:
        (run / "best.pt").write_bytes((run / "best.pt").read_bytes()[:500])
    (run / "best.pt.previous").unlink(missing_ok=True)
    with pytest.raises(pytest.fail.Exception, match="too late"):
        train(tiny(run, epochs=2), resume=True)
    assert "best.pt is lost or damaged, and with it epoch" in caplog.text
    assert "epoch 2, the last one, takes its place" in caplog.text
    last = checkpoint.load(run / "last.pt")
    best = checkpoint.load(run / "best.pt")
    assert best["record"] == last["records"][-1]
    assert torch.equal(best["weights"], last["algorithm"]["weights"])


def test_the_best_checkpoint_before_takes_the_place_of_a_damaged_one(tmp_path, caplog):
    from mixsolve_torch.training.run_folder import RunFolder

    folder = RunFolder(tmp_path)
    records = best_of(0.2, 0.4, 0.3)
    for record in records[:2]:
        checkpoint.save({"record": record}, folder.best)
    assert folder.kept(records) == records[1]
    assert not caplog.text
    folder.best.unlink()
    folder.best.write_bytes(b"nothing")
    assert folder.kept(records) == records[0]
    assert "best.pt is damaged" in caplog.text
    assert "the most robust epoch before it, epoch 1, takes its place" in caplog.text
    assert checkpoint.load(folder.best)["record"] == records[0]
    assert (tmp_path / "best.pt.damaged").read_bytes() == b"nothing"


def test_a_best_checkpoint_of_an_epoch_that_is_done_again_is_not_missed(tmp_path, caplog):
    from mixsolve_torch.training.run_folder import RunFolder

    folder = RunFolder(tmp_path)
    records = best_of(0.2, 0.4)
    for record in records:
        checkpoint.save({"record": record}, folder.best)
    assert folder.kept(records[:1]) == records[0]
    assert not caplog.text
    assert checkpoint.load(folder.best)["record"] == records[1]
    assert folder.kept([]) is None


def test_what_a_kill_left_half_written_is_swept_up(run):
    litter = ("last.pt.part", "best.pt.link", ".metrics.123.part.jsonl", ".history.9.part.png")
    for name in litter:
        (run / name).write_bytes(b"half")
    train(tiny(run, epochs=2), resume=True)
    assert not set(litter) & set(os.listdir(run))


@pytest.mark.parametrize("moment", ["checkpoint", "metrics"])
def test_a_full_disk_costs_no_checkpoint_and_leaves_no_rubbish(run, monkeypatch, moment):
    """The disk is full from the first write of the third epoch on."""
    longer = tiny(run, epochs=3)
    change(run, config=longer.to_dict())
    last = (run / "last.pt").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if moment == "checkpoint":
        monkeypatch.setattr(torch, "save", full)
        words = r"pt could not be written: the disk is full; .*; the checkpoint written before is"
    else:
        monkeypatch.setattr(Path, "write_text", full)
        words = r"metrics in .* could not be written: .*No space left.*checkpoint is not touched"
    before = set(os.listdir(run))
    with pytest.raises(MixsolveError, match=words):
        train(longer, resume=True)
    assert set(os.listdir(run)) == before
    assert (run / "last.pt").read_bytes() == last
    monkeypatch.undo()
    assert [record["epoch"] for record in train(longer, resume=True).records] == [1, 2, 3]


# Checkpoints of other versions.


def change(folder, **entries):
    state = checkpoint.load(folder / "last.pt") | entries
    checkpoint.save(
        {name: value for name, value in state.items() if value is not None}, folder / "last.pt"
    )


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"ranks": None}, r"it lacks ranks; resume with the version that began it"),
        ({"config": None, "records": None}, "it lacks config, records"),
        ({"format": 4, "mixsolve": "9.1"}, r"another version of mixsolve \(9\.1\).*format is 4"),
    ],
)
def test_a_checkpoint_of_another_version_says_so(run, entries, words):
    change(run, **entries)
    before = contents(run)
    with pytest.raises(MixsolveError, match=words):
        train(tiny(run, epochs=2), resume=True)
    assert contents(run) == before


def test_a_checkpoint_from_before_there_were_digests_is_resumed(run, caplog):
    config = checkpoint.load(run / "last.pt")["config"]
    del config["data"]["test"]
    assert config["method"] == "algorithm2"
    change(run, format=None, mixsolve=None, data=None, config=config)
    train(tiny(run, epochs=2), resume=True)
    assert "did not record its images" in caplog.text
    config["model"]["depth"] = 3
    change(run, config=config)
    with pytest.raises(MixsolveError, match=r"model\.depth was 3 and is not set"):
        train(tiny(run, epochs=2), resume=True)


def test_a_run_from_before_there_were_methods_was_one_of_algorithm_2(run, caplog):
    config = checkpoint.load(run / "last.pt")["config"]
    del config["method"], config["weights"]["floor"]
    change(run, format=2, config=config)
    plain = tiny(run, epochs=2)
    with pytest.raises(MixsolveError, match=r"weights\.floor was 0\.0 and is 0\.5"):
        train(plain, resume=True)
    same = replace(plain, weights=replace(plain.weights, floor=0.0))
    with pytest.raises(MixsolveError, match='method was "algorithm2" and is "together"'):
        train(replace(same, method="together"), resume=True)
    assert [record["epoch"] for record in train(same, resume=True).records] == [1, 2]
    assert "measured epochs under attacks on the mixture alone" in caplog.text


def test_networks_that_have_changed_since_are_named(run):
    algorithm = checkpoint.load(run / "last.pt")["algorithm"]
    del algorithm["models"][0]["1.weight"]
    change(run, algorithm=algorithm)
    with pytest.raises(MixsolveError, match=r"does not fit the networks of model\.architecture"):
        train(tiny(run, epochs=2), resume=True)


# The final evaluation.


def test_another_effort_in_the_end_is_no_dead_end(run):
    for steps, count in ((1, 8), (2, 8), (2, 6), (1, 8)):
        final = replace(WITH_FINAL, final_steps=steps, final_images=count)
        training = train(tiny(run, epochs=2, evaluation=final), resume=True)
        assert json.loads((run / "evaluation.json").read_text()) == json.loads(
            json.dumps(training.evaluation.to_dict())
        )
        assert training.evaluation.to_dict()["images"] == count


# The command line.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "run.toml cannot be read: No such file or directory; give the TOML file"),
        (b"\x7fELF\xff\xfe\x00\x01[run]", "run.toml is not a TOML file: 'utf-8' codec"),
        (b"[run\n", "run.toml is not a TOML file: Expected ']'"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line(tmp_path, capsys, content, words):
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    assert cli.main(["train", "--config", str(file)]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_config_is_printed_and_can_be_read_again(tmp_path, capsys):
    assert cli.main(["train", "--run.out", str(tmp_path / "run"), "--print_config"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    file = tmp_path / "run.toml"
    file.write_text(printed.out)
    from mixsolve_torch.commands.train import read

    config, _ = read(["--config", str(file)])
    assert config == TrainConfig(run=RunConfig(out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
