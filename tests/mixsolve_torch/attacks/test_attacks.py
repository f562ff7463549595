"""Attacks: inside ball and box, at the worst case where it is known, the same for the same seed."""

import dataclasses

import numpy as np
import pytest
import torch
from attack_cases import (
    CASES,
    NORMS,
    assert_inside,
    attacks,
    balls,
    curved,
    linear_classifiers,
    two_class,
)
from hypothesis import given
from scipy.optimize import linprog

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import PGD, Mixture, TransferPGD, expected_loss
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.models.classifiers import frozen


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
    starts = [make_ball(norm, eps).random_start(x, generator) for _ in range(restarts)]
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


def test_pgd_in_l1_reaches_the_worst_case_of_a_linear_classifier_in_the_box(generator):
    weight = torch.randn(12, generator=generator, dtype=torch.float64)
    x = torch.rand(20, 3, 2, 2, generator=generator, dtype=torch.float64)
    mixture, y = Mixture([two_class(weight).double()]), torch.zeros(20, dtype=torch.int64)
    at_once = {"steps": 1, "step_size": 2.5, "random_start": False}
    for options, share in ((at_once, 1), ({"steps": 100}, 0.85)):
        attack = PGD("L1", 2.5, **options)
        found = attack(mixture, x, y)[0]
        for image, own in zip(x, found, strict=True):
            best = linprog(
                np.concatenate([-weight, weight]),
                A_ub=np.ones((1, 24)),
                b_ub=[2.5],
                bounds=[(0, room) for room in [*(1 - image.flatten()), *image.flatten()]],
            )
            gained = float(weight @ (own - image).flatten())
            assert -best.fun * (1 + 1e-9) >= gained >= -best.fun * (share - 1e-9)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_pgd_on_one_classifier_is_pgd(norm, batch):
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
def test_more_restarts_are_never_worse(norm, batch):
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


@pytest.mark.parametrize("case", CASES)
@given(ball=balls())
def test_attacks_stay_inside(case, ball):
    center, norm, eps, seed = ball
    if norm == "Linf":
        eps = min(eps, 1.0)  # the box has no larger radius
    draws = torch.Generator().manual_seed(seed)
    mixture = Mixture(linear_classifiers(2, center[0].numel(), generator=draws))
    y = torch.zeros(len(center), dtype=torch.int64)
    attack = attacks(norm, eps, steps=2)[case]
    candidates = attack(mixture, center, y, draws)
    assert candidates.shape == (len(attack.names(2)), *center.shape)
    assert not candidates.requires_grad
    for candidate in candidates:
        assert_inside(candidate, center, norm, eps)


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_gives_the_same_candidates(case, linear, batch):
    attack, mixture = attacks("L2")[case], Mixture([linear(0), linear(1)])
    first = attack(mixture, *batch, torch.Generator().manual_seed(3))
    assert torch.equal(first, attack(mixture, *batch, torch.Generator().manual_seed(3)))
    assert torch.equal(attack(mixture, *batch), attack(mixture, *batch))
    if case in ("pgd", "pgd every restart", "uniform"):
        assert not torch.equal(first, attack(mixture, *batch, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("uniform", "transfer")])
@pytest.mark.parametrize("norm", NORMS)
def test_no_attack_is_weaker_than_the_images_it_starts_from(case, norm, batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(seed) for seed in range(3)], [0.2, 0.3, 0.5])
    attack = attacks(norm, 0.2)[case]
    start = x
    if attack.random_start and case != "standard":
        start = make_ball(norm, 0.2).random_start(x, torch.Generator().manual_seed(0))
    attacked = attack(mixture, x, y)[0]
    assert (expected_loss(mixture, attacked, y) >= expected_loss(mixture, start, y)).all()


@pytest.mark.parametrize("case", [case for case in CASES if case != "uniform"])
def test_the_passes_change_nothing(case, batch):
    x, y = batch[0][:4].double(), batch[1][:4]
    mixture = Mixture([curved(0), curved(1)], [0.4, 0.6])
    attack = attacks("L2", 0.2)[case]
    expected = attack(mixture, x, y)
    for per_pass in (1, 3):
        split = dataclasses.replace(attack, images_per_pass=per_pass)
        torch.testing.assert_close(split(mixture, x, y), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_a_trajectory_passes_through_the_attack(case, batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(0), curved(1)], [0.4, 0.6])
    attack = attacks("L2", 0.2)[case]
    with frozen(mixture):
        visited = list(attack.trajectory(mixture, x, y, torch.Generator().manual_seed(5)))
    names = attack.trajectory_names(2)
    assert len(visited) == len(names) == len(set(names))
    for point in visited:
        assert_inside(point, x, "L2", 0.2)
    found = attack(mixture, x, y, torch.Generator().manual_seed(5))
    for candidate in found:
        near = torch.stack([(point - candidate).abs().amax(dim=(1, 2, 3)) for point in visited])
        assert (near.amin(dim=0) < 1e-12).all()
    if case.startswith(("pgd", "apgd")):
        assert len(visited) == attack.restarts * (attack.steps + 1)
        assert not torch.equal(visited[0], visited[-1])


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
