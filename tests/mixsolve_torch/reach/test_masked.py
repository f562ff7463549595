"""Masked classifiers: what is hidden reaches nothing, and only they are believed to hide."""

import pytest
import torch

import mixsolve_torch as mt
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.reach.masked import read_by

SHAPE = (1, 8, 8)


def drawn(count):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masked():
    return mt.Masked(mt.digits_cnn(seed=1), mt.views.bands(SHAPE, 2, gap=2)[0]).eval()


@pytest.mark.parametrize("value", [0.0, 1.0, 1e30, -torch.inf, torch.nan])
def test_hidden_pixels_change_nothing(masked, value):
    x = drawn(5)
    other = torch.where(masked.mask, x, value)
    assert torch.equal(masked(x), masked(other))
    # What is read does change the logits: the mask is not simply empty.
    assert not torch.equal(masked(x), masked(torch.where(masked.mask, 1 - x, x)))


def test_hidden_pixels_have_no_gradient(masked):
    x = drawn(3).requires_grad_(True)
    masked(x).logsumexp(dim=1).sum().backward()
    assert (x.grad[:, ~masked.mask] == 0).all()
    assert (x.grad[:, masked.mask] != 0).any()


def test_the_constant_stands_in_the_unit_of_the_input():
    network = torch.nn.Sequential(mt.Normalize([0.5], [0.25]), torch.nn.Flatten())
    masked = mt.Masked(network, torch.tensor([[True, False]]), fill=0.75)
    logits = masked(torch.tensor([[[[0.25, 0.9]]]]))
    assert logits.tolist() == [[-1.0, 1.0]]


def test_the_mask_is_saved_and_exported_with_the_network(masked, tmp_path):
    other = mt.Masked(mt.digits_cnn(seed=2), torch.ones(SHAPE, dtype=torch.bool))
    other.load_state_dict(masked.state_dict())
    x = drawn(4)
    assert torch.equal(other.eval()(x), masked(x))
    assert torch.equal(read_by(other, SHAPE), masked.mask)
    traced = torch.jit.trace(masked, x)
    noisy = torch.where(masked.mask, x, 1 - x)
    assert torch.equal(traced(noisy), masked(x))


def test_only_masks_that_are_known_to_hide_are_believed(masked):
    class Own(mt.Masked):
        def forward(self, x):
            return self.model(x)

    inner, mask = masked.model, masked.mask
    assert read_by(inner, SHAPE).all()
    assert read_by(Own(inner, mask), SHAPE).all()
    assert read_by(torch.nn.Sequential(masked), SHAPE).all()
    upper = mt.views.bands(SHAPE, 2, axis="height")[0]
    both = mt.Masked(masked, upper)
    assert torch.equal(read_by(both, SHAPE), mask & upper)
    x = drawn(2)
    assert torch.equal(both(x), both(torch.where(mask & upper, x, 1 - x)))


def test_a_mask_for_all_channels_and_one_for_each():
    shape = (3, 4, 4)
    plane = torch.zeros(4, 4, dtype=torch.bool)
    plane[0] = True
    network = torch.nn.Flatten()
    assert read_by(mt.Masked(network, plane), shape).sum() == 12
    red = torch.tensor([True, False, False])[:, None, None]
    assert read_by(mt.Masked(network, red), shape).sum() == 16


def test_wrong_masks_are_refused():
    network = mt.digits_cnn()
    with pytest.raises(MixsolveTypeError, match="must be boolean"):
        mt.Masked(network, torch.ones(8, 8))
    with pytest.raises(MixsolveError, match="something to read"):
        mt.Masked(network, torch.zeros(8, 8, dtype=torch.bool))
    with pytest.raises(MixsolveTypeError, match=r"torch\.nn\.Module"):
        mt.Masked(len, torch.ones(8, 8, dtype=torch.bool))
    wide = mt.Masked(network, torch.ones(3, 8, 8, dtype=torch.bool))
    with pytest.raises(MixsolveError, match="does not fit"):
        wide(drawn(1))
