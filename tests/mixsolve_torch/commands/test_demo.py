"""`mixsolve demo` on a small scale: to the end, repeatable, careful with what is there."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from rich.console import Console

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve.commands.main import main
from mixsolve_torch.commands import demo as demo_module
from mixsolve_torch.commands import demo_images
from mixsolve_torch.commands.demo import FILES, DemoSettings, demo
from mixsolve_torch.commands.demo_images import DIGITS, FASHION, PatchSettings
from mixsolve_torch.commands.demo_networks import train
from mixsolve_torch.commands.demo_patch import PatchGame
from mixsolve_torch.commands.demo_picture import examples
from mixsolve_torch.data.arrays import digits

pytest.importorskip("matplotlib")

PATCH = PatchSettings("digits", 3, train=200, validation=60, test=80, attacked=30, epochs=2)
SMALL = DemoSettings(epochs=1, images=30, steps=2, patch=PATCH)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    report = demo(SMALL, out, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    return report, out


def test_it_writes_its_files_and_nothing_else(finished):
    _, out = finished
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    for picture in ("accuracy.png", "mixture.png", "patch.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_the_saved_losses_have_the_saved_answer(finished):
    (report, _), out = finished
    losses = np.load(out / "losses.npy")
    saved = np.load(out / "solution.npz")
    solution = mixsolve.solve(losses)
    assert np.array_equal(losses, report.fitted_losses)
    np.testing.assert_allclose(solution.value, saved["value"], atol=1e-6)
    np.testing.assert_allclose(losses @ saved["weights"], losses @ report.solution.weights)
    assert (losses @ saved["weights"]).max(axis=1).mean() == pytest.approx(float(saved["risk"]))
    assert (out / "evaluation.json").read_text() == report.json + "\n"


def test_the_table_has_the_accuracy_of_every_network_and_mixture(finished):
    (report, _), _ = finished
    kinds = [row.kind for row in report.players]
    assert kinds[:5] == ["single"] * 3 + ["uniform", "optimal"]
    assert set(kinds[5:]) == {"ensemble"}
    assert report.table().row_count == len(kinds)
    losses = report.losses.astype(float)
    for row in report.players[:5]:
        assert row.worst.value == pytest.approx(1 - (losses @ row.weights).max(axis=1).mean())
        assert row.clean.value == pytest.approx(1 - (losses[:, 0] @ row.weights).mean())
    assert report.settled
    assert report.bound >= max(row.fitted.value for row in report.players[:5]) - 1e-6
    assert report.optimal.fitted.value >= report.bound - report.settings.tol - 1e-6


def test_the_examples_are_what_the_attacker_plays():
    networks = train(digits(seed=3).train, SMALL, 3, Console(quiet=True))
    found = examples(networks, [1 / 3] * 3, digits(seed=3).test, SMALL, seed=3)
    assert found
    for example in found:
        assert example.variants
        assert sum(variant.probability for variant in example.variants) <= 1 + 1e-9
        for variant in example.variants:
            assert np.abs(variant.image - example.image).max() <= SMALL.eps + 1e-6


def test_another_seed_gives_another_game(finished, tmp_path):
    (report, patch), _ = finished
    other = demo(SMALL, tmp_path, seed=4)
    assert not np.array_equal(other.ball.losses, report.losses)
    assert other.patch.rivals != patch.rivals


def test_the_second_game_is_certified_on_images_that_nothing_was_chosen_on(finished):
    (_, patch), out = finished
    certificate = patch.certificate
    assert certificate.reported == PATCH.test
    assert len(patch.views) == 2  # a patch meets one of two views: others would not help
    assert 0 <= certificate.certified.low <= certificate.certified.value <= 0.5 + 1e-12
    assert not certificate.alone.any()
    assert patch.attacked >= patch.here.value - 1e-12  # what is certified, no attack breaks
    assert patch.gain.value == pytest.approx(patch.here.value - patch.best.attacked.value)
    assert json.loads((out / "patch.json").read_text()) == json.loads(json.dumps(patch.to_dict()))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, "Randomising pays: 2.00 points at least"),
        (-0.03, 0.05, "These images do not decide"),
        (-0.06, -0.01, "No gain is certified"),
    ],
)
def test_the_verdict_goes_by_the_interval(finished, low, high, verdict):
    (_, patch), _ = finished
    gain = dataclasses.replace(patch.gain, value=0.02, low=low, high=high)
    told: PatchGame = dataclasses.replace(patch, gain=gain)
    assert told.sentences()[-1].startswith(verdict)


def test_the_second_game_is_fashion_mnist_where_it_is_installed(monkeypatch):
    def missing(*_, **__):
        raise MixsolveError("no files")

    monkeypatch.setattr(demo_images, "load_data", lambda *_, **__: None)
    assert demo_images.installed() == FASHION
    monkeypatch.setattr(demo_images, "load_data", missing)
    assert demo_images.installed() == DIGITS


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten_unasked(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(MixsolveError, match=rf"already holds {name}: give --replace"):
        demo(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    (tmp_path / "accuracy.png").write_text("precious")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "already holds accuracy.png" in captured.err
    assert main(["demo", "--out", str(tmp_path / "accuracy.png")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path / "new"), "--seed", "-1"]) == 2
    assert not (tmp_path / "new").exists()


def test_the_command_prints_table_and_words_and_equal_seeds_give_equal_numbers(
    finished, tmp_path, capsys, monkeypatch
):
    (report, _), out = finished
    monkeypatch.setattr(demo_module, "DemoSettings", lambda: SMALL)
    (tmp_path / "accuracy.png").write_text("of an earlier run")
    (tmp_path / "notes.txt").write_text("precious")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        assert main(["demo", "--out", str(tmp_path), "--replace", "--seed", "3"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "uniform",
        "optimal",
        "Randomising buys",
        "is best",
        "interval of the gain",
        "is proven",
        "No attack was run for that",
    ):
        assert words in printed
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "notes.txt").read_text() == "precious"
    assert (tmp_path / "evaluation.json").read_text() == report.json + "\n"
    assert (tmp_path / "losses.npy").read_bytes() == (out / "losses.npy").read_bytes()
