"""Which engine a solve gets: by the place of the array, by its size, or as the caller says."""

import sys
import types

import numpy as np
import pytest
import torch
from reference import check_certificate

import mixsolve
from mixsolve import MixsolveError, games
from mixsolve.arrays import interop
from mixsolve.arrays.tensor import LossTensor, even_offsets
from mixsolve.base.tuning import tuning
from mixsolve.engines import Losses, MemoryLosses, open_losses
from mixsolve.engines.memory import Condensing, MemoryEngine

LOSSES = games.gamma_game(30, 6, 3, seed=1).losses


class Elsewhere(Losses):
    """Losses that nobody but their engine can read, and weights that come back in a list."""

    def __init__(self, losses):
        n_samples, n_candidates, n_classifiers = losses.shape
        super().__init__(even_offsets(n_samples, n_candidates), n_classifiers)
        self.rows = losses.reshape(-1, n_classifiers)
        self.given = []

    def engine(self, sample_weight, allowed, prior):
        self.given.append((sample_weight, allowed, prior))
        tensor = LossTensor.from_rows(self.rows, self.offsets)
        return MemoryEngine(tensor, sample_weight, allowed, prior)

    def restore(self, weights):
        return weights.tolist()


def test_losses_bring_their_own_engine():
    there = Elsewhere(LOSSES)
    assert open_losses(there) is there
    for alpha in (0.0, 0.1):
        found = mixsolve.solve(there, alpha)
        check_certificate(found, LOSSES, alpha)
        assert isinstance(found.weights, list)
        assert found.value == mixsolve.solve(LOSSES, alpha).value
    assert len(there.given) == 2
    mixsolve.solve_path(there, [0.0, 0.1, 1.0])
    assert len(there.given) == 3  # one engine for the whole path


def test_options_are_checked_before_the_engine_sees_them():
    there = Elsewhere(LOSSES)
    mask = np.ones((30, 6), bool)
    mask[3, 2] = False
    prior = np.where(mask, 2.0, -1.0)
    weight = np.arange(30.0)
    mixsolve.solve(there, 0.1, sample_weight=weight, candidate_mask=mask, candidate_prior=prior)
    ((given, allowed, measure),) = there.given
    np.testing.assert_allclose(given, weight / weight.sum())
    np.testing.assert_array_equal(allowed.reshape(30, 6), mask)
    np.testing.assert_array_equal(measure.reshape(30, 6), np.where(mask, 2.0, 0.0))
    for wrong in ({"sample_weight": weight[:-1]}, {"candidate_mask": mask[:, :-1]}, {"alpha": [1]}):
        with pytest.raises(MixsolveError, match=next(iter(wrong))):
            mixsolve.solve(there, **wrong)
    assert len(there.given) == 1


@pytest.mark.parametrize("losses", [LOSSES, LOSSES.tolist(), torch.from_numpy(LOSSES), [*LOSSES]])
def test_what_this_process_reads_gets_the_memory_engine(losses):
    opened = open_losses(losses)
    assert isinstance(opened, MemoryLosses)
    assert (opened.n_samples, opened.n_candidates, opened.n_classifiers) == LOSSES.shape
    nothing = np.empty(0, dtype=np.uint8)
    engine = opened.engine(np.full(30, 1 / 30), nothing, np.empty(0))
    assert isinstance(engine, MemoryEngine)
    assert not isinstance(engine, Condensing)  # presolve reads its tensor itself
    assert type(opened.restore(np.ones(3))) is type(
        losses if isinstance(losses, torch.Tensor) else LOSSES
    )


@pytest.fixture
def on_a_device(monkeypatch):
    """A tensor on the CPU, of a type that NumPy cannot see, passes for one on a GPU."""
    monkeypatch.setattr(interop, "_SOLVED_THERE", ("cpu",))
    return torch.from_numpy(LOSSES).bfloat16()


def test_a_large_tensor_on_a_device_is_solved_there(monkeypatch, on_a_device):
    from mixsolve_torch import TorchLosses

    assert isinstance(open_losses(on_a_device), MemoryLosses)  # small: a copy is kept
    monkeypatch.setattr(tuning, "kept_bytes", 4 * LOSSES.size)
    assert isinstance(open_losses(on_a_device), MemoryLosses)  # as large as float32 may be
    monkeypatch.setattr(tuning, "kept_bytes", 4 * LOSSES.size - 1)
    assert isinstance(open_losses(on_a_device), TorchLosses)
    found = mixsolve.solve(on_a_device, 0.1)
    check_certificate(found, on_a_device.double().numpy(), 0.1)
    assert type(found.weights) is torch.Tensor


def test_a_tensor_on_another_device_is_read_by_the_host(monkeypatch, on_a_device):
    monkeypatch.setattr(tuning, "kept_bytes", 0)
    monkeypatch.setattr(interop, "_SOLVED_THERE", ("cuda",))
    assert isinstance(open_losses(on_a_device), MemoryLosses)


def test_weights_go_back_as_float32_where_there_is_no_float64(monkeypatch):
    tensor = torch.from_numpy(LOSSES)
    assert mixsolve.solve(tensor).weights.dtype == torch.float64
    monkeypatch.setattr(interop, "_NO_FLOAT64", ("cpu",))
    assert mixsolve.solve(tensor).weights.dtype == torch.float32


def test_a_framework_names_the_module_of_its_engine(monkeypatch):
    module = types.ModuleType("some_engine")
    module.open_source = lambda source: Elsewhere(np.asarray(source.data))
    monkeypatch.setitem(sys.modules, "some_engine", module)

    class Array:
        def __init__(self, data):
            self.data, self.shape, self.dtype = data, data.shape, data.dtype

        def __getitem__(self, index):
            return self.data[index]

        def __array__(self, dtype=None, copy=None):
            return self.data

    def read(array, _):
        return interop.ArraySource(array, np.asarray, np.asarray, "some_engine")

    framework = types.ModuleType("some_framework")
    framework.Array = Array
    monkeypatch.setitem(sys.modules, "some_framework", framework)
    entry = ("some_framework", "Array", read)
    monkeypatch.setattr(interop, "_FRAMEWORKS", (entry, *interop._FRAMEWORKS))
    assert isinstance(open_losses(Array(LOSSES)), MemoryLosses)
    monkeypatch.setattr(tuning, "kept_bytes", 0)
    assert isinstance(open_losses(Array(LOSSES)), Elsewhere)
    assert isinstance(mixsolve.solve(Array(LOSSES)).weights, list)


def test_one_sample_is_not_read_to_learn_its_type(monkeypatch, on_a_device):
    monkeypatch.setattr(tuning, "kept_bytes", 0)
    sizes = []
    original = torch.Tensor.cpu

    def counted(tensor, *args):
        sizes.append(tensor.numel())
        return original(tensor, *args)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    open_losses(on_a_device[:1])
    assert max(sizes, default=0) <= 1
