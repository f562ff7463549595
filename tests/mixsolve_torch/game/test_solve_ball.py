"""The game over the whole ball from both sides."""

import numpy as np
import pytest
import torch

import mixsolve
import mixsolve_torch as mt
from benchmarks.exact_linear import exact_risk, radius_of, random_mixture
from mixsolve.games.linear_game import paper2d_exact
from mixsolve_torch.data.linear_images import linear_images


def test_both_ends_meet_on_linear_games_of_the_plane():
    game = paper2d_exact(8, 3, 2.0, seed=3)
    models, x, y, radius = linear_images(game, 2.0)
    bounds = mt.solve_ball(mt.Mixture(models), (x, y), "L2", eps=radius, steps=10)
    exact = mixsolve.solve(game.losses).value
    assert exact < game.losses.max(axis=1).mean(axis=0).min()  # a mixture, not one classifier
    assert bounds.attacked == pytest.approx(exact, abs=1e-6)
    assert bounds.verified == pytest.approx(exact, abs=1e-6)
    assert bounds.unknown == pytest.approx(0, abs=1e-6)
    assert bounds.verification.risk(bounds.weights) == pytest.approx(exact, abs=1e-6)
    assert bounds.attacked_risk(bounds.attacked_weights) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_verified_risk_is_the_exact_one_in_the_box(norm):
    mixture, x, y = random_mixture(1, 8)
    eps = radius_of(mixture, norm, x, y, 0.6)
    found = mt.verify(mixture, (x, y), norm, eps).worst(mixture.weights)
    pairs = zip(x.flatten(1).numpy(), y.tolist(), strict=True)
    exact = [exact_risk(mixture, norm, eps, *pair) for pair in pairs]
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_the_value_lies_between_the_ends_and_a_repeated_call_resumes(tmp_path):
    data = mt.digits()
    train = data.train.images[:500], data.train.labels[:500]
    models = [mt.digits_cnn(width=2, seed=k) for k in range(2)]
    for k, model in enumerate(models):
        mt.fit(model, train, epochs=8, learning_rate=1e-2, seed=k)
    images, labels = data.test.images[:10], data.test.labels[:10]
    mixture = mt.Mixture(models)
    options = {"eps": 0.03, "attacks": "apgd-ce", "steps": 5, "out": tmp_path}
    bounds = mt.solve_ball(mixture, (images, labels), **options)
    assert bounds.attacked <= bounds.verified
    assert bounds.verification.risk(bounds.weights) == pytest.approx(bounds.verified)
    assert bounds.attacked_risk(bounds.weights) <= bounds.verified + 1e-9
    clean = mt.build_losses(mixture, (images, labels), []).standard_risk([0.5, 0.5])
    assert bounds.attacked_risk(torch.tensor([0.5, 0.5], dtype=torch.float64)) >= clean
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.np*"))
    again = mt.solve_ball(mixture, (images, labels), **options)
    assert (again.attacked, again.verified) == (bounds.attacked, bounds.verified)
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.np*"))
