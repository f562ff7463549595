"""The double oracle where the attacker also chooses the group: a game by hand, and its effort."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import Attack, Mixture, solve_game
from mixsolve_torch.candidates.build import CandidateLosses
from mixsolve_torch.core.groups import read_groups
from mixsolve_torch.game.fitting import FITS, fit_weights
from mixsolve_torch.game.restricted import RestrictedGame


class Watch(torch.nn.Module):
    """Classifier k errs on an image of label 0 where pixel k is above one half."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        pixel = x.flatten(1)[:, self.k]
        return torch.stack([0.5 - pixel, pixel - 0.5], dim=1)


@dataclass(frozen=True)
class Lit(Attack):
    """Lights up pixel k of images that have pixel 3 + k lit."""

    calls: ClassVar[list] = []

    def names(self, classifiers):
        return ["lit"]

    def generate(self, mixture, x, y, generator):
        self.calls.append(len(x))
        point = x.clone()
        flat = point.flatten(1)
        flat[:, :3] = torch.maximum(flat[:, :3], flat[:, 3:6])
        yield point


def marked(*counts):
    """Images of groups 0, 1, 2: those of group k can be attacked for classifier k alone."""
    groups = np.repeat(np.arange(len(counts)), counts)
    x = torch.zeros(len(groups), 1, 2, 3)
    x.flatten(1)[np.arange(len(groups)), 3 + groups] = 1.0
    return (x, torch.zeros(len(groups), dtype=torch.int64)), groups


MODELS = [Watch(0), Watch(1), Watch(2)]


def test_the_worst_group_of_three_loses_a_third():
    data, groups = marked(2, 5, 20)
    game = solve_game(Mixture(MODELS), data, Lit("Linf", 1.0), groups=groups)
    assert game.converged
    np.testing.assert_allclose(game.weights, [1 / 3] * 3, atol=1e-6)
    assert game.value == pytest.approx(1 / 3, abs=1e-6)
    assert game.risk == pytest.approx(1 / 3, abs=1e-6)
    # The mean goes to the classifier that errs on the smallest group.
    mean = solve_game(Mixture(MODELS), data, Lit("Linf", 1.0))
    np.testing.assert_allclose(mean.weights, [1, 0, 0], atol=1e-6)


def test_groups_that_cannot_become_the_worst_are_not_attacked():
    # Two groups are lost to one classifier each already; the third can lose 0.9 to the last one.
    groups = np.repeat(np.arange(3), 4)
    values = torch.zeros(12, 1, 3, dtype=torch.uint8)
    values[:4, 0, 0] = values[4:8, 0, 1] = 1
    ceiling = torch.zeros(12, 3, dtype=torch.float64)
    ceiling[np.arange(12), groups] = torch.tensor([1.0, 1.0, 0.9]).double()[groups]
    losses = CandidateLosses(values, torch.zeros(12, dtype=torch.int64), ("clean",), "zero-one")
    grouped = RestrictedGame(losses, ceiling, read_groups(groups, losses.labels))
    plain = RestrictedGame(losses, ceiling)
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    last = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert plain.vulnerable(uniform).tolist() == [8, 9, 10, 11]
    assert grouped.vulnerable(uniform).tolist() == []  # at most 0.3, where others are at 1/3
    assert grouped.vulnerable(last).tolist() == [8, 9, 10, 11]
    assert grouped.risk(uniform) == pytest.approx(1 / 3)
    assert plain.risk(uniform) == pytest.approx(2 / 9)


def test_a_game_in_a_folder_resumes_with_its_groups(tmp_path):
    data, groups = marked(2, 5, 20)
    first = solve_game(Mixture(MODELS), data, Lit("Linf", 1.0), groups=groups, out=tmp_path / "g")
    attack = Lit("Linf", 1.0)
    Lit.calls.clear()
    again = solve_game(Mixture(MODELS), data, attack, groups=groups, out=tmp_path / "g")
    assert not Lit.calls
    np.testing.assert_array_equal(again.weights, first.weights)
    with pytest.raises(MixsolveError, match="groups"):
        solve_game(Mixture(MODELS), data, attack, groups=groups // 2, out=tmp_path / "g")
    begun = solve_game(Mixture(MODELS), data, attack, groups=groups, start=tmp_path / "g")
    assert begun.losses.values.shape[1] >= first.losses.values.shape[1]
    np.testing.assert_allclose(begun.weights, first.weights, atol=1e-6)


def noisy(images, classifiers, seed):
    """Classifiers equally good on two groups: whatever a fit finds is luck."""
    draws = np.random.default_rng(seed)
    losses = (draws.random((2 * images, 1, classifiers)) < 0.4).astype(np.uint8)
    groups = read_groups(np.repeat([0, 1], images), torch.zeros(2 * images, dtype=torch.int64))
    return losses, groups


def test_a_fit_tells_how_much_too_good_it_looks():
    optimism = []
    for seed in range(4):
        losses, groups = noisy(20, 8, seed)
        fit = fit_weights(losses, groups, seed=seed)
        assert fit.name in FITS
        assert fit.weights.sum() == pytest.approx(1)
        assert (fit.bounds >= 0.4).all()
        optimism.append(fit.optimism)
    assert np.mean(optimism) > 0.02
    # With many images of classifiers that differ, nothing is left to luck.
    losses = np.zeros((400, 1, 2), np.uint8)
    losses[:200, 0, 0] = losses[200:, 0, 1] = 1
    groups = read_groups(np.repeat([0, 1], 200), torch.zeros(400, dtype=torch.int64))
    fit = fit_weights(losses, groups)
    np.testing.assert_allclose(fit.weights, [0.5, 0.5], atol=1e-6)
    assert fit.optimism == pytest.approx(0, abs=1e-6)


def test_groups_too_small_for_halves_are_fitted_exactly():
    losses = np.ones((4, 1, 2), np.uint8)
    losses[:, 0, 0] = 0
    groups = read_groups([0, 0, 1, 1], torch.zeros(4, dtype=torch.int64))
    fit = fit_weights(losses, groups)
    assert fit.name == "exact"
    np.testing.assert_allclose(fit.weights, [1, 0], atol=1e-6)
