"""Functions, estimators and ONNX sessions are members that are asked and have no gradients."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid

from mixsolve.base.errors import GradientWarning, MixsolveError, MixsolveTypeError
from mixsolve_torch import (
    PGD,
    BlackBox,
    Given,
    Mixture,
    Square,
    Standard,
    TransferPGD,
    UniformSampling,
    build_losses,
    evaluate,
)
from mixsolve_torch.runs.fingerprint import describe

ATTACK = UniformSampling("Linf", 0.3, draws=5)


@pytest.fixture
def net(linear):
    return linear(0).requires_grad_(False)


def as_arrays(net, images):
    return net(images).numpy()


class Output:
    """What a network of Hugging Face returns: an object that holds the logits."""

    def __init__(self, logits):
        self.logits = logits


ANSWERS = {
    "tensor": (lambda net, x: net(x), "logits"),
    "array": (as_arrays, "logits"),
    "float64 array": (lambda net, x: as_arrays(net, x).astype(float), "logits"),
    "object": (lambda net, x: Output(net(x)), "logits"),
    "probabilities": (lambda net, x: net(x).softmax(dim=1).numpy(), "probabilities"),
    "labels": (lambda net, x: net(x).argmax(dim=1).numpy(), "labels"),
    "a column of labels": (lambda net, x: net(x).argmax(dim=1)[:, None], "labels"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_is_asked_errs_where_the_network_behind_it_does(kind, net, linear, batch):
    answer, output = ANSWERS[kind]
    box = BlackBox(lambda images: answer(net, images), output=output, classes=4)
    mixtures = [Mixture([member, linear(1)], [0.4, 0.6]) for member in (box, net)]
    ours, wanted = [build_losses(mixture, batch, ATTACK) for mixture in mixtures]
    assert torch.equal(ours.values, wanted.values)
    # Without spare all players get the same points, whoever was fooled before.
    ours, wanted = [
        [
            (player.name, player.worst)
            for player in evaluate(mixture, batch, ATTACK, resamples=20, spare=False).players
            # Ensembles combine scores, which labels alone do not tell.
            if output != "labels" or player.kind != "ensemble"
        ]
        for mixture in mixtures
    ]
    assert len(ours) >= 4
    assert ours == wanted
    logits = mixtures[0].member_logits(batch[0].requires_grad_(), [0])
    assert not logits.requires_grad
    if output == "probabilities":
        torch.testing.assert_close(logits[0], net(batch[0]).detach().log_softmax(dim=1))


def test_points_found_on_other_networks_count_against_a_black_box(net, linear, batch):
    attack = TransferPGD("Linf", 0.6, steps=10)
    x, y = batch[0], net(batch[0]).argmax(dim=1)
    points = attack(Mixture([net, linear(1)]), x, y)
    box = Mixture([BlackBox(lambda images: as_arrays(net, images))])
    losses = build_losses(box, (x, y), Given(points, norm="Linf", eps=0.6))
    assert losses.standard_risk([1.0]) == 0
    wanted = (net(points[0]).argmax(dim=1) != y).to(torch.uint8)
    assert torch.equal(losses.values[:, 1, 0], wanted)
    assert wanted.any()


def test_square_attacks_what_is_asked_as_it_does_the_network(net, linear, batch):
    box = BlackBox(lambda images: as_arrays(net, images))
    pools = [Mixture([member, linear(1)], [0.4, 0.6]) for member in (box, net)]
    ours, wanted = [Square("Linf", 0.4, steps=30)(pool, *batch) for pool in pools]
    assert torch.equal(ours, wanted)
    assert not torch.equal(ours[0], batch[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)
        found = build_losses(pools[0], batch, Standard("Linf", 0.4, steps=5))
    blind = build_losses(pools[0], batch, PGD("Linf", 0.4, steps=5, weights=[0, 1]))
    assert found.adversarial_risk([0.4, 0.6]) >= blind.adversarial_risk([0.4, 0.6])


@pytest.mark.parametrize(
    ("estimator", "output"),
    [
        (LogisticRegression(), "probabilities"),
        (RandomForestClassifier(5, max_depth=2, random_state=0), "probabilities"),
        (RidgeClassifier(), "logits"),
        (NearestCentroid(), "labels"),
    ],
)
@pytest.mark.parametrize("classes", [[0, 1], [0, 2, 3]])
def test_estimators_of_flattened_images(estimator, output, classes, generator):
    x = torch.rand(60, 1, 3, 3, generator=generator)
    y = torch.tensor(classes)[torch.arange(60) % len(classes)]
    estimator.fit(x.flatten(1).numpy(), y.numpy())
    box = BlackBox(estimator, output=output, classes=5)
    assert tuple(box(x).shape) == (60, 5)
    assert (box(x).argmax(dim=1).numpy() == estimator.predict(x.flatten(1).numpy())).all()
    losses = build_losses(Mixture([box]), (x, y), ATTACK)
    assert losses.standard_risk([1.0]) == pytest.approx(
        1 - estimator.score(x.flatten(1).numpy(), y.numpy())
    )


def test_an_estimator_chooses_what_it_is_asked_for(generator):
    x = torch.rand(20, 1, 2, 2, generator=generator).flatten(1).numpy()
    y = np.arange(20) % 2
    for estimator, output in (
        (LogisticRegression(), "probabilities"),
        (RidgeClassifier(), "logits"),
        (NearestCentroid(), "labels"),
    ):
        assert BlackBox(estimator.fit(x, y)).output in (output, "probabilities")
    with pytest.raises(MixsolveError, match="RidgeClassifier has no predict_proba"):
        BlackBox(RidgeClassifier().fit(x, y), output="probabilities")
    with pytest.raises(MixsolveError, match="fitted on classes numbered from 0"):
        BlackBox(LogisticRegression().fit(x, np.array(["a", "b"])[y]))
    with pytest.raises(MixsolveError, match="fitted on classes numbered from 0"):
        BlackBox(LogisticRegression())


@pytest.mark.parametrize("fixed", [False, True])
def test_onnx_runtime_sessions(fixed, net, batch, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    shapes = None if fixed else ({0: torch.export.Dim("count", min=1, max=64)},)
    torch.onnx.export(
        net.eval(), (batch[0][:3],), path, dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    box = BlackBox(session)
    torch.testing.assert_close(box(batch[0]), net(batch[0]), rtol=1e-5, atol=1e-5)
    assert tuple(box(batch[0][:1]).shape) == (1, 4)
    report = evaluate(Mixture([box, net]), batch, ATTACK, resamples=20)
    assert report.players[0].worst.value == report.players[1].worst.value


@pytest.mark.parametrize(
    ("answer", "options", "message"),
    [
        (lambda x: torch.zeros(len(x)), {}, r"must return logits of shape \(7, classes\)"),
        (lambda x: torch.zeros(2, 3), {}, r"got \(2, 3\)"),
        (lambda x: torch.full((len(x), 3), 2.0), {"output": "probabilities"}, "from 0 to 1; got"),
        (lambda x: torch.full((len(x),), 9), {"output": "labels", "classes": 3}, "from 0 to 2"),
        (lambda x: torch.rand(len(x), 3), {"output": "labels", "classes": 3}, "7 labels"),
    ],
)
def test_other_answers_are_refused(answer, options, message, batch):
    state = torch.get_rng_state()
    with pytest.raises(MixsolveError, match=message):
        BlackBox(answer, **options)(batch[0])
    torch.set_rng_state(state)


def test_wrong_arguments_are_refused(net):
    with pytest.raises(MixsolveError, match="output must be one of 'logits'"):
        BlackBox(net.forward, output="scores")
    with pytest.raises(MixsolveError, match="classes must be given"):
        BlackBox(net.forward, output="labels")
    for wrong in (3, torch.nn.Linear):
        with pytest.raises(MixsolveTypeError, match="must be a function of images"):
            BlackBox(wrong)
    with pytest.raises(MixsolveTypeError, match="an estimator or a session in BlackBox"):
        Mixture([net.forward])


def test_interrupted_work_tells_functions_apart(net, linear):
    def made(net, shift=0.0):
        return BlackBox(lambda images: net(images) + shift)

    assert describe(made(net)) == describe(made(net))
    assert describe(made(net)) != describe(made(linear(1)))
    assert describe(made(net)) != describe(made(net, 1.0))
    assert describe(torch.nn.Sequential(made(net))) != describe(torch.nn.Sequential(made(net, 1.0)))


class Wrapped(torch.nn.Module):
    """A network whose forward returns an object that holds the logits."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return Output(self.network(images))


def test_networks_that_wrap_their_logits_are_attacked_as_others(linear, batch):
    attack = TransferPGD("Linf", 0.2, steps=3)
    wrapped, plain = Mixture([Wrapped(linear(0)), linear(1)]), Mixture([linear(0), linear(1)])
    found = [build_losses(each, batch, attack, keep_inputs=True) for each in (wrapped, plain)]
    assert torch.equal(found[0].inputs, found[1].inputs)
    assert torch.equal(found[0].values, found[1].values)
    with torch.no_grad():
        assert torch.equal(wrapped(batch[0]), plain(batch[0]))
    with pytest.raises(MixsolveError, match=r"models\[0\] must return logits .* got Output"):
        Mixture([Wrapped(Wrapped(linear(0)))])(batch[0])
