"""Grouped games on shards: the same answers, and only sums by group travel."""

import numpy as np
import pytest
from in_process_shards import ShardedLosses

import mixsolve

CHOICES = [{"groups": np.arange(60) % 4}, {"tail": 0.2}, {"groups": np.arange(60) % 4, "tail": 0.5}]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_shards_give_the_same_answer(choice, alpha):
    losses = np.random.default_rng(2).gamma(0.5, 1.5, (60, 6, 4))
    weight = np.random.default_rng(3).random(60)
    parts = ShardedLosses(losses, [0, 25, 25, 60])
    here = mixsolve.solve(losses, alpha, sample_weight=weight, tol=1e-8, **choice)
    there = mixsolve.solve(parts, alpha, sample_weight=weight, tol=1e-8, **choice)
    assert there.success
    assert there.value == pytest.approx(here.value, abs=1e-7)
    assert there.lower_bound == pytest.approx(here.lower_bound, abs=1e-7)
    if here.group_risks is not None:
        np.testing.assert_allclose(there.group_risks, here.group_risks, atol=1e-4)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_a_dask_array_gives_the_same_answer(choice, alpha):
    da = pytest.importorskip("dask.array")
    losses = np.random.default_rng(2).gamma(0.5, 1.5, (60, 6, 4))
    blocks = da.from_array(losses, chunks=((17, 20, 0, 23), (4, 2), (2, 2)))
    here = mixsolve.solve(losses, alpha, tol=1e-8, **choice)
    there = mixsolve.solve(blocks, alpha, tol=1e-8, **choice)
    assert there.success
    assert there.value == pytest.approx(here.value, abs=1e-7)
    assert there.lower_bound == pytest.approx(here.lower_bound, abs=1e-7)
    np.testing.assert_allclose(there.attack_weight.sum(), 1.0, atol=1e-12)


@pytest.mark.parametrize("method", ["interior-point", "cvxpy"])
def test_all_candidates_at_once_come_from_the_shards(method):
    losses = np.random.default_rng(2).gamma(0.5, 1.5, (60, 6, 4))
    parts = ShardedLosses(losses, [0, 25, 25, 60])
    here = mixsolve.solve(losses, tol=1e-8, **CHOICES[2])
    there = mixsolve.solve(parts, tol=1e-5, method=method, **CHOICES[2])
    assert there.success
    assert there.value == pytest.approx(here.value, abs=2e-5 * here.spread)
