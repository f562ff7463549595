"""Linear bounds of one classifier: against CROWN in NumPy, float64, and points of the ball."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from mixsolve import MixsolveError
from mixsolve_torch import digits_cnn, resnet18, wide_resnet28_10
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.verification.crown import bounds_over
from mixsolve_torch.verification.program import Program
from mixsolve_torch.verification.region import Region


def numpy_crown(weights, biases, x, eps, row):
    """CROWN written out: bounds of each layer's neurons, then of `row` of the logits."""
    low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)
    relaxed = []

    def lowest(A, layers):
        total = 0.0
        after = [None, *relaxed[:layers][::-1]]
        for W, b, relaxation in zip(weights[layers::-1], biases[layers::-1], after, strict=True):
            if relaxation is not None:
                low_z, u = relaxation
                up = np.where(u <= 0, 0.0, np.where(low_z >= 0, 1.0, u / (u - low_z)))
                lift = np.where((low_z < 0) & (u > 0), -low_z * up, 0.0)
                down = np.where(u <= 0, 0.0, np.where(low_z >= 0, 1.0, 1.0 * (u > -low_z)))
                total += np.minimum(A, 0) @ lift
                A = np.maximum(A, 0) * down + np.minimum(A, 0) * up
            total += A @ b
            A = A @ W
        return total + np.maximum(A, 0) @ low + np.minimum(A, 0) @ high

    at = (low, high)
    for layer, (W, b) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
        middle, radius = W @ (at[0] + at[1]) / 2 + b, np.abs(W) @ (at[1] - at[0]) / 2
        below, above = middle - radius, middle + radius
        each = np.eye(len(b))
        loose = (below < 0) & (above > 0)
        below = np.where(loose, np.maximum(below, [lowest(e, layer) for e in each]), below)
        above = np.where(loose, np.minimum(above, [-lowest(-e, layer) for e in each]), above)
        relaxed.append((below, above))
        at = np.maximum(below, 0), np.maximum(above, 0)
    return lowest(row, len(weights) - 1)


def network(seed, sizes=(6, 12, 10, 4), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        layer = nn.Linear(before, after, dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(after, before, generator=generator) / before**0.5)
            layer.bias.copy_(torch.randn(after, generator=generator) / 4)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def residual_network():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)

        def forward(self, x):
            inner = nn.functional.relu(self.norm(x), inplace=True)
            return 0.5 * x - self.conv(inner)

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        Block(),
        nn.AvgPool2d(2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    model[1].norm.running_mean.uniform_(-1, 1)
    model[1].norm.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(autouse=True)
def draws():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("seed", range(3))
def test_crown_is_what_numpy_computes(seed):
    model = network(seed)
    x = torch.rand(5, 1, 2, 3, dtype=torch.float64)
    rows = torch.eye(4, dtype=torch.float64)[0] - torch.eye(4, dtype=torch.float64)[1:]
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    weights, biases = (
        [getattr(layer, name).detach().numpy() for layer in layers] for name in ("weight", "bias")
    )
    with frozen(model):
        program = Program(model, "models[0]", x)
        bounds = bounds_over(program, Region.around(x, make_ball("Linf", 0.15)))
        owner = torch.arange(5).repeat_interleave(3)
        lines = bounds.lines(len(program.steps) - 1, rows.repeat(5, 1), owner)
        better = bounds.lines(len(program.steps) - 1, rows.repeat(5, 1), owner, steps=20)
    images = x.flatten(1).numpy()
    expected = [
        numpy_crown(weights, biases, own, 0.15, row.numpy()) for own in images for row in rows
    ]
    np.testing.assert_allclose(lines.minima.numpy(), expected, atol=1e-5)
    assert any(((bounds.low[i] < 0) & (bounds.high[i] > 0)).any() for i in bounds.low)
    assert (better.minima >= lines.minima).all()
    assert (better.minima > lines.minima + 1e-3).any()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("made", ["dense", "residual", "digits"])
def test_bounds_hold_at_points_of_the_ball(norm, made):
    model = {
        "dense": lambda: network(1, (64, 20, 20, 3), torch.float32),
        "residual": residual_network,
        "digits": lambda: digits_cnn(width=4, classes=3),
    }[made]()
    x, eps = torch.rand(4, 1, 8, 8), 0.1 if norm == "Linf" else 0.4
    ball, generator = make_ball(norm, eps), torch.Generator().manual_seed(0)
    rows, owner = torch.eye(3) - torch.eye(3).roll(1, 0), torch.arange(4).repeat_interleave(3)
    with frozen(model):
        program = Program(model, "models[0]", x)
        torch.testing.assert_close(program(x), model(x))
        bounds = bounds_over(program, Region.around(x, ball))
        lines = bounds.lines(len(program.steps) - 1, rows.repeat(4, 1), owner, steps=5)
        lowest = torch.full((4, 3), torch.inf)
        for step in range(60):
            far = 0.5 + 0.5 * (ball.random_start(x, generator) - 0.5).sign() if step % 2 else x
            points = ball.project(ball.random_start(far.contiguous(), generator), x)
            logits = model(points)
            assert (logits >= bounds.logits_low).all()
            assert (logits <= bounds.logits_high).all()
            margins = (rows @ logits.T).T
            lowest = torch.minimum(lowest, margins)
            flat = points.flatten(1).double()[owner]
            values = (lines.slopes * flat).sum(1) + lines.offsets
            assert (values <= margins.flatten()).all()
            assert (lines.minima <= values + 1e-12).all()
    assert (lines.minima.view(4, 3) <= lowest).all()
    # The bounds are of use: of the size of what attacks find.
    assert (lines.minima.view(4, 3) > lowest - 10).all()


def test_float32_bounds_stay_below_those_of_float64():
    x = torch.rand(6, 1, 8, 8)
    model = digits_cnn(width=4)
    rows, owner = torch.eye(10)[:5] - torch.eye(10)[5:], torch.arange(6).repeat_interleave(5)
    minima = {}
    for dtype in (torch.float32, torch.float64):
        own = digits_cnn(width=4).to(dtype)
        own.load_state_dict({k: v.to(dtype) for k, v in model.state_dict().items()})
        with frozen(own):
            program = Program(own, "models[0]", x)
            region = Region.around(x, make_ball("Linf", 0.03))
            bounds = bounds_over(program, region)
            last = len(program.steps) - 1
            minima[dtype] = bounds.lines(last, rows.repeat(6, 1).to(dtype), owner).minima
    lost = minima[torch.float64] - minima[torch.float32]
    assert (lost > 0).all()  # the outward margin exceeds the rounding
    assert (lost < 2e-2).all()  # and is small beside margins of logits


def test_the_minimum_over_ball_and_box_is_the_least_value():
    x = torch.rand(3, 1, 1, 5, dtype=torch.float64)
    slopes = torch.randn(3, 5, dtype=torch.float64)
    region = Region.around(x, make_ball("L2", 0.6))
    found, points = region.minimum(slopes, torch.arange(3))
    centers = x.flatten(1).numpy()
    for center, slope, value, point in zip(centers, slopes.numpy(), found, points, strict=True):
        best = minimize(
            lambda p, a=slope: p @ a,
            center,
            jac=lambda p, a=slope: a,
            bounds=[(0, 1)] * 5,
            constraints={"type": "ineq", "fun": lambda p, c=center: 0.36 - ((p - c) ** 2).sum()},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert float(value) == pytest.approx(best.fun, abs=1e-7)
        assert point.numpy() @ slope == pytest.approx(best.fun, abs=1e-7)


class BatchMean(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] - x.flatten(1)[:, :3].mean(0)


class Depends(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 3:6]


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.MaxPool2d(2), "'0' is a MaxPool2d"),
        (nn.GELU(), "'0' is a GELU"),
        (nn.BatchNorm2d(1, track_running_stats=False), "'0' is a BatchNorm2d"),
        (Depends(), "does not trace"),
        (BatchMean(), "mean.*apart"),
    ],
)
def test_what_is_not_bounded_is_named(layer, named):
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    x = torch.rand(2, 1, 4, 4)
    model(x)
    with frozen(model), pytest.raises(MixsolveError, match=named) as caught:
        Program(model, "models[2]", x)
    assert "models[2]" in str(caught.value)


@pytest.mark.parametrize("model", [resnet18(), wide_resnet28_10(depth=10, width=1)])
def test_residual_networks_are_programs(model):
    x = torch.rand(2, 3, 32, 32)
    with frozen(model):
        program = Program(model, "models[0]", x)
        torch.testing.assert_close(program(x), model(x))
        rows = torch.randn(4, 10)
        for step in reversed(program.steps):
            if step.call is not None and not step.shape[1:]:
                (rows, *_) = program.transposed(step, rows)
    assert rows.shape[0] == 4


def test_an_exported_program_is_one():
    model, x = digits_cnn(width=4).eval(), torch.rand(3, 1, 8, 8)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    program = Program(exported.module(), "models[0]", x)
    torch.testing.assert_close(program(x), model(x))
    assert sum(step.is_relu for step in program.steps) == 3
