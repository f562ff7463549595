"""The picture of two classes: its curve against draws, and what it says."""

import numpy as np
import pytest

from mixsolve.base.errors import MixsolveError
from mixsolve.plots import two_classes
from mixsolve.plots.two_classes import reach

pytest.importorskip("matplotlib")


def test_the_curve_is_what_thresholds_have_under_attack():
    draws = np.random.default_rng(0)
    a, b = 0.35 * draws.standard_normal((2, 200_000))
    b += 1.0
    curve = reach(1.0, 0.35, 0.75)
    ends = 0.75 + 6 * 0.35
    for place in (60, 90, 100, 130):
        c = np.linspace(-ends, 1 + ends, len(curve))[place]
        np.testing.assert_allclose(
            curve[place], [(a + 0.75 < c).mean(), (b - 0.75 >= c).mean()], atol=0.005
        )


def test_no_single_network_is_above_the_mixtures_where_attacked_classes_cross():
    assert (reach(1.0, 0.35, 0.75).sum(axis=1) <= 1 + 1e-9).all()
    assert (reach(1.0, 0.35, 0.25).sum(axis=1) > 1).any()  # apart, one network does


def test_the_picture_names_the_four_points():
    (axes,) = two_classes().axes
    told = " ".join(text.get_text() for text in axes.texts)
    for words in ("fairest single", "gives up class A", "gives up class B", "mixture"):
        assert words in told


def test_wrong_sizes_are_refused():
    with pytest.raises(MixsolveError, match="spread"):
        two_classes(spread=0.0)
