"""Steps of descent: optimisers against PyTorch's own, half precision, and resumed exactly."""

import copy

import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.training import (
    AttackConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from mixsolve_torch.training.images import ImageSet
from mixsolve_torch.training.networks import Networks
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.steps import Steps


def network(seed, classes=3):
    draws = torch.Generator().manual_seed(seed)
    layer = torch.nn.utils.skip_init(torch.nn.Linear, 9, classes)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) / 2)
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def images(count=40):
    draws = torch.Generator().manual_seed(7)
    return ImageSet(torch.rand(count, 1, 3, 3, generator=draws), torch.arange(count) % 3)


def settings(count=2, run=None, **optimizer):
    return TrainConfig(
        model=ModelConfig(architecture="none:none", count=count),
        attack=AttackConfig(eps=0.1, steps=2),
        optimizer=OptimizerConfig(epochs=2, batch_size=10, **optimizer),
        run=run or RunConfig(device="cpu"),
    )


def algorithm(config):
    models = [network(seed) for seed in range(config.model.count)]
    return Steps(config, models, images(), Ranks("cpu"))


def parameters(steps):
    return [p.detach().clone() for p in steps.mixture.parameters()]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_is_that_of_pytorchs_optimiser(name):
    options = {"momentum": 0.8, "weight_decay": 0.02}
    config = settings(1, name=name, beta2=0.95, **options)
    trained = network(0)
    plain = copy.deepcopy(trained)
    networks = Networks(config, [trained], Ranks("cpu"))
    if name == "sgd":
        optimizer = torch.optim.SGD(plain.parameters(), 0.3, **options)
    else:
        optimizer = torch.optim.AdamW(plain.parameters(), 0.3, betas=(0.8, 0.95), weight_decay=0.02)
    x, y = images().batch(torch.arange(10))
    for _ in range(4):
        networks.descend(0, x, x, y, 0.3)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
    for one, other in zip(trained.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert (next(trained.parameters()) - next(network(0).parameters())).abs().max() > 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"name": "adamw", "learning_rate": 0.01, "schedule": "onecycle"},
        {"run": RunConfig(device="cpu", autocast=True)},
        {"run": RunConfig(device="cpu", autocast=True, autocast_dtype="float16")},
    ],
    ids=["adamw", "bfloat16", "float16"],
)
def test_what_a_step_depends_on_is_in_the_state(options):
    whole = algorithm(settings(**options))
    for _ in range(3):
        whole.step()
    state = copy.deepcopy(whole.state())
    resumed = algorithm(settings(**options))
    resumed.load_state(state)
    for steps in (whole, resumed):
        while not steps.done:
            steps.step()
        assert steps.finite()
    for one, other in zip(parameters(whole), parameters(resumed), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_networks_run_in_half_precision_in_the_descent_and_in_the_attack(name):
    dtype = getattr(torch, name)
    run = algorithm(settings(run=RunConfig(device="cpu", autocast=True, autocast_dtype=name)))
    plain = algorithm(settings())
    seen = []
    for model in run.mixture.models:
        model.register_forward_hook(lambda m, _, out: seen.append((m.training, out.dtype)))
    for _ in range(4):
        run.step()
        plain.step()
    assert {(True, dtype), (False, dtype)} == set(seen)
    for one, other in zip(parameters(run), parameters(plain), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0.1)


def test_a_step_whose_gradient_overflows_in_float16_is_left_out():
    config = settings(1, run=RunConfig(device="cpu", autocast=True, autocast_dtype="float16"))
    networks = Networks(config, [network(0)], Ranks("cpu"))
    before = [p.detach().clone() for p in networks.mixture.parameters()]
    x, y = images().batch(torch.arange(10))
    scale = networks.state()["scalers"][0]["scale"]
    assert scale > 1
    networks.descend(0, 1e4 * x, 1e4 * x, y, 0.3)  # logits beyond the range of float16
    for one, other in zip(networks.mixture.parameters(), before, strict=True):
        assert torch.equal(one, other)
    assert networks.state()["scalers"][0]["scale"] < scale


def test_settings_of_the_descent_are_checked():
    with pytest.raises(MixsolveError, match=r"optimizer\.beta2"):
        settings(beta2=1.0)
    with pytest.raises(MixsolveError, match=r"optimizer\.name must be one of 'sgd', 'adamw'"):
        settings(name="lion")
    with pytest.raises(MixsolveError, match=r"run\.autocast_dtype must be one of 'bfloat16'"):
        settings(run=RunConfig(autocast_dtype="float8"))
