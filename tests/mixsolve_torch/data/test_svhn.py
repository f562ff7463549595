"""SVHN: torchvision's own code reads small files of the published format."""

import hashlib

import numpy as np
import pytest
import scipy.io
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch import load_data
from mixsolve_torch.data.datasets import splits


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """Write a small SVHN; return its class, its folder, its images NCHW and its digits by split."""
    source = pytest.importorskip("torchvision.datasets").SVHN
    rng = np.random.default_rng(0)
    content, listed = {}, {}
    for split, (url, file, _) in source.split_list.items():
        images = rng.integers(0, 256, (11, 3, 32, 32), dtype=np.uint8)
        labels = np.arange(11) % 10
        scipy.io.savemat(
            tmp_path / file,
            {
                "X": images.transpose(2, 3, 1, 0),  # as the file holds them: (H, W, C, N)
                "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8),
            },
        )
        # md5 because that is what torchvision compares the files by.
        md5 = hashlib.md5((tmp_path / file).read_bytes(), usedforsecurity=False).hexdigest()
        listed[split] = [url, file, md5]
        content[split] = images, labels
    monkeypatch.setattr(source, "split_list", listed)
    return source, tmp_path, content


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_bytes_nchw_and_the_digit_0_is_class_0(svhn, split):
    _, root, content = svhn
    images, labels = content[split]
    data = load_data("svhn", data_dir=root, split=split)
    assert data.images.is_contiguous()
    assert data.images.dtype == torch.uint8
    np.testing.assert_array_equal(data.images.numpy(), images)
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == labels.tolist()
    assert data.classes == 10
    assert splits("svhn") == ("train", "test")
    assert len(load_data("svhn", data_dir=root, limit=4).labels) == 4


def test_files_that_are_missing_or_corrupt_are_named(svhn):
    _, root, _ = svhn
    with pytest.raises(
        MixsolveError, match=r"data_dir \(--data-dir, data\.dir\) must name .* holds svhn"
    ):
        load_data("svhn")
    with pytest.raises(MixsolveError, match=r"elsewhere lacks test_32x32\.mat; download it with"):
        load_data("svhn", data_dir=root / "elsewhere")
    (root / "test_32x32.mat").write_bytes(b"x")
    with pytest.raises(MixsolveError, match=r"checksum of test_32x32\.mat .* delete the file and"):
        load_data("svhn", data_dir=root)
    assert len(load_data("svhn", data_dir=root, split="train").labels) == 11


def test_a_failed_download_says_what_to_do(svhn, monkeypatch):
    source, root, _ = svhn

    def fail(self):
        raise OSError("no route to host")

    monkeypatch.setattr(source, "download", fail)
    with pytest.raises(MixsolveError, match=r"no route to host; download http\S+test_32x32\.mat"):
        load_data("svhn", data_dir=root / "new", download=True)
