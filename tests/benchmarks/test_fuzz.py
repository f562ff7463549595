"""Random and degenerate games of all kinds, solved every way; and the judge knows what is wrong."""

from dataclasses import replace

import numpy as np
import pytest
from corpus import seeds

import mixsolve
from benchmarks.fuzz import run
from benchmarks.fuzz.draw import Drawn, draw
from benchmarks.fuzz.judge import Truth, compare_with_descent, compare_with_highs, judge

SEED, TOL = 3, 1e-6


@pytest.mark.parametrize("hundred", seeds(range(5), quick=1))
def test_no_success_is_wrong_and_nothing_crashes(hundred):
    results = [run.examine(SEED, number) for number in range(100 * hundred, 100 * (hundred + 1))]
    assert {result.number: result.faults for result in results if result.faults} == {}
    solved = run.count(results, "way")
    assert sum(row["solved"] for row in solved.values()) >= 90


def test_a_game_is_drawn_again_by_its_number():
    for number in range(20):
        one, other = draw(SEED, number), draw(SEED, number)
        assert (one.kind, one.traits) == (other.kind, other.traits)
        for table, again in zip(one.losses, other.losses, strict=True):
            np.testing.assert_array_equal(table, again)


@pytest.fixture(params=[0.0, 0.3], ids=["exact", "entropic"])
def solved(request, rng):
    losses = rng.gamma(0.5, 1.5, (6, 5, 3))
    game = Drawn("gamma", (), losses, request.param)
    return game, Truth(game), mixsolve.solve(losses, request.param)


def test_a_right_answer_is_right(solved):
    game, truth, solution = solved
    assert judge(game, truth, solution, game.alpha, TOL).wrong == ""
    compare = compare_with_descent if game.alpha else compare_with_highs
    assert compare(truth, solution, TOL)[0] == ""


def _worse_weights(solution):
    return replace(solution, weights=np.roll(solution.weights, 1))


def _one_candidate_never_played(solution):
    played = solution.attack
    return replace(solution, attack=replace(played, probabilities=played.probabilities * 0.9))


def _pure(solution):
    """The attacker plays one candidate of each sample: a bound, but a loose one."""
    first = solution.attack.indptr[:-1]
    attack = type(solution.attack)(
        np.arange(first.size + 1), solution.attack.candidates[first], np.ones(first.size), 5
    )
    return replace(solution, attack=attack)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_worse_weights, "value"),
        (_pure, "lower bound above what the attack proves"),
        (_one_candidate_never_played, "attack on sample 0"),
        (lambda s: replace(s, value=np.nan), "value is nan"),
        (lambda s: replace(s, weights=np.full(3, np.nan)), "weights"),
        (lambda s: replace(s, weights=2 * s.weights), "weights sum"),
        (lambda s: replace(s, value=s.value - 1e-4), "value"),
        (lambda s: replace(s, risk=s.risk + 1e-4), "risk"),
        (lambda s: replace(s, lower_bound=s.lower_bound + 1e-4), "lower bound"),
        (lambda s: replace(s, tolerance=1e3), "tolerance"),
        (lambda s: replace(s, gap=1e-3), "gap above tolerance"),
        (lambda s: replace(s, gap=-1e-3), "negative gap"),
    ],
)
def test_what_is_wrong_is_found(solved, spoil, words):
    game, truth, solution = solved
    assert judge(game, truth, spoil(solution), game.alpha, TOL).wrong.startswith(words)


def test_other_solvers_disagree_with_a_wrong_value(solved):
    game, truth, solution = solved
    high = replace(solution, value=solution.value + 1e-3)
    compare = compare_with_descent if game.alpha else compare_with_highs
    assert compare(truth, high, TOL)[0] != ""
    if game.alpha:
        bound = replace(solution, lower_bound=solution.value + 1e-3)
        assert "below our bound" in compare(truth, bound, TOL)[0]


def test_a_crash_is_a_fault(monkeypatch):
    def broken(game, rng):
        raise FloatingPointError("broken")

    monkeypatch.setitem(run.WAYS, "solve", (broken, 1.0))
    assert "FloatingPointError: broken" in run.examine(SEED, 0, "solve").faults["crash"]


def test_what_takes_long_twice_is_a_fault(monkeypatch):
    monkeypatch.setattr(run, "SLOW", 0.0)
    assert set(run.examine(SEED, 0, "solve").faults) == {"slow"}
