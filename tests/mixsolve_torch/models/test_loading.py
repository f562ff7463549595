"""Models from files: every form gives the same logits and gradients; pickles are refused unread."""

import json
import logging
import pickle
import sys
import zipfile

import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import PGD, Mixture, digits_cnn, load_model
from mixsolve_torch.models.exported import ExportedClassifier

# Newer versions of PyTorch deprecate TorchScript, which people have models in.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

MODULE = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))

def needs(width):
    return build()

def no_network():
    return 7
"""


@pytest.fixture(scope="module")
def network():
    return digits_cnn(seed=3, width=4).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def export(network, path, images, dynamic=None):
    shapes = None if dynamic is None else ({0: dynamic},)
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def gradient(model, x):
    point = x.clone().requires_grad_()
    return torch.autograd.grad(model(point).square().sum(), point)[0]


def assert_same(model, network, images):
    for count in (1, 2, 3, 5):
        x = images[:count]
        torch.testing.assert_close(model(x), network(x))
        torch.testing.assert_close(gradient(model, x), gradient(network, x))


@pytest.mark.parametrize("form", ["trace", "script"])
def test_torchscript(network, images, tmp_path, form):
    path = tmp_path / "model.bin"  # what it holds counts, not how it is called
    made = torch.jit.trace(network, images) if form == "trace" else torch.jit.script(network)
    torch.jit.save(made, path)
    model = load_model(path)
    assert not model.training
    assert_same(model, network, images)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [(None, (3, 3)), ({"min": 1}, (1, None)), ({"min": 2, "max": 4}, (2, 4))],
)
def test_exported_programs_take_any_batch(network, images, tmp_path, caplog, limits, expected):
    dynamic = None if limits is None else torch.export.Dim("batch", **limits)
    path = export(network, tmp_path / "model.pt2", images[:3], dynamic)
    with caplog.at_level(logging.WARNING, logger="mixsolve_torch"):
        model = load_model(path)
    assert isinstance(model, ExportedClassifier)
    assert (model.least, model.most) == expected
    assert ("batches of exactly 3 images" in caplog.text) == (limits is None)
    assert_same(model, network, images)


def test_exported_programs_can_be_attacked(network, images, tmp_path):
    model = load_model(export(network, tmp_path / "model.pt2", images[:2]))
    labels = network(images).argmax(dim=1)
    attack = PGD("Linf", 0.3, steps=3)
    expected = attack(Mixture([network]), images, labels)
    torch.testing.assert_close(attack(Mixture([model.train()]), images, labels), expected)
    assert model.training


@pytest.mark.parametrize("layer", [torch.nn.Dropout(), torch.nn.BatchNorm1d(64)])
def test_programs_exported_in_train_mode_are_refused(images, tmp_path, layer):
    network = torch.nn.Sequential(torch.nn.Flatten(), layer)
    path = export(network.train(), tmp_path / "model.pt2", images)
    with pytest.raises(MixsolveError, match=r"exported in train mode .* after model\.eval\(\)"):
        load_model(path)
    load_model(export(network.eval(), tmp_path / "model.pt2", images))


def test_a_program_of_two_inputs_is_refused(images, tmp_path):
    class Two(torch.nn.Module):
        def forward(self, x, y):
            return (x + y).flatten(1)

    torch.export.save(torch.export.export(Two(), (images, images)), tmp_path / "two.pt2")
    with pytest.raises(MixsolveError, match=r"one tensor of images .* it takes 2 inputs"):
        load_model(tmp_path / "two.pt2")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def with_part(path, name, content, out):
    """Copy an archive, with one part replaced or added."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        folder = old.namelist()[0].partition("/")[0]
        for member in old.namelist():
            if member != f"{folder}/{name}":
                new.writestr(member, old.read(member))
        new.writestr(f"{folder}/{name}", content)
    return out


def sample_inputs(path):
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    return next((name for name in names if "sample_inputs" in name), None)


def test_pickles_inside_programs_are_refused_unread(network, images, tmp_path):
    path = export(network, tmp_path / "model.pt2", images)
    place = sample_inputs(path)
    if place is None:
        pytest.skip("this PyTorch writes another archive")
    torch.save(Bomb(tmp_path / "exploded"), tmp_path / "bomb.pt")
    bomb = (tmp_path / "bomb.pt").read_bytes()
    with pytest.raises(MixsolveError, match=rf"a pickled object in {place}"):
        load_model(with_part(path, place, bomb, tmp_path / "a.pt2"))
    with pytest.raises(MixsolveError, match=r"holds data/constants/opaque_obj_0, .* may run code"):
        load_model(with_part(path, "data/constants/opaque_obj_0", bomb, tmp_path / "b.pt2"))
    config = {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}
    told = with_part(
        path, "data/weights/model_weights_config.json", json.dumps(config), tmp_path / "c.pt2"
    )
    with pytest.raises(MixsolveError, match="a pickled object in data/weights/weight_0"):
        load_model(with_part(told, "data/weights/weight_0", bomb, tmp_path / "d.pt2"))
    assert not (tmp_path / "exploded").exists()


def test_pickled_models_are_refused_unread(network, tmp_path):
    torch.save(network, tmp_path / "model.pt")
    torch.save({"model": Bomb(tmp_path / "exploded")}, tmp_path / "bomb.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    for name in ("model.pt", "bomb.pt", "plain.pkl"):
        for spec in (f"{tmp_path / name}", f"mixsolve_torch:digits_cnn={tmp_path / name}"):
            with pytest.raises(
                MixsolveError, match=r"to load one is to run the code it names.*jit"
            ):
                load_model(spec)
    assert not (tmp_path / "exploded").exists()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory with a module of models, and weights that fit one of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models_of_mine.py").write_text(MODULE)
    layer = torch.nn.utils.skip_init(torch.nn.Linear, 64, 3)
    torch.nn.init.constant_(layer.weight, 0.5)
    torch.nn.init.constant_(layer.bias, 2.0)
    state = {"1.weight": layer.weight, "1.bias": layer.bias}
    torch.save(state, "weights.pt")
    torch.save({"state_dict": state, "epoch": 3}, "checkpoint.pt")
    torch.save(state["1.bias"], "tensor.pt")
    torch.save({"1.weight": state["1.weight"]}, "part.pt")
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    yield tmp_path
    sys.modules.pop("models_of_mine", None)


@pytest.mark.parametrize("file", ["weights.pt", "checkpoint.pt"])
def test_state_dicts_are_put_into_the_function_s_network(here, images, file):
    before = list(sys.path)
    model = load_model(f"models_of_mine:build={file}")
    assert sys.path == before
    assert not model.training
    expected = (0.5 * images.flatten(1).sum(dim=1) + 2)[:, None].expand(-1, 3)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("none.pt", "none.pt does not exist; give a TorchScript archive"),
        ("broken.pt", "broken.pt is broken or holds a pickled object"),
        ("weights.pt", r"2 entries .* no network .* module:function=weights.pt"),
        ("models_of_mine:build=none.pt", "the weights none.pt do not exist"),
        ("models_of_mine:build=tensor.pt", "must hold a state dict, .* got a Parameter"),
        ("models_of_mine:build=part.pt", r"do not fit .* Missing key\(s\) .*1\.bias"),
        ("models_of_mine:nobody=weights.pt", "has no function 'nobody'"),
        ("models_of_nobody:build=weights.pt", "cannot be imported: No module named"),
        ("models_of_mine:needs=weights.pt", "when called without arguments: .* 'width'"),
        ("models_of_mine:no_network=weights.pt", "must return a torch.nn.Module; got int"),
        (".", "the model . is a directory"),
    ],
)
def test_what_cannot_be_loaded_says_why(here, spec, message):
    with pytest.raises(MixsolveError, match=message):
        load_model(spec)


def test_broken_archives_say_so(network, images, tmp_path):
    torch.jit.save(torch.jit.trace(network, images), tmp_path / "model.pt")
    broken = with_part(tmp_path / "model.pt", "constants.pkl", b"x", tmp_path / "broken.pt")
    with pytest.raises(MixsolveError, match="no readable TorchScript archive"):
        load_model(broken)
    path = export(network, tmp_path / "model.pt2", images)
    broken = with_part(path, "models/model.json", "{}", tmp_path / "broken.pt2")
    with pytest.raises(MixsolveError, match="no exported program that this PyTorch"):
        load_model(broken)
