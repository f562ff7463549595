"""What is written: a regular file, whole, never a device and never a file that is read."""

import os
import stat

import numpy as np
import pytest

from mixsolve import MixsolveError, plots
from mixsolve.base.files import check_folder, check_output, write_text, written_aside
from mixsolve.commands.main import main


@pytest.fixture
def losses(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.random.default_rng(0).random((4, 3, 2)))
    return path


def refused(capsys, *arguments):
    assert main([str(word) for word in arguments]) == 2
    return capsys.readouterr().err


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    return path


class TestInputs:
    @pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "soft", "hard"])
    def test_an_input_is_never_overwritten(self, capsys, losses, link, tmp_path):
        before = losses.read_bytes()
        out = losses
        if link is not None:
            out = tmp_path / "b.npz"
            link(losses, out)
        err = refused(capsys, "solve", losses, "--out", out, "--replace")
        assert f"--out {out} is {losses}, which is read" in err
        assert losses.read_bytes() == before
        assert out.exists()

    def test_by_another_name(self, capsys, losses, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        for out in ("a.npy", "./a.npy", "folder/../a.npy"):
            assert "which is read" in refused(capsys, "solve", losses, "--out", out, "--replace")

    @pytest.mark.parametrize("option", ["sample-weight", "alpha", "constraints"])
    def test_other_inputs(self, capsys, losses, tmp_path, option):
        other = tmp_path / "other.npz"
        arrays = (
            {"A_ub": [[1.0, 0.0]], "b_ub": [0.9]} if option == "constraints" else {"w": np.ones(4)}
        )
        np.savez(other, **arrays)
        before = other.read_bytes()
        arguments = ["solve", losses, f"--{option}", other, "--out", other, "--replace"]
        assert "which is read" in refused(capsys, *arguments)
        assert other.read_bytes() == before

    def test_inside_a_store_that_is_read(self, capsys, tmp_path):
        zarr = pytest.importorskip("zarr")
        store = tmp_path / "a.zarr"
        zarr.save(str(store), np.random.default_rng(0).random((4, 3, 2)))
        inside = next(path for path in store.rglob("*") if path.is_file())
        for out in (inside, store / "new.npz"):
            assert "which is read" in refused(capsys, "solve", store, "--out", out, "--replace")

    def test_a_picture_over_the_losses(self, capsys, losses, tmp_path):
        picture = tmp_path / "a.png"
        os.link(losses, picture)
        err = refused(capsys, "bench", losses, "--plot", picture, "--replace")
        assert f"--plot {picture} is {losses}, which is read" in err

    def test_a_model_where_the_report_goes(self, tmp_path):
        model = tmp_path / "audit.json"
        model.write_text("model")
        with pytest.raises(MixsolveError, match="which is read"):
            check_folder(tmp_path, ["audit.json"], True, "--overwrite", [model])

    def test_other_files_are_replaced(self, capsys, losses, tmp_path):
        out = tmp_path / "out.npz"
        out.write_text("old")
        assert main(["solve", str(losses), "--out", str(out), "--replace"]) == 0
        assert "weights" in np.load(out)


class TestDevices:
    def test_a_device_stays_one(self, capsys, losses, tmp_path):
        device = tmp_path / "full"
        try:
            os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 7))  # as /dev/full
        except OSError:
            pytest.skip("only root makes devices")
        err = refused(capsys, "solve", losses, "--out", device, "--replace")
        assert f"--out {device} is a device, a pipe or a socket" in err
        assert stat.S_ISCHR(device.stat().st_mode)

    def test_every_writer_refuses_a_pipe(self, capsys, losses, pipe, tmp_path):
        for option in ("solve", "--out"), ("bench", "--plot"):
            command, name = option
            err = refused(capsys, command, losses, name, pipe, "--replace")
            assert f"{name} {pipe} is a device, a pipe or a socket" in err
        with pytest.raises(MixsolveError, match="a pipe or a socket"):
            write_text(pipe, "text")
        with pytest.raises(MixsolveError, match="a pipe or a socket"):
            plots.save(plots.accuracy_bars([plots.AccuracyBar("a", 0.5)]), pipe)
        with pytest.raises(MixsolveError, match="a pipe or a socket"):
            check_folder(tmp_path, [pipe.name], True, "--replace")
        link = tmp_path / "link.png"
        link.symlink_to(pipe)
        with pytest.raises(MixsolveError, match="a pipe or a socket"), written_aside(link):
            pass
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "link.png", "pipe.png"]

    def test_writers_of_the_plugin(self, pipe, tmp_path):
        torch = pytest.importorskip("torch")
        from mixsolve_torch import Mixture, build_losses
        from mixsolve_torch.runs import checkpoint

        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
        with pytest.raises(MixsolveError, match="a pipe or a socket"):
            Mixture([model]).export(pipe, images, replace=True)
        with pytest.raises(MixsolveError, match="a pipe or a socket"):
            checkpoint.save({"step": 1}, pipe)
        out = tmp_path / "pipe.npy"
        pipe.rename(out)
        with pytest.raises(MixsolveError, match="a pipe or a socket"):
            build_losses(Mixture([model]), (images, labels), [], out=out, overwrite=True)
        assert stat.S_ISFIFO(out.stat().st_mode)


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a.txt", tmp_path / "a.txt"
    link.symlink_to(target)
    for text in ("first", "second"):
        write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["a.txt"]


def test_a_link_to_nothing_is_not_overwritten_silently(tmp_path):
    link = tmp_path / "a.txt"
    link.symlink_to(tmp_path / "missing.txt")
    with pytest.raises(MixsolveError, match="out exists: do so"):
        check_output(link, "out", replace=False, mend="do so")


def test_the_option_is_named(capsys, losses, tmp_path):
    picture = tmp_path / "gap.png"
    picture.write_text("precious")
    err = refused(capsys, "bench", losses, "--plot", picture)
    assert f"--plot {picture} exists: give --replace" in err
    assert "--out" not in err
    assert "--plot" in refused(capsys, "bench", losses, "--plot", tmp_path / "none" / "gap.png")


def test_a_picture_of_no_format_is_refused_before_the_work(capsys, losses, tmp_path):
    for name in ("gap.txt", "gap"):
        err = refused(capsys, "bench", losses, "--plot", tmp_path / name)
        assert "--plot must end in .png" in err
