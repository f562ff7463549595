"""Classifiers of every kind that PyTorch makes: as good as the module they are of, or refused."""

import warnings

import pytest
import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import PGD, Mixture, build_losses, evaluate, expected_loss, solve_game
from mixsolve_torch.models.classifiers import frozen

ATTACK = PGD("Linf", 0.1, steps=2)


def frozen_script(network):
    return torch.jit.freeze(torch.jit.script(network.eval()))


def exported(network):
    count = torch.export.Dim("count", min=1, max=1024)
    example = torch.rand(5, 1, 3, 3, generator=torch.Generator())
    return torch.export.export(network.eval(), (example,), dynamic_shapes=({0: count},)).module()


def nested(network):
    """An exported program behind another layer, as normalisation is."""
    return torch.nn.Sequential(torch.nn.Identity(), exported(network))


KINDS = {
    "script": torch.jit.script,
    "frozen script": frozen_script,
    "exported": exported,
    "exported behind a layer": nested,
}


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_scripts_and_exported_programs(kind, quiet, linear, batch, tmp_path):
    x, y = batch
    made = Mixture([KINDS[kind](linear(0)), linear(1)], [0.3, 0.7])
    same = Mixture([linear(0), linear(1)], [0.3, 0.7])
    with torch.no_grad():
        torch.testing.assert_close(made(x), same(x))
        torch.testing.assert_close(
            expected_loss(made, x, y, "margin"), expected_loss(same, x, y, "margin")
        )
    torch.testing.assert_close(ATTACK(made, x, y), ATTACK(same, x, y))
    found = [build_losses(pool, batch, ATTACK) for pool in (made, same)]
    assert torch.equal(found[0].values, found[1].values)
    games = [solve_game(pool, batch, ATTACK) for pool in (made, same)]
    assert games[0].value == pytest.approx(games[1].value, abs=1e-9)
    reports = [evaluate(pool, batch, ATTACK, resamples=20).to_dict() for pool in (made, same)]
    assert reports[0]["players"] == reports[1]["players"]
    out = build_losses(made, batch, ATTACK, out=tmp_path / "losses.npy")
    assert out.values.tolist() == found[1].values.tolist()
    made.export(tmp_path / "served.pt", x)
    torch.testing.assert_close(torch.jit.load(tmp_path / "served.pt").expected(x), same(x))


@pytest.mark.parametrize("taken", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_networks_of_another_dtype_than_the_images(taken, given, quiet, linear, batch, tmp_path):
    x, y = batch[0].to(given), batch[1]
    network = linear(0, dtype=taken)
    mixture = Mixture([network, linear(1)], [0.4, 0.6])
    expected = network(x.to(taken)).to(torch.promote_types(given, taken))
    assert torch.equal(mixture.member_logits(x, [0])[0], expected)
    assert mixture(x).dtype == torch.promote_types(given, taken)
    images = x.clone().requires_grad_()
    expected_loss(mixture, images, y, "cross-entropy").sum().backward()
    assert images.grad.dtype == given
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0
    attacked = ATTACK(mixture, x, y)
    assert attacked.dtype == given
    losses = build_losses(mixture, (x, y), ATTACK)
    logits = network(attacked[0].to(taken))
    wrong = logits.argmax(dim=1) != y
    assert losses.values[:, 1, 0].tolist() == wrong.int().tolist()
    mixture.export(tmp_path / "served.pt", x)
    served = torch.jit.load(tmp_path / "served.pt")
    torch.testing.assert_close(served.expected(x), mixture(x), rtol=1e-3, atol=1e-3)


def test_a_network_that_converts_by_itself_is_asked_as_it_is(linear, batch):
    class Converts(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            assert x.dtype == torch.float32
            return self.network((x - 0.5).half())

    network = linear(0).half()
    logits = Mixture([Converts(network)]).member_logits(batch[0])[0]
    assert torch.equal(logits, network((batch[0] - 0.5).half()).float())


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32],
)
def test_labels_of_every_integer(dtype, linear, batch):
    x, y = batch
    mixture = Mixture([linear(0), linear(1)])
    told = y.to(dtype)
    assert torch.equal(
        build_losses(mixture, (x, told), ATTACK).values,
        build_losses(mixture, (x, y), ATTACK).values,
    )
    assert torch.equal(expected_loss(mixture, x, told), expected_loss(mixture, x, y))
    assert solve_game(mixture, [(x, told)], ATTACK).losses.labels.dtype == torch.int64
    assert evaluate(mixture, (x, told), ATTACK).to_dict() == (
        evaluate(mixture, (x, y), ATTACK).to_dict()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to("meta"), r"x must be a plain tensor; got .*meta device"),
        (lambda x: x.to_sparse(), r"x must be a plain tensor; got .*sparse_coo; use x.to_dense"),
        (lambda x: torch.nested.nested_tensor(list(x)), r"x must be a plain tensor; got a nested"),
        (
            lambda x: torch.quantize_per_tensor(x, 1 / 255, 0, torch.quint8),
            r"got a quantized tensor \(torch.quint8\); use x.dequantize",
        ),
        (lambda x: x.to(torch.float8_e4m3fn), r"got torch.float8_e4m3fn; use x.float\(\)"),
        (lambda x: x.to(torch.complex64), r"x must hold floating-point images"),
    ],
)
def test_images_of_no_plain_kind(change, message, linear, batch):
    mixture = Mixture([linear(0)])
    data = change(batch[0]), batch[1]
    for call in (
        lambda: build_losses(mixture, data, ATTACK),
        lambda: ATTACK(mixture, *data),
        lambda: expected_loss(mixture, *data),
        lambda: solve_game(mixture, data, ATTACK),
    ):
        with pytest.raises(MixsolveTypeError, match=message):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y.to("meta"), r"y must be a plain tensor; got .*meta device"),
        (lambda y: y.to_sparse(), r"y must be a plain tensor; got .*sparse"),
        (lambda y: torch.nested.nested_tensor([y[:3], y[3:]]), r"y must be .*a nested tensor"),
    ],
)
def test_labels_of_no_plain_kind(change, message, linear, batch):
    with pytest.raises(MixsolveTypeError, match=message):
        build_losses(Mixture([linear(0)]), (batch[0], change(batch[1])), ATTACK)


class Answers(torch.nn.Module):
    def __init__(self, network, change):
        super().__init__()
        self.network = network
        self.change = change

    def forward(self, x):
        return self.change(self.network(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z.to_sparse(),
        lambda z: torch.quantize_per_tensor(z.detach().round(), 1.0, 0, torch.qint8),
        lambda z: z.detach().round().to(torch.float8_e4m3fn),
    ],
    ids=["sparse", "quantized", "float8"],
)
def test_logits_that_can_be_read(change, linear, batch):
    network = linear(0)
    found = Mixture([Answers(network, change)]).member_logits(batch[0])[0]
    expected = network(batch[0])
    assert found.dtype == torch.float32
    same = expected if change(expected).is_sparse else expected.round()
    assert torch.equal(found, same)


def test_networks_that_cannot_compute(linear, batch):
    x, y = batch
    shapeless = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4))
    with pytest.raises(MixsolveError, match=r"models.1.1.weight has no shape yet.*run the class"):
        build_losses(Mixture([linear(0), shapeless]), batch, ATTACK)
    meta = linear(1).to("meta")
    for mixture in (Mixture([linear(0), meta]), Mixture([meta])):
        with pytest.raises(MixsolveError, match=r"models\[\d\] .*meta device.*assign=True"):
            build_losses(mixture, batch, ATTACK)
    with pytest.raises(MixsolveError, match=r"models\[0\] must return logits.*complex64"):
        expected_loss(Mixture([Answers(linear(0), lambda z: z.to(torch.complex64))]), x, y)
    ragged = Answers(linear(0), lambda z: torch.nested.nested_tensor(list(z.detach())))
    with pytest.raises(MixsolveError, match=r"models\[0\] must return logits.*nested"):
        expected_loss(Mixture([ragged]), x, y)


class Stubborn(torch.nn.Linear):
    """A layer that cannot be put back into train mode."""

    def __setattr__(self, name, value):
        if name == "training" and value and "weight" in self._parameters:
            raise RuntimeError("this layer stays in eval mode")
        super().__setattr__(name, value)


def test_restoring_does_not_stop_half_way():
    layers = [torch.nn.utils.skip_init(kind, 2, 2) for kind in (torch.nn.Linear, Stubborn)]
    module = torch.nn.Sequential(layers[0], layers[1], torch.nn.Linear(2, 2, device="meta"))

    def state():
        parameters = [parameter.requires_grad for parameter in module.parameters()]
        return [part.training for part in module.modules()] + parameters

    with pytest.raises(RuntimeError, match="this layer stays in eval mode"), frozen(module):
        assert not any(state())
    assert [part.training for part in module.modules()] == [True, True, False, True]
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_the_mixture_as_a_graph(linear, batch):
    x, _ = batch
    mixture = Mixture([linear(0), linear(1), linear(2, scale=float("nan"))], [0.25, 0.75, 0.0])
    expected = mixture(x)
    count = torch.export.Dim("count", min=1, max=64)
    program = torch.export.export(mixture.eval(), (x,), dynamic_shapes=({0: count},)).module()
    torch.testing.assert_close(program(x), expected)
    torch.testing.assert_close(program(x[:3]), expected[:3])
    compiled = torch.compile(mixture, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    mixture.set_weights([0.5, 0.5, 0.0])
    torch.testing.assert_close(compiled(x), mixture(x))


def test_the_mixture_in_onnx(linear, batch, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    x, _ = batch
    mixture = Mixture([linear(0), linear(1)], [0.25, 0.75]).eval()
    path = tmp_path / "mixture.onnx"
    torch.onnx.export(mixture, (x,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), mixture(x).detach())
