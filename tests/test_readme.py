"""Every example of README.md runs as printed, on its own."""

import re
from pathlib import Path

import pytest
import torch

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An empty folder, and one thread: small networks lose to waiting threads."""
    for needed in ("cvxpy", "dask", "sklearn"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs_on_its_own(number, alone):
    exec(compile(EXAMPLES[number], f"README.md, example {number + 1}", "exec"), {})


def test_there_are_examples():
    assert len(EXAMPLES) >= 6
