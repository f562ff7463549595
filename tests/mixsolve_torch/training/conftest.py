"""Fixtures of the tests of training."""

from pathlib import Path

import pytest

from mixsolve_torch.evaluation.report import Evaluation
from mixsolve_torch.training import ending


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Small runs spend half their time on pictures of epochs and final attacks: leave them empty.

    Those of fixtures of a module draw them, and tests of the pictures look at theirs.
    """

    class Plots:
        @staticmethod
        def save(figure, path):
            Path(path).touch()

    monkeypatch.setattr(ending, "plots", Plots)
    monkeypatch.setattr(Evaluation, "plot", lambda self, path: Path(path).touch())
