"""What presolve leaves of a game, against brute force; and that the game stays the same game."""

from collections import Counter

import numpy as np
import pytest
from reference import as_rows, base_measure, check_certificate

import mixsolve
from mixsolve.base.tuning import tuning
from mixsolve.engines import as_loss_tensor
from mixsolve.engines.memory import MemoryEngine
from mixsolve.methods import presolve
from mixsolve.solver import validation

SIZES = [1, 3, 7, 8, 9, 16, 63, 64, 65, 130, 1024]
TWO_VALUES = {
    "uint8": (np.uint8, 0, 1),
    "bool": (np.bool_, False, True),
    "float32": (np.float32, 0.0, 1.0),
    "float64": (np.float64, -3.5, 2.25),
}
two_valued = pytest.mark.parametrize("values", TWO_VALUES)


def engine_of(losses, sample_weight=None, mask=None, prior=None):
    tensor, _ = as_loss_tensor(losses)
    weight = validation.check_sample_weight(sample_weight, tensor.n_samples)
    allowed = validation.check_candidate_mask(mask, tensor)
    measure = validation.check_candidate_prior(prior, tensor, allowed)
    return MemoryEngine(tensor, weight, allowed, measure)


@pytest.fixture
def always_pays(monkeypatch):
    """Reduce games that hardly shrink, too."""
    monkeypatch.setattr(tuning, "worthwhile_share", 1.0)


@pytest.fixture
def in_pieces(monkeypatch):
    """Many chunks of many blocks, even of a small game."""
    monkeypatch.setattr(tuning, "chunk_entries", 256)
    monkeypatch.setattr(tuning, "kept_bytes", 0)
    monkeypatch.setattr(tuning, "block_entries", 128)


def maximal(rows):
    """Distinct rows that no other row of the sample dominates."""
    rows = np.unique(rows, axis=0)
    below = (rows[:, None] <= rows[None]).all(axis=2)
    return {tuple(row) for row in rows[below.sum(axis=1) == 1]}


def masses(rows, measure):
    """Distinct rows of a sample and the sum of their base measures."""
    total = Counter()
    for row, mass in zip(rows, measure, strict=True):
        total[tuple(row)] += mass
    return total


def tables(engine):
    """Rows and base measure of each sample of an engine without a mask."""
    samples, candidates = engine.every_candidate()
    rows = engine.gather(samples, candidates)
    measure = np.exp(engine.log_prior(samples, candidates))
    return [(rows[samples == i], measure[samples == i]) for i in range(engine.n_samples)]


def assert_exact_reduction(reduction, losses, mask=None):
    """Each sample keeps its maximal rows once, and samples that keep the same are one."""
    left = tables(reduction.engine)
    rows, _ = as_rows(losses, mask)
    assert reduction.groups.shape == (len(rows),)
    for group, sample in zip(reduction.groups, rows, strict=True):
        kept = [tuple(row) for row in left[group][0]]
        assert len(kept) == len(set(kept))
        assert set(kept) == maximal(sample)
    assert set(reduction.groups) == set(range(len(left)))


def assert_entropic_reduction(reduction, losses, alpha, mask=None, prior=None):
    """Each sample keeps its distinct rows once, with their masses, and its alpha."""
    left = tables(reduction.engine)
    rows, kept = as_rows(losses, mask)
    measures = base_measure(prior, kept)
    for i, group in enumerate(reduction.groups):
        found_rows, found_mass = left[group]
        expected = masses(rows[i], measures[i])
        assert len(found_rows) == len(expected)
        found = masses(found_rows, found_mass)
        assert found.keys() == expected.keys()
        for row, mass in expected.items():
            assert found[row] == pytest.approx(mass, rel=1e-12)
        assert reduction.alpha[group] == alpha[i]
    assert set(reduction.groups) == set(range(len(left)))


def assert_weights_add_up(reduction, engine):
    expected = np.zeros(reduction.engine.n_samples)
    np.add.at(expected, reduction.groups, engine.sample_weight)
    np.testing.assert_allclose(reduction.engine.sample_weight, expected, rtol=1e-13)


def assert_lift(reduction, engine, rng, mask=None):
    """An attack on the smaller game and what it means in the large one cost the same."""
    small = reduction.engine
    samples, candidates = small.every_candidate()
    mass = rng.gamma(1.0, size=samples.size) * (rng.random(samples.size) < 0.6)
    mass[samples % 3 == 1] = 0.0  # nothing said about these
    lifted, originals, masses_there = reduction.lift(samples, candidates, mass)
    assert (np.diff(lifted) >= 0).all()
    np.testing.assert_array_equal(np.unique(lifted), np.arange(engine.n_samples))
    assert len(set(zip(lifted.tolist(), originals.tolist(), strict=True))) == lifted.size
    if mask is not None:
        assert all(mask[i][j] for i, j in zip(lifted, originals, strict=True))
    attack = engine.strategy(lifted, originals, masses_there)
    smaller = small.strategy(samples, candidates, mass)
    rounding = 1e-13 * engine.magnitude
    np.testing.assert_allclose(
        engine.expected_losses(attack), small.expected_losses(smaller), rtol=1e-12, atol=rounding
    )


def subsets_of_few(rng, n, m, size, tops=3):
    """0/1 games in which every candidate is below one of a few: presolve pays."""
    highest = rng.random((n, tops, size)) < 0.7
    losses = highest[np.arange(n)[:, None], rng.integers(0, tops, (n, m))]
    losses = losses & (rng.random((n, m, size)) < 0.8)
    losses[:, :tops] = highest
    return rng.permutation(losses, axis=1)


def few_distinct(rng, n, m, size, distinct=3):
    """0/1 games of a few candidates that are there many times."""
    pool = rng.random((n, distinct, size)) < 0.5
    return pool[np.arange(n)[:, None], rng.integers(0, distinct, (n, m))]


def valued(bits, values):
    dtype, low, high = TWO_VALUES[values]
    return np.where(bits, dtype(high), dtype(low))


@two_valued
@pytest.mark.parametrize("size", SIZES)
def test_dominated_candidates_go(rng, size, values):
    bits = subsets_of_few(rng, 30, 40, size)
    bits[7:12] = bits[3, rng.permutation(40)]
    losses = valued(bits, values)
    engine = engine_of(losses, rng.random(30))
    assert engine.two_valued
    reduction = presolve.reduce(engine, None)
    assert_exact_reduction(reduction, losses)
    assert reduction.engine.tensor.dtype == engine.tensor.dtype
    assert reduction.alpha is None
    assert len(set(reduction.groups[[3, *range(7, 12)]])) == 1
    assert_weights_add_up(reduction, engine)
    assert_lift(reduction, engine, rng)


@two_valued
@pytest.mark.parametrize("size", SIZES)
def test_repeated_candidates_add_up(rng, size, values):
    bits = few_distinct(rng, 30, 40, size)
    bits[7:12] = bits[3, rng.permutation(40)]
    losses = valued(bits, values)
    alpha = np.full(30, 0.1)
    alpha[9:] = 0.2
    engine = engine_of(losses, rng.random(30))
    reduction = presolve.reduce(engine, alpha)
    assert_entropic_reduction(reduction, losses, alpha)
    groups = reduction.groups
    assert len(set(groups[[3, 7, 8]])) == len(set(groups[9:12])) == 1
    assert groups[3] != groups[9]
    assert_weights_add_up(reduction, engine)
    assert_lift(reduction, engine, rng)


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4, 6, 70])
@pytest.mark.parametrize("seed", range(3))
def test_any_two_valued_game(always_pays, request, size, seed, pieces):
    if pieces:
        request.getfixturevalue("in_pieces")
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 25, 40)
    bits = [rng.random((m, size)) < rng.choice([0.1, 0.5, 0.9]) for m in lengths]
    losses = [valued(table, "float64") for table in bits]
    mask = [rng.random(m) < 0.7 for m in lengths]
    prior = [rng.integers(1, 5, m) / 4.0 for m in lengths]
    for allowed in mask:
        allowed[rng.integers(allowed.size)] = True
    hidden = [np.where(a[:, None], table, 77.0) for a, table in zip(mask, losses, strict=True)]
    alpha = rng.choice([0.25, 0.5], 40)
    # The first sample says whether losses are packed into bits: once with, once without.
    for given, chosen in ((losses, None), (losses, mask), ([losses[0], *hidden[1:]], mask)):
        engine = engine_of(given, rng.random(40) + 0.1, chosen, prior)
        exact = presolve.reduce(engine, None)
        assert_exact_reduction(exact, given, chosen)
        assert_weights_add_up(exact, engine)
        assert_lift(exact, engine, rng, chosen)
        entropic = presolve.reduce(engine, alpha)
        assert_entropic_reduction(entropic, given, alpha, chosen, prior)
        assert_weights_add_up(entropic, engine)
        assert_lift(entropic, engine, rng, chosen)


def few_integers(rng, m, size):
    return rng.integers(-1, 3, (m, size)).astype(float)


def continuous(rng, m, size):
    """A few rows, rows below them and repeated ones."""
    tops = rng.normal(size=(3, size))
    rows = tops[rng.integers(0, 3, m)]
    return rows - rng.gamma(1.0, size=rows.shape) * (rng.random((m, 1)) < 0.5)


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("draw", [few_integers, continuous])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_any_other_game(always_pays, request, dtype, draw, size, pieces):
    if pieces:
        request.getfixturevalue("in_pieces")
    rng = np.random.default_rng(size)
    lengths = rng.integers(1, 30, 40)
    losses = [draw(rng, m, size).astype(dtype) for m in lengths]
    losses[0] = np.array([[0.0], [1.0], [0.5]]) * np.ones(size, dtype)
    losses[5] = losses[9] = losses[3]
    prior = [np.ones(table.shape[0]) for table in losses]
    prior[9] = prior[9].copy()
    prior[9][0] = 3.0 if len(prior[9]) > 1 else 1.0
    engine = engine_of(losses, rng.random(40), prior=prior)
    assert not engine.two_valued
    exact = presolve.reduce(engine, None)
    assert_exact_reduction(exact, losses)
    assert exact.groups[5] == exact.groups[9] == exact.groups[3]
    assert_weights_add_up(exact, engine)
    assert_lift(exact, engine, rng)
    alpha = np.full(40, 0.3)
    entropic = presolve.reduce(engine, alpha)
    assert_entropic_reduction(entropic, losses, alpha, prior=prior)
    assert entropic.groups[5] == entropic.groups[3]
    assert entropic.groups[9] != entropic.groups[3] or lengths[3] == 1
    assert_weights_add_up(entropic, engine)
    assert_lift(entropic, engine, rng)


def test_losses_of_one_value(always_pays):
    for value in (0.0, -2.0):
        losses = np.full((6, 5, 3), value)
        exact = presolve.reduce(engine_of(losses), None)
        assert exact.engine.n_rows == exact.engine.n_samples == 1
        entropic = presolve.reduce(engine_of(losses), np.full(6, 0.1))
        assert entropic.engine.n_rows == 1
        np.testing.assert_allclose(entropic.engine.log_prior(*[np.zeros(1, int)] * 2), 0.0)


def test_different_multiplicities_are_different_samples():
    row, other = [1.0, 0.0], [0.0, 1.0]
    losses = np.array([[row] * 10 + [other] * 2, [row] * 2 + [other] * 10, [other, row] * 6])
    reduction = presolve.reduce(engine_of(losses), np.full(3, 0.5))
    np.testing.assert_array_equal(reduction.groups, [0, 1, 2])
    np.testing.assert_array_equal(presolve.reduce(engine_of(losses), None).groups, [0, 0, 0])


def test_the_prior_counts_where_alpha_does():
    losses = np.zeros((2, 12, 2))
    losses[:, ::2, 0] = losses[:, 1::2, 1] = 1.0
    prior = np.ones((2, 12))
    prior[1, 0] = 7.0
    engine = engine_of(losses, prior=prior)
    reduction = presolve.reduce(engine, np.full(2, 0.5))
    assert_entropic_reduction(reduction, losses, np.full(2, 0.5), prior=prior)
    assert reduction.engine.n_samples == 2
    assert presolve.reduce(engine, None).engine.n_samples == 1


def test_masked_candidates_neither_stay_nor_dominate(rng):
    losses = valued(subsets_of_few(rng, 20, 40, 9), "float64")
    mask = np.ones((20, 40), dtype=bool)
    for i in range(20):  # the candidate that is worst on average may not be played
        mask[i, losses[i].sum(axis=1).argmax()] = False
    losses[5:][~mask[5:]] = np.nan
    engine = engine_of(losses, mask=mask)
    reduction = presolve.reduce(engine, None)
    assert_exact_reduction(reduction, losses, mask)
    assert_lift(reduction, engine, rng, mask)


def test_too_little_to_gain(rng):
    antichain = np.eye(12)[None].repeat(9, axis=0)
    assert presolve.reduce(engine_of(antichain), None) is None
    assert presolve.reduce(engine_of(antichain), np.full(9, 0.1)) is None
    for n in (1, 2):  # there would be room for all of these
        assert presolve.reduce(engine_of(antichain[:n]), None) is None
    assert presolve.reduce(engine_of(rng.normal(size=(50, 10, 5))), np.full(50, 0.1)) is None
    dominated = np.concatenate([antichain, np.zeros((9, 60, 12))], axis=1)
    assert presolve.reduce(engine_of(dominated), None).engine.n_rows == 12


@pytest.mark.parametrize(("distinct", "pays"), [(2, True), (5, True), (20, False)])
def test_a_method_of_few_passes_compares_each_row_with_few(rng, distinct, pays):
    """Whatever their share of the rows, many rows of a sample cost more than they save."""
    values = rng.normal(size=(12, distinct, 4))
    values[:, :, 1] = -values[:, :, 0]  # none of them dominates another
    losses = np.repeat(values, 40, axis=1)
    engine = engine_of(losses)
    few = presolve.reduce(engine, None, None, presolve.Worth.of_few_passes())
    assert (few is not None) == pays
    many = presolve.reduce(engine, None)
    assert many.engine.n_rows == 12 * distinct


def test_a_sample_that_stays_large_ends_the_reduction(rng):
    losses = np.repeat(rng.normal(size=(400, 1, 6)), 60, axis=1)
    losses[1::2] = rng.normal(size=(200, 60, 6))
    assert presolve.reduce(engine_of(losses), None, None, presolve.Worth.of_few_passes()) is None


def test_a_probe_is_a_few_samples_of_the_whole(rng):
    losses = rng.normal(size=(40, 5, 3))
    losses[17, 2, 1] = 9.0
    weight = rng.random(40)
    engine = engine_of(losses, weight)
    part = engine.probe(np.array([3, 8, 30]))
    assert (part.lowest, part.highest) == (losses.min(), 9.0)
    np.testing.assert_allclose(part.sample_weight, weight[[3, 8, 30]] / weight[[3, 8, 30]].sum())
    uniform = np.full(3, 1 / 3)
    expected = losses[[3, 8, 30]].mean(axis=2).argmax(axis=1)
    np.testing.assert_array_equal(part.best_response(uniform).candidates, expected)
    assert part.n_passes == 1.0  # the extremes were known


def test_where_only_the_first_samples_shrink(rng):
    losses = rng.normal(size=(60, 40, 6))
    losses[0] = losses[0, :1]
    assert presolve.reduce(engine_of(losses), None) is None
    assert presolve.reduce(engine_of(losses), np.full(60, 0.1)) is None


@pytest.mark.parametrize("alpha", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_a_first_sample_that_looks_two_valued(rng, alpha, dtype):
    """A value in between turns up later: the game is then taken as it is."""
    draw = few_distinct if alpha else subsets_of_few
    losses = (2 * draw(rng, 50, 30, 4)).astype(dtype)
    losses[33, 7, 2] = 1
    engine = engine_of(losses)
    assert engine.two_valued
    assert presolve.reduce(engine, np.full(50, alpha) if alpha else None) is None
    solution = mixsolve.solve(losses, alpha, tol=1e-8)
    check_certificate(solution, losses, alpha)
    raw = mixsolve.solve(losses, alpha, tol=1e-8, presolve=False)
    assert solution.value == pytest.approx(raw.value, abs=3e-8)


def test_too_many_classifiers_for_bits_are_compared_as_values(rng):
    losses = valued(subsets_of_few(rng, 4, 20, 1025), "float64")
    assert_exact_reduction(presolve.reduce(engine_of(losses), None), losses)


@pytest.mark.parametrize("game", ["bits", "values"])
@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("dressed", [False, True])
def test_the_optimum_stays(rng, game, alpha, dressed):
    draw = few_distinct if alpha else subsets_of_few
    losses = draw(rng, 60, 40, 5, 4).astype(float)
    if game == "values":
        losses *= rng.integers(1, 4, (60, 1, 5))
    losses[30:40] = losses[:10]
    given = {}
    if dressed:
        mask = rng.random((60, 40)) < 0.8
        mask[:, 0] = True
        weight = rng.random(60) * (rng.random(60) < 0.8)
        given = {"sample_weight": weight, "candidate_mask": mask}
        losses[1:][~mask[1:]] = np.nan
        if alpha:
            given["candidate_prior"] = rng.integers(1, 4, (60, 40)).astype(float)
            alpha = alpha * rng.choice([0.5, 1.0], 60)
    solved = mixsolve.solve(losses, alpha, tol=1e-9, presolve=True, **given)
    raw = mixsolve.solve(losses, alpha, tol=1e-9, presolve=False, **given)
    assert "presolve kept" in solved.message
    assert "presolve" not in raw.message
    check_certificate(solved, losses, alpha, **given)
    assert solved.success
    assert raw.success
    assert abs(solved.value - raw.value) <= solved.gap + raw.gap + 1e-13


def test_presolve_can_be_turned_off(monkeypatch):
    def refuse(*args):
        raise AssertionError("presolve was called")

    monkeypatch.setattr(presolve, "reduce", refuse)
    losses = np.zeros((4, 20, 2))
    assert mixsolve.solve(losses, presolve=False).success
    with pytest.raises(AssertionError, match="presolve was called"):
        mixsolve.solve(losses)
