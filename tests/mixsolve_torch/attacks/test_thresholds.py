"""Closed forms in the box against bisection, linear programs and a quadratic program."""

import numpy as np
import pytest
import torch
from attack_cases import NORMS
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, linprog, minimize

from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.thresholds import fill, level, scale, shrink


@st.composite
def rows(draw):
    """Sizes and rooms of 3 rows, with ties, zeros and entries without room among them."""
    entries = draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sizes = torch.rand(3, entries, generator=generator, dtype=torch.float64)
    rooms = torch.rand(3, entries, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        sizes, rooms = (sizes * 3).round() / 3, (rooms * 2).round() / 2
    return sizes * draw(st.sampled_from([0.5, 1.0, 4.0])), rooms, draw(st.floats(0.0, 4.0))


def bisected(sizes, rooms, total):
    """The projection on a ball and a box, with the multiplier found by halving an interval."""
    low, high = 0.0, float(sizes.max())
    if np.minimum(sizes, rooms).sum() <= total:
        return np.minimum(sizes, rooms)
    for _ in range(200):
        mu = (low + high) / 2
        above = np.minimum(np.maximum(sizes - mu, 0), rooms).sum() > total
        low, high = (mu, high) if above else (low, mu)
    return np.minimum(np.maximum(sizes - high, 0), rooms)


@given(rows())
def test_the_projection_is_that_of_bisection(case):
    sizes, rooms, total = case
    got = shrink(sizes, rooms, total).numpy()
    for own, size, room in zip(got, sizes.numpy(), rooms.numpy(), strict=True):
        np.testing.assert_allclose(own, bisected(size, room, total), atol=1e-12)
        assert own.sum() <= total * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_projection_is_the_nearest_point_of_ball_and_box(seed):
    rng = np.random.default_rng(seed)
    center, point = rng.uniform(0, 1, 6), rng.uniform(-1, 2, 6)
    center[0], eps = rng.choice([0.0, 1.0]), rng.uniform(0.2, 2)
    # The absolute values of the moves are variables of their own, up and down.
    spread = np.concatenate([np.eye(6), -np.eye(6)], axis=1)
    best = minimize(
        lambda z: ((center + spread @ z - point) ** 2).sum(),
        np.zeros(12),
        jac=lambda z: 2 * spread.T @ (center + spread @ z - point),
        bounds=[(0, None)] * 12,
        constraints=[
            LinearConstraint(np.ones((1, 12)), -np.inf, eps),
            LinearConstraint(spread, -center, 1 - center),
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    images = [torch.tensor(part).view(1, 1, 2, 3) for part in (point, center)]
    got = make_ball("L1", eps).project(*images)
    np.testing.assert_allclose(got.flatten().numpy(), center + spread @ best.x, atol=1e-6)


@given(rows())
def test_filling_is_the_best_of_the_linear_program(case):
    sizes, rooms, total = case
    got = fill(sizes, rooms, total).numpy()
    for own, gain, room in zip(got, sizes.numpy(), rooms.numpy(), strict=True):
        best = linprog(
            -gain,
            A_ub=np.ones((1, len(gain))),
            b_ub=[total],
            bounds=list(zip(np.zeros_like(room), room, strict=True)),
        )
        assert own.sum() <= total + 1e-12
        assert (own <= room).all()
        np.testing.assert_allclose(gain @ own, -best.fun, atol=1e-9)


@given(rows())
def test_a_level_is_the_least_that_gains_enough(case):
    gains, bounds, wanted = case
    got = level(gains, bounds, torch.full((3,), wanted, dtype=torch.float64)).numpy()
    for c, gain, bound in zip(got, gains.numpy(), bounds.numpy(), strict=True):
        if gain @ bound < wanted:
            np.testing.assert_allclose(gain @ np.minimum(c, bound), gain @ bound, atol=1e-12)
        else:
            np.testing.assert_allclose(gain @ np.minimum(c, bound), wanted, atol=1e-12)
            assert gain @ np.minimum(c - 1e-6, bound) < wanted or c == 0


def program(norm, gain, gradient, point):
    """The shortest move in the box that gains as much, by a general solver."""
    count = len(point)
    if norm == "L2":
        return (
            minimize(
                lambda d: d @ d,
                np.where(gradient > 0, 1 - point, -point),
                jac=lambda d: 2 * d,
                bounds=list(zip(-point, 1 - point, strict=True)),
                constraints=[LinearConstraint(gradient[None], gain, np.inf)],
                method="SLSQP",
                options={"ftol": 1e-15, "maxiter": 500},
            ).fun
            ** 0.5
        )
    widths = 1 if norm == "Linf" else count  # bounds of the absolute moves, one or one each
    each = np.ones((count, 1)) if norm == "Linf" else np.eye(count)
    above = np.block([[np.eye(count), -each], [-np.eye(count), -each]])
    found = linprog(
        np.concatenate([np.zeros(count), np.ones(widths)]),
        A_ub=np.vstack([above, np.concatenate([-gradient, np.zeros(widths)])]),
        b_ub=np.append(np.zeros(2 * count), -gain),
        bounds=[*zip(-point, 1 - point, strict=True), *[(0, None)] * widths],
    )
    return found.fun


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_moves_to_a_hyperplane_are_the_shortest(norm, share):
    rng = np.random.default_rng(round(10 * share))
    ball = make_ball(norm, 0.5)
    for _ in range(8):
        point, gradient = rng.uniform(0, 1, 8), rng.standard_normal(8)
        point[:2], gradient[2] = (0.0, 1.0), 0.0
        gain = share * np.maximum(gradient * (1 - point), -gradient * point).sum()
        images = [torch.tensor(part).view(1, 2, 2, 2) for part in (gradient, point)]
        move = ball.shortest(torch.tensor([gain]), *images)
        np.testing.assert_allclose(float((images[0] * move).sum()), gain, rtol=1e-12)
        after = images[1] + move
        assert after.min() >= 0
        assert after.max() <= 1 + 1e-15
        wanted = program(norm, gain, gradient, point)
        np.testing.assert_allclose(float(ball.lengths(move)), wanted, rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_moves_beyond_the_box_take_all_that_it_has(norm, generator):
    point = torch.rand(3, 1, 2, 3, generator=generator)
    gradient = torch.randn(3, 1, 2, 3, generator=generator)
    move = make_ball(norm, 0.5).shortest(torch.full((3,), 100.0), gradient, point)
    torch.testing.assert_close(point + move, (gradient > 0).float())
    still = make_ball(norm, 0.5).shortest(torch.tensor([-1.0, 0.0, 1.0]), 0 * gradient, point)
    assert not still.any()
    assert not make_ball(norm, 0.5).shortest(torch.tensor([-1.0] * 3), gradient, point).any()


@given(rows())
def test_the_scale_reaches_the_radius_or_keeps_all(case):
    sizes, rooms, radius = case
    rate = scale(sizes, rooms, radius)
    moves = torch.minimum(rate[:, None] * sizes, rooms)
    lengths = torch.linalg.vector_norm(moves, dim=1)
    assert ((rate >= 0) & (rate <= 1)).all()
    assert (lengths <= radius * (1 + 1e-12)).all()
    # A larger scale, if it moves anything, leaves the ball.
    more = torch.minimum((rate * (1 + 1e-6) + 1e-9)[:, None] * sizes, rooms)
    stuck = (more == moves).all(dim=1)
    beyond = torch.linalg.vector_norm(more, dim=1) > radius * (1 - 1e-12)
    assert (stuck | beyond | (rate == 1)).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.1, 0.6, 5.0])
def test_the_nearest_point_is_no_further_than_any_other_and_has_the_derivative_told(norm, eps):
    draws = torch.Generator().manual_seed(0)
    center = torch.rand(40, 1, 2, 4, generator=draws, dtype=torch.float64)
    center[:10] = center[:10].round()
    point = center + torch.randn(center.shape, generator=draws, dtype=torch.float64)
    ball = make_ball(norm, min(eps, 1.0) if norm == "Linf" else eps)
    found = ball.nearest(point, center)
    assert ball.outside(found.point, center) is None
    # The angle with every other point of the set is obtuse.
    for _ in range(50):
        other = ball.random_start(center, draws)
        angle = ((point - found.point) * (other - found.point)).flatten(1).sum(dim=1)
        assert (angle <= 1e-10).all()
    # The formula of the derivative against differences, along random directions.
    way = torch.randn(center.shape, generator=draws, dtype=torch.float64)
    step = 1e-7
    moved = (ball.nearest(point + step * way, center).point - found.point).flatten(1) / step
    along = found.free * way.flatten(1)
    if found.tangent is not None:
        along = along - found.tangent * (found.tangent * along).sum(dim=1, keepdim=True)
    told = along if found.rate is None else found.rate[:, None] * along
    assert torch.isclose(moved, told, atol=1e-5).all(dim=1).float().mean() > 0.95
