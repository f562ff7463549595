"""Which classifiers a patch or a sensor meets, against every position one by one."""

import numpy as np
import pytest
import torch

import mixsolve_torch as mt
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.reach.sets import as_reach, read_reach


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 5), (6, 7)])
def test_a_patch_meets_what_lies_under_it(size):
    reads = torch.rand(4, 2, 6, 7, generator=torch.Generator().manual_seed(0)) < 0.1
    expected = [
        [bool(own[:, r : r + size[0], c : c + size[1]].any()) for own in reads]
        for r in range(6 - size[0] + 1)
        for c in range(7 - size[1] + 1)
    ]
    assert mt.Patch(size).touched(reads).tolist() == expected


@pytest.mark.parametrize("axis", ["width", "height"])
@pytest.mark.parametrize(("count", "size"), [(2, 4), (3, 2), (3, 5), (4, 3)])
def test_no_patch_meets_two_bands_one_patch_less_a_pixel_apart(axis, count, size):
    masks = mt.views.bands((1, 28, 28), count, gap=size - 1, axis=axis)
    assert mt.Patch(size).touched(masks).sum(axis=1).max() == 1
    assert mt.Patch(size + 1).touched(masks).sum(axis=1).max() == 2
    widths = masks.any(dim=1).any(dim=1 if axis == "width" else 2).sum(dim=1)
    assert int(widths.max() - widths.min()) <= 1
    assert int(widths.sum()) == 28 - (count - 1) * (size - 1)


def test_quadrants_are_disjoint_and_far_enough_apart():
    masks = mt.views.quadrants((28, 28), gap=4)
    assert masks.sum(dim=(1, 2)).tolist() == [144] * 4
    assert masks.sum(dim=0).max() == 1
    assert masks[0, :12, :12].all()
    assert masks[1, :12, 16:].all()
    assert mt.Patch(5).touched(masks[:, None]).sum(axis=1).max() == 1


def test_families_leave_out_what_has_no_pixels():
    found = mt.views.families((1, 8, 8), 3)
    assert sorted(found) == ["2 bands, height", "2 bands, width", "quadrants"]
    assert all(masks.flatten(1).any(dim=1).all() for masks in found.values())


def test_groups_of_features_are_views_and_sensors():
    masks = mt.views.features((6,), [[0, 1], [2, 3], [5]])
    assert masks.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]]
    sensors = mt.Sensors({"a": [1, 2], "b": [4], "c": masks[2]})
    assert sensors.touched(masks).astype(int).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_sets_by_their_names(tmp_path):
    assert read_reach("patch:4", (1, 8, 8)).size == (4, 4)
    assert read_reach("patch:4x6", (1, 8, 8)).size == (4, 6)
    channels = read_reach("channels", (3, 2, 2))
    first = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    first[0, 0] = True
    assert channels.touched(first).tolist() == [[True], [False], [False]]
    np.save(tmp_path / "map.npy", np.array([[0, 0], [1, 2]]))
    regions = read_reach(f"sensors:{tmp_path / 'map.npy'}", (3, 2, 2), at_most=2)
    assert regions.touched(first).tolist() == [[True]] * 3
    assert regions.at_most == 2


@pytest.mark.parametrize("text", ["patch", "patch:4x4x4", "patch:-1", "Linf:0.1", "sensors:no.npy"])
def test_other_names_are_refused(text):
    with pytest.raises(MixsolveError, match=r"--threat"):
        read_reach(text, (1, 8, 8), name="--threat")


def test_wrong_sets_are_refused():
    with pytest.raises(MixsolveTypeError, match="Patch"):
        as_reach(4)
    with pytest.raises(MixsolveError, match="larger than the image"):
        mt.Patch(9).touched(torch.ones(1, 1, 8, 8, dtype=torch.bool))
    with pytest.raises(MixsolveError, match="size must be"):
        mt.Patch(0)
    with pytest.raises(MixsolveError, match="3 bands with gaps of 4 need"):
        mt.views.bands((8, 8), 3, gap=4)
    with pytest.raises(MixsolveError, match="axis must be"):
        mt.views.bands((8, 8), 2, axis="depth")
    with pytest.raises(MixsolveError, match="does not fit"):
        mt.Sensors([torch.ones(3, 3, dtype=torch.bool)]).touched(torch.ones(1, 1, 8, 8) > 0)
