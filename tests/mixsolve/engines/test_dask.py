"""Dask arrays on every scheduler: the answer is that in memory, and blocks stay where they are."""

import gc
import os
import pickle
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from corpus import seeds
from forked import CORE, forking
from reference import check_certificate

import mixsolve
from mixsolve import MixsolveError, MixsolveTypeError, games
from mixsolve.base.compilation import preparation, preparing
from mixsolve.base.tuning import tuning
from mixsolve.engines import MemoryLosses, as_loss_tensor, open_losses
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.shard_tasks import PartialResult
from mixsolve.methods import working_set

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

from mixsolve.arrays import dask_values  # noqa: E402
from mixsolve.engines import dask_cluster, dask_local, dask_tasks  # noqa: E402
from mixsolve.engines.dask import DaskLosses, whole_samples  # noqa: E402
from mixsolve.engines.dask_tasks import Call  # noqa: E402

LOSSES = games.gamma_game(60, 6, 3, seed=1).losses
CHUNKS = ((17, 20, 0, 23), (4, 2), (1, 2))
METHODS = [
    ("lp", 0.0),
    ("oracle", 0.0),
    ("interior-point", 0.0),
    ("cvxpy", 0.0),
    ("newton", 0.1),
    ("apg", 0.1),
    ("cvxpy", 0.1),
]
LIMITS = {"oracle": 12}
AGAIN = {"mixsolve.memory": "0 B"}
LOCAL = {
    "threads": {"scheduler": "threads"},
    "threads, blocks read again": {"scheduler": "threads", **AGAIN},
    "sync": {"scheduler": "sync"},
    "sync, blocks read again": {"scheduler": "sync", **AGAIN},
    "processes": {"scheduler": "processes"},
    "processes, blocks read again": {"scheduler": "processes", **AGAIN},
}
PLACES = [*LOCAL, "cluster"]
A_FEW = ["threads", "processes, blocks read again", "cluster"]
# Every method in a few places; in the others those that most solves use.
ALWAYS = [
    (place, *solve)
    for place in PLACES
    for solve in METHODS
    if place in A_FEW or solve[0] in ("lp", "newton")
]
OTHERS = [(place, *solve) for place in PLACES for solve in METHODS]
SOLVES = seeds(ALWAYS + [case for case in OTHERS if case not in ALWAYS], quick=len(ALWAYS))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """A small array is taken apart at its own chunks."""
    monkeypatch.setattr(tuning, "small_block", 1)


@pytest.fixture(scope="module")
def processes():
    from concurrent.futures import ProcessPoolExecutor

    from dask.multiprocessing import initialize_worker_process

    with ProcessPoolExecutor(2, forking(*CORE), initialize_worker_process) as pool:
        yield pool


@pytest.fixture(scope="module")
def cluster():
    config = {
        "distributed.admin.log-format": "%(message)s",
        "distributed.worker.profile.enabled": False,
        "distributed.worker.multiprocessing-method": forking(*CORE).get_start_method(),
    }
    with (
        dask.config.set(config),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        yield client
        nothing_is_left(client)


def nothing_is_left(client):
    """No future in use (what a caller lost is cancelled), no data on a worker, no task."""
    deadline = time.monotonic() + 10
    while True:
        gc.collect()
        futures = {key for key, state in client.futures.items() if state.status != "cancelled"}
        left = futures, client.who_has(), client.processing()
        if not any(left[:2]) and not any(left[2].values()):
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.fixture(params=PLACES)
def place(request):
    """Each scheduler in turn."""
    if request.param == "cluster":
        request.getfixturevalue("client")
        yield request.param
        return
    config = dict(LOCAL[request.param])
    if config["scheduler"] == "processes":
        config["pool"] = request.getfixturevalue("processes")
    with dask.config.set(config):
        yield request.param


def agrees(array, losses, alpha=0.0, method="auto", **options):
    """Solve a Dask array in place; the answer is that of the array in memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mixsolve.ConvergenceWarning)
        found = mixsolve.solve(DaskLosses(array), alpha, method=method, **options)
        known = mixsolve.solve(losses, alpha, method=method, **options)
    assert type(found.weights) is np.ndarray
    np.testing.assert_allclose(found.weights, known.weights, atol=1e-9)
    for name in ("value", "risk", "lower_bound", "risk_lower_bound", "spread"):
        np.testing.assert_allclose(getattr(found, name), getattr(known, name), atol=1e-9)
    assert (found.status, found.nit) == (known.status, known.nit)
    options = {
        name: options[name]
        for name in ("sample_weight", "candidate_mask", "candidate_prior")
        if name in options
    }
    check_certificate(found, np.asarray(losses, dtype=np.float64), alpha, **options)
    return found


@pytest.mark.parametrize(("place", "method", "alpha"), SOLVES, indirect=["place"])
def test_every_method_on_every_scheduler(place, method, alpha):
    array = da.from_array(LOSSES, chunks=CHUNKS)
    agrees(array, LOSSES, alpha, method, max_iter=LIMITS.get(method))


def rules(rng, n_samples, n_candidates):
    mask = rng.random((n_samples, n_candidates)) < 0.7
    mask[:, 2] = True
    return {
        "sample_weight": np.where(rng.random(n_samples) < 0.8, rng.random(n_samples), 0.0),
        "candidate_mask": mask,
    }


def test_weights_masks_measures_and_alpha_go_with_their_samples(place, rng):
    array = da.from_array(LOSSES, chunks=CHUNKS)
    given = rules(rng, 60, 6)
    agrees(array, LOSSES, 0.0, **given)
    alpha = rng.uniform(0.05, 0.5, 60)
    given["candidate_prior"] = rng.uniform(0.1, 1.0, (60, 6))
    agrees(array, LOSSES, alpha, **given)


@pytest.mark.parametrize("place", A_FEW, indirect=True)
def test_a_large_gibbs_strategy_is_computed_when_it_is_looked_at(place, rng, monkeypatch):
    monkeypatch.setattr(tuning, "sent_candidates", 359)
    array = da.from_array(LOSSES, chunks=CHUNKS)
    given = rules(rng, 60, 6) | {"candidate_prior": rng.uniform(0.1, 1.0, (60, 6))}
    alpha = rng.uniform(0.05, 0.5, 60)
    found = mixsolve.solve(DaskLosses(array), alpha, **given)
    known = mixsolve.solve(LOSSES, alpha, **given)
    assert len(found.attack) == 60
    assert "indptr" not in vars(found.attack)
    np.testing.assert_allclose(found.attack.dense(), known.attack.dense(), atol=1e-12)
    again = pickle.loads(pickle.dumps(found.attack))
    assert type(again) is mixsolve.MixedStrategy
    check_certificate(found, LOSSES, alpha, **given)
    monkeypatch.setattr(tuning, "sent_candidates", 360)
    here = mixsolve.solve(DaskLosses(array), alpha, **given).attack
    assert type(here) is mixsolve.MixedStrategy


@pytest.mark.parametrize("place", A_FEW, indirect=True)
@pytest.mark.parametrize("alpha", [0.0, 0.02])
def test_a_subsample_stays_where_its_samples_are(place, alpha, monkeypatch):
    monkeypatch.setattr(tuning, "subsample_bytes", 0)
    monkeypatch.setattr(working_set, "_FIRST_SUBSAMPLE", 100)
    losses = games.gamma_game(820, 3, 3, seed=3).losses
    agrees(da.from_array(losses, chunks=(300, 3, 3)), losses, alpha)


@pytest.mark.parametrize("place", A_FEW, indirect=True)
def test_two_valued_losses_are_condensed_where_they_are(place):
    losses = games.gamma_game(400, 12, 4, seed=2).losses > 0.8
    found = mixsolve.solve(DaskLosses(da.from_array(losses, chunks=(150, 5, 4))))
    known = mixsolve.solve(losses)
    np.testing.assert_allclose(found.value, known.value, atol=1e-9)
    check_certificate(found, losses.astype(float))


def test_a_small_array_is_computed_once(monkeypatch):
    array = da.from_array(LOSSES, chunks=CHUNKS)
    assert isinstance(open_losses(array), MemoryLosses)
    monkeypatch.setattr(tuning, "kept_bytes", LOSSES.nbytes - 1)
    assert isinstance(open_losses(array), DaskLosses)
    found = mixsolve.solve(array, 0.1)
    check_certificate(found, LOSSES, 0.1)
    assert type(found.weights) is np.ndarray


@pytest.mark.parametrize(
    ("chunks", "small", "large", "expected"),
    [
        ((17, 20, 0, 23), 1, 1 << 30, (17, 20, 23)),
        ((17, 20, 0, 23), 40, 1 << 30, (37, 23)),
        ((60,), 1, 25, (20, 20, 20)),
        ((1,) * 60, 30, 1 << 30, (30, 30)),
        ((0, 60), 1, 1 << 30, (60,)),
        ((2, 50, 8), 10, 30, (2, 25, 25, 8)),
        ((57, 3), 0.1, 0.5, (1,) * 60),
    ],
)
def test_chunks_become_whole_samples_of_a_fair_size(monkeypatch, chunks, small, large, expected):
    monkeypatch.setattr(tuning, "small_block", small * LOSSES[0].nbytes)
    monkeypatch.setattr(tuning, "large_block", large * LOSSES[0].nbytes)
    array = whole_samples(da.from_array(LOSSES, chunks=(chunks, (2, 4), (1, 2))))
    assert array.chunks == (expected, (6,), (3,))
    np.testing.assert_array_equal(array.compute(scheduler="sync"), LOSSES)


def test_chunks_that_are_fair_already_are_left_alone():
    array = da.from_array(LOSSES, chunks=(20, 6, 3))
    assert whole_samples(array) is array


@pytest.mark.parametrize("dtype", ["float32", ">f8", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("memory", ["1 GB", "0 B"])
def test_types_are_read_as_they_are(dtype, memory):
    losses = games.integer_game(40, 6, 3, seed=2).losses.astype(dtype)
    with dask.config.set({"scheduler": "sync", "mixsolve.memory": memory}):
        agrees(da.from_array(losses, chunks=((15, 25), 3, 2)), losses, 0.1)


def test_a_block_that_stays_lies_as_the_kernels_read_it():
    def taken(block, stays=True):
        return dask_tasks.Block(0, block.shape, stays)(block)

    strided = np.asfortranarray(LOSSES)
    assert taken(strided).flags.c_contiguous
    assert taken(strided, stays=False) is strided
    assert np.shares_memory(taken(LOSSES), LOSSES)
    assert taken(strided.astype(np.int32)).dtype == np.int32  # float64 would be twice as large
    assert taken(strided.astype(np.int64)).dtype == np.float64
    assert taken(strided > 0.5).dtype == np.bool_
    masked = np.ma.masked_less(strided, 0.1)
    assert taken(masked) is masked


def test_engines_travel_as_their_rows_alone():
    import pickle

    tensor, _ = as_loss_tensor(LOSSES.astype(np.float32))
    nothing = np.empty(0, dtype=np.uint8)
    here = MemoryEngine(tensor, np.full(60, 1 / 60), nothing, np.empty(0))
    sent = pickle.dumps(here)
    assert len(sent) < 1.5 * tensor.n_entries * 4 + 4_000
    there = pickle.loads(sent)
    weights = np.full(3, 1 / 3)
    assert there.best_response(weights).value == here.best_response(weights).value
    assert dask.sizeof.sizeof(here) > tensor.n_entries * 4
    assert dask.sizeof.sizeof(PartialResult(state=here)) >= dask.sizeof.sizeof(here)


def test_a_memory_map_that_was_sent_elsewhere_is_read(tmp_path):
    import pickle

    np.save(tmp_path / "losses.npy", LOSSES)
    sent = pickle.loads(pickle.dumps(np.load(tmp_path / "losses.npy", mmap_mode="r")))
    assert isinstance(sent, np.memmap)
    assert mixsolve.solve(sent).value == mixsolve.solve(LOSSES).value


class Foreign:
    """A block of another library, that only says how it becomes NumPy's."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.ndim = data, data.shape, data.dtype, data.ndim

    def __getitem__(self, index):
        return Foreign(self.data[index])

    def __array__(self, dtype=None, copy=None):
        return self.data


def test_blocks_of_another_library_are_read_by_the_engine():
    blocks = [
        da.from_delayed(dask.delayed(Foreign)(part), part.shape, part.dtype)
        for part in np.split(LOSSES, [25])
    ]
    with dask.config.set(scheduler="sync"):
        agrees(da.concatenate(blocks), LOSSES, 0.1)


def test_unknown_chunk_sizes_are_refused():
    array = da.from_array(LOSSES, chunks=(20, 6, 3))
    unknown = array[da.from_array(np.arange(60) % 2 == 0, chunks=20)]
    with pytest.raises(MixsolveError, match=r"chunks of unknown sizes.*compute_chunk_sizes\(\)"):
        mixsolve.solve(unknown)
    check_certificate(mixsolve.solve(unknown.compute_chunk_sizes()), LOSSES[::2])


def test_two_axes_are_one_candidate_a_sample():
    losses = da.from_array(LOSSES[:, 0], chunks=(20, 3))
    check_certificate(mixsolve.solve(losses), LOSSES[:, :1])


def test_arrays_that_are_no_losses_are_refused():
    with pytest.raises(MixsolveError, match="three axes"):
        mixsolve.solve(da.ones(4))
    with pytest.raises(MixsolveError, match="no samples"):
        mixsolve.solve(da.ones((0, 4, 3)))
    with pytest.raises(MixsolveTypeError, match="complex"):
        mixsolve.solve(da.ones((2, 4, 3), dtype=complex))


@pytest.mark.parametrize("place", A_FEW, indirect=True)
def test_a_block_of_another_shape_than_announced(place):
    array = da.from_array(LOSSES, chunks=(20, 6, 3)).map_blocks(
        lambda block: block[:, :5], dtype=float, chunks=((20, 20, 20), (6,), (3,))
    )
    with pytest.raises(
        MixsolveError, match=r"samples \d+ to \d+ has the shape \(20, 5, 3\).*\(20, 6, 3\)"
    ):
        mixsolve.solve(DaskLosses(array))


def test_a_nan_in_a_later_block_is_named(place):
    losses = LOSSES.copy()
    losses[41, 3, 1] = np.nan
    losses[55] = np.inf
    array = da.from_array(losses, chunks=CHUNKS)
    with pytest.raises(MixsolveError) as caught:
        mixsolve.solve(DaskLosses(array))
    assert "got nan first at index (41, 3, 1)" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    mask = np.ones((60, 6), bool)
    mask[41, 3] = mask[55] = False
    mask[55, 0] = True
    with pytest.raises(MixsolveError, match=r"inf first at index \(55, 0, 0\)"):
        mixsolve.solve(DaskLosses(array), candidate_mask=mask)


def test_a_graph_that_raises(place):
    def fail(block, block_info=None):
        if block_info[None]["chunk-location"][0] == 1:
            raise KeyError("no such picture")
        return block

    array = da.from_array(LOSSES, chunks=(20, 6, 3)).map_blocks(fail, dtype=float)
    with pytest.raises(MixsolveError, match=r"KeyError.*no such picture.*by itself") as caught:
        mixsolve.solve(DaskLosses(array))
    assert isinstance(caught.value.__cause__, KeyError)
    if place == "cluster":
        assert "samples 20 to 39" in str(caught.value)
    with pytest.raises(MixsolveError, match=r"KeyError.*no such picture"):
        mixsolve.solve(array)  # small: computed at once


def test_an_error_of_another_process_is_the_one_that_was_raised_there():
    from dask.multiprocessing import RemoteException

    with pytest.raises(MixsolveError) as caught:
        dask_values.refuse(RemoteException(MixsolveError("what was wrong"), "Traceback"))
    assert str(caught.value) == "what was wrong"
    with pytest.raises(MixsolveError, match=r"KeyError: 3; compute") as caught:
        dask_values.refuse(RemoteException(KeyError(3), "Traceback"))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_callback_that_raises_leaves_nothing_behind(place, request):
    def callback(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        mixsolve.solve(DaskLosses(da.from_array(LOSSES, chunks=CHUNKS)), 0.1, callback=callback)
    if place == "cluster":  # although the traceback still has all that the solve had
        nothing_is_left(request.getfixturevalue("client"))
    del caught


@pytest.mark.parametrize("place", A_FEW, indirect=True)
def test_whole_path_on_one_set_of_engines(place):
    array = da.from_array(LOSSES, chunks=CHUNKS)
    alphas = [0.0, 0.05, 0.5]
    for found, known in zip(
        mixsolve.solve_path(DaskLosses(array), alphas),
        mixsolve.solve_path(LOSSES, alphas),
        strict=True,
    ):
        np.testing.assert_allclose(found.weights, known.weights, atol=1e-9)


def test_blocks_are_computed_once_where_they_fit(monkeypatch):
    read = []

    def seen(block):
        read.append(block.shape[0])
        return block

    array = da.from_array(LOSSES, chunks=(20, 6, 3)).map_blocks(
        seen, dtype=float, meta=np.empty((0, 0, 0))
    )
    with dask.config.set(scheduler="sync"):
        once = mixsolve.solve(DaskLosses(array), 0.1, method="apg")
        assert read == [20] * 3
        read.clear()
        with dask.config.set(AGAIN):
            again = mixsolve.solve(DaskLosses(array), 0.1, method="apg")
        # Opening is one pass; presolve gathers a trial, and the attack is one more.
        assert once.n_passes == again.n_passes
        assert len(read) % 3 == 0
        assert again.n_passes <= len(read) / 3 <= again.n_passes + 2
    np.testing.assert_array_equal(once.weights, again.weights)


def test_best_candidates_come_with_the_pass_and_need_no_further_losses():
    reads = []

    def seen(block):
        reads.append(len(block))
        return block

    array = da.from_array(LOSSES, chunks=(20, 6, 3)).map_blocks(
        seen, dtype=float, meta=np.empty((0, 0, 0))
    )
    with dask.config.set(scheduler="sync", **AGAIN):
        losses = DaskLosses(array)
        opened = losses.engine(np.full(60, 1 / 60), np.empty(0, np.uint8), np.empty(0))
        assert reads == [20] * 3  # opening is one pass
        first = opened.best_response(np.array([1.0, 0.0, 0.0]))
        second = opened.best_response(np.array([0.0, 0.0, 1.0]))
        reads.clear()
        np.testing.assert_array_equal(first.candidates, LOSSES[:, :, 0].argmax(1))
        moved = np.flatnonzero(LOSSES[:, :, 2].argmax(1) != LOSSES[:, :, 0].argmax(1))
        np.testing.assert_array_equal(second.moved(first), moved)
        assert reads == []


def test_memory_that_blocks_may_take(monkeypatch):
    assert 0 < dask_local.affordable() < 1e15
    with dask.config.set({"mixsolve.memory": "3 kB"}):
        assert dask_local.affordable() == 3000
    system = {
        "/proc/meminfo": "MemTotal: 9 kB MemAvailable: 8 kB",
        "/sys/fs/cgroup/memory.max": "max",
    }

    def read_text(path, encoding):
        if str(path) not in system:
            raise FileNotFoundError(path)
        return system[str(path)]

    monkeypatch.setattr(dask_local.Path, "read_text", read_text)
    assert dask_local.affordable() == 4 * 1024
    system |= {
        "/sys/fs/cgroup/memory.max": "5000",
        "/sys/fs/cgroup/memory.stat": "file 7 anon 2000",
    }
    assert dask_local.affordable() == 1500
    system.clear()
    assert 0 < dask_local.affordable() < 1e15


@pytest.mark.parametrize("common", [False, True])
def test_a_block_is_one_task_where_tasks_cross_processes(processes, common):
    done = []

    class Count(dask.callbacks.Callback):
        def _pretask(self, key, graph, state):
            done.append(key)

    array = da.from_array(LOSSES, chunks=(20, 6, 3)).map_blocks(np.negative, dtype=float)
    array = array + (array.max() if common else 0.0)
    with dask.config.set(scheduler="processes", pool=processes, **AGAIN):
        opened = DaskLosses(array).engine(np.full(60, 1 / 60), np.empty(0, np.uint8), np.empty(0))
        with Count():
            found = opened.best_response(np.array([0.0, 1.0, 0.0]))
    values = -LOSSES + (-LOSSES).max() * common
    np.testing.assert_allclose(found.value, values[:, :, 1].max(1).mean())
    assert len(done) > 6 if common else len(done) == 3


def test_processes_are_started_once_a_solve_and_end_with_it(monkeypatch):
    started = []
    original = dask_local.ProcessPoolExecutor

    def counted(*args, **options):
        started.append(original(*args, **options))
        return started[-1]

    monkeypatch.setattr(dask_local, "ProcessPoolExecutor", counted)
    array = da.from_array(LOSSES, chunks=(30, 6, 3))
    with dask.config.set(scheduler="processes", num_workers=1, **AGAIN):
        agrees(array, LOSSES, 0.1)
    (pool,) = started
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(os.getpid)


@pytest.mark.parametrize(("method", "alpha"), [("lp", 0.0), ("newton", 0.1)])
def test_a_worker_that_dies_costs_time_and_not_the_answer(client, method, alpha):
    array = da.from_array(LOSSES, chunks=(10, 6, 3))
    options = {"method": method, "max_iter": LIMITS.get(method)}
    warnings.simplefilter("ignore", mixsolve.ConvergenceWarning)
    known = mixsolve.solve(DaskLosses(array), alpha, **options)
    killed = []

    def kill(state):
        if killed or state.nit < 2:
            return
        holders = [
            where[0] for key, where in client.who_has().items() if where and "as_shard" in str(key)
        ]
        killed.append(client.run(os.getpid)[holders[0]])
        os.kill(killed[0], signal.SIGKILL)

    found = mixsolve.solve(DaskLosses(array), alpha, callback=kill, **options)
    assert killed
    np.testing.assert_array_equal(found.weights, known.weights)
    assert (found.value, found.lower_bound, found.nit) == (
        known.value,
        known.lower_bound,
        known.nit,
    )


def test_data_that_died_with_its_worker_is_an_error(client):
    workers = list(client.scheduler_info()["workers"])
    pieces = [client.scatter(part, workers=[workers[0]]) for part in np.split(LOSSES, 3)]
    array = da.concatenate([da.from_delayed(piece, (20, 6, 3), dtype=float) for piece in pieces])
    pid = client.run(os.getpid)[workers[0]]

    def kill(state):
        if state.nit == 1:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(MixsolveError, match=r"could not be computed.*scatter"):
        mixsolve.solve(DaskLosses(array), 0.1, method="apg", callback=kill)


def test_an_interrupt_while_workers_compute(client):
    def slow(block):
        time.sleep(1.5)
        return block

    array = da.from_array(LOSSES, chunks=(10, 6, 3)).map_blocks(
        slow, dtype=float, meta=np.empty((0, 0, 0))
    )
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        mixsolve.solve(DaskLosses(array))
    nothing_is_left(client)
    assert time.monotonic() - began < 4.0  # the six blocks would take 4.5 s
    del caught


def test_what_the_caller_persisted_stays(client):
    array = da.from_array(LOSSES, chunks=(20, 6, 3)).persist()
    before = set(client.futures)
    agrees(array, LOSSES, 0.1)
    deadline = time.monotonic() + 5
    while set(client.futures) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(client.futures) == before
    np.testing.assert_array_equal(array.compute(), LOSSES)
    del array


def test_sums_are_added_up_on_the_way(client, monkeypatch):
    monkeypatch.setattr(tuning, "fan_in", 2)
    received = []
    original = client.gather
    monkeypatch.setattr(
        client, "gather", lambda futures: received.append(futures) or original(futures)
    )
    array = da.from_array(LOSSES, chunks=(10, 6, 3))
    losses = DaskLosses(array)
    opened = losses.engine(np.full(60, 1 / 60), np.empty(0, np.uint8), np.empty(0))
    received.clear()
    weights = np.full(3, 1 / 3)
    response = opened.best_response(weights)
    soft = opened.soft_response(weights, np.full(60, 0.1))
    assert [type(futures) for futures in received if not isinstance(futures, list)] == [
        distributed.Future
    ] * 2
    known = mixsolve.engines.open_losses(LOSSES).engine(
        np.full(60, 1 / 60), np.empty(0, np.uint8), np.empty(0)
    )
    np.testing.assert_allclose(response.value, known.best_response(weights).value, rtol=1e-12)
    np.testing.assert_allclose(
        soft.hessian, known.soft_response(weights, np.full(60, 0.1)).hessian, rtol=1e-11
    )
    opened.close()
    assert opened.shards.traffic.sent < 60 * 8 + 2_000


def test_large_shares_go_in_several_messages(client, monkeypatch, rng):
    monkeypatch.setattr(tuning, "message_bytes", 200)
    array = da.from_array(LOSSES, chunks=(10, 6, 3))
    agrees(array, LOSSES, rng.uniform(0.1, 0.2, 60), sample_weight=rng.random(60))


def test_an_engine_that_moves_to_another_worker_goes_on(client):
    array = da.from_array(LOSSES, chunks=(10, 6, 3))

    def spread(state):
        if state.nit == 1:
            keys = [key for key in client.futures if "as_shard-shard" in str(key)]
            client.replicate([distributed.Future(key, client) for key in keys])
            assert all(len(where) == 2 for where in client.who_has(keys).values())

    known = mixsolve.solve(LOSSES, 0.1)
    found = mixsolve.solve(DaskLosses(array), 0.1, callback=spread)
    np.testing.assert_allclose(found.weights, known.weights, atol=1e-9)


def test_a_client_that_is_gone(cluster):
    with distributed.Client(cluster) as other:
        losses = DaskLosses(da.from_array(LOSSES, chunks=(30, 6, 3)))
        opened = losses.engine(np.full(60, 1 / 60), np.empty(0, np.uint8), np.empty(0))
    with pytest.raises(MixsolveError, match="could not be computed"):
        opened.best_response(np.full(3, 1 / 3))
    opened.close()
    assert other.status == "closed"


def test_named_schedulers_win_over_the_client(client):
    with dask.config.set(scheduler="sync"):
        losses = DaskLosses(da.from_array(LOSSES, chunks=(30, 6, 3)))
        opened = losses.engine(np.full(60, 1 / 60), np.empty(0, np.uint8), np.empty(0))
        assert isinstance(opened.shards, dask_local.LocalShards)


def compile_for_a_while(engine):
    with preparation():
        time.sleep(0.02)
    return PartialResult(np.ones(1))


class TestCompilationElsewhere:
    """A time limit does not count it, in whichever process it happens."""

    def test_a_shard_in_another_process_reports_it(self):
        call = Call(compile_for_a_while, 1, (), ())
        assert call(object()).prepared == 0.0  # the log of this process has it already
        call.made_in = ("another machine", 1)
        assert call(object()).prepared >= 0.02

    def test_the_longest_reaches_the_client(self):
        results = [
            PartialResult(np.ones(2), gathered=[1], prepared=seconds) for seconds in (0.0, 3.0, 2.0)
        ]
        total = dask_cluster._added(*results)
        assert total.prepared == 3.0
        np.testing.assert_array_equal(total.sums, [3.0, 3.0])
        assert total.gathered == [1, 1, 1]

    def test_the_first_passes_of_a_new_process(self, monkeypatch, rng):
        """It imports Numba, and reads or compiles its kernels."""
        told = []
        monkeypatch.setattr(preparing, "add_elsewhere", told.append)
        losses = da.from_array(rng.random((40, 6, 4)), chunks=(20, -1, -1))
        with dask.config.set(scheduler="processes", num_workers=1, **AGAIN):
            assert mixsolve.solve(DaskLosses(losses)).success
        assert max(told) > 0.0
