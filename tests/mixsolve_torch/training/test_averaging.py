"""Averages of networks: the recursion in words, and one that was interrupted goes on the same."""

import pytest
import torch
from torch import nn

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.training.averaging import MovingAverage


@pytest.fixture
def model(linear):
    return nn.Sequential(linear(), nn.BatchNorm1d(4))


def moved(model, generator):
    """Change everything a step of training changes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    model.train()(torch.rand(8, 1, 3, 3, generator=generator))
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_an_average_is_its_recursion(model, generator, decay):
    average = MovingAverage(model, decay)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for n in range(1, 16):
        now = moved(model, generator)
        kept = min(decay, n / (9 + n))
        for name, value in now.items():
            if value.is_floating_point():
                expected[name] = kept * expected[name] + (1 - kept) * value
            else:
                expected[name] = value
        average.update(model)
        assert average.updates == n
    for name, value in average.module.state_dict().items():
        assert torch.allclose(value, expected[name].to(value.dtype), atol=1e-5), name


def test_the_network_itself_is_left_alone(model, generator):
    average = MovingAverage(model, 0.9)
    before = moved(model, generator)
    average.update(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(part.training for part in average.module.modules())
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_an_interrupted_average_goes_on_the_same(model, generator):
    average = MovingAverage(model, 0.99)
    for _ in range(3):
        moved(model, generator)
        average.update(model)
    resumed = MovingAverage(model, 0.99)
    resumed.load_state_dict(average.state_dict())
    for _ in range(3):
        moved(model, generator)
        average.update(model)
        resumed.update(model)
    whole, again = average.state_dict(), resumed.state_dict()
    assert whole["updates"] == again["updates"] == 6
    for name, value in whole["module"].items():
        assert torch.equal(value, again["module"][name])


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_decays_that_are_none(model, decay):
    with pytest.raises(MixsolveError, match=r"decay must be a finite number >= 0 and < 1"):
        MovingAverage(model, decay)
