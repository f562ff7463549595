"""On a device too: only losses that count decide the tolerance, and any scale of them will do."""

import numpy as np
import pytest
import torch

import mixsolve
from mixsolve.feasible.constraints import weight_bounds
from mixsolve_torch import TorchLosses

B = np.random.default_rng(3).random((20, 5, 4))
WEIGHT = np.where(np.arange(20) == 7, 0.0, 1.0)


def there(losses):
    return TorchLosses(torch.from_numpy(losses), chunk=60)


@pytest.mark.parametrize("alpha", [0.0, 0.02])
@pytest.mark.parametrize("scale", [1.0, 2.0**-1030, 2.0**-800, 2.0**800])
def test_zero_weights_and_excluded_classifiers(alpha, scale):
    wanted = mixsolve.solve(np.delete(B, 7, axis=0), alpha)
    for loss in (1e9, 1e300 / max(scale, 1.0)):
        losses = B * scale
        losses[7] = loss
        found = mixsolve.solve(there(losses), alpha * scale, sample_weight=WEIGHT)
        assert found.success
        assert found.value == pytest.approx(wanted.value * scale, rel=2e-6)
        assert found.tolerance == pytest.approx(wanted.tolerance * scale, rel=1e-6)
    losses = B * scale
    losses[:, :, 2] = 1e9 * scale
    limits = weight_bounds(4, upper=[1.0, 1.0, 0.0, 1.0])
    found = mixsolve.solve(there(losses), alpha * scale, constraints=limits)
    alone = mixsolve.solve(B[:, :, [0, 1, 3]], alpha)
    assert found.success
    assert found.value == pytest.approx(alone.value * scale, rel=2e-6)
    assert found.tolerance == pytest.approx(alone.tolerance * scale, rel=1e-6)


def test_opposite_losses_next_to_overflow_in_a_sample_of_weight_0():
    losses = B.copy()
    losses[7, :, 0], losses[7, 2] = 1.7e308, -1.7e308
    for alpha in (0.0, 1e-12, 0.02, 1e6):
        wanted = mixsolve.solve(np.delete(B, 7, axis=0), alpha)
        found = mixsolve.solve(there(losses), alpha, sample_weight=WEIGHT)
        assert found.success
        assert found.value == pytest.approx(wanted.value, abs=2e-6)
