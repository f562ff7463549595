"""What is sent between the shards of a tensor and the process that solves."""

import numpy as np
import pytest
from in_process_shards import ShardedLosses

import mixsolve
from mixsolve import games
from mixsolve.base.tuning import tuning
from mixsolve.engines.packed import PackedStrategy
from mixsolve.engines.responses import MixedStrategy

N, m, L = 4000, 9, 4
LOSSES = games.gamma_game(N, m, L, seed=2).losses


def solved(monkeypatch, alpha, **options):
    monkeypatch.setattr(tuning, "subsample_bytes", 0)  # subsamples stay in shards
    losses = ShardedLosses(LOSSES, [1000, 1000, 3500])
    return mixsolve.solve(losses, alpha, **options), losses.shards


def sent_for(shards, *names):
    """Bytes both ways of each task of these names."""
    totals = [sent + received for _, sent, received in shards.tasks]
    totals.append(shards.traffic.sent + shards.traffic.received)
    return [
        after - before
        for (name, _, _), before, after in zip(shards.tasks, totals[:-1], totals[1:], strict=True)
        if name in names
    ]


@pytest.mark.parametrize("method", ["newton", "apg"])
def test_a_soft_pass_moves_l_by_l_numbers(monkeypatch, method):
    _, there = solved(monkeypatch, 0.05, method=method)
    passes = sent_for(there, "soft_response")
    assert len(passes) >= 3
    assert max(passes) <= 8 * (L + 1 + 1 + L + L * L)


def test_an_exact_pass_moves_its_sums_a_byte_a_sample_and_the_near_rows(monkeypatch):
    _, there = solved(monkeypatch, 0.0)
    assert max(sent_for(there, "best_response")) <= 8 * (L + 1 + L) + N
    assert sum(sent_for(there, "near_winners", "gather")) < LOSSES.nbytes / 4


def test_most_samples_cost_the_certificate_two_bytes(monkeypatch):
    solution, there = solved(monkeypatch, 0.0)
    mixed = np.count_nonzero(np.diff(solution.attack.indptr) > 1)
    assert mixed < N / 20
    assert sum(sent_for(there, "expected_losses")) <= 2 * N + 40 * m * mixed + 8 * L


@pytest.mark.parametrize("n_candidates", [3, 300, 70_000])
def test_a_packed_attack_is_the_attack(rng, n_candidates):
    counts = rng.choice([1, 1, 1, 2, 3], 50)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    mass = rng.random(indptr[-1])
    samples = np.repeat(np.arange(50), counts)
    probabilities = mass / np.bincount(samples, mass)[samples]
    candidates = rng.integers(n_candidates - 3, n_candidates, indptr[-1])
    attack = MixedStrategy(indptr, candidates, probabilities, n_candidates)
    packed = [PackedStrategy.of(attack.part(*ends)) for ends in ((0, 20), (20, 20), (20, 50))]
    again = PackedStrategy.joined(packed).unpacked()
    for name in ("indptr", "candidates", "probabilities", "n_candidates"):
        np.testing.assert_array_equal(getattr(again, name), getattr(attack, name))
