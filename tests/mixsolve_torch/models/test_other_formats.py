"""ONNX files and architectures of timm by name."""

import sys
import types

import pytest
import torch

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve_torch import BlackBox, Mixture, UniformSampling, build_losses, digits_cnn, load_model
from mixsolve_torch.runs.fingerprint import describe


@pytest.fixture(scope="module")
def net():
    return digits_cnn(seed=0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(20210718))


@pytest.fixture(scope="module")
def saved(net, images, tmp_path_factory):
    """The network in an ONNX file."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    count = {0: torch.export.Dim("count", min=1, max=1024)}
    torch.onnx.export(net, (images,), path, dynamo=True, dynamic_shapes=(count,), verbose=False)
    return path


def test_an_onnx_file_is_a_black_box(net, images, saved, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = load_model(saved)
    assert isinstance(model, BlackBox)
    torch.testing.assert_close(model(images), net(images), rtol=1e-4, atol=1e-4)
    y = net(images).argmax(dim=1)
    losses = build_losses(Mixture([model]), (images, y), UniformSampling("Linf", 0.1, draws=2))
    assert losses.standard_risk([1.0]) == 0
    program = onnx.load(saved)
    tensor = max(program.graph.initializer, key=lambda each: len(each.raw_data))
    changed = torch.frombuffer(bytearray(tensor.raw_data), dtype=torch.float32) + 1
    tensor.raw_data = changed.numpy().tobytes()
    onnx.save(program, tmp_path / "net.onnx")
    assert describe(model) != describe(load_model(tmp_path / "net.onnx"))


def test_wrong_onnx_files_are_refused(net, images, tmp_path, monkeypatch):
    (tmp_path / "text.onnx").write_text("text")
    pytest.importorskip("onnxruntime")
    with pytest.raises(MixsolveError, match="is no ONNX file that can be run"):
        load_model(tmp_path / "text.onnx")
    with pytest.raises(MixsolveError, match="does not exist"):
        load_model(tmp_path / "none.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime"):
        load_model(tmp_path / "text.onnx")


@pytest.mark.parametrize("place", ["weights", "../weights"])
def test_an_onnx_file_reads_weights_beside_it_alone(place, net, images, saved, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "own" / "net.onnx"
    path.parent.mkdir()
    program = onnx.load(saved)
    tensor = max(program.graph.initializer, key=lambda each: len(each.raw_data))
    (path.parent / place).write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, place, 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    path.write_bytes(program.SerializeToString())
    if place == "weights":
        torch.testing.assert_close(load_model(path)(images), net(images), rtol=1e-4, atol=1e-4)
        return
    with pytest.raises(MixsolveError, match="is no ONNX file that can be run"):
        load_model(path)


@pytest.fixture
def timm(monkeypatch):
    """A module that builds one architecture, as timm does."""

    def create_model(name, pretrained, num_classes=1000, in_chans=3):
        if name != "small.a_b":
            raise RuntimeError(f"Unknown model ({name})")
        assert not pretrained
        first, head = torch.nn.Conv2d(in_chans, 4, 3), torch.nn.Linear(4, num_classes)
        model = torch.nn.Sequential(first, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
        model.default_cfg = {"first_conv": "0", "classifier": "3"}
        return model

    module = types.ModuleType("timm")
    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_architectures_of_timm_by_name(timm, images, tmp_path):
    with torch.random.fork_rng():
        net = timm.create_model("small.a_b", False, num_classes=10, in_chans=1).eval()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pt")
    model = load_model(f"timm:small.a_b={tmp_path / 'net.pt'}")
    assert not model.training
    assert torch.equal(model(images), net(images))
    with pytest.raises(MixsolveError, match=r"timm cannot build 'typo': Unknown model"):
        load_model(f"timm:typo={tmp_path / 'net.pt'}")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(MixsolveError, match=r"do not fit the network of timm:small.a_b"):
        load_model(f"timm:small.a_b={tmp_path / 'other.pt'}")


def test_timm_is_missing(monkeypatch, net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "net.pt")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="pip install timm"):
        load_model(f"timm:resnet18={tmp_path / 'net.pt'}")
