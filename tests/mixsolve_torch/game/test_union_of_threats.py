"""The game of the union of several sets, held against the game of all points."""

import numpy as np
import pytest
import torch

import mixsolve
import mixsolve_torch as mt
from mixsolve.base.errors import MixsolveError


def down(images):
    yield (images - 0.2).clamp(0, 1)


def turned(images):
    yield images.flip(3)
    yield images.flip(2)
    yield images.rot90(2, (2, 3))


@pytest.fixture
def mixture(linear):
    return mt.Mixture([linear(seed) for seed in range(3)])


@pytest.fixture
def data(mixture, generator):
    x = torch.rand(30, 1, 3, 3, generator=generator)
    return x, mixture.models[0](x).argmax(dim=1)


def test_the_game_of_finite_sets_is_the_game_of_all_their_points(mixture, data):
    x, y = data
    points = [x, *down(x), *turned(x)]
    wrong = [
        torch.stack([model(point).argmax(dim=1) != y for model in mixture.models], dim=1)
        for point in points
    ]
    whole = mixsolve.solve(torch.stack(wrong, dim=1).numpy().astype(np.uint8))
    game = mt.solve_game(mixture, data, threats=[down, turned])
    assert game.converged
    assert game.value == pytest.approx(whole.value, abs=2e-3)
    assert game.risk == pytest.approx(whole.value, abs=2e-3)


def test_a_list_of_one_threat_is_the_plain_game(mixture, data):
    plain = mt.solve_game(mixture, data, "pgd", norm="L2", eps=0.3, steps=4)
    listed = mt.solve_game(mixture, data, "pgd", threats=["L2:0.3"], steps=4)
    assert torch.equal(plain.weights, listed.weights)
    assert torch.equal(plain.losses.values, listed.losses.values)


def test_the_union_is_worse_than_each_set(mixture, data):
    sets = [("Linf", 0.05), turned]
    alone = [mt.solve_game(mixture, data, "pgd", threats=[own], steps=5) for own in sets]
    both = mt.solve_game(mixture, data, "pgd", threats=sets, steps=5, keep_inputs=True)
    assert both.risk >= max(game.risk for game in alone) - 2e-3
    union = mt.Given(both.losses.inputs.transpose(0, 1), threats=sets).threat
    for j in range(both.losses.inputs.shape[1]):
        inside = union.contains(both.losses.inputs[:, j], data[0])
        assert (inside | ~both.found[:, j] | (j == 0)).all()


def test_a_game_resumes_only_under_the_same_threats(mixture, data, tmp_path):
    options = {"attacks": "pgd", "steps": 3, "out": tmp_path / "game"}
    first = mt.solve_game(mixture, data, threats=["Linf:0.05", turned], **options)
    again = mt.solve_game(mixture, data, threats=["Linf:0.05", turned], **options)
    assert torch.equal(first.losses.values, again.losses.values)
    with pytest.raises(MixsolveError, match="attacks"):
        mt.solve_game(mixture, data, threats=["Linf:0.05", down], **options)


def test_a_grown_classifier_is_trained_against_the_union(mixture, data):
    seen = []

    class Watched(mt.WorstOf):
        def generate(self, mixture, x, y, generator):
            for points in super().generate(mixture, x, y, generator):
                seen.append(self.threat.contains(points, x).all())
                yield points

    sets = [("Linf", 0.05), mt.Finite(turned)]
    options = {"steps": 2, "epochs": 1, "max_rounds": 2}
    growth = mt.grow(mixture, data, "pgd", threats=sets, **options)
    assert len(growth.history) == 1
    attack = Watched(mt.resolve_attacks("pgd", threats=sets, steps=5))
    same = mt.grow(mixture, data, "pgd", threats=sets, training_attack=attack, **options)
    assert seen
    assert all(seen)
    assert same.history[0].training_loss == growth.history[0].training_loss
    one = mt.grow(mixture, data, "pgd", threats=sets[:1], **options)
    plain = mt.grow(mixture, data, "pgd", norm="Linf", eps=0.05, **options)
    assert one.history[0].training_loss == plain.history[0].training_loss
    assert torch.equal(one.losses.values, plain.losses.values)
