"""Trees of image files: classes and parts by their folders, sizes, grey and coloured pictures."""

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve_torch import load_data
from mixsolve_torch.data.datasets import splits

Image = pytest.importorskip("PIL.Image")

_RNG = np.random.default_rng(0)


def picture(shape, path):
    """Save random pixels; return them as (C, H, W)."""
    entries = _RNG.integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(entries).save(path)
    return entries[None] if entries.ndim == 2 else entries.transpose(2, 0, 1)


def write(root, classes=("bee", "ant"), each=3, shape=(6, 8, 3)):
    """Write a set of images; return them in the order of classes, then of names."""
    made = {
        (name, k): picture(shape, root / name / f"{k}.png") for name in classes for k in range(each)
    }
    return np.stack([made[key] for key in sorted(made)])


def test_a_tree_of_one_set_is_read_in_the_order_of_names(tmp_path):
    expected = write(tmp_path)
    data = load_data(tmp_path)
    assert data.images.dtype == torch.uint8
    assert data.images.is_contiguous()
    np.testing.assert_array_equal(data.images.numpy(), expected)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.classes == 2
    assert splits(str(tmp_path)) == ()


def test_the_images_are_those_of_torchvision(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    write(tmp_path, classes=("b", "c", "a"))
    (tmp_path / "c" / "inner").mkdir()
    picture((6, 8, 3), tmp_path / "c" / "inner" / "deep.PNG")
    theirs, ours = datasets.ImageFolder(tmp_path), load_data(tmp_path)
    assert [label for _, label in theirs] == ours.labels.tolist()
    for (image, _), read in zip(theirs, ours.images, strict=True):
        np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), read.numpy())


@pytest.mark.parametrize("test", ["test", "val"])
def test_parts_are_folders(tmp_path, test):
    expected = {"train": write(tmp_path / "train"), "test": write(tmp_path / test, each=2)}
    assert splits(tmp_path) == ("train", "test")
    for part, images in expected.items():
        np.testing.assert_array_equal(load_data(tmp_path, split=part).images.numpy(), images)
    np.testing.assert_array_equal(load_data(tmp_path).images.numpy(), expected["test"])


def test_test_comes_before_val(tmp_path):
    for part in ("train", "val"):
        write(tmp_path / part)
    np.testing.assert_array_equal(write(tmp_path / "test"), load_data(tmp_path).images.numpy())


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, classes=("train", "bus"))
    assert splits(tmp_path) == ()
    assert load_data(tmp_path).labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_classes_are_numbered_by_the_training_part(tmp_path):
    write(tmp_path / "train", classes=("a", "b", "c"))
    write(tmp_path / "test", classes=("c", "a"), each=1)
    data = load_data(tmp_path, split="test")
    assert data.labels.tolist() == [0, 2]
    assert data.classes == 3


def test_a_limit_takes_one_of_each_class_in_turn(tmp_path):
    images = write(tmp_path, classes=("a", "b", "c"), each=4)
    data = load_data(tmp_path, limit=5)
    assert data.labels.tolist() == [0, 0, 1, 1, 2]
    np.testing.assert_array_equal(data.images.numpy(), images[[0, 1, 4, 5, 8]])
    assert data.classes == 3
    assert len(load_data(tmp_path, limit=100).labels) == 12


def test_grey_pictures_have_one_channel_and_three_among_coloured_ones(tmp_path):
    np.testing.assert_array_equal(
        write(tmp_path / "grey", shape=(5, 4)), load_data(tmp_path / "grey").images.numpy()
    )
    write(tmp_path / "mixed")
    grey = picture((6, 8), tmp_path / "mixed" / "bee" / "9.png")
    assert np.array_equal(load_data(tmp_path / "mixed").images[-1].numpy(), np.repeat(grey, 3, 0))
    picture((6, 8), tmp_path / "mixed" / "ant" / "0.png")
    with pytest.raises(MixsolveError, match=r"1\.png has colours, \S+0\.png is grey; save the gr"):
        load_data(tmp_path / "mixed")


def test_sizes_must_agree_or_be_given(tmp_path):
    write(tmp_path)
    picture((10, 20, 3), tmp_path / "bee" / "9.png")
    with pytest.raises(
        MixsolveError,
        match=r"9\.png has 10 x 20 pixels \(height x width\), \S+0\.png 6 x 8; .*size=N \(--size N",
    ):
        load_data(tmp_path)
    assert load_data(tmp_path, size=5).images.shape == (7, 3, 5, 5)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_resizing_cuts_the_middle_out(tmp_path, shape):
    entries = np.full(shape, 255, dtype=np.uint8)
    middle = (slice(None), slice(6, 14)) if shape[1] == 20 else (slice(6, 14), slice(None))
    entries[middle] = 77  # the square of 8 x 8 in the middle
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(entries).save(tmp_path / name / "0.png")
    assert load_data(tmp_path, size=8).images.unique().tolist() == [77]
    for size in (4, 16):  # at the edge of the square, pixels beside it are mixed in
        images = load_data(tmp_path, size=size).images
        assert images.shape[2:] == (size, size)
        assert images[..., 1:-1, 1:-1].unique().tolist() == [77]


def test_resizing_to_half_is_near_the_means_of_blocks(tmp_path):
    ramp = np.add.outer(np.arange(16), 2 * np.arange(16)).astype(np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(ramp).save(tmp_path / name / "0.png")
    small = load_data(tmp_path, size=8).images[0, 0].double().numpy()
    means = ramp.reshape(8, 2, 8, 2).mean(axis=(1, 3))
    assert np.abs(small - means)[1:-1, 1:-1].max() <= 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bee/9.png", b"no picture", r"9\.png cannot be read as an image: .*; replace it or"),
        ("bee/9.jpg", b"", r"9\.jpg cannot be read as an image"),
        ("cat/notes.txt", b"x", r"cat must hold images of the class 'cat' .* it has none"),
    ],
)
def test_files_that_are_no_images_are_named(tmp_path, name, content, message):
    write(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MixsolveError, match=message):
        load_data(tmp_path)


def test_a_picture_that_is_cut_off_is_named(tmp_path):
    write(tmp_path, shape=(60, 60, 3))
    file = tmp_path / "bee" / "1.png"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(MixsolveError, match=r"1\.png cannot be read as an image"):
        load_data(tmp_path)


def test_pictures_of_16_bits_are_refused(tmp_path):
    write(tmp_path, shape=(6, 8))
    Image.fromarray(np.zeros((6, 8), dtype=np.uint16)).save(tmp_path / "bee" / "9.png")
    with pytest.raises(MixsolveError, match=r"9\.png must have 8 bits a channel; got .*'I;16'"):
        load_data(tmp_path)


def test_trees_that_are_none_are_refused(tmp_path):
    with pytest.raises(MixsolveError, match=r"must hold a folder of images for each class"):
        load_data(tmp_path)
    write(tmp_path / "alone", classes=("a",))
    with pytest.raises(MixsolveError, match=r"the folders of 2 classes or more; got a;"):
        load_data(tmp_path / "alone")
    write(tmp_path / "whole")
    with pytest.raises(MixsolveError, match=r"without a train part: leave split out .*--split"):
        load_data(tmp_path / "whole", split="train")
    write(tmp_path / "half" / "train")
    assert splits(tmp_path / "half") == ("train",)
    with pytest.raises(MixsolveError, match=r"has no test part: .* of split='train'; put .*test"):
        load_data(tmp_path / "half")
    write(tmp_path / "half" / "test", classes=("ant", "wasp", "fly"))
    with pytest.raises(MixsolveError, match=r"that \S+train has not: fly, wasp; use the same"):
        load_data(tmp_path / "half")


def test_without_pillow_the_message_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"Pillow, .* pip install 'mixsolve\[torch\]'"):
        load_data(tmp_path)


def test_a_size_is_for_image_files_alone(tmp_path):
    with pytest.raises(MixsolveError, match=r"size must be left out with digits: .* got 8"):
        load_data("digits", size=8)
    with pytest.raises(MixsolveError, match=r"size must be an integer >= 1"):
        load_data(tmp_path, size=0)
