"""Data in memory: the digits, CIFAR through torchvision on a small copy, files of one's own."""

import hashlib
import pickle
import sys

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve_torch import digits, load_data, to_unit
from mixsolve_torch.data.arrays import count_shared
from mixsolve_torch.data.datasets import splits


def test_digits_are_those_of_digits():
    parts = digits()
    for split, part in (("test", parts.test), ("train", parts.train)):
        data = load_data("digits", split=split)
        assert torch.equal(data.images, part.images)
        assert torch.equal(data.labels, part.labels)
        assert data.classes == 10
    assert torch.equal(load_data("digits", limit=7).images, parts.test.images[:7])


def test_bytes_become_floats_and_floats_stay():
    images = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_unit(images), torch.arange(256) / 255)
    assert to_unit(images, torch.float64).dtype == torch.float64
    floats = torch.rand(3, generator=torch.Generator().manual_seed(0))
    assert to_unit(floats) is floats


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": "imagenet"}, r"must be 'digits', .* got 'imagenet'"),
        ({"name_or_path": "digits", "split": "validation"}, "split must be 'test' or 'train'"),
        ({"name_or_path": "digits", "limit": 0}, "limit must be an integer >= 1"),
        (
            {"name_or_path": "cifar10"},
            r"data_dir \(--data-dir, data\.dir\) must name the directory",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    pytest.importorskip("torchvision")
    with pytest.raises(MixsolveError, match=message):
        load_data(**arguments)


# CIFAR: torchvision's own code reads a small set of files of the published format.

_PER_FILE = 4


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    """Write a small CIFAR; return its name, its images NCHW and its labels by split."""
    datasets = pytest.importorskip("torchvision.datasets")
    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[request.param]
    classes = int(request.param.removeprefix("cifar"))
    folder = tmp_path / source.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    content = {"train": ([], []), "test": ([], [])}

    def write(name, entry):
        (folder / name).write_bytes(pickle.dumps(entry))
        # md5 because that is what torchvision compares the files by.
        return hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()

    for split, attribute in (("train", "train_list"), ("test", "test_list")):
        sums = []
        for name, _ in getattr(source, attribute):
            images = rng.integers(0, 256, (_PER_FILE, 3072), dtype=np.uint8)
            labels = rng.integers(0, classes, _PER_FILE).tolist()
            key = "labels" if classes == 10 else "fine_labels"
            sums.append([name, write(name, {"data": images, key: labels})])
            content[split][0].append(images.reshape(-1, 3, 32, 32))
            content[split][1].extend(labels)
        monkeypatch.setattr(source, attribute, sums)
    names = {source.meta["key"]: [str(c) for c in range(classes)]}
    md5 = write(source.meta["filename"], names)
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5})
    return request.param, source, tmp_path, content


@pytest.mark.parametrize("split", ["test", "train"])
def test_cifar_comes_as_bytes_nchw(cifar, split):
    name, _, root, content = cifar
    data = load_data(name, data_dir=root, split=split)
    images, labels = content[split]
    assert data.images.dtype == torch.uint8
    assert data.images.is_contiguous()
    np.testing.assert_array_equal(data.images.numpy(), np.concatenate(images))
    assert data.labels.tolist() == labels
    assert data.labels.dtype == torch.int64
    assert data.classes == int(name.removeprefix("cifar"))
    assert len(load_data(name, data_dir=root, split=split, limit=3).labels) == 3


def test_cifar_that_is_missing_says_where_it_should_be(cifar):
    name, source, root, _ = cifar
    with pytest.raises(MixsolveError, match=rf"{source.base_folder} does not exist; download it"):
        load_data(name, data_dir=root / "elsewhere")


def test_cifar_with_a_file_missing_names_it(cifar):
    name, source, root, _ = cifar
    file = source.test_list[0][0]
    (root / source.base_folder / file).unlink()
    with pytest.raises(MixsolveError, match=rf"is incomplete: .* lacks {file}; download it"):
        load_data(name, data_dir=root)


@pytest.mark.parametrize("part", ["test_list", "meta"])
def test_corrupt_cifar_is_never_unpickled(cifar, part):
    name, source, root, _ = cifar
    file = source.meta["filename"] if part == "meta" else source.test_list[0][0]
    (root / source.base_folder / file).write_bytes(_Bomb.pickled(root / "exploded"))
    with pytest.raises(MixsolveError, match=rf"is corrupt: the checksum of {file} .* delete"):
        load_data(name, data_dir=root)
    assert not (root / "exploded").exists()


class _Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))

    @classmethod
    def pickled(cls, path):
        return pickle.dumps(cls(path))


def test_a_failed_download_says_what_to_do(cifar, monkeypatch):
    name, source, root, _ = cifar

    def fail(self):
        raise OSError("no route to host")

    monkeypatch.setattr(source, "download", fail)
    with pytest.raises(MixsolveError, match=r"no route to host; download http.* elsewhere"):
        load_data(name, data_dir=root / "new", download=True)


def test_without_torchvision_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mixsolve\[torch\]'"):
        load_data("cifar10", data_dir=tmp_path)


# Files of one's own.


@pytest.fixture
def save(tmp_path):
    """Return a function that saves arrays in a .npz file and returns its path."""

    def write(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return write


_RNG = np.random.default_rng(1)
_BYTES = _RNG.integers(0, 256, (5, 6, 7), dtype=np.uint8)
_LABELS = np.array([0, 3, 1, 2, 0])


@pytest.mark.parametrize(
    ("images", "layout", "expected"),
    [
        (_BYTES, None, _BYTES[:, None]),
        (_BYTES[:, None], None, _BYTES[:, None]),
        (_BYTES[..., None], None, _BYTES[:, None]),
        (np.stack([_BYTES] * 3, axis=-1), None, np.stack([_BYTES] * 3, axis=1)),
        (_BYTES[:, :3, :3, None], "NHWC", _BYTES[:, None, :3, :3]),
        (np.stack([_BYTES] * 12, axis=1), "NCHW", np.stack([_BYTES] * 12, axis=1)),
    ],
)
def test_layouts_of_files(save, images, layout, expected):
    extra = {} if layout is None else {"layout": layout}
    data = load_data(save(images=images, labels=_LABELS, **extra))
    np.testing.assert_array_equal(data.images.numpy(), expected)
    assert data.images.is_contiguous()
    assert data.labels.tolist() == _LABELS.tolist()
    assert data.classes == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_files_come_as_float32(save, dtype):
    images = (_BYTES / 255).astype(dtype)
    data = load_data(str(save(images=images, labels=_LABELS)), limit=4)
    assert data.images.dtype == torch.float32
    np.testing.assert_allclose(data.images[:, 0].numpy(), images[:4], atol=1e-7)
    assert len(data.labels) == 4
    assert data.classes == 4


def test_a_file_may_tell_its_classes(save):
    assert load_data(save(images=_BYTES, labels=_LABELS, classes=10)).classes == 10
    with pytest.raises(MixsolveError, match="classes must exceed the largest label; got 3 and 3"):
        load_data(save(images=_BYTES, labels=_LABELS, classes=3))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": _BYTES}, "must hold the arrays 'images' and 'labels'; its arrays are: images"),
        ({"images": _BYTES[0, 0], "labels": _LABELS}, r"must have shape .* got \(7,\)"),
        (
            {"images": np.zeros((5, 3, 8, 3)), "labels": _LABELS},
            r"both axis 1 and axis 3 could hold .* layout='NCHW'",
        ),
        ({"images": np.zeros((5, 8, 8, 8)), "labels": _LABELS}, "neither axis 1 nor axis 3"),
        (
            {"images": np.zeros((5, 3, 8, 3)), "labels": _LABELS, "layout": "CHWN"},
            "layout must be 'NCHW' or 'NHWC'; got 'CHWN'",
        ),
        ({"images": _BYTES % 2, "labels": _LABELS}, "the largest pixel is 1: if 1 is white"),
        ({"images": _BYTES.astype(int), "labels": _LABELS}, r"got int64; .*astype\(np.uint8\)"),
        (
            {"images": _BYTES.astype(float), "labels": _LABELS},
            r"must lie in \[0, 1\]; got .* index",
        ),
        ({"images": np.full((5, 6, 7), np.nan), "labels": _LABELS}, r"got nan at index \(0, 0, 0,"),
        ({"images": _BYTES, "labels": _LABELS[:3]}, r"labels must be integers of shape \(5,\)"),
        ({"images": _BYTES, "labels": np.eye(5)}, "argmax"),
        ({"images": _BYTES, "labels": _LABELS - 1}, "count from 0 on; got -1"),
        ({"images": np.array([None]), "labels": _LABELS}, "not a readable"),
    ],
)
def test_files_that_cannot_be_told_are_refused(save, arrays, message):
    with pytest.raises(MixsolveError, match=message):
        load_data(save(**arrays))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MixsolveError, match=r"none\.npz does not exist"):
        load_data(tmp_path / "none.npz")


# Files in two parts.


_PARTS = {
    "train_images": _BYTES,
    "train_labels": _LABELS,
    "test_images": 255 - _BYTES[:2],
    "test_labels": np.array([5, 0]),
}


def test_the_parts_of_a_file_are_told_apart(save):
    path = save(**_PARTS, val_images=_BYTES)
    assert splits(path) == splits("digits") == ("train", "test")
    for split in ("train", "test"):
        data = load_data(path, split=split)
        np.testing.assert_array_equal(data.images[:, 0].numpy(), _PARTS[f"{split}_images"])
        assert data.labels.tolist() == _PARTS[f"{split}_labels"].tolist()
        assert data.classes == 6  # those of both parts
    assert torch.equal(load_data(path).images, load_data(path, split="test").images)
    assert splits(save(images=_BYTES, labels=_LABELS)) == ()
    assert splits(save(**{name: _PARTS[name] for name in list(_PARTS)[:2]})) == ("train",)
    with pytest.raises(MixsolveError, match="must be 'digits'"):
        splits("imagenet")


def without(*names, **more):
    return {name: array for name, array in _PARTS.items() if name not in names} | more


@pytest.mark.parametrize(
    ("arrays", "split", "message"),
    [
        (
            {"images": _BYTES, "labels": _LABELS},
            "train",
            "is one set of images, without a train part: leave split out .*train_images=",
        ),
        ({"images": _BYTES, "labels": _LABELS}, "test", "without a test part: leave split out"),
        (without("test_images", "test_labels"), "test", "has no test part: .* of split='train'"),
        (without("test_images", "test_labels"), None, "has no test part: .* of split='train'"),
        (without("train_images", "train_labels"), "train", "has no train part"),
        (without("test_labels"), "train", "must hold the arrays 'test_images' and 'test_labels'"),
        (without(images=_BYTES), "test", "holds 'train_images' and 'images' too"),
        (without(test_labels=_LABELS), "test", r"test_labels must be integers of shape \(2,\)"),
        (without(test_labels=_LABELS), "train", r"test_labels must be integers of shape \(2,\)"),
        (without(test_labels=np.array([0, -1])), "test", "test_labels must count from 0"),
        (without(classes=5), "train", "classes must exceed the largest label; got 5 and 5"),
    ],
)
def test_parts_that_are_not_there_or_doubtful_are_refused(save, arrays, split, message):
    with pytest.raises(MixsolveError, match=message):
        load_data(save(**arrays), split=split)


def test_images_that_two_sets_share_are_counted():
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert count_shared(images[:4], images[3:]) == 1
    assert count_shared(images, images.flip(0)) == 6
    assert count_shared(images.mul(255).byte(), images[:3].mul(255).byte() + 1) == 0
