"""Losses of the networks' own logits: formulas, limits, gradients."""

import pytest
import torch
from torch.nn import functional

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.training import LossConfig, TrainConfig
from mixsolve_torch.training.member_loss import member_loss

LABELS = torch.tensor([0, 3, 2, 1, 3])


def logits(scale=2.0):
    draws = torch.Generator().manual_seed(0)
    return scale * torch.randn(5, 4, generator=draws, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({}, lambda p, _: -p.log()),
        ({"member": "error"}, lambda p, _: 1 - p),
        ({"member": "gce", "q": 0.7}, lambda p, _: (1 - p**0.7) / 0.7),
        ({"member": "gce", "q": 1.0}, lambda p, _: 1 - p),
        ({"member": "mce"}, lambda p, turned: -p.log() - turned),
    ],
)
def test_losses_are_their_formulas(options, formula):
    z = logits()
    p = z.softmax(1)[range(5), LABELS]
    turned = torch.stack(
        [
            sum((-row).log_softmax(0)[c] for c in range(4) if c != label) / 3
            for row, label in zip(z, LABELS.tolist(), strict=True)
        ]
    )
    found = member_loss(LossConfig(**options))(z, LABELS)
    torch.testing.assert_close(found, formula(p, turned))


def test_gce_is_bounded_and_tends_to_the_cross_entropy():
    z = torch.tensor([[0.0, 200.0], [30.0, 0.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0])
    for q in (1e-3, 0.5, 1.0):
        loss = member_loss(LossConfig(member="gce", q=q))(z, labels)
        assert bool((loss <= 1 / q + 1e-12).all())
        (slope,) = torch.autograd.grad(loss.sum(), z)
        assert slope.isfinite().all()
    small = member_loss(LossConfig(member="gce", q=1e-6))(logits(), LABELS)
    torch.testing.assert_close(
        small, functional.cross_entropy(logits(), LABELS, reduction="none"), rtol=1e-4, atol=0
    )


def test_the_gradient_of_gce_is_that_of_the_cross_entropy_times_a_power_of_p():
    z = logits().requires_grad_()
    (plain,) = torch.autograd.grad(functional.cross_entropy(z, LABELS, reduction="sum"), z)
    (slope,) = torch.autograd.grad(member_loss(LossConfig(member="gce", q=0.4))(z, LABELS).sum(), z)
    p = z.detach().softmax(1)[range(5), LABELS]
    torch.testing.assert_close(slope, plain * p[:, None] ** 0.4)


@pytest.mark.parametrize("q", [0.0, 1.1])
def test_q_is_checked(q):
    with pytest.raises(MixsolveError, match=r"loss\.q"):
        TrainConfig(loss=LossConfig(member="gce", q=q))
