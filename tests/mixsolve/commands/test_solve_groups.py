"""`mixsolve solve --groups --tail`: labels in files, beside the losses and in columns."""

import json

import numpy as np
import pytest

import mixsolve
from mixsolve.commands.main import main


@pytest.fixture
def game(tmp_path):
    rng = np.random.default_rng(0)
    losses = rng.random((12, 3, 2)).round(3)
    labels = np.array(["north", "south"])[np.arange(12) % 2]
    np.savez(tmp_path / "game.npz", losses=losses, site=labels)
    np.save(tmp_path / "labels.npy", labels)
    lines = ["sample,candidate,one,site,two"]
    for (i, j), (one, two) in zip(np.ndindex(12, 3), losses.reshape(-1, 2), strict=True):
        lines.append(f"{i},{j},{one},{labels[i]},{two}")
    (tmp_path / "game.csv").write_text("\n".join(lines))
    return losses, labels, tmp_path


def told(capsys, *arguments):
    code = main(["solve", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def test_labels_from_anywhere_are_the_same_game(game, capsys, monkeypatch):
    losses, labels, folder = game
    monkeypatch.chdir(folder)
    (folder / "site").mkdir()  # a name in the losses' own file comes first
    wanted = mixsolve.solve(losses, groups=labels)
    for source, groups in (
        ("game.npz", "site"),
        ("game.npz", folder / "labels.npy"),
        ("game.csv", "site"),
        ("game.csv", folder / "labels.npy"),
    ):
        if source == "game.npz" and groups != "site":
            np.savez(folder / source, losses=losses)
        if source == "game.csv" and groups != "site":
            table = (folder / source).read_text().splitlines()
            rows = [",".join(np.delete(line.split(","), 3)) for line in table]
            (folder / source).write_text("\n".join(rows))
        found = told(capsys, folder / source, "--groups", groups)
        assert found["value"] == pytest.approx(wanted.value, abs=1e-12)
        assert found["group_labels"] == ["north", "south"]
        assert found["group_risks"] == pytest.approx(wanted.group_risks.tolist())


def test_bounds_tails_and_temperatures(game, capsys):
    losses, labels, folder = game
    path = folder / "game.npz"
    found = told(capsys, path, "--groups", "site", "--group-weight", 1.2, "--tail", 0.5)
    wanted = mixsolve.solve(losses, groups=labels, group_weight=1.2, tail=0.5)
    assert found["value"] == pytest.approx(wanted.value, abs=1e-9)
    found = told(capsys, path, "--groups", "site", "--alpha", 0.1, "--alpha-groups", 0.2)
    wanted = mixsolve.solve(losses, 0.1, groups=labels, alpha_groups=0.2)
    assert found["value"] == pytest.approx(wanted.value, abs=1e-6)


def test_a_sample_of_two_groups_and_a_missing_column_are_refused(game, capsys):
    folder = game[2]
    table = (folder / "game.csv").read_text()
    (folder / "game.csv").write_text(table.replace("0,1,", "0,1,", 1).replace("north", "east", 1))
    assert main(["solve", str(folder / "game.csv"), "--groups", "site"]) == 2
    assert "a sample is of one group" in capsys.readouterr().err
    assert main(["solve", str(folder / "game.csv"), "--groups", "region"]) == 2
    assert "no column 'region'" in capsys.readouterr().err
