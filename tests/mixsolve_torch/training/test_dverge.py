"""DVERGE: distilled features against plain readings of the article, and what networks learn."""

import copy
from dataclasses import replace

import pytest
import torch
from test_methods import EPS, Counted, algorithm, images, network, parameters, settings
from torch.nn import functional

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import digits_cnn
from mixsolve_torch.attacks.ball import make_ball
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.models.passes import counted
from mixsolve_torch.training import (
    AttackConfig,
    DvergeConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
    WeightsConfig,
)
from mixsolve_torch.training.adversary import Adversary
from mixsolve_torch.training.distillation import distilled, features, find_layers


def dverge(count=2, loss="at", epochs=1, **options):
    sections = {"weights": WeightsConfig(update="none"), "method": "dverge"}
    config = settings(count, loss=loss, epochs=epochs, **sections)
    return replace(config, dverge=DvergeConfig(**({"steps": 4} | options)))


def test_layers_are_those_before_the_logits_as_they_run():
    model = digits_cnn(seed=0)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert find_layers(model, x) == ["1", "3", "5"]
    expected = model[3](model[2](model[1](model[0](x))))
    with counted() as passes, torch.no_grad():
        assert torch.equal(features(model, "3", x), expected)
    assert passes.forward == 3
    assert not any(part._forward_hooks for part in model.modules())
    with pytest.raises(MixsolveError, match="no convolution or linear map before its logits"):
        find_layers(torch.nn.Sequential(model[7], model[8]), torch.zeros(2, 32, 4, 4))


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.8), ("L1", 2.0)])
def test_distilled_images_have_the_features_of_others(norm, eps):
    model = digits_cnn(seed=1).train()
    draws = torch.Generator().manual_seed(0)
    source, target = torch.rand(2, 6, 1, 8, 8, generator=draws)
    ball = make_ball(norm, eps)
    found = distilled(model, "5", source, target, ball=ball, steps=10)
    assert ball.contains(found, source).all()
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        aim = features(model, "5", target)
        before, after = (
            (features(model, "5", x) - aim).flatten(1).norm(dim=1) for x in (source, found)
        )
    assert (after < before).all()
    one = distilled(model, "5", source[2:3], target[2:3], ball=ball, steps=10)
    torch.testing.assert_close(found[2:3], one, rtol=1e-4, atol=1e-5)


def by_hand(model, source, target, eps, steps):
    """The distillation of the hidden layer in Linf, written out for one image after another."""
    points = []
    for x, aim in zip(source, target, strict=True):
        hidden = torch.nn.Sequential(*model[:2])
        z, speed = x.clone(), torch.zeros_like(x)
        for _ in range(steps):
            z.requires_grad_()
            apart = (hidden(z[None]) - hidden(aim[None]).detach()).square().sum() / 2
            (slope,) = torch.autograd.grad(apart, z)
            speed = speed + slope / slope.abs().sum()
            ahead = z.detach() - eps / steps * speed.sign()
            z = torch.minimum(torch.maximum(ahead, x - eps), x + eps).clamp(0, 1)
        points.append(z.detach())
    return torch.stack(points)


def pairs(x, own):
    order = torch.randperm(len(x), generator=own).tolist()
    partner = dict(zip(order, order[-1:] + order[:-1], strict=True))
    return torch.stack([x[partner[i]] for i in range(len(x))])


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("loss", ["at", "trades"])
def test_networks_learn_from_the_features_of_all_others(adversarial, loss):
    config = dverge(3, loss=loss, adversarial=adversarial, eps=0.2)
    run = algorithm(config)
    plain = [network(seed) for seed in range(3)]
    shared = torch.Generator().manual_seed(0)
    own = torch.Generator().manual_seed(1)
    x, y = images().batch(torch.randperm(40, generator=shared)[:10])
    if adversarial:
        adversary = Adversary(
            Mixture(plain), config.attack, trades=loss == "trades", largest_label=2
        )
        point, _ = adversary(x, y, own)
    target = pairs(x, own)
    assert not any(torch.equal(a, b) for a, b in zip(x, target, strict=True))
    lessons = [by_hand(model, x, target, 0.2, 4) for model in plain]
    total = 0
    for k, model in enumerate(plain):
        value = sum(functional.cross_entropy(model(z), y) for j, z in enumerate(lessons) if j != k)
        if adversarial and loss == "at":
            value = value + functional.cross_entropy(model(point), y)
        elif adversarial:
            log_p, log_q = model(x).log_softmax(1), model(point).log_softmax(1)
            apart = functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
            value = value + functional.cross_entropy(model(x), y) + 2.0 * apart
        slopes = torch.autograd.grad(value, list(model.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(model.parameters(), slopes, strict=True):
                parameter.sub_(0.1 * (slope + 1e-3 * parameter))
        total += value.item() / 3
    run.step()
    for one, other in zip(run.mixture.models, plain, strict=True):
        torch.testing.assert_close(parameters(one), parameters(other), rtol=1e-3, atol=1e-5)
    assert run.summary()["train_loss"] == pytest.approx(total, rel=1e-4)


def test_passes_of_a_step():
    count = 3
    models = [Counted(seed) for seed in range(count)]
    run = algorithm(dverge(count, layers=["body.1"]), models)
    run.step()
    # The network counts its own runs, on 10 images each: features, attack and descent.
    assert sum(model.images for model in models) == 10 * (count * 5 + count * 3 + count * count)


def test_a_layer_is_drawn_for_every_epoch(monkeypatch):
    from mixsolve_torch.training.methods import dverge as module

    drawn = []

    def watched(model, layer, source, *arguments, **options):
        drawn.append(layer)
        return source

    monkeypatch.setattr(module, "distilled", watched)

    def square():
        return torch.nn.utils.skip_init(torch.nn.Linear, 9, 9).requires_grad_(False)

    first = [torch.nn.Flatten(), *(square() for _ in range(4))]
    for layer in first[1:]:
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    deep = [torch.nn.Sequential(*copy.deepcopy(first), *network(seed)[1:]) for seed in range(2)]
    config = dverge(2, epochs=16, adversarial=False)
    run = algorithm(config, deep)
    states = []
    while not run.done:
        run.step()
        states.append(copy.deepcopy(run.state()))
    epochs = [set(drawn[8 * e : 8 * e + 8]) for e in range(16)]
    assert all(len(layers) == 1 for layers in epochs)
    assert set.union(*epochs) == {"1", "2", "3", "4", "5"}
    again = algorithm(config, copy.deepcopy(deep))
    again.load_state(states[9])
    whole, drawn[:] = list(drawn), []
    while not again.done:
        again.step()
    assert drawn == whole[20:]


def test_the_ball_is_that_of_the_attack_unless_it_has_a_radius_of_its_own():
    for options, eps in (({}, EPS), ({"eps": "1/5"}, 0.2)):
        assert algorithm(dverge(**options))._method._ball.eps == eps
    several = replace(dverge(), attack=AttackConfig(threats=["rotations:5", "L2:0.5"]))
    ball = algorithm(several)._method._ball
    assert (ball.norm, ball.eps) == ("L2", 0.5)
    none = replace(dverge(), attack=AttackConfig(threats=["rotations:5"]))
    with pytest.raises(MixsolveError, match=r"'dverge' needs a ball among attack\.threats"):
        algorithm(none)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(MixsolveError, match=r"model\.count must be at least 2; got 1"):
        TrainConfig(method="dverge", model=ModelConfig(count=1))
    with pytest.raises(MixsolveError, match=r"dverge\.layers must name parts of the networks, su"):
        algorithm(dverge(layers=["nothing"]))
    with pytest.raises(MixsolveError, match=r"dverge\.layers must name at least one"):
        TrainConfig(dverge=DvergeConfig(layers=[]))
    with pytest.raises(MixsolveError, match=r"dverge\.eps"):
        TrainConfig(dverge=DvergeConfig(eps=-1))
    assert TrainConfig(method="dverge", loss=LossConfig(member="gce")).dverge.adversarial
