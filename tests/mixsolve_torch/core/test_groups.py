"""Groups of images: how they are read, their means, and which of them can be the worst."""

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.core.groups import read_groups

LABELS = torch.tensor([2, 0, 2, 5, 0, 2])


def test_classes_are_the_groups_of_their_labels():
    groups = read_groups("class", LABELS)
    assert groups.names == ("0", "2", "5")
    assert groups.index.tolist() == [1, 0, 1, 2, 0, 1]
    assert groups.images.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    "given",
    [
        ["b", "a", "b", "c", "a", "b"],
        np.array(["b", "a", "b", "c", "a", "b"], dtype=object),
        torch.tensor([7, -1, 7, 9, -1, 7]),
    ],
)
def test_labels_of_any_kind_name_the_same_groups(given):
    assert read_groups(given, LABELS).index.tolist() == [1, 0, 1, 2, 0, 1]


def test_the_risk_is_that_of_the_worst_group():
    groups = read_groups("class", LABELS)
    risks = np.array([0.5, 1.0, 0.0, 0.25, 0.0, 0.25])
    np.testing.assert_allclose(groups.means(risks), [0.5, 0.25, 0.25])
    assert groups.risk(risks) == 0.5
    both = groups.means(np.stack([risks, 1 - risks], axis=1))
    np.testing.assert_allclose(both[:, 1], [0.5, 0.75, 0.75])
    np.testing.assert_allclose(groups.at(np.array([0, 2, 3])).images, [0, 2, 1])


def test_a_group_that_cannot_become_the_worst_does_not_decide():
    groups = read_groups("class", LABELS)
    risks = np.array([0.0, 0.5, 0.0, 0.0, 0.5, 0.0])  # the worst is group "0", at 0.5
    most = np.array([0.5, 1.0, 0.5, 1.0, 1.0, 0.5])  # group "2" reaches 0.5 and no more
    assert groups.deciding(risks, most).tolist() == [False, True, False, True, True, False]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("classes", "groups must be 'class', or an array"),
        ([0, 1], "a label for each of the 6 images"),
        (np.arange(12).reshape(6, 2), "a label for each of the 6 images"),
    ],
)
def test_wrong_groups_are_refused(given, words):
    with pytest.raises(MixsolveError, match=words):
        read_groups(given, LABELS)


def test_labels_that_are_missing_are_refused():
    with pytest.raises(MixsolveTypeError, match="none missing"):
        read_groups([0.0, 1.0, np.nan, 0.0, 1.0, 0.0], LABELS)
    with pytest.raises(MixsolveTypeError, match="none missing"):
        read_groups(["a", None, "b", "a", "b", "a"], LABELS)


def test_a_group_too_small_for_two_halves_is_refused():
    with pytest.raises(MixsolveError, match="group '5' has 1"):
        read_groups("class", LABELS, least=2)
