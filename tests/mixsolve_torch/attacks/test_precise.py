"""Classifiers in double precision: gradients that underflow in the classifier's own."""

import warnings

import pytest
import torch
from attack_cases import NORMS, two_class

from mixsolve.base.errors import GradientWarning
from mixsolve_torch import APGD, Mixture, Standard, expected_loss
from mixsolve_torch.attacks.precise import Precise, with_gradients
from mixsolve_torch.models.passes import counted


class Saturated(torch.nn.Module):
    """Probabilities softmax(scale z) of a linear z, with rivals that underflow in float32."""

    def __init__(self, scale, bias=0.0):
        super().__init__()
        self.logits, self.scale = two_class(torch.arange(1.0, 5.0), bias=bias), scale

    def forward(self, x):
        return (self.scale * self.logits(x)).softmax(dim=1)


class OwnPrecision(Saturated):
    """One that computes in float32 whatever it gets."""

    def forward(self, x):
        return super().forward(x.detach().float()).to(x.dtype)


def images(count=5):
    draws = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, 2, 2, generator=draws), torch.zeros(count, dtype=torch.int64)


def test_logarithms_of_probabilities_have_the_gradient_of_the_logits():
    model, (x, y) = Saturated(50.0, bias=-14.0), images()
    mixture = Mixture([model])
    replaced, signs = with_gradients(mixture, [0], x, y, images_per_pass=2)
    assert signs[0].taken == 5
    assert signs[0].vanished == 0
    point = x.double().requires_grad_()
    logits = replaced.models[0](point)
    (slope,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), point)
    wanted = 50 * torch.arange(1.0, 5.0).double().view(1, 1, 2, 2).expand(5, 1, 2, 2)
    torch.testing.assert_close(slope, wanted)
    # In its own precision it has none, and stays as it is.
    point = x.clone().requires_grad_()
    (own,) = torch.autograd.grad((model(point)[:, 1] - model(point)[:, 0]).sum(), point)
    assert not own.any()
    assert all(part.dtype == torch.float32 for part in model.parameters())


def test_logits_are_not_taken_for_probabilities():
    model, (x, y) = two_class(torch.ones(4), bias=-3.0), images()
    replaced, _ = with_gradients(Mixture([model]), [0], x, y, images_per_pass=8)
    assert isinstance(replaced.models[0], Precise)
    torch.testing.assert_close(replaced.models[0](x), model.double()(x.double()))


def test_what_has_no_gradient_in_double_precision_either_stays():
    x, y = images()
    models = [OwnPrecision(50.0, -14.0), Saturated(1e4, -14.0), Saturated(50.0, -14.0)]
    mixture = Mixture(models)
    replaced, signs = with_gradients(mixture, [0, 1], x, y, images_per_pass=8)
    assert replaced is mixture
    assert signs == {}
    replaced, signs = with_gradients(mixture, [0, 1, 2], x, y, images_per_pass=8)
    assert list(replaced.models[:2]) == models[:2]
    assert isinstance(replaced.models[2], Precise)
    assert set(signs) == {2}


@pytest.mark.parametrize("norm", NORMS)
def test_standard_fools_what_saturates_as_if_it_did_not(norm):
    """On a linear classifier all images fall that do where its logits are seen."""
    x, y = images(40)
    eps = {"Linf": 0.12, "L2": 0.2, "L1": 0.3}[norm]
    hidden, seen = Saturated(60.0, bias=-6.5), two_class(torch.arange(1.0, 5.0), bias=-6.5)
    exact = APGD(norm, eps, loss="margin")(Mixture([seen]), x, y)[0]
    wanted = expected_loss(Mixture([seen]), exact, y)
    assert 0.3 < wanted.float().mean() < 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientWarning)  # gradients led everywhere
        found = Standard(norm, eps, steps=10)(Mixture([hidden]), x, y)[0]
    assert found.dtype == x.dtype
    assert (expected_loss(Mixture([hidden]), found, y) >= wanted).all()


def test_a_saturated_classifier_beside_another_one_is_followed_too():
    x, y = images(20)
    mixture = Mixture([Saturated(60.0, bias=-7.0), two_class(torch.ones(4), bias=-2.5)])
    plain = Mixture([two_class(torch.arange(1.0, 5.0), bias=-7.0), mixture.models[1]])
    found = Standard("Linf", 0.1, steps=10)(mixture, x, y)[0]
    wanted = Standard("Linf", 0.1, steps=10)(plain, x, y)[0]
    assert torch.equal(expected_loss(mixture, found, y), expected_loss(plain, wanted, y))


def test_passes_in_double_precision_count():
    model, (x, y) = Saturated(50.0, bias=-14.0), images()
    with counted() as passes:
        with_gradients(Mixture([model]), [0], x, y, images_per_pass=8)
    assert (passes.forward, passes.backward) == (10, 5)  # and once to look at the outputs
