"""The command line in other programs' hands: JSON, silence, completion, CSV and stdin."""

import io
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

import mixsolve
from mixsolve.base import notice
from mixsolve.commands import main as cli
from mixsolve.commands import output
from mixsolve.commands.completion import SHELLS, script

LOSSES = np.random.default_rng(0).random((6, 3, 2))
NAMES = ("plain", "at")


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "losses.npy", LOSSES)
    return str(tmp_path / "losses.npy")


def run(capsys, *argv):
    code = cli.main([str(word) for word in argv])
    return code, *capsys.readouterr()


class Bytes(io.TextIOWrapper):
    """Standard input of these bytes."""

    def __init__(self, content):
        super().__init__(io.BytesIO(content))


class TestJson:
    @pytest.mark.parametrize(
        "words",
        [
            ["solve", "missing.npy"],
            ["solve"],
            ["solve", "missing.npy", "--tol", "much"],
            ["solve", "missing.npy", "--method", "simplex"],
            ["bench", "missing.npy"],
            ["bench", "missing.npy", "--no-such-option"],
            ["solve", "missing.npy", "--quiet"],
        ],
    )
    def test_errors_are_objects(self, capsys, words):
        code, out, err = run(capsys, *words, "--json")
        assert (code, err) == (2, "")
        told = json.loads(out)
        assert told["exit_code"] == 2
        assert len(told["error"]) > 10

    def test_a_solution(self, capsys, path):
        code, out, err = run(capsys, "solve", path, "--json", "--names", *NAMES)
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert told["shape"] == [6, 3, 2]
        assert list(told["named_weights"]) == list(NAMES)
        assert told["value"] == mixsolve.solve(LOSSES).value

    def test_a_benchmark(self, capsys, path):
        code, out, err = run(capsys, "bench", path, "--methods", "lp", "--tol", "1e-6", "--json")
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert told["rows"][0]["solver"] == "lp"
        assert told["rows"][0]["value"] == pytest.approx(mixsolve.solve(LOSSES).value)


def test_quiet_tells_by_the_exit_code(capsys, path, tmp_path):
    out = tmp_path / "out.npz"
    assert run(capsys, "solve", path, "--quiet", "--out", out) == (0, "", "")
    assert mixsolve.load(out) == mixsolve.solve(LOSSES)
    limits = ("--method", "oracle", "--max-iter", "1", "--quiet")
    assert run(capsys, "solve", path, *limits) == (1, "", "")
    code, told, err = run(capsys, "solve", "missing.npy", "--quiet")
    assert (code, told) == (2, "")
    assert "does not exist" in err


def test_few_models(capsys, path):
    _, out, _ = run(capsys, "solve", path, "--max-models", "1", "--json")
    told = json.loads(out)
    assert told["max_models"] == 1
    assert sorted(told["weights"]) == [0.0, 1.0]
    assert "max_models" in run(capsys, "solve", path, "--max-models", "0")[2]


def test_help_lists_every_method(capsys):
    from mixsolve.methods import ALIASES, METHODS

    out = " ".join(run(capsys, "solve", "--help")[1].split())
    assert f"{', '.join(('auto', *METHODS, *ALIASES))} (default: auto)" in out


class TestCsv:
    def clean(self):
        rows = [",".join(map(repr, row)) for row in LOSSES[:, 0].tolist()]
        return "\n".join([",".join(NAMES), *rows]) + "\n"

    def long(self, keep=lambda i, j: True):
        lines = ["attack,plain,image,at"]
        for j in reversed(range(3)):
            for i in range(6):
                if keep(i, j):
                    lines.append(f"a{j},{float(LOSSES[i, j, 0])!r},i{i},{float(LOSSES[i, j, 1])!r}")
        return "\n".join(lines)

    def told(self, capsys, text, tmp_path):
        (tmp_path / "losses.csv").write_text(text)
        code, out, _ = run(capsys, "solve", tmp_path / "losses.csv", "--json")
        assert code == 0
        return json.loads(out)

    def test_one_candidate_a_sample(self, capsys, tmp_path):
        told = self.told(capsys, self.clean(), tmp_path)
        assert told["value"] == pytest.approx(LOSSES[:, 0].mean(axis=0).min())
        assert list(told["named_weights"]) == list(NAMES)

    def test_a_line_for_each_sample_and_candidate(self, capsys, tmp_path):
        told = self.told(capsys, self.long(), tmp_path)
        assert told["value"] == pytest.approx(mixsolve.solve(LOSSES).value)
        some = self.told(capsys, self.long(lambda i, j: j <= i), tmp_path)
        ragged = [table[: i + 1] for i, table in enumerate(LOSSES)]
        assert some["value"] == pytest.approx(mixsolve.solve(ragged).value)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "a line of names"),
            ("a,b\n", "a line of names"),
            ("1,2\n3,4\n", "begin with a line of names"),
            ("a,a\n3,4\n", "each classifier differently"),
            ("a,b\n3,x\n", "line 2, column 'b' must be a number; got 'x'"),
            ("a,b\n3\n", "line 2 has 1 columns"),
            ("sample,attack,a\n1,x,3\n1,x,4\n", "more than once"),
            ("a,b\nnan,1\n", "nan"),
        ],
    )
    def test_wrong_ones(self, capsys, tmp_path, text, words):
        (tmp_path / "losses.csv").write_text(text)
        code, _, err = run(capsys, "solve", tmp_path / "losses.csv")
        assert code == 2
        assert words in err

    @pytest.mark.parametrize("form", ["npy", "npz", "csv"])
    def test_standard_input(self, capsys, monkeypatch, form):
        stream = io.BytesIO()
        if form == "csv":
            stream.write(self.long().encode())
        else:
            {"npy": np.save, "npz": np.savez}[form](stream, LOSSES)
        monkeypatch.setattr(sys, "stdin", Bytes(stream.getvalue()))
        code, out, _ = run(capsys, "solve", "-", "--json")
        assert code == 0
        assert json.loads(out)["value"] == pytest.approx(mixsolve.solve(LOSSES).value)

    def test_standard_input_that_is_torn(self, capsys, monkeypatch):
        monkeypatch.setattr(sys, "stdin", Bytes(b"\x93NUMPY\x01"))
        code, _, err = run(capsys, "solve", "-")
        assert code == 2
        assert "stdin is not a readable" in err


OPTIONS = {"solve": ["--alpha", "--json"], "completion": ["bash", "--help"]}


class TestCompletion:
    @pytest.mark.parametrize("shell", SHELLS)
    def test_it_knows_subcommands_and_options(self, shell):
        text = script(shell, OPTIONS)
        assert "solve completion" in text
        assert "alpha" in text

    @pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
    @pytest.mark.parametrize(
        ("words", "found"),
        [(["so"], ["solve"]), (["solve", "--al"], ["--alpha"]), (["solve", "--x"], [])],
    )
    def test_bash_completes(self, words, found):
        line = " ".join(f"'{word}'" for word in ["mixsolve", *words])
        code = (
            f"{script('bash', OPTIONS)}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}\n"
            '_mixsolve; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == found

    def test_every_option_is_there(self, monkeypatch):
        monkeypatch.setattr(
            cli, "_COMMANDS", {name: cli._COMMANDS[name] for name in ("solve", "completion")}
        )
        words = cli.option_words()
        assert {"--alpha", "--json", "--max-models", "--help"} <= set(words["solve"])
        assert {"bash", "zsh", "fish"} <= set(words["completion"])


def test_a_plain_terminal_stays_readable(path):
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "mixsolve", "solve", path],
        capture_output=True,
        env=os.environ | plain,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "adversarial risk" in text
    assert max(map(len, text.splitlines())) <= 80


class TestNotice:
    @pytest.fixture
    def watched(self, monkeypatch):
        monkeypatch.setattr(notice, "_is_watched", lambda: True)
        monkeypatch.setattr(notice, "_PATIENCE", 0.0)
        return notice._Watch()

    def test_long_compilation_is_told_once(self, watched, capsys):
        for _ in range(3):
            with watched.compiling():
                while not watched.told:
                    pass
        out, err = capsys.readouterr()
        assert (out, err) == ("", notice.TEXT + "\n")

    def test_short_compilation_is_not(self, watched, monkeypatch, capsys):
        monkeypatch.setattr(notice, "_PATIENCE", 1000.0)
        with watched.compiling():
            pass
        assert capsys.readouterr() == ("", "")

    def test_nobody_is_disturbed(self, watched, monkeypatch):
        watched.silent = True
        with watched.compiling():
            assert not watched.told
        watched.silent = False
        monkeypatch.setattr(notice, "_is_watched", lambda: False)
        with watched.compiling():
            assert not watched.told


class Terminal(io.StringIO):
    """Remembers what is printed."""

    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


def told(monkeypatch, seconds, *, terminal=True, silent=False):
    """What a terminal shows of a block that lasts some seconds."""
    shown = Terminal(terminal)
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(output, "_PATIENCE", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    with output.waiting("reading the losses", silent=silent):
        time.sleep(seconds)
    return shown.getvalue()


def test_long_steps_are_told_on_a_terminal_and_short_ones_are_not(monkeypatch):
    assert "reading the losses" in told(monkeypatch, 0.5)
    assert told(monkeypatch, 0.0) == ""


def test_steps_are_not_told_to_a_file_or_where_silence_is_asked_for(monkeypatch):
    assert told(monkeypatch, 0.2, terminal=False) == ""
    assert told(monkeypatch, 0.2, silent=True) == ""
