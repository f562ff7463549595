"""The table on patches: votes that a patch cannot turn, passes counted, kept cells."""

import itertools

import torch

from benchmarks.cells import keep
from benchmarks.patch import methods, report
from benchmarks.patch.measure import Adversarial, Settings, Views, adversarial_path, views_path


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
