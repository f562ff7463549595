"""Grouped games on the engine of a device: the sums by group are those of the memory engine."""

import numpy as np
import pytest
import torch

import mixsolve
from mixsolve.arrays.tensor import LossTensor, even_offsets
from mixsolve.engines.memory import MemoryEngine
from mixsolve_torch.engine.chunks import TorchEngine


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("measured", [False, True])
def test_sums_by_group(masked, measured):
    rng = np.random.default_rng(0)
    losses = rng.gamma(0.5, 1.5, (20, 5, 4))
    weight = rng.random(20) * (rng.random(20) < 0.8)
    mask = rng.random((20, 5)) < 0.6
    mask[:, 0] = True
    allowed = mask.reshape(-1).view(np.uint8) if masked else np.empty(0, dtype=np.uint8)
    prior = rng.random(100) + 0.1 if measured else np.empty(0)
    prior = np.where(allowed, prior, 0.0) if masked and measured else prior
    tensor = LossTensor.from_rows(losses.reshape(-1, 4), even_offsets(20, 5))
    here = MemoryEngine(tensor, weight, allowed, prior)
    there = TorchEngine(torch.tensor(losses), weight, allowed, prior, 60)
    lam, alpha, block = rng.dirichlet(np.ones(4)), np.full(20, 0.3), rng.integers(0, 3, 20)
    for one, other in zip(
        here.soft_sums(lam, alpha, block, 3), there.soft_sums(lam, alpha, block, 3), strict=True
    ):
        np.testing.assert_allclose(other, one, atol=1e-12)
    candidates = here.best_response(lam).candidates
    np.testing.assert_allclose(
        there.group_sums(candidates, block, 3), here.group_sums(candidates, block, 3), atol=1e-12
    )


def test_weights_come_back_as_tensors():
    losses = torch.rand((30, 4, 3), generator=torch.Generator().manual_seed(0))
    solution = mixsolve.solve(losses, 0.05, groups=np.arange(30) % 2)
    assert isinstance(solution.weights, torch.Tensor)
    assert solution.success
