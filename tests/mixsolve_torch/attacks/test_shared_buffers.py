"""No code of the user's is handed memory that is read again: whoever writes into it writes alone.

Every test has a member, a loss or an attack that writes into what it is given, in one of the ways
there are, beside the same without, and asks for equal answers and for images left as they were.
"""

import numpy as np
import pytest
import torch

from mixsolve_torch import (
    PGD,
    Attack,
    Mixture,
    Standard,
    Subset,
    TransferPGD,
    UniformSampling,
    build_losses,
    evaluate,
    expected_loss,
    grow,
    solve_game,
)

MEAN, STD = 0.45, 0.25


class Scaled(torch.nn.Module):
    """A network behind a normalisation that does not write into the images."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network((x - MEAN) / STD)


class InPlace(Scaled):
    """The same function; the images are overwritten."""

    def forward(self, x):
        return self.network(x.sub_(MEAN).div_(STD))


class ThroughData(Scaled):
    """The same through ``.data``, which leaves no trace in the tensor's version."""

    def forward(self, x):
        answer = self.network((x - MEAN) / STD)
        x.data.fill_(torch.nan)
        return answer


class ThroughNumpy(Scaled):
    """The same through a NumPy view, which leaves none either."""

    def forward(self, x):
        answer = self.network((x - MEAN) / STD)
        x.detach().numpy()[...] = np.nan
        return answer


class OwnBuffer(Scaled):
    """The same, its logits always written into one tensor, as captured CUDA graphs do."""

    shared = torch.empty(7, 4)

    def forward(self, x):
        logits = super().forward(x)
        return logits if logits.requires_grad or len(x) != 7 else self.shared.copy_(logits)


WRITERS = [InPlace, ThroughData, ThroughNumpy, OwnBuffer]


@pytest.fixture
def pools(linear):
    """Return a maker of a mixture whose members write into their images, and its honest twin."""

    def make(writer, weights=(0.5, 0.2, 0.3)):
        networks = [linear(seed) for seed in range(len(weights))]
        return Mixture(map(writer, networks), weights), Mixture(map(Scaled, networks), weights)

    return make


@pytest.fixture
def images(batch):
    x, y = batch
    yield x, y
    again = torch.rand(7, 1, 3, 3, generator=torch.Generator().manual_seed(20210718))
    assert torch.equal(x, again), "the caller's images were overwritten"


@pytest.mark.parametrize("writer", WRITERS)
def test_forward_predict_and_losses(writer, pools, images):
    writing, honest = pools(writer)
    x, y = images
    with torch.no_grad():
        assert torch.equal(writing(x), honest(x))
        assert torch.equal(writing.member_logits(x, [2, 0]), honest.member_logits(x, [2, 0]))
        for loss in ("zero-one", "cross-entropy", "margin"):
            assert torch.equal(
                expected_loss(writing, x, y, loss), expected_loss(honest, x, y, loss)
            )
    drawn = [pool.predict(x, torch.Generator().manual_seed(1)) for pool in (writing, honest)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("leaf", [True, False])
def test_gradients_in_the_images(writer, leaf, pools, images):
    found = []
    for pool in pools(writer):
        x = images[0].clone().requires_grad_()
        expected_loss(pool, x if leaf else x * 1, images[1], "cross-entropy").sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)
    assert found[0].abs().sum() > 0


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    "attack",
    [
        PGD("Linf", 0.1, steps=4, restarts=2),
        TransferPGD("L2", 0.3, steps=3),
        Standard("Linf", 0.1, steps=5),
        Subset("L2", 0.3, steps=3),
        UniformSampling("L2", 0.3, draws=3),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_attacks(writer, attack, pools, images):
    writing, honest = pools(writer)
    assert torch.equal(attack(writing, *images), attack(honest, *images))


@pytest.mark.parametrize("writer", WRITERS)
def test_the_game(writer, pools, images):
    attack = PGD("Linf", 0.15, steps=4)
    found = [build_losses(p, images, attack, "margin", keep_inputs=True) for p in pools(writer)]
    assert torch.equal(found[0].values, found[1].values)
    assert torch.equal(found[0].inputs, found[1].inputs)
    games = [solve_game(pool, images, attack) for pool in pools(writer)]
    assert torch.equal(games[0].weights, games[1].weights)
    assert games[0].value == games[1].value
    reports = [evaluate(pool, images, attack, resamples=20) for pool in pools(writer)]
    assert reports[0].to_dict() == reports[1].to_dict()


def test_torchvision_normalize_in_place(linear, images):
    transforms = pytest.importorskip("torchvision.transforms")
    x, y = images
    networks = [linear(seed) for seed in range(2)]
    pools = [
        Mixture(
            torch.nn.Sequential(transforms.Normalize([0.5], [0.25], inplace=inplace), network)
            for network in networks
        )
        for inplace in (True, False)
    ]
    losses = [expected_loss(pool, x, y, "cross-entropy") for pool in pools]
    assert torch.equal(*losses)
    assert torch.equal(pools[0](x), pools[1](x))


def test_a_loss_that_writes(pools, images):
    def plain(logits, labels):
        shifted = logits - logits.detach().amax(dim=1, keepdim=True)
        return torch.nn.functional.cross_entropy(shifted, labels, reduction="none")

    def writing(logits, labels):
        logits.sub_(logits.detach().amax(dim=1, keepdim=True)).mul_(1)
        answer = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        if not logits.requires_grad:
            logits.neg_()
            labels.fill_(0)
        kept[: len(answer)] = answer.detach()
        return answer if answer.requires_grad else kept[: len(answer)]

    kept = torch.empty(64)
    mixture = pools(Scaled)[0]
    x, y = images
    labels = y.clone()
    answers = [expected_loss(mixture, x, y, loss) for loss in (plain, writing)]
    assert torch.equal(*answers)
    answers = [PGD("L2", 0.3, loss=loss, steps=3)(mixture, x, y) for loss in (plain, writing)]
    assert torch.equal(*answers)
    attack = PGD("L2", 0.3, steps=3)
    answers = [build_losses(mixture, images, attack, loss).values for loss in (plain, writing)]
    assert torch.equal(*answers)
    assert torch.equal(y, labels)


class Stepping(Attack):
    """Moves by eps / 4 four times; one tensor is written into, or a new one is made each time."""

    in_place = False

    def names(self, classifiers):
        return [f"step {step}" for step in range(4)]

    def generate(self, mixture, x, y, generator):
        clean, point = x.clone(), x if self.in_place else x.clone()
        for step in range(1, 5):
            moved = (clean + step * self.eps / 4).clamp(max=1)
            point = point.copy_(moved) if self.in_place else moved
            yield point
        if self.in_place:
            y.fill_(0)


class SteppingInPlace(Stepping):
    in_place = True


def test_an_attack_that_writes(pools, images):
    mixture = pools(Scaled)[0]
    x, y = images
    labels = y.clone()
    suites = [
        [kind("Linf", 0.2, name="steps"), PGD("Linf", 0.2, steps=3)]
        for kind in (SteppingInPlace, Stepping)
    ]
    assert torch.equal(*(suite[0](mixture, x, y) for suite in suites))
    found = [build_losses(mixture, images, suite, keep_inputs=True) for suite in suites]
    assert torch.equal(found[0].values, found[1].values)
    assert torch.equal(found[0].inputs, found[1].inputs)
    reports = [evaluate(mixture, images, suite, resamples=20).to_dict() for suite in suites]
    assert reports[0] == reports[1]
    assert torch.equal(y, labels)


def test_a_callback_that_writes(pools, images):
    mixture = pools(Scaled)[0]
    attack = PGD("Linf", 0.15, steps=4)
    honest = solve_game(mixture, images, attack)
    weights = mixture.weights.clone()
    writing = solve_game(mixture, images, attack, callback=lambda r: r.weights.fill_(0.0) is None)
    assert torch.equal(writing.weights, honest.weights)
    assert writing.risk == honest.risk
    assert torch.equal(mixture.weights, weights)


def test_a_loader_that_reuses_its_tensors(pools, images):
    class Loader:
        def __iter__(self):
            x, y = images[0][:3].clone(), images[1][:3].clone()
            for start in (0, 3):
                x.copy_(images[0][start : start + 3])
                y.copy_(images[1][start : start + 3])
                yield x, y

    mixture = pools(Scaled)[0]
    attack = PGD("Linf", 0.15, steps=4)
    whole = build_losses(mixture, (images[0][:6], images[1][:6]), attack, batch_size=3)
    parts = build_losses(mixture, Loader(), attack)
    assert torch.equal(parts.labels, whole.labels)
    assert torch.equal(parts.values, whole.values)
    games = [
        solve_game(mixture, data, attack) for data in (Loader(), (images[0][:6], images[1][:6]))
    ]
    assert torch.equal(games[0].losses.labels, games[1].losses.labels)
    assert games[0].value == games[1].value
    reports = [
        evaluate(mixture, data, attack, resamples=20).to_dict()
        for data in (Loader(), (images[0][:6], images[1][:6]))
    ]
    assert reports[0] == reports[1]


@pytest.mark.parametrize("writer", [InPlace, ThroughData])
def test_growing(writer, pools, images):
    x, y = (part.repeat(4, *[1] * (part.ndim - 1)) for part in images)
    before = x.clone()
    grown = [
        grow(pool, (x, y), PGD("Linf", 0.05, steps=2), epochs=2, max_rounds=3)
        for pool in pools(writer, (1.0,))
    ]
    assert grown[0].history[0].reduced_cost == grown[1].history[0].reduced_cost
    assert torch.equal(grown[0].losses.values, grown[1].losses.values)
    assert torch.equal(x, before)


@pytest.mark.parametrize("draw", ["call", "image", "none"])
def test_a_file_for_serving(draw, pools, images, tmp_path):
    x, _ = images
    writing, honest = pools(InPlace)
    answers = []
    for name, pool in (("writing", writing), ("honest", honest)):
        pool.export(tmp_path / name, x, draw=draw, seed=3)
        served = torch.jit.load(tmp_path / name)
        answers.append((served(x), served.expected(x), served.run(1, x), served.each(x)))
    for own, other in zip(*answers, strict=True):
        assert torch.equal(own, other)
