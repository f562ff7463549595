"""Images read by worker processes: the same run as from memory, also when it is resumed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import FINAL, tiny_config
from torch.utils.data import Dataset

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.training import DataConfig, train
from mixsolve_torch.training.streamed import streamed


class Squares(Dataset):
    """Grey images of 8 x 8 of which each class has a bright row."""

    def __init__(self, count=64, seed=0, targets=False, shift=0):
        draws = np.random.default_rng(seed)
        self.images = draws.integers(0, 120, (count, 8, 8), dtype=np.uint8)
        self.labels = [k % 4 for k in range(count)]
        self.shift = shift
        for image, label in zip(self.images, self.labels, strict=True):
            image[2 * label] += 100
        if targets:
            self.targets = list(self.labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, k):
        return torch.from_numpy(self.images[k]), (self.labels[k] + self.shift) % 4


def tiny(folder, workers, **data):
    return tiny_config(
        folder,
        data=DataConfig(workers=workers, validation=0.25, crop=1, flip=True, **data),
        optimizer={"epochs": 2, "batch_size": 16},
        evaluation={"images": None},
        run={"save_every": 1},
    )


def assert_same(one, other):
    for a, b in zip(one.mixture.parameters(), other.mixture.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [{**r, "seconds": 0} for r in one.records] == [
        {**r, "seconds": 0} for r in other.records
    ]


def test_a_run_that_streams_a_dataset_is_that_from_memory_also_when_resumed(tmp_path):
    memory = train(tiny(tmp_path / "memory", 0), data=Squares())
    assert_same(train(tiny(tmp_path / "streamed", 2), data=Squares(targets=True)), memory)

    class Stop:
        def on_step(self, step):
            if step.number == 5:  # in the middle of the second pass of three batches
                raise KeyboardInterrupt

    config = tiny(tmp_path / "resumed", 2)
    with pytest.raises(KeyboardInterrupt):
        train(config, data=Squares(targets=True), callbacks=[Stop()])
    assert checkpoint.load(tmp_path / "resumed" / "last.pt")["algorithm"]["t"] == 4
    one = replace(config, data=replace(config.data, workers=1))
    assert_same(train(one, data=Squares(targets=True), resume=True), memory)


def test_a_run_that_streams_image_files_is_that_from_memory(tmp_path):
    source = Squares(72)
    for k, (image, label) in enumerate(zip(source.images, source.labels, strict=True)):
        part = "test" if k >= 64 else "train"
        folder = tmp_path / "tree" / part / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{k:03}.png")
    tree = {"name": str(tmp_path / "tree"), "limit": 48}

    def config(folder, workers):
        config = tiny(tmp_path / folder, workers, **tree)
        return replace(config, evaluation=replace(config.evaluation, **FINAL))

    memory, files = train(config("memory", 0)), train(config("files", 2))
    assert_same(files, memory)
    np.testing.assert_array_equal(files.evaluation.losses, memory.evaluation.losses)


def test_other_images_or_labels_are_not_resumed_with(tmp_path):
    config = tiny(tmp_path / "run", 1)
    train(config, data=Squares())
    with pytest.raises(MixsolveError, match=r"begun with other .*images and labels"):
        train(config, data=Squares(seed=1), resume=True)


def test_labels_are_read_where_they_are_not_known_and_compared(tmp_path):
    found, classes = streamed(Squares(20), 1, limit=10)
    assert found.labels.tolist() == [k % 4 for k in range(10)]
    assert (classes, len(found), found.shape()) == (4, 10, (1, 8, 8))
    with pytest.raises(MixsolveError, match="the same label for an item every time"):
        train(tiny(tmp_path / "run", 1), data=Squares(targets=True, shift=1))


@pytest.mark.parametrize("data", [None, "pair"])
def test_workers_are_refused_for_images_in_memory(tmp_path, data):
    pair = (torch.rand(8, 1, 8, 8, generator=torch.Generator()), torch.arange(8) % 2)
    with pytest.raises(MixsolveError, match=r"data\.workers must be 0"):
        train(tiny(tmp_path / "run", 2), data=None if data is None else pair)
    assert not (tmp_path / "run").exists()
