"""The table on patches: votes that a patch cannot turn, patches where they belong, kept cells."""

import itertools

import pytest
import torch

import mixsolve_torch as mt
from benchmarks.cells import keep
from benchmarks.patch import methods, report
from benchmarks.patch.attack import strongest_patches, with_patch
from benchmarks.patch.measure import Adversarial, Settings, Views, adversarial_path, views_path


def test_patches_lie_where_they_are_told_to():
    x = torch.zeros(2, 1, 5, 6)
    values = torch.arange(8.0).reshape(2, 1, 2, 2) + 1
    found = with_patch(x, torch.tensor([0, 3]), torch.tensor([4, 1]), values)
    assert torch.equal(found[0, :, 0:2, 4:6], values[0])
    assert torch.equal(found[1, :, 3:5, 1:3], values[1])
    assert (found != 0).sum() == 8


def test_no_patch_turns_a_vote_that_is_certified():
    """Small counts, all ways in which `met` bands can vote."""
    size, width = 1, 2
    met = size + width - 1
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 9, (60, 3), generator=generator)
    y = torch.randint(0, 3, (60,), generator=generator)
    certified = methods.certified_votes(counts, y, width, size)
    for own, label, sure in zip(counts.tolist(), y.tolist(), certified.tolist(), strict=True):
        turned = False
        for taken, given in itertools.product(range(met + 1), repeat=2):
            for other in {0, 1, 2} - {label}:
                after = list(own)
                after[label] -= min(taken, own[label])
                after[other] += given
                turned |= after.index(max(after)) != label  # ties go to the smaller number
        # With fewer votes than the patch could take, the certificate stays on the safe side.
        assert not (sure and turned)
        if own[label] >= met:
            assert sure != turned
    assert certified.any()


def test_bands_go_around_the_border_and_hide_the_rest():
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = methods.banded(x, torch.tensor([3, 26]), 4)
    for image, columns in enumerate(([3, 4, 5, 6], [26, 27, 0, 1])):
        rest = [c for c in range(28) if c not in columns]
        assert torch.equal(found[image, 0][:, columns], x[image, 0][:, columns])
        assert torch.equal(found[image, 1][:, columns], 1 - x[image, 0][:, columns])
        assert (found[image][:, :, rest] == 0).all()


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


def test_adversarial_training_takes_the_passes_it_says():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 1, 28, 28, generator=generator)
    y = torch.randint(0, 10, (16,), generator=generator)
    model, passes = methods.patch_adversarial(4, (x, y), 15, seed=0)
    assert passes == 14  # two epochs of five steps, a gradient for the place and one to learn
    assert not model.training


def test_the_page_says_what_was_not_measured(tmp_path):
    settings = Settings(100, 1, 4)
    ones = torch.ones(4).numpy()
    cell = Views(0.5, 0.8, ones[:2] / 2, ones[:2].astype(str), 2, 9, ones, ones, ones, 1.0)
    keep(views_path(tmp_path, 4, 0), cell)
    keep(adversarial_path(tmp_path, 4, 5, 0), Adversarial(ones / 2, 0.7, 10, 1.0))
    report.write(tmp_path, tmp_path, settings)
    (row,) = [
        line for line in (tmp_path / "patch.md").read_text().splitlines() if "| 4 x 4" in line
    ]
    assert "| 50.0 (1) | 100.0 (1) |" in row
    assert row.count("not measured") == 4
