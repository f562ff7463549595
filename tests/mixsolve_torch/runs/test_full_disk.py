"""Disks that are full: every writer says which file it could not write, and leaves nothing half."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

import mixsolve
from mixsolve import plots
from mixsolve.base.errors import MixsolveError
from mixsolve.base.files import write_text
from mixsolve.commands.report import save as save_solution
from mixsolve_torch import PGD, Mixture, build_losses, digits_cnn, evaluate, grow, solve_game
from mixsolve_torch.commands.demo import DemoSettings, demo
from mixsolve_torch.commands.demo_images import PatchSettings

resource = pytest.importorskip("resource")
pytest.importorskip("matplotlib")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    # Compiled kernels find no room either.
    pytest.mark.filterwarnings("ignore:.*cannot be written"),
]

ATTACK = PGD("Linf", 0.1, steps=1)
PATCH = PatchSettings("digits", 3, train=40, validation=20, test=20, attacked=4, epochs=1)
QUICK = DemoSettings(epochs=1, images=20, steps=1, patch=PATCH)


@contextmanager
def full():
    """No file may grow beyond a few bytes, which systems answer like a full disk.

    Only while the block runs: what pytest prints may go to a file as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def work():
    draws = torch.Generator().manual_seed(0)
    data = torch.rand(20, 1, 8, 8, generator=draws), torch.arange(20) % 10
    mixture = Mixture([digits_cnn(seed=k, width=2).eval() for k in range(2)])
    return mixture, data, evaluate(mixture, data, ATTACK)


def export(work, folder):
    work[0].export(folder / "mixture.pt", work[1][0][:2])


def text(work, folder):
    write_text(folder / "file.txt", "x" * 1000)


def report(work, folder):
    work[2].to_json(folder / "report.json")


def picture(work, folder):
    work[2].plot(folder / "report.png")


def solution(work, folder):
    save_solution(work[2].solution, folder / "solution.npz", replace=False)


def losses(work, folder):
    build_losses(*work[:2], ATTACK, out=folder / "losses.npy")


def images(work, folder):
    build_losses(*work[:2], ATTACK, out=folder / "losses.npy", keep_inputs=True)


def game(work, folder):
    solve_game(*work[:2], ATTACK, out=folder)


def evaluation(work, folder):
    evaluate(*work[:2], ATTACK, out=folder)


def growth(work, folder):
    grow(*work[:2], ATTACK, epochs=1, folder=folder)


def shown(work, folder):
    demo(QUICK, folder)


@pytest.mark.parametrize(
    "write",
    [export, text, report, picture, solution, losses, images, game, evaluation, growth, shown],
)
def test_a_full_disk_is_told_and_nothing_half_is_left(write, work, tmp_path):
    plots.require_matplotlib()  # which may write a cache of fonts
    told = pytest.raises(MixsolveError, match=r"could not be written|cannot be (written|used)")
    with told, full():
        write(work, tmp_path)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    # Beginnings that the same call goes on from, and finished files.
    assert not [name for name in left if name.endswith(".new") or name.startswith(".")]
    assert not {"mixture.pt", "file.txt", "report.json", "solution.npz", "accuracy.png"} & set(left)


def test_a_demo_whose_losses_find_no_room_says_so(tmp_path, monkeypatch):
    def refuse(file, array):
        file.write(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", refuse)
    with pytest.raises(MixsolveError, match=r"losses\.npy could not be written: .*No space left"):
        demo(QUICK, tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if "losses" in path.name]


def test_what_was_there_is_still_there(work, tmp_path):
    for name in ("file.txt", "report.json", "report.png"):
        (tmp_path / name).write_text("precious")
    for write in (text, report, picture):
        with pytest.raises(MixsolveError), full():
            write(work, tmp_path)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"precious"}
    assert mixsolve.solve(work[2].losses).success
