"""Fixtures of the tests of training."""

from pathlib import Path

import pytest

from mixsolve_torch.training import ending


@pytest.fixture(autouse=True)
def _no_history(monkeypatch):
    """Small runs spend half their time on the picture of their epochs: leave it empty.

    Those of fixtures of a module draw it, and tests of the picture look at theirs.
    """

    class Plots:
        @staticmethod
        def save(figure, path):
            Path(path).touch()

    monkeypatch.setattr(ending, "plots", Plots)
