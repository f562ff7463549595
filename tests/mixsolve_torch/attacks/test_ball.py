"""The ball and the box: projections, random starts, steepest directions."""

import math

import pytest
import torch
from attack_cases import NORMS, assert_inside, balls, two_class
from hypothesis import given

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import PGD, Mixture
from mixsolve_torch.attacks.ball import BALLS, make_ball


@given(balls())
def test_projection_lands_in_ball_and_box(ball):
    center, norm, eps, seed = ball
    noise = torch.randn(center.shape, generator=torch.Generator().manual_seed(seed + 1))
    for size in (0.0, eps, 10.0, 1e30):
        assert_inside(BALLS[norm](eps).project(center + size * noise, center), center, norm, eps)


@given(balls())
def test_projection_leaves_what_is_inside(ball):
    center, norm, eps, seed = ball
    inside = BALLS[norm](0.9 * eps).random_start(center, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(BALLS[norm](eps).project(inside, center), inside, rtol=0, atol=2e-7)


def test_linf_projection_is_the_nearest_point():
    center = torch.tensor([0.05, 0.5, 0.95]).reshape(1, 1, 1, 3)
    point = torch.tensor([-0.5, 0.55, 2.0]).reshape(1, 1, 1, 3)
    answer = make_ball("Linf", 0.1).project(point, center).flatten()
    torch.testing.assert_close(answer, torch.tensor([0.0, 0.55, 1.0]))


def test_l2_projection_keeps_the_direction():
    center = torch.full((1, 1, 1, 2), 0.5)
    point = center + torch.tensor([3.0, 4.0])
    answer = make_ball("L2", 0.1).project(point, center).flatten()
    torch.testing.assert_close(answer, torch.tensor([0.56, 0.58]))


@given(balls())
def test_random_starts_are_inside_and_from_the_generator(ball):
    center, norm, eps, seed = ball
    start = BALLS[norm](eps).random_start(center, torch.Generator().manual_seed(seed))
    assert_inside(start, center, norm, eps)
    again = BALLS[norm](eps).random_start(center, torch.Generator().manual_seed(seed))
    assert torch.equal(start, again)


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball_uniformly(norm, generator):
    count, d, eps = 4000, 4, 0.25
    center = torch.full((count, 1, 2, 2), 0.5)
    shift = BALLS[norm](eps).random_start(center, generator) - center
    radius = BALLS[norm](1).lengths(shift) / eps
    # (|shift| / eps)^d is uniform in [0, 1]: mean 1/2, five standard deviations 0.023.
    assert abs(float((radius**d).mean()) - 0.5) < 0.023
    assert shift.mean(dim=0).abs().max() < 5 * eps / math.sqrt(3 * count)


@given(balls())
def test_steepest_has_unit_length_and_ascends(ball):
    center, norm, _, seed = ball
    gradient = torch.randn(center.shape, generator=torch.Generator().manual_seed(seed))
    for scale in (1.0, 1e-30):
        direction = BALLS[norm](1).steepest(scale * gradient)
        torch.testing.assert_close(BALLS[norm](1).lengths(direction), torch.ones(len(center)))
        dual = (gradient * direction).flatten(1).sum(dim=1)
        best = gradient.flatten(1).norm(p={"Linf": 1, "L2": 2, "L1": math.inf}[norm], dim=1)
        torch.testing.assert_close(dual, best)
    assert torch.equal(BALLS[norm](1).steepest(torch.zeros_like(center)), torch.zeros_like(center))


@pytest.mark.parametrize(
    ("text", "norm", "expected"),
    [("8/255", "Linf", 8 / 255), ("0.5", "L2", 0.5), ("1e-2", "Linf", 0.01), ("3", "L2", 3.0)],
)
def test_radii_may_be_fractions(text, norm, expected):
    assert make_ball(norm, text, prefix="--").eps == expected


@pytest.mark.parametrize("text", ["8", "8/0", "a", "1/2/3", "-1", "nan", "inf", "", "8/"])
def test_wrong_radii_are_refused(text):
    with pytest.raises(MixsolveError, match="--eps"):
        make_ball("Linf", text, prefix="--")


def test_an_l1_radius_counts_the_entries_of_an_image():
    x, y = torch.full((2, 1, 2, 3), 0.5), torch.tensor([0, 1])
    mixture = Mixture([two_class(torch.ones(6))])
    assert PGD("l1", 6, steps=2)(mixture, x, y).shape == (1, 2, 1, 2, 3)
    with pytest.raises(MixsolveError, match=r"here 6; got 12; divide bytes by 255"):
        PGD("l1", 12, steps=2)(mixture, x, y)
