"""The bundled data and the small network: the same for the same seed, and good enough to attack."""

import subprocess
import sys

import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import PGD, Mixture, batches, digits, digits_cnn, expected_loss, fit


@pytest.fixture(scope="module")
def parts():
    return digits(seed=3)


def rows_of(images):
    return [tuple(row) for row in images.flatten(1).tolist()]


def test_digits_are_images_in_the_unit_box(parts):
    assert parts._fields == ("train", "validation", "test")
    assert [len(part.labels) for part in parts] == [989, 269, 539]
    for images, labels in parts:
        assert images.shape == (len(labels), 1, 8, 8)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.min() == 0
        assert images.max() == 1
        shares = labels.bincount(minlength=10) / len(labels)
        assert len(shares) == 10
        assert (shares - 0.1).abs().max() < 0.01


def test_splits_are_disjoint_and_complete(parts):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    everything = sorted(zip(rows_of(torch.tensor(bunch.images)), bunch.target, strict=True))
    split = sorted(
        (tuple(16 * pixel for pixel in row), label)
        for part in parts
        for row, label in zip(rows_of(part.images), part.labels.tolist(), strict=True)
    )
    assert split == everything


def test_splits_depend_on_the_seed_alone(parts):
    again, other = digits(seed=3), digits(seed=4)
    for part, same, different in zip(parts, again, other, strict=True):
        assert torch.equal(part.images, same.images)
        assert torch.equal(part.labels, same.labels)
        assert not torch.equal(part.images, different.images)


def test_shares_of_the_splits():
    parts = digits(validation=0, test=0.5)
    assert len(parts.validation.labels) == 0
    assert abs(len(parts.test.labels) - 898) <= 5
    for shares, message in (
        ({"validation": 0.5, "test": 0.5}, r"validation \+ test must be below 1"),
        ({"validation": 0.0, "test": 0.999}, r"must leave images for training"),
        ({"test": -0.1}, r"test must be a finite number >= 0"),
        ({"seed": -1}, r"seed must be an integer >= 0"),
    ):
        with pytest.raises(MixsolveError, match=message):
            digits(**shares)


def test_batches_hold_every_image_once(parts, generator):
    images, labels = parts.validation
    plain = list(batches(images, labels, 100))
    assert [len(y) for _, y in plain] == [100, 100, 69]
    assert torch.equal(torch.cat([x for x, _ in plain]), images)
    mixed = list(batches(images, labels, 100, generator))
    shuffled = torch.cat([x for x, _ in mixed])
    assert not torch.equal(shuffled, images)
    pairs = zip(rows_of(shuffled), torch.cat([y for _, y in mixed]).tolist(), strict=True)
    assert sorted(pairs) == sorted(zip(rows_of(images), labels.tolist(), strict=True))


def test_initial_weights_depend_on_the_seed_alone():
    first, same, other = digits_cnn(seed=1), digits_cnn(seed=1), digits_cnn(seed=2)
    for a, b, c in zip(first.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert digits_cnn(width=4)(torch.rand(2, 1, 8, 8, generator=torch.Generator())).shape == (2, 10)


def risk(model, part):
    return float(expected_loss(Mixture([model.eval()]), *part).mean())


def test_the_small_network_learns_and_does_so_again(parts):
    trained = []
    for _ in range(2):
        model = digits_cnn(seed=0, width=8)
        seen = []
        history = fit(
            model,
            parts.train,
            epochs=6,
            learning_rate=1e-2,
            seed=5,
            on_epoch=lambda epoch, loss, seen=seen: seen.append((epoch, loss)),
        )
        assert model.training
        assert seen == list(enumerate(history))
        assert history[-1] < 0.5 * history[0]
        trained.append((model, history))
    assert trained[0][1] == trained[1][1]
    for a, b in zip(trained[0][0].parameters(), trained[1][0].parameters(), strict=True):
        assert torch.equal(a, b)
    assert risk(trained[0][0], parts.test) < 0.1


def test_adversarial_training_buys_robustness(parts):
    attack = PGD("Linf", 0.15, steps=3)
    plain, robust = digits_cnn(seed=0, width=8), digits_cnn(seed=0, width=8)
    fit(plain, parts.train, epochs=6, learning_rate=1e-2)
    fit(robust, parts.train, epochs=6, learning_rate=1e-2, attack=attack)
    images, labels = parts.test
    risks = [
        risk(model, (PGD("Linf", 0.15)(Mixture([model]), images, labels)[0], labels))
        for model in (plain, robust)
    ]
    assert risks[1] < risks[0] - 0.1


def test_a_network_is_attacked_together_with_those_alongside(parts):
    seen = []

    class Spy(PGD):
        def generate(self, mixture, x, y, generator):
            seen.append((list(mixture.models), mixture.weights.tolist()))
            yield from super().generate(mixture, x, y, generator)

    data = tuple(tensor[:64] for tensor in parts.train)
    other = digits_cnn(seed=1, width=2).eval()
    before = [parameter.clone() for parameter in other.parameters()]
    trained = []
    for alongside in ([other], []):
        model = digits_cnn(seed=0, width=2)
        fit(model, data, epochs=1, attack=Spy("Linf", 0.2, steps=2), alongside=alongside)
        assert seen[-1][0] == [*alongside, model]
        assert set(seen[-1][1]) == {1 / (1 + len(alongside))}
        trained.append(model)
    assert not torch.equal(trained[0][-1].weight, trained[1][-1].weight)
    assert not other.training
    for parameter, value in zip(other.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is None
        assert parameter.requires_grad


def test_training_input_that_does_not_fit(parts):
    images, labels = (tensor[:64] for tensor in parts.train)
    model = digits_cnn(width=2)
    for data, options, message in (
        ((images * 16, labels), {}, r"data\[0\] must lie in \[0, 1\]"),
        ((images, labels[:3]), {}, r"data\[1\] must have shape \(64,\)"),
        ((images, labels + 1), {}, r"data\[1\] must be below the number of classes.*10"),
        ((images, labels), {"epochs": 0}, r"epochs must be an integer >= 1, got 0"),
        ((images, labels), {"learning_rate": 0}, r"learning_rate must be a finite number > 0"),
        ((images, labels), {"batch_size": 0}, r"batch_size must be an integer >= 1"),
        ((images, labels), {"alongside": [model]}, r"alongside needs an attack"),
        ((images, labels), {"seed": 1.5}, r"seed must be an integer"),
        ((images, labels), {"learning_rate": 1e30, "epochs": 3}, r"became nan.* lower learning_r"),
    ):
        with pytest.raises(MixsolveError, match=message):
            fit(model, data, **{"epochs": 1, **options})


def test_digits_without_scikit_learn():
    script = (
        "import sys\n"
        "sys.modules['sklearn'] = None\n"
        "import mixsolve_torch\n"
        "mixsolve_torch.digits()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingDependencyError" in last
    assert "pip install 'mixsolve[torch]'" in last
