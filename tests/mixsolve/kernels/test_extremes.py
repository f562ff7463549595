"""The scan for the extremes of the losses, against NumPy, and what it makes of NaN and infinity."""

import numpy as np
import pytest

from mixsolve.kernels.passes import extremes

FLOATS = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_floats(dtype, size):
    rng = np.random.default_rng(size)
    largest = float(np.finfo(dtype).max)
    for scale in (1e-38, 1.0, 1e30):
        for shift in (-3.0, 0.0, 3.0):
            values = (scale * (rng.standard_normal(size) + shift)).astype(dtype)
            assert extremes(values) == (values.min(), values.max())
    for values in ([-0.0, 0.0], [largest, -largest], [np.finfo(dtype).smallest_subnormal, 0.0]):
        array = np.array(values, dtype=dtype)
        assert extremes(array) == (array.min(), array.max())


def test_bytes():
    values = np.array([3, 255, 1, 254], dtype=np.uint8)
    assert extremes(values) == (1, 255)


def test_nothing():
    assert extremes(np.empty(0)) == (np.inf, -np.inf)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 500, 999])
def test_one_extreme_tells_of_what_is_not_finite(dtype, bad, place):
    values = np.linspace(-1, 1, 1000).astype(dtype)
    values[place] = bad
    assert not np.isfinite(extremes(values)).all()
