"""Losses of one classifier by their definitions, and the expected loss by an explicit loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import (
    Mixture,
    bounded_margin,
    cross_entropy,
    expected_loss,
    zero_one,
)
from mixsolve_torch.core.losses import get_loss

KINDS = ["zero-one", "cross-entropy", "margin"]


def reference(kind, scores, label):
    """The loss of one list of scores, in plain Python."""
    others = [score for c, score in enumerate(scores) if c != label]
    if kind == "zero-one":
        return float(max(others) >= scores[label])
    top = max(scores)
    total = sum(math.exp(score - top) for score in scores)
    if kind == "cross-entropy":
        return math.log(total) + top - scores[label]
    p = [math.exp(score - top) / total for score in scores]
    return (1 - (p[label] - max(q for c, q in enumerate(p) if c != label))) / 2


FUNCTIONS = dict(zip(KINDS, (zero_one, cross_entropy, bounded_margin), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_losses_by_their_definitions(kind, data):
    classes = data.draw(st.integers(2, 5))
    # Few distinct values, so that ties are common.
    score = st.integers(-4, 4).map(float)
    rows = data.draw(
        st.lists(st.lists(score, min_size=classes, max_size=classes), min_size=1, max_size=4)
    )
    labels = data.draw(
        st.lists(st.integers(0, classes - 1), min_size=len(rows), max_size=len(rows))
    )
    logits = torch.tensor(rows, dtype=torch.float64)
    answer = FUNCTIONS[kind](logits, torch.tensor(labels))
    expected = [reference(kind, row, label) for row, label in zip(rows, labels, strict=True)]
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer, torch.tensor(expected, dtype=torch.float64))
    # A leading axis, of classifiers say, is carried along.
    stacked = FUNCTIONS[kind](torch.stack([logits, -logits]), torch.tensor(labels))
    assert torch.equal(stacked[0], answer)


def test_a_tie_is_an_error():
    logits = torch.tensor([[1.0, 1.0, 0.0]])
    assert zero_one(logits, torch.tensor([0])).item() == 1
    assert bounded_margin(logits, torch.tensor([0])).item() == 0.5


def test_margin_stays_in_its_bounds_and_has_a_gradient():
    logits = torch.tensor([[300.0, -300.0], [-300.0, 300.0], [0.1, 0.0]], requires_grad=True)
    losses = bounded_margin(logits, torch.tensor([0, 0, 0]))
    assert losses[0] == 0
    assert losses[1] == 1
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient[2, 0] < 0 < gradient[2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_expected_loss_is_the_expectation_of_losses(kind, linear, batch):
    x, y = batch
    models = [linear(seed) for seed in range(3)]
    weights = [0.5, 0.2, 0.3]
    expected = torch.zeros(7, dtype=torch.float64)
    for weight, model in zip(weights, models, strict=True):
        for i, scores in enumerate(model(x).tolist()):
            expected[i] += weight * reference(kind, scores, int(y[i]))
    mixture = Mixture(models, weights)
    answer = expected_loss(mixture, x, y, kind)
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer.detach(), expected, rtol=1e-5, atol=1e-6)
    # Neither the loss of averaged logits nor that of averaged probabilities.
    averaged = sum(w * m(x) for w, m in zip(weights, models, strict=True))
    for wrong in (averaged, mixture(x)):
        assert (FUNCTIONS[kind](wrong, y) - answer).abs().max() > 0.01


def test_the_expected_zero_one_loss_is_exact_on_half_a_vote(linear, batch):
    x, y = batch
    models = [linear(seed) for seed in range(3)]
    weights = [0.1, 0.2, 0.7]
    answer = expected_loss(Mixture(models, weights), x, y)
    sums = {0.0, 0.1, 0.2, 0.7, 0.1 + 0.2, 0.1 + 0.7, 0.2 + 0.7, 0.1 + 0.2 + 0.7}
    assert set(answer.tolist()) <= sums
    assert len(set(answer.tolist())) > 2


def test_the_expected_loss_has_gradients_in_images_and_classifiers(linear, batch):
    x, y = batch
    models = [linear(seed) for seed in range(2)]
    x = x.clone().requires_grad_()
    expected_loss(Mixture(models, [0.25, 0.75]), x, y, "cross-entropy").sum().backward()
    by_hand = torch.zeros_like(x)
    for weight, model in zip((0.25, 0.75), models, strict=True):
        copy = x.detach().clone().requires_grad_()
        loss = weight * torch.nn.functional.cross_entropy(model(copy), y, reduction="sum")
        by_hand += torch.autograd.grad(loss, copy)[0]
    torch.testing.assert_close(x.grad, by_hand)
    assert models[0][1].weight.grad is not None


def test_a_classifier_of_weight_zero_does_not_count(linear, batch):
    x, y = batch
    diverged = linear(1, scale=float("nan"))
    mixture = Mixture([linear(0), diverged], [1, 0])
    assert torch.equal(
        expected_loss(mixture, x, y, "margin"), expected_loss(Mixture([linear(0)]), x, y, "margin")
    )
    mixture.set_weights([0.5, 0.5])
    with pytest.raises(MixsolveError, match=r"models\[1\].*got nan for image 0 of the batch"):
        expected_loss(mixture, x, y)
    mixture.set_weights([0, 1])
    with pytest.raises(MixsolveError, match=r"models\[1\] must return finite logits"):
        expected_loss(mixture, x, y)


def test_loss_functions_of_ones_own(linear, batch):
    x, y = batch
    mixture = Mixture([linear(0), linear(1)])

    def brier(logits, labels):
        target = torch.nn.functional.one_hot(labels, 4)
        return (logits.softmax(dim=1) - target).square().sum(dim=1)

    own = [brier(model(x), y) for model in mixture.models]
    torch.testing.assert_close(
        expected_loss(mixture, x, y, brier), (0.5 * (own[0] + own[1])).double()
    )
    assert get_loss(brier).name == "brier"
    for kind, function in FUNCTIONS.items():
        assert get_loss(function) is get_loss(kind)
    with pytest.raises(MixsolveError, match=r"one loss an image.*shape \(7,\); got \(\).*'none'"):
        expected_loss(mixture, x, y, torch.nn.functional.cross_entropy)


def test_losses_that_are_none():
    with pytest.raises(MixsolveError, match=r"'zero-one', 'cross-entropy', 'margin'.*got 'hinge'"):
        get_loss("hinge")
    with pytest.raises(MixsolveTypeError, match=r"loss must be a name or a function.*got int"):
        get_loss(3)


@pytest.mark.parametrize("function", FUNCTIONS.values())
@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (torch.zeros(3), torch.zeros(3).long(), MixsolveError, r"at least 2 classes; got \(3,\)"),
        (torch.zeros(3, 1), torch.zeros(3).long(), MixsolveError, r"2 classes; got \(3, 1\)"),
        (torch.zeros(3, 2), torch.zeros(2).long(), MixsolveError, r"shape \(3,\).*got \(2,\)"),
        (torch.zeros(3, 2), torch.zeros(3), MixsolveTypeError, r"integer.*float32.*labels.long"),
        (torch.zeros(3, 2), [0, 0, 0], MixsolveTypeError, r"torch.Tensor.*got list"),
        (torch.zeros(3, 2), torch.tensor([0, 2, 0]), MixsolveError, r"largest label is 2"),
        (torch.zeros(3, 2), torch.tensor([0, -1, 0]), MixsolveError, r"got -1 at index 1"),
        (
            torch.tensor([[0.0, 1.0], [0.0, float("inf")]]),
            torch.tensor([0, 1]),
            MixsolveError,
            r"finite; got inf at index \(1, 1\)",
        ),
    ],
)
def test_logits_and_labels_that_do_not_fit(function, logits, labels, error, message):
    with pytest.raises(error, match=message):
        function(logits, labels)
