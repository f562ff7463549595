"""Fixtures and settings shared by the tests of both packages."""

import os
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from mixsolve.base.tuning import tuning

# Most tests are about the kernels; those of the loops in NumPy set it back.
tuning.uncompiled_entries = 0

# The asserts of what several test modules share say what they compared, as those of tests do.
pytest.register_assert_rewrite("corpus", "every_engine", "reference")

# Properties are drawn from fixed seeds, so that a failure is a failure on every machine.
settings.register_profile(
    "mixsolve",
    derandomize=True,
    deadline=None,
    max_examples=12,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("slow", parent=settings.get_profile("mixsolve"), max_examples=50)
settings.register_profile("thorough", parent=settings.get_profile("mixsolve"), max_examples=400)
settings.load_profile(os.environ.get("MIXSOLVE_HYPOTHESIS_PROFILE", "mixsolve"))

# A shell starts what it puts in the background deaf to Ctrl-C, and every child inherits that; the
# tests of interrupted runs need to hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="all seeds of a kind, not two")


def pytest_configure(config):
    """Draw more examples of each property where all seeds are asked for."""
    if config.getoption("--slow") and "MIXSOLVE_HYPOTHESIS_PROFILE" not in os.environ:
        settings.load_profile("slow")


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked slow, further seeds of a kind above all, unless asked for."""
    if config.getoption("--slow"):
        return
    slow = [item for item in items if "slow" in item.keywords]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]


@pytest.fixture
def rng():
    """A generator that every test starts from the same state."""
    return np.random.default_rng(20210718)


@pytest.fixture
def losses(rng):
    """A small game of continuous losses with a unique optimum inside the simplex."""
    return rng.gamma(0.5, 1.5, (12, 6, 3))
