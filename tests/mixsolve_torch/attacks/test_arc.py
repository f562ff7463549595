import math

import pytest
import torch
from attack_cases import NORMS, curved, two_class

from mixsolve.base.errors import GradientWarning, MixsolveError
from mixsolve_torch import PGD, Mixture, expected_loss
from mixsolve_torch.attacks.arc import ARC
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.attacks.boundary import nearest_boundary
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective
from mixsolve_torch.models.classifiers import frozen


def linear_net(weight, bias):
    layer = torch.nn.utils.skip_init(torch.nn.Linear, *reversed(weight.shape), dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def greedy(gain, slope, point):
    """The L1 length of the moves that gain so much, the most profitable entries first."""
    length = torch.zeros(()).double()
    for p in slope.abs().argsort(descending=True):
        room = 1 - point[p] if slope[p] > 0 else point[p]
        move = torch.minimum(room, gain / slope[p].abs())
        length, gain = length + move, gain - move * slope[p].abs()
    return length if gain < 1e-12 else torch.tensor(torch.inf).double()


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_boundary_of_a_linear_classifier(norm, generator):
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    bias = torch.randn(4, generator=generator, dtype=torch.float64)
    x = torch.rand(30, 1, 2, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (30,), generator=generator)
    mixture = Mixture([linear_net(weight, bias)])
    with frozen(mixture):
        near = nearest_boundary(Members(mixture, y), 0, x, y, make_ball(norm, 1), rivals=3)
    errs = 0
    for i in range(30):
        z = weight @ x[i].flatten() + bias
        candidates = []
        for c in set(range(4)) - {int(y[i])}:
            w = weight[c] - weight[y[i]]
            dual = w.norm(p={"Linf": 1, "L2": 2, "L1": torch.inf}[norm])
            away = -(z[c] - z[y[i]]) / dual
            if norm == "L1" and away > 0:  # the box is counted, entry by entry
                away = greedy(away * dual, w, x[i].flatten())
            candidates.append((away, z[c] - z[y[i]], w))
        distance, gap, w = min(candidates, key=lambda own: float(own[0]))
        torch.testing.assert_close(near.distance[i], distance)
        torch.testing.assert_close(near.gap[i], gap)
        torch.testing.assert_close(near.gradient[i].flatten(), w)
        assert near.wrong[i] == (z.argmax() != y[i]) == (distance < 0)
        errs += int(near.wrong[i])
    assert 5 < errs < 28


@pytest.mark.parametrize("norm", NORMS)
def test_dual_norms_bound_the_growth_and_reach_it(norm, generator):
    ball = make_ball(norm, 1)
    gradient = torch.randn(5, 2, 3, 3, generator=generator)
    step = torch.randn(200, 5, 2, 3, 3, generator=generator)
    step = step / torch.stack([ball.lengths(s) for s in step])[..., None, None, None]
    growth = (step * gradient).flatten(2).sum(2)
    assert (growth <= ball.dual_lengths(gradient) * (1 + 1e-6)).all()
    top = gradient.flatten(1).abs().amax(1)[:, None, None, None] == gradient.abs()
    best = {"Linf": gradient.sign(), "L2": gradient, "L1": gradient * top}[norm]
    best = best / ball.lengths(best)[:, None, None, None]
    torch.testing.assert_close((best * gradient).flatten(1).sum(1), ball.dual_lengths(gradient))


@pytest.mark.parametrize("norm", NORMS)
def test_one_linear_classifier_is_fooled_exactly_where_its_boundary_is_in_reach(norm, generator):
    weight = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    mixture = Mixture([linear_net(weight, torch.zeros(3, dtype=torch.float64))])
    # Away from the walls of the box, which the distance does not know of.
    x = 0.4 + 0.2 * torch.rand(200, 1, 2, 4, generator=generator, dtype=torch.float64)
    y = (weight @ x.flatten(1).T).argmax(dim=0)
    with frozen(mixture):
        ball = make_ball(norm, 1)
        distance = nearest_boundary(Members(mixture, y), 0, x, y, ball, rivals=2).distance
    eps = min(0.39, distance.median().item())
    attacked = ARC(norm, eps, steps=2, random_start=False)(mixture, x, y)[0]
    fooled = expected_loss(mixture, attacked, y) == 1
    clear = (distance - eps).abs() > 1e-9
    assert torch.equal(fooled[clear], (distance < eps)[clear])
    assert 20 < fooled.sum() < 180


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_that_cancel_stop_pgd_and_not_arc(norm):
    normal = torch.tensor([1.0, -0.5, 0.25, 0.5])
    # Both classifiers are right at x, at the same distance from their boundaries on either side.
    x = torch.full((1, 1, 2, 2), 0.5)
    level = float(normal @ x.flatten())
    mixture = Mixture([two_class(normal, 0.1 - level), two_class(-normal, 0.1 + level)])
    y = torch.tensor([1])
    pgd = PGD(norm, 0.2, steps=50, random_start=False)(mixture, x, y)[0]
    arc = ARC(norm, 0.2, steps=1, random_start=False)(mixture, x, y)[0]
    assert expected_loss(mixture, pgd, y).tolist() == [0.0]
    assert expected_loss(mixture, arc, y).tolist() == [0.5]


def test_a_second_classifier_is_taken_along_without_losing_the_first():
    # The first move goes to the right as far as the ball does; both err to the right and up.
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([1])
    first = two_class(torch.tensor([-1.0, 0.0]), 0.5 + 0.1)
    second = two_class(torch.tensor([0.0, -1.0]), 0.5 + 0.05)
    mixture = Mixture([first, second], weights=[0.6, 0.4])
    one_step = ARC("L2", 0.2, steps=1, random_start=False)(mixture, x, y)[0]
    assert expected_loss(mixture, one_step, y).item() == pytest.approx(1.0)
    apart = Mixture([first, two_class(torch.tensor([0.0, -1.0]), 0.5 + 0.18)], weights=[0.6, 0.4])
    kept = ARC("L2", 0.2, steps=5, random_start=False)(apart, x, y)[0]
    assert expected_loss(apart, kept, y).item() == pytest.approx(0.6)


@pytest.mark.parametrize("norm", NORMS)
def test_expected_accuracy_never_rises_on_the_way(norm, generator):
    mixture = Mixture([curved(k) for k in range(3)], weights=[0.2, 0.5, 0.3])
    x = torch.rand(40, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (40,), generator=generator)
    attack = ARC(norm, 0.15 if norm == "Linf" else 0.4, steps=4)
    with frozen(mixture):
        objective = Objective(Members(mixture, y))
        visited = list(attack.visit(objective, x, x, y))
    assert len(visited) == attack.visits() == 5
    errors = torch.stack([score.errors for _, score in visited])
    assert (errors.diff(dim=0) >= 0).all()
    assert errors[-1].mean() > errors[0].mean() + 0.05
    for point, score in visited:
        torch.testing.assert_close(score.errors, expected_loss(mixture, point, y))


def test_the_nearest_rival_may_not_have_the_largest_logit():
    # Class 1 has the larger logit and no slope towards it to speak of; class 2 is close by.
    weight = torch.tensor([[0.0, 0.0], [0.01, 0.0], [0.0, 10.0]])
    net = linear_net(weight, torch.tensor([1.0, 0.9, -5.0]))
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    mixture = Mixture([net])
    for rivals, risk in ((1, 0.0), (2, 1.0)):
        attacked = ARC("L2", 0.2, steps=3, rivals=rivals, random_start=False)(mixture, x, y)[0]
        assert expected_loss(mixture, attacked, y).item() == risk


@pytest.mark.parametrize("norm", NORMS)
def test_constant_classifiers_are_said_and_stop_nothing(norm):
    def constant(bias):
        return two_class(torch.zeros(4), bias)

    x, y = torch.full((3, 1, 2, 2), 0.5), torch.ones(3, dtype=torch.int64)
    right, wrong, line = constant(1.0), constant(-1.0), two_class(torch.ones(4), -1.9)
    mixture = Mixture([right, wrong, line], weights=[0.2, 0.3, 0.5])
    with pytest.warns(GradientWarning, match=r"models\[0\]"):
        attacked = ARC(norm, 0.2, steps=2)(mixture, x, y)[0]
    torch.testing.assert_close(expected_loss(mixture, attacked, y), torch.full((3,), 0.8).double())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rivals": 0}, "rivals must be an integer >= 1"),
        ({"steps": 0}, "steps must be an integer >= 1"),
        ({"step_size": -1.0}, "step_size must be"),
        ({"step_size": math.nan}, "step_size must be"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(MixsolveError, match=words):
        ARC("L2", 0.5, **options)
