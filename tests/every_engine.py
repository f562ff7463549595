"""The passes of any engine against the lines of NumPy that say the same."""

from dataclasses import dataclass

import numpy as np
import pytest
from reference import as_rows, base_measure

from mixsolve.engines import as_loss_tensor
from mixsolve.engines.memory import MemoryEngine
from mixsolve.solver import validation

TINY, MODERATE, HUGE = 1e-8, 0.3, 1e12


def engine_of(losses, sample_weight=None, mask=None, prior=None):
    tensor, _ = as_loss_tensor(losses)
    weight = validation.check_sample_weight(sample_weight, tensor.n_samples)
    allowed = validation.check_candidate_mask(mask, tensor)
    measure = validation.check_candidate_prior(prior, tensor, allowed)
    return MemoryEngine(tensor, weight, allowed, measure)


@dataclass
class Case:
    """A game as the engine has it, and as tables of the candidates that may be played."""

    losses: object
    weight: np.ndarray | None = None
    mask: object = None
    prior: object = None

    def __post_init__(self):
        self.engine = engine_of(self.losses, self.weight, self.mask, self.prior)
        self.rows, self.kept = as_rows(self.losses, self.mask)
        self.measures = base_measure(self.prior, self.kept)
        self.w = self.engine.sample_weight
        self.size = self.engine.n_classifiers


def planted(rng, shape):
    """Continuous losses; some candidates of a sample are there twice."""
    losses = rng.gamma(0.5, 1.5, shape) - 1.0
    losses[:, -1] = losses[:, 0]
    return losses


def ragged(tables, lengths):
    return [table[:length] for table, length in zip(tables, lengths, strict=True)]


def make(kind):
    rng = np.random.default_rng(4)
    n, m, size = 37, 6, 5
    losses = planted(rng, (n, m, size))
    lengths = rng.integers(1, m + 1, n)
    mask = rng.random((n, m)) < 0.6
    mask[np.arange(n), rng.integers(0, m, n)] = True
    prior = rng.gamma(1.0, size=(n, m)) + 1e-3
    weight = rng.gamma(1.0, size=n) * (rng.random(n) < 0.7)
    hidden = np.where(mask[:, :, None], losses, np.nan)
    no_prior = np.where(mask, prior, np.nan)
    integers = rng.integers(0, 4, (n, m, 7))
    everything = {
        "weight": weight,
        "mask": ragged(mask | (np.arange(m) == 0), lengths),
        "prior": ragged(prior, lengths),
    }
    return {
        "float64": lambda: Case(losses),
        "float32": lambda: Case(losses.astype(np.float32)),
        "uint8": lambda: Case(integers.astype(np.uint8)),
        "bool": lambda: Case(integers > 2),
        "int64": lambda: Case(integers),
        "strided": lambda: Case(np.asfortranarray(losses)),
        "ragged": lambda: Case(ragged(losses, lengths)),
        "ragged bool": lambda: Case(ragged(integers > 1, lengths)),
        "masked": lambda: Case(hidden, mask=mask),
        "masked float32": lambda: Case(hidden.astype(np.float32), mask=mask),
        "prior": lambda: Case(losses, prior=prior),
        "masked prior": lambda: Case(hidden, mask=mask, prior=no_prior),
        "weights": lambda: Case(losses, weight=weight),
        "everything": lambda: Case(ragged(losses, lengths), **everything),
        "far from zero": lambda: Case(losses + 1e6),
        "one sample": lambda: Case(losses[:1]),
        "one candidate": lambda: Case(losses[:, :1]),
        "one classifier": lambda: Case(losses[:, :, :1]),
        "two classifiers": lambda: Case(losses[:, :, :2]),
        "one number": lambda: Case(losses[:1, :1, :1]),
    }[kind]()


KINDS = [
    "float64", "float32", "uint8", "bool", "int64", "strided", "ragged", "ragged bool", "masked",
    "masked float32", "prior", "masked prior", "weights", "everything", "far from zero",
    "one sample", "one candidate", "one classifier", "two classifiers", "one number",
]  # fmt: skip


def dyadic(rng, size):
    """Weights in 64ths, some of them 0, so that sums of integer losses are exact."""
    return rng.multinomial(64, rng.dirichlet(np.full(size, 0.7))) / 64


def several_weights(size):
    rng = np.random.default_rng(8)
    even = np.diff(np.arange(size + 1) * 64 // size) / 64
    return [even, np.eye(size)[-1], *(dyadic(rng, size) for _ in range(3))]


def scores(case, weights):
    return [(table * weights).sum(axis=1) for table in case.rows]


def magnitude(case):
    return max(np.abs(table).max() for table in case.rows)


def best_rows(case, weights):
    first = [int(np.argmax(score)) for score in scores(case, weights)]
    return first, np.array([table[j] for table, j in zip(case.rows, first, strict=True)])


def assert_best(case, weights, response):
    first, best = best_rows(case, weights)
    rounding = 1e-14 * magnitude(case)
    expected = [candidates[j] for candidates, j in zip(case.kept, first, strict=True)]
    np.testing.assert_array_equal(response.candidates, expected)
    np.testing.assert_allclose(response.gradient, case.w @ best, rtol=1e-13, atol=rounding)
    value = case.w @ (best * weights).sum(axis=1)
    np.testing.assert_allclose(response.value, value, rtol=1e-13, atol=rounding)


def test_best_response(case):
    for weights in several_weights(case.size):
        assert_best(case, weights, case.engine.best_response(weights))


def test_range_of_the_losses(case):
    counted = [table for table, weight in zip(case.rows, case.w, strict=True) if weight > 0]
    lowest = min(table.min() for table in counted)
    highest = max(table.max() for table in counted)
    assert (case.engine.lowest, case.engine.highest) == (lowest, highest)
    assert case.engine.spread == highest - lowest
    assert case.engine.magnitude == max(abs(lowest), abs(highest))


def soft(case, weights, alpha):
    """Eq. (7), its gradient and its Hessian, in numbers that stay accurate for every alpha."""
    value, gradient, hessian = 0.0, 0.0, 0.0
    game = zip(case.w, case.rows, case.measures, scores(case, weights), alpha, strict=True)
    for w, table, p, score, a in game:
        top = score.max()
        log_mean = np.log1p(p @ np.expm1((score - top) / a))
        q = p * np.exp((score - top) / a - log_mean)
        mean = table[0] + q @ (table - table[0])
        value = value + w * (top + a * log_mean)
        gradient = gradient + w * mean
        hessian = hessian + w / a * (table - mean).T @ (q[:, None] * (table - mean))
    return value, gradient, hessian


def alphas(case, alpha):
    """About `alpha` spreads, a different one for each sample."""
    return alpha * max(case.engine.spread, 1.0) * np.linspace(0.5, 2.0, case.engine.n_samples)


@pytest.mark.parametrize("alpha", [TINY, MODERATE, HUGE])
def test_soft_response(case, alpha):
    alpha = alphas(case, alpha)
    rounding = 1e-14 * magnitude(case)
    for weights in several_weights(case.size):
        response = case.engine.soft_response(weights, alpha)
        value, gradient, hessian = soft(case, weights, alpha)
        curvature = case.engine.spread**2 / alpha.min()
        # Scores rounded by epsilon move the probabilities by epsilon / alpha.
        blur = 4 * rounding / alpha.min()
        np.testing.assert_allclose(response.value, value, rtol=1e-13, atol=rounding)
        slip = rounding + blur * case.engine.spread
        np.testing.assert_allclose(response.gradient, gradient, rtol=1e-12, atol=slip)
        slip = (1e-12 + blur) * curvature
        np.testing.assert_allclose(response.hessian, hessian, rtol=1e-9, atol=slip)
        np.testing.assert_array_equal(response.hessian, response.hessian.T)
        passes = case.engine.n_passes
        assert case.engine.soft_response(weights, alpha) is response
        assert case.engine.soft_response(weights, alpha, hessian=False).hessian is None
        assert case.engine.n_passes == passes
        first_order = case.engine.soft_response(weights, alpha.copy(), hessian=False)
        assert case.engine.n_passes == passes + 1
        assert first_order.hessian is None
        assert first_order.value == response.value
        np.testing.assert_array_equal(first_order.gradient, response.gradient)


def test_limits_of_the_soft_response(case):
    """The exact risk for alpha -> 0; the mean over the base measure for alpha -> infinity."""
    weights = several_weights(case.size)[0]
    n = case.engine.n_samples
    digits = {"rtol": 1e-10, "atol": 1e-10 * magnitude(case)}
    exact = case.engine.best_response(weights)
    cold = case.engine.soft_response(weights, np.full(n, 1e-13), hessian=False)
    np.testing.assert_allclose(cold.value, exact.value, **digits)
    hot = case.engine.soft_response(weights, np.full(n, HUGE), hessian=False)
    mean = case.w @ [p @ table for p, table in zip(case.measures, case.rows, strict=True)]
    np.testing.assert_allclose(hot.gradient, mean, **digits)
    np.testing.assert_allclose(hot.value, mean @ weights, **digits)


def test_derivatives_by_finite_differences(case):
    rng = np.random.default_rng(1)
    alpha, step = alphas(case, MODERATE), 1e-5
    weights = rng.dirichlet(np.ones(case.size))
    here = case.engine.soft_response(weights, alpha)
    digits = {"rtol": 1e-6, "atol": 1e-8 + 1e-10 * magnitude(case)}
    for k in range(case.size):
        move = step * np.eye(case.size)[k]
        above = case.engine.soft_response(weights + move, alpha)
        below = case.engine.soft_response(weights - move, alpha)
        slope = (above.value - below.value) / (2 * step)
        np.testing.assert_allclose(here.gradient[k], slope, **digits)
        column = (above.gradient - below.gradient) / (2 * step)
        np.testing.assert_allclose(here.hessian[:, k], column, **digits)


def test_lower_bound_is_one(case):
    alpha = alphas(case, MODERATE)
    points = several_weights(case.size)
    values = [soft(case, weights, alpha)[0] for weights in points]
    for weights in points:
        response = case.engine.soft_response(weights, alpha)
        bound = response.lower_bound(weights, response.gradient.min())
        assert bound <= min(values) + 1e-12 * magnitude(case)


def near_rows(case, weights, radius, slack):
    """What `near_response` lists, and all that is near: pairs (sample, candidate)."""
    listed, everything = [], []
    step = radius * np.sqrt(case.size)
    first, best = best_rows(case, weights)
    for i, (table, score) in enumerate(zip(case.rows, scores(case, weights), strict=True)):
        change = table - best[i]
        margin = score[first[i]] - score
        distance = np.linalg.norm(change, axis=1)
        is_near = margin <= (0.0 if slack is None else slack[i]) + radius * distance
        if slack is None:
            is_near &= distance > 0.0
        near = [j for j in np.flatnonzero(is_near) if j != first[i]]
        taken = near
        if slack is None and len(near) > case.size:
            leads = np.concatenate([step * change[near], -step * change[near]], axis=1)
            leads -= margin[near, None]
            winners = {near[np.argmax(lead)] for lead in leads.T if lead.max() > 0.0}
            taken = [j for j in near if j in winners]
        everything += [(i, case.kept[i][j]) for j in near]
        if taken:
            listed += [(i, case.kept[i][j]) for j in [first[i], *taken]]
    return listed, everything


def pairs(near):
    return list(zip(near.near_samples.tolist(), near.near_candidates.tolist(), strict=True))


@pytest.mark.parametrize("pure", [True, False], ids=["winners", "slack"])
@pytest.mark.parametrize("radius", [0.0, 0.03, 0.3])
def test_near_response(case, radius, pure):
    rng = np.random.default_rng(2)
    n, everywhere = case.engine.n_samples, case.engine.n_rows
    slack = None if pure else 0.1 * case.engine.spread * rng.random(n)
    for _ in range(3):
        weights = rng.dirichlet(np.ones(case.size))
        near = case.engine.near_response(weights, radius, everywhere, slack)
        exact = case.engine.best_response(weights)
        assert near.value == pytest.approx(exact.value, rel=1e-14, abs=1e-14 * magnitude(case))
        np.testing.assert_array_equal(near.candidates, exact.candidates)
        np.testing.assert_allclose(near.gradient, exact.gradient, rtol=1e-14, atol=1e-15)
        listed, everything = near_rows(case, weights, radius, slack)
        assert pairs(near) == listed
        assert near.n_near == len(listed)
        if not pure:
            doubted = {i for i, _ in everything}
            chosen = [(i, j) for i, j in enumerate(near.candidates.tolist()) if i in doubted]
            assert sorted(pairs(near)) == sorted(everything + chosen)


def dense(case, attack):
    """Probabilities of the candidates that may be played, one array a sample."""
    found = []
    for (candidates, probabilities), kept in zip(attack, case.kept, strict=True):
        assert np.isin(candidates, kept).all()
        assert (np.diff(candidates) > 0).all()
        q = np.zeros(len(kept))
        q[np.searchsorted(kept, candidates)] = probabilities
        found.append(q)
    return found


@pytest.mark.parametrize("alpha", [TINY, MODERATE, HUGE])
def test_gibbs(case, alpha):
    alpha = alphas(case, alpha)
    slip = 1e-11 + 4e-14 * magnitude(case) / alpha.min()
    for weights in several_weights(case.size):
        attack = case.engine.gibbs(weights, alpha)
        assert len(attack) == case.engine.n_samples
        found = dense(case, attack)
        for i, (p, score) in enumerate(zip(case.measures, scores(case, weights), strict=True)):
            q = p * np.exp((score - score.max()) / alpha[i])
            q /= q.sum()
            np.testing.assert_allclose(found[i], q, rtol=1e-10, atol=slip)
            assert found[i].sum() == pytest.approx(1.0, abs=1e-14)
            assert (found[i][q > 1e-16 + slip] > 0.0).all()


@pytest.mark.parametrize("alpha", [TINY, MODERATE, HUGE])
def test_soft_answer_is_the_three_responses(case, alpha):
    alpha = alphas(case, alpha)
    for weights in several_weights(case.size):
        best = case.engine.best_response(weights)
        soft = case.engine.soft_response(weights, alpha, hessian=False)
        attack = case.engine.gibbs(weights, alpha)
        answer = case.engine.soft_answer(weights, alpha.copy())
        assert answer.soft.hessian is None
        assert answer.soft.value == soft.value
        np.testing.assert_array_equal(answer.soft.gradient, soft.gradient)
        for known in (answer.best, case.engine.best_response(weights)):
            if known is not None:
                np.testing.assert_allclose(known.value, best.value, rtol=1e-14)
                np.testing.assert_allclose(known.gradient, best.gradient, rtol=1e-13)
                np.testing.assert_array_equal(known.candidates, best.candidates)
        if answer.attack is not None:
            found, expected = dense(case, answer.attack), dense(case, attack)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("alpha", [MODERATE, HUGE])
def test_rough_response_has_the_same_value_and_gradient(case, alpha):
    alpha = alphas(case, alpha)
    weights = several_weights(case.size)[-1]
    rough = case.engine.rough_response(weights, alpha)
    soft = case.engine.soft_response(weights, alpha)
    assert rough.value == soft.value
    np.testing.assert_array_equal(rough.gradient, soft.gradient)
    slip = 1e-12 * case.engine.spread**2 / alpha.min()
    np.testing.assert_allclose(rough.hessian, soft.hessian, rtol=1e-9, atol=slip)  # few rows: exact


@pytest.mark.parametrize("alpha", [TINY, MODERATE, HUGE])
def test_losses_under_the_gibbs_strategy_are_the_gradient(case, alpha):
    alpha = alphas(case, alpha)
    weights = several_weights(case.size)[-1]
    losses = case.engine.expected_losses(case.engine.gibbs(weights, alpha))
    gradient = case.engine.soft_response(weights, alpha, hessian=False).gradient
    slip = 1e-10 + 4e-14 * magnitude(case) / alpha.min()
    np.testing.assert_allclose(losses, gradient, rtol=1e-10, atol=slip * magnitude(case))


def test_every_candidate_and_gather(case):
    samples, candidates = case.engine.every_candidate()
    expected = [(i, j) for i, kept in enumerate(case.kept) for j in kept]
    assert list(zip(samples.tolist(), candidates.tolist(), strict=True)) == expected
    rows = case.engine.gather(samples, candidates)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, np.concatenate(case.rows))
    some = np.flatnonzero(np.random.default_rng(5).random(samples.size) < 0.3)
    rows = case.engine.gather(samples[some], candidates[some])
    np.testing.assert_array_equal(rows, np.concatenate(case.rows)[some])


def test_log_prior(case):
    samples, candidates = case.engine.every_candidate()
    found = case.engine.log_prior(samples, candidates)
    np.testing.assert_allclose(found, np.log(np.concatenate(case.measures)), rtol=1e-13, atol=1e-15)
    some = np.arange(0, samples.size, 3)
    np.testing.assert_array_equal(
        case.engine.log_prior(samples[some], candidates[some]), found[some]
    )


def test_strategy_and_expected_losses(case):
    rng = np.random.default_rng(6)
    samples, candidates = case.engine.every_candidate()
    mass = rng.gamma(1.0, size=samples.size) * (rng.random(samples.size) < 0.5)
    mass[samples % 4 == 1] = 0.0  # these have nothing to play: their first candidate it is
    given = mass.copy()
    attack = case.engine.strategy(samples, candidates, mass)
    np.testing.assert_array_equal(mass, given)
    found = dense(case, attack)
    losses = 0.0
    for i, table in enumerate(case.rows):
        q = mass[samples == i]
        q = q / q.sum() if q.sum() else np.eye(len(q))[0]
        np.testing.assert_allclose(found[i], q, rtol=1e-13)
        losses = losses + case.w[i] * q @ table
    assert (attack.probabilities > 0.0).all()
    rounding = 1e-14 * magnitude(case)
    np.testing.assert_allclose(case.engine.expected_losses(attack), losses, 1e-13, rounding)


def test_strategy_of_pure_responses(case):
    weights = several_weights(case.size)[0]
    response = case.engine.best_response(weights)
    n = case.engine.n_samples
    attack = case.engine.strategy(np.arange(n), response.candidates, np.full(n, 0.25))
    np.testing.assert_array_equal(attack.probabilities, np.ones(n))
    rounding = 1e-14 * magnitude(case)
    np.testing.assert_allclose(
        case.engine.expected_losses(attack), response.gradient, 1e-13, rounding
    )


def test_subsample(case):
    chosen = np.arange(0, case.engine.n_samples, 3)
    weights = several_weights(case.size)[-1]
    part = case.engine.subsample(chosen)
    w = case.w[chosen]
    w = w / w.sum() if w.sum() else np.full(chosen.size, 1.0 / chosen.size)
    np.testing.assert_allclose(part.sample_weight, w, rtol=1e-14)
    first, best = best_rows(case, weights)
    response = part.best_response(weights)
    np.testing.assert_array_equal(response.candidates, [case.kept[i][first[i]] for i in chosen])
    rounding = 1e-14 * magnitude(case)
    np.testing.assert_allclose(response.gradient, w @ best[chosen], 1e-13, rounding)
    samples, candidates = part.every_candidate()
    tables = np.concatenate([case.rows[i] for i in chosen])
    np.testing.assert_array_equal(part.gather(samples, candidates), tables)
    measures = np.concatenate([case.measures[i] for i in chosen])
    np.testing.assert_allclose(np.exp(part.log_prior(samples, candidates)), measures, rtol=1e-13)


def test_passes_are_counted(case):
    weights = several_weights(case.size)[0]
    alpha = alphas(case, MODERATE)
    engine = case.engine
    engine.n_passes = 0.0
    engine.best_response(weights)
    engine.near_response(weights, 0.1, 100)
    engine.soft_response(weights, alpha)
    engine.gibbs(weights, alpha)
    assert engine.n_passes == 4.0
    engine.gather(np.zeros(1, dtype=np.int64), case.kept[0][:1])
    assert engine.n_passes == pytest.approx(4.0 + 1.0 / engine.n_rows)


def everything_an_engine_says(engine, weights, alpha, slack):
    best = engine.best_response(weights)
    near = engine.near_response(weights, 0.05, engine.n_rows // 3, slack)
    pure = engine.near_response(weights, 0.05, engine.n_rows // 3)
    smooth = engine.soft_response(weights, alpha)
    attack = engine.gibbs(weights, alpha)
    parts = [engine.lowest, engine.highest, best.value, best.gradient, best.candidates]
    for response in (near, pure):
        parts += [response.value, response.gradient, response.candidates]
        parts += [response.near_samples, response.near_candidates, response.n_near]
    parts += [smooth.value, smooth.gradient, smooth.hessian]
    return [*parts, attack.indptr, attack.candidates, attack.probabilities]
