"""The figure of the worst class: its numbers from losses, and a page that says what is missing."""

import numpy as np
import pytest
import torch

from benchmarks.worst_class.compare import figures, row
from benchmarks.worst_class.report import page
from benchmarks.worst_class.runs import SIZES, Tested, attacked
from benchmarks.worst_class.settings import configuration, small_cnn


def cell(seed, images=200):
    """Two snapshots that give up one class each, and one that is half right on both."""
    draws = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    losses = np.zeros((images, 2, 3), np.uint8)
    losses[:, 1, 0], losses[:, 1, 1] = labels == 0, labels == 1
    losses[:, 0, 2] = draws.random(images) < 0.7
    return Tested(
        losses=losses,
        labels=labels,
        rates=np.array([0.1, 0.1, 0.2]),
        epochs=np.array([3, 4, 5]),
        weights=np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]),
        singles=np.array([2, 2]),
        promised=np.array([0.6, 0.4]),
        held_out=np.array([0.5, 0.3]),
    )


def test_a_row_has_the_lowest_accuracies_of_both():
    own = cell(0)
    found = row(7, own, 0)
    assert (found.seed, found.images, found.members) == (7, SIZES[0], 2)
    assert found.mixture == pytest.approx(50)
    right = 1 - own.losses[..., 2].max(axis=1)
    lowest = 100 * min(right[own.labels == g].mean() for g in (0, 1))
    assert found.single == pytest.approx(lowest)
    assert found.gain == pytest.approx(50 - lowest)
    assert found.recommended == "mixture"
    same = row(7, own, 1)
    assert (same.gain, same.error, same.recommended) == (0, 0, "single")


def test_totals_are_means_and_errors_over_seeds():
    cells = {seed: cell(seed) for seed in range(3)}
    found = figures(cells)["totals"][0]
    gains = [row(seed, own, 0).gain for seed, own in cells.items()]
    assert found["gain"] == pytest.approx(np.mean(gains))
    assert found["error"] == pytest.approx(np.std(gains, ddof=1) / 3**0.5)
    assert found["mixture_spread"] == pytest.approx(0, abs=1e-9)
    assert found["single_spread"] > 0


def test_the_page_says_what_is_not_measured():
    some = "\n".join(page(figures({0: cell(0)}), [0, 1]))
    assert "| 1 | not measured |" in some
    assert "not measured on all seeds" in some
    whole = "\n".join(page(figures({seed: cell(seed) for seed in range(2)}), [0, 1]))
    assert "not measured" not in whole
    assert whole.count(": met") >= 3
    nothing = "\n".join(page(figures({}), [0, 1]))
    assert nothing.count("Not measured yet.") == 2


def test_each_snapshot_and_each_mixture_is_attacked(monkeypatch):
    draws = torch.Generator().manual_seed(0)
    test = torch.rand(6, 1, 14, 14, generator=draws), torch.arange(6) % 10
    monkeypatch.setattr("benchmarks.worst_class.runs.images", lambda split: test)
    models = [small_cnn(seed=k).eval() for k in range(2)]
    losses, labels = attacked(models, np.array([[0.5, 0.5], [1.0, 0.0]]), 0)
    assert losses.shape == (6, 1 + 2 * 3, 2)  # PGD and APGD on two networks and on one mixture
    assert labels.tolist() == test[1].tolist()
    assert not torch.equal(models[0][0].weight, models[1][0].weight)


def test_the_configuration_is_for_the_worst_class(tmp_path):
    config = configuration(0.02, 3, tmp_path)
    assert (config.objective, config.worst_group.rate, config.run.seed) == ("worst-group", 0.02, 3)
