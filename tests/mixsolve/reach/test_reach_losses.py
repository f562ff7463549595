"""Losses of sets in the attacker's reach, against their definition and against attacks."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

import mixsolve
from mixsolve.reach.certificate import chernoff_interval
from mixsolve.reach.losses import distinct_patterns

SEEDS = range(5)


def drawn(seed, samples=40, classifiers=5, features=9, sets=14):
    """Predictions, labels, what classifiers read and the sets, all random."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=samples)
    predictions = np.where(
        rng.random((samples, classifiers)) < 0.7, labels[:, None], rng.integers(3)
    )
    reads = rng.random((classifiers, features)) < 0.3
    return predictions, labels, reads, rng.random((sets, features)) < 0.15


def in_words(predictions, labels, reads, sets):
    """The tensor (N, S, L) by its definition, a set at a time and none left out."""
    losses = np.zeros((len(labels), len(sets), len(reads)))
    for i, s, k in np.ndindex(losses.shape):
        read_in_set = any(reads[k, f] and sets[s, f] for f in range(sets.shape[1]))
        losses[i, s, k] = predictions[i, k] != labels[i] or read_in_set
    return losses


@pytest.mark.parametrize("seed", SEEDS)
def test_distinct_patterns_have_the_rows_and_the_value_of_all_sets(seed):
    predictions, labels, reads, sets = drawn(seed)
    every = in_words(predictions, labels, reads, sets)
    losses = mixsolve.reach_losses(predictions, labels, reads, sets)
    assert losses.values.shape[1] <= losses.n_sets == len(sets)
    for i in range(len(labels)):
        assert {tuple(row) for row in losses.values[i]} == {tuple(row) for row in every[i]}
    ours, theirs = mixsolve.solve(losses.values, tol=1e-9), mixsolve.solve(every, tol=1e-9)
    assert ours.value == pytest.approx(theirs.value, abs=1e-8)


@pytest.mark.parametrize("at_most", [2, 3])
def test_several_sets_at_once_are_all_unions(at_most):
    _, _, reads, sets = drawn(7, sets=6)
    touched = sets.astype(int) @ reads.T.astype(int) > 0
    patterns, examples = distinct_patterns(touched, at_most)
    unions = {
        tuple(touched[list(chosen)].any(axis=0))
        for chosen in itertools.product(range(len(sets)), repeat=at_most)
    }
    assert {tuple(pattern) for pattern in patterns} == unions
    assert len(patterns) == len(unions)
    for pattern, chosen in zip(patterns, examples, strict=True):
        assert len(chosen) <= at_most
        assert (touched[list(chosen)].any(axis=0) == pattern).all()


def test_names_lists_and_masks_say_the_same():
    predictions, labels, reads, sets = drawn(3)
    as_lists = [np.flatnonzero(own).tolist() for own in reads]
    by_name = {f"sensor {s}": np.flatnonzero(own) for s, own in enumerate(sets)}
    masks = mixsolve.reach_losses(predictions, labels, reads, sets)
    lists = mixsolve.reach_losses(predictions, labels, as_lists, by_name)
    mixed = mixsolve.reach_losses(predictions, labels, as_lists, sets.tolist())
    assert (masks.values == lists.values).all()
    assert (masks.values == mixed.values).all()


def test_no_values_in_reach_do_worse_than_the_certificate():
    """Classifiers of the features that they read: forge each sensor in all ways tried."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6))
    y = (X.sum(axis=1) > 0).astype(int)
    reads = [[0, 1], [2, 3], [4, 5]]
    sensors = [[f] for f in range(6)]

    def said(points):
        return np.stack([(points[:, own].sum(axis=1) > 0) for own in reads], axis=1).astype(int)

    losses = mixsolve.reach_losses(said(X), y, reads, sensors)
    certificate = losses.certify(held_out=False, tol=1e-9)
    # Against an attacker who knows the weights and sees the sample: a large value of the wrong
    # sign decides every classifier that reads the sensor.
    worst = np.zeros(len(X))
    for sensor, value in itertools.product(range(6), [-1e9, -1.0, 0.0, 1.0, 1e9]):
        forged = X.copy()
        forged[:, sensor] = value
        worst = np.maximum(worst, (said(forged) != y[:, None]) @ certificate.weights)
    assert 1 - worst.mean() >= certificate.certified.value - 1e-12
    assert 1 - worst.mean() == pytest.approx(certificate.certified.value, abs=1e-12)
    assert 0.3 < certificate.certified.value < certificate.clean.value


def test_weights_of_one_half_are_reported_on_the_other():
    predictions, labels, _, sets = drawn(1, samples=400)
    losses = mixsolve.reach_losses(predictions, labels, np.eye(5, 9, dtype=bool), sets)
    certificate = losses.certify(seed=3)
    drawn_half = np.random.default_rng(3).permutation(400)
    chosen, rest = drawn_half[:200], drawn_half[200:]
    alone = mixsolve.solve(losses.values[np.sort(chosen)])
    assert certificate.fitted == pytest.approx(1 - alone.value, abs=1e-6)
    worst = (losses.values[rest] @ certificate.weights).max(axis=1)
    assert certificate.certified.value == pytest.approx(1 - worst.mean())
    assert certificate.certified.low < certificate.certified.value < certificate.certified.high
    assert certificate.held_out
    assert certificate.reported == 200
    assert "held-out" in certificate.sentences()[0]
    given = losses.certify(certificate.weights)
    both = 1 - (losses.values @ certificate.weights).max(axis=1).mean()
    assert given.certified.value == pytest.approx(both)
    assert given.fitted is None


@pytest.mark.parametrize("p", [0.02, 0.5, 0.93])
@pytest.mark.parametrize("count", [5, 60])
def test_the_interval_covers_for_any_number_of_samples(p, count):
    """Exactly, by summing the binomial probabilities of the means whose interval holds p."""
    covered = 0.0
    for successes in range(count + 1):
        interval = chernoff_interval(successes / count, count, 0.9)
        assert interval.low <= successes / count <= interval.high
        covered += binom.pmf(successes, count, p) * (interval.low <= p <= interval.high)
    assert covered >= 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": [1, 0]}, "predictions must have the shape"),
        ({"labels": [1]}, "labels must have the shape"),
        ({"reads": [[0]]}, "one entry for each of the 2 classifiers"),
        ({"reads": [["a"], [1]]}, "by their numbers"),
        ({"sets": []}, "at least one set"),
        ({"sets": [[-1]]}, "from 0 to"),
        ({"sets": 3}, "boolean array"),
        ({"reads": np.ones((2, 3), bool), "sets": [[5]]}, "mask over 3 features"),
        ({"at_most": 0}, "at_most must be"),
    ],
)
def test_wrong_input_says_what_is_wrong(change, message):
    given = {
        "predictions": [[1, 0], [0, 0]],
        "labels": [1, 0],
        "reads": [[0], [1]],
        "sets": [[0], [1]],
    } | change
    with pytest.raises(mixsolve.MixsolveError, match=message):
        mixsolve.reach_losses(**given)


def test_wrong_weights_and_halves_are_refused():
    losses = mixsolve.reach_losses([[1, 0]], [1], [[0], [1]], [[0]])
    with pytest.raises(mixsolve.MixsolveError, match="2 probabilities"):
        losses.certify([0.5, 0.6])
    with pytest.raises(mixsolve.MixsolveError, match="has no use"):
        losses.certify([0.5, 0.5], tol=1e-3)
    with pytest.raises(mixsolve.MixsolveError, match="at least 2 samples"):
        losses.certify()
