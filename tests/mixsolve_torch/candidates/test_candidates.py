"""The loss tensor: its values by an explicit loop, its names and dtype, and the game it makes."""

import math
import sys

import numpy as np
import pytest
import torch
from forked import run_script
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import mixsolve
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.tuning import tuning
from mixsolve_torch import (
    PGD,
    CandidateLosses,
    Mixture,
    TransferPGD,
    UniformSampling,
    build_losses,
    expected_loss,
)
from mixsolve_torch.candidates.build import candidate_names
from mixsolve_torch.candidates.memory_store import MemoryStore

ATTACKS = [
    PGD("Linf", 0.2, steps=3),
    TransferPGD("L2", 0.4, steps=3),
    UniformSampling("L2", 0.4, draws=2),
]
NAMES = (
    "clean",
    "PGD Linf 0.2",
    "PGD L2 0.4 on classifier 1",
    "PGD L2 0.4 on classifier 2",
    "PGD L2 0.4 on classifier 3",
    "uniform L2 0.4 #1",
    "uniform L2 0.4 #2",
)


@pytest.fixture
def mixture(linear):
    return Mixture([linear(seed) for seed in range(3)], [0.5, 0.0, 0.5])


def loss_of(kind, scores, label):
    top = max(scores)
    p = [math.exp(score - top) for score in scores]
    p = [q / sum(p) for q in p]
    other = max(q for c, q in enumerate(p) if c != label)
    return {
        "zero-one": float(other >= p[label]),
        "cross-entropy": -math.log(p[label]),
        "margin": (1 - p[label] + other) / 2,
    }[kind]


@pytest.mark.parametrize("kind", ["zero-one", "cross-entropy", "margin"])
def test_values_by_an_explicit_loop(kind, mixture, batch):
    x, y = batch
    losses = build_losses(mixture, batch, ATTACKS, loss=kind, keep_inputs=True)
    assert losses.values.shape == (7, 7, 3)
    assert losses.values.dtype == (torch.uint8 if kind == "zero-one" else torch.float32)
    assert losses.candidate_names == NAMES
    assert losses.loss == kind
    assert torch.equal(losses.labels, y)
    assert losses.inputs.shape == (7, 7, 1, 3, 3)
    assert torch.equal(losses.inputs[:, 0], x)
    expected = torch.empty(7, 7, 3)
    for i in range(7):
        for j in range(7):
            for k, model in enumerate(mixture.models):
                scores = model(losses.inputs[i, j][None])[0].tolist()
                expected[i, j, k] = loss_of(kind, scores, int(y[i]))
    torch.testing.assert_close(losses.values.float(), expected, rtol=1e-4, atol=1e-5)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_candidates_are_those_of_the_attacks(mixture, batch):
    still = [
        PGD("Linf", 0.2, steps=3, random_start=False),
        TransferPGD("L2", 0.4, steps=3, random_start=False),
    ]
    losses = build_losses(mixture, batch, still, keep_inputs=True)
    alone = torch.cat([attack(mixture, *batch) for attack in still])
    assert torch.equal(losses.inputs[:, 1:], alone.transpose(0, 1))


def test_draws_depend_on_generator_batch_and_attack_alone(mixture, batch):
    def built(attacks, seed=5, **options):
        generator = seeded(seed)
        losses = build_losses(
            mixture, batch, attacks, keep_inputs=True, generator=generator, **options
        )
        return losses.inputs, generator.get_state()

    twice = [UniformSampling("L2", 0.4, draws=2), UniformSampling("L2", 0.4, draws=2)]
    inputs, state = built(twice)
    again, same_state = built(twice)
    assert torch.equal(inputs, again)
    assert torch.equal(state, same_state)
    assert not torch.equal(inputs, built(twice, seed=6)[0])
    assert not torch.equal(inputs[:, 1:3], inputs[:, 3:])
    # Another attack before it, of many draws or none, changes no draw of the second one.
    other, other_state = built([PGD("Linf", 0.2, steps=1, restarts=3), twice[1]])
    assert torch.equal(other[:, 2:], inputs[:, 3:])
    assert torch.equal(other_state, state)
    # Batches have draws of their own: equal images are attacked in different ways.
    x = batch[0][:1].repeat(6, 1, 1, 1), batch[1][:1].repeat(6)
    drawn = build_losses(mixture, x, twice[0], keep_inputs=True, batch_size=3).inputs
    assert not torch.equal(drawn[:3], drawn[3:])


def test_risks_are_expected_losses(mixture, batch):
    losses = build_losses(mixture, batch, ATTACKS, loss="margin", keep_inputs=True)
    weights = np.array([0.2, 0.3, 0.5])
    mixture.set_weights(weights)
    each = torch.stack(
        [expected_loss(mixture, losses.inputs[:, j], batch[1], "margin") for j in range(7)]
    ).detach()
    worst = losses.worst(weights)
    assert worst.dtype == torch.float64
    torch.testing.assert_close(worst, each.amax(dim=0), rtol=0, atol=1e-6)
    assert losses.adversarial_risk(weights) == pytest.approx(float(worst.mean()), abs=1e-15)
    assert losses.standard_risk(weights) == pytest.approx(float(each[0].mean()), abs=1e-6)
    assert losses.standard_risk(weights) < losses.adversarial_risk(weights)
    with pytest.raises(MixsolveError, match=r"weights must have shape \(3,\)"):
        losses.adversarial_risk([0.5, 0.5])


class Endless(IterableDataset):
    """Batches of a stream whose length nobody knows."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        return zip(self.x, self.y, strict=True)


def test_data_of_every_kind(mixture, batch):
    attack = PGD("L2", 0.4, steps=2, random_start=False)
    expected = build_losses(mixture, batch, attack)
    x, y = batch
    draws = torch.Generator()  # loaders draw a seed for their workers, used or not
    for data in (
        (x, y.to(torch.uint8)),
        [(x[:3], y[:3]), (x[3:], y[3:])],
        iter([(x[:3], y[:3]), [x[3:], y[3:]]]),
        DataLoader(TensorDataset(x, y), batch_size=3, generator=draws),
        DataLoader(Endless(x, y), batch_size=3, generator=draws),
    ):
        losses = build_losses(mixture, data, [attack], progress=True)
        assert torch.equal(losses.values, expected.values)
        assert torch.equal(losses.labels, expected.labels)
    small = build_losses(mixture, batch, attack, batch_size=2)
    assert torch.equal(small.values, expected.values)
    assert small.inputs is None


def test_a_tensor_that_grows_is_the_tensor(linear, mixture, generator):
    x = torch.rand(40, 1, 3, 3, generator=generator, dtype=torch.bfloat16)
    y = torch.arange(40) % 4
    half = Mixture([linear(seed).bfloat16() for seed in range(2)])
    attack = UniformSampling("L2", 0.4, draws=2)
    for loss in ("zero-one", "margin"):
        known = build_losses(half, (x, y), attack, loss, batch_size=3, keep_inputs=True)
        stream = zip(x.split(3), y.split(3), strict=True)
        grown = build_losses(half, stream, attack, loss, keep_inputs=True, device="cpu")
        for name in ("values", "labels", "inputs"):
            ours, theirs = getattr(grown, name), getattr(known, name)
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
    with pytest.raises(MixsolveError, match=r"device must be a device of PyTorch.*got 'nowhere'"):
        build_losses(mixture, (x, y), attack, device="nowhere")


PEAK = """
import torch
from mixsolve_torch.candidates.memory_store import MemoryStore
def kilobytes(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
rows = torch.ones(1000, 100, 10, dtype=torch.uint8)
store = MemoryStore(torch.device("cpu"), {samples})
before = kilobytes("VmRSS")
for _ in range(400):
    store.append(rows)
values = store.finish()
assert values.shape == (400_000, 100, 10) and int(values[::1000].sum()) == 400_000
print((kilobytes("VmHWM") - before) * 1024 / values.numel())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("samples", [None, 400_000])
def test_memory_holds_the_tensor_once(samples, tmp_path):
    done = run_script(PEAK.format(samples=samples), folder=tmp_path)
    assert 0.9 < float(done.stdout) < 1.25


def test_rows_gather_in_order_whatever_their_number(monkeypatch):
    monkeypatch.setattr(tuning, "row_bytes", 7 * 6)
    rows = torch.arange(6 * 100, dtype=torch.uint8).reshape(100, 2, 3)
    for size in (1, 3, 7, 20, 100):
        store = MemoryStore(torch.device("cpu"), None)
        for part in rows.split(size):
            store.append(part)
        assert torch.equal(store.finish(), rows)


class Hungry(torch.nn.Module):
    """A classifier for which memory suffices up to so many images."""

    def __init__(self, model, most):
        super().__init__()
        self.model, self.most, self.refused = model, most, []

    def forward(self, x):
        if len(x) > self.most:
            self.refused.append(len(x))
            raise torch.cuda.OutOfMemoryError("tried to allocate 9 GiB\nmore")
        return self.model(x)


@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_short_of_memory_images_are_attacked_in_parts(most, linear, mixture, batch, caplog):
    x, y = batch
    data = torch.cat([x, x.flip(0)]), torch.cat([y, y.flip(0)])
    hungry = Hungry(linear(1), most)
    poor = Mixture([linear(0), hungry, linear(2)], [0.5, 0.25, 0.25])
    rich = Mixture([linear(0), linear(1), linear(2)], [0.5, 0.25, 0.25])
    still = [
        PGD("Linf", 0.2, steps=3, random_start=False),
        TransferPGD("L2", 0.4, steps=2, random_start=False),
    ]
    expected = build_losses(rich, data, still, "margin", batch_size=7, keep_inputs=True)
    with caplog.at_level("WARNING", logger="mixsolve_torch"):
        losses = build_losses(poor, data, still, "margin", batch_size=7, keep_inputs=True)
    torch.testing.assert_close(losses.values, expected.values, rtol=0, atol=1e-6)
    torch.testing.assert_close(losses.inputs, expected.inputs, rtol=0, atol=1e-6)
    assert hungry.refused == {1: [7, 3], 2: [7, 3], 3: [7], 6: [7]}[most]
    assert caplog.messages[0] == (
        "out of memory: the clean images on 7 images at a time; going on with 3 "
        "(tried to allocate 9 GiB)"
    )
    assert len(caplog.records) == len(hungry.refused)
    # Draws are repeatable too, and those of other batches are what they were.
    drawn = [PGD("Linf", 0.2, steps=3), UniformSampling("L2", 0.4, draws=3)]
    once = build_losses(poor, data, drawn, "margin", batch_size=7)
    assert torch.equal(once.values, build_losses(poor, data, drawn, "margin", batch_size=7).values)


def test_a_shortage_during_an_attack_repeats_its_part_alone(linear, batch):
    class Greedy(UniformSampling):
        """Needs more memory than there is for its second candidate, once it is underway."""

        def generate(self, mixture, x, y, generator):
            for j, points in enumerate(super().generate(mixture, x, y, generator)):
                calls.append((len(x), j))
                if j == 1 and len(x) > 4:
                    raise torch.cuda.OutOfMemoryError("full")
                yield points

    calls = []
    mixture = Mixture([linear(0), linear(1)])
    first = UniformSampling("L2", 0.4, draws=2)
    attacks = [first, Greedy("L2", 0.4, draws=2), first]
    losses = build_losses(mixture, batch, attacks, keep_inputs=True)
    assert calls == [(7, 0), (7, 1), (3, 0), (3, 1), (3, 0), (3, 1), (1, 0), (1, 1)]
    plain = build_losses(mixture, batch, [first, first, first], keep_inputs=True)
    assert torch.equal(losses.inputs[:, :3], plain.inputs[:, :3])
    # The first part begins with the draws of the whole; the other parts have draws of their own.
    lengths = (losses.inputs - batch[0][:, None])[:, 3:5].flatten(2).norm(dim=2)
    assert lengths.max() <= 0.4 + 1e-6
    assert not torch.equal(losses.inputs[3:6, 3], plain.inputs[3:6, 3])


def test_a_single_image_that_does_not_fit_is_an_error(linear, batch):
    mixture = Mixture([Hungry(linear(0), 0)])
    with pytest.raises(torch.cuda.OutOfMemoryError) as raised:
        build_losses(mixture, batch, UniformSampling("L2", 0.4, draws=1))
    assert "raised by the clean images with one image at a time" in raised.value.__notes__
    assert mixture.models[0].refused == [7, 3, 1]


def test_a_tensor_too_large_for_the_device_says_what_to_do(mixture, batch, monkeypatch):
    empty = torch.empty

    def full(*shape, **options):
        if shape == ((7, 2, 3),):
            raise torch.cuda.OutOfMemoryError("full")
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(MixsolveError, match=r"\(7, 2, 3\), torch.uint8, take .*out='losses.npy'"):
        build_losses(mixture, batch, UniformSampling("L2", 0.4, draws=1))


def test_trajectories_are_all_points_of_the_way(mixture, batch):
    attacks = [PGD("Linf", 0.2, steps=3, restarts=2), UniformSampling("L2", 0.4, draws=2)]
    way = build_losses(mixture, batch, attacks, "margin", keep="trajectory", keep_inputs=True)
    names = candidate_names(attacks, 3, "trajectory")
    assert way.candidate_names == names
    assert len(names) == way.values.shape[1] == way.inputs.shape[1]
    assert len(names) > 1 + 2 * 3 + 2
    final = build_losses(mixture, batch, attacks, "margin", keep_inputs=True)
    assert torch.equal(way.inputs[:, -2:], final.inputs[:, -2:])
    # The point that is kept in the end is one of those on the way.
    same = (way.inputs[:, 1:-2] - final.inputs[:, 1:2]).abs().flatten(2).amax(dim=2)
    assert (same.amin(dim=1) == 0).all()
    assert way.adversarial_risk([0.5, 0.0, 0.5]) >= final.adversarial_risk([0.5, 0.0, 0.5])
    with pytest.raises(MixsolveError, match="keep must be 'final' or 'trajectory'; got 'all'"):
        build_losses(mixture, batch, attacks, keep="all")


def test_an_attack_that_breaks_its_word_is_refused(linear, batch):
    class Liar(UniformSampling):
        def generate(self, mixture, x, y, generator):
            for points in super().generate(mixture, x, y, generator):
                yield points[:, :, : self.rows]

    mixture = Mixture([linear(0)])
    for draws, rows, message in (
        (1, 3, "must yield 2 tensors, one for each of its names; got 1"),
        (3, 3, r"must yield 2 tensors .*; tensor 2 has shape \(7, 1, 3, 3\)"),
        (2, 2, r"must .* of shape \(7, 1, 3, 3\), .*; tensor 0 has shape \(7, 1, 2, 3\)"),
    ):
        liar = Liar("L2", 0.4, draws=draws)
        object.__setattr__(liar, "rows", rows)
        object.__setattr__(liar, "names", lambda classifiers: ["one", "two"])
        with pytest.raises(MixsolveError, match=f"Liar L2 0.4 {message}"):
            build_losses(mixture, batch, liar)


def test_losses_of_one_dtype(linear, batch):
    x, y = batch

    def fickle(logits, labels):
        return labels.double() if len(labels) == 3 else labels.float()

    for data in ((x, y), zip(x.split(4), y.split(4), strict=True)):
        with pytest.raises(MixsolveError, match=r"one dtype for all batches; got torch\.float32"):
            build_losses(Mixture([linear(0)]), data, [], fickle, batch_size=4)


def test_worst_is_taken_in_parts(monkeypatch):
    values = torch.rand(50, 6, 3, generator=seeded(0))
    losses = CandidateLosses(values, torch.zeros(50), ("clean",) * 6, "margin")
    lam = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    expected = (values.double() @ lam).amax(dim=1)
    monkeypatch.setattr(tuning, "risk_entries", 7 * 6 * 3)
    torch.testing.assert_close(losses.worst([0.2, 0.3, 0.5]), expected, rtol=0, atol=1e-12)


def test_only_the_clean_point(mixture, batch):
    losses = build_losses(mixture, batch, [])
    assert losses.values.shape == (7, 1, 3)
    assert losses.candidate_names == ("clean",)


def test_names_are_told_apart():
    twice = [PGD("L2", 0.5), PGD("L2", 0.5, steps=3), PGD("L2", 0.5, name="clean")]
    assert candidate_names(twice, 2) == ("clean", "PGD L2 0.5", "PGD L2 0.5 (2)", "clean (2)")
    kept = PGD("Linf", 0.5, restarts=2, keep_restarts=True, name="mine")
    assert candidate_names([kept], 2) == ("clean", "mine #1", "mine #2")


def test_dtypes_hold_the_losses_exactly(linear, batch):
    x, y = batch
    double = Mixture([linear(0, dtype=torch.float64)])
    losses = build_losses(double, (x.double(), y), [], loss="cross-entropy").values
    assert losses.dtype == torch.float64
    exact = torch.nn.functional.cross_entropy(double.models[0](x.double()), y, reduction="none")
    torch.testing.assert_close(losses[:, 0, 0], exact.detach(), rtol=1e-14, atol=0)
    half = Mixture([linear(0).bfloat16()])
    assert build_losses(half, (x.bfloat16(), y), [], loss="margin").values.dtype == torch.float32

    def wrong(logits, labels):
        return logits.argmax(dim=1) != labels

    def rank(logits, labels):
        return (logits > logits.gather(1, labels[:, None])).sum(dim=1)

    mixture = Mixture([linear(0), linear(1)])
    own = build_losses(mixture, batch, [], loss=wrong)
    assert own.values.dtype == torch.uint8
    assert own.loss == "wrong"
    assert torch.equal(own.values, build_losses(mixture, batch, []).values)
    ranks = build_losses(mixture, batch, [], loss=rank).values
    assert ranks.dtype == torch.int64
    assert ranks.max() > 1


@pytest.mark.parametrize("alpha", [0.0, 0.01])
@pytest.mark.parametrize("kind", ["zero-one", "margin"])
def test_the_tensor_is_solved_in_place(alpha, kind, mixture, batch):
    losses = build_losses(mixture, batch, ATTACKS, loss=kind)
    before = losses.values.clone()
    solution = mixsolve.solve(losses.values, alpha=alpha)
    assert solution.success
    assert isinstance(solution.weights, torch.Tensor)
    assert solution.weights.shape == (3,)
    assert solution.weights.device == losses.values.device
    assert torch.equal(losses.values, before)
    # The certificate's risk is this package's own reading of the same tensor.
    assert losses.adversarial_risk(solution.weights) == pytest.approx(solution.risk, abs=1e-6)
    if alpha == 0:
        uniform = losses.adversarial_risk([1 / 3] * 3)
        singles = [losses.adversarial_risk(np.eye(3)[k]) for k in range(3)]
        assert solution.risk <= min(uniform, *singles) + 1e-6
        same = mixsolve.solve(losses.values.numpy())
        assert solution.value == pytest.approx(same.value, abs=1e-6)
    mixture.set_weights(solution.weights)
    torch.testing.assert_close(mixture.weights, solution.weights.double(), rtol=0, atol=1e-6)


def test_modes_come_back_also_after_a_failure(linear, batch):
    mixture = Mixture([linear(0), torch.nn.Sequential(linear(1), torch.nn.Dropout(0.5))])
    mixture.models[0].eval()
    modes = [part.training for part in mixture.modules()]
    build_losses(mixture, batch, ATTACKS)
    assert [part.training for part in mixture.modules()] == modes
    with pytest.raises(MixsolveError):
        build_losses(mixture, [batch, (batch[0] + 1, batch[1])], ATTACKS)
    assert [part.training for part in mixture.modules()] == modes
    assert all(parameter.requires_grad for parameter in mixture.parameters())


def test_input_that_does_not_fit(linear, mixture, batch):
    x, y = batch
    attack = UniformSampling("L2", 0.1, draws=1)
    outside = x.clone()
    outside[6, 0, 2, 1] = -0.25
    for data, error, message in (
        ((outside, y), MixsolveError, r"x must lie in \[0, 1\]; got -0.25 at index \(6, 0, 2, 1\)"),
        ((x, y[:2]), MixsolveError, r"y must have shape \(7,\)"),
        ((x, y + 1), MixsolveError, r"largest label is 4, the classifiers return 4"),
        ((x.numpy(), y.numpy()), MixsolveTypeError, r"batch 0 is a ndarray; .*torch.as_tensor"),
        ([(x, y), x], MixsolveTypeError, r"batch 1 is a Tensor"),
        (7, MixsolveTypeError, r"data must be a pair of tensors.*got int"),
        ([], MixsolveError, r"data must hold at least one batch; got none"),
    ):
        with pytest.raises(error, match=message):
            build_losses(mixture, data, attack)
    for attacks, message in (
        ("PGD", r"attacks must be an Attack.*got 'PGD' of type str"),
        (None, r"attacks must be an Attack.*got None"),
        ([attack, PGD], r"attacks\[1\] must be an Attack.*got ABCMeta"),
    ):
        with pytest.raises(MixsolveTypeError, match=message):
            build_losses(mixture, batch, attacks)
    with pytest.raises(MixsolveTypeError, match=r"mixture must be a Mixture; got ModuleList"):
        build_losses(mixture.models, batch, attack)
    with pytest.raises(MixsolveError, match=r"loss must be one of"):
        build_losses(mixture, batch, attack, loss="hinge")
    with pytest.raises(MixsolveError, match="batch_size must be an integer >= 1, got 0"):
        build_losses(mixture, batch, attack, batch_size=0)
    with pytest.raises(MixsolveTypeError, match=r"generator must be a torch.Generator; got int"):
        build_losses(mixture, batch, attack, generator=0)
    # Every classifier is recorded, that of weight zero too.
    diverged = Mixture([linear(0), linear(1, scale=math.inf)], [1, 0])
    with pytest.raises(MixsolveError, match=r"models\[1\] must return finite logits; got"):
        build_losses(diverged, batch, attack)
