"""Deterministic ensembles against their formulas in float64, and votes counted by hand."""

import numpy as np
import pytest
import torch
from attack_cases import linear_classifiers

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.core.ensemble import RULES, Ensemble, WithEnsembles, votes
from mixsolve_torch.core.losses import errs
from mixsolve_torch.core.mixture import Mixture


class Fixed(torch.nn.Module):
    """Returns logits that were given, one row an image, and counts its calls."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.as_tensor(logits, dtype=torch.float32)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.logits + 0 * x.flatten(1).sum(dim=1, keepdim=True)


def drawn(count=4, images=50, classes=5, seed=0):
    return 3 * np.random.default_rng(seed).standard_normal((count, images, classes))


def ensemble(logits, rule, weights=None):
    return Ensemble([Fixed(own) for own in logits], rule, weights)


def scores_of(logits, rule, weights=None):
    return ensemble(logits, rule, weights)(torch.zeros(np.shape(logits)[1], 1, 1, 1))


def test_means_are_their_formulas():
    logits, weights = drawn(), np.array([0.1, 0.2, 0.3, 0.4])
    expected = np.tensordot(weights, logits, axes=1)
    np.testing.assert_allclose(scores_of(logits, "mean of logits", weights), expected, atol=1e-5)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    expected = np.log(np.tensordot(weights, probabilities, axes=1))
    found = scores_of(logits, "mean of probabilities", weights)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    mixture = Mixture([Fixed(own) for own in logits], weights)
    torch.testing.assert_close(found, mixture(torch.zeros(50, 1, 1, 1)))


@pytest.mark.parametrize("weights", [None, [0.4, 0.3, 0.2, 0.1], [0.4, 0.2, 0.2, 0.2]])
def test_a_vote_ranks_classes_as_the_votes_do(weights):
    """Winners by counting in Python; all classes of the most votes are tied, the others below."""
    logits = drawn(seed=1)
    lam = [0.25] * 4 if weights is None else weights
    scores = scores_of(logits, "vote", weights)
    ties = 0
    for i in range(50):
        count = [0.0] * 5
        for k in range(4):
            count[int(logits[k, i].argmax())] += lam[k]
        winners = [c for c in range(5) if count[c] > max(count) - 1e-9]
        ties += len(winners) > 1
        top = scores[i].max()
        assert [c for c in range(5) if scores[i, c] == top] == winners
        tally = votes(torch.tensor(logits[:, i : i + 1]), lam)
        assert tally[0].tolist() == pytest.approx(count)
    assert 0 < ties < 50


def test_a_vote_keeps_the_scores_of_the_mean_where_they_agree():
    logits = drawn(seed=2)
    soft, vote = (scores_of(logits, rule) for rule in ("mean of probabilities", "vote"))
    tally = votes(torch.tensor(logits), [0.25] * 4)
    top = tally == tally.max(dim=1, keepdim=True).values
    agree = (top.sum(dim=1) == 1) & (tally.argmax(dim=1) == soft.argmax(dim=1))
    assert 0 < agree.sum() < 50
    assert torch.equal(vote[agree], soft[agree])


def test_the_three_rules_decide_differently():
    """Two members barely for class 0, one surely for class 1."""
    logits = [[[0.2, 0.0]], [[0.2, 0.0]], [[0.0, 9.0]]]
    assert scores_of(logits, "vote").argmax() == 0
    assert scores_of(logits, "mean of logits").argmax() == 1
    assert scores_of(logits, "mean of probabilities").argmax() == 1
    y = torch.zeros(1, dtype=torch.int64)
    wrong = [errs(torch.tensor(own), y).item() for own in logits]
    assert np.mean(wrong) == pytest.approx(1 / 3)  # what the random classifier does


def test_ties_are_errors_and_a_member_that_ties_does_not_vote():
    y = torch.zeros(1, dtype=torch.int64)
    split = scores_of([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]], "vote")
    assert errs(split, y).item()
    # Exactly equal in votes though 0.1 + 0.2 is not 0.3 in floating point.
    rounded = scores_of(
        [[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]], "vote", [0.1, 0.2, 0.3, 0.4]
    )
    assert errs(rounded, y).item()
    near = [[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]]
    assert errs(scores_of(near, "vote", [0.1, 0.2, 0.3, 0.4]), y).item()
    idle = [[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]]
    assert not errs(scores_of(idle, "vote"), y).item()
    assert errs(scores_of(idle[1:], "vote"), y).item()


@pytest.mark.parametrize("rule", RULES)
def test_gradients_reach_the_images(rule):
    generator = torch.Generator().manual_seed(0)
    models = linear_classifiers(3, 4, generator=generator)
    x = torch.rand(6, 1, 2, 2, generator=generator)
    soft = "mean of probabilities" if rule == "vote" else rule
    gradients = []
    for own in (rule, soft):
        point = x.clone().requires_grad_()
        Ensemble(models, own)(point)[:, 1].sum().backward()
        gradients.append(point.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_members_are_run_once_for_all_and_not_at_weight_zero():
    members = [Fixed(own) for own in drawn(3)]
    ensembles = [Ensemble(members, rule, [0.5, 0.5, 0.0]) for rule in RULES]
    x = torch.zeros(50, 1, 1, 1)
    logits = WithEnsembles(members, ensembles).member_logits(x)
    assert [model.calls for model in members] == [1, 1, 1]
    assert logits.shape == (6, 50, 5)
    for own, each in zip(logits[3:], ensembles, strict=True):
        assert torch.equal(own, each(x))
    assert [model.calls for model in members] == [4, 4, 1]
    assert torch.equal(WithEnsembles(members, ensembles).member_logits(x, [4, 1]), logits[[4, 1]])


def test_it_is_a_classifier_of_any_precision():
    double = ensemble(drawn(), "vote").double()
    assert double(torch.zeros(50, 1, 1, 1, dtype=torch.float64)).dtype == torch.float64
    assert double.weights == (0.25,) * 4
    assert "rule='vote', weights=[0.25, 0.25, 0.25, 0.25]" in repr(double)


def test_wrong_ensembles_are_refused():
    with pytest.raises(MixsolveError, match=r"rule must be one of 'mean of probabilities', .* got"):
        Ensemble([Fixed([[0.0, 1.0]])], "median")
    with pytest.raises(MixsolveError, match="at least one classifier"):
        Ensemble([], "vote")
    with pytest.raises(MixsolveError, match="weights must sum to 1"):
        Ensemble([Fixed([[0.0, 1.0]])], "vote", [0.5])
    with pytest.raises(MixsolveTypeError, match="must be a torch"):
        Ensemble([abs], "vote")
