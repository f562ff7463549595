"""Every method on every engine: wherever the losses are, the answer is the one in memory."""

import warnings
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from corpus import seeds
from in_process_shards import ShardedLosses
from ranks import run_ranks
from reference import check_certificate

import mixsolve
from mixsolve import games
from mixsolve.base.tuning import tuning
from mixsolve.methods import METHODS
from mixsolve_torch import TorchLosses, solve_distributed

TOLERANCE = 1e-9
SOLVES = [
    (name, alpha)
    for name, method in METHODS.items()
    for alpha in ([0.0] if method.exact else []) + ([0.05] if method.entropic else [])
]
GAMES = {
    "gamma": games.gamma_game(120, 7, 4, seed=3).losses,
    "float32": games.gamma_game(90, 5, 3, seed=4).losses.astype(np.float32),
    "bits": games.paper2d(100, 30, 5, seed=5).losses,
    "one sample": games.random_matrix_game(6, 4, seed=6).losses,
    "one candidate": games.gamma_game(50, 1, 3, seed=7).losses,
    "one classifier": games.gamma_game(50, 4, 1, seed=8).losses,
}
# Algorithm 1 goes to either side of a tie as rounding says, so that two sums in another order part.
TIED = {("oracle", "bits")}
RANK_CUTS = [40, 40]  # the second of three ranks has nothing


def options_of(method):
    return {"max_iter": 20} if method == "oracle" else {}


@contextmanager
def unfinished():
    """A solve that is cut short says so; here that is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mixsolve.ConvergenceWarning)
        yield


def solved(losses, method, alpha, solve=mixsolve.solve):
    with unfinished():
        return solve(
            losses, alpha, method=method, **({"max_iter": 20} if method == "oracle" else {})
        )


@cache
def in_memory(game, method, alpha):
    return solved(GAMES[game], method, alpha)


def strided(losses, folder):
    return np.repeat(losses, 2, axis=1)[:, ::2]


def mapped(losses, folder):
    np.save(folder / "losses.npy", losses)
    return np.load(folder / "losses.npy", mmap_mode="r")


def zarr(losses, folder):
    library = pytest.importorskip("zarr")
    chunks = (min(16, losses.shape[0]), *losses.shape[1:])
    store = library.open(
        str(folder / "x.zarr"), mode="w", shape=losses.shape, dtype=losses.dtype, chunks=chunks
    )
    store[:] = losses
    return store


def hdf5(losses, folder):
    library = pytest.importorskip("h5py")
    with library.File(folder / "x.h5", "w") as file:
        file.create_dataset("losses", data=losses, chunks=True, compression="gzip")
    return library.File(folder / "x.h5")["losses"]


def sharded(losses, folder):
    cuts = [losses.shape[0] // 3, losses.shape[0] // 3, losses.shape[0] // 2]
    return ShardedLosses(losses, cuts)


def device(losses, folder):
    return TorchLosses(torch.from_numpy(losses), chunk=64)


def dask(losses, folder):
    array = pytest.importorskip("dask.array")
    from mixsolve.engines.dask import DaskLosses

    return DaskLosses(array.from_array(losses, chunks=(max(1, losses.shape[0] // 3), -1, -1)))


PLACES = [strided, mapped, zarr, hdf5, sharded, device, dask]


# One game with every method in every place; others with the methods that most solves use.
ALWAYS = [
    (game, method, alpha)
    for game in GAMES
    for method, alpha in SOLVES
    if game == "gamma" or method in ("lp", "newton")
]
CASES = seeds(
    ALWAYS + [(game, *solve) for game in GAMES for solve in SOLVES if (game, *solve) not in ALWAYS],
    quick=len(ALWAYS),
)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize(("game", "method", "alpha"), CASES)
def test_the_answer_is_the_one_in_memory(game, place, method, alpha, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "kept_bytes", 0)  # nothing is small enough to be copied once
    losses = place(GAMES[game], tmp_path)
    agree(solved(losses, method, alpha), game, method, alpha)


def agree(found, game, method, alpha):
    expected = in_memory(game, method, alpha)
    tied = (method, game) in TIED
    unit = max(expected.spread, 1e-300)
    close = found.gap + expected.gap if tied else TOLERANCE * unit
    assert abs(found.value - expected.value) <= close
    assert found.status == expected.status or tied
    if method != "oracle":
        check_certificate(found, GAMES[game], alpha)
        assert found.success
    if game == "gamma":  # elsewhere the optimal weights may not be unique
        np.testing.assert_allclose(np.asarray(found.weights), expected.weights, atol=1e-9)


def every_solve(rank):
    """All solves on three ranks, one of them without samples."""
    answers = {}
    for game, losses in GAMES.items():
        cuts = [min(cut, losses.shape[0]) for cut in RANK_CUTS]
        share = torch.from_numpy(np.split(losses, cuts)[rank])
        for method, alpha in SOLVES:
            answers[game, method, alpha] = solved(share, method, alpha, solve_distributed)
    return answers


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory):
    for game in GAMES:  # what is compiled for one process is found by the ranks
        for solve in SOLVES:
            in_memory(game, *solve)
    return run_ranks(3, every_solve, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(("method", "alpha"), SOLVES)
@pytest.mark.parametrize("game", GAMES)
def test_the_answer_of_ranks_is_the_one_in_memory(game, method, alpha, on_ranks):
    first, *others = (answers[game, method, alpha] for answers in on_ranks)
    agree(first, game, method, alpha)
    for other in others:
        assert np.array_equal(first.weights, other.weights)
        assert (first.value, first.lower_bound) == (other.value, other.lower_bound)
        assert np.array_equal(first.attack.probabilities, other.attack.probabilities)
