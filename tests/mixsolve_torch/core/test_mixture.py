"""The mixture: log of the expected probabilities, weights that are probabilities, fair draws."""

import copy

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import Mixture, Normalize


@pytest.fixture
def models(linear):
    return [linear(seed) for seed in range(3)]


class Fails(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("this classifier fails")


class Returns(torch.nn.Module):
    """A classifier that returns what it is told to."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


def test_forward_is_the_log_of_the_expected_probabilities(models, batch):
    x, _ = batch
    weights = [0.2, 0.5, 0.3]
    expected = torch.zeros(7, 4, dtype=torch.float64)
    for weight, model in zip(weights, models, strict=True):
        scores = model(x).detach().double()
        for image in range(7):
            exponentials = [np.exp(float(score)) for score in scores[image]]
            for c in range(4):
                expected[image, c] += weight * exponentials[c] / sum(exponentials)
    answer = Mixture(models, weights)(x)
    torch.testing.assert_close(answer.double(), expected.log(), rtol=1e-5, atol=1e-5)
    # The softmax of averaged logits is another thing; the data must tell the two apart.
    averaged = sum(w * m(x) for w, m in zip(weights, models, strict=True)).log_softmax(dim=1)
    assert (answer - averaged).abs().max() > 0.01


def test_forward_survives_probabilities_that_underflow(linear, batch):
    x, _ = batch
    answer = Mixture([linear(0, scale=1000.0), linear(1, scale=1000.0)])(x)
    assert answer.isfinite().all()
    torch.testing.assert_close(answer.exp().sum(dim=1), torch.ones(7))


def test_weights_are_uniform_by_default(models):
    mixture = Mixture(iter(models))
    assert mixture.weights.tolist() == [1 / 3] * 3
    assert len(mixture) == 3
    assert "0.3333" in repr(mixture)


def test_classifiers_of_weight_zero_are_not_run(models, batch):
    x, _ = batch
    mixture = Mixture([models[0], Fails(), models[2]], weights=[0.25, 0, 0.75])
    assert mixture.support() == [0, 2]
    same = Mixture([models[0], models[2]], weights=[0.25, 0.75])
    assert torch.equal(mixture(x), same(x))
    with pytest.raises(RuntimeError, match="fails") as caught:
        mixture.member_logits(x)
    assert "models[1]" in caught.value.__notes__[0]
    assert "(7, 1, 3, 3)" in caught.value.__notes__[0]


def test_a_vertex_is_the_classifier_itself(models, batch):
    x, _ = batch
    answer = Mixture(models, weights=[0, 1, 0])(x)
    torch.testing.assert_close(answer, models[1](x).log_softmax(dim=1))


def test_member_logits_keep_the_order(models, batch):
    x, _ = batch
    logits = Mixture(models).member_logits(x, [2, 0])
    assert logits.shape == (2, 7, 4)
    assert torch.equal(logits[0], models[2](x))
    assert torch.equal(logits[1], models[0](x))


@pytest.mark.parametrize(
    "weights",
    [
        [0.5, 0.25, 0.25],
        np.array([0.5, 0.25, 0.25], dtype=np.float32),
        torch.tensor([0.5, 0.25, 0.25]),
        torch.nn.Parameter(torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)),
    ],
    ids=["list", "numpy", "torch", "parameter"],
)
def test_weights_of_any_array(models, weights):
    mixture = Mixture(models, weights)
    assert mixture.weights.dtype == torch.float64
    assert not mixture.weights.requires_grad
    assert mixture.weights.tolist() == [0.5, 0.25, 0.25]


@pytest.mark.filterwarnings("error")
def test_weights_of_a_read_only_array_are_copied(models):
    weights = np.array([0.5, 0.25, 0.25])
    weights.setflags(write=False)
    mixture = Mixture(models, weights)
    mixture.set_weights([0.0, 0.0, 1.0])
    assert weights.tolist() == [0.5, 0.25, 0.25]
    assert mixture.weights.tolist() == [0, 0, 1]


def test_float32_weights_are_made_to_sum_to_one(models):
    mixture = Mixture(models, np.full(3, 1 / 3, dtype=np.float32))
    assert abs(float(mixture.weights.sum()) - 1) < 1e-15


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([0.5, 0.5], MixsolveError, r"weights must have shape \(3,\).*got \(2,\)"),
        ([[0.5, 0.25, 0.25]], MixsolveError, r"weights must have shape \(3,\).*got \(1, 3\)"),
        ([0.5, -0.25, 0.75], MixsolveError, r"non-negative; got -0.25 at index 1"),
        ([0.5, 0.5, float("nan")], MixsolveError, r"finite.*got nan at index 2"),
        ([0.5, float("inf"), 0.5], MixsolveError, r"finite.*got inf at index 1"),
        ([0.5, 0.5, 0.5], MixsolveError, r"sum to 1; got 1.5; divide them"),
        ([0.0, 0.0, 0.0], MixsolveError, r"sum to 1; got 0"),
        ("uniform", MixsolveTypeError, r"weights must be 3 numbers; got str"),
        ([1j, 0, 0], MixsolveTypeError, r"weights must be 3 numbers; got list.*complex"),
    ],
)
def test_weights_that_are_no_probabilities(models, weights, error, message):
    with pytest.raises(error, match=message):
        Mixture(models, weights)
    mixture = Mixture(models)
    with pytest.raises(error, match=message):
        mixture.set_weights(weights)
    assert mixture.weights.tolist() == [1 / 3] * 3


def test_models_that_are_none(models):
    with pytest.raises(MixsolveError, match="at least one classifier; got none"):
        Mixture([])
    with pytest.raises(MixsolveTypeError, match=r"models\[1\] must be a torch.nn.Module; got func"):
        Mixture([models[0], lambda x: x])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(7), r"models\[1\] must return logits of shape \(7, classes\).*got \(7,\)"),
        (torch.zeros(6, 4), r"models\[1\] must return logits of shape \(7, .*got \(6, 4\)"),
        ([0.0], r"models\[1\] must return logits.*got list"),
        (torch.zeros(7, 1), r"models\[1\].*at least 2 classes; got \(7, 1\)"),
        (torch.zeros(7, 5), r"agree on their classes.*\(7, 4\), models\[1\] returns \(7, 5\)"),
    ],
)
def test_outputs_that_are_no_logits(models, batch, output, message):
    with pytest.raises(MixsolveError, match=message):
        Mixture([models[0], Returns(output)])(batch[0])


def test_weights_stay_float64_and_follow_the_module(models):
    mixture = Mixture(models, [0.1, 0.2, 0.7]).half()
    assert mixture.models[0][1].weight.dtype == torch.float16
    assert mixture.weights.dtype == torch.float64
    assert mixture.weights.tolist() == [0.1, 0.2, 0.7]
    other = copy.deepcopy(mixture)
    other.set_weights([1, 0, 0])
    assert mixture.weights.tolist() == [0.1, 0.2, 0.7]
    mixture.load_state_dict(other.state_dict())
    assert mixture.weights.tolist() == [1, 0, 0]
    assert mixture.device == torch.device("cpu")


def test_predict_draws_each_image_its_own_classifier(generator):
    said = [torch.eye(3)[k].expand(6000, 3) for k in range(3)]

    class Always(torch.nn.Module):
        def __init__(self, k):
            super().__init__()
            self.k = k

        def forward(self, x):
            return said[self.k][: len(x)]

    mixture = Mixture([Always(0), Always(1), Always(2)], [0.2, 0.0, 0.8])
    x = torch.zeros(6000, 1, 1, 1)
    drawn = mixture.predict(x, generator)
    shares = drawn.bincount(minlength=3) / 6000
    # Five standard deviations of a share of 0.2 among 6000 draws are 0.026.
    assert abs(float(shares[0]) - 0.2) < 0.026
    assert shares[1] == 0
    again = mixture.predict(x, torch.Generator().manual_seed(20210718))
    assert torch.equal(drawn, again)
    assert not torch.equal(mixture.predict(x), mixture.predict(x))


def test_normalize():
    layer = Normalize([0, 0.5], [1, 0.25])
    x = torch.full((1, 2, 1, 1), 0.75)
    assert layer(x).flatten().tolist() == [0.75, 1.0]
    assert layer.half().mean.dtype == torch.float16
    for mean, std in (([0.0], [1.0, 1.0]), ([0.0], [0.0]), ([0.0], [float("nan")])):
        with pytest.raises(MixsolveError, match="one value a channel and std be positive"):
            Normalize(mean, std)
