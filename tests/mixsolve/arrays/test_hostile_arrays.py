"""Files of losses that lead elsewhere: to other files, in circles, to far more than they take."""

import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

import mixsolve
from mixsolve.arrays import stores
from mixsolve.arrays.files import load_array, load_arrays
from mixsolve.base.errors import MixsolveError
from mixsolve.commands.main import main

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")

LOSSES = np.random.default_rng(0).random((20, 4, 3))


@pytest.fixture
def secret(tmp_path):
    """A file that is none of the losses, of 160 bytes."""
    path = tmp_path / "secret"
    path.write_bytes(bytes(range(160)))
    return path


def assert_refused(path, message, capsys):
    with pytest.raises(MixsolveError, match=message):
        load_arrays(path, "losses")
    assert main(["solve", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert len(told) < 1500


# HDF5


def test_numbers_that_lie_in_another_file(tmp_path, secret, capsys):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("losses", (5, 2, 2), "f8", external=[(str(secret), 0, 160)])
    with h5py.File(path) as file:
        assert file["losses"][0, 0, 0] == np.frombuffer(secret.read_bytes(), "f8")[0]  # it is read
    assert_refused(path, r"holds losses, a dataset whose numbers lie in .*secret, and", capsys)


@pytest.mark.parametrize("deep", ["", "a/b/"])
def test_links_to_another_file(tmp_path, capsys, deep):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["group/losses"] = LOSSES
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file[f"{deep}losses"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "group/losses")
    assert_refused(path, rf"holds {deep}losses, a link to .*other\.h5, and other files", capsys)
    with h5py.File(path, "w") as file:
        file["z"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "group")
        file[f"{deep}a"] = h5py.SoftLink("/z/losses")
    assert_refused(path, r"holds .*, a link to .*other\.h5, and other files", capsys)


def test_virtual_datasets(tmp_path, capsys):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["losses"] = LOSSES
    for source, allowed in ((str(tmp_path / "other.h5"), False), (".", True)):
        path = tmp_path / f"{allowed}.h5"
        layout = h5py.VirtualLayout((20, 4, 3), "f8")
        layout[:] = h5py.VirtualSource(source, "losses" if not allowed else "own", (20, 4, 3))
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("losses", layout)
            file["own"] = LOSSES
        if allowed:
            assert np.array_equal(load_array(path, "losses")[:], LOSSES)
        else:
            assert_refused(path, r"a virtual dataset of .*other\.h5", capsys)


def test_links_within_the_file_are_followed_and_circles_entered_once(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/b/losses"] = LOSSES
        file["alias"] = h5py.SoftLink("/a/b/losses")
        file["twin"] = file["a/b"]
        file["a/b/up"] = file["a"]  # a hard link to the group that it lies in
        file["a/soft"] = h5py.SoftLink("/a")
        file["a/root"] = h5py.SoftLink("/")
        file["dangling"] = h5py.SoftLink("/nowhere")
    found = load_arrays(path, "losses")
    assert {"a/b/losses", "alias", "twin/losses"} <= set(found)
    assert len(found) < 20
    for array in found.values():
        assert np.array_equal(array[:], LOSSES)


def test_groups_that_are_many_by_links_alone(tmp_path, capsys):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(40):  # 2**40 paths
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
        group["losses"] = LOSSES
    assert_refused(path, r"has links that lead to one group, a/.*, by more than 16 paths", capsys)


def test_groups_within_groups_of_any_depth(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["/".join(["g"] * 2000) + "/losses"] = LOSSES
    assert np.array_equal(load_array(tmp_path / "x.h5", "losses")[:], LOSSES)


# Zarr


def test_a_store_with_symbolic_links(tmp_path, secret, capsys):
    store = tmp_path / "x.zarr"
    zarr.create_array(str(store), data=LOSSES[:5, :, :1], compressors=None)
    chunk = next(path for path in store.rglob("*") if path.is_file() and "json" not in path.name)
    chunk.unlink()
    chunk.symlink_to(secret)
    assert_refused(store, r"holds the symbolic link c.*, and what lies elsewhere", capsys)
    chunk.unlink()
    (store / "loop").symlink_to(store)
    assert_refused(store, "holds the symbolic link loop", capsys)
    (store / "loop").unlink()
    (tmp_path / "by_link.zarr").symlink_to(store)
    assert load_array(tmp_path / "by_link.zarr", "losses").shape == (5, 4, 1)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def test_a_store_of_pickles(tmp_path, capsys, monkeypatch):
    numcodecs = pytest.importorskip("numcodecs")
    # Newer versions unpickle only when told to; older ones always do.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    marker, store = tmp_path / "marker", tmp_path / "x.zarr"
    store.mkdir()
    described = {"zarr_format": 2, "shape": [4], "chunks": [4], "dtype": "|O", "order": "C"}
    codecs = [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 2}]
    described |= {"compressor": None, "fill_value": "", "filters": codecs}
    (store / ".zarray").write_text(json.dumps(described))
    (store / "0").write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(MixsolveError, match="as pickled objects, and to read one"):
        np.asarray(load_array(store, "losses"))
    assert main(["solve", str(store)]) == 2
    assert not marker.exists()
    with pytest.raises(Exception, match=r".*"):
        zarr.open(str(store), mode="r")[:]
    if not marker.exists():
        pytest.skip("this zarr would not have unpickled it")


def test_stores_of_both_versions_are_read(tmp_path):
    for version in (2, 3):
        store = tmp_path / f"{version}.zarr"
        zarr.create_array(str(store), data=LOSSES, zarr_format=version)
        assert np.array_equal(load_array(store, "losses")[:], LOSSES)


# Archives


def bomb(path, n_bytes):
    """A compressed array of zeros, written without holding them."""
    header = {"descr": "<f8", "fortran_order": False, "shape": (n_bytes // 8 // 4, 2, 2)}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("losses.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        part = bytes(1 << 20)
        for _ in range(n_bytes >> 20):
            member.write(part)


def test_an_archive_that_unpacks_to_far_more(tmp_path, capsys, monkeypatch):
    path = tmp_path / "x.npz"
    bomb(path, 64 << 20)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr("mixsolve.base.files.UNPACKED_BYTES", 32 << 20)
    tracemalloc.start()
    try:
        assert_refused(path, r"unpack to 67,1\d\d,\d+, above the cap of 33,554,432", capsys)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr("mixsolve.base.files.UNPACKED_BYTES", 1 << 30)
    assert load_array(path, "losses").shape == (2 << 20, 2, 2)


def test_what_is_not_packed_has_no_cap(tmp_path, monkeypatch):
    monkeypatch.setattr("mixsolve.base.files.UNPACKED_BYTES", 10)
    monkeypatch.setattr("mixsolve.base.files.UNPACKED_RATIO", 1)
    np.savez(tmp_path / "x.npz", losses=LOSSES)
    assert np.array_equal(load_array(tmp_path / "x.npz", "losses"), LOSSES)


def test_a_message_about_many_arrays_is_short(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", **{f"array_{i}": LOSSES for i in range(2000)})
    with pytest.raises(MixsolveError, match=r"its arrays are: .* and 1,992 more"):
        load_array(tmp_path / "x.npz", "losses")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for i in range(2):
            file["n" * 10_000 + str(i)] = LOSSES
    assert main(["solve", str(tmp_path / "x.h5")]) == 2
    assert len(capsys.readouterr().err) < 1500


def test_the_answer_is_that_of_memory(tmp_path):
    """What is refused above is what leads elsewhere, not the format."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["losses"] = LOSSES
    expected = mixsolve.solve(LOSSES).value
    assert mixsolve.solve(load_array(tmp_path / "x.h5", "losses")).value == pytest.approx(expected)
    assert stores.is_hdf5(tmp_path / "x.h5")
