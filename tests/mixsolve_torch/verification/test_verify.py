"""Sets of classifiers that may err together: against exact games, linear programs and grids."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import mixsolve
import mixsolve_torch as mt
from mixsolve import MixsolveError
from mixsolve.games.linear_game import paper2d_exact
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.data.linear_images import linear_images
from mixsolve_torch.verification import batch
from mixsolve_torch.verification.region import Region
from mixsolve_torch.verification.sets import joint_minima


@pytest.fixture(autouse=True)
def draws():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return nn.Sequential(nn.Flatten(), layer)


def random_linear(count, classes=3, entries=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = {"generator": generator, "dtype": torch.float64}
    models = [
        linear(torch.randn(classes, entries, **drawn), torch.randn(classes, **drawn) / 4)
        for _ in range(count)
    ]
    x = torch.rand(12, 1, 2, 3, **drawn)
    y = models[0](x).argmax(dim=1)
    return mt.Mixture(models), x, y


def small_relu(seed):
    """One network of two inputs, disturbed by draws of a seed."""
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    layers = [nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)]
    for layer in layers[::2]:
        with torch.no_grad():
            for part in (layer.weight, layer.bias):
                part.normal_(0, 0.7, generator=base)
                part.add_(torch.randn(part.shape, generator=own), alpha=0.15)
    model = nn.Sequential(nn.Flatten(), *layers)
    line = torch.linspace(0, 1, 11)
    with torch.no_grad():  # so that each class is found somewhere
        layers[-1].bias -= model(torch.cartesian_prod(line, line)).mean(dim=0)
    return model


def subsets(row_sets):
    """All sets below the maximal ones, as frozensets."""
    members = [frozenset(np.flatnonzero(row).tolist()) for row in row_sets]
    sizes = [(own, r) for own in members for r in range(len(own) + 1)]
    return {frozenset(s) for own, r in sizes for s in itertools.combinations(own, r)}


@pytest.mark.parametrize("eps", [1.0, 3.0])
def test_linear_games_are_solved_exactly(eps):
    game = paper2d_exact(40, 5, eps, seed=2)
    models, x, y, radius = linear_images(game, eps)
    found = mt.verify(mt.Mixture(models), (x, y), "L2", radius)
    exact = mixsolve.solve(game.losses)
    solution = mixsolve.solve(found.sets)
    assert solution.value == pytest.approx(exact.value, abs=1e-6)
    for rows, losses in zip(found.sets, game.losses, strict=True):
        assert subsets(rows) == subsets(losses)


@pytest.mark.parametrize("seed", range(2))
def test_sets_are_those_of_linear_programs(seed):
    mixture, x, y = random_linear(3, seed=seed)
    eps = 0.12
    found = mt.verify(mixture, (x, y), "Linf", eps)
    sizes = set()
    for i, rows in enumerate(found.sets):
        center = x[i].flatten().numpy()
        box = list(zip(np.maximum(center - eps, 0), np.minimum(center + eps, 1), strict=True))
        possible = {frozenset()}
        for size in (1, 2, 3):
            for members in itertools.combinations(range(3), size):
                for rivals in itertools.product({0, 1, 2} - {int(y[i])}, repeat=size):
                    layers = [mixture.models[k][1] for k in members]
                    pairs = list(zip(layers, rivals, strict=True))
                    a = [(m.weight[y[i]] - m.weight[c]).tolist() for m, c in pairs]
                    b = [(m.bias[c] - m.bias[y[i]]).item() for m, c in pairs]
                    if linprog(np.zeros(6), a, b, bounds=box).status == 0:
                        possible.add(frozenset(members))
        assert subsets(rows) == possible
        sizes |= {len(own) for own in possible}
    assert sizes == {0, 1, 2, 3}


def test_classifiers_that_err_apart_are_a_mixture():
    """Each errs on one side of the image: alone a half is not proven, together they are."""
    sides = []
    for s in (1.0, -1.0):
        weight = torch.tensor([[0.0, 0.0], [s, 0.0]], dtype=torch.float64)
        sides.append(linear(weight, torch.tensor([0.0, -0.1 - 0.5 * s], dtype=torch.float64)))
    x, y = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    found = mt.verify(mt.Mixture(sides), (x, y), "Linf", 0.2)
    assert found.sets[0].tolist() == [[1, 0], [0, 1]]
    assert found.alone.tolist() == [[1, 1]]
    assert found.risk([0.5, 0.5]) == 0.5
    assert found.risk([0.8, 0.2]) == pytest.approx(0.8)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.12), ("L2", 0.2)])
def test_branching_decides_small_networks(norm, eps):
    mixture = mt.Mixture([small_relu(k) for k in range(3)])
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(10, 1, 1, 2, generator=generator) * 0.8 + 0.1
    y = mixture.models[0](x).argmax(dim=1)
    loose = mt.verify(mixture, (x, y), norm, eps)
    found = mt.verify(mixture, (x, y), norm, eps, exact_seconds=20)
    offsets = torch.linspace(-eps, eps, 61)
    grid = torch.cartesian_prod(offsets, offsets)
    grid = grid[grid.norm(dim=1) <= eps] if norm == "L2" else grid
    decided = 0
    for i, (rows, fooled) in enumerate(zip(found.sets, found.fooled, strict=True)):
        points = (x[i].flatten() + grid).clamp(0, 1).view(-1, 1, 1, 2)
        labels = y[i].repeat(len(points))
        wrong = mt.zero_one(mixture.member_logits(points), labels).T.int().tolist()
        assert subsets(wrong) <= subsets(rows) <= subsets(loose.sets[i])
        assert subsets(fooled) <= subsets(rows)
        decided += subsets(rows) == subsets(fooled)
    assert decided == 10
    assert sum(map(len, map(subsets, found.sets))) < sum(map(len, map(subsets, loose.sets)))


def test_the_bound_of_a_group_is_that_of_the_linear_program():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(8, 1, 1, 5, dtype=torch.float64, generator=generator)
    slopes = torch.randn(8, 3, 5, dtype=torch.float64, generator=generator)
    offsets = torch.rand(8, 3, dtype=torch.float64, generator=generator) - 0.3
    region = Region.around(x, make_ball("Linf", 0.3))
    bounds, mu, points = joint_minima(region, slopes, offsets, torch.arange(8))
    signs = set()
    for i in range(8):
        # min t  s.t.  a_k x + b_k <= t
        a = np.hstack([slopes[i].numpy(), -np.ones((3, 1))])
        box = [*zip(region.low[i].tolist(), region.high[i].tolist(), strict=True), (None, None)]
        best = linprog([0] * 5 + [1], a, -offsets[i].numpy(), bounds=box).fun
        signs.add(best > 0)
        assert (float(bounds[i]) > 0) == (best > 0)
        assert float(bounds[i]) <= best + 1e-9
        value = region.minimum((mu[i] @ slopes[i])[None], torch.tensor([i]))[0] + mu[i] @ offsets[i]
        assert float(value) == pytest.approx(float(bounds[i]))
        assert float((slopes[i] @ points[i] + offsets[i]).max()) >= best - 1e-9
    assert signs == {True, False}


def test_no_attack_fools_what_is_certified():
    data = mt.digits()
    models = [mt.digits_cnn(width=4, seed=k) for k in range(2)]
    for k, model in enumerate(models):
        train = data.train.images[:600], data.train.labels[:600]
        mt.fit(model, train, epochs=2, attack=mt.PGD("Linf", 0.05, steps=2), seed=k)
    images, labels = data.test.images[:16], data.test.labels[:16]
    mixture = mt.Mixture(models)
    for norm, eps in (("Linf", 0.02), ("L2", 0.15)):
        found = mt.verify(mixture, (images, labels), norm, eps)
        attack = mt.APGD(norm, eps, steps=10)
        losses = mt.build_losses(mixture, (images, labels), [attack, mt.TransferPGD(norm, eps)])
        assert (losses.worst(mixture.weights).numpy() <= found.worst(mixture.weights) + 1e-9).all()
        assert 0 < found.alone.mean() < 1


def test_an_interrupted_call_resumes(tmp_path, monkeypatch):
    mixture, x, y = random_linear(2)
    whole = mt.verify(mixture, (x, y), "Linf", 0.1, batch_size=5)
    run, calls = batch.BatchVerifier.__call__, []

    def stopping(self, *given):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return run(self, *given)

    monkeypatch.setattr(batch.BatchVerifier, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        mt.verify(mixture, (x, y), "Linf", 0.1, batch_size=5, out=tmp_path)
    monkeypatch.setattr(batch.BatchVerifier, "__call__", run)
    kept = sorted(path.name for path in tmp_path.glob("*/batch-*"))
    assert kept == ["batch-0.npz", "batch-1.npz"]
    monkeypatch.setattr(batch, "bounds_over", _counted := Counted(batch.bounds_over))
    resumed = mt.verify(mixture, (x, y), "Linf", 0.1, batch_size=5, out=tmp_path)
    assert _counted.calls == 2  # one batch of two classifiers
    for own, other in zip(whole.sets + whole.fooled, resumed.sets + resumed.fooled, strict=True):
        np.testing.assert_array_equal(own, other)
    np.testing.assert_array_equal(whole.alone, resumed.alone)


class Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *given):
        self.calls += 1
        return self.function(*given)


def test_wrong_arguments_are_named():
    mixture, x, y = random_linear(2)
    with pytest.raises(MixsolveError, match="norm must be 'Linf' or 'L2'"):
        mt.verify(mixture, (x, y), "L1", 1.0)
    with pytest.raises(MixsolveError, match="exact_seconds"):
        mt.verify(mixture, (x, y), "Linf", 0.1, exact_seconds=-1)
    pooled = nn.Sequential(nn.MaxPool2d(1), nn.Flatten(), nn.Linear(6, 3).double())
    with pytest.raises(MixsolveError, match=r"models\[1\].*MaxPool2d"):
        mt.verify(mt.Mixture([mixture.models[0], pooled]), (x, y), "Linf", 0.1)


def test_modes_and_labels_are_left_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.Dropout(0.5)).train()
    x, y = torch.rand(3, 1, 2, 3), torch.tensor([0, 1, 2])
    mt.verify(mt.Mixture([model]), (x, y), "Linf", 0.1)
    assert model.training
    assert model[1].weight.requires_grad
