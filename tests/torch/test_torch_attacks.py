"""Attacks: inside ball and box, at the worst case where it is known, and without a trace."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mixsolve.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import PGD, Mixture, TransferPGD, UniformBall, expected_loss
from mixsolve_torch.attacks import frozen
from mixsolve_torch.attacks.ball import image_norms, project, steepest, uniform_in_ball

NORMS = ["Linf", "L2"]
CORNERS = [0.0, 1.0, 0.5]


@st.composite
def balls(draw):
    """Centers in the box (corners of it among them), a norm, a radius, and a seed."""
    shape = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
    )
    seed = draw(st.integers(0, 2**31))
    center = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    center[0] = draw(st.sampled_from(CORNERS))
    eps = draw(st.one_of(st.just(0.0), st.floats(1e-6, 3.0), st.just(8 / 255)))
    return center, draw(st.sampled_from(NORMS)), eps, seed


def assert_inside(point, center, norm, eps):
    assert point.shape == center.shape
    assert point.dtype == center.dtype
    assert point.min() >= 0
    assert point.max() <= 1
    # The norm is taken in float64; what is left is the rounding of the float32 entries.
    lengths = image_norms(point.double() - center.double(), norm)
    rounding = 1e-7 * (1 if norm == "Linf" else math.sqrt(center[0].numel()))
    assert lengths.max() <= eps + rounding + 1e-6 * eps
    if eps == 0:
        assert torch.equal(point, center)


@given(balls())
def test_projection_lands_in_ball_and_box(ball):
    center, norm, eps, seed = ball
    noise = torch.randn(center.shape, generator=torch.Generator().manual_seed(seed + 1))
    for size in (0.0, eps, 10.0, 1e30):
        assert_inside(project(center + size * noise, center, norm, eps), center, norm, eps)


@given(balls())
def test_projection_leaves_what_is_inside(ball):
    center, norm, eps, seed = ball
    inside = uniform_in_ball(center, norm, 0.9 * eps, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(project(inside, center, norm, eps), inside, rtol=0, atol=2e-7)


def test_linf_projection_is_the_nearest_point():
    center = torch.tensor([0.05, 0.5, 0.95]).reshape(1, 1, 1, 3)
    point = torch.tensor([-0.5, 0.55, 2.0]).reshape(1, 1, 1, 3)
    answer = project(point, center, "Linf", 0.1).flatten()
    torch.testing.assert_close(answer, torch.tensor([0.0, 0.55, 1.0]))


def test_l2_projection_keeps_the_direction():
    center = torch.full((1, 1, 1, 2), 0.5)
    point = center + torch.tensor([3.0, 4.0])
    answer = project(point, center, "L2", 0.1).flatten()
    torch.testing.assert_close(answer, torch.tensor([0.56, 0.58]))


@given(balls())
def test_random_starts_are_inside_and_from_the_generator(ball):
    center, norm, eps, seed = ball
    start = uniform_in_ball(center, norm, eps, torch.Generator().manual_seed(seed))
    assert_inside(start, center, norm, eps)
    again = uniform_in_ball(center, norm, eps, torch.Generator().manual_seed(seed))
    assert torch.equal(start, again)


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball_uniformly(norm, generator):
    count, d, eps = 4000, 4, 0.25
    center = torch.full((count, 1, 2, 2), 0.5)
    shift = uniform_in_ball(center, norm, eps, generator) - center
    radius = image_norms(shift, norm) / eps
    # (|shift| / eps)^d is uniform in [0, 1]: mean 1/2, five standard deviations 0.023.
    assert abs(float((radius**d).mean()) - 0.5) < 0.023
    assert shift.mean(dim=0).abs().max() < 5 * eps / math.sqrt(3 * count)


@given(balls())
def test_steepest_has_unit_length_and_ascends(ball):
    center, norm, _, seed = ball
    gradient = torch.randn(center.shape, generator=torch.Generator().manual_seed(seed))
    for scale in (1.0, 1e-30):
        direction = steepest(scale * gradient, norm)
        torch.testing.assert_close(image_norms(direction, norm), torch.ones(len(center)))
        dual = (gradient * direction).flatten(1).sum(dim=1)
        best = gradient.flatten(1).norm(p=1 if norm == "Linf" else 2, dim=1)
        torch.testing.assert_close(dual, best)
    assert torch.equal(steepest(torch.zeros_like(center), norm), torch.zeros_like(center))


def two_class(weight, bias=0.0):
    """A linear classifier of the logits (0, <weight, x> + bias)."""
    layer = torch.nn.utils.skip_init(torch.nn.Linear, weight.numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


@pytest.mark.parametrize(
    ("norm", "options"),
    [
        ("Linf", {}),
        ("Linf", {"random_start": False, "loss": "margin"}),
        ("L2", {"random_start": False}),
        ("L2", {"step_size": 0.1, "steps": 30, "restarts": 2}),
    ],
)
def test_pgd_reaches_the_worst_case_of_a_linear_classifier(norm, options, generator):
    eps = 0.1
    weight = torch.randn(12, generator=generator)
    # Far enough from the walls of the box for none of them to bind.
    x = 0.3 + 0.4 * torch.rand(6, 3, 2, 2, generator=generator)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    mixture = Mixture([two_class(weight, bias=0.2)])
    attacked = PGD(norm, eps, **options)(mixture, x, y, generator)[0]
    direction = weight.sign() if norm == "Linf" else weight / weight.norm()
    away = torch.where(y == 0, 1.0, -1.0)[:, None, None, None]
    worst = x + eps * away * direction.reshape(3, 2, 2)
    # A loss flat to second order tells points apart to the root of its rounding only.
    torch.testing.assert_close(attacked, worst, rtol=0, atol=2e-4)
    score = mixture.models[0](attacked)[:, 1]
    clean = mixture.models[0](x)[:, 1]
    dual = weight.abs().sum() if norm == "Linf" else weight.norm()
    torch.testing.assert_close(score - clean, eps * away.flatten() * dual, rtol=0, atol=5e-6)


def reference_pgd(model, x, y, norm, eps, steps, restarts, generator):
    """PGD on one classifier, image by image, with the same draws."""
    loss = torch.nn.functional.cross_entropy
    best = [None] * len(x)
    starts = [uniform_in_ball(x, norm, eps, generator) for _ in range(restarts)]
    for start in starts:
        for i in range(len(x)):
            point = start[i : i + 1]
            for step in range(steps + 1):
                point = point.detach().requires_grad_()
                logits = model(point)
                value = loss(logits, y[i : i + 1])
                rank = (bool(logits.argmax() != y[i]), value.item())
                if best[i] is None or rank > best[i][0]:
                    best[i] = (rank, point.detach())
                if step == steps:
                    break
                (gradient,) = torch.autograd.grad(value, point)
                unit = gradient.sign() if norm == "Linf" else gradient / gradient.norm()
                ahead = point.detach() + 2.5 * eps / steps * unit
                center = x[i : i + 1]
                if norm == "Linf":
                    point = ahead.clamp(center - eps, center + eps).clamp(0, 1)
                else:
                    shift = ahead - center
                    shift = shift * min(1.0, eps / float(shift.norm()))
                    point = (center + shift).clamp(0, 1)
    return torch.cat([point for _, point in best])


@pytest.fixture
def curved():
    """Return a maker of a small nonlinear classifier of images (1, 3, 3), in float64."""

    def make(seed=0):
        draws = torch.Generator().manual_seed(seed)
        layers = []
        for rows, columns in ((16, 9), (4, 16)):
            layer = torch.nn.utils.skip_init(torch.nn.Linear, columns, rows, dtype=torch.float64)
            with torch.no_grad():
                layer.weight.copy_(torch.randn(rows, columns, generator=draws))
                layer.bias.copy_(torch.randn(rows, generator=draws))
            layers += [layer, torch.nn.Tanh()]
        return torch.nn.Sequential(torch.nn.Flatten(), *layers[:-1])

    return make


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_on_one_classifier_is_pgd(norm, curved, batch):
    x, y = batch[0].double(), batch[1]
    model = curved()
    expected = reference_pgd(model, x, y, norm, 0.2, 7, 3, torch.Generator().manual_seed(4))
    attack = PGD(norm, 0.2, steps=7, restarts=3)
    attacked = attack(Mixture([model]), x, y, torch.Generator().manual_seed(4))[0]
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-9)
    # Others beside it, whose weight is zero or who are the same, change nothing.
    for mixture in (Mixture([curved(1), model], [0, 1]), Mixture([model, model])):
        again = attack(mixture, x, y, torch.Generator().manual_seed(4))[0]
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-9)


def test_pgd_ascends_the_expected_loss_of_the_weights(generator):
    # Each classifier pulls its own pixel; one long step shows the direction of the gradient.
    pixels = torch.eye(3)
    models = [two_class(4 * pixels[k], bias=-2.0) for k in range(3)]
    x, y = torch.full((1, 1, 1, 3), 0.5), torch.tensor([0])
    weights = torch.tensor([0.2, 0.3, 0.5])
    attack = PGD("L2", 0.01, steps=1, step_size=0.01, random_start=False)
    shift = (attack(Mixture(models, weights), x, y)[0] - x).flatten()
    # At equal losses the gradient of sum_k lam_k loss_k is proportional to lam.
    torch.testing.assert_close(shift / shift.norm(), weights / weights.norm(), rtol=0, atol=1e-4)
    other = PGD("L2", 0.01, steps=1, random_start=False, weights=[1.0, 0.0, 0.0])
    shift = (other(Mixture(models, weights), x, y)[0] - x).flatten()
    assert (shift > 1e-4).tolist() == [True, False, False]


def test_the_best_point_is_kept_by_the_expected_zero_one_loss_first():
    """The first point errs with weight 1/2 at a small loss, later ones have a larger loss only."""
    start = torch.full((1, 1, 1, 1), 0.5)

    class Bump(torch.nn.Module):
        """Errs at 0.5 by a hair and is right elsewhere."""

        def forward(self, x):
            margin = (x.flatten(1) - 0.5).abs() * 0.01 - 1e-6
            return torch.cat([margin, torch.zeros_like(margin)], dim=1)

    class Slope(torch.nn.Module):
        """Is right by far, but its loss rises with x."""

        def forward(self, x):
            margin = 3 - 2 * x.flatten(1)
            return torch.cat([margin, torch.zeros_like(margin)], dim=1)

    mixture, y = Mixture([Bump(), Slope()]), torch.tensor([0])
    attacked = PGD("Linf", 0.3, steps=5, random_start=False)(mixture, start, y)[0]
    assert torch.equal(attacked, start)
    assert expected_loss(mixture, attacked, y).item() == 0.5
    # Without the bump the ascent goes to the end.
    alone = PGD("Linf", 0.3, steps=5, random_start=False, weights=[0, 1])
    assert alone(mixture, start, y)[0].item() == pytest.approx(0.8)


def test_the_zero_one_losses_are_weighted_when_the_best_point_is_kept():
    """The heavy classifier errs at the start only, the light one at the end, where the loss is."""

    class Hair(torch.nn.Module):
        def forward(self, x):
            margin = (x.flatten(1) - 0.5).abs() * 0.01 - 1e-6
            return torch.cat([margin, torch.zeros_like(margin)], dim=1)

    class Cliff(torch.nn.Module):
        def forward(self, x):
            margin = 10 * (0.7 - x.flatten(1))
            return torch.cat([margin, torch.zeros_like(margin)], dim=1)

    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    attack = PGD("Linf", 0.3, steps=5, random_start=False)
    assert torch.equal(attack(Mixture([Hair(), Cliff()], [0.8, 0.2]), x, y)[0], x)
    end = attack(Mixture([Hair(), Cliff()], [0.2, 0.8]), x, y)[0]
    assert end.item() == pytest.approx(0.8)


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_are_never_worse(norm, curved, batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(seed) for seed in range(3)], [0.2, 0.3, 0.5])
    every = PGD(norm, 0.15, steps=4, restarts=4, keep_restarts=True)
    points = every(mixture, x, y, torch.Generator().manual_seed(1))
    assert len(points) == 4
    best = PGD(norm, 0.15, steps=4, restarts=4)(mixture, x, y, torch.Generator().manual_seed(1))[0]
    errors = expected_loss(mixture, best, y)
    value = expected_loss(mixture, best, y, "cross-entropy")
    for point in points:
        other = expected_loss(mixture, point, y)
        assert (errors >= other).all()
        tied = errors == other
        assert (value >= expected_loss(mixture, point, y, "cross-entropy") - 1e-12)[tied].all()
    split = PGD(norm, 0.15, steps=4, restarts=4, images_per_pass=1)
    alone = split(mixture, x, y, torch.Generator().manual_seed(1))[0]
    torch.testing.assert_close(alone, best, rtol=0, atol=1e-9)


def attacks(norm="Linf", eps=0.1):
    return [
        PGD(norm, eps, steps=3, restarts=2),
        PGD(norm, eps, steps=3, random_start=False),
        PGD(norm, eps, steps=2, restarts=3, keep_restarts=True, loss="margin"),
        TransferPGD(norm, eps, steps=3),
        UniformBall(norm, eps, draws=4),
    ]


@pytest.mark.parametrize("index", range(5))
@given(ball=balls())
def test_attacks_stay_inside(index, ball):
    center, norm, eps, seed = ball
    draws = torch.Generator().manual_seed(seed)
    pixels = center[0].numel()
    mixture = Mixture([two_class(torch.randn(pixels, generator=draws)) for _ in range(2)])
    y = torch.zeros(len(center), dtype=torch.int64)
    attack = attacks(norm, eps)[index]
    candidates = attack(mixture, center, y, draws)
    assert candidates.shape == (len(attack.names(2)), *center.shape)
    assert not candidates.requires_grad
    for candidate in candidates:
        assert_inside(candidate, center, norm, eps)


@pytest.mark.parametrize("index", range(5))
def test_the_same_seed_gives_the_same_candidates(index, linear, batch):
    attack, mixture = attacks("L2")[index], Mixture([linear(0), linear(1)])
    first = attack(mixture, *batch, torch.Generator().manual_seed(3))
    assert torch.equal(first, attack(mixture, *batch, torch.Generator().manual_seed(3)))
    assert torch.equal(attack(mixture, *batch), attack(mixture, *batch))
    if index in (0, 2, 4):
        assert not torch.equal(first, attack(mixture, *batch, torch.Generator().manual_seed(4)))


def test_transfer_attacks_each_classifier_whatever_its_weight(linear, batch):
    models = [linear(0), linear(1), linear(2)]
    attack = TransferPGD("L2", 0.2, steps=4, random_start=False)
    candidates = attack(Mixture(models, [1, 0, 0]), *batch)
    assert attack.names(3)[2] == "PGD L2 0.2 on classifier 3"
    for model, candidate in zip(models, candidates, strict=True):
        alone = PGD("L2", 0.2, steps=4, random_start=False)(Mixture([model]), *batch)[0]
        assert torch.equal(candidate, alone)
    with pytest.raises(MixsolveError, match="weights must be left out"):
        TransferPGD("L2", 0.2, weights=[1, 0, 0])


class Noisy(torch.nn.Module):
    """Batch norm, dropout, a frozen layer, and a part kept in eval mode while the rest trains."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.drop = torch.nn.Dropout(0.5)
        self.flat = torch.nn.Flatten()
        self.body = torch.nn.utils.skip_init(torch.nn.Linear, 9, 4)
        self.head = torch.nn.utils.skip_init(torch.nn.Linear, 4, 4)
        self.seen = []
        with torch.no_grad():
            self.body.weight.copy_(torch.linspace(-1, 1, 36).reshape(4, 9))
            self.head.weight.copy_(torch.eye(4))
            self.body.bias.zero_()
            self.head.bias.zero_()
        for parameter in self.body.parameters():
            parameter.requires_grad_(False)
        self.train()
        self.norm.eval()

    def forward(self, x):
        modes = {part.training for part in self.modules()}
        live = {parameter.requires_grad for parameter in self.parameters()}
        self.seen.append((modes, live))
        return self.head(self.body(self.flat(self.drop(self.norm(x)))))


def state_of(module):
    return (
        [part.training for part in module.modules()],
        [parameter.requires_grad for parameter in module.parameters()],
        [parameter.grad for parameter in module.parameters()],
        {name: value.clone() for name, value in module.state_dict().items()},
    )


def assert_same_state(module, before):
    modes, live, grads, values = state_of(module)
    assert (modes, live, grads) == before[:3]
    assert all(torch.equal(values[name], value) for name, value in before[3].items())


@pytest.mark.parametrize("index", range(5))
def test_attacks_leave_no_trace(index, batch):
    mixture = Mixture([Noisy(), Noisy()])
    before = state_of(mixture)
    assert set(before[0]) == set(before[1]) == {True, False}
    x, y = batch[0].clone(), batch[1].clone()
    attacks()[index](mixture, x, y)
    assert_same_state(mixture, before)
    assert torch.equal(x, batch[0])
    assert torch.equal(y, batch[1])
    seen = [entry for model in mixture.models for entry in model.seen]
    assert all(entry == ({False}, {False}) for entry in seen)
    assert bool(seen) == (index != 4)


def test_attacks_leave_no_trace_of_a_failure(batch):
    class Fails(torch.nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    mixture = Mixture([Noisy(), Fails()])
    before = state_of(mixture)
    with pytest.raises(KeyboardInterrupt):
        PGD("Linf", 0.1)(mixture, *batch)
    assert_same_state(mixture, before)
    with pytest.raises(MixsolveError, match=r"x must lie in \[0, 1\]"):
        PGD("Linf", 0.1)(mixture, batch[0] + 1, batch[1])
    assert_same_state(mixture, before)
    with pytest.raises(ZeroDivisionError), frozen(mixture):
        _ = 1 / any(part.training for part in mixture.modules())
    assert_same_state(mixture, before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(off, linear, batch):
    mixture = Mixture([linear(0), linear(1)])
    expected = PGD("L2", 0.3, steps=4)(mixture, *batch)
    with off():
        images, labels = batch[0].clone(), batch[1].clone()
        assert torch.equal(PGD("L2", 0.3, steps=4)(mixture, images, labels), expected)
    assert not torch.equal(expected[0], batch[0])


def test_images_that_require_a_gradient_get_none(linear, batch):
    x = batch[0].clone().requires_grad_()
    attacked = PGD("L2", 0.3, steps=2)(Mixture([linear(0)]), x, batch[1])
    assert not attacked.requires_grad
    assert x.grad is None


class Waits(TorchDispatchMode):
    """Counts the operations at which Python waits for a value of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        names = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")
        self.count += function._schema.name.removeprefix("aten::") in names
        return function(*args, **(kwargs or {}))


def test_the_steps_never_wait_for_the_device(linear, batch):
    mixture = Mixture([linear(0), linear(1), linear(2)])
    counts = []
    for steps in (1, 6):
        with Waits() as waits:
            PGD("L2", 0.3, steps=steps, restarts=2)(mixture, *batch)
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0


def test_images_that_are_none(linear, batch):
    x, y = batch
    attack, mixture = PGD("Linf", 0.1, steps=1), Mixture([linear(0)])
    high, nan = x.clone(), x.clone()
    high[3, 0, 1, 2] = 1.5
    nan[2, 0, 0, 1] = float("nan")
    for images, labels, error, message in (
        (high, y, MixsolveError, r"x must lie in \[0, 1\]; got 1.5 at index \(3, 0, 1, 2\)"),
        (nan, y, MixsolveError, r"x must lie in \[0, 1\]; got nan at index \(2, 0, 0, 1\)"),
        (x - 1, y, MixsolveError, r"got -.* leave their normalisation to the model"),
        (x[:, 0], y, MixsolveError, r"x must have shape \(B, C, H, W\).*got \(7, 3, 3\)"),
        (x[:0], y[:0], MixsolveError, r"without an empty axis; got \(0, 1, 3, 3\)"),
        ((x * 255).byte(), y, MixsolveTypeError, r"torch.uint8; for bytes use x.float\(\) / 255"),
        (x.numpy(), y, MixsolveTypeError, r"x must be a torch.Tensor.*got ndarray"),
        (x, y[:3], MixsolveError, r"y must have shape \(7,\), one label an image; got \(3,\)"),
        (x, y.float(), MixsolveTypeError, r"y must hold integer.*torch.float32; use y.long\(\)"),
        (x, y.tolist(), MixsolveTypeError, r"y must be a torch.Tensor.*got list"),
        (x, y - 1, MixsolveError, r"y must hold class indices from 0 on; got -1 at index 0"),
        (x, y + 1, MixsolveError, r"largest label is 4, the classifiers return 4 logits"),
    ):
        with pytest.raises(error, match=message):
            attack(mixture, images, labels)
    with pytest.raises(MixsolveTypeError, match=r"mixture must be a Mixture; got Sequential"):
        attack(linear(0), x, y)
    with pytest.raises(MixsolveTypeError, match=r"generator must be a torch.Generator; got int"):
        attack(mixture, x, y, 3)


class Root(torch.nn.Module):
    """A classifier with an infinite gradient at 0."""

    def forward(self, x):
        root = x.flatten(1).sum(dim=1, keepdim=True).sqrt()
        return torch.cat([root, torch.zeros_like(root)], dim=1)


class Rounds(torch.nn.Module):
    """A classifier without a gradient."""

    def forward(self, x):
        score = x.detach().flatten(1).sum(dim=1, keepdim=True)
        return torch.cat([score, -score], dim=1)


def test_classifiers_that_cannot_be_attacked(linear, batch):
    x, y = batch
    attack = PGD("Linf", 0.1, steps=2, random_start=False)
    diverged = Mixture([linear(0), linear(1, scale=float("nan"))])
    with pytest.raises(MixsolveError, match=r"models\[1\] must have finite logits.*diverged"):
        attack(diverged, x, y)
    black, zero = torch.zeros(2, 1, 1, 2), torch.tensor([0, 0])
    with pytest.raises(MixsolveError, match=r"models\[0\] must have finite gradients.*at zero"):
        attack(Mixture([Root()]), black, zero)
    with pytest.raises(MixsolveError, match=r"models\[0\] must have a gradient.*UniformBall"):
        attack(Mixture([Rounds()]), black, zero)
    assert UniformBall("Linf", 0.1)(Mixture([Rounds()]), black, zero).shape == (10, 2, 1, 1, 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PGD("L1", 0.1), MixsolveError, r"norm must be 'Linf' or 'L2'; got 'L1'"),
        (lambda: PGD("L2", -0.1), MixsolveError, r"eps must be a finite number >= 0, got -0.1"),
        (lambda: PGD("L2", math.nan), MixsolveError, r"eps must be a finite number >= 0, got nan"),
        (lambda: PGD("L2", "8/255"), MixsolveTypeError, r"eps must be .* got '8/255' \(str\)"),
        (lambda: PGD("L2", 1, steps=0), MixsolveError, r"steps must be an integer >= 1, got 0"),
        (lambda: PGD("L2", 1, restarts=1.5), MixsolveTypeError, r"restarts must be an integer"),
        (lambda: PGD("L2", 1, step_size=-1), MixsolveError, r"step_size must be .* >= 0"),
        (
            lambda: PGD("L2", 1, restarts=2, random_start=False),
            MixsolveError,
            r"restarts must be 1 without a random start; got 2",
        ),
        (lambda: PGD("L2", 1, loss="hinge"), MixsolveError, r"loss must be one of .* got 'hinge'"),
        (lambda: UniformBall("L2", 1, draws=0), MixsolveError, r"draws must be an integer >= 1"),
        (lambda: UniformBall("L2", math.inf), MixsolveError, r"eps must be a finite number"),
    ],
)
def test_parameters_out_of_range(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_losses_that_cannot_be_ascended(linear, batch):
    mixture = Mixture([linear(0)])
    with pytest.raises(MixsolveError, match=r"loss of an attack must have a gradient.*zero-one"):
        PGD("L2", 0.1, loss="zero-one")(mixture, *batch)
    with pytest.raises(MixsolveError, match=r"one loss an image.*reduction='none'"):
        PGD("L2", 0.1, loss=torch.nn.functional.cross_entropy)(mixture, *batch)
    with pytest.raises(MixsolveError, match=r"weights must have shape \(1,\)"):
        PGD("L2", 0.1, weights=[0.5, 0.5])(mixture, *batch)

    def own(logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    first = PGD("L2", 0.1, loss=own)(mixture, *batch)
    torch.testing.assert_close(first, PGD("L2", 0.1)(mixture, *batch))
