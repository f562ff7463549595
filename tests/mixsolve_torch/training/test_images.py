"""Images in memory: batches are those of the plain loop, no pixel changes, draws are a seed's."""

import pytest
import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import digits
from mixsolve_torch.training.images import ImageSet


@pytest.fixture
def data(generator):
    images = torch.randint(256, (60, 3, 5, 7), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(60) % 4)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def test_bytes_become_their_share_of_255(data):
    chosen = torch.tensor([5, 0, 5])
    x, y = data.batch(chosen)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    assert torch.equal(x, data.images[chosen].float() / 255)
    assert torch.equal(y, data.labels[chosen])
    assert data.images.dtype == torch.uint8


def test_floats_stay_what_they_are():
    images, labels = digits().validation
    data = ImageSet(images, labels)
    x, y = data.batch(torch.arange(len(labels)), generator=seeded(), crop=0, flip=False)
    assert torch.equal(x, images)
    assert torch.equal(y, labels)
    moved, _ = data.batch(torch.arange(9), generator=seeded(), crop=2, flip=True)
    assert set(moved.unique().tolist()) <= set(images.unique().tolist())


def plain(image, top, left, crop, mirrored):
    """Pad, cut, mirror: one image, in the order of words."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * crop, width + 2 * crop)
    padded[:, crop : crop + height, crop : crop + width] = image
    cut = padded[:, top : top + height, left : left + width]
    return cut.flip(-1) if mirrored else cut


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True)])
def test_every_augmented_image_is_a_crop_of_its_own(data, crop, flip):
    chosen = torch.arange(60).repeat(8)
    x, _ = data.batch(chosen, generator=seeded(), crop=crop, flip=flip)
    assert x.shape == (480, 3, 5, 7)
    seen = set()
    whole, _ = data.batch(chosen)
    for image, got in zip(whole, x, strict=True):
        ways = [
            (top, left, mirrored)
            for top in range(2 * crop + 1)
            for left in range(2 * crop + 1)
            for mirrored in range(1 + flip)
            if torch.equal(plain(image, top, left, crop, mirrored), got)
        ]
        assert len(ways) == 1
        seen.update(ways)
    assert len(seen) == (2 * crop + 1) ** 2 * (1 + flip)


def test_draws_are_those_of_the_generator(data):
    chosen = torch.arange(60)
    first, again, other = (
        data.batch(chosen, generator=seeded(seed), crop=2, flip=True)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = seeded()
    state = generator.get_state()
    data.batch(chosen, generator=generator)
    assert torch.equal(state, generator.get_state())  # nothing to draw


@pytest.mark.parametrize("crop", [0, 2])
def test_channels_may_lie_together(data, crop):
    chosen = torch.arange(6)
    x, _ = data.batch(chosen, generator=seeded(), crop=crop, channels_last=True)
    same, _ = data.batch(chosen, generator=seeded(), crop=crop)
    assert torch.equal(x, same)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert same.is_contiguous()


def test_a_split_holds_every_image_once_and_all_classes_alike(data):
    train, held_out = data.split(0.2, seeded(1))
    assert (len(train), len(held_out)) == (48, 12)
    assert held_out.labels.bincount().tolist() == [3, 3, 3, 3]
    rows = [tuple(row) for row in torch.cat([train.images, held_out.images]).flatten(1).tolist()]
    labels = torch.cat([train.labels, held_out.labels]).tolist()
    own = [tuple(row) for row in data.images.flatten(1).tolist()]
    assert sorted(zip(rows, labels, strict=True)) == sorted(
        zip(own, data.labels.tolist(), strict=True)
    )
    again, other = data.split(0.2, seeded(1))[1], data.split(0.2, seeded(2))[1]
    assert torch.equal(again.images, held_out.images)
    assert not torch.equal(other.images, held_out.images)
    everything, nothing = data.split(0, seeded())
    assert (len(everything), len(nothing)) == (60, 0)
    assert len(nothing.to("cpu")) == 0


def test_sets_that_are_refused(data):
    images, labels = data.images, data.labels
    for given, message in (
        ((images[0], labels), r"images must have shape \(B, C, H, W\)"),
        ((images.float(), labels), r"images must lie in \[0, 1\]"),
        ((images, labels[:3]), r"labels must have shape \(60,\)"),
        ((images, labels - 1), r"labels must hold class indices from 0 on"),
        ((images, labels.to("meta")), r"labels must be on the device of the images"),
    ):
        with pytest.raises(MixsolveError, match=message):
            ImageSet(*given)
    with pytest.raises(MixsolveTypeError, match=r"floating-point.*int64"):
        ImageSet(images.long(), labels)
    for share, message in (
        (1.0, r"share must be a finite number >= 0 and < 1"),
        (0.99, r"0.99 of each class takes 60 of 60"),
        (0.01, r"0.01 of each class takes 0 of 60"),
    ):
        with pytest.raises(MixsolveError, match=message):
            data.split(share, seeded())
