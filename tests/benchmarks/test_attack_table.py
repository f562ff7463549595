"""The table of attacks: what it concludes from given cells, and the attack that it writes out."""

import numpy as np
import pytest
import torch

from benchmarks.attack_table import public, report
from benchmarks.attack_table.measure import Cell, measured
from benchmarks.cells import keep, kept
from mixsolve.feasible.simplex import project
from mixsolve_torch import PGD, Mixture, digits
from mixsolve_torch.attacks.ball import make_ball


def cell(attacked, passes=10.0):
    attacked = np.array(attacked, dtype=float)
    return Cell(np.ones(attacked.size), attacked, passes, 1.0)


def linear(seed, classes=3):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, classes))
    draws = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draws)
    return model


def test_images_that_others_fool_are_named():
    columns = {
        "standard": cell([0.5, 1.0, 0.0, 1.0]),
        "pgd": cell([0.5, 0.5, 0.5, 1.0]),
        public.AUTOATTACK: cell([0.5, 0.5, 0.0, 1.0], passes=40.0),
    }
    said = report.verdict({"plain + AT": columns})
    assert said.shortfalls == {"plain + AT": pytest.approx(12.5)}
    assert said.misses == {"plain + AT": {1: ["pgd", public.AUTOATTACK]}}
    assert said.passes == {"plain + AT": 0.25}
    assert not said.holds
    assert "12.50 points short" in said.sentences[0]


def test_where_gradients_hide_square_is_the_yardstick():
    ours = cell([1.0] * 99 + [0.0])
    for fooled, holds in ((1, True), (3, False)):
        square = cell([1.0] * (100 - fooled) + [0.0] * fooled)
        columns = {"standard": ours, public.SQUARE: square}
        assert report.verdict({"rounded": columns}).holds == holds


def test_passes_beyond_half_of_autoattack_do_not_hold():
    columns = {"standard": cell([0.0], 6.0), public.AUTOATTACK: cell([0.0], 10.0)}
    assert not report.verdict({"plain + AT": columns}).holds


def test_a_finished_cell_is_read_again(tmp_path):
    parts = digits().test
    data = type(parts)(parts.images[:5], parts.labels[:5])
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    found = measured(Mixture([model]), data, PGD("Linf", 0.1, steps=3), seed=0)
    path = tmp_path / "folder" / "cell.npz"
    assert kept(path, Cell) is None
    keep(path, found)
    again = kept(path, Cell)
    np.testing.assert_array_equal(again.attacked, found.attacked)
    assert again.passes == found.passes > 3
    assert (found.attacked <= found.clean).all()


def test_the_projection_of_rows_is_that_of_the_core():
    points = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = np.stack([project(row) for row in points.numpy()])
    np.testing.assert_allclose(public._onto_simplex(points).numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.3), ("L2", 0.5), ("L1", 0.9)])
def test_the_min_max_attack_raises_the_least_margin(norm, eps):
    mixture = Mixture([linear(0), linear(1)])
    x = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    y = mixture.models[0](x).argmax(dim=1)
    points = public.min_max(mixture, norm, eps)(x, y)
    assert make_ball(norm, eps).outside(points, x) is None

    def least(images):
        margins = [public._margin(f(images), y) for f in mixture.models]
        return torch.stack(margins).amin(dim=0)

    assert (least(points) >= least(x) - 1e-5).float().mean() > 0.9
    assert least(points).mean() > least(x).mean() + 0.1
