"""Attacks leave no trace, do not wait for the device, and say what is wrong with their input."""

import math

import pytest
import torch
from attack_cases import CASES, attacks
from torch.utils._python_dispatch import TorchDispatchMode

from mixsolve.base.errors import GradientWarning, MixsolveError, MixsolveTypeError
from mixsolve_torch import PGD, Mixture, UniformSampling
from mixsolve_torch.attacks import dual
from mixsolve_torch.data import checks
from mixsolve_torch.models.classifiers import frozen


class Noisy(torch.nn.Module):
    """Batch norm, dropout, a frozen layer, and a part kept in eval mode while the rest trains."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.drop = torch.nn.Dropout(0.5)
        self.flat = torch.nn.Flatten()
        self.body = torch.nn.utils.skip_init(torch.nn.Linear, 9, 4)
        self.head = torch.nn.utils.skip_init(torch.nn.Linear, 4, 4)
        self.seen = []
        with torch.no_grad():
            self.body.weight.copy_(torch.linspace(-1, 1, 36).reshape(4, 9))
            self.head.weight.copy_(torch.eye(4))
            self.body.bias.zero_()
            self.head.bias.zero_()
        for parameter in self.body.parameters():
            parameter.requires_grad_(False)
        self.train()
        self.norm.eval()

    def forward(self, x):
        modes = {part.training for part in self.modules()}
        live = {parameter.requires_grad for parameter in self.parameters()}
        self.seen.append((modes, live))
        return self.head(self.body(self.flat(self.drop(self.norm(x)))))


def state_of(module):
    return (
        [part.training for part in module.modules()],
        [parameter.requires_grad for parameter in module.parameters()],
        [parameter.grad for parameter in module.parameters()],
        {name: value.clone() for name, value in module.state_dict().items()},
    )


def assert_same_state(module, before):
    modes, live, grads, values = state_of(module)
    assert (modes, live, grads) == before[:3]
    assert all(torch.equal(values[name], value) for name, value in before[3].items())


@pytest.mark.parametrize("case", CASES)
def test_attacks_leave_no_trace(case, batch):
    mixture = Mixture([Noisy(), Noisy()])
    before = state_of(mixture)
    assert set(before[0]) == set(before[1]) == {True, False}
    x, y = batch[0].clone(), batch[1].clone()
    attacks()[case](mixture, x, y)
    assert_same_state(mixture, before)
    assert torch.equal(x, batch[0])
    assert torch.equal(y, batch[1])
    seen = [entry for model in mixture.models for entry in model.seen]
    assert all(entry == ({False}, {False}) for entry in seen)
    assert bool(seen) == (case != "uniform")


def test_attacks_leave_no_trace_of_a_failure(batch):
    class Fails(torch.nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    mixture = Mixture([Noisy(), Fails()])
    before = state_of(mixture)
    with pytest.raises(KeyboardInterrupt):
        PGD("Linf", 0.1)(mixture, *batch)
    assert_same_state(mixture, before)
    with pytest.raises(MixsolveError, match=r"x must lie in \[0, 1\]"):
        PGD("Linf", 0.1)(mixture, batch[0] + 1, batch[1])
    assert_same_state(mixture, before)
    with pytest.raises(ZeroDivisionError), frozen(mixture):
        _ = 1 / any(part.training for part in mixture.modules())
    assert_same_state(mixture, before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(off, linear, batch):
    mixture = Mixture([linear(0), linear(1)])
    expected = PGD("L2", 0.3, steps=4)(mixture, *batch)
    with off():
        images, labels = batch[0].clone(), batch[1].clone()
        assert torch.equal(PGD("L2", 0.3, steps=4)(mixture, images, labels), expected)
    assert not torch.equal(expected[0], batch[0])


def test_images_that_require_a_gradient_get_none(linear, batch):
    x = batch[0].clone().requires_grad_()
    attacked = PGD("L2", 0.3, steps=2)(Mixture([linear(0)]), x, batch[1])
    assert not attacked.requires_grad
    assert x.grad is None


class Waits(TorchDispatchMode):
    """Counts the operations at which Python waits for a value of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        names = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")
        self.count += function._schema.name.removeprefix("aten::") in names
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", [case for case in CASES if case != "uniform"])
def test_the_steps_never_wait_for_the_device(case, linear, batch, monkeypatch):
    monkeypatch.setattr(dual, "asking_is_free", lambda device: False)  # as on an accelerator
    mixture = Mixture([linear(0), linear(1)])
    counts = []
    for steps in (2, 4):
        with Waits() as waits:
            # So small a ball that some image resists to the end, and every part of an attack runs.
            attacks("L2", 0.01, steps=steps)[case](mixture, *batch)
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x * (1 + 2**-23),
            r"got 1\.00000012 .*1\.19e-07 above 1",
        ),
        (
            lambda x: x.double().clamp(max=1 - 1e-9) + 2e-9,
            r"got 1\.000000001\d* at .*1e-09 above 1",
        ),
        (lambda x: x - 2**-30, r"got -9\.3132\d*e-10 at .*9\.31e-10 below 0; .*clamp\(0, 1\)"),
        (lambda x: x * 255, r"got 255 at index .*; scale the images and leave"),
        (lambda x: x.flatten(1), r"got \(2, 4\); rows of numbers .*x\[:, None, None, :\]"),
        (lambda x: x[:, 0], r"got \(2, 2, 2\); add a channel .*x\[:, None\], or a batch axis"),
        (lambda x: x[:, :, None], r"got \(2, 1, 1, 2, 2\); volumes .*x.flatten\(2, 3\).*\(1, 2\)"),
        (lambda x: x[:0], r"got \(0, 1, 2, 2\); there is no image in it"),
        (lambda x: x[:0].flatten(1), r"got \(0, 4\); there is no image in it"),
        (lambda x: x[:, :0], r"got \(2, 0, 2, 2\); its images have no pixels"),
        (lambda x: x[0, 0, 0], r"got \(2,\); bring each sample into the form \(C, H, W\)"),
    ],
)
def test_the_words_for_images_that_are_none(change, message):
    x = torch.tensor([0.0, 1.0]).repeat(4).reshape(2, 1, 2, 2)
    wrong = change(x)
    with pytest.raises(MixsolveError, match=message):
        checks.images("x", wrong)
    assert checks.images("x", x) is x


def test_images_that_are_none(linear, batch):
    x, y = batch
    attack, mixture = PGD("Linf", 0.1, steps=1), Mixture([linear(0)])
    high, nan = x.clone(), x.clone()
    high[3, 0, 1, 2] = 1.5
    nan[2, 0, 0, 1] = float("nan")
    for images, labels, error, message in (
        (high, y, MixsolveError, r"x must lie in \[0, 1\]; got 1.5 at index \(3, 0, 1, 2\)"),
        (nan, y, MixsolveError, r"x must lie in \[0, 1\]; got nan at index \(2, 0, 0, 1\)"),
        (x - 1, y, MixsolveError, r"got -.* leave their normalisation to the model"),
        (x[:, 0], y, MixsolveError, r"x must have shape \(B, C, H, W\).*got \(7, 3, 3\)"),
        (x[:0], y[:0], MixsolveError, r"without an empty axis; got \(0, 1, 3, 3\)"),
        ((x * 255).byte(), y, MixsolveTypeError, r"torch.uint8; for bytes use x.float\(\) / 255"),
        (x.numpy(), y, MixsolveTypeError, r"x must be a torch.Tensor.*got ndarray"),
        (x, y[:3], MixsolveError, r"y must have shape \(7,\), one label an image; got \(3,\)"),
        (x, y.float(), MixsolveTypeError, r"y must hold integer.*torch.float32; use y.long\(\)"),
        (x, y.tolist(), MixsolveTypeError, r"y must be a torch.Tensor.*got list"),
        (x, y - 1, MixsolveError, r"y must hold class indices from 0 on; got -1 at index 0"),
        (x, y + 1, MixsolveError, r"largest label is 4, the classifiers return 4 logits"),
    ):
        with pytest.raises(error, match=message):
            attack(mixture, images, labels)
    with pytest.raises(MixsolveTypeError, match=r"mixture must be a Mixture; got Sequential"):
        attack(linear(0), x, y)
    with pytest.raises(MixsolveTypeError, match=r"generator must be a torch.Generator; got int"):
        attack(mixture, x, y, 3)


class Root(torch.nn.Module):
    """A classifier with an infinite gradient at 0."""

    def forward(self, x):
        root = x.flatten(1).sum(dim=1, keepdim=True).sqrt()
        return torch.cat([root, torch.zeros_like(root)], dim=1)


class Rounds(torch.nn.Module):
    """A classifier without a gradient."""

    def forward(self, x):
        score = x.detach().flatten(1).sum(dim=1, keepdim=True)
        return torch.cat([score, -score], dim=1)


def test_classifiers_that_cannot_be_attacked(linear, batch):
    x, y = batch
    attack = PGD("Linf", 0.1, steps=2, random_start=False)
    diverged = Mixture([linear(0), linear(1, scale=float("nan"))])
    with pytest.raises(MixsolveError, match=r"models\[1\] must have finite logits.*diverged"):
        attack(diverged, x, y)
    black, zero = torch.zeros(2, 1, 1, 2), torch.tensor([0, 0])
    white = torch.ones(2, 1, 1, 2)
    with pytest.warns(GradientWarning, match=r"models\[0\] has no gradient.*Square or Uniform"):
        attacked = attack(Mixture([Rounds()]), white, zero)
    assert torch.equal(attacked[0], white)  # a gradient of zero moves nothing
    assert UniformSampling("Linf", 0.1)(Mixture([Rounds()]), black, zero).shape == (10, 2, 1, 1, 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PGD("L3", 0.1), MixsolveError, r"norm must be 'Linf', 'L2' or 'L1'; got 'L3'"),
        (lambda: PGD("L2", -0.1), MixsolveError, r"eps must be a finite number >= 0, got -0.1"),
        (lambda: PGD("L2", math.nan), MixsolveError, r"eps must be a finite number >= 0, got nan"),
        (lambda: PGD("L2", None), MixsolveTypeError, r"eps must be .* got None \(NoneType\)"),
        (lambda: PGD("L2", "8/0"), MixsolveError, r"eps must be .* such as 8/255; got '8/0'"),
        (lambda: PGD("Linf", 8), MixsolveError, r"no Linf radius exceeds 1; got 8; .* write 8/255"),
        (lambda: PGD("L2", 1, steps=0), MixsolveError, r"steps must be an integer >= 1, got 0"),
        (lambda: PGD("L2", 1, restarts=1.5), MixsolveTypeError, r"restarts must be an integer"),
        (lambda: PGD("L2", 1, step_size=-1), MixsolveError, r"step_size must be .* >= 0"),
        (
            lambda: PGD("L2", 1, restarts=2, random_start=False),
            MixsolveError,
            r"restarts must be 1 without a random start; got 2",
        ),
        (lambda: PGD("L2", 1, loss="ramp"), MixsolveError, r"loss must be one of .* got 'ramp'"),
        (
            lambda: UniformSampling("L2", 1, draws=0),
            MixsolveError,
            r"draws must be an integer >= 1",
        ),
        (lambda: UniformSampling("L2", math.inf), MixsolveError, r"eps must be a finite number"),
    ],
)
def test_parameters_out_of_range(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_losses_that_cannot_be_ascended(linear, batch):
    mixture = Mixture([linear(0)])
    with pytest.raises(MixsolveError, match=r"loss of an attack must have a gradient.*zero-one"):
        PGD("L2", 0.1, loss="zero-one")(mixture, *batch)
    with pytest.raises(MixsolveError, match=r"must have a gradient with respect to the logits"):
        PGD("L2", 0.1, loss=lambda logits, labels: logits.detach()[:, 0])(mixture, *batch)
    with pytest.raises(MixsolveError, match=r"one loss an image.*reduction='none'"):
        PGD("L2", 0.1, loss=torch.nn.functional.cross_entropy)(mixture, *batch)
    with pytest.raises(MixsolveError, match=r"weights must have shape \(1,\)"):
        PGD("L2", 0.1, weights=[0.5, 0.5])(mixture, *batch)

    def own(logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    first = PGD("L2", 0.1, loss=own)(mixture, *batch)
    torch.testing.assert_close(first, PGD("L2", 0.1)(mixture, *batch))
