"""What attacks ask of classifiers: exact gradients and sums, warnings where gradients hide."""

import logging
import re
import warnings

import pytest
import torch
from attack_cases import curved, linear_classifiers

from mixsolve.base.errors import GradientWarning, MixsolveError
from mixsolve_torch import APGD, ARC, PGD, Mixture, Standard, Subset, expected_loss
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.core.losses import cross_entropy
from mixsolve_torch.models.classifiers import frozen


class Saturated(torch.nn.Module):
    """Right on images whose first pixel is at least 0.5, with no gradient there; else with one."""

    def forward(self, x):
        score = x.flatten(1)[:, :1]
        flat = torch.where(score >= 0.5, 1.0 + 0 * score, score - 1)
        return torch.cat([flat, torch.zeros_like(flat)], dim=1)


class Root(torch.nn.Module):
    """A classifier whose gradient is NaN, zero times infinity, where the first pixel is 0."""

    def forward(self, x):
        root = x.flatten(1)[:, :1].square().sqrt()
        return torch.cat([root, -root], dim=1)


def pixels(values):
    return torch.tensor(values)[:, None, None, None].repeat(1, 1, 1, 2)


def steady():
    return linear_classifiers(1, 2, generator=torch.Generator().manual_seed(1))[0]


def test_gradients_of_one_and_of_several_functions(batch):
    x, y = batch[0].double(), batch[1]
    mixture = Mixture([curved(0), curved(1), curved(2)], [0.4, 0.0, 0.6])

    def differences(logits, labels):
        return (logits - logits.gather(1, labels[:, None])).T

    with frozen(mixture):
        members = Members(mixture, y)
        assert (members.indices, members.weights) == ([0, 2], [0.4, 0.6])
        one = members.gradient(1, cross_entropy, x, y)
        several = members.gradient(1, differences, x, y)
    point = x.clone().requires_grad_()
    logits = mixture.models[2](point)
    expected = torch.autograd.grad(cross_entropy(logits, y).sum(), point, retain_graph=True)[0]
    torch.testing.assert_close(one.gradient, expected)
    assert torch.equal(one.wrong, logits.argmax(dim=1) != y)
    assert several.gradient.shape == (4, *x.shape)
    for c in range(4):
        value = logits[:, c] - logits.gather(1, y[:, None])[:, 0]
        expected = torch.autograd.grad(value.sum(), point, retain_graph=True)[0]
        torch.testing.assert_close(several.gradient[c], expected)
        torch.testing.assert_close(several.values[c], value.detach())
    assert not any(part.requires_grad for part in (*one, *several))


def test_all_wrong_is_the_total_to_the_last_bit(batch):
    y = batch[1]
    for count in range(1, 14):
        members = Members(Mixture([torch.nn.Flatten()] * count), y)
        every = torch.ones(count, 5, dtype=torch.bool)
        assert (members.expected(every) == members.total).all()
        every[0, 0] = False
        assert members.expected(every)[0] < members.total


def test_a_vanishing_gradient_names_its_classifier():
    x, y = pixels([0.9, 0.8, 0.7, 0.1]), torch.zeros(4, dtype=torch.int64)
    attack = PGD("Linf", 0.05, steps=2, random_start=False)
    message = r"models\[1\] gives a gradient of exactly zero on 100.0% of .* correctly.*masking"
    with pytest.warns(GradientWarning, match=message):
        attack(Mixture([steady(), Saturated()]), x, y)
    # Wrong answers without a gradient are no obstacle, and neither are classifiers not played.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(Mixture([steady(), Saturated()]), x, y + 1)
        attack(Mixture([steady(), Saturated()], [1, 0]), x, y)


@pytest.mark.parametrize(
    ("attack", "told", "untold"),
    [
        (PGD("Linf", 0.05, steps=2), "follows cross-entropy, which saturates", "logits th"),
        (
            APGD("Linf", 0.05, steps=2, loss="margin"),
            "follows margin, which saturates",
            "logits th",
        ),
        (
            APGD("Linf", 0.05, steps=2, loss="dlr"),
            "follows dlr, which does not.*logits the",
            "'dlr'",
        ),
        (ARC("Linf", 0.05, steps=2), "follows differences of logits, which does not sat", "'dlr'"),
        (Subset("Linf", 0.05, steps=2), "follows differences of logits, which does", "'dlr'"),
    ],
    ids=["pgd", "apgd margin", "apgd dlr", "arc", "subset"],
)
def test_the_way_out_is_not_what_was_tried(attack, told, untold):
    class Flat(torch.nn.Module):
        """Three logits that hang on the image by a factor of zero, the first the largest."""

        def forward(self, x):
            return 0 * x.flatten(1).sum(dim=1, keepdim=True) + torch.tensor([[2.0, 1.0, 0.0]])

    x, y = pixels([0.9, 0.8, 0.7, 0.1]), torch.zeros(4, dtype=torch.int64)
    with pytest.warns(GradientWarning, match="gradient of exactly zero on 100.0%") as caught:
        attack(Mixture([Flat()]), x, y)
    message = str(caught[0].message)
    assert re.search(told, message)
    assert untold not in message


def test_few_vanishing_gradients_are_no_sign():
    class Mostly(Saturated):
        """As above, and right at the others too, where its gradient lives."""

        def forward(self, x):
            return super().forward(x) + torch.tensor([2.0, 0.0])

    y = torch.zeros(20, dtype=torch.int64)
    attack = PGD("Linf", 0.0, steps=1, random_start=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(Mixture([Mostly()]), pixels([0.9] + [0.1] * 19), y)
    with pytest.warns(GradientWarning, match=r"models\[0\] .* exactly zero on 10.0% of"):
        attack(Mixture([Mostly()]), pixels([0.9] * 2 + [0.1] * 18), y)


def test_a_gradient_that_is_no_number_names_its_classifier():
    x, y = pixels([0.0, 0.3, 0.5, 0.7]), torch.tensor([1, 1, 1, 1])
    attack = PGD("Linf", 0.1, steps=1, random_start=False)
    message = r"models\[1\] gives gradients with NaN or infinity on 25.0% of the images"
    with pytest.warns(GradientWarning, match=message):
        attacked = attack(Mixture([steady(), Root()]), x, y)
    assert attacked.isfinite().all()


def test_logits_that_are_no_numbers_are_refused_by_every_attack(linear, batch):
    broken = Mixture([linear(0), linear(1, scale=float("inf"))])
    for attack in (PGD("L2", 0.1), APGD("L2", 0.1, steps=3), Standard("L2", 0.1, steps=3)):
        with pytest.raises(MixsolveError, match=r"models\[1\] must have finite logits"):
            attack(broken, *batch)


def test_half_precision_runs_in_bfloat16_and_is_judged_in_float32():
    class TwoFaced(torch.nn.Module):
        """In bfloat16 it errs at the images alone, in float32 away from them alone."""

        def forward(self, x):
            dtypes.append(torch.mm(x.flatten(1), torch.ones(2, 1)).dtype)
            away = (x.flatten(1)[:, :1] - 0.5).abs()
            margin = 9 * away - 0.5 if dtypes[-1] == torch.bfloat16 else 0.05 - away
            return torch.cat([margin, torch.zeros_like(margin)], dim=1)

    def rising(logits, labels):
        return logits[:, 0]

    dtypes = []
    x, y = pixels([0.501, 0.499]), torch.tensor([0, 0])
    mixture = Mixture([TwoFaced()])
    attack = PGD("Linf", 0.3, steps=3, random_start=False, loss=rising, autocast=True)
    attacked = attack(mixture, x, y)[0]
    assert set(dtypes) == {torch.bfloat16, torch.float32}
    assert attacked.dtype == torch.float32
    assert (expected_loss(mixture, attacked, y) == 1).all()
    # The search itself saw no error but at the start.
    with frozen(mixture):
        seen = Members(mixture, y, autocast=True)
        assert seen.wrong(x, y).all()
        assert not seen.wrong(attacked, y).any()


def test_a_pass_that_is_too_large_is_halved(batch, caplog):
    class Small(torch.nn.Module):
        """A classifier on a device with room for so many images."""

        def __init__(self, room):
            super().__init__()
            self.body, self.room, self.largest = curved(), room, 0

        def forward(self, x):
            if len(x) > self.room:
                raise torch.cuda.OutOfMemoryError("out of memory")
            self.largest = max(self.largest, len(x))
            return self.body(x)

    x, y = batch[0].double(), batch[1]
    attack = APGD("L2", 0.2, steps=5, restarts=3)
    expected = attack(Mixture([curved()]), x, y)
    tight = Small(room=4)
    with caplog.at_level(logging.WARNING):
        attacked = attack(Mixture([tight]), x, y)
    assert re.search(r"out of memory with 21 images in a pass; going on with 11", caplog.text)
    assert 2 <= tight.largest <= 4
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-9)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        attack(Mixture([Small(room=0)]), x, y)


def test_classifiers_are_compiled_where_that_is_asked_for(batch, linear, monkeypatch):
    compiled = []

    def record(model):
        compiled.append(model)
        return torch.nn.Sequential(model)

    monkeypatch.setattr(torch, "compile", record)
    mixture = Mixture([linear(0), linear(1), linear(2)], [0.5, 0.5, 0.0])
    plain = PGD("L2", 0.1, steps=2)(mixture, *batch)
    assert compiled == []
    assert torch.equal(PGD("L2", 0.1, steps=2, compile=True)(mixture, *batch), plain)
    assert compiled == [mixture.models[0], mixture.models[1]]
