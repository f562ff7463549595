"""Small games are solved in NumPy, to the same certificate, until a process needs kernels."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from reference import check_certificate

import mixsolve
from mixsolve import games
from mixsolve.base.tuning import Tuning, tuning
from mixsolve.uncompiled import choice

SMALL = games.gamma_game(60, 8, 4, seed=3).losses


@pytest.fixture
def fresh(monkeypatch):
    """A process that has not solved any game, as far as the choice goes."""
    monkeypatch.setattr(tuning, "uncompiled_entries", Tuning.uncompiled_entries)
    monkeypatch.setattr(choice.spent, "_entries", {})


@pytest.fixture
def forms(monkeypatch):
    """The forms, True for NumPy, in which passes have run."""
    seen = []
    plain = choice.loops

    def note(name):
        if name == "passes":
            seen.append(choice.runs_in_numpy())
        return plain(name)

    monkeypatch.setattr("mixsolve.engines.memory.loops", note)
    return seen


RULES = {
    "plain": {},
    "rules": {
        "sample_weight": np.arange(60.0),
        "candidate_mask": np.arange(480).reshape(60, 8) % 5 > 0,
    },
    "constrained": {"A_ub": [[1.0, 0, 0, 0]], "b_ub": [0.2], "A_eq": [[0, 1, -1, 0]], "b_eq": [0]},
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8, np.bool_])
@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.05])
@pytest.mark.parametrize("rules", RULES)
def test_answers_in_both_forms(fresh, forms, dtype, alpha, rules):
    losses = (SMALL > 0.7).astype(dtype) if dtype in (np.uint8, np.bool_) else SMALL.astype(dtype)
    found = mixsolve.solve(losses, alpha, **RULES[rules])
    assert forms
    assert all(forms)
    game = {} if rules == "constrained" else RULES[rules]
    if rules != "constrained":
        check_certificate(found, losses, alpha, **game)
    tuning.uncompiled_entries = 0
    forms.clear()
    compiled = mixsolve.solve(losses, alpha, **RULES[rules])
    assert forms
    assert not any(forms)
    tolerance = 2 * found.tolerance
    assert found.success
    assert compiled.success
    assert abs(found.value - compiled.value) <= tolerance
    assert abs(found.lower_bound - compiled.lower_bound) <= tolerance


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alpha", [0.0, 1e-9, 1e9])
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_losses_give_no_warnings_of_numpy(fresh, forms, alpha, scale):
    losses = scale * (SMALL > 0.7)
    check_certificate(mixsolve.solve(losses, alpha * scale), losses, alpha * scale)
    assert all(forms)


@pytest.mark.parametrize("method", ["lp", "interior-point", "oracle", "newton", "apg"])
@pytest.mark.filterwarnings("ignore::mixsolve.ConvergenceWarning")
def test_every_method(fresh, forms, method):
    alpha = 0.05 if method in ("newton", "apg") else 0.0
    found = mixsolve.solve(SMALL, alpha, method=method, tol=1e-3)
    assert forms
    assert all(forms)
    check_certificate(found, SMALL, alpha)


def test_a_game_of_ten_thousand_rows(fresh, forms):
    losses = games.gamma_game(990, 10, 10, seed=1).losses
    for alpha in (0.0, 0.05):
        found = mixsolve.solve(losses, alpha, tol=1e-8)
        check_certificate(found, losses, alpha)
    assert all(forms)


def test_the_same_answer_bit_for_bit(fresh):
    found = {mixsolve.solve(SMALL).weights.tobytes() for _ in range(5)}
    assert len(found) == 1


def test_many_games_or_a_large_one_are_compiled_from_then_on(fresh, forms):
    tuning_least = tuning.uncompiled_entries_in_all // tuning.uncompiled_least
    for _ in range(tuning_least):
        choice.spent.allows("exact", 1)
    mixsolve.solve(SMALL)
    assert not any(forms)
    forms.clear()
    mixsolve.solve(SMALL, 0.05)  # another kind of game needs other kernels
    assert all(forms)
    assert choice.spent.allows("some", 1)
    assert not choice.spent.allows("some", tuning.uncompiled_entries + 1)
    assert not choice.spent.allows("some", 1)


def test_work_that_resumes_in_other_processes_is_compiled(fresh, forms):
    with choice.compiled_alone():
        mixsolve.solve(SMALL)
        assert not choice.spent.has_room("exact", np.array([SMALL.size]))
    assert forms
    assert not any(forms)
    forms.clear()
    mixsolve.solve(SMALL)  # and what it solved does not count
    assert all(forms)


def test_a_solve_inside_a_solve_and_one_in_another_thread(fresh, forms):
    """The form is that of the solve, not of the process."""
    inner = []

    def call(state):
        if not inner:
            before = choice.runs_in_numpy()
            other = threading.Thread(target=lambda: inner.append(choice.runs_in_numpy()))
            other.start()
            other.join()
            tuning.uncompiled_entries = 0
            inner.append(mixsolve.solve(SMALL).value)
            assert choice.runs_in_numpy() is before is True

    found = mixsolve.solve(SMALL, callback=call)
    assert inner[0] is False
    assert inner[1] == pytest.approx(found.value, abs=1e-9)
    assert not choice.runs_in_numpy()
    assert {True, False} == set(forms)


def test_a_small_solve_needs_neither_numba_nor_scipy():
    code = """
import sys, numpy as np, mixsolve
losses = np.random.default_rng(0).random((50, 6, 5))
for given in (losses, losses.astype("f4"), losses > 0.5):
    for alpha in (0.0, 0.05, np.full(50, 0.01)):
        assert mixsolve.solve(given, alpha).success
print(sorted({"numba", "llvmlite", "scipy", "cvxpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_are_the_same(fresh):
    bad = SMALL.copy()
    bad[3, 2, 1] = np.nan
    with pytest.raises(mixsolve.MixsolveError, match=r"\(3, 2, 1\)"):
        mixsolve.solve(bad)


@pytest.mark.parametrize("alpha", [0.0, 0.05, [0.0, 1e-4, 0.1]])
def test_small_batches(fresh, forms, alpha):
    """Game by game, as `solve` does it; nothing is said to have been left to it."""
    batch = np.stack([games.gamma_game(20, 6, 4, seed=seed).losses for seed in range(3)])
    weight = np.arange(20.0)
    found = mixsolve.solve_batch(batch, alpha, sample_weight=weight)
    assert forms
    assert all(forms)
    assert found.success.all()
    assert found.n_one_by_one == 0
    for place, each in enumerate(np.broadcast_to(alpha, 3)):
        check_certificate(found[place], batch[place], each, sample_weight=weight)
    tuning.uncompiled_entries = 0
    compiled = mixsolve.solve_batch(batch, alpha, sample_weight=weight)
    assert np.all(abs(found.value - compiled.value) <= 2 * found.tolerance)


def test_batches_of_many_games_are_compiled(fresh):
    shares = np.full(51, 1)
    assert choice.spent.has_room("exact", shares[:50])
    assert not choice.spent.has_room("exact", shares)
    assert not choice.spent.has_room("exact", np.array([1, tuning.uncompiled_entries + 1]))


def test_errors_of_small_batches(fresh):
    batch = np.stack([SMALL, SMALL])
    batch[1, 3, 2, 1] = np.nan
    with pytest.raises(mixsolve.MixsolveError, match=r"\(1, 3, 2, 1\)"):
        mixsolve.solve_batch(batch)
    mask = np.ones(SMALL.shape[:2], dtype=bool)
    mask[3, 2] = False
    assert mixsolve.solve_batch(batch, candidate_mask=mask).success.all()
    for alpha in (0.0, 0.1):
        batch = np.array([[[[1.0, -1.0]]], [[[1e308, -1e308]]]])
        with pytest.raises(mixsolve.MixsolveError, match="game 1 range"):
            mixsolve.solve_batch(batch, alpha)


ATTACKERS = {
    "groups": {"groups": np.arange(60) % 3},
    "capped": {"groups": np.arange(60) % 3, "group_weight": 1.5},
    "tail": {"tail": 0.3},
    "both": {"groups": np.arange(60) % 3, "tail": 0.5},
}


@pytest.mark.parametrize("alpha", [0.0, 0.05])
@pytest.mark.parametrize("attacker", ATTACKERS)
def test_attackers_who_choose_samples(fresh, forms, alpha, attacker):
    """In NumPy, but for alpha > 0 and many blocks of samples, of which each takes a pass."""
    found = mixsolve.solve(SMALL, alpha, **ATTACKERS[attacker])
    many = alpha > 0.0 and "tail" in ATTACKERS[attacker]
    assert set(forms) == {not many}
    tuning.uncompiled_entries = 0
    compiled = mixsolve.solve(SMALL, alpha, **ATTACKERS[attacker])
    assert found.success
    assert abs(found.value - compiled.value) <= 2 * found.tolerance
    assert abs(found.lower_bound - compiled.lower_bound) <= 2 * found.tolerance
