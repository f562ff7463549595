"""Patches lie where they belong, and no search over them breaks what is certified."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import mixsolve_torch as mt
from mixsolve_torch.reach.patch_attack import strongest_patches, with_patch
from mixsolve_torch.training.patches import _filled, fit_on_patches


def test_patches_lie_where_they_are_told_to():
    x = torch.zeros(2, 1, 5, 6)
    values = torch.arange(8.0).reshape(2, 1, 2, 2) + 1
    found = with_patch(x, torch.tensor([0, 3]), torch.tensor([4, 1]), values)
    assert torch.equal(found[0, :, 0:2, 4:6], values[0])
    assert torch.equal(found[1, :, 3:5, 1:3], values[1])
    assert (found != 0).sum() == 8


def test_attacks_on_views_end_above_what_is_certified(linear):
    masks = mt.views.bands((1, 8, 8), 2, gap=2)
    views = [mt.Masked(linear(k, shape=(1, 8, 8)), own) for k, own in enumerate(masks)]
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    mixture = mt.Mixture(views, [0.3, 0.7])
    with torch.no_grad():
        y = mixture.member_logits(x)[0].argmax(dim=1)
    losses = mt.reach_losses(mixture, (x, y), mt.Patch(3))
    allowed = torch.from_numpy((losses.values @ mixture.weights.numpy()).max(axis=1))
    near = strongest_patches(mixture, x, y, 3, steps=3)
    far = strongest_patches(mixture, x, y, 3, low=-1e3, high=1e3, stride=1, steps=3)
    assert (near <= allowed + 1e-12).all()
    assert torch.allclose(far, allowed)  # of linear views a large value decides


@pytest.fixture
def linear():
    def make(seed, shape):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            pixels = shape[0] * shape[1] * shape[2]
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pixels, 4))

    return make


def test_training_patches_are_one_window_and_ascend_the_loss(linear):
    draws = torch.Generator().manual_seed(2)
    x = torch.rand(30, 1, 6, 9, generator=draws)
    y = torch.randint(0, 4, (30,), generator=draws)
    model = linear(0, shape=(1, 6, 9))
    attacked = _filled(model, x, y, 3, draws)
    changed = (attacked != x)[:, 0]
    for rows, columns in ((image.nonzero()[:, 0], image.nonzero()[:, 1]) for image in changed):
        assert rows.max() - rows.min() < 3
        assert columns.max() - columns.min() < 3
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    with torch.no_grad():
        clean, worse = (cross_entropy(model(own), y, reduction="none") for own in (x, attacked))
    assert (worse > clean).float().mean() > 0.9


def test_training_on_patches_is_the_same_again(linear):
    draws = torch.Generator().manual_seed(3)
    x = torch.rand(40, 1, 6, 9, generator=draws)
    y = torch.randint(0, 4, (40,), generator=draws)
    state = torch.random.get_rng_state()
    models = [linear(0, shape=(1, 6, 9)) for _ in range(2)]
    first, second = (fit_on_patches(own, (x, y), 3, epochs=3, batch_size=16) for own in models)
    assert first == second
    assert first[-1] < first[0]
    assert torch.equal(torch.random.get_rng_state(), state)
