"""Margin boosting: the ensemble under attack, what the new network learns, and who is drawn."""

import copy

import pytest
import torch
from test_methods import EPS, Counted, algorithm, images, network, parameters, settings

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.training import LossConfig, MRBoostConfig, TrainConfig, WeightsConfig


def mrboost(count=2, epochs=1, **options):
    weights = WeightsConfig(update="none")
    sections = {"weights": weights, "method": "mrboost", "mrboost": MRBoostConfig(**options)}
    return settings(count, epochs=epochs, **sections)


def margins(logits, y):
    """The MCE loss of a batch, written out image by image."""
    total = 0
    for row, label in zip(logits, y.tolist(), strict=True):
        others = [c for c in range(len(row)) if c != label]
        turned = sum((-row).log_softmax(0)[c] for c in others) / len(others)
        total = total - row.log_softmax(0)[label] - turned
    return total / len(y)


@pytest.mark.parametrize("learns", ["own", "ensemble"])
def test_a_new_network_learns_where_the_ensemble_is_weakest(learns):
    run = algorithm(mrboost(2, learns=learns))
    while run.t < run.steps // 2:
        run.step()
    first = copy.deepcopy(run.mixture.models[0])
    new = copy.deepcopy(first)
    shared, own = torch.Generator(), torch.Generator()
    shared.set_state(run._shared.get_state())
    own.set_state(run._own.get_state())
    x, y = images().batch(torch.randperm(40, generator=shared)[:10])
    point = (x + EPS * (2 * torch.rand(x.shape, generator=own) - 1)).clamp(0, 1)
    for _ in range(3):
        point.requires_grad_()
        (slope,) = torch.autograd.grad(margins((first(point) + new(point)) / 2, y), point)
        ahead = point.detach() + 2.5 * EPS / 3 * slope.sign()
        point = torch.minimum(torch.maximum(ahead, x - EPS), x + EPS).clamp(0, 1)
    logits = new(point) if learns == "own" else (first(point).detach() + new(point)) / 2
    loss = margins(logits, y)
    slopes = torch.autograd.grad(loss, list(new.parameters()))
    with torch.no_grad():
        for parameter, slope in zip(new.parameters(), slopes, strict=True):
            parameter.sub_(0.1 * (slope + 1e-3 * parameter))
    run.summary()
    run.step()
    assert torch.equal(parameters(run.mixture.models[0]), parameters(first))
    torch.testing.assert_close(
        parameters(run.mixture.models[1]), parameters(new), rtol=1e-4, atol=1e-6
    )
    assert run.summary()["train_loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize(("learns", "more"), [("own", 0), ("ensemble", 1)])
def test_earlier_networks_are_drawn(learns, more):
    models = [Counted(seed) for seed in range(4)]
    run = algorithm(mrboost(4, epochs=3, sampled=1, learns=learns), models)
    while run.t < run.steps * 3 // 4:
        run.step()
    seen = set()
    while not run.done:
        before = [model.forwards for model in models]
        run.step()
        ran = [model.forwards - had for model, had in zip(models, before, strict=True)]
        assert ran[3] == 3 + 1
        assert sorted(ran[:3]) == [0, 0, 3 + more]
        seen.add(ran.index(3 + more))
    assert seen == {0, 1, 2}


def test_draws_are_repeated_by_a_resumed_run():
    config = mrboost(3, epochs=2, sampled=1, learns="ensemble")
    whole = algorithm(config)
    while whole.t < whole.steps - 5:
        whole.step()
    again = algorithm(config, [network(7), network(8), network(9)])
    again.load_state(copy.deepcopy(whole.state()))
    while not whole.done:
        whole.step()
        again.step()
    for one, other in zip(whole.mixture.models, again.mixture.models, strict=True):
        assert torch.equal(parameters(one), parameters(other))
    assert whole.summary() == again.summary()


@pytest.mark.parametrize(
    "loss", [LossConfig("trades"), LossConfig(member="gce"), LossConfig(member="mce")]
)
def test_another_loss_is_refused(loss):
    with pytest.raises(MixsolveError, match=r"'mrboost' has a loss of its own, of both sides"):
        TrainConfig(method="mrboost", loss=loss)
