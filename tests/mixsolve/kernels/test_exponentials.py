"""The exponentials of the kernels against NumPy's, in units in the last place."""

import numpy as np
import pytest

from mixsolve.kernels.exponentials import exponentials

ULPS = 2.0


def both(differences, unit=1.0):
    powers, less = np.full((2, differences.size + 1), np.nan)
    exponentials(differences, differences.size, unit, powers, less)
    assert np.isnan([powers[-1], less[-1]]).all()  # no more than asked for
    return powers[:-1], less[:-1]


@pytest.mark.parametrize("size", [1, 3, 4, 1001])
@pytest.mark.parametrize("scale", [1e-300, 1e-17, 1e-8, 1e-3, 0.3, 1.0, 40.0, 708.0])
def test_powers_and_what_they_lack_to_1(size, scale):
    x = -scale * np.random.default_rng(size).random(size)
    powers, less = both(x)
    assert (np.abs(powers - np.exp(x)) <= ULPS * np.spacing(np.exp(x))).all()
    expected = np.expm1(x)
    assert (np.abs(less - expected) <= ULPS * np.spacing(np.abs(expected))).all()


def test_where_the_nearest_multiple_of_log_2_changes():
    x = -np.log(2.0) * (np.arange(1000) + 0.5)
    x = np.concatenate([x, np.nextafter(x, 0.0), np.nextafter(x, -np.inf)])
    powers, _ = both(x[x > -708.0])
    expected = np.exp(x[x > -708.0])
    assert (np.abs(powers - expected) <= ULPS * np.spacing(expected)).all()


def test_ends_of_the_range():
    powers, less = both(np.array([0.0, -0.0, -708.0, -709.0, -800.0, -1e300, -np.inf]))
    assert powers[:2].tolist() == [1.0, 1.0]
    assert less[:2].tolist() == [0.0, 0.0]
    assert powers[2] == pytest.approx(np.exp(-708.0), rel=1e-15)
    assert powers[3:].tolist() == [0.0] * 4
    assert less[2:].tolist() == [-1.0] * 5


def test_differences_are_taken_in_a_unit():
    x = -np.random.default_rng(0).random(100)
    powers, less = both(x, 0.025)
    np.testing.assert_allclose(powers, np.exp(x / 0.025), rtol=1e-15)
    np.testing.assert_allclose(less, np.expm1(x / 0.025), rtol=1e-15)
