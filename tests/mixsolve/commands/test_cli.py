"""The command line: what it prints, what it saves, and what its exit code says."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

import mixsolve
from mixsolve import games
from mixsolve.arrays import files as arrays
from mixsolve.commands.main import main


@pytest.fixture
def line(tmp_path):
    """The line game in a .npz file, with its sample weights."""
    game = games.line_game()
    path = tmp_path / "line.npz"
    np.savez(path, losses=game.losses, sample_weight=game.sample_weight)
    return path


@pytest.fixture
def hard(tmp_path):
    """A game that two iterations do not solve."""
    path = tmp_path / "hard.npy"
    np.save(path, games.paper2d(120, 40, 6, seed=2).losses)
    return path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def report(capsys, *arguments, code=0):
    found, out, err = run(capsys, "solve", *arguments, "--json")
    assert found == code, err
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def refused(capsys, *arguments):
    """Exit code 2, one line on stderr, nothing on stdout."""
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert err.startswith("mixsolve")
    return err


class TestSolve:
    def test_the_table_says_what_was_found(self, capsys, line):
        code, out, err = run(capsys, "solve", line)
        assert code == 0
        assert err == ""
        for word in ("0.75", "lower bound", "gap", "0: 0.5, 1: 0.5", "optimal", "lp", "passes"):
            assert word in out
        assert "seconds" in out
        assert "not certified" not in out

    def test_json_is_the_solution(self, capsys, line):
        fields = report(capsys, line)
        game = games.line_game()
        solution = mixsolve.solve(game.losses, sample_weight=game.sample_weight)
        assert fields["value"] == solution.value
        assert fields["risk"] == solution.risk
        assert fields["lower_bound"] == solution.lower_bound
        assert fields["gap"] == solution.gap
        assert fields["weights"] == solution.weights.tolist()
        assert fields["status"] == "optimal"
        assert fields["success"] is True
        assert fields["method"] == "lp"
        assert fields["alpha"] == 0.0
        assert fields["shape"] == [3, 3, 2]
        assert fields["seconds"] > 0
        assert fields["n_passes"] == solution.n_passes

    def test_an_uncertified_answer_is_printed_with_exit_code_1(self, capsys, hard):
        arguments = (hard, "--alpha", "0.001", "--method", "apg", "--max-iter", "2")
        code, out, err = run(capsys, "solve", *arguments)
        assert code == 1
        assert err == ""
        assert "not certified" in out
        assert "max_iter" in out
        fields = report(capsys, *arguments, code=1)
        assert fields["status"] == "max_iter"
        assert fields["success"] is False
        assert fields["gap"] > fields["tolerance"]

    def test_options_reach_the_solver(self, capsys, hard):
        fields = report(
            capsys, hard, "--alpha", "0.5", "--method", "entropic", "--tol", "1e-4",
            "--max-iter", "500", "--time-limit", "60",
        )  # fmt: skip
        assert fields["method"] == "newton"
        assert fields["alpha"] == 0.5
        assert fields["tolerance"] == 1e-4
        assert report(capsys, hard, "--time-limit", "1e-9", code=1)["status"] == "time_limit"

    def test_arrays_in_files_of_their_own(self, capsys, tmp_path):
        rng = np.random.default_rng(0)
        losses = rng.random((5, 4, 3))
        mask = np.arange(20).reshape(5, 4) % 3 != 1
        options = {
            "sample_weight": rng.random(5),
            "candidate_mask": mask,
            "candidate_prior": rng.random((5, 4)) + 0.1,
        }
        alpha = rng.uniform(0.1, 0.5, 5)
        np.save(tmp_path / "losses.npy", losses)
        np.save(tmp_path / "alpha.npy", alpha)
        arguments = [tmp_path / "losses.npy", "--alpha", tmp_path / "alpha.npy"]
        for name, array in options.items():
            np.save(tmp_path / f"{name}.npy", array)
            arguments += [f"--{name.replace('_', '-')}", tmp_path / f"{name}.npy"]
        fields = report(capsys, *arguments)
        solution = mixsolve.solve(losses, alpha, **options)
        assert fields["value"] == pytest.approx(solution.value, rel=1e-12)
        assert fields["alpha"] == alpha.tolist()

        np.savez(tmp_path / "all.npz", losses=losses, labels=np.zeros(5), **options)
        together = report(capsys, tmp_path / "all.npz", "--alpha", tmp_path / "alpha.npy")
        assert together["value"] == fields["value"]
        # What the command line names wins over what the file holds.
        uniform = tmp_path / "uniform.npy"
        np.save(uniform, np.ones(5))
        other = report(capsys, tmp_path / "all.npz", "--alpha", "0.3", "--sample-weight", uniform)
        options["sample_weight"] = None
        expected = mixsolve.solve(losses, 0.3, **options).value
        assert other["value"] == pytest.approx(expected, rel=1e-12)

    def test_one_array_of_any_name(self, capsys, tmp_path):
        losses = np.random.default_rng(0).random((5, 4, 3))
        np.savez(tmp_path / "one.npz", anything=losses)
        np.savez_compressed(tmp_path / "small.npz", losses)
        for name in ("one.npz", "small.npz"):
            fields = report(capsys, tmp_path / name)
            assert fields["value"] == pytest.approx(mixsolve.solve(losses).value, rel=1e-12)

    def test_many_weights_are_cut_short_in_the_table_alone(self, capsys, tmp_path):
        np.save(tmp_path / "losses.npy", np.eye(30)[None])
        code, out, _ = run(capsys, "solve", tmp_path / "losses.npy")
        assert code == 0
        assert "and 18 more" in out
        assert len(report(capsys, tmp_path / "losses.npy")["weights"]) == 30

    def test_verbose_prints_its_table_on_stderr(self, tmp_path):
        np.save(tmp_path / "losses.npy", np.random.default_rng(0).random((20, 4, 3)))
        done = subprocess.run(
            [sys.executable, "-m", "mixsolve", "solve", tmp_path / "losses.npy",
             "--alpha", "0.1", "--verbose", "--json"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0
        assert done.stderr.splitlines()[1].split()[0] == "iter"
        assert json.loads(done.stdout)["success"]

    def test_a_terminal_sees_progress(self, capsys, line, monkeypatch):
        from mixsolve.commands import solve as command

        monkeypatch.setattr(
            command, "Console", lambda **options: Terminal(force_terminal=True, **options)
        )
        from rich.console import Console as Terminal

        code, out, _ = run(capsys, "solve", line, "--json")
        assert code == 0
        assert json.loads(out)["value"] == pytest.approx(0.75)


class TestOut:
    def test_the_saved_solution(self, capsys, line, tmp_path):
        out = tmp_path / "solution.npz"
        code, text, _ = run(capsys, "solve", line, "--out", out)
        assert code == 0
        assert str(out) in text
        game = games.line_game()
        solution = mixsolve.solve(game.losses, sample_weight=game.sample_weight)
        with np.load(out, allow_pickle=False) as saved:
            np.testing.assert_array_equal(saved["weights"], solution.weights)
            np.testing.assert_array_equal(saved["attack_indptr"], solution.attack.indptr)
            np.testing.assert_array_equal(saved["attack_candidates"], solution.attack.candidates)
            np.testing.assert_array_equal(
                saved["attack_probabilities"], solution.attack.probabilities
            )
            for name in ("value", "risk", "lower_bound", "gap"):
                assert float(saved[name]) == getattr(solution, name)
            assert str(saved["status"]) == "optimal"
            assert bool(saved["success"])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["line.npz", "solution.npz"]

    @pytest.mark.parametrize("name", ["solution", "solution.csv", "solution.npz.txt"])
    def test_another_ending_is_refused_before_the_work(self, capsys, tmp_path, name):
        err = refused(capsys, "solve", tmp_path / "missing.npy", "--out", tmp_path / name)
        assert "--out must end in .npz" in err
        assert not list(tmp_path.iterdir())

    def test_nothing_is_overwritten_silently(self, capsys, line, tmp_path):
        out = tmp_path / "solution.npz"
        out.write_text("precious")
        err = refused(capsys, "solve", line, "--out", out)
        assert "--replace" in err
        assert str(out) in err
        assert out.read_text() == "precious"
        assert run(capsys, "solve", line, "--out", out, "--replace")[0] == 0
        assert float(np.load(out)["value"]) == pytest.approx(0.75)

    def test_a_file_that_appears_meanwhile_is_kept(self, capsys, line, tmp_path, monkeypatch):
        out = tmp_path / "solution.npz"
        solve = mixsolve.solve

        def slow(*args, **options):
            out.write_text("precious")
            return solve(*args, **options)

        monkeypatch.setattr("mixsolve.commands.solve.solve", slow)
        assert "--replace" in refused(capsys, "solve", line, "--out", out)
        assert out.read_text() == "precious"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["line.npz", "solution.npz"]

    def test_a_place_that_is_not_there(self, capsys, line, tmp_path):
        err = refused(capsys, "solve", line, "--out", tmp_path / "nowhere" / "solution.npz")
        assert "nowhere does not exist" in err
        assert "directory" in refused(capsys, "solve", line, "--out", tmp_path)

    def test_an_interrupted_save_leaves_nothing(self, capsys, line, tmp_path, monkeypatch):
        def full(*args, **arrays):
            args[0].write(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr(np, "savez", full)
        err = refused(capsys, "solve", line, "--out", tmp_path / "solution.npz")
        assert "No space left" in err
        assert [path.name for path in tmp_path.iterdir()] == ["line.npz"]


class TestWrongInput:
    def test_a_missing_file(self, capsys, tmp_path):
        err = refused(capsys, "solve", tmp_path / "nothing.npy")
        assert "nothing.npy does not exist" in err

    def test_a_directory(self, capsys, tmp_path):
        assert "is a directory" in refused(capsys, "solve", tmp_path)

    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr'", b"PK\x03\x04"]
    )
    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_a_broken_file(self, capsys, tmp_path, content, suffix):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(content)
        err = refused(capsys, "solve", path)
        assert f"broken{suffix} is not a readable .npy or .npz file" in err

    @pytest.mark.parametrize("command", ["solve", "bench"])
    @pytest.mark.parametrize(
        "shape", ["(-4, 3, -2)", "(-1, 3, 2)", "(True, 3, 2)", f"(0, {10**20}, 2)", f"({10**12},)"]
    )
    def test_a_header_of_no_shape(self, capsys, tmp_path, shape, command):
        path = tmp_path / "x.npy"
        np.save(path, np.zeros((4, 3, 2)))
        content = path.read_bytes().replace(b"(4, 3, 2)", shape.encode(), 1)
        length = content.index(b"\n") + 1 - 10
        path.write_bytes(content[:8] + length.to_bytes(2, "little") + content[10:])
        err = refused(capsys, command, path)
        assert "x.npy is not a readable .npy or .npz file of numbers" in err
        assert shape in err

    @pytest.mark.parametrize("command", ["solve", "bench"])
    def test_a_pipe_is_not_waited_for(self, capsys, tmp_path, command):
        os.mkfifo(tmp_path / "pipe.npy")
        err = refused(capsys, command, tmp_path / "pipe.npy")
        assert "pipe.npy is a device, a pipe or a socket" in err

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_a_damaged_archive(self, capsys, tmp_path, save):
        path = tmp_path / "losses.npz"
        save(path, losses=np.random.default_rng(0).random((40, 30, 20)))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert "losses.npz is not a readable" in refused(capsys, "solve", path)

    def test_a_cut_off_file(self, capsys, tmp_path):
        path = tmp_path / "losses.npy"
        np.save(path, np.zeros((40, 30, 20)))
        path.write_bytes(path.read_bytes()[:-8])
        assert "losses.npy is not a readable" in refused(capsys, "solve", path)

    @pytest.mark.parametrize("name", ["losses.npy", "losses.npz"])
    def test_pickles_are_never_loaded(self, capsys, tmp_path, name):
        array = np.array([[[{}]]], dtype=object)
        path = tmp_path / name
        np.save(path, array) if name.endswith("y") else np.savez(path, losses=array)
        assert "is not a readable" in refused(capsys, "solve", path)

    def test_a_nan(self, capsys, tmp_path):
        losses = np.zeros((4, 3, 2))
        losses[1, 2, 0] = np.nan
        np.save(tmp_path / "losses.npy", losses)
        err = refused(capsys, "solve", tmp_path / "losses.npy")
        assert "nan" in err
        assert "(1, 2, 0)" in err

    @pytest.mark.parametrize("shape", [(3,), (0, 3), (4, 3, 2, 1), (0, 3, 2)])
    def test_a_wrong_shape(self, capsys, tmp_path, shape):
        np.save(tmp_path / "losses.npy", np.zeros(shape))
        assert str(shape) in refused(capsys, "solve", tmp_path / "losses.npy")

    def test_words_for_losses(self, capsys, tmp_path):
        np.save(tmp_path / "losses.npy", np.array([[["a", "b"]]]))
        assert "losses must hold real numbers" in refused(capsys, "solve", tmp_path / "losses.npy")

    def test_an_archive_of_several_arrays(self, capsys, tmp_path):
        np.savez(tmp_path / "a.npz", first=np.zeros((2, 2, 2)), second=np.zeros(2))
        assert "its arrays are: first, second" in refused(capsys, "solve", tmp_path / "a.npz")
        np.savez(tmp_path / "b.npz", sample_weight=np.ones(2))
        assert "its arrays are: none" in refused(capsys, "solve", tmp_path / "b.npz")

    @pytest.mark.parametrize(
        ("option", "value", "words"),
        [
            ("--alpha", "-1", "alpha must be a finite number >= 0"),
            ("--alpha", "nan", "alpha must be a finite number >= 0"),
            ("--alpha", "much", "--alpha must be a number or a .npy or .npz file, got 'much'"),
            ("--alpha", "missing.npy", "missing.npy does not exist"),
            ("--tol", "0", "tol must be"),
            ("--max-iter", "0", "max_iter must be"),
            ("--time-limit", "-1", "time_limit must be"),
            ("--method", "simplex", "method must be one of"),
            ("--method", "newton", "alpha must be > 0 for method 'newton'"),
            ("--sample-weight", "missing.npy", "the sample_weight file missing.npy does not exist"),
            ("--candidate-mask", "missing.npz", "the candidate_mask file missing.npz"),
        ],
    )
    def test_a_wrong_option(self, capsys, line, option, value, words):
        assert words in refused(capsys, "solve", line, option, value)

    @pytest.mark.parametrize(
        "arguments", [["solve"], ["nonsense"], ["solve", "x.npy", "--tol", "small"], ["--nonsense"]]
    )
    def test_usage(self, capsys, arguments):
        code, out, err = run(capsys, *arguments)
        assert code == 2
        assert out == ""
        assert "usage: mixsolve" in err

    def test_no_subcommand(self, capsys):
        code, out, err = run(capsys)
        assert code == 2
        assert out == ""
        assert "solve" in err
        assert "demo" in err

    def test_an_interruption_is_no_traceback(self, capsys, line, monkeypatch):
        def interrupted(*args, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr("mixsolve.commands.solve.solve", interrupted)
        code, out, err = run(capsys, "solve", line)
        assert code == 130
        assert (out, err) == ("", "mixsolve solve: error: interrupted\n")

    def test_a_bug_is_not_hidden(self, capsys, line, monkeypatch):
        def broken(*args, **options):
            raise ZeroDivisionError

        monkeypatch.setattr("mixsolve.commands.solve.solve", broken)
        with pytest.raises(ZeroDivisionError):
            main(["solve", str(line)])


class TestOtherSubcommands:
    def test_version_and_help(self, capsys):
        assert run(capsys, "--version") == (0, f"mixsolve {mixsolve.__version__}\n", "")
        code, out, err = run(capsys, "--help")
        assert (code, err) == (0, "")
        assert "solve" in out
        assert "demo" in out
        code, out, _ = run(capsys, "solve", "--help")
        assert code == 0
        assert "--sample-weight" in out

    def test_the_installed_program(self, line):
        program = os.path.join(os.path.dirname(sys.executable), "mixsolve")
        done = subprocess.run([program, "solve", line, "--json"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["value"] == pytest.approx(0.75, abs=1e-9)

    def test_demo_is_handed_on(self, capsys, monkeypatch):
        demo = types.ModuleType("mixsolve_torch.commands.demo")
        demo.add_arguments = lambda parser: parser.add_argument("--seed", type=int)
        demo.run = lambda args: 40 + args.seed
        monkeypatch.setitem(sys.modules, "mixsolve_torch.commands.demo", demo)
        assert run(capsys, "demo", "--seed", "2")[0] == 42

    def test_demo_without_torch_names_the_command_that_mends_it(self):
        code = (
            "import sys\n"
            "sys.modules['torch'] = None\n"
            "from mixsolve.commands.main import main\n"
            "sys.exit(main(['demo']))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "pip install" in done.stderr
        assert "mixsolve[" in done.stderr


class TestArrays:
    """Reading .npy and .npz files: mapped where the file allows it, equal everywhere."""

    ARRAYS = (
        np.arange(24.0).reshape(2, 3, 4),
        np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
        np.arange(24, dtype=">i2").reshape(2, 3, 4),
        np.array([True, False, True]),
        np.float64(3.0),
        np.zeros((0, 3)),
    )

    @pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
    @pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
    def test_what_is_read_is_what_was_saved(self, tmp_path, array, save):
        path = tmp_path / "x.bin"
        with path.open("wb") as file:
            save(file, array)
        found = arrays.load_array(path, "x")
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert np.array_equal(found, array)
        if save is not np.savez_compressed and array.size and array.ndim:
            assert isinstance(found, np.memmap)
            assert not found.flags.writeable

    def test_several_arrays_in_one_archive_are_mapped_each_at_its_place(self, tmp_path):
        saved = {f"array {i}": array for i, array in enumerate(self.ARRAYS)}
        np.savez(tmp_path / "x.npz", **saved)
        for name, array in saved.items():
            assert np.array_equal(arrays.load_array(tmp_path / "x.npz", name), array)
