"""APGD against a plain reading of the published algorithm, one image and one number at a time."""

import math
from fractions import Fraction

import pytest
import torch
from attack_cases import NORMS, curved, two_class
from hypothesis import given
from hypothesis import strategies as st

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import APGD, PGD, Mixture, expected_loss
from mixsolve_torch.attacks.apgd import checkpoints
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective, dlr
from mixsolve_torch.models.classifiers import frozen


def published_checkpoints(iterations):
    """w_j = ceil(p_j iterations) of the article's recurrence, without the ones at the end."""
    shares = [Fraction(0), Fraction(22, 100)]
    while shares[-1] < 1:
        length = shares[-1] - shares[-2] - Fraction(3, 100)
        shares.append(shares[-1] + max(length, Fraction(6, 100)))
    return sorted({math.ceil(share * iterations) for share in shares[1:] if share < 1})


def return_to(point, center, norm, eps):
    if norm == "L1":
        return sparse_return(point, center, eps)
    shift = point - center
    if norm == "Linf":
        shift = shift.clamp(-eps, eps)
    elif shift.norm() > eps:
        shift = shift * (eps / shift.norm())
    return (center + shift).clamp(0, 1)


def sparse_return(point, center, eps):
    """The nearest point of the L1 ball and the box, its multiplier by halving an interval."""
    shift = point - center
    rooms = torch.where(shift > 0, 1 - center, center)
    low, high = 0.0, float(shift.abs().max())
    for _ in range(100):
        mu = (low + high) / 2
        above = torch.minimum((shift.abs() - mu).clamp(min=0), rooms).sum() > eps
        low, high = (mu, high) if above else (low, mu)
    if torch.minimum(shift.abs(), rooms).sum() <= eps:
        high = 0.0
    return center + shift.sign() * torch.minimum((shift.abs() - high).clamp(min=0), rooms)


def published_sparse(loss, start, center, eps, iterations):
    """Return the points of the smallest ball at which one image's loss was asked for."""

    def at(point):
        point = point.detach().requires_grad_()
        value = loss(point)
        (gradient,) = torch.autograd.grad(value, point)
        return value.item(), gradient

    d, asked = center.numel(), [start]
    third = math.floor(0.3 * iterations + 1e-9)
    k, then, x = 0.2 * d, d, start
    for factor, budget in ((3, third), (2, third), (1, iterations - 2 * third)):
        if budget == 0:
            continue
        radius = factor * eps
        x = return_to(x, center, "L1", radius)
        if factor < 3:
            then = int(((x - center).abs() > 1e-12).sum())
            k = then / 1.5
        f, g = at(x)
        best, eta = (f, x, g), radius
        asked += [x] * (factor == 1)
        every = max(1, math.floor(0.04 * budget + 1e-9))
        for t in range(1, budget + 1):
            chosen = g.abs() >= g.abs().flatten().sort().values[min(d - 1, int(d - k + 1e-9))]
            step = g.sign() * chosen
            x = return_to(x + eta * step / max(1, int((step != 0).sum())), center, "L1", radius)
            asked += [x] * (factor == 1)
            f, g = at(x)
            if f > best[0]:
                best = (f, x, g)
            if t % every == 0:
                now = int(((best[1] - center).abs() > 1e-12).sum())
                if now < 0.95 * then:
                    eta, x, g = radius, best[1], best[2]
                else:
                    eta = max(eta / 1.5, radius / 10)
                k, then = now / 1.5, now
        x = best[1]
    return asked


def published_apgd(loss, start, center, norm, eps, iterations):
    """Return the points at which one image's loss was asked for, and how often its step halved."""

    def at(point):
        point = point.detach().requires_grad_()
        value = loss(point)
        (gradient,) = torch.autograd.grad(value, point)
        # Where the gradient vanishes there is no direction, and the momentum alone moves on.
        length = gradient.norm() if gradient.any() else 1.0
        unit = gradient.sign() if norm == "Linf" else gradient / length
        return value.item(), unit

    marks = published_checkpoints(iterations)
    xs, (f, unit) = [start], at(start)
    fs, best = [f], (f, start)
    eta, halvings, asked = 2 * eps, 0, [start]
    eta_then, best_then, mark_then = eta, f, 0
    for k in range(iterations):
        z = return_to(xs[k] + eta * unit, center, norm, eps)
        if k > 0:
            z = return_to(
                xs[k] + 0.75 * (z - xs[k]) + 0.25 * (xs[k] - xs[k - 1]), center, norm, eps
            )
        xs.append(z)
        asked.append(z)
        f, unit = at(z)
        fs.append(f)
        if f > best[0]:
            best = (f, z)
        if k + 1 in marks:
            rises = sum(fs[i + 1] > fs[i] for i in range(mark_then, k + 1))
            stuck = eta == eta_then and best[0] == best_then
            # The step at the last checkpoint is compared with the step as that checkpoint left it.
            eta_then, best_then = eta, best[0]
            if rises < 0.75 * (k + 1 - mark_then) or stuck:
                eta, halvings = eta / 2, halvings + 1
                xs[-1], fs[-1] = best[1], best[0]
                _, unit = at(best[1])
            mark_then = k + 1
    return asked, halvings


def cross_entropy_of(models, weights, label):
    def loss(point):
        own = [torch.nn.functional.cross_entropy(model(point), label) for model in models]
        return sum(weight * value for weight, value in zip(weights, own, strict=True))

    return loss


def ratio_of(model, label):
    def loss(point):
        logits = model(point)[0]
        first, _, third = logits.sort(descending=True).values[:3]
        others = torch.cat([logits[:label], logits[label + 1 :]])
        return -(logits[label] - others.max()) / (first - third)

    return loss


def trajectory(attack, mixture, x, y, seed):
    with frozen(mixture):
        return list(attack.trajectory(mixture, x, y, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["cross-entropy", "dlr"])
def test_apgd_on_one_classifier_is_the_published_attack(norm, loss, batch):
    x, y, eps, steps = batch[0].double(), batch[1], 0.25, 60
    model = curved()
    starts = make_ball(norm, eps).random_start(x, torch.Generator().manual_seed(4))
    attack = APGD(norm, eps, loss=loss, steps=steps)
    visited = trajectory(attack, Mixture([model]), x, y, 4)
    assert len(visited) == attack.visits() == (26 if norm == "L1" else steps + 1)
    halvings = []
    for i in range(len(x)):
        label = y[i : i + 1]
        own = ratio_of(model, label) if loss == "dlr" else cross_entropy_of([model], [1.0], label)
        center = x[i : i + 1]
        if norm == "L1":
            points = published_sparse(own, starts[i : i + 1], center, eps, steps)
        else:
            points, halved = published_apgd(own, starts[i : i + 1], center, norm, eps, steps)
            halvings.append(halved)
        got = torch.cat([point[i : i + 1] for point in visited])
        torch.testing.assert_close(got, torch.cat(points), rtol=0, atol=1e-8)
    assert norm == "L1" or min(halvings) > 0


@pytest.mark.parametrize("norm", NORMS)
def test_apgd_on_a_mixture_ascends_the_expected_loss(norm, batch):
    x, y, eps, steps = batch[0].double(), batch[1], 0.25, 30
    models, weights = [curved(seed) for seed in range(3)], [0.2, 0.3, 0.5]
    attack = APGD(norm, eps, steps=steps, random_start=False)
    visited = trajectory(attack, Mixture(models, weights), x, y, 0)
    for i in range(len(x)):
        own = cross_entropy_of(models, weights, y[i : i + 1])
        center = x[i : i + 1]
        if norm == "L1":
            points = published_sparse(own, center, center, eps, steps)
        else:
            points, _ = published_apgd(own, center, center, norm, eps, steps)
        got = torch.cat([point[i : i + 1] for point in visited])
        torch.testing.assert_close(got, torch.cat(points), rtol=0, atol=1e-8)


def test_a_step_is_halved_where_the_largest_loss_stays():
    class Vortex(torch.nn.Module):
        """Its loss grows with the angle around the center and falls back after every turn."""

        def forward(self, x):
            across, along = (x.flatten(1) - 0.5).T
            angle = torch.atan2(across, along)[:, None]
            return torch.cat([torch.zeros_like(angle), angle], dim=1)

    x, y, eps, steps = torch.full((8, 1, 1, 2), 0.5).double(), torch.zeros(8).long(), 0.3, 100
    model = Vortex()
    starts = make_ball("L2", eps).random_start(x, torch.Generator().manual_seed(1))
    visited = trajectory(APGD("L2", eps, steps=steps), Mixture([model]), x, y, 1)
    halvings = []
    for i in range(len(x)):
        own = cross_entropy_of([model], [1.0], y[i : i + 1])
        points, halved = published_apgd(own, starts[i : i + 1], x[i : i + 1], "L2", eps, steps)
        halvings.append(halved)
        got = torch.cat([point[i : i + 1] for point in visited])
        torch.testing.assert_close(got, torch.cat(points), rtol=0, atol=1e-8)
    # Five steps of six raise the loss, turn after turn; the largest loss is what does not rise.
    assert max(halvings) > 1


def test_the_best_point_goes_by_the_expected_zero_one_loss(batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(seed) for seed in (6, 7, 8)], [0.2, 0.3, 0.5])
    attack = APGD("L2", 0.4, steps=12, restarts=3)
    found = attack(mixture, x, y, torch.Generator().manual_seed(2))[0]
    visited = trajectory(attack, mixture, x, y, 2)
    errors = torch.stack([expected_loss(mixture, point, y) for point in visited])
    values = torch.stack([expected_loss(mixture, point, y, "cross-entropy") for point in visited])
    top = errors.amax(dim=0)
    assert torch.equal(expected_loss(mixture, found, y), top)
    best = values.where(errors == top, -torch.inf).amax(dim=0)
    reached = expected_loss(mixture, found, y, "cross-entropy")
    torch.testing.assert_close(reached, best, rtol=1e-12, atol=0)
    # The point of largest loss is another one for some image, else the test says nothing.
    assert (values.amax(dim=0) > best).any()


@pytest.mark.parametrize("norm", NORMS)
def test_apgd_reaches_the_worst_case_of_a_linear_classifier(norm, generator):
    weight = torch.randn(12, generator=generator)
    x = 0.3 + 0.4 * torch.rand(6, 3, 2, 2, generator=generator)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    mixture = Mixture([two_class(weight, bias=0.2)])
    attacked = APGD(norm, 0.1, steps=20)(mixture, x, y, generator)[0]
    change = (mixture.models[0](attacked) - mixture.models[0](x))[:, 1]
    dual = weight.norm(p={"Linf": 1, "L2": 2, "L1": math.inf}[norm])
    away = torch.where(y == 0, 1.0, -1.0)
    # In L1 the published number of entries in a step does not fall below two.
    rounding = 0.015 * dual if norm == "L1" else 5e-6
    torch.testing.assert_close(change, 0.1 * away * dual, rtol=0, atol=float(rounding))


@given(st.integers(1, 500))
def test_checkpoints_are_those_of_the_recurrence(steps):
    assert checkpoints(steps) == published_checkpoints(steps)


def test_the_ratio_of_logits():
    logits = torch.tensor([[4.0, 1.0, 3.0, 0.0], [4.0, 1.0, 3.0, 0.0], [4.0, 1.0, 3.0, 0.0]])
    labels = torch.tensor([0, 2, 1])
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-1 / 3, 1 / 3, 1.0]))
    torch.testing.assert_close(dlr(1e4 * logits, labels), dlr(logits, labels))
    flat = torch.ones(1, 4).requires_grad_()
    value = dlr(flat, labels[:1])
    (gradient,) = torch.autograd.grad(value.sum(), flat)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_the_ratio_needs_three_classes(batch):
    mixture = Mixture([two_class(torch.ones(9))])
    y = torch.zeros(7, dtype=torch.int64)
    for attack in (APGD("L2", 0.1, loss="dlr"), PGD("L2", 0.1, loss="dlr")):
        with pytest.raises(MixsolveError, match=r"'dlr' needs at least 3 classes, got 2: it div"):
            attack(mixture, batch[0], y)


@pytest.mark.parametrize("scale", [1.0, 400.0])
def test_the_mean_probability_and_its_gradient(scale, batch):
    x, y = batch[0].double(), batch[1]
    weights = [0.2, 0.3, 0.5]
    models = [curved(seed) for seed in range(3)]
    for model in models:
        with torch.no_grad():
            model[-1].weight.mul_(scale)
    mixture = Mixture(models, weights)
    with frozen(mixture):
        objective = Objective(Members(mixture, y), "mean-probability")
        score, gradient = objective.score_and_gradient(x, y)
        torch.testing.assert_close(objective.score(x, y).value, score.value)
    point = x.clone().requires_grad_()
    loss = torch.nn.functional.nll_loss(mixture(point), y, reduction="none")
    (expected,) = torch.autograd.grad(loss.sum(), point)
    torch.testing.assert_close(score.value, loss.detach())
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9 * scale)
    # Large logits leave no probability to float64, and the gradient is still there.
    assert scale == 1 or mixture(x).exp().gather(1, y[:, None]).min() < 1e-300
    torch.testing.assert_close(score.errors, expected_loss(mixture, x, y))
