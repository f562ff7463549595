"""Functions and attacks of other libraries are attacks like ours: checked, scored, repeatable."""

import random
import sys
import types
import warnings
from functools import partial

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import (
    PGD,
    External,
    Mixture,
    build_losses,
    evaluate,
    fit,
    grow,
    resolve_attacks,
    solve_game,
)
from mixsolve_torch.attacks.libraries import kind_of
from mixsolve_torch.runs.fingerprint import describe, outline

EPS = 0.15


def darker(images, labels):
    """An attack that needs no model."""
    return (images - EPS).clamp(min=0)


def ascent(mixture, images, labels):
    """One step up the loss of the mean probabilities."""
    images = images.clone().requires_grad_()
    loss = torch.nn.functional.nll_loss(mixture(images), labels)
    (gradient,) = torch.autograd.grad(loss, images)
    return (images + EPS * gradient.sign()).clamp(0, 1)


@pytest.fixture
def mixture(linear):
    return Mixture([linear(seed) for seed in range(3)], [0.5, 0.3, 0.2])


def expected_errors(mixture, points, labels):
    """The expected 0/1 loss of each image, straight from the classifiers."""
    wrong = torch.stack([model(points).argmax(dim=1) != labels for model in mixture.models])
    return mixture.weights @ wrong.double()


@pytest.mark.parametrize("array", [False, True])
def test_a_function_is_scored_by_the_expected_loss(mixture, batch, array):
    x, y = batch

    def attack(images, labels):
        assert not images.is_inference()
        points = darker(images, labels)
        return points.numpy() if array else points

    losses = build_losses(mixture, batch, attack, norm="Linf", eps=EPS, keep_inputs=True)
    assert losses.candidate_names == ("clean", f"attack Linf {EPS:g}")
    assert torch.equal(losses.inputs[:, 1], darker(x, y))
    scored = losses.values[:, 1].double() @ mixture.weights
    assert torch.allclose(scored, expected_errors(mixture, darker(x, y), y), atol=0, rtol=1e-12)


def test_every_call_takes_functions_beside_attacks(mixture, batch):
    known = {"norm": "Linf", "eps": EPS}
    suite = [darker, PGD("Linf", EPS, steps=2), External(lambda m: partial(ascent, m), **known)]
    losses = build_losses(mixture, batch, suite, **known)
    game = solve_game(mixture, batch, suite, tol=0.05, **known)
    report = evaluate(mixture, batch, suite, resamples=20, spare=False, tol=0.05, **known)
    assert losses.values.shape == (7, 4, 3)
    assert report.attack_names == ("darker", "PGD", "external")
    pooled = losses.adversarial_risk(mixture.weights)
    given = next(player for player in report.players if player.kind == "given")
    assert given.worst.value <= 1 - pooled + 1e-9
    assert game.risk <= 1
    grown = grow(
        mixture, batch, darker, held_out=(batch[0].flip(3), batch[1]), epochs=1, tol=0.5, **known
    )
    assert len(grown.history) == 1


def test_a_wrapped_attack_sees_the_mixture_that_is_attacked(mixture, batch):
    seen = []

    def make(under_attack):
        seen.append(under_attack.weights.tolist())
        return partial(ascent, under_attack)

    evaluate(mixture, batch, External(make, norm="Linf", eps=EPS), resamples=20, tol=0.5)
    assert [1, 0, 0] in seen
    assert [0, 0, 1] in seen
    assert [0.5, 0.3, 0.2] in seen


def test_a_function_that_leaves_the_declared_set_is_refused(mixture, batch):
    with pytest.raises(MixsolveError, match=r"must stay in the ball that it declares, Linf"):
        build_losses(mixture, batch, darker, norm="Linf", eps=EPS / 2)
    with pytest.raises(MixsolveError, match=r"entries from -"):
        build_losses(mixture, batch, lambda x, y: x - EPS, norm="Linf", eps=0.2)
    with pytest.raises(MixsolveError, match=r"must yield 1 tensors of shape \(7, 1, 3, 3\)"):
        build_losses(mixture, batch, lambda x, y: x[:2], norm="Linf", eps=EPS)
    with pytest.raises(MixsolveTypeError, match=r"must yield tensors of images; got NoneType"):
        build_losses(mixture, batch, lambda x, y: None, norm="Linf", eps=EPS)


@pytest.mark.parametrize(
    ("attack", "error", "message"),
    [
        (PGD, MixsolveTypeError, "got ABCMeta"),
        (3, MixsolveTypeError, "got int"),
        (darker, MixsolveError, "darker does not say which set .* give norm and eps"),
    ],
)
def test_what_is_no_attack_is_refused(mixture, batch, attack, error, message):
    with pytest.raises(error, match=message):
        build_losses(mixture, batch, [attack])
    with pytest.raises(error, match=message):
        resolve_attacks([attack])


def test_a_maker_that_makes_no_attack_is_refused(mixture, batch):
    with pytest.raises(MixsolveTypeError, match="make must be a function of the mixture"):
        External(3, norm="Linf", eps=EPS)
    for made, message in ((3, "got 3"), (PGD, "the class PGD")):
        with pytest.raises(MixsolveTypeError, match=message):
            build_losses(mixture, batch, External(lambda _, m=made: m, norm="Linf", eps=EPS))


def test_an_error_in_foreign_code_names_the_attack(mixture, batch):
    def broken(images, labels):
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside") as caught:
        build_losses(mixture, batch, broken, norm="Linf", eps=EPS)
    assert "raised by the attack broken Linf 0.15" in caught.value.__notes__


def noisy(images, labels):
    """An attack that draws from every global generator, and seeds some of them."""
    own = torch.rand(images.shape) + float(np.random.rand()) + random.random()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    return (images + EPS * (own % 1)).clamp(0, 1)


def test_global_generators_are_seeded_for_foreign_code_and_put_back(mixture, batch):
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    runs = [
        build_losses(
            mixture,
            batch,
            noisy,
            norm="Linf",
            eps=EPS,
            keep_inputs=True,
            generator=torch.Generator().manual_seed(seed),
        ).inputs[:, 1]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert random.getstate() == before[1]


def test_foreign_code_meets_frozen_classifiers_and_leaves_no_mode_behind(linear, batch):
    model = torch.nn.Sequential(linear(0), torch.nn.Dropout(0.5)).train()

    def attack(images, labels):
        assert not model[1].training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model.train()  # as a library may
        return images

    build_losses(Mixture([model]), batch, [attack, darker], norm="Linf", eps=EPS)
    assert model[1].training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_interrupted_work_tells_functions_apart(mixture, batch, tmp_path):
    def shift(by):
        return lambda images, labels: (images - by).clamp(min=0)

    where = {"norm": "Linf", "eps": EPS, "out": tmp_path / "losses.npy"}
    first = build_losses(mixture, batch, shift(0.1), **where)
    again = build_losses(mixture, batch, shift(0.1), **where)
    assert np.array_equal(first.values, again.values)
    with pytest.raises(MixsolveError, match="begun with other settings"):
        build_losses(mixture, batch, shift(0.05), **where)


def test_outlines_of_objects_that_lead_back_to_themselves_end():
    knot = types.SimpleNamespace(eps=0.1, steps=[1, 2], weights=torch.ones(2))
    knot.self = knot
    other = types.SimpleNamespace(eps=0.2, steps=[1, 2], weights=torch.ones(2))
    other.self = other
    assert outline(knot) == outline(knot) != outline(other)
    assert describe(External(lambda mixture: knot, norm="L2", eps=1))["eps"] == 1.0


# Classes of the names, modules and conventions of the libraries, in place of the real ones below.


def stand_in(monkeypatch, module, name, **members):
    """Return an object of a class of that name in a module of that name."""
    root = module.partition(".")[0]
    monkeypatch.setitem(sys.modules, root, sys.modules.get(root) or types.ModuleType(root))
    base = type("Attack", (), {"__module__": module})
    # A class of the user's own, derived from the library's.
    return type(name, (base,), {"__module__": "own", **members})()


def foolbox_call(self, model, inputs, criterion, *, epsilons):
    """What foolbox returns: raw points, points clipped to the radius, success."""
    assert model.bounds == (0, 1)
    points = ascent(model.network, inputs, criterion)
    return inputs + 1, inputs + (points - inputs) * epsilons / EPS, None


def art_generate(self, x, y=None):
    assert isinstance(x, np.ndarray)
    assert isinstance(y, np.ndarray)
    return (x - self.eps).clip(0, 1)


CONVENTIONS = {
    "torchattacks": (
        ("torchattacks.attack", "PGD"),
        {"eps": EPS, "__call__": lambda self, x, y: darker(x, y)},
        ("torchattacks PGD", "Linf", EPS),
    ),
    "torchattacks, L2": (
        ("torchattacks.attack", "PGDL2"),
        {"eps": 0.5, "__call__": lambda self, x, y: (x - 0.1).clamp(min=0)},
        ("torchattacks PGDL2", "L2", 0.5),
    ),
    "foolbox": (
        ("foolbox.attacks.base", "LinfPGD"),
        {"distance": types.SimpleNamespace(p=np.inf), "__call__": foolbox_call},
        ("foolbox LinfPGD", "Linf", None),
    ),
    "ART": (
        ("art.attacks.attack", "FastGradientMethod"),
        {"norm": np.inf, "eps": EPS, "targeted": False, "generate": art_generate},
        ("ART FastGradientMethod", "Linf", EPS),
    ),
    "AutoAttack": (
        ("autoattack.autoattack", "AutoAttack"),
        {
            "norm": "Linf",
            "epsilon": EPS,
            "run_standard_evaluation": lambda self, x, y: darker(x, y),
        },
        ("AutoAttack", "Linf", EPS),
    ),
    "AutoAttack, with labels": (
        ("pyautoattack.autoattack", "AutoAttack"),
        {
            "norm": "Linf",
            "epsilon": EPS,
            "run_standard_evaluation": lambda self, x, y: (darker(x, y), y),
        },
        ("AutoAttack", "Linf", EPS),
    ),
}


@pytest.mark.parametrize("case", CONVENTIONS)
def test_conventions_of_the_libraries(case, mixture, batch, monkeypatch):
    place, members, (kind, norm, eps) = CONVENTIONS[case]
    attack = stand_in(monkeypatch, *place, **members)
    if case == "foolbox":
        model = lambda network, bounds, device: types.SimpleNamespace(  # noqa: E731
            network=network, bounds=bounds
        )
        monkeypatch.setattr(sys.modules["foolbox"], "PyTorchModel", model, raising=False)
    assert kind_of(attack) == kind
    told = {} if eps is not None else {"eps": EPS}
    [ours] = resolve_attacks(attack, **told)
    assert (ours.norm, ours.eps) == (norm, eps if eps is not None else EPS)
    losses = build_losses(mixture, batch, attack, keep_inputs=True, **told)
    points = losses.inputs[:, 1]
    assert not torch.equal(points, batch[0])
    scored = losses.values[:, 1].double() @ mixture.weights
    assert torch.allclose(scored, expected_errors(mixture, points, batch[1]), rtol=1e-12, atol=0)
    if case == "foolbox":
        assert torch.allclose(points, ascent(mixture, *batch), atol=1e-6)


def test_a_targeted_attack_is_refused(mixture, batch, monkeypatch):
    (place, members, _) = CONVENTIONS["ART"]
    attack = stand_in(monkeypatch, *place, **{**members, "targeted": True})
    with pytest.raises(MixsolveError, match="is targeted"):
        build_losses(mixture, batch, attack)


def test_training_takes_attacks_of_other_libraries(linear, batch, monkeypatch):
    place, members, _ = CONVENTIONS["torchattacks"]
    calls = []

    def call(self, x, y):
        calls.append(len(x))
        return darker(x, y)

    attack = stand_in(monkeypatch, *place, **{**members, "__call__": call})
    fit(linear(0), batch, epochs=1, attack=attack, batch_size=4)
    assert calls == [4, 3]


# The libraries themselves, where they are installed.
WIDE = 0.4


def real(name, mixture):
    """Return an attack of a library, made for a model if it has one of its own."""
    if name == "torchattacks":
        return pytest.importorskip("torchattacks").PGD(mixture, eps=WIDE, alpha=0.15, steps=5)
    if name == "foolbox":
        return pytest.importorskip("foolbox").attacks.LinfPGD(steps=10, rel_stepsize=0.3)
    if name == "foolbox, minimal norm":
        return pytest.importorskip("foolbox").attacks.LinfDeepFoolAttack(steps=5)
    if name == "pyautoattack":
        own = pytest.importorskip("pyautoattack").AutoAttack
        return own(mixture, norm="Linf", eps=WIDE, attacks=["apgd-ce"], version="custom", seed=0)
    pytest.importorskip("art")
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        mixture,
        loss=torch.nn.NLLLoss(),
        input_shape=(1, 3, 3),
        nb_classes=4,
        clip_values=(0, 1),
        device_type="cpu",
    )
    return ProjectedGradientDescentPyTorch(
        classifier, eps=WIDE, eps_step=0.15, max_iter=5, verbose=False
    )


@pytest.mark.parametrize(
    "name", ["torchattacks", "foolbox", "foolbox, minimal norm", "ART", "pyautoattack"]
)
def test_the_libraries_themselves(name, linear, batch):
    mixture, x = Mixture([linear(0)]), batch[0]
    batch = x, mixture(x).argmax(dim=1)  # all right, so that there is something to find
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = real(name, mixture)
        told = {"eps": WIDE} if name.startswith("foolbox") else {}
        wrapped = External(lambda under: real(name, under), norm="Linf", eps=WIDE, name="wrapped")
        losses = build_losses(mixture, batch, [attack, wrapped], **told)
        game = solve_game(mixture, batch, attack, tol=0.2, **told)
    assert losses.candidate_names[1:] == (f"{kind_of(attack)} Linf {WIDE:g}", "wrapped")
    assert losses.standard_risk([1.0]) == 0
    assert losses.values[:, 1:, 0].any(dim=0).tolist() == [True, True]
    assert game.risk > 0
