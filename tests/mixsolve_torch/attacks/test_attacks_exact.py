"""Attacks against the exact attack of linear classifiers in a ball of the plane."""

import numpy as np
import pytest
import torch
from corpus import seeds

import mixsolve
from mixsolve import MixsolveError
from mixsolve.games.linear_game import linear_game, paper2d_exact
from mixsolve_torch import PGD, Mixture, expected_loss
from mixsolve_torch.attacks import Standard
from mixsolve_torch.attacks.arc import ARC
from mixsolve_torch.attacks.subset import Subset
from mixsolve_torch.data.linear_images import linear_images


def weights_of(kind, losses):
    if kind == "uniform":
        return np.full(losses.shape[2], 1 / losses.shape[2])
    return np.asarray(mixsolve.solve(losses).weights)


@pytest.mark.parametrize("d", [2, 3])
def test_images_play_the_game_of_the_points(d):
    rng = np.random.default_rng(0)
    points, labels = 5 + rng.standard_normal((40, d)), rng.choice([-1, 1], 40)
    directions, intercepts = rng.standard_normal((4, d)), -5 * rng.standard_normal(4)
    game = linear_game(points, labels, directions, intercepts, 0.7)
    models, x, y, eps = linear_images(game, 0.7)
    assert x.min() - eps >= 0
    assert x.max() + eps <= 1
    clean = torch.stack([model(x)[:, 1] for model in models], dim=1)
    f = torch.as_tensor(points @ directions.T + intercepts)
    scale = eps / 0.7
    torch.testing.assert_close(clean, scale * f)
    assert y.tolist() == (labels > 0).tolist()
    with pytest.raises(MixsolveError, match="eps must be"):
        linear_images(game, -1.0)


@pytest.mark.parametrize("eps", [1.0, 3.0])
@pytest.mark.parametrize("kind", seeds(["optimal", "uniform"], quick=1))
def test_the_standard_attack_reaches_the_exact_risk(eps, kind, record_property):
    game = paper2d_exact(1000, 10, eps, seed=0)
    lam = weights_of(kind, game.losses)
    best = (game.losses @ lam).max(axis=1)
    models, x, y, radius = linear_images(game, eps)
    mixture = Mixture(models, weights=lam)
    shortfall = {}
    for attack in (Standard("L2", radius, steps=5), PGD("L2", radius, steps=20)):
        risk = expected_loss(mixture, attack(mixture, x, y)[0], y).numpy()
        assert (risk <= best + 1e-9).all()
        shortfall[attack.names(10)[0]] = best.mean() - risk.mean()
        record_property(f"shortfall of {attack.names(10)[0]}", best.mean() - risk.mean())
    standard, pgd = shortfall.values()
    assert standard <= 0.005
    if (lam > 0).sum() > 1:
        assert pgd > 0.02


@pytest.mark.parametrize("attack", ["arc", "subset"])
def test_arc_and_subset_alone_come_close_in_the_plane(attack):
    game = paper2d_exact(120, 10, 2.0, seed=1)
    lam = np.full(10, 0.1)
    best = (game.losses @ lam).max(axis=1)
    models, x, y, radius = linear_images(game, 2.0)
    mixture = Mixture(models, weights=lam)
    chosen = {
        "arc": ARC("L2", radius, steps=10, restarts=2),
        "subset": Subset("L2", radius, steps=4, arc_steps=0),
    }[attack]
    risk = expected_loss(mixture, chosen(mixture, x, y)[0], y).numpy()
    assert (risk <= best + 1e-9).all()
    assert best.mean() - risk.mean() <= {"arc": 0.01, "subset": 0.002}[attack]


def test_subset_is_exact_in_three_dimensions_and_for_unequal_weights():
    rng = np.random.default_rng(3)
    points, labels = rng.standard_normal((200, 3)), rng.choice([-1, 1], 200)
    game = linear_game(points, labels, rng.standard_normal((6, 3)), rng.standard_normal(6), 0.8)
    lam = rng.dirichlet(np.ones(6))
    best = (game.losses @ lam).max(axis=1)
    models, x, y, radius = linear_images(game, 0.8)
    mixture = Mixture(models, weights=lam)
    attacked = Subset("L2", radius, steps=4, arc_steps=0)(mixture, x, y)[0]
    risk = expected_loss(mixture, attacked, y).numpy()
    assert (risk <= best + 1e-9).all()
    assert best.mean() - risk.mean() <= 0.002
