"""The page of the GPU: all its sections on the CPU at a small scale; limits, failures, counts."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import mixsolve
from benchmarks import gpu, gpu_games, gpu_networks, gpu_waits
from benchmarks.gpu_scale import scale_of
from benchmarks.sections import Section, TimeUp, run_sections
from mixsolve import MixsolveError
from mixsolve.base.tuning import tuning
from mixsolve_torch import TorchLosses
from mixsolve_torch.engine.chunks import TorchEngine

SMALL = scale_of("small", "cpu")


def test_all_sections_run_on_the_cpu(tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--scale", "small", "--out", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / "gpu.json").read_text())
    assert list(numbers) == [section.name for section in gpu.SECTIONS]
    page, said = (tmp_path / "gpu.md").read_text(), capsys.readouterr().out
    for section in gpu.SECTIONS:
        found = numbers[section.name]
        assert (found["state"], bool(found["rows"])) == ("done", True), found
        assert f"\n## {section.title}\n" in page
        assert f"{section.name}: done" in said
    certified = numbers["certificates"]["rows"]
    assert len(certified) == 20
    for row in certified:
        assert row["status"] == "optimal"
        assert row["values"] <= row["gap"] + row["gap in memory"] + 1e-12
        assert abs(row["gap"] - row["gap in NumPy"]) <= 1e-11
    assert {row["L"] for row in numbers["training"]["rows"]} == set(SMALL.counts)
    assert all(row["values differ by"] <= 1e-8 for row in numbers["ranks"]["rows"])


def test_limits_of_the_sections_fit_into_ten_minutes():
    assert gpu.SECONDS < 600.0
    assert sum(section.seconds for section in gpu.SECTIONS) <= 620.0


def test_no_page_of_a_cpu_stands_among_the_results(tmp_path):
    with pytest.raises(MixsolveError, match="--out"):
        gpu.main(["--device", "cpu"])
    if not torch.cuda.is_available():
        with pytest.raises(MixsolveError, match="needs a GPU"):
            gpu.main(["--out", str(tmp_path)])


def test_a_section_that_fails_or_takes_too_long_harms_no_other(tmp_path):
    pages = []

    def good(setting):
        pages.append(tmp_path.joinpath("page.md").exists() and tmp_path / "page.md")
        pages[-1] = pages[-1] and pages[-1].read_text()
        yield {"a": 1, "b": 0.12345}
        yield "A remark."

    def bad(setting):
        yield {"a": 2}
        raise RuntimeError("no | memory\nat all")

    def slow(setting):
        yield {"a": 3}
        time.sleep(60.0)

    sections = [
        Section("bad", "Bad", "fails", 9.0, bad),
        Section("slow", "Slow", "sleeps", 1.1, slow),
        Section("good", "Good", "works", 9.0, good),
    ]
    said = []
    options = {"head": ["# Page"], "out": tmp_path, "name": "page", "say": said.append}
    began = time.monotonic()
    found = run_sections(sections, None, 30.0, **options)
    assert time.monotonic() - began < 30.0  # the sleep was cut short
    assert found["bad"].state == "failed: RuntimeError: no | memory"
    assert found["bad"].where[-1] == "at all"
    assert "stopped at its limit" in found["slow"].state
    assert [own.rows[0]["a"] for own in found.values()] == [2, 3, 1]
    assert "| 3 |" in pages[0]  # what the earlier sections left was on the page already
    assert "## Good" not in pages[0]
    page = (tmp_path / "page.md").read_text()
    assert "| 1 | 0.123 |\n\nA remark.\n" in page
    assert "no / memory |" in page
    assert len(said) == 3
    later = run_sections(sections[2:], None, 0.5, **options)
    assert later["good"].state == "not begun: no time was left"
    assert not issubclass(TimeUp, Exception)


def test_a_wrong_solution_is_not_certified():
    losses = np.random.default_rng(0).gamma(0.5, 1.5, (30, 6, 3))
    for alpha in (0.0, 0.1):
        found = mixsolve.solve(torch.from_numpy(losses), alpha, tol=1e-9)
        value, bound = gpu_games.certified(losses, alpha, found)
        assert value == pytest.approx(found.value, rel=1e-12)
        assert value - bound <= 1e-8
        worse = replace(found, weights=torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
        value, bound = gpu_games.certified(losses, alpha, worse)
        assert value - bound > 1e-3


def test_the_games_are_solved_by_the_engine_of_the_device():
    tensor = gpu_games.exponential(0.01, "cpu")
    assert tensor.dtype == torch.float32
    opened = TorchLosses(tensor, SMALL.chunk)
    n = tensor.shape[0]
    engine = opened.engine(np.full(n, 1 / n), np.empty(0, np.uint8), np.empty(0))
    assert isinstance(engine, TorchEngine)
    assert scale_of("full", "cuda").chunk is None
    assert all(losses.dtype == np.float32 for _, losses in gpu_games.kinds(4, 3, 2))


def test_the_crossing_is_where_the_host_is_last_faster():
    def said(*ratios):
        rows = [
            {"MB": float(2**i), "exact, host over device": ratio} for i, ratio in enumerate(ratios)
        ]
        return gpu_games.crossing(rows, "exact")

    assert "from 4 MB on" in said(0.5, 0.9, 1.1, 2.0)
    assert "from 8 MB on" in said(1.2, 0.9, 0.8, 2.0)  # noise below it does not count
    assert "up to 2 MB nowhere" in said(0.1, 0.2)
    assert "from 1 MB on" in said(1.5, 2.0)
    assert f"{tuning.kept_bytes / 2**20:g} MB" in said(1.0)


def test_calls_that_wait_are_counted():
    x = torch.arange(6.0)

    def work():
        x.sum().item()
        x.cpu()
        assert x[0] == 0.0
        x[x > 2.0] = 0.0
        x[x > 2.0].nonzero()
        (x + 1).mul_(2.0)[2:].sum()
        x.numpy()

    calls, seen = gpu_waits.count(work, "cpu")
    assert seen is None
    assert calls.names == {"item": 1, "cpu": 1, "__bool__": 1, "mask": 2, "nonzero": 1}
    assert calls.places == {"elsewhere": 6}
    _, again = gpu_waits.count(lambda: None, "cpu"), gpu_waits.count(lambda: x * 2, "cpu")
    assert not again[0].names


def test_a_pass_waits_for_its_sums_alone():
    losses = torch.rand(50, 6, 3, generator=torch.Generator().manual_seed(0))
    engine = TorchLosses(losses, 100).engine(np.full(50, 0.02), np.empty(0, np.uint8), np.empty(0))
    weights, alpha = np.full(3, 1 / 3), np.full(50, 0.1)
    for work in (
        lambda: engine.best_response(weights),
        lambda: engine.soft_response(weights, alpha),
        lambda: engine.soft_sums(weights, alpha, np.arange(50) % 4, 4),
        engine.scan,
    ):
        calls, _ = gpu_waits.count(work, "cpu")
        assert calls.names == {"cpu": 1}  # whatever the number of chunks
    pieces = 10
    calls, _ = gpu_waits.count(lambda: engine.near_response(weights, 0.1, 300), "cpu")
    assert calls.names.pop("cpu") == 2
    assert calls.names.total() <= 4 * pieces


def test_the_standard_attack_is_measured_on_images_that_resist():
    rows = list(gpu_networks.standard(replace(SMALL, counts=(1,), rounds=1)))
    assert [row["precision"] for row in rows] == ["bfloat16", "float32"]
    assert min(row["backward an image"] for row in rows) > 10 * SMALL.attack_steps
