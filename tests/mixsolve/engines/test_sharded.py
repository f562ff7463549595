"""What travels between the parts of a tensor and the process that solves."""

import numpy as np
import pytest
from parts_here import LossesInParts

import mixsolve
from mixsolve import games
from mixsolve.base.tuning import tuning
from mixsolve.engines.packed import PackedStrategy
from mixsolve.engines.strategy import MixedStrategy

N, m, L = 4000, 9, 4
LOSSES = games.gamma_game(N, m, L, seed=2).losses


def solved(monkeypatch, alpha, **options):
    monkeypatch.setattr(tuning, "subsample_bytes", 0)  # subsamples stay with their parts
    losses = LossesInParts(LOSSES, [1000, 1000, 3500])
    return mixsolve.solve(losses, alpha, **options), losses.parts


def sent_for(parts_here, *names):
    """Bytes both ways of each question of these names."""
    totals = [sent + received for _, sent, received in parts_here.asked]
    totals.append(parts_here.traffic.sent + parts_here.traffic.received)
    return [
        after - before
        for (name, _, _), before, after in zip(
            parts_here.asked, totals[:-1], totals[1:], strict=True
        )
        if name in names
    ]


@pytest.mark.parametrize("method", ["newton", "apg"])
def test_a_soft_pass_moves_l_by_l_numbers(monkeypatch, method):
    _, there = solved(monkeypatch, 0.05, method=method)
    passes = sent_for(there, "soft_response")
    assert len(passes) >= 3
    assert max(passes) <= 8 * (L + 1 + 1 + L + L * L)


def test_an_exact_pass_moves_its_sums_and_the_rows_in_doubt(monkeypatch):
    _, there = solved(monkeypatch, 0.0)
    assert max(sent_for(there, "best_response")) <= 8 * (L + 1 + L)
    doubt = sent_for(there, "near_winners", "gather", "winners_of", "winners_moved")
    assert sum(doubt) < LOSSES.nbytes / 4
    assert "winners" in {name for name, _, _ in there.asked}  # once, for the final strategy
    assert sum(sent_for(there, "winners")) <= N


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
