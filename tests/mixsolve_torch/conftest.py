"""Fixtures of the plugin's tests: small classifiers whose answers can be worked out by hand."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Networks this small lose more to waiting threads than they gain from them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _global_generator_is_left_alone():
    """No test, and nothing a test calls, may reseed or use PyTorch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def generator():
    """A generator that every test starts from the same state."""
    return torch.Generator().manual_seed(20210718)


@pytest.fixture
def linear():
    """Return a maker of linear classifiers of images (C, H, W), drawn from a seed."""

    def make(seed=0, shape=(1, 3, 3), classes=4, dtype=torch.float32, scale=1.0):
        draws = torch.Generator().manual_seed(seed)
        pixels = shape[0] * shape[1] * shape[2]
        layer = torch.nn.utils.skip_init(torch.nn.Linear, pixels, classes, dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(scale * torch.randn(classes, pixels, generator=draws))
            layer.bias.copy_(scale * torch.randn(classes, generator=draws))
        return torch.nn.Sequential(torch.nn.Flatten(), layer)

    return make


@pytest.fixture
def batch(generator):
    """Seven images (1, 3, 3) in [0, 1] and labels of four classes."""
    x = torch.rand(7, 1, 3, 3, generator=generator)
    return x, torch.tensor([0, 1, 2, 3, 0, 1, 2])
