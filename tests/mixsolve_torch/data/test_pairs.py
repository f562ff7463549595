"""A torch `Dataset` of (image, label) pairs wherever data is taken."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import (
    PGD,
    Mixture,
    build_losses,
    digits_cnn,
    evaluate,
    fit,
    load_data,
    solve_game,
    to_unit,
)
from mixsolve_torch.data.batching import gather, in_memory
from mixsolve_torch.data.datasets import splits


class Pairs(Dataset):
    """Items as given, and the number of times that each was read."""

    def __init__(self, items, **attributes):
        self.items = items
        self.reads = [0] * len(items)
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.items[index]


@pytest.fixture
def data():
    return load_data("digits", limit=12)


@pytest.fixture
def mixture():
    return Mixture([digits_cnn(seed=k, width=2) for k in range(2)])


def test_tensors_come_as_they_are(data):
    dataset = TensorDataset(data.images, data.labels)
    read = load_data(dataset)
    assert torch.equal(read.images, data.images)
    assert torch.equal(read.labels, data.labels)
    assert read.classes == int(data.labels.max()) + 1
    assert torch.equal(load_data(dataset, limit=5).images, data.images[:5])
    assert splits(dataset) == ()
    doubled = load_data(TensorDataset(data.images.double(), data.labels))
    assert doubled.images.dtype == torch.float32


def test_bytes_stay_bytes_and_grey_images_may_lack_the_channel():
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8)
    read = load_data(Pairs([(torch.from_numpy(image), k) for k, image in enumerate(images)]))
    assert read.images.dtype == torch.uint8
    np.testing.assert_array_equal(read.images[:, 0].numpy(), images)
    assert read.classes == 4


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3)])
def test_pictures_of_pillow(shape):
    image = pytest.importorskip("PIL.Image")
    arrays = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    dataset = Pairs([(image.fromarray(a), np.int64(k % 2)) for k, a in enumerate(arrays)])
    read = load_data(dataset)
    expected = arrays[:, None] if len(shape) == 2 else arrays.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(read.images.numpy(), expected)
    assert read.labels.tolist() == [0, 1, 0, 1]


def test_classes_are_those_that_the_dataset_names(data):
    items = [(image, 1) for image in data.images]
    assert load_data(Pairs(items, classes=["a", "b", "c"])).classes == 3
    with pytest.raises(MixsolveError, match="below the number of its classes, 1; got 1"):
        load_data(Pairs(items, classes=["a"]))


def test_items_are_read_once(data):
    dataset = Pairs([(image, int(label)) for image, label in zip(*data[:2], strict=True)])
    gather(dataset)
    assert dataset.reads == [1] * len(dataset)
    assert in_memory(dataset, 4).labels.tolist() == data.labels[:4].tolist()
    assert dataset.reads == [2] * 4 + [1] * (len(dataset) - 4)


def test_all_forms_of_data_give_the_same_losses(data, mixture):
    attack = PGD("Linf", 0.1, steps=2)
    given = build_losses(mixture, (data.images, data.labels), attack, batch_size=5)
    coded = (data.images * 255).round().byte()
    for form in (
        data,
        TensorDataset(data.images, data.labels),
        [(data.images[:5], data.labels[:5]), (data.images[5:], data.labels[5:])],
    ):
        again = build_losses(mixture, form, attack, batch_size=5)
        assert again.labels.tolist() == given.labels.tolist()
        if isinstance(form, list):  # the batches are cut elsewhere, so that draws differ
            assert again.values.shape == given.values.shape
        else:
            assert torch.equal(again.values, given.values)
    bytes_of = build_losses(mixture, data._replace(images=coded), attack, batch_size=5)
    floats_of = build_losses(mixture, (to_unit(coded), data.labels), attack, batch_size=5)
    assert torch.equal(bytes_of.values, floats_of.values)


def test_evaluations_games_and_training_take_a_dataset(data, mixture):
    dataset = TensorDataset((data.images * 255).round().byte(), data.labels)
    plain = (to_unit(dataset.tensors[0]), data.labels)
    options = {"norm": "Linf", "eps": 0.1, "steps": 2}
    reports = [
        evaluate(mixture, form, "pgd", resamples=20, rounds=1, **options).to_dict()
        for form in (plain, dataset, data._replace(images=dataset.tensors[0]))
    ]
    assert reports[0] == reports[1] == reports[2]
    games = [solve_game(mixture, form, "pgd", max_rounds=1, **options) for form in (plain, dataset)]
    assert games[0].solution.value == games[1].solution.value
    losses = [fit(digits_cnn(seed=0, width=2), form, epochs=1) for form in (plain, dataset)]
    assert losses[0] == losses[1]


_IMAGE = torch.zeros(1, 3, 3)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the Dataset must hold at least one image; got none"),
        ([_IMAGE], r"must be pairs \(image, label\); item 0 is a Tensor; wrap it"),
        ([(_IMAGE, 0), {"image": _IMAGE}], "item 1 is a dict"),
        ([(np.zeros((3, 3)), 0)], "image 0 is a ndarray; convert it with torch.as_tensor"),
        ([(torch.zeros(3), 0)], r"must have shape \(C, H, W\); image 0 has \(3,\)"),
        ([(_IMAGE, 0), (torch.zeros(1, 4, 3), 1)], r"item 1 has \(1, 4, 3\) .* Resize"),
        ([(_IMAGE, 0), (_IMAGE.byte(), 1)], "one shape and dtype; item 1 has .*uint8"),
        ([(_IMAGE, 0), (_IMAGE, 0.5)], "integers from 0 on; label 1 is 0.5"),
        ([(_IMAGE, torch.tensor([0]))], r"label 0 is tensor\(\[0\]\)"),
        ([(_IMAGE, -1)], "label 0 is -1"),
        ([(_IMAGE + 2, 0)], r"the images of the Dataset must lie in \[0, 1\]; got 2 at index"),
    ],
)
def test_items_that_are_no_pairs_are_refused(items, message):
    with pytest.raises((MixsolveError, MixsolveTypeError), match=message):
        load_data(Pairs(items))


def test_what_does_not_go_with_a_dataset_is_refused(data):
    dataset = TensorDataset(data.images, data.labels)
    with pytest.raises(MixsolveError, match=r"split must be left out with a Dataset.* got 'train'"):
        load_data(dataset, split="train")
    with pytest.raises(MixsolveError, match="size must be left out with a Dataset"):
        load_data(dataset, size=3)
    with pytest.raises(MixsolveTypeError, match=r"a name, a path or a torch Dataset .* got int"):
        load_data(3)
