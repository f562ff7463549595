"""Mixtures of named classifiers: losses, games and evaluations take the names from them."""

import copy
import pickle

import pytest
import torch

import mixsolve
from mixsolve.base.errors import MixsolveError
from mixsolve_torch import PGD, Mixture, build_losses, evaluate, solve_game


def nets(count=2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Linear(4, 3) for _ in range(count)]
    return [torch.nn.Sequential(torch.nn.Flatten(), layer) for layer in layers]


@pytest.fixture(scope="module")
def mixture():
    return Mixture(dict(zip(("plain", "at"), nets(), strict=True)))


@pytest.fixture(scope="module")
def data():
    return torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3


def test_a_mapping_names_classifiers(mixture):
    assert mixture.names == ("plain", "at")
    assert mixture.named_weights == {"plain": 0.5, "at": 0.5}
    assert "plain: 0.5" in repr(mixture)
    assert Mixture(nets(), names=["a", "b"]).names == ("a", "b")
    assert Mixture(nets()).names is None
    assert Mixture(nets()).named_weights == {0: 0.5, 1: 0.5}


def test_weights_by_name():
    named = dict(zip("ab", nets(), strict=True))
    assert Mixture(named, {"b": 1.0}).weights.tolist() == [0.0, 1.0]
    mixture = Mixture(named)
    mixture.set_weights({"b": 0.25, "a": 0.75})
    assert mixture.weights.tolist() == [0.75, 0.25]
    with pytest.raises(MixsolveError, match="'c'"):
        mixture.set_weights({"c": 1.0})


def test_wrong_names():
    with pytest.raises(MixsolveError, match="2 different names"):
        Mixture(nets(), names=["a"])
    with pytest.raises(MixsolveError, match="must be left out"):
        Mixture({"a": nets(1)[0]}, names=["a"])


def test_copies_keep_them(mixture):
    for same in (copy.deepcopy(mixture), pickle.loads(pickle.dumps(mixture))):
        assert same.names == mixture.names


def test_losses_games_and_evaluations_take_them(mixture, data):
    attack = PGD("Linf", 0.1, steps=2)
    losses = build_losses(mixture, data, [attack])
    assert losses.names == ("plain", "at")
    assert list(mixsolve.solve(losses).named_weights) == ["plain", "at"]
    game = solve_game(mixture, data, attack, tol=0.5)
    assert game.names == ("plain", "at")
    assert list(game.named_weights) == ["plain", "at"]
    report = evaluate(mixture, data, attack, resamples=10)
    assert [row.name for row in report.players][:2] == ["plain", "at"]
    assert report.solution.names == ("plain", "at")
    told = evaluate(mixture, data, attack, resamples=10, names=["a", "b"])
    assert [row.name for row in told.players][:2] == ["a", "b"]
