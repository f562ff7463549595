"""A part of the solvers' benchmark replaces its rows of the figures written before."""

import json

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from benchmarks import solvers
from mixsolve.bench.runner import SolverRow

GAME = "gamma 1024x10x4"


def row(solver, seconds, note=""):
    return SolverRow(solver, seconds, 1.0, 1e-12, 4.0, 1e-4, note, [(seconds, 1e-12)])


def test_rows_of_another_run_stay_and_say_so(tmp_path):
    earlier = {GAME: ([row("lp", 0.5), row("scs", 9.0, "time limit")], 2.0)}
    solvers._save("exact", tmp_path, earlier, {"latency": "2 ms"})
    kept = json.loads((tmp_path / "exact.json").read_text())
    kept["day"] = "2000-01-01"
    (tmp_path / "exact.json").write_text(json.dumps(kept))
    panels = {GAME: ([row("lp", 0.25), row("cutting-planes", 10.0)], 2.0)}
    merged, figures = solvers._merged("exact", tmp_path, panels)
    rows = {own.solver: own for own in merged[GAME][0]}
    assert rows["lp"].seconds == 0.25
    assert rows["lp"].note == ""
    assert rows["scs"].note == "time limit; measured 2000-01-01"
    assert figures == {"latency": "2 ms"}
    solvers._save("exact", tmp_path, merged, figures)
    page = (tmp_path / "exact.md").read_text()
    assert f"| {GAME} | 2500.0 | 40 |" in page
    again, _ = solvers._merged("exact", tmp_path, {})
    noted = {own.solver: own.note for own in again[GAME][0]}
    assert noted["scs"] == "time limit; measured 2000-01-01"  # once
