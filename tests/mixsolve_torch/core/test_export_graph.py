"""Mixtures as graphs, of torch.export and of ONNX: what a seed draws is what TorchScript draws."""

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import Mixture
from mixsolve_torch.core.drawn import uniform
from mixsolve_torch.core.served import Served

WEIGHTS = [0.2, 0.0, 0.5, 0.3]
SEEDS = (0, 1, 7, 2**40 + 3, 2**63 - 1)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def mixture():
    torch.manual_seed(0)
    nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 4)) for _ in WEIGHTS]
    return Mixture(nets, WEIGHTS).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(1))


def drawn_by_torchscript(seed, count):
    """Places of the classifiers, in the mixture, that a file of TorchScript draws one by one."""
    played = [k for k, weight in enumerate(WEIGHTS) if weight]
    served = Served([torch.nn.Identity() for _ in played], played, [0.2, 0.5, 0.3], "call")
    served.set_seed(seed)
    return [served.draw() for _ in range(count)]


def expected(mixture, images, draw, seed):
    if draw == "none":
        return mixture(images)
    logits = mixture.member_logits(images)
    drawn = drawn_by_torchscript(seed, len(images))
    if draw == "call":
        return logits[drawn[0]]
    return torch.stack([logits[k, i] for i, k in enumerate(drawn)])


def test_draws_are_those_of_torchscript_and_fair():
    counts = torch.arange(1, 4001)
    for seed in SEEDS:
        served = Served([torch.nn.Identity()], [0], [1.0], "call")
        served.set_seed(seed)
        found = uniform(torch.tensor([seed]), counts)
        assert found[:20].tolist() == [served.uniform() for _ in range(20)]
        assert abs(float(found.mean()) - 0.5) < 0.03


@pytest.mark.parametrize("draw", ["call", "image", "none"])
def test_a_program(mixture, images, draw, tmp_path):
    path = tmp_path / "mixture.pt2"
    with torch.no_grad():
        mixture.export(path, images, draw=draw)
        graph = torch.export.load(path).module()
        for seed in SEEDS:
            for count in (1, 3, 5):
                x = images[:count]
                inputs = (x,) if draw == "none" else (x, torch.tensor([seed]))
                torch.testing.assert_close(graph(*inputs), expected(mixture, x, draw, seed))


@pytest.mark.parametrize("draw", ["call", "image", "none"])
def test_onnx(mixture, images, draw, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "mixture.onnx"
    mixture.export(path, images, draw=draw)
    assert [each.name for each in tmp_path.iterdir()] == ["mixture.onnx"]
    session = runtime.InferenceSession(path)
    wanted = ["images"] if draw == "none" else ["images", "seed"]
    assert [each.name for each in session.get_inputs()] == wanted
    for seed in SEEDS:
        for count in (1, 5):
            x = images[:count]
            feeds = {"images": x.numpy(), "seed": np.array([seed])}
            (found,) = session.run(None, {name: feeds[name] for name in wanted})
            with torch.no_grad():
                told = expected(mixture, x, draw, seed)
            torch.testing.assert_close(torch.from_numpy(found), told)


def test_an_example_of_one_image_makes_a_file_for_any_number(mixture, images, tmp_path):
    mixture.export(tmp_path / "one.pt2", images[:1], draw="none")
    graph = torch.export.load(tmp_path / "one.pt2").module()
    torch.testing.assert_close(graph(images), mixture(images))


class Branches(torch.nn.Module):
    """A classifier that does something else for dark images."""

    def forward(self, x):
        scores = x.flatten(1)[:, :4]
        return -scores if float(x.sum()) < 1 else scores


class Noisy(torch.nn.Module):
    """A classifier that is random in eval mode."""

    def forward(self, x):
        return torch.nn.functional.dropout(x.flatten(1)[:, :4], 0.5)


@pytest.mark.parametrize("model", [Branches(), Noisy()])
def test_classifiers_that_make_no_graph(model, images, tmp_path):
    with pytest.raises(MixsolveError, match=r"TorchScript"):
        Mixture([model]).export(tmp_path / "a.pt2", images)
    assert not list(tmp_path.iterdir())


def test_a_seed_is_not_part_of_a_graph(mixture, images, tmp_path):
    with pytest.raises(MixsolveError, match="takes one with each call"):
        mixture.export(tmp_path / "a.onnx", images, seed=3)
    (tmp_path / "a.pt2").write_text("precious")
    with pytest.raises(MixsolveError, match="replace=True"):
        mixture.export(tmp_path / "a.pt2", images)
    assert (tmp_path / "a.pt2").read_text() == "precious"
