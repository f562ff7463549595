"""`mixsolve demo` on a small scale: to the end, repeatable, careful with what is there."""

import numpy as np
import pytest
import torch

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve.commands.main import main
from mixsolve_torch.commands import demo as demo_module
from mixsolve_torch.commands.demo import FILES, DemoSettings, demo

pytest.importorskip("matplotlib")

SMALL = DemoSettings(epochs=1, images=40, draws=2, steps=3, restarts=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    report = demo(SMALL, out, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    return report, out


def printed(report):
    """All risks that the table and the sentences are made of."""
    risks = [(row.standard, row.risk) for row in report.rows]
    return risks, report.attacked_afresh(), report.sentences()


def test_it_writes_its_files_and_nothing_else(finished):
    _, out = finished
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    for picture in ("risk.png", "mixture.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_the_saved_losses_have_the_saved_answer(finished):
    report, out = finished
    losses = np.load(out / "losses.npy")
    saved = np.load(out / "solution.npz")
    solution = mixsolve.solve(losses)
    assert losses.shape == tuple(report.losses.values.shape)
    np.testing.assert_allclose(solution.value, saved["value"], atol=1e-6)
    np.testing.assert_allclose(losses @ saved["weights"], losses @ report.optimal.weights)
    assert (losses @ saved["weights"]).max(axis=1).mean() == pytest.approx(float(saved["risk"]))


def test_the_table_tells_the_risks_of_everyone(finished):
    report, _ = finished
    kinds = [row.kind for row in report.rows]
    assert kinds == ["single"] * 4 + ["uniform"] + ["optimal"] * 3
    assert report.table().row_count == len(kinds)
    losses = report.losses.values.numpy().astype(float)
    for row in report.rows:
        assert row.risk == pytest.approx((losses @ row.weights).max(axis=1).mean())
        assert row.standard == pytest.approx((losses[:, 0] @ row.weights).mean())
    assert report.certified
    assert report.optimal.risk <= min(row.risk for row in report.rows) + 1e-6


def test_fresh_attacks_only_raise_the_risks(finished):
    report, _ = finished
    mixed, alone, name = report.attacked_afresh()
    assert mixed >= report.optimal.risk
    assert alone >= report.best_single.risk
    assert name in report.names


def test_the_examples_are_what_the_attacker_plays(finished):
    report, _ = finished
    for example in report.examples():
        assert example.variants
        assert sum(variant.probability for variant in example.variants) <= 1 + 1e-9
        for variant in example.variants:
            assert np.abs(variant.image - example.image).max() <= SMALL.eps + 1e-6


def test_equal_seeds_give_equal_numbers(finished, tmp_path):
    report, out = finished
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        again = demo(SMALL, tmp_path, seed=3)
    assert printed(again) == printed(report)
    assert (tmp_path / "losses.npy").read_bytes() == (out / "losses.npy").read_bytes()


def test_another_seed_gives_another_game(finished, tmp_path):
    report, _ = finished
    other = demo(SMALL, tmp_path, seed=4)
    assert not torch.equal(other.losses.values, report.losses.values)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten_unasked(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(MixsolveError, match=rf"already holds {name}: give --replace"):
        demo(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    (tmp_path / "risk.png").write_text("precious")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "already holds risk.png" in captured.err
    assert main(["demo", "--out", str(tmp_path / "risk.png")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path / "new"), "--seed", "-1"]) == 2
    assert not (tmp_path / "new").exists()


def test_the_command_prints_table_and_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo_module, "DemoSettings", lambda: SMALL)
    (tmp_path / "risk.png").write_text("of an earlier run")
    (tmp_path / "notes.txt").write_text("precious")
    assert main(["demo", "--out", str(tmp_path), "--replace"]) == 0
    out = capsys.readouterr().out
    for words in ("uniform mixture", "optimal, exact", "Randomising buys", "How sure", "fresh PGD"):
        assert words in out
    assert (tmp_path / "risk.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "notes.txt").read_text() == "precious"
