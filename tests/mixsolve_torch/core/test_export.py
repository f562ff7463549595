"""Exported mixtures: one file that needs nothing but PyTorch, and draws its members fairly."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from forked import run_script
from scipy.stats import chisquare

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import Mixture, digits_cnn, load_model
from mixsolve_torch.core.served import philox

# The tests themselves load TorchScript, which newer versions of PyTorch deprecate.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

WEIGHTS = [0.2, 0.0, 0.5, 0.3]


class Says(torch.nn.Module):
    """A classifier that always says the same class: what was drawn can be read off its logits."""

    def __init__(self, k, classes=4):
        super().__init__()
        self.register_buffer("logits", torch.eye(classes)[k])

    def forward(self, x):
        return self.logits + 0 * x.flatten(1)[:, :1]


class Branches(torch.nn.Module):
    """A classifier that does something else for single images, which a trace does not see."""

    def forward(self, x):
        scores = x.flatten(1)[:, :3]
        if x.shape[0] == 1:
            scores = -scores
        return scores


class OneSize(torch.nn.Module):
    """A classifier whose trace has the number of images in it."""

    def forward(self, x):
        return x.reshape(int(x.shape[0]), 9)[:, :3] + torch.zeros(int(x.shape[0]), 3)


class Noisy(torch.nn.Module):
    """A classifier that forgot to switch its dropout off."""

    def forward(self, x):
        return torch.nn.functional.dropout(x.flatten(1)[:, :3], 0.5)


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mixture():
    return Mixture([digits_cnn(seed=k, width=4).train() for k in range(4)], WEIGHTS)


@pytest.fixture(scope="module")
def path(mixture, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "mixture.pt"
    mixture.export(path, images, seed=7)
    return path


def said(logits):
    return logits.argmax(dim=1).tolist()


def test_philox_gives_the_known_answers():
    # The answers of the reference implementation, Random123.
    ones = 0xFFFFFFFF
    assert philox((0, 0), (0, 0, 0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox((ones, ones), (ones, ones, ones, ones)) == (
        0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD,
    )  # fmt: skip
    assert philox((0xA4093822, 0x299F31D0), (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)) == (
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    )


def test_every_call_gives_the_logits_of_one_member(mixture, images, path):
    served = torch.jit.load(path)
    assert not served.training
    assert served.members == [0, 2, 3]
    assert served.weights == [0.2, 0.5, 0.3]
    eager = copy.deepcopy(mixture).eval()
    shadow = torch.jit.load(path)
    drawn = set()
    for size in (1, 3, 5, 1, 4, 3, 2, 5, 2, 4, 5, 3):
        k = shadow.draw()  # the same seed, the same draws
        drawn.add(k)
        torch.testing.assert_close(
            served(images[:size]), eager.models[k](images[:size]), rtol=1e-6, atol=1e-6
        )
        torch.testing.assert_close(served.expected(images[:size]), eager(images[:size]))
    assert drawn == {0, 2, 3}
    assert all(model.training for model in mixture.models)  # their own mode came back


def test_members_in_train_mode_are_written_as_they_classify(images, tmp_path):
    torso = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Dropout())
    Mixture([torso.train()]).export(tmp_path / "a.pt", images)
    assert all(part.training for part in torso.modules())
    assert torch.equal(torso[1].running_mean, torch.zeros(64))
    served = torch.jit.load(tmp_path / "a.pt")
    torch.testing.assert_close(served(images), torso.eval()(images))


def test_only_the_drawn_member_is_run(images, tmp_path):
    class Fails(torch.nn.Module):
        def forward(self, x):
            scores = x.flatten(1)[:, :4]
            assert bool(scores.max() < 2), "this classifier was run"
            return scores

    mixture = Mixture([torch.jit.script(Fails()), Says(1)], [0.5, 0.5])
    mixture.export(tmp_path / "a.pt", images, seed=0)
    served, shadow = (torch.jit.load(tmp_path / "a.pt") for _ in range(2))
    drawn = [shadow.draw() for _ in range(20)]
    assert set(drawn) == {0, 1}
    for k in drawn:
        if k == 0:
            with pytest.raises(torch.jit.Error, match="this classifier was run"):
                served(images + 5)
        else:
            assert said(served(images + 5)) == [1] * 5


@pytest.mark.parametrize("seed", [0, 20210718, 2**63 - 1])
def test_members_are_drawn_by_their_weights(images, tmp_path, seed):
    mixture = Mixture([Says(k) for k in range(4)], WEIGHTS)
    mixture.export(tmp_path / "a.pt", images, seed=seed)
    served = torch.jit.load(tmp_path / "a.pt")
    counts = torch.zeros(4, dtype=torch.int64)
    for _ in range(3000):
        counts[served.draw()] += 1
    assert counts[1] == 0
    assert chisquare(counts[[0, 2, 3]], [600, 1500, 900]).pvalue > 1e-3
    uniforms = [served.uniform() for _ in range(2000)]
    assert 0 <= min(uniforms) < 0.01
    assert 0.99 < max(uniforms) < 1


@pytest.mark.parametrize("seed", [3, None])
def test_each_image_may_have_its_own_member(images, tmp_path, seed):
    mixture = Mixture([Says(k) for k in range(4)], WEIGHTS)
    mixture.export(tmp_path / "a.pt", images, draw="image", seed=seed)
    served = torch.jit.load(tmp_path / "a.pt")
    many = images[:1].expand(3000, -1, -1, -1)
    counts = torch.tensor(said(served(many))).bincount(minlength=4)
    assert counts[1] == 0
    # Without a seed the draws are others every time: one run in a million may fail.
    assert chisquare(counts[[0, 2, 3]], [600, 1500, 900]).pvalue > (1e-6 if seed is None else 1e-3)
    assert served(images[:0]).shape == (0, 4)


def test_images_keep_their_places_among_members(mixture, images, path):
    served, shadow = torch.jit.load(path), torch.jit.load(path)
    eager = copy.deepcopy(mixture).eval()
    x = images.repeat(4, 1, 1, 1)
    logits = served.each(x)
    drawn = [shadow.draw() for _ in x]
    expected = torch.cat([eager.models[k](image[None]) for k, image in zip(drawn, x, strict=True)])
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_the_forward_may_be_the_expected_probabilities(mixture, images, tmp_path):
    mixture.export(tmp_path / "a.pt", images, draw="none")
    served = torch.jit.load(tmp_path / "a.pt")
    torch.testing.assert_close(served(images[:2]), copy.deepcopy(mixture).eval()(images[:2]))
    assert torch.equal(served(images), served(images))


def test_seeds_repeat_draws_and_files_go_on(path, tmp_path):
    first, second = torch.jit.load(path), torch.jit.load(path)
    draws = [first.uniform() for _ in range(20)]
    assert [second.uniform() for _ in range(20)] == draws
    first.set_seed(7)
    assert [first.uniform() for _ in range(10)] == draws[:10]
    torch.jit.save(first, tmp_path / "later.pt")
    assert [torch.jit.load(tmp_path / "later.pt").uniform() for _ in range(1)] == draws[10:11]
    first.set_seed(8)
    assert first.uniform() not in draws
    # A seed above 32 bits is another one than its lower half.
    first.set_seed(7 + 2**32)
    assert first.uniform() not in draws
    with pytest.raises(torch.jit.Error, match="seed must be at least 0"):
        first.set_seed(-2)
    with pytest.raises(torch.jit.Error, match="member must be one of those with a positive"):
        first.run(1, torch.zeros(1, 1, 8, 8))


def test_without_a_seed_draws_come_from_nothing_that_can_be_seeded(mixture, images, tmp_path):
    mixture.export(tmp_path / "a.pt", images)
    script = (
        "import sys, json, torch, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "torch.manual_seed(0)\n"
        "served = torch.jit.load(sys.argv[1])\n"
        "draws = [served.uniform() for _ in range(50)]\n"
        "served.set_seed(1); served.set_seed(None)\n"
        "print(json.dumps(draws + [served.uniform() for _ in range(50)]))"
    )
    runs = [
        json.loads(run_script(script, tmp_path / "a.pt", folder=tmp_path).stdout) for _ in range(2)
    ]
    assert len({u for run in runs for u in run}) == 200
    assert all(0 <= u < 1 for run in runs for u in run)
    frozen = torch.jit.freeze(torch.jit.load(tmp_path / "a.pt"))
    assert len({tuple(frozen(images)[0].tolist()) for _ in range(60)}) == 3


def test_the_file_needs_no_other_package(mixture, images, path, tmp_path):
    x = images[:3]
    torch.save(x, tmp_path / "x.pt")
    script = (
        "import sys, json, torch, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "sys.modules['mixsolve'] = sys.modules['mixsolve_torch'] = None\n"
        "served = torch.jit.load(sys.argv[1])\n"
        "x = torch.load(sys.argv[2])\n"
        "print(json.dumps([served(x).tolist() for _ in range(6)]))\n"
        "assert not any(name.startswith(('mixsolve.', 'mixsolve_torch.')) for name in sys.modules)"
    )
    command = [sys.executable, "-c", script, path, tmp_path / "x.pt"]
    came = json.loads(subprocess.check_output(command, cwd=tmp_path))
    served = torch.jit.load(path)
    torch.testing.assert_close(torch.tensor(came), torch.stack([served(x) for _ in range(6)]))


def test_the_file_moves_between_devices_and_types(linear, batch, tmp_path):
    path = tmp_path / "a.pt"
    Mixture([linear(0), linear(1)]).export(path, batch[0])
    # On the meta device any tensor left behind on the CPU is an error.
    moved = torch.jit.load(path, map_location="meta")
    for method in (moved, moved.each, moved.expected):
        assert method(batch[0].to("meta")).shape == (7, 4)
    assert torch.jit.load(path).double()(batch[0].double()).dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_file_runs_on_cuda(mixture, path, images, tmp_path):
    on_cpu, on_cuda = torch.jit.load(path), torch.jit.load(path, map_location="cuda")
    for method in ("forward", "each", "expected"):
        expected = getattr(on_cpu, method)(images)
        torch.testing.assert_close(
            getattr(on_cuda, method)(images.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3
        )
    copy.deepcopy(mixture).cuda().export(tmp_path / "a.pt", images.cuda(), seed=7)
    served = torch.jit.load(tmp_path / "a.pt", map_location="cpu")
    torch.testing.assert_close(served(images), torch.jit.load(path)(images))


def test_load_model_takes_it(path, images):
    assert load_model(path)(images).shape == (5, 10)


def test_a_file_that_is_there_stays_unless_told(mixture, images, tmp_path):
    path = tmp_path / "a.pt"
    path.write_text("precious")
    with pytest.raises(MixsolveError, match=r"a\.pt exists: give replace=True"):
        mixture.export(path, images)
    assert path.read_text() == "precious"
    mixture.export(str(path), images, replace=True)
    torch.jit.load(path)
    assert os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("model", [Branches(), OneSize(), Noisy()])
def test_what_a_trace_does_not_reproduce_is_refused(model, tmp_path):
    x = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    (tmp_path / "a.pt").write_text("precious")
    mixture = Mixture([Says(0, classes=3), model])
    message = r"models\[1\], traced with 3 images, .*give torch\.jit\.script"
    with torch.random.fork_rng(devices=[]), pytest.raises(MixsolveError, match=message):
        mixture.export(tmp_path / "a.pt", x, replace=True)
    assert os.listdir(tmp_path) == ["a.pt"]
    assert (tmp_path / "a.pt").read_text() == "precious"


def test_a_scripted_model_may_branch(tmp_path):
    x = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    Mixture([torch.jit.script(Branches())]).export(tmp_path / "a.pt", x)
    served = torch.jit.load(tmp_path / "a.pt")
    for few in (x, x[:1]):
        assert torch.equal(served(few), Branches()(few))


class Complains(torch.nn.Module):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise KeyError("no tracing here")
        return x.flatten(1)[:, :3]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"draw": "never"}, MixsolveError, "draw must be one of 'call', 'image', 'none'; got"),
        ({"seed": -1}, MixsolveError, "seed must be an integer >= 0, got -1"),
        ({"seed": 2**63}, MixsolveError, r"seed must be below 2\*\*63, got 9223372036854775808"),
        ({"seed": 0.5}, MixsolveTypeError, "seed must be an integer >= 0, got 0.5"),
        ({"example": [0.0]}, MixsolveTypeError, "example must be a torch.Tensor.*got list"),
        ({"example": torch.zeros(0, 1, 3, 3)}, MixsolveError, r"one image.*got \(0, 1, 3, 3\)"),
        ({"path": "none/a.pt"}, MixsolveError, r"a\.pt: the directory .*none does not exist"),
        ({"path": "."}, MixsolveError, "is a directory: give the name of a file"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, options, error, message):
    options = {"example": torch.rand(2, 1, 3, 3, generator=torch.Generator()), **options}
    path = tmp_path / options.pop("path", "a.pt")
    with pytest.raises(error, match=message):
        Mixture([Says(0)]).export(path, **options)
    assert not os.listdir(tmp_path)


def test_models_that_cannot_be_traced_are_named(tmp_path):
    x = torch.zeros(2, 1, 3, 3)
    with pytest.raises(MixsolveError, match=r"models\[1\] cannot be traced: 'no tracing here'"):
        Mixture([Says(0, classes=3), Complains()]).export(tmp_path / "a.pt", x)
    assert not os.listdir(tmp_path)


def test_no_deprecation_reaches_the_caller(tmp_path, recwarn):
    Mixture([Says(0)]).export(tmp_path / "a.pt", torch.zeros(2, 1, 3, 3))
    assert not recwarn.list
