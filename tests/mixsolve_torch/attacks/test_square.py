"""Square: no gradient is asked for, queries are counted, draws belong to the image."""

import math

import numpy as np
import pytest
import torch
from attack_cases import NORMS, assert_inside, curved, two_class
from corpus import seeds

from mixsolve.base.errors import MixsolveError
from mixsolve.games.linear_game import paper2d_exact
from mixsolve_torch import Mixture, Square, expected_loss
from mixsolve_torch.attacks.counter import Draws, seeds_of
from mixsolve_torch.data.linear_images import linear_images


class Counts(torch.nn.Module):
    """A linear classifier that counts the images it is run on and knows no gradient."""

    def __init__(self, weight, bias):
        super().__init__()
        self.inner, self.seen = two_class(weight, bias), []

    def forward(self, x):
        assert not x.requires_grad
        self.seen.append(len(x))
        return torch.from_numpy(self.inner(x).detach().numpy())


@pytest.mark.parametrize("norm", NORMS)
def test_queries_are_counted_and_end_where_nothing_is_right(norm):
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    far = Counts(torch.ones(16), -100.0)
    Square(norm, 0.1, steps=60)(Mixture([far]), x, y)
    assert far.seen == [3] * 61
    near = Counts(torch.ones(16), -8.0)
    attacked = Square(norm, 0.1, steps=60)(Mixture([near]), x, y)[0]
    assert (expected_loss(Mixture([near]), attacked, y) == 1).all()
    assert sum(near.seen[:-1]) <= 3 * 7  # dropped at the first of ten looks


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", seeds([[1, 8, 8], [2, 1, 5], [3, 6, 9]], quick=2))
def test_random_search_comes_close_to_the_worst_case_of_a_linear_classifier(norm, shape, generator):
    weight = torch.randn(math.prod(shape), generator=generator)
    x = 0.3 + 0.4 * torch.rand(4, *shape, generator=generator)
    y, eps = torch.zeros(4, dtype=torch.int64), 0.05
    clean = two_class(weight)(x)[:, 1]
    dual = weight.norm(p={"Linf": 1, "L2": 2, "L1": math.inf}[norm])
    model = two_class(weight, bias=-100.0)
    mixture = Mixture([model])
    attacked = Square(norm, eps, steps=600)(mixture, x, y, generator)[0]
    assert_inside(attacked, x, norm, eps)
    reached = (two_class(weight)(attacked)[:, 1] - clean) / (eps * dual)
    assert (reached > {"Linf": 0.9, "L2": 0.5, "L1": 0.3}[norm]).all()
    assert (reached <= 1 + 1e-5).all()


def test_the_risk_of_linear_games_is_never_exceeded_and_nearly_reached():
    game = paper2d_exact(200, 6, 2.0, seed=1)
    best = (game.losses @ np.full(6, 1 / 6)).max(axis=1)
    models, x, y, radius = linear_images(game, 2.0)
    mixture = Mixture(models)
    attacked = Square("L2", radius, steps=300)(mixture, x, y)[0]
    risk = expected_loss(mixture, attacked, y).numpy()
    clean = expected_loss(mixture, x, y).detach().numpy()
    assert (risk <= best + 1e-9).all()
    assert risk.mean() >= clean.mean() + 0.7 * (best.mean() - clean.mean())


def test_draws_belong_to_the_image(batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(0), curved(1)])
    attack = Square("L2", 0.05, steps=30, random_start=False)
    whole = attack(mixture, x, y)[0]
    for i in range(len(x)):
        assert torch.equal(attack(mixture, x[i : i + 1], y[i : i + 1])[0, 0], whole[i])


def test_the_counter_draws_uniform_independent_numbers():
    seeds = seeds_of(torch.rand(2000, 7, generator=torch.Generator().manual_seed(0)))
    assert len(seeds.unique()) == 2000
    draws = torch.cat([Draws(seeds, step).uniform(2) for step in range(4)], dim=1)
    assert draws.min() >= 0
    assert draws.max() < 1
    correlations = torch.corrcoef(draws.T) - torch.eye(8)
    # 1 / sqrt(2000) is 0.022; 4.5 of them are left to chance.
    assert correlations.abs().max() < 0.1
    quarters = torch.stack([(draws * 4).long() == q for q in range(4)]).double().mean(dim=1)
    assert (quarters - 0.25).abs().max() < 4.5 * math.sqrt(0.25 * 0.75 / 2000)
    # In one call or several, of few numbers or many.
    draw = Draws(seeds, 1)
    parts = torch.cat([draw.uniform(5), draw.uniform(7), draw.uniform(1)], dim=1)
    assert torch.equal(Draws(seeds, 1).uniform(13), parts)
    draw = Draws(seeds, 0)
    assert torch.equal(draw.uniform(3), torch.cat([draw_of(seeds, n) for n in range(3)], dim=1))
    # Of one step or several at once.
    several = Draws.of(seeds, range(3, 6))
    assert torch.equal(several[2].uniform(11), Draws(seeds, 5).uniform(11))
    assert set(Draws(seeds, 5).integers(3).tolist()) == {0, 1, 2}
    assert set(Draws(seeds, 5).signs(1).flatten().tolist()) == {-1.0, 1.0}


def draw_of(seeds, number):
    """Return draw `number` by Python's integers."""
    mask = 2**64 - 1
    column = []
    for seed in seeds.tolist():
        z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        column.append(((z ^ (z >> 31)) >> 11) * 2.0**-53)
    return torch.tensor(column, dtype=torch.float64)[:, None]


def test_wrong_options_are_named():
    with pytest.raises(MixsolveError, match="share must be"):
        Square("L2", 0.1, share=0.0)
