"""Evaluations and games that are kept: files, equality, what print and notebooks show."""

import copy
import json

import pytest
import torch

import mixsolve
from mixsolve_torch import PGD, Mixture, evaluate, solve_game


@pytest.fixture(scope="module")
def mixture():
    torch.manual_seed(0)
    nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    return Mixture(nets)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(20, 1, 2, 2, generator=generator), torch.arange(20) % 3


@pytest.fixture(scope="module")
def report(mixture, images):
    return evaluate(mixture, images, PGD("Linf", 0.1, steps=3), resamples=50)


@pytest.fixture(scope="module")
def game(mixture, images):
    return solve_game(mixture, images, PGD("Linf", 0.1, steps=3), tol=0.05)


def test_an_evaluation_that_is_loaded_says_the_same(report, tmp_path):
    report.save(tmp_path / "report.npz")
    loaded = mixsolve.load(tmp_path / "report.npz")
    assert loaded == report
    assert hash(loaded) == hash(report)
    assert loaded.json == report.json
    assert loaded.best_single in loaded.players
    assert loaded.recommended is next(
        row for row in loaded.players if row.name == report.recommended.name
    )
    loaded.to_csv(tmp_path / "loaded.csv")
    report.to_csv(tmp_path / "report.csv")
    assert (tmp_path / "loaded.csv").read_bytes() == (tmp_path / "report.csv").read_bytes()


def test_an_evaluation_in_lines_and_in_a_notebook(report, monkeypatch):
    lines = repr(report).splitlines()
    assert len(lines) == 2 + len(report.ranking)
    assert [place.row.name in line for place, line in zip(report.ranking, lines[1:], strict=False)]
    page = report._repr_html_()
    assert "data:image/png" in page
    assert page.count("<tr") == 1 + len(report.players)

    def missing(*args):
        raise mixsolve.MissingDependencyError("no matplotlib")

    monkeypatch.setattr("mixsolve.plots.bars.new_figure", missing)
    assert "data:image/png" not in report._repr_html_()


def test_a_game_that_is_loaded_says_the_same(game, tmp_path):
    game.save(tmp_path / "game.npz")
    loaded = mixsolve.load(tmp_path / "game.npz")
    assert loaded == game
    assert hash(loaded) == hash(game)
    assert isinstance(loaded.weights, torch.Tensor)
    assert loaded.losses.adversarial_risk(loaded.weights) == pytest.approx(game.risk)
    assert loaded.losses.candidate_names == game.losses.candidate_names
    changed = copy.copy(game)
    object.__setattr__(changed, "weights", game.weights.flip(0) + 1)
    assert changed != game


def test_a_game_in_lines_json_and_a_notebook(game):
    assert len(repr(game).splitlines()) == 6
    assert game.message in repr(game)
    told = json.loads(game.to_json())
    assert told["risk"] == game.risk
    assert len(told["history"]) == len(game.history)
    assert game._repr_html_().count("<tr>") == 6
    assert [axes.get_title(loc="left") for axes in game.plot().axes] == [
        "Weights", "Rounds of the game"
    ]  # fmt: skip
