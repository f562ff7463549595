"""A classifier that draws random numbers is named wherever losses are recorded; no other is."""

import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import PGD, Mixture, build_losses, evaluate, grow, solve_game

SAID = r"returns other logits, by .*dropout or noise that stays on.*switch that off in eval mode"


class Noisy(torch.nn.Module):
    """Adds noise to the logits of a network."""

    def __init__(self, network, scale):
        super().__init__()
        self.network = network
        self.scale = scale
        self.draws = torch.Generator().manual_seed(0)

    def forward(self, x):
        logits = self.network(x)
        return logits + self.scale * torch.randn(logits.shape, generator=self.draws)


class LeftOn(torch.nn.Module):
    """Dropout that does not look at the mode."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.draws = torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.network(x * torch.rand(x.shape, generator=self.draws).ge(0.5) * 2)


class Rounding(torch.nn.Module):
    """The same logits up to the last bits: sums in another order."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.network(x) * (1 + self.calls % 2 * torch.finfo(x.dtype).eps)


@pytest.mark.parametrize(
    "call",
    [
        lambda *given: build_losses(*given),
        lambda *given: build_losses(*given, loss="margin", batch_size=2),
        lambda *given: solve_game(*given),
        lambda *given: evaluate(*given),
        lambda *given: grow(*given, held_out=0.5, epochs=1),
    ],
    ids=["build_losses", "batches", "solve_game", "evaluate", "grow"],
)
@pytest.mark.parametrize("random", [lambda net: Noisy(net, 0.1), LeftOn], ids=["noise", "dropout"])
def test_a_random_classifier_is_named(call, random, linear, batch):
    mixture = Mixture([linear(0), random(linear(1))])
    with pytest.raises(MixsolveError, match=r"^models\[1\] " + SAID):
        call(mixture, batch, PGD("Linf", 0.1, steps=2))


def test_a_new_classifier_that_is_random_is_named(linear, batch):
    x, y = (part.repeat(4, *[1] * (part.ndim - 1)) for part in batch)
    with pytest.raises(MixsolveError, match=r"^the classifier of round 1 " + SAID):
        grow(
            Mixture([linear(0)]),
            (x, y),
            PGD("Linf", 0.1, steps=2),
            lambda number: LeftOn(linear(number)),
            epochs=1,
        )


def test_dropout_that_looks_at_the_mode_and_rounding_are_fine(linear, batch):
    wake = torch.nn.Sequential(torch.nn.Dropout(0.5), linear(1)).train()
    members = [linear(0), wake, Rounding(linear(2)), linear(3).bfloat16()]
    losses = build_losses(Mixture(members), batch, PGD("Linf", 0.1, steps=2), "margin")
    assert losses.values.shape == (7, 2, 4)
    assert wake.training


def test_classifiers_are_run_again_once(linear, batch):
    calls = []
    mixture = Mixture([linear(0), linear(1)])
    for k, model in enumerate(mixture.models):
        model.register_forward_hook(lambda *given, k=k: calls.append(k))
    build_losses(mixture, batch, [], batch_size=2)
    # 4 batches of clean images, the first one twice.
    assert sorted(calls) == [0] * 5 + [1] * 5
