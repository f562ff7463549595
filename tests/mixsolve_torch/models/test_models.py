"""Classifiers by name: shapes, sizes and normalisation are the published ones, seeds decide all."""

import sys

import pytest
import torch
from torch import nn

from mixsolve.base.errors import MissingDependencyError, MixsolveError, MixsolveTypeError
from mixsolve.commands.main import main
from mixsolve_torch.models.architectures import (
    Normalize,
    build_model,
    digits_cnn,
    mnist_cnn,
    resnet18,
    wide_resnet28_10,
)


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def thin(**options):
    return wide_resnet28_10(**{"depth": 10, "width": 1, **options})


@pytest.fixture
def images(generator):
    return torch.rand(2, 3, 32, 32, generator=generator)


def test_sizes_are_the_published_ones():
    with torch.device("meta"):  # the sizes alone: nothing is drawn
        assert size(mnist_cnn()) == 166_406
        assert size(resnet18(classes=10)) == 11_173_962
        assert size(wide_resnet28_10(classes=10)) == 36_479_194
        assert size(wide_resnet28_10(classes=100)) == 36_536_884


@pytest.mark.parametrize("make", [resnet18, thin])
def test_small_images_keep_their_resolution_until_the_second_group(make, images):
    model = make(classes=7).eval()
    sizes = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    assert model(images).shape == (2, 7)
    groups = [32, 16, 8, 4] if make is resnet18 else [32, 16, 8]
    assert sorted(set(sizes), reverse=True) == groups
    assert sizes == sorted(sizes, reverse=True)


def test_a_wide_block_is_the_formula(images):
    first, second = [layer for layer in thin(depth=16).modules() if hasattr(layer, "shortcut")][:2]
    relu = nn.functional.relu
    x = first.conv1(torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(1)))
    inner = second.conv1(relu(second.norm1(x)))
    expected = x + second.conv2(relu(second.norm2(inner)))
    assert torch.allclose(second(x.clone()), expected)
    shaped = [layer for layer in thin().modules() if getattr(layer, "shortcut", None)]
    assert [layer.shortcut.kernel_size for layer in shaped] == [(1, 1), (1, 1)]
    layer = shaped[0]
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    inner = layer.norm1(x).relu()
    expected = layer.shortcut(inner) + layer.conv2(layer.norm2(layer.conv1(inner)).relu())
    assert torch.allclose(layer(x.clone()), expected)


@pytest.mark.parametrize("make", [resnet18, thin, digits_cnn, mnist_cnn])
def test_weights_depend_on_the_seed_alone(make):
    first, same, other = make(seed=1), make(seed=1), make(seed=2)
    drawn = 0
    for a, b, c in zip(first.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        drawn += not torch.equal(a, c)
    assert drawn >= 6


@pytest.mark.parametrize("make", [resnet18, thin])
def test_normalisation_is_that_of_the_data_set(make):
    for classes, mean in ((10, 0.4914), (100, 0.5071), (7, 0.4914)):
        layer = make(classes=classes)[0]
        assert isinstance(layer, Normalize)
        assert float(layer.mean[0]) == pytest.approx(mean)


def test_models_by_name(images):
    model = build_model("digits-cnn", classes=3, seed=4)
    for a, b in zip(model.parameters(), digits_cnn(seed=4, classes=3).parameters(), strict=True):
        assert torch.equal(a, b)
    assert build_model("mnist-cnn", classes=4)(images[:, :1, :28, :28]).shape == (2, 4)
    assert build_model("resnet18", classes=5).eval()(images).shape == (2, 5)
    with torch.device("meta"):
        assert size(build_model("wide-resnet-28-10")) == 36_479_194


OWN = """
import torch

def full(*, classes, seed):
    made = torch.nn.Linear(4, classes)
    made.seed = seed
    return made

def silent():
    return torch.nn.Linear(4, 2)

def open(**options):
    assert not options
    return torch.nn.Linear(4, 2)

def demanding(secret):
    return torch.nn.Linear(4, 2)

def none(classes):
    return classes

constant = 3
"""


def test_a_function_of_a_module(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    made = build_model("own_networks:full", classes=6, seed=9)
    assert (made.out_features, made.seed) == (6, 9)
    assert build_model("own_networks:open").out_features == 2
    silent = [build_model("own_networks:silent", seed=seed).weight for seed in (1, 1, 2)]
    assert torch.equal(silent[0], silent[1])
    assert not torch.equal(silent[0], silent[2])
    for name, message in (
        ("own_networks:absent", r"own_networks:absent: the module has no function 'absent'"),
        ("no_such_networks:full", r"the module cannot be imported.*no_such_networks"),
        ("own_networks:demanding", r"when called with classes=..., seed=..., or some.*secret"),
        ("own_networks:none", r"own_networks:none must return a torch.nn.Module; got int"),
        ("own_networks:constant", r"own_networks:constant must build the network"),
    ):
        with pytest.raises(MixsolveError, match=message):
            build_model(name)


HARMFUL = """
import functools, os, sys, torch

class Network(torch.nn.Linear):
    def __init__(self, classes):
        super().__init__(4, classes)

class Maker:
    def __call__(self, classes):
        return Network(classes)

made_by_an_object = Maker()
made_in_part = functools.partial(Network, classes=3)
stop = os.abort
text = "a text"

class Other:
    pass

def leaves():
    sys.exit(0)

def fails(classes):
    return int("of the builder itself")

def mistypes():
    return len(3)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A current directory with a module of builders, and one named like a part of Python."""
    names = ("harmful_networks", "nntplib")
    for name, text in zip(names, (HARMFUL, OWN), strict=True):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name",
    ["os:abort", "sys:exit", "os.path:join", "builtins:exit", "antigravity:geohash", "this:s"],
)
def test_what_is_part_of_python_is_neither_imported_nor_called(own, name):
    sys.modules.pop("antigravity", None)
    with pytest.raises(
        MixsolveError, match=rf"{name} must .* is part of Python, which builds none"
    ):
        build_model(name)
    assert not {"antigravity", "this"} & set(sys.modules)


def test_a_module_of_ones_own_may_be_named_like_one_of_python(own):
    if "nntplib" not in sys.stdlib_module_names:
        pytest.skip("this Python has no such module")
    assert build_model("nntplib:full", classes=5).out_features == 5


def test_only_what_builds_networks_is_called(own):
    for name in ("Network", "made_by_an_object", "made_in_part"):
        assert build_model(f"harmful_networks:{name}", classes=3).out_features == 3
    for name in ("stop", "text", "Other", "sys", "os"):
        with pytest.raises(MixsolveError, match=rf"{name} must build the network .* not called"):
            build_model(f"harmful_networks:{name}")


def test_what_goes_wrong_in_a_builder_keeps_its_traceback(own):
    for name, error in (("fails", ValueError), ("mistypes", TypeError)):
        with pytest.raises(error) as caught:
            build_model(f"harmful_networks:{name}")
        assert not isinstance(caught.value, MixsolveError)
        assert caught.traceback[-1].name == name
    with pytest.raises(MixsolveError, match=r"it ended the program \(SystemExit: 0\)"):
        build_model("harmful_networks:leaves")


@pytest.mark.parametrize("name", ["os:abort", "sys:exit", "harmful_networks:leaves"])
def test_a_configuration_that_names_other_code(own, tmp_path, capsys, name):
    pytest.importorskip("jsonargparse")
    (tmp_path / "run.toml").write_text(f'[model]\narchitecture = "{name}"\n')
    assert main(["train", "--config", "run.toml", "--run.out", "out"]) == 2
    assert f"{name} must" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        '[data]\nclass_path = "harmful_networks.Other"\n',
        'data = "harmful_networks.Other"\n',
        'run = {class_path = "harmful_networks.leaves", init_args = {}}\n',
    ],
)
def test_a_configuration_does_not_import_what_is_no_architecture(own, tmp_path, capsys, text):
    pytest.importorskip("jsonargparse")
    (tmp_path / "run.toml").write_text(text)
    sys.path.insert(0, str(tmp_path))
    try:
        assert main(["train", "--config", "run.toml", "--run.out", "out"]) == 2
    finally:
        sys.path.remove(str(tmp_path))
    assert "must be a table of settings" in capsys.readouterr().err
    assert "harmful_networks" not in sys.modules


def test_what_cannot_be_built():
    for call, message in (
        (lambda: build_model("resnet17"), r"'digits-cnn', 'mnist-cnn', .* got 'resnet17'"),
        (lambda: build_model("resnet18", classes=1), r"classes must be an integer >= 2, got 1"),
        (lambda: build_model("resnet18", seed=-1), r"seed must be an integer >= 0"),
        (lambda: wide_resnet28_10(depth=27), r"depth must be 6 n \+ 4.*got 27"),
        (lambda: wide_resnet28_10(width=0), r"width must be an integer >= 1"),
    ):
        with pytest.raises(MixsolveError, match=message):
            call()
    with pytest.raises(MixsolveTypeError, match="architecture must be a string; got ReLU"):
        build_model(nn.ReLU())


def test_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mixsolve\[torch\]'"):
        resnet18(classes=10)
