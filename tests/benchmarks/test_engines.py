"""The passes that `benchmarks.engines` times: three engines that say the same, and a page."""

import json

import numpy as np
import pytest

from benchmarks import engines
from mixsolve.engines.distinct import Kept
from mixsolve.engines.memory import MemoryEngine
from mixsolve_torch.engine.chunks import TorchEngine

SHAPE = (40, 12, 4)


def said(response):
    """Return the numbers of what a pass returns, whatever it is."""
    if response is None:
        return []
    if isinstance(response, (float, np.ndarray)):
        return [np.asarray(response)]
    if isinstance(
        response, Kept
    ):  # counts and masses; the engines pack rows in orders of their own
        return [np.diff(response.offsets), np.sort(response.mass)]
    if isinstance(response, tuple) and isinstance(response[0], MemoryEngine):
        game = response[0]
        return [np.diff(game.tensor.offsets), np.sort(game.prior)]
    if isinstance(response, tuple):
        return [number for part in response for number in said(part)]
    names = ("value", "gradient", "hessian", "candidates", "near_candidates", "probabilities")
    return [number for name in names for number in said(getattr(response, name, None))]


def test_the_engines_say_the_same_in_every_pass():
    seen = []
    for name, works in engines.passes(SHAPE):
        found = [said(works[engine]()) for engine in engines.ENGINES]
        seen.append(name)
        assert found[0], name
        for other in found[1:]:
            for one, own in zip(found[0], other, strict=True):
                np.testing.assert_allclose(one, own, rtol=1e-9, atol=1e-12, err_msg=name)
    assert len(seen) == 11


def test_what_is_timed_is_what_it_is_called():
    losses = np.random.default_rng(0).random(SHAPE, np.float32)
    opened = engines.engines(losses)
    assert tuple(opened) == engines.ENGINES
    assert isinstance(opened["operations"], TorchEngine)
    for name in ("kernels", "given"):
        assert isinstance(opened[name], MemoryEngine)
    _, _, rows = next(opened["given"].tensor.blocks(0, 1))
    assert np.shares_memory(rows, losses)


def test_the_page(tmp_path):
    words = ["--threads", "1", "--shapes", "6x3x2", "--seconds", "0.001", "--out", str(tmp_path)]
    assert engines.main(words) == 0
    rows = json.loads((tmp_path / "engines.json").read_text())
    assert len(rows) == 11
    assert all(row[name] > 0.0 for row in rows for name in engines.ENGINES)
    page = (tmp_path / "engines.md").read_text()
    assert "## 1 thread each" in page
    assert page.partition("## 1 thread each")[2].count(" ms; ") == 11


@pytest.mark.parametrize("slow", engines.ENGINES)
def test_every_engine_runs_a_few_times(slow, monkeypatch):
    monkeypatch.setattr(engines.time, "perf_counter", lambda: clock[0])
    clock, runs = [0.0], dict.fromkeys(engines.ENGINES, 0)

    def work(name):
        clock[0] += 10.0 if name == slow else 0.01
        runs[name] += 1

    works = {name: lambda name=name: work(name) for name in engines.ENGINES}
    times = engines.least(works, 1.0)
    assert runs[slow] == 3  # once before they are timed
    assert all(runs[name] > 90 for name in runs if name != slow)
    assert times[slow] == pytest.approx(10.0)
