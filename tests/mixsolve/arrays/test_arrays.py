"""One suite over every kind of array: the same answer, in the same kind, without a copy."""

import sys
import tracemalloc

import numpy as np
import pytest
import torch
from corpus import seeds
from reference import check_certificate

import mixsolve
from mixsolve import games

# Multiples of 1/4 between 0 and 3: exact in every real type but integers, with one optimum.
BASE = np.random.default_rng(11).integers(0, 13, (10, 6, 3)) / 4.0
WHOLE = np.random.default_rng(12).integers(0, 100, (10, 6, 3)).astype(np.float64)

REAL = ["f2", "f4", "f8", "g", ">f2", ">f4", ">f8", "<f4"]
INTEGER = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">i4", ">u8"]

CASES = [
    pytest.param(0.0, "lp", id="exact"),
    pytest.param(0.5, "newton", id="entropic"),
    pytest.param(0.0, "oracle", id="subgradient", marks=pytest.mark.filterwarnings("ignore")),
]


def agrees(array, reference, alpha, method):
    """Solve `array`, whose losses are `reference`, and hold the answer against float64 NumPy's."""
    before = np.array(reference)
    expected = mixsolve.solve(reference, alpha, method=method, max_iter=200)
    found = mixsolve.solve(array, alpha, method=method, max_iter=200)
    check_certificate(found, reference, alpha)
    assert found.success == expected.success
    assert abs(found.value - expected.value) <= max(found.gap, expected.gap) + 1e-12
    assert np.array_equal(before, reference)
    return found


def numpy_forms(losses):
    """The same losses, laid out in memory in every way."""
    padded = np.full((20, 12, 6), np.nan)
    padded[::2, ::2, ::2] = losses
    yield "strided", padded[::2, ::2, ::2]
    yield "transposed", np.ascontiguousarray(losses.transpose(2, 0, 1)).transpose(1, 2, 0)
    yield "fortran", np.asfortranarray(losses)
    yield "reversed", np.ascontiguousarray(losses[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    yield "sliced samples", np.concatenate([padded[::2, ::2, ::2][:3] * 0 - 7, losses])[3:]
    yield "matrix transposed", np.ascontiguousarray(losses.swapaxes(1, 2)).swapaxes(1, 2)
    frozen = losses.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    buffer = np.zeros(losses.nbytes + 1, np.uint8)
    odd = buffer[1:].view(np.float64).reshape(losses.shape)
    odd[...] = losses
    assert not odd.flags.aligned
    yield "unaligned", odd
    yield "nested lists", losses.tolist()
    yield "list of arrays", list(losses)
    yield "tuple of lists", tuple(table.tolist() for table in losses)
    yield "lists of rows", [[np.array(row) for row in table] for table in losses]


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("form", [name for name, _ in numpy_forms(BASE)])
def test_memory_layouts(form, alpha, method):
    array = dict(numpy_forms(BASE))[form]
    found = agrees(array, BASE, alpha, method)
    assert type(found.weights) is np.ndarray
    assert found.weights.dtype == np.float64


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("dtype", REAL)
def test_floating_types(dtype, alpha, method):
    array = BASE.astype(dtype)
    original = array.tobytes()
    found = agrees(array, BASE, alpha, method)
    assert found.weights.dtype == np.float64
    assert array.dtype == dtype
    assert array.tobytes() == original


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("dtype", INTEGER)
def test_integer_types(dtype, alpha, method):
    array = WHOLE.astype(dtype)
    found = agrees(array, WHOLE, 20.0 * alpha, method)
    assert found.weights.dtype == np.float64
    assert np.array_equal(array, WHOLE)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_negative_integers(dtype):
    agrees((WHOLE - 110.0).astype(dtype), WHOLE - 110.0, 0.0, "lp")
    agrees((WHOLE - 50.0).astype(dtype), WHOLE - 50.0, 3.0, "newton")


@pytest.mark.parametrize(
    ("dtype", "ends"),
    [
        ("i1", (-128, 127)),
        ("u1", (0, 255)),
        ("i2", (-32768, 32767)),
        ("u2", (0, 65535)),
        ("i4", (-(2**31), 2**31 - 1)),
        ("u4", (0, 2**32 - 1)),
        ("f2", (-60000, 65504)),
    ],
)
def test_the_ends_of_a_type_do_not_wrap_around(dtype, ends):
    matrix = np.array([[ends[0], ends[1]], [ends[1], ends[0]]], dtype)
    for method, alpha in (("lp", 0.0), ("cvxpy", 0.0), ("newton", float(ends[1]))):
        solution = mixsolve.solve(matrix[None], alpha, method=method)
        assert solution.success
        np.testing.assert_allclose(solution.weights, 0.5, atol=1e-3 if alpha else 1e-8)
        assert solution.spread == float(ends[1]) - float(ends[0])
        if not alpha:
            assert solution.value == pytest.approx(0.5 * (float(ends[0]) + float(ends[1])), abs=0.1)


@pytest.mark.parametrize(("alpha", "method"), CASES)
def test_booleans(alpha, method):
    array = games.integer_game(10, 6, 3, seed=2).losses.astype(bool)
    for form in (array, np.asfortranarray(array), array[::-1], torch.from_numpy(array)):
        reference = np.asarray(form).astype(np.float64)
        agrees(form, reference, alpha, method)


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "?"])
def test_memory_maps(tmp_path, dtype, alpha, method):
    array = games.integer_game(10, 6, 3, seed=2).losses.astype(dtype)
    np.save(tmp_path / "losses.npy", array)
    mapped = np.load(tmp_path / "losses.npy", mmap_mode="r")
    found = agrees(mapped, array.astype(np.float64), alpha, method)
    assert type(found.weights) is np.ndarray
    assert np.array_equal(np.load(tmp_path / "losses.npy"), array)


@pytest.mark.parametrize(("alpha", "method"), CASES)
def test_ragged_lists(alpha, method):
    parts = [BASE[i, : 1 + i % 6] for i in range(10)]
    mask = np.zeros((10, 6), bool)
    for i, part in enumerate(parts):
        mask[i, : len(part)] = True
    expected = mixsolve.solve(BASE, alpha, method=method, candidate_mask=mask, max_iter=200)
    for form in (
        parts,
        tuple(parts),
        [part.tolist() for part in parts],
        [torch.from_numpy(part) for part in parts],
        [part.astype(np.float32) for part in parts],
        [part.astype(np.float32 if len(part) % 2 else np.float64) for part in parts],
    ):
        found = mixsolve.solve(form, alpha, method=method, max_iter=200)
        check_certificate(found, parts, alpha)
        assert abs(found.value - expected.value) <= max(found.gap, expected.gap) + 1e-12
        assert found.attack.dense().shape == (10, 6)
        kind = torch.Tensor if isinstance(form[0], torch.Tensor) else np.ndarray
        assert type(found.weights) is kind


def torch_forms(losses):
    """The same losses as tensors of every type and layout PyTorch has on the CPU."""
    tensor = torch.from_numpy(losses.copy())
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        yield str(dtype), tensor.to(dtype)
    yield "requires_grad", tensor.clone().requires_grad_()
    yield "of a graph", tensor.clone().requires_grad_() * 1.0
    yield "bfloat16 requires_grad", tensor.bfloat16().requires_grad_()
    yield "transposed", tensor.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    yield "strided", torch.stack([tensor, tensor * 0 - 9], dim=-1)[..., 0]
    yield "strided bfloat16", torch.stack([tensor, tensor * 0 - 9], dim=-1).bfloat16()[..., 0]
    yield "expanded", tensor[:1].expand(10, -1, -1)
    yield "negative view", torch._neg_view(-tensor)
    yield "parameter", torch.nn.Parameter(tensor.clone())
    yield "inference", _inference(tensor)


def _inference(tensor):
    with torch.inference_mode():
        return tensor.clone()


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("form", [name for name, _ in torch_forms(BASE)])
def test_torch(form, alpha, method):
    tensor = dict(torch_forms(BASE))[form]
    reference = np.repeat(BASE[:1], 10, axis=0) if form == "expanded" else BASE
    version, dtype = None if form == "inference" else tensor._version, tensor.dtype
    found = agrees(tensor, reference, alpha, method)
    assert type(found.weights) is torch.Tensor
    assert found.weights.dtype == torch.float64
    assert found.weights.device == tensor.device
    assert not found.weights.requires_grad
    assert isinstance(found.value, float)
    if version is not None:
        assert tensor._version == version
    assert tensor.dtype == dtype
    if tensor.is_leaf:
        assert tensor.grad is None


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64])
def test_torch_integers(dtype, alpha, method):
    losses = games.integer_game(10, 6, 3, seed=2).losses
    found = agrees(torch.from_numpy(losses).to(dtype), losses.astype(float), alpha, method)
    assert found.weights.dtype == torch.float64


def test_options_may_be_tensors_too():
    sample_weight = np.arange(1.0, 11.0)
    mask = np.arange(60).reshape(10, 6) % 4 != 1
    prior = 1.0 + np.arange(60).reshape(10, 6) % 3
    start = np.array([0.2, 0.3, 0.5])
    alpha = np.linspace(0.2, 0.6, 10)
    game = {"sample_weight": sample_weight, "candidate_mask": mask, "candidate_prior": prior}
    expected = mixsolve.solve(BASE, alpha, warm_start=start, **game)
    found = mixsolve.solve(
        torch.from_numpy(BASE).float(),
        torch.from_numpy(alpha),
        warm_start=torch.from_numpy(start).float().requires_grad_(),
        **{name: torch.from_numpy(value) for name, value in game.items()},
    )
    check_certificate(found, BASE, alpha, **game)
    assert abs(found.value - expected.value) <= max(found.gap, expected.gap)
    lists = mixsolve.solve(
        BASE.tolist(), alpha.tolist(), **{name: value.tolist() for name, value in game.items()}
    )
    assert abs(lists.value - expected.value) <= max(lists.gap, expected.gap)


def test_the_weights_of_a_tensor_start_another_solve():
    first = mixsolve.solve(torch.from_numpy(BASE), 0.5)
    again = mixsolve.solve(torch.from_numpy(BASE), 0.5, warm_start=first)
    assert again.success
    assert again.nit <= 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("form", [name for name, _ in torch_forms(BASE) if name != "expanded"])
def test_torch_on_cuda(form, alpha, method):
    tensor = dict(torch_forms(BASE))[form].cuda()
    found = agrees(tensor, BASE, alpha, method)
    assert found.weights.device == tensor.device
    assert found.weights.dtype == torch.float64


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "uint8", "bool"])
def test_jax(dtype, alpha, method):
    jax = pytest.importorskip("jax")
    losses = games.integer_game(10, 6, 3, seed=2).losses
    array = jax.numpy.asarray(losses).astype(dtype)
    found = agrees(array, losses.astype(float), alpha, method)
    assert isinstance(found.weights, jax.Array)
    assert found.weights.devices() == array.devices()


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("chunks", [(3, 6, 3), (10, 2, 3), (4, 4, 1)])
def test_dask(chunks, alpha, method):
    dask_array = pytest.importorskip("dask.array")
    agrees(dask_array.from_array(BASE, chunks=chunks), BASE, alpha, method)


class OnlyDLPack:
    """Another package's array, that can do nothing but lend its memory."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class OnlyArray:
    """Another package's array, that can only be turned into NumPy's."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array if dtype is None else self._array.astype(dtype)


@pytest.mark.parametrize(("alpha", "method"), CASES)
@pytest.mark.parametrize("wrap", [OnlyDLPack, OnlyArray])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
def test_protocols(wrap, dtype, alpha, method):
    losses = games.integer_game(10, 6, 3, seed=2).losses
    found = agrees(wrap(losses.astype(dtype)), losses.astype(float), alpha, method)
    assert type(found.weights) is np.ndarray
    assert found.weights.dtype == np.float64


def test_array_subclasses_come_back_as_plain_arrays():
    class Tagged(np.ndarray):
        def __array_finalize__(self, obj):
            self.tag = None

        def max(self, *args, **kwargs):
            raise AssertionError("a subclass's methods must not be relied upon")

    found = agrees(BASE.view(Tagged), BASE, 0.0, "lp")
    assert type(found.weights) is np.ndarray


LARGE_BYTES = 48_000_000


def large_game(kind):
    """A game of 48 MB, too large for a copy to go unseen, in one of the kinds below."""
    make, itemsize = LARGE_KINDS[kind]
    rng = np.random.default_rng(0)
    shape = (LARGE_BYTES // (itemsize * 50 * 20), 50, 20)
    if itemsize == 1 or kind == "int64":
        return make(rng.integers(0, 2, shape, dtype=np.uint8))
    return make(rng.random(shape, dtype=np.float32))


LARGE_KINDS = {
    "uint8": (lambda bits: bits, 1),
    "bool": (lambda bits: bits.view(bool), 1),
    "int64": (lambda bits: bits.astype(np.int64), 8),
    "float32": (lambda floats: floats, 4),
    "float64": (lambda floats: floats.astype(np.float64), 8),
    "float16": (lambda floats: floats.astype(np.float16), 2),
    "big-endian": (lambda floats: floats.astype(">f4"), 4),
    "fortran": (np.asfortranarray, 4),
    "strided": (lambda floats: np.repeat(floats, 2, axis=1)[:, ::2], 4),
    "torch uint8": (torch.from_numpy, 1),
    "torch float32": (torch.from_numpy, 4),
    "torch bfloat16": (lambda floats: torch.from_numpy(floats).bfloat16(), 2),
}


@pytest.mark.filterwarnings("ignore::mixsolve.base.errors.ConvergenceWarning")
@pytest.mark.parametrize(
    ("alpha", "method"), seeds([(0.0, "oracle"), (1e-3, "newton"), (1e-3, "apg")], quick=2)
)
@pytest.mark.parametrize("kind", LARGE_KINDS)
def test_a_large_tensor_is_never_copied_whole(kind, alpha, method):
    array = large_game(kind)
    size = array.nbytes
    mixsolve.solve(array[:50], alpha, method=method, max_iter=2)  # compiled outside the count
    tracemalloc.start()
    try:
        solution = mixsolve.solve(array, alpha, method=method, max_iter=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The attack itself is part of the answer: 24 bytes an entry, and as much while it is made.
    answer = 3 * 24 * len(solution.attack.candidates)
    assert peak < 0.25 * size + answer
    assert np.isfinite(solution.gap)


@pytest.mark.parametrize("kind", ["uint8", "bool", "torch uint8", "float32", "torch float32"])
def test_the_exact_default_keeps_little_of_a_large_tensor(kind):
    """On games of both kinds the package is made for: classifiers in the plane, and real losses."""
    if kind in ("uint8", "bool", "torch uint8"):
        losses = games.paper2d(12_000, 200, 10, seed=0).losses
        array = losses.view(bool) if kind == "bool" else losses
    else:
        array = games.gamma_game(6_000, 100, 10, seed=0, dtype=np.float32).losses
    array = torch.from_numpy(array) if kind.startswith("torch") else array
    mixsolve.solve(array[:50])
    tracemalloc.start()
    try:
        solution = mixsolve.solve(array)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert solution.success
    assert peak < 0.25 * array.nbytes


def test_no_framework_is_needed_for_numpy(monkeypatch):
    """With the frameworks gone from `sys.modules`, NumPy's answers are the same."""
    expected = mixsolve.solve(BASE, 0.5)
    for name in ("torch", "jax", "cupy", "dask", "dask.array"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert mixsolve.solve(BASE, 0.5).value == expected.value
