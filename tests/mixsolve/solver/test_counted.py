"""The tolerance is relative to the spread of what can be played: nothing else may widen it."""

import numpy as np
import pytest
from corpus import seeds
from in_process_shards import ShardedLosses

import mixsolve
from mixsolve.arrays.tensor import LossTensor
from mixsolve.base.tuning import tuning
from mixsolve.engines import Losses
from mixsolve.engines.memory import MemoryEngine
from mixsolve.feasible.constraints import weight_bounds

pytestmark = pytest.mark.filterwarnings("ignore::mixsolve.ConvergenceWarning")

B = np.random.default_rng(3).random((20, 5, 4))
WEIGHT = np.where(np.arange(20) == 7, 0.0, 1.0 + np.arange(20) % 3)
EXACT = ("lp", "interior-point", "cvxpy")
ENTROPIC = ("newton", "apg", "cvxpy")
HUGE = (1e9, -1e9, 1e300, 1.7e308)


def without(i):
    return np.delete(B, i, axis=0), np.delete(WEIGHT, i)


def assert_same(found, wanted, digits=1e-9):
    tol = 1e-6 * wanted.spread
    assert found.spread == pytest.approx(wanted.spread, rel=1e-14)
    assert found.tolerance == pytest.approx(wanted.tolerance, rel=1e-12)
    assert found.success
    assert found.value == pytest.approx(wanted.value, abs=tol + digits)
    assert found.lower_bound == pytest.approx(wanted.value, abs=tol + digits)
    assert found.risk == pytest.approx(wanted.risk, abs=20 * tol + 1e-3)


def with_idle(loss):
    """Losses of a sample of weight 0 that are of no consequence."""
    losses = B.copy()
    losses[7] = loss
    losses[7, 2] = -loss
    losses[7, 1, 0] = 0.5
    return losses


@pytest.mark.parametrize("loss", HUGE)
@pytest.mark.parametrize("method", [*EXACT, "auto"])
def test_a_sample_of_weight_0_exact(method, loss):
    losses, weight = without(7)
    wanted = mixsolve.solve(losses, sample_weight=weight, tol=1e-9)
    wanted = mixsolve.solve(losses, sample_weight=weight) if wanted.success else None
    assert_same(mixsolve.solve(with_idle(loss), sample_weight=WEIGHT, method=method), wanted)


@pytest.mark.parametrize("loss", HUGE)
@pytest.mark.parametrize("method", ENTROPIC)
@pytest.mark.parametrize("alpha", [1e-12, 0.02, 10.0])
def test_a_sample_of_weight_0_entropic(method, loss, alpha):
    if method == "apg" and alpha < 1e-3:
        pytest.skip("takes too many iterations")
    losses, weight = without(7)
    wanted = mixsolve.solve(losses, alpha, sample_weight=weight)
    found = mixsolve.solve(with_idle(loss), alpha, sample_weight=WEIGHT, method=method)
    assert_same(found, wanted)


def test_a_sample_of_weight_0_with_the_oracle():
    losses, weight = without(7)
    wanted = mixsolve.solve(losses, sample_weight=weight, method="oracle", max_iter=40)
    found = mixsolve.solve(with_idle(1e9), sample_weight=WEIGHT, method="oracle", max_iter=40)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-13)
    assert found.tolerance == pytest.approx(wanted.tolerance, rel=1e-12)


def test_a_sample_of_weight_0_beside_tiny_losses():
    losses, weight = without(7)
    for alpha in (0.0, 0.02):
        wanted = mixsolve.solve(losses, alpha, sample_weight=weight)
        found = mixsolve.solve(
            np.where(np.arange(20)[:, None, None] == 7, 1e300, B * 2.0**-900),
            alpha * 2.0**-900,
            sample_weight=WEIGHT,
        )
        assert found.success
        assert found.value == pytest.approx(wanted.value * 2.0**-900, rel=2e-6)


@pytest.mark.parametrize("method", EXACT)
def test_masked_candidates(method):
    mask = np.ones((20, 5), bool)
    mask[:, 3] = False
    mask[4, 0] = False
    ragged = [table[allowed] for table, allowed in zip(B, mask, strict=True)]
    for hidden in (1e9, 1e300, np.nan, np.inf):
        losses = np.where(mask[:, :, None], B, hidden)
        found = mixsolve.solve(losses, candidate_mask=mask, method=method)
        assert_same(found, mixsolve.solve(ragged))


BOUNDS = weight_bounds(4, upper=[1.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize("alpha", [0.0, 1e-12, 0.02, 10.0])
@pytest.mark.parametrize("loss", seeds([1e9, -1e200, -1e9, 1e200], quick=2))
@pytest.mark.parametrize("kind", ["bounds", "budget", "equality"])
def test_classifiers_that_constraints_exclude(kind, loss, alpha):
    losses = B.copy()
    losses[:, :, 2] = loss
    losses[3, 1, 2] = 0.5
    limits = {
        "bounds": {"constraints": BOUNDS},
        "budget": {"A_ub": [[1.0, 2.0, 7.0, 1.0], [0.0, 0.0, 1.0, 0.0]], "b_ub": [2.0, 0.0]},
        "equality": {"A_eq": [[0.0, 0.0, 1.0, 0.0]], "b_eq": [0.0]},
    }[kind]
    wanted = mixsolve.solve(B[:, :, [0, 1, 3]], alpha)
    found = mixsolve.solve(losses, alpha, **limits)
    assert_same(found, wanted)
    assert found.weights[2] == 0.0
    if alpha != 1e-12:
        apg = "interior-point" if alpha == 0 else "apg"
        assert_same(mixsolve.solve(losses, alpha, method=apg, **limits), wanted)
    few = mixsolve.solve(losses, alpha, max_models=2, **limits)
    alone = mixsolve.solve(B[:, :, [0, 1, 3]], alpha, max_models=2)
    assert_same(few, alone)


@pytest.mark.parametrize("alpha", [0.0, 0.02])
def test_classifiers_that_a_function_excludes(alpha):
    losses = B.copy()
    losses[:, :, 2] = 1e6
    wanted = mixsolve.solve(B[:, :, [0, 1, 3]], alpha)
    found = mixsolve.solve(losses, alpha, constraints=lambda weights: [weights[2] <= 0.0])
    assert found.spread == pytest.approx(wanted.spread, rel=1e-14)
    assert found.lower_bound <= wanted.value + 1e-9
    assert found.value >= wanted.value - wanted.tolerance - 1e-9
    assert found.success == (found.gap <= found.tolerance)


def test_two_valued_losses_are_still_packed():
    rng = np.random.default_rng(0)
    losses = (rng.random((400, 60, 5)) < 0.2).astype(float)
    weight = np.ones(400)
    weight[9] = 0.0
    wanted = mixsolve.solve(np.delete(losses, 9, axis=0))
    losses[9] = 1e9
    found = mixsolve.solve(losses, sample_weight=weight)
    assert_same(found, wanted)
    assert "presolve" in found.message


@pytest.mark.parametrize("alpha", [0.0, 0.02])
def test_batches(alpha):
    losses, weight = without(7)
    wanted = mixsolve.solve(losses, alpha, sample_weight=weight)
    found = mixsolve.solve_batch(
        np.stack([with_idle(loss) for loss in HUGE]), alpha, sample_weight=WEIGHT
    )
    for one in found:
        assert_same(one, wanted)


def test_zero_weights_where_every_sample_of_a_chunk_is_idle(monkeypatch):
    monkeypatch.setattr(tuning, "chunk_entries", 8)
    monkeypatch.setattr(tuning, "max_chunks", 20)
    for alpha in (0.0, 0.02):
        losses, weight = without(7)
        wanted = mixsolve.solve(losses, alpha, sample_weight=weight)
        assert_same(mixsolve.solve(with_idle(1e9), alpha, sample_weight=WEIGHT), wanted)


def test_non_finite_losses_of_a_sample_of_weight_0_are_refused_where_they_are():
    losses = B.copy()
    losses[7, 2, 1] = np.nan
    with pytest.raises(mixsolve.MixsolveError, match=r"sample 7|7, 2, 1"):
        mixsolve.solve(losses, sample_weight=WEIGHT)


class Loaned(Losses):
    """An engine of somebody else's, that knows nothing of constraints."""

    def __init__(self, losses):
        self._losses = losses
        n_samples, n_candidates, n_classifiers = losses.shape
        super().__init__(np.arange(n_samples + 1) * n_candidates, n_classifiers)

    def engine(self, sample_weight, allowed, prior):
        rows = LossTensor.from_rows(self._losses.reshape(-1, self.n_classifiers), self.offsets)
        return MemoryEngine(rows, sample_weight, allowed, prior)

    def restore(self, weights):
        return weights


def test_an_engine_of_another_kind_is_told_what_counts():
    losses = B.copy()
    losses[:, :, 2] = 1e9
    wanted = mixsolve.solve(B[:, :, [0, 1, 3]])
    assert_same(mixsolve.solve(Loaned(losses), constraints=BOUNDS), wanted)


@pytest.mark.parametrize("alpha", [0.0, 0.02])
@pytest.mark.parametrize("scale", [1.0, 2.0**-800, 2.0**800])
def test_a_tensor_in_shards(alpha, scale):
    losses, weight = without(7)
    wanted = mixsolve.solve(losses, alpha, sample_weight=weight)
    for bounds in ([0, 7, 8, 20], [0, 10, 20]):
        there = ShardedLosses(with_idle(1e9) * scale, bounds)
        found = mixsolve.solve(there, alpha * scale, sample_weight=WEIGHT)
        assert found.success
        assert found.value == pytest.approx(wanted.value * scale, rel=2e-6)
        assert found.tolerance == pytest.approx(wanted.tolerance * scale, rel=1e-12)
        losses_out = B.copy()
        losses_out[:, :, 2] = 1e9
        there = ShardedLosses(losses_out * scale, bounds)
        found = mixsolve.solve(there, alpha * scale, constraints=BOUNDS)
        alone = mixsolve.solve(B[:, :, [0, 1, 3]], alpha)
        assert found.success
        assert found.value == pytest.approx(alone.value * scale, rel=2e-6)
        assert found.tolerance == pytest.approx(alone.tolerance * scale, rel=1e-12)
