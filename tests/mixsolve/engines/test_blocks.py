"""Tensors in files: every kind gives the answer of memory, is read ahead, and fails in words."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from reference import check_certificate

import mixsolve
from mixsolve import games
from mixsolve.arrays import files as arrays
from mixsolve.arrays import read_ahead as reading
from mixsolve.arrays import stores, tensor
from mixsolve.arrays.interop import ArraySource, array_source
from mixsolve.base import threads
from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve.base.tuning import tuning
from mixsolve.commands.main import main
from mixsolve.engines import as_loss_tensor
from mixsolve.engines.deferred import DeferredStrategy
from mixsolve.engines.distinct import keep_rows
from mixsolve.engines.memory import MemoryEngine
from mixsolve.methods import presolve

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")

GAMES = {
    "float32": games.gamma_game(90, 7, 4, seed=3, dtype=np.float32).losses,
    "uint8": games.paper2d(90, 30, 5, seed=1).losses,
    "bool": games.paper2d(90, 30, 5, seed=2).losses.astype(bool),
    "float16": games.gamma_game(90, 7, 4, seed=4, dtype=np.float16).losses,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """What a file of gigabytes is treated like, for one of kilobytes."""
    monkeypatch.setattr(tuning, "kept_bytes", 0)
    monkeypatch.setattr(tuning, "file_block_bytes", 1 << 10)
    monkeypatch.setattr(tuning, "chunk_entries", 256)


def zarr_array(path, losses, chunk=16):
    array = zarr.open(
        str(path), mode="w", shape=losses.shape, chunks=(chunk, 5, 3), dtype=losses.dtype
    )
    array[:] = losses
    return array


def hdf5_file(path, losses, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("losses", data=losses, **options)


def npy(path, losses):
    np.save(path.with_suffix(".npy"), losses)
    return path.with_suffix(".npy")


def fortran_npy(path, losses):
    return npy(path, np.asfortranarray(losses))


def big_endian_npy(path, losses):
    return npy(path, losses.astype(losses.dtype.newbyteorder(">")))


def npz(path, losses):
    np.savez(path.with_suffix(".npz"), losses=losses)
    return path.with_suffix(".npz")


def compressed_npz(path, losses):
    np.savez_compressed(path.with_suffix(".npz"), losses=losses)
    return path.with_suffix(".npz")


def zarr_store(path, losses):
    zarr_array(path.with_suffix(".zarr"), losses)
    return path.with_suffix(".zarr")


def hdf5(path, losses):
    hdf5_file(path.with_suffix(".h5"), losses)
    return path.with_suffix(".h5")


def chunked_hdf5(path, losses):
    hdf5_file(path.with_suffix(".hdf5"), losses, chunks=(16, 5, 3), compression="gzip")
    return path.with_suffix(".hdf5")


KINDS = {
    write.__name__: write
    for write in (
        npy,
        fortran_npy,
        big_endian_npy,
        npz,
        compressed_npz,
        zarr_store,
        hdf5,
        chunked_hdf5,
    )
}


@pytest.mark.parametrize("alpha", [0.0, 0.05])
@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_answer_of_memory(tmp_path, kind, game, alpha):
    losses = GAMES[game]
    expected = mixsolve.solve(losses, alpha, tol=1e-9)
    stored = arrays.load_array(KINDS[kind](tmp_path / "x", losses), "losses")
    opened, _ = as_loss_tensor(stored)
    assert opened.elsewhere
    assert opened.dtype == tensor.kernel_dtype(losses.dtype)
    found = mixsolve.solve(stored, alpha, tol=1e-9)
    check_certificate(found, losses.astype(np.float64), alpha)
    assert found.success
    assert type(found.weights) is np.ndarray
    assert found.value == pytest.approx(expected.value, abs=1e-9 * expected.spread)
    assert not [thread for thread in threading.enumerate() if "mixsolve-read" in thread.name]


@pytest.mark.parametrize("kind", ["npz", "compressed_npz", "zarr_store", "hdf5"])
def test_the_command_line_reads_every_kind(tmp_path, capsys, kind):
    losses = GAMES["uint8"]
    assert main(["solve", str(KINDS[kind](tmp_path / "x", losses)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == list(losses.shape)
    assert found["value"] == pytest.approx(mixsolve.solve(losses).value, abs=1e-6)


def test_options_stand_beside_the_losses_in_their_group(tmp_path, capsys):
    game = games.line_game()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["losses"] = 1.0 - game.losses
        file["deep/down/losses"] = game.losses
        file["deep/down/sample_weight"] = game.sample_weight
    store = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    for name, array in (("losses", game.losses), ("sample_weight", game.sample_weight)):
        make = store.require_group("deep").require_group("down")
        create = getattr(make, "create_array", None) or make.create_dataset  # version 3, or 2
        create(name, shape=array.shape, dtype=array.dtype)[:] = array
    for path in (tmp_path / "x.h5", tmp_path / "x.zarr"):
        assert main(["solve", str(path), "--dataset", "/deep/down/losses", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(0.75)
    assert main(["solve", str(tmp_path / "x.h5"), "--dataset", "nowhere"]) == 2
    assert "deep/down/losses" in capsys.readouterr().err
    assert main(["solve", str(tmp_path / "x.zarr")]) == 2
    assert "--dataset" in capsys.readouterr().err


class Source:
    """A file that tells who reads which samples when, and can be told to fail."""

    def __init__(self, losses, chunk=8):
        self.losses, self.chunk = losses, chunk
        self.shape, self.dtype = losses.shape, losses.dtype
        self.reads = []
        self.fail_from = None

    def __getitem__(self, samples):
        self.reads.append((samples.start, samples.stop, threading.current_thread().name))
        if self.fail_from is not None and samples.stop > self.fail_from:
            raise OSError("the disk is gone")
        return self.losses[samples]

    def open(self):
        source = ArraySource(self, lambda part: part, lambda weights: weights, None, self.chunk)
        return tensor.LossTensor.from_source(source)


def engine_of(opened):
    nothing = np.empty(0)
    weight = np.full(opened.n_samples, 1.0 / opened.n_samples)
    return MemoryEngine(opened, weight, nothing.astype(np.uint8), nothing)


def test_the_next_block_is_read_while_one_is_worked_on():
    source = Source(GAMES["float32"])
    blocks = source.open().blocks(0, 90)
    for _, stop, _ in blocks:
        if stop == 90:
            break
        pause = threading.Event()
        for _ in range(5000):  # of a millisecond, or more: no thread is that slow
            if source.reads[-1][0] == stop or pause.wait(0.001):
                break
        assert source.reads[-1][0] == stop
    blocks.close()
    assert [first for first, _, _ in source.reads] == sorted(
        {first for first, _, _ in source.reads}
    )
    assert all(name.startswith("mixsolve-read") for _, _, name in source.reads)
    assert threading.current_thread().name not in {name for _, _, name in source.reads}


def test_no_chunk_of_the_file_is_read_twice_a_pass():
    source = Source(GAMES["float32"], chunk=16)
    engine = engine_of(source.open())
    assert engine._bounds.size > 3
    for work in (lambda: engine.best_response(np.full(4, 0.25)), engine.scan):
        source.reads.clear()
        work()
        starts = sorted(first for first, _, _ in source.reads)
        assert all(first % 16 == 0 for first in starts)
        assert len(starts) == len(set(starts))
        assert sum(stop - first for first, stop, _ in source.reads) == 90


def test_rows_are_taken_from_the_blocks_that_have_them_and_no_other():
    source = Source(GAMES["float32"])
    engine = engine_of(source.open())
    source.reads.clear()
    before = engine.n_passes
    samples, candidates = np.array([3, 3, 70]), np.array([0, 6, 2])
    rows = engine.gather(samples, candidates)
    assert np.array_equal(rows, source.losses[samples, candidates])
    read = sum(stop - first for first, stop, _ in source.reads)
    assert read < 40
    assert engine.n_passes - before == pytest.approx(read / 90)


def test_a_map_is_announced_one_block_ahead(tmp_path, monkeypatch):
    path = npy(tmp_path / "x", GAMES["float32"])
    expected = []
    advise = reading.MappedFile.expect

    def note(self, block):
        expected.append((reading._address(block) - self._origin, block.nbytes))
        advise(self, block)

    monkeypatch.setattr(reading.MappedFile, "expect", note)
    opened, _ = as_loss_tensor(np.load(path, mmap_mode="r"))
    offsets = []
    for start, stop, rows in opened.blocks(0, 90):
        assert len(expected) == len(offsets) + (stop < 90)
        offsets.append(path.stat().st_size - GAMES["float32"][start:].nbytes)
        assert np.array_equal(rows.reshape(-1, 7, 4), GAMES["float32"][start:stop])
    assert len(offsets) > 5
    assert [place for place, _ in expected] == offsets[1:]


def test_what_a_reader_raises_reaches_the_caller_and_leaves_no_thread():
    source = Source(GAMES["float32"])
    engine = engine_of(source.open())
    source.fail_from = 50
    before = threading.active_count()
    with pytest.raises(MixsolveError, match=r"samples 48 to 55 .*the disk is gone") as caught:
        for _ in engine.tensor.blocks(0, 90):
            pass
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(MixsolveError, match="the disk is gone"):
        engine.best_response(np.full(4, 0.25))
    assert threading.active_count() <= before + threads.n_threads() - 1
    assert not [thread for thread in threading.enumerate() if "mixsolve-read" in thread.name]


def test_an_interrupt_ends_all_shares(monkeypatch):
    """One share is interrupted; the others stop at their next block instead of going on."""
    monkeypatch.setattr(threads, "n_threads", lambda: 3)
    pool = threads.ThreadPoolExecutor(2)
    monkeypatch.setattr(threads, "_pool", lambda _: pool)
    source = Source(np.zeros((3000, 4, 4), np.float32), chunk=1)
    engine = engine_of(source.open())
    source.reads.clear()

    def work(chunk, start, stop, rows):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        threading.Event().wait(0.002)

    with pytest.raises(KeyboardInterrupt):
        engine.each_block(work)
    assert sum(stop - first for first, stop, _ in source.reads) < 1000
    assert not [thread for thread in threading.enumerate() if "mixsolve-read" in thread.name]
    pool.shutdown()


def test_the_gibbs_attack_on_a_file_is_computed_when_looked_at(tmp_path):
    losses = GAMES["uint8"]
    expected = mixsolve.solve(losses, 0.05).attack
    found = mixsolve.solve(np.load(npy(tmp_path / "x", losses), mmap_mode="r"), 0.05).attack
    assert isinstance(found, DeferredStrategy)
    assert len(found) == 90
    assert "candidates" not in vars(found)
    assert not hasattr(found, "nothing")
    np.testing.assert_allclose(found.dense(), expected.dense(), atol=1e-6)
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.candidates, found.candidates)


@pytest.mark.parametrize("write", [npy, zarr_store, hdf5, chunked_hdf5])
def test_a_nan_in_the_middle_is_named(tmp_path, write):
    losses = GAMES["float32"].copy()
    losses[61, 4, 2] = np.nan
    stored = arrays.load_array(write(tmp_path / "x", losses), "losses")
    with pytest.raises(MixsolveError, match=r"got nan first at index \(61, 4, 2\)"):
        mixsolve.solve(stored)


@pytest.mark.parametrize("left", [0, 3, 40, 130, 5000])
def test_a_truncated_npy_file(tmp_path, capsys, left):
    path = npy(tmp_path / "x", GAMES["float32"])
    os.truncate(path, left)
    assert main(["solve", str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert ("it is truncated" in error) == (left >= 130)
    assert error.count("\n") == 1


@pytest.mark.parametrize("write", [npz, compressed_npz])
@pytest.mark.parametrize("left", [10, 300, -30])
def test_a_truncated_npz_file(tmp_path, capsys, write, left):
    path = write(tmp_path / "x", GAMES["float32"])
    os.truncate(path, left if left > 0 else path.stat().st_size + left)
    assert main(["solve", str(path)]) == 2
    assert "truncated" in capsys.readouterr().err.replace(str(path), "")


def test_a_compressed_member_that_is_damaged(tmp_path, capsys):
    path = compressed_npz(tmp_path / "x", GAMES["float32"])
    with zipfile.ZipFile(path) as archive:
        middle = archive.infolist()[0].header_offset + archive.infolist()[0].compress_size // 2
    with path.open("r+b") as file:
        file.seek(middle)
        file.write(b"\x00" * 64)
    assert main(["solve", str(path)]) == 2
    assert "not a readable" in capsys.readouterr().err


def test_a_compressed_member_without_room_on_disk(tmp_path, monkeypatch):
    path = compressed_npz(tmp_path / "x", GAMES["float32"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(MixsolveError, match=r"unpacked.*No space left.*TMPDIR"):
        arrays.load_array(path, "losses")


def test_a_compressed_member_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    stored = arrays.load_array(compressed_npz(tmp_path / "x", GAMES["float32"]), "losses")
    assert isinstance(stored, np.memmap)
    assert np.array_equal(stored, GAMES["float32"])
    assert not list((tmp_path / "temporary").iterdir())


def test_a_file_that_shrinks_while_it_is_mapped(tmp_path):
    path = npy(tmp_path / "x", GAMES["float32"])
    engine = engine_of(as_loss_tensor(np.load(path, mmap_mode="r"))[0])
    os.truncate(path, 4096)
    with pytest.raises(MixsolveError, match="has shrunk to 4096 bytes"):
        engine.best_response(np.full(4, 0.25))


def test_datasets_of_two_axes_are_one_candidate_a_sample(tmp_path):
    losses = GAMES["float32"]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["clean"] = losses[:, 0]
        check_certificate(mixsolve.solve(file["clean"]), losses[:, :1])


def test_datasets_that_are_no_loss_tensor(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["flat"] = np.zeros(4)
        file["words"] = np.full((2, 2, 2), b"x", dtype="S1")
        file["empty"] = h5py.Empty("f4")
        file["one"] = 1.0
        for name, words in (
            ("flat", r"three axes .* \(4,\)"),
            ("words", "real numbers"),
            ("empty", "without a shape"),
            ("one", "three axes"),
        ):
            with pytest.raises(MixsolveError, match=words):
                mixsolve.solve(file[name])
        kept = file["flat"]
    with pytest.raises(MixsolveError, match="closed file"):
        mixsolve.solve(kept)


def test_a_chunk_that_cannot_be_unpacked(tmp_path):
    losses = GAMES["float32"]
    path = tmp_path / "x.zarr"
    zarr_array(path, losses)
    assert mixsolve.solve(zarr.open(str(path), mode="r")).success
    chunks = [file for file in path.rglob("*") if file.is_file() and "zarr" not in file.name]
    chunks = [file for file in chunks if not file.name.startswith(".")]
    for file in chunks:
        file.write_bytes(b"\x00nonsense")
    with pytest.raises(
        MixsolveError, match=r"samples \d+ to \d+ could not be read from their file"
    ):
        mixsolve.solve(zarr.open(str(path), mode="r"))


@pytest.mark.parametrize("ending", [".h5", ".zarr"])
def test_files_that_are_not_what_they_are_called(tmp_path, capsys, ending):
    path = tmp_path / f"x{ending}"
    if ending == ".h5":
        path.write_bytes(b"nothing of the kind")
    else:
        path.mkdir()
    assert main(["solve", str(path)]) == 2
    assert "not a readable" in capsys.readouterr().err
    assert main(["solve", str(tmp_path / f"missing{ending}")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("package", "write"), [("h5py", hdf5), ("zarr", zarr_store)])
def test_a_missing_package_is_named_with_the_command(tmp_path, monkeypatch, package, write):
    path = write(tmp_path / "x", GAMES["float32"])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingDependencyError, match=rf"{package}.*pip install 'mixsolve\[files\]'"
    ):
        arrays.load_array(path, "losses")
    assert stores.is_zarr(path) == (package == "zarr")


def test_where_advice_is_unknown_maps_are_read_all_the_same(tmp_path, monkeypatch):
    path = npy(tmp_path / "x", GAMES["float32"])
    monkeypatch.setattr(reading, "_WILL_NEED", None)
    assert mixsolve.solve(np.load(path, mmap_mode="r")).success
    monkeypatch.setattr(reading, "_WILL_NEED", 12345)  # refused by the system: a hint, no more
    assert mixsolve.solve(np.load(path, mmap_mode="r")).success


def test_a_map_that_is_not_of_a_whole_file(tmp_path):
    """The offset of the map counts, and views of one are known for what they are."""
    whole = np.load(npy(tmp_path / "x", GAMES["float32"]), mmap_mode="r")
    assert array_source(whole[10:]).stored_together == 1
    assert reading.MappedFile.of(np.zeros(3)) is None
    found = mixsolve.solve(whole[10:])
    assert found.value == pytest.approx(mixsolve.solve(GAMES["float32"][10:]).value, abs=1e-6)


def test_presolve_keeps_within_its_memory(monkeypatch):
    losses = GAMES["uint8"]
    kept = presolve.reduce(engine_of(as_loss_tensor(losses)[0]), None)
    assert kept is not None
    monkeypatch.setattr(tuning, "distinct_bytes", 1 << 10)
    engine = engine_of(as_loss_tensor(losses)[0])
    assert presolve.reduce(engine, None) is None
    assert engine.n_passes == 1.0  # a few samples told, and no pass was spent on it
    assert keep_rows(engine_of(as_loss_tensor(losses)[0]), True, 1.0) is None
    assert mixsolve.solve(losses).success


_MEASURED = """
import sys, threading
import numpy as np
import mixsolve
from mixsolve.base.tuning import tuning
from mixsolve.methods import working_set
def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024
path, alpha, share = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
scale = share / 1e9  # of all budgets: what a gigabyte is to a file of eight
tuning.file_block_bytes = 1 << 18
tuning.kept_bytes = 0
working_set._MAX_BYTES = int(scale * working_set._MAX_BYTES)
working_set._SUBSAMPLE_BYTES = int(scale * working_set._SUBSAMPLE_BYTES)
tuning.distinct_bytes = int(scale * tuning.distinct_bytes)
losses = np.load(path, mmap_mode="r")
for _ in range(2):  # the second: kernels are loaded, and the allocator has its pools
    solution = mixsolve.solve(losses[:2000], alpha)
start = peak = anonymous()
done = threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
solution = mixsolve.solve(losses, alpha)
done.set(); watcher.join()
print(peak - start, solution.value, solution.gap, solution.success)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")
@pytest.mark.parametrize(("kind", "alpha"), [("float32", 0.0), ("uint8", 0.05)])
def test_private_memory_stays_below_an_eighth_of_the_file(tmp_path, kind, alpha):
    """Of 48 MB, from samples repeated eight times, which are as good as others here."""
    if kind == "float32":
        some = games.gamma_game(1_500, 100, 10, seed=0, dtype=np.float32).losses
    else:
        some = games.paper2d(750, 800, 10, seed=0).losses
    path = npy(tmp_path / "x", np.concatenate([some] * 8))
    share = some.nbytes
    expected = mixsolve.solve(some, alpha)
    command = [sys.executable, "-c", _MEASURED, str(path), str(alpha), str(share)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown, value, gap, success = done.stdout.split()
    assert success == "True"
    assert float(value) == pytest.approx(expected.value, abs=expected.gap + float(gap) + 1e-12)
    assert int(grown) <= share


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_an_interrupted_command_says_so_in_one_line(tmp_path):
    """The reader of the file interrupts its own process in the middle of a pass."""
    code = (
        "import os, signal, sys, threading\n"
        "from mixsolve.arrays import tensor\n"
        "from mixsolve.base.tuning import tuning\n"
        "from mixsolve.commands import main as cli\n"
        "tuning.kept_bytes, tuning.file_block_bytes = 0, 1 << 10\n"
        "plain = tensor.LossTensor._arranged\n"
        "def arranged(self, samples):\n"
        "    if samples[0] > 40:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return plain(self, samples)\n"
        "tensor.LossTensor._arranged = arranged\n"
        "code = cli.main(sys.argv[1:])\n"
        "left = [t.name for t in threading.enumerate() if t.name.startswith('mixsolve-read')]\n"
        "print(code, left)\n"
    )
    path = hdf5(tmp_path / "x", GAMES["float32"])
    command = [sys.executable, "-c", code, "solve", str(path), "--alpha", "0.05"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stdout.split(maxsplit=1) == ["130", "[]\n"]
    assert done.stderr == "mixsolve solve: error: interrupted\n"


def test_a_file_that_is_in_memory_is_not_announced(tmp_path, monkeypatch):
    class Pages:
        def __init__(self):
            self.advised = 0

        def madvise(self, *arguments):
            self.advised += 1

    rows = np.load(npy(tmp_path / "x", GAMES["float32"]), mmap_mode="r")
    mapped = reading.MappedFile.of(rows)
    mapped._pages = Pages()
    reads = iter([7] * 20 + [8] * 20 + list(range(9, 19)))
    monkeypatch.setattr(reading, "_reads", lambda: next(reads))
    announced = []
    for _ in range(50):
        before = mapped._pages.advised
        mapped.expect(rows[:10])
        announced.append(mapped._pages.advised > before)
    quiet = [True] * (reading._PATIENCE + 1) + [False] * (19 - reading._PATIENCE)
    assert announced == [*quiet, *quiet, *[True] * 10]
