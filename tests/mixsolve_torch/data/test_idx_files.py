"""MNIST and Fashion-MNIST from small IDX files, raw and packed, whole and broken."""

import gzip
import sys

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve_torch import load_data
from mixsolve_torch.data import idx_files
from mixsolve_torch.data.datasets import splits

_RNG = np.random.default_rng(0)
_IMAGES = {
    "train": _RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8),
    "test": _RNG.integers(0, 256, (7, 28, 28), dtype=np.uint8),
}
_LABELS = {part: np.arange(len(images), dtype=np.uint8) % 10 for part, images in _IMAGES.items()}
_STEM = {"train": "train", "test": "t10k"}


def encoded(array):
    """The bytes of an IDX file, written from the description of the format."""
    header = bytes([0, 0, 8, array.ndim])
    return header + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write(folder, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for part in _IMAGES:
        for array, kind in ((_IMAGES[part], "images-idx3"), (_LABELS[part], "labels-idx1")):
            path = folder / f"{_STEM[part]}-{kind}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(encoded(array)))
            else:
                path.write_bytes(encoded(array))
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "."),
        ("fashion-mnist", "."),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
    ],
)
def test_files_are_found_in_a_folder_and_where_torchvision_keeps_them(
    tmp_path, name, place, packed
):
    write(tmp_path / place, packed)
    assert splits(name) == ("train", "test")
    for part, images in _IMAGES.items():
        data = load_data(name, data_dir=tmp_path, split=part)
        assert data.images.dtype == torch.uint8
        np.testing.assert_array_equal(data.images.numpy(), images[:, None])
        assert data.labels.dtype == torch.int64
        assert data.labels.tolist() == _LABELS[part].tolist()
        assert data.classes == 10
    first = load_data(name, data_dir=str(tmp_path), limit=3)
    np.testing.assert_array_equal(first.images[:, 0].numpy(), _IMAGES["test"][:3])


def test_the_files_are_those_that_torchvision_reads(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    write(tmp_path / "MNIST" / "raw")
    theirs = datasets.MNIST(tmp_path, train=True)
    ours = load_data("mnist", data_dir=tmp_path, split="train")
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)


def test_fashion_mnist_is_found_where_debian_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(idx_files, "_INSTALLED", {"fashion-mnist": tmp_path / "installed"})
    with pytest.raises(
        MixsolveError, match=r"data_dir \(--data-dir, data\.dir\) .*dataset-fashion-mnist"
    ):
        load_data("fashion-mnist")
    write(tmp_path / "installed", packed=True)
    assert load_data("fashion-mnist").labels.tolist() == _LABELS["test"].tolist()
    assert load_data("fashion-mnist", download=True).labels.tolist() == _LABELS["test"].tolist()
    with pytest.raises(
        MixsolveError, match=r"data_dir \(--data-dir, data\.dir\) must name .* got none; get"
    ):
        load_data("mnist")


_INSTALLED = idx_files._INSTALLED["fashion-mnist"]


@pytest.mark.skipif(not _INSTALLED.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_installed_fashion_mnist_is_the_published_one():
    train, test = load_data("fashion-mnist", split="train"), load_data("fashion-mnist")
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    for data, each in ((train, 6000), (test, 1000)):
        assert torch.bincount(data.labels).tolist() == [each] * 10
    pixels = train.images.double() / 255
    assert float(pixels.mean()) == pytest.approx(0.2860, abs=5e-5)
    assert float(pixels.std()) == pytest.approx(0.3530, abs=5e-5)


# What is wrong is named, with the file and what to do.

_LABELS_FILE = "t10k-labels-idx1-ubyte"
_IMAGES_FILE = "t10k-images-idx3-ubyte"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (_IMAGES_FILE, encoded(_LABELS["test"]), r"begins with 00 00 08 03; got 00 00 08 01"),
        (_LABELS_FILE, encoded(_IMAGES["test"]), r"begins with 00 00 08 01; got 00 00 08 03"),
        (_IMAGES_FILE, b"<html>", r"must be an IDX file of bytes with 3 axes"),
        (_IMAGES_FILE, b"", r"got an empty file; replace it"),
        (_IMAGES_FILE, encoded(_IMAGES["test"])[:10], r"is cut off within its header; replace"),
        (
            _IMAGES_FILE,
            encoded(_IMAGES["test"])[:-5],
            r"is cut off: its header announces 5488 entries, \(7, 28, 28\), and 5483 follow",
        ),
        (_IMAGES_FILE, encoded(_IMAGES["test"]) + b"x", r"is too long: .* 5489 follow; replace it"),
        (_IMAGES_FILE, encoded(_IMAGES["test"][:0]), r"at least one entry; got shape \(0, 28, 28"),
        (
            _LABELS_FILE,
            encoded(_LABELS["test"][:5]),
            r"holds 5 labels and .*images-idx3-ubyte\S* 7 images: .* replace both",
        ),
        (
            _LABELS_FILE,
            encoded(_LABELS["test"] * 2),
            r"must hold labels from 0 to 9; got 12 at index 6: this is no file of mnist",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path, packed, file, content, message):
    write(tmp_path, packed)
    path = tmp_path / (f"{file}.gz" if packed else file)
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(MixsolveError, match=rf"{path.name} .*{message}"):
        load_data("mnist", data_dir=tmp_path)
    assert len(load_data("mnist", data_dir=tmp_path, split="train").labels) == 12


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[:40] + b"\0" * 9 + b[49:]])
def test_damaged_packed_files_are_refused(tmp_path, damage):
    path = write(tmp_path, packed=True) / f"{_IMAGES_FILE}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MixsolveError, match=rf"{path.name} could not be read .* replace it"):
        load_data("fashion-mnist", data_dir=tmp_path)


def test_a_packed_file_without_its_ending_is_read(tmp_path):
    path = write(tmp_path) / _IMAGES_FILE
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert len(load_data("mnist", data_dir=tmp_path).images) == 7


def test_missing_files_are_named(tmp_path):
    with pytest.raises(
        MixsolveError, match=r"none is in \S+raw, \S+, \S+; get it with apt install"
    ):
        load_data("fashion-mnist", data_dir=tmp_path)
    (write(tmp_path) / _LABELS_FILE).unlink()
    with pytest.raises(MixsolveError, match=rf"{tmp_path} has neither {_LABELS_FILE} nor .*\.gz"):
        load_data("mnist", data_dir=tmp_path)


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")

    def fail(self):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.FashionMNIST, "download", fail)
    with pytest.raises(MixsolveError, match=r"no route to host; download train-images.* put them"):
        load_data("fashion-mnist", data_dir=tmp_path, download=True)
    write(tmp_path)  # what is there is not downloaded
    assert len(load_data("fashion-mnist", data_dir=tmp_path, download=True).images) == 7


def test_files_are_read_without_torchvision_and_only_a_download_needs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mixsolve\[torch\]'"):
        load_data("mnist", data_dir=tmp_path, download=True)
    write(tmp_path)
    assert len(load_data("mnist", data_dir=tmp_path).images) == 7
