"""Benchmarks certify peers alike, and a peer that fails is a row that says so."""

import numpy as np
import pytest
from reference import entropic_risk, exact_risk

from mixsolve import games
from mixsolve.bench import peers, report, runner
from mixsolve.commands.main import main

GAME = games.gamma_game(30, 6, 4, seed=0).losses


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "losses.npy"
    np.save(file, GAME)
    return file


EXACT = ["highs-ds", "highs-ipm", "cutting-planes", "clarabel", "scs"]
ENTROPIC = ["clarabel", "scs", "slsqp", "trust-constr", "mirror", "fista"]
ENTROPIC += ["fista-numba", "fista-jax", "lbfgs"]


@pytest.mark.parametrize(
    ("name", "alpha"), [(name, 0.0) for name in EXACT] + [(name, 0.1) for name in ENTROPIC]
)
def test_peers_solve_the_game(name, alpha):
    weights, mass = peers.PEERS[name].run(GAME, alpha, 1e-7, 20.0)
    value, gap = runner.certificate_of(GAME, alpha, weights, mass)
    expected = entropic_risk(GAME, weights, alpha) if alpha else exact_risk(GAME, weights)
    assert value == pytest.approx(expected, rel=1e-12)
    assert 0.0 <= gap <= 1e-5 * np.ptp(GAME)


def test_certify_does_not_flatter():
    """A bad answer has a wide gap: here all weight on one classifier, no attack given."""
    weights = np.array([1.0, 0.0, 0.0, 0.0])
    value, gap = runner.certificate_of(GAME, 0.0, weights, None)
    optimum = exact_risk(GAME, peers.PEERS["highs-ds"].run(GAME, 0.0, 1e-9, 9.0)[0])
    assert gap >= value - optimum > 0.01


def test_numpy_peer_has_the_right_gradient():
    lam = np.array([0.1, 0.2, 0.3, 0.4])
    value, gradient = peers.entropic_risk(GAME, 0.1, lam)
    assert value == pytest.approx(entropic_risk(GAME, lam, 0.1), rel=1e-12)
    for k, step in enumerate(1e-6 * np.eye(4)):
        ahead, _ = peers.entropic_risk(GAME, 0.1, lam + step)
        behind, _ = peers.entropic_risk(GAME, 0.1, lam - step)
        assert gradient[k] == pytest.approx((ahead - behind) / 2e-6, abs=1e-6)


def test_a_method_in_its_own_process(path):
    row = runner.run("lp", path, 0.0, 1e-9, 20.0)
    assert row.seconds > 0
    assert row.gap <= 1e-9 * np.ptp(GAME)
    assert row.passes > 1
    assert row.history


def test_a_failure_is_a_row(tmp_path):
    broken = tmp_path / "broken.npy"
    np.save(broken, np.full((3, 2, 2), np.nan))
    row = runner.run("lp", broken, 0.0, 1e-8, 5.0)
    assert row.seconds is None
    assert "finite" in row.note


def test_a_solver_that_does_not_come_back_is_ended(path, monkeypatch):
    monkeypatch.setattr(runner, "_GRACE", -4.9)
    row = runner.run("oracle", path, 0.0, 1e-12, 5.0)
    assert row.seconds is None
    assert "without an answer" in row.note


def test_a_missing_peer_is_a_row(path, monkeypatch):
    missing = peers.Peer(peers.PEERS["mirror"].run, True, True, requires="no_such_module")
    monkeypatch.setitem(peers.PEERS, "mirror", missing)
    assert "no_such_module" in runner.run("mirror", path, 0.1, 1e-8, 5.0).note


def test_command_line(path, tmp_path, capsys):
    picture = tmp_path / "bench.png"
    code = main(["bench", str(path), "--methods", "lp,highs", "--plot", str(picture)])
    printed = capsys.readouterr().out
    assert code == 0
    assert all(name in printed for name in ("lp", "highs-ds", "highs-ipm", "certified"))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_command_line_names_a_wrong_method(path, capsys):
    assert main(["bench", str(path), "--methods", "newton"]) == 2
    assert "'newton' does not solve" in capsys.readouterr().err


def test_markdown_has_a_line_for_each_solver():
    rows = [runner.SolverRow("slow", 2.0, 1.0, 1e-3), runner.SolverRow("none", note="failed: x")]
    lines = report.markdown(rows, 2.0).splitlines()
    assert len(lines) == 4
    assert "5.0e-04" in lines[2]
    assert "failed: x" in lines[3]


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (GAME.astype(str), "dtype <U32"),
        (GAME.astype("M8[s]"), "dtype datetime64"),
        (GAME.astype("m8[s]"), "dtype timedelta64"),
        (GAME + 1j, "dtype complex128"),
        (np.zeros((4, 3, 2), [("a", "f8")]), "dtype"),
        (np.where(GAME.max() == GAME, np.nan, GAME), "got nan first at index"),
        (np.where(GAME.max() == GAME, -np.inf, GAME), "got -inf first at index"),
        (np.where(GAME > 1.0, 1.7e308, -1.7e308), "overflows"),
        (GAME[0, 0], "three axes"),
        (GAME[:0], "no samples"),
    ],
)
def test_losses_that_are_none_are_refused_before_the_work(capsys, tmp_path, losses, words):
    np.save(tmp_path / "losses.npy", losses)
    assert main(["bench", str(tmp_path / "losses.npy")]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_what_is_left_out_is_said(capsys, tmp_path):
    weight = np.arange(1.0, 1.0 + len(GAME))
    np.savez(tmp_path / "game.npz", losses=GAME, sample_weight=weight)
    assert main(["bench", str(tmp_path / "game.npz"), "--methods", "lp", "--tol", "1e-6"]) == 0
    assert "not used: sample_weight" in " ".join(capsys.readouterr().err.split())
