"""Points in several half-spaces of a ball against linear programs and a quadratic solver."""

import numpy as np
import pytest
import torch
from attack_cases import NORMS, assert_inside
from scipy.optimize import linprog, minimize

from mixsolve_torch.attacks import dual, halfspaces
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.halfspaces import HalfSpaces, half_spaces

RADII = {"Linf": 0.15, "L2": 0.4, "L1": 0.7}
DEPTH = 1e-3  # asked for, as a share of the reach


def deepest(norm, center, normals, distances, eps):
    """How deep one point of the ball and the box lies in all half-spaces."""
    n, d = normals.shape
    low, high = -center, 1 - center
    if norm == "L2":
        solved = minimize(
            lambda v: -v[d],
            np.append(np.zeros(d), (-distances).min()),
            jac=lambda v: np.append(np.zeros(d), -1.0),
            bounds=[*zip(low, high, strict=True), (None, None)],
            constraints=[
                {
                    "type": "ineq",
                    "fun": lambda v: normals @ v[:d] - distances - v[d],
                    "jac": lambda v: np.hstack([normals, -np.ones((n, 1))]),
                },
                {
                    "type": "ineq",
                    "fun": lambda v: eps**2 - (v[:d] ** 2).sum(),
                    "jac": lambda v: np.append(-2 * v[:d], 0),
                },
            ],
            options={"ftol": 1e-13, "maxiter": 500},
        )
        return -solved.fun
    if norm == "Linf":
        rows, right = np.hstack([-normals, np.ones((n, 1))]), -distances
        bounds = list(zip(np.maximum(low, -eps), np.minimum(high, eps), strict=True))
    else:
        rows = np.vstack(
            [np.hstack([-normals, normals, np.ones((n, 1))]), np.append(np.ones(2 * d), 0)]
        )
        right = np.append(-distances, eps)
        bounds = [*((0, own) for own in high), *((0, -own) for own in low)]
    goal = np.append(np.zeros(rows.shape[1] - 1), -1)
    return -linprog(goal, A_ub=rows, b_ub=right, bounds=[*bounds, (None, None)]).fun


def drawn(kind, rng, images, n, d):
    """Centers (images, d) and unit normals (n, images, d) of a kind of system."""
    center = rng.random((images, d))
    normals = rng.standard_normal((n, images, d))
    if kind == "walls":
        center = rng.integers(0, 2, (images, d)).astype(float)
    elif kind == "duplicate":
        normals[1] = normals[0]
    elif kind == "nearly parallel":
        normals[1] = normals[0] + 0.02 * rng.standard_normal((images, d))
    elif kind == "opposite":
        normals[1] = -normals[0]
    elif kind == "axes":
        normals = np.sign(normals) * (np.arange(d) == rng.integers(d, size=(n, images, 1)))
    return center, normals / np.linalg.norm(normals, axis=2, keepdims=True)


def model_of(x, normals, distances, reach, dtype):
    return half_spaces(
        x,
        torch.as_tensor(-distances, dtype=dtype),
        torch.as_tensor(normals, dtype=dtype)[:, :, None, None, :],
        torch.as_tensor(reach, dtype=dtype),
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "kind", ["inside", "walls", "duplicate", "nearly parallel", "opposite", "axes"]
)
def test_half_spaces_are_met_exactly_where_a_solver_says_so(norm, kind):
    rng = np.random.default_rng(3)
    images, n, d, eps = 24, 3, 6, RADII[norm]
    center, normals = drawn(kind, rng, images, n, d)
    ball = make_ball(norm, eps)
    x = torch.as_tensor(center, dtype=torch.float32)[:, None, None, :]
    center = x[:, 0, 0].double().numpy()
    reach = eps * np.stack(
        [ball.growth(torch.as_tensor(own)[:, None, None, :], x.double()).numpy() for own in normals]
    )
    reach = np.maximum(reach, 0.05 * eps)  # the box may leave nothing of it
    distances = rng.uniform(-0.3, 0.6, (n, images)) * reach
    depth = [deepest(norm, center[i], normals[:, i], distances[:, i], eps) for i in range(images)]
    # Half-spaces that just meet, and that just do not.
    wanted = np.resize([-0.02, 0.004, 0.05, 0.2], images) * reach.max(axis=0)
    distances += np.array(depth) - wanted
    model = model_of(x, normals, distances, reach, torch.float32)
    sets = torch.ones(1, n, images, dtype=torch.bool)
    aim = DEPTH * model.reach[None]
    points, dual = model.meet(sets, aim, torch.zeros_like(aim), x[None], x, ball, 40)
    assert points.dtype == torch.float32
    assert_inside(points[0], x, norm, eps)
    assert (dual >= 0).all()
    slack = model.slack(points)[0]
    met = (slack >= 0.1 * aim[0]).all(dim=0).numpy()
    assert met.tolist() == (wanted > 0).tolist()


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_met_lies_nearest_to_the_origin(norm):
    rng = np.random.default_rng(5)
    images, n, d, eps = 8, 2, 5, RADII[norm]
    center, normals = drawn("inside", rng, images, n, d)
    distances = rng.uniform(0.02, 0.1, (n, images))
    x = torch.as_tensor(center)[:, None, None, :]
    ball = make_ball(norm, eps)
    model = model_of(x, normals, distances, np.ones((n, images)), torch.float64)
    sets = torch.ones(1, n, images, dtype=torch.bool)
    zeros = torch.zeros(1, n, images, dtype=torch.float64)
    points, _ = model.meet(sets, zeros, zeros, x[None], x, ball, 60)
    compared = 0
    for i in range(images):
        if deepest(norm, center[i], normals[:, i], distances[:, i], eps) < 0.01:
            continue
        compared += 1
        # Moves up and moves down, since the absolute value has corners.
        spread = np.hstack([np.eye(d), -np.eye(d)])
        size = {
            "Linf": lambda v: eps - v[:d] - v[d:],
            "L2": lambda v, spread=spread: eps**2 - ((spread @ v) ** 2).sum(),
            "L1": lambda v: eps - v.sum(),
        }[norm]
        solved = minimize(
            lambda v, spread=spread: ((spread @ v) ** 2).sum(),
            np.full(2 * d, 0.01),
            bounds=[*((0, 1 - own) for own in center[i]), *((0, own) for own in center[i])],
            constraints=[
                {"type": "ineq", "fun": size},
                {
                    "type": "ineq",
                    "fun": lambda v, i=i, spread=spread: (
                        normals[:, i] @ (spread @ v) - distances[:, i]
                    ),
                },
            ],
            options={"ftol": 1e-14, "maxiter": 500},
        )
        move = (points[0, i] - x[i]).flatten().numpy()
        np.testing.assert_allclose(move, spread @ solved.x, atol=2e-5)
    assert compared > 3


def test_one_half_space_in_a_box_is_met_as_the_dual_meets_it():
    rng = np.random.default_rng(6)
    images, d, eps = 40, 6, RADII["Linf"]
    center, normals = drawn("inside", rng, images, 1, d)
    normals[0, 0] = 0
    x = torch.as_tensor(center)[:, None, None, :]
    ball = make_ball("Linf", eps)
    reach = eps * np.abs(normals).sum(axis=2)
    # Inside already, within reach, and out of reach.
    distances = rng.uniform(-0.5, 1.3, (1, images)) * np.maximum(reach, 0.1)
    model = model_of(x, normals, distances, reach, torch.float64)
    twice = model_of(x, np.repeat(normals, 2, 0), np.repeat(distances, 2, 0), reach, torch.float64)
    origins = ball.project(x + torch.from_numpy(rng.uniform(-1, 1, (3, *x.shape))), x)
    sets = torch.ones(3, 1, images, dtype=torch.bool)
    sets[2] = False
    zeros = torch.zeros(3, 1, images, dtype=torch.float64)
    found, raised = model.meet(sets, zeros, zeros, origins, x, ball, 0)
    # The same half-space twice goes by the dual, in which its multiplier is shared.
    both = [torch.cat([own, own], dim=1) for own in (sets, zeros, zeros)]
    expected, halves = twice.meet(*both, origins, x, ball, 60)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(found[2], origins[2])
    met = (model.slack(found) > -1e-9).flatten()
    assert met.any()
    assert not met.all()
    total = halves.sum(dim=1, keepdim=True)
    torch.testing.assert_close(raised.flatten()[met], total.flatten()[met], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_what_cannot_be_met_is_missed_by_least_squares(norm):
    # Two walls that face away from each other, at 0.2 and 0.1 of the center: between them is best.
    x = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    normals = np.array([[[1.0, 0.0]], [[-1.0, 0.0]]])
    model = model_of(x, normals, np.array([[0.2], [0.1]]), np.ones((2, 1)), torch.float64)
    sets = torch.ones(1, 2, 1, dtype=torch.bool)
    zeros = torch.zeros(1, 2, 1, dtype=torch.float64)
    ball = make_ball(norm, 1.0)
    points, _ = model.meet(sets, zeros, zeros, x[None], x, ball, 60)
    assert (model.slack(points) < 0).all()
    assert_inside(points[0], x, norm, 1.0)


def test_classifiers_outside_the_set_and_without_a_gradient_have_no_say():
    x = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    normals = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    model = model_of(x, normals, np.array([[0.1], [0.1], [0.3]]), np.ones((3, 1)), torch.float64)
    sets = torch.tensor([[[True], [False], [True]]])
    zeros = torch.zeros(1, 3, 1, dtype=torch.float64)
    points, dual = model.meet(sets, zeros, zeros, x[None], x, make_ball("L2", 0.3), 40)
    torch.testing.assert_close(
        points[0, 0, 0, 0], torch.tensor([0.6, 0.5]).double(), atol=1e-6, rtol=0
    )
    assert dual[0, 1:].tolist() == [[0.0], [0.0]]


def test_each_set_is_met_as_if_it_were_alone():
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(9, 1, 2, 3, generator=draws)
    ball = make_ball("L1", 0.5)
    gradients = torch.randn(3, 9, 1, 2, 3, generator=draws)
    reach = torch.stack([0.5 * ball.growth(own, x) for own in gradients])
    model = half_spaces(x, -torch.rand(3, 9, generator=draws) * reach, gradients, reach)
    sets = torch.rand(2, 3, 9, generator=draws) < 0.7
    aim = DEPTH * model.reach.expand(2, 3, 9)
    zeros, origins = torch.zeros(2, 3, 9), x.expand(2, *x.shape)
    together, _ = model.meet(sets, aim, zeros, origins, x, ball, 12)
    for i in range(9):
        one = HalfSpaces(
            x[[i]], model.normals[:, [i]], model.distances[:, [i]], model.reach[:, [i]]
        )
        alone, _ = one.meet(
            sets[..., [i]], aim[..., [i]], zeros[..., [i]], origins[:, [i]], x[[i]], ball, 12
        )
        torch.testing.assert_close(alone[:, 0], together[:, i], atol=1e-6, rtol=0)


def test_images_in_parts_and_after_the_others_have_settled_are_met_as_all_at_once(monkeypatch):
    """Problems of one, five and twenty steps beside each other, in blocks of any size."""
    draws = torch.Generator().manual_seed(1)
    x = torch.rand(12, 1, 3, 3, generator=draws)
    ball = make_ball("L2", 0.5)
    gradients = torch.randn(3, 12, 1, 3, 3, generator=draws)
    reach = torch.stack([0.5 * ball.growth(own, x) for own in gradients])
    # Inside already, within reach, and out of reach.
    share = torch.tensor([-0.5, 0.4, 0.7, 1.5]).repeat_interleave(3)
    model = half_spaces(x, -share * reach, gradients, reach)
    sets = torch.ones(2, 3, 12, dtype=torch.bool)
    sets[1, 1:] = False
    aim = DEPTH * model.reach.expand(2, 3, 12)
    options = aim, torch.zeros(2, 3, 12), x.expand(2, *x.shape), x, ball, 25
    whole, found = model.meet(sets, *options)
    monkeypatch.setattr(dual, "_SETTLED", -1.0)  # nothing ever settles
    every, _ = model.meet(sets, *options)
    torch.testing.assert_close(whole, every, atol=1e-5, rtol=0)
    monkeypatch.undo()
    monkeypatch.setattr(halfspaces, "_ENTRIES", 200)
    parts, raised = model.meet(sets, *options)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(raised, found, rtol=1e-6, atol=1e-9)
