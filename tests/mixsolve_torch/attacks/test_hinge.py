"""The hinge: its gradient is that of the classifiers still right; a rival can be aimed at."""

import pytest
import torch
from attack_cases import curved, two_class
from torch.nn.functional import one_hot

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import APGD, Mixture, TargetedAPGD, expected_loss
from mixsolve_torch.attacks.boundary import _gaps
from mixsolve_torch.attacks.hinge import DERIVED_HINGE, SLACK, hinge, targeted_hinge
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective
from mixsolve_torch.core.losses import errs
from mixsolve_torch.models.classifiers import frozen


def reference(logits, labels, target=None):
    """Return the hinge, row by row."""
    values = []
    for i, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
        gap = max(z for c, z in enumerate(row) if c != label) - row[label]
        slack = SLACK * (max(row) - min(row))
        aimed = gap if target is None else row[int(target[i])] - row[label]
        values.append(slack if gap >= slack else min(aimed, slack))
    return torch.tensor(values, dtype=logits.dtype)


def test_hinge_against_the_formula(generator):
    logits = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (200,), generator=generator)
    target = (labels + torch.randint(1, 5, (200,), generator=generator)) % 5
    torch.testing.assert_close(hinge(logits, labels), reference(logits, labels))
    aimed = targeted_hinge(target)
    torch.testing.assert_close(aimed(logits, labels), reference(logits, labels, target))
    # It scales with the logits.
    torch.testing.assert_close(hinge(7 * logits, labels), 7 * hinge(logits, labels))
    point = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(aimed(point, labels).sum(), point)
    right = logits.argmax(dim=1) == labels
    towards = (one_hot(target, 5) - one_hot(labels, 5)).double()
    assert torch.equal(gradient[right], towards[right])
    assert (gradient[hinge(logits, labels) == SLACK * (logits.amax(1) - logits.amin(1))] == 0).all()


def test_classifiers_that_err_drop_out_of_the_gradient():
    """The first errs by far and would pull the pixels down, the second needs them up."""
    weight = torch.tensor([1.0, 1.0])
    fooled, right = two_class(-100 * weight, bias=200.0), two_class(weight, bias=-1.5)
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    mixture = Mixture([fooled, right])

    def plain(logits, labels):
        return logits[:, 1] - logits[:, 0]

    with frozen(mixture):
        _, gradient = Objective(Members(mixture, y), plain).score_and_gradient(x, y)
        assert gradient.flatten().tolist() == pytest.approx([-49.5, -49.5])
        _, gradient = Objective(Members(mixture, y), "hinge").score_and_gradient(x, y)
        assert gradient.flatten().tolist() == pytest.approx([0.5, 0.5])
    found = {
        loss: APGD("Linf", 0.3, loss=loss, random_start=False)(mixture, x, y)[0]
        for loss in ("hinge", plain)
    }
    risks = [expected_loss(mixture, point, y).item() for point in found.values()]
    assert risks == [1, 0.5]


def test_a_rival_is_aimed_at():
    """Class 1 is the likeliest rival, out of reach; class 2 is within reach."""
    layer = torch.nn.utils.skip_init(torch.nn.Linear, 2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 20.0]]))
        layer.bias.copy_(torch.tensor([1.0, 0.5, -10.0]))
    mixture = Mixture([torch.nn.Sequential(torch.nn.Flatten(), layer)])
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    options = {"loss": "hinge", "steps": 10, "random_start": False}
    first = APGD("Linf", 0.2, rival=1, **options)(mixture, x, y)[0]
    second = APGD("Linf", 0.2, rival=2, **options)(mixture, x, y)[0]
    assert first.flatten().tolist() == pytest.approx([0.7, 0.5])
    assert second[..., 1].item() > 0.55
    assert expected_loss(mixture, first, y).item() == 0
    assert expected_loss(mixture, second, y).item() == 1
    every = TargetedAPGD("Linf", 0.2, steps=10, random_start=False)
    assert expected_loss(mixture, every(mixture, x, y)[0], y).item() == 1
    one = TargetedAPGD("Linf", 0.2, steps=10, targets=1, random_start=False)
    assert expected_loss(mixture, one(mixture, x, y)[0], y).item() == 0


def test_the_rival_is_that_of_the_weights(batch):
    x, y = batch[0].double(), batch[1]
    models = [curved(0), curved(1)]
    attack = APGD("L2", 0.2, loss="hinge", rival=2, steps=4)
    own = attack(Mixture(models, [0, 1]), x, y)
    assert torch.equal(own, attack(Mixture([models[1]]), x, y))
    assert not torch.equal(own, attack(Mixture(models, [1, 0]), x, y))


def test_several_rivals_in_one_batch_are_what_each_is_alone(batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(0), curved(1)], [0.3, 0.7])
    options = {"loss": "hinge", "steps": 6}
    every = APGD("L2", 0.3, rival=[1, 3], restarts=4, images_per_pass=5, **options)
    assert every.names(2) == ["APGD-hinge-rival-1-rival-3 L2 0.3"]
    starts = every.starts(x, torch.Generator().manual_seed(3))
    points, scores = every.search(mixture, starts, x, y)
    for rival, start, point, score in zip(
        (1, 3, 1, 3), starts.split(len(x)), points, scores, strict=True
    ):
        alone = APGD("L2", 0.3, rival=rival, **options).search(mixture, start, x, y)
        torch.testing.assert_close(point, alone[0][0])
        torch.testing.assert_close(score.value, alone[1][0].value)
    assert not torch.allclose(points[0], points[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD("L2", 1, rival=1), r"loss must be 'hinge' .* got 'cross-entropy'"),
        (lambda: APGD("L2", 1, rival=0, loss="hinge"), r"rival must be an integer >= 1"),
        (lambda: APGD("L2", 1, rival=(1, 0), loss="hinge"), r"rival must be an integer >= 1"),
        (lambda: TargetedAPGD("L2", 1, targets=0), r"targets must be an integer >= 1"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(MixsolveError, match=message):
        make()


def test_a_rival_beyond_the_classes(batch):
    attack = APGD("L2", 0.1, loss="hinge", rival=4)
    with pytest.raises(MixsolveError, match=r"below the number of classes, 4; got 4"):
        attack(Mixture([curved()]), batch[0].double(), batch[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivatives_that_are_written_out_are_those_of_autograd(dtype):
    draws = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(200, 5, generator=draws, dtype=dtype)
    logits[:20, 1:] = logits[:20, 1:2]  # rivals that tie
    labels = torch.randint(5, (200,), generator=draws)
    target = (labels + torch.randint(1, 5, (200,), generator=draws)) % 5
    for function in (DERIVED_HINGE, targeted_hinge(target), _gaps(3)):
        point = logits.clone().requires_grad_()
        values = function(point, labels)
        found = function.derived(logits, labels)
        assert torch.equal(found.values, values)
        assert torch.equal(found.wrong, errs(logits, labels))
        for row, own in zip(
            torch.atleast_2d(values), found.slopes.view(-1, *logits.shape), strict=True
        ):
            (slopes,) = torch.autograd.grad(row.sum(), point, retain_graph=True)
            torch.testing.assert_close(own, slopes)


def test_logits_that_are_no_numbers_count_as_errors():
    logits, labels = torch.tensor([[torch.nan, 0.0], [1.0, torch.nan]]), torch.tensor([0, 0])
    assert DERIVED_HINGE.judged(logits, labels)[1].all()
    assert DERIVED_HINGE.derived(logits, labels).wrong.all()
