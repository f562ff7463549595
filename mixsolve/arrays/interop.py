"""Read any kind of array and return results as the same kind, without importing a framework.

A framework's arrays can only come from a caller who has imported it, so it is looked up in
`sys.modules`; arrays of other kinds go through DLPack, then ``numpy.asarray``.
"""

import os
import sys
from collections.abc import Callable, Iterator, MappingView
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixsolve.arrays.labels import read_losses
from mixsolve.arrays.named_arrays import Reordered, labelled, refuse_mask
from mixsolve.arrays.named_forms import TENSOR, with_axis
from mixsolve.arrays.read_ahead import MappedFile
from mixsolve.base.errors import MixsolveError, MixsolveTypeError

# PyTorch's devices whose tensors are solved there, and those without float64, in which certificates
# are summed. Tensors on all others are read by the host.
_SOLVED_THERE = ("cuda",)
_NO_FLOAT64 = ("mps",)


@dataclass(frozen=True)
class ArraySource:
    """An array of any framework, how to read it in NumPy, and how to return results.

    Attributes
    ----------
    data : array
        Sliced along its first axis; never converted whole.
    to_numpy : callable
        Brings a slice of `data` into a NumPy array (a view where the memory allows it).
    restore : callable
        Turns a small float64 NumPy array into the caller's array type, on the caller's device.
    engine : str or None
        Module with an engine that runs where the array is, in place of copying it in every pass;
        None where there is no such engine (see `mixsolve.engines`).
    stored_together : int
        Samples in a chunk of `data` in a file, 1 where it has no chunks; 0 for arrays in memory,
        which are not read ahead.
    """

    data: Any
    to_numpy: Callable[[Any], np.ndarray]
    restore: Callable[[np.ndarray], Any]
    engine: str | None = None
    stored_together: int = 0

    @property
    def is_numpy(self) -> bool:
        """Whether slices of `data` are NumPy arrays already."""
        return isinstance(self.data, np.ndarray)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _from_torch(tensor: Any, torch: Any) -> ArraySource:
    if tensor.layout is not torch.strided:
        raise MixsolveTypeError(
            f"losses must be a dense tensor, got a PyTorch tensor of layout {tensor.layout}; "
            "call .to_dense() first"
        )
    tensor = tensor.detach()

    kind = tensor.device.type

    def restore(array: np.ndarray) -> Any:
        restored = torch.from_numpy(array.copy())
        return (restored.float() if kind in _NO_FLOAT64 else restored).to(tensor.device)

    def to_numpy(part: Any) -> np.ndarray:
        if part.dtype == torch.bfloat16:
            part = part.float()
        return part.cpu().resolve_neg().resolve_conj().numpy()

    if kind == "cpu" and tensor.dtype != torch.bfloat16:
        return ArraySource(to_numpy(tensor), _same, restore)
    engine = "mixsolve_torch.engine.losses" if kind in _SOLVED_THERE else None
    return ArraySource(tensor, to_numpy, restore, engine)


def _from_jax(array: Any, jax: Any) -> ArraySource:
    def restore(weights: np.ndarray) -> Any:
        return jax.device_put(jax.numpy.asarray(weights), next(iter(array.devices())))

    return ArraySource(np.asarray(array), _same, restore)


def _from_cupy(array: Any, cupy: Any) -> ArraySource:
    def restore(weights: np.ndarray) -> Any:
        with array.device:
            return cupy.asarray(weights)

    return ArraySource(array, cupy.asnumpy, restore)


def _from_dask(array: Any, dask_array: Any) -> ArraySource:
    if np.isnan(array.shape).any():
        raise MixsolveError(
            f"a Dask array of shape {array.shape} has chunks of unknown sizes; call its "
            "compute_chunk_sizes() first"
        )

    def to_numpy(part: Any) -> np.ndarray:
        from mixsolve.arrays.dask_values import computed

        block = array_source(computed(part))
        return block.to_numpy(block.data)

    return ArraySource(array, to_numpy, _same, "mixsolve.engines.dask")


def _from_zarr(array: Any, zarr: Any) -> ArraySource:
    return _from_file(array)


def _from_h5py(dataset: Any, h5py: Any) -> ArraySource:
    if not dataset:
        raise MixsolveError("losses is an HDF5 dataset of a closed file; open the file again")
    if dataset.shape is None:
        raise MixsolveError("losses is an HDF5 dataset without a shape (h5py.Empty)")
    return _from_file(dataset)


def _from_file(array: Any) -> ArraySource:
    chunks = array.chunks or (1,)  # neither a contiguous dataset nor a number has any
    return ArraySource(array, np.asarray, _same, stored_together=max(1, int(chunks[0])))


# Module to look for, its array class, and how to read it.
_FRAMEWORKS: tuple[tuple[str, str, Callable[[Any, Any], ArraySource]], ...] = (
    ("torch", "Tensor", _from_torch),
    ("jax", "Array", _from_jax),
    ("cupy", "ndarray", _from_cupy),
    ("dask.array", "Array", _from_dask),
    ("zarr", "Array", _from_zarr),
    ("h5py", "Dataset", _from_h5py),
)


def array_source(array: Any, name: str = "losses") -> ArraySource:
    """Find out how to read an array and how to return one of its kind.

    Parameters
    ----------
    array : array_like
        NumPy, PyTorch, JAX, CuPy, Dask or Zarr array, HDF5 dataset of h5py, anything with DLPack or
        ``__array__``, or nested sequences of numbers.

    Raises
    ------
    MixsolveTypeError
        If it cannot be read as a numeric array, or NumPy would drop a mask.
    """
    if type(array) is not np.ndarray:  # which has no mask
        refuse_mask(array, name)
    inner = getattr(type(array), "__mixsolve_losses__", None)
    if inner is not None:  # an object with an attribute that is the tensor
        return array_source(array.__mixsolve_losses__, name)
    if isinstance(array, np.ndarray):
        # As a plain array: slices of a memory map are memory maps, which are slow to make.
        mapped = not array.flags.owndata and MappedFile.of(array) is not None
        return ArraySource(np.asarray(array), _same, _same, stored_together=int(mapped))
    found = labelled(array, name)
    if found is not None and found.values is not array:
        return array_source(found.values, name)
    if isinstance(array, Reordered):
        return _from_file(array)
    for module_name, class_name, read in _FRAMEWORKS:
        module = sys.modules.get(module_name)
        kind = getattr(module, class_name, None)
        if isinstance(kind, type) and isinstance(array, kind):
            return read(array, module)
    return ArraySource(_through_protocol(array, name), _same, _restore_like(array))


def _through_protocol(array: Any, name: str) -> np.ndarray:
    if hasattr(array, "__dlpack__"):
        try:
            return np.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError) as error:
            if not hasattr(array, "__array__"):
                raise MixsolveTypeError(
                    f"{name}: a {type(array).__name__} could not be read through DLPack "
                    f"({error}); move it to host memory first"
                ) from error
    if isinstance(array, (list, tuple)):
        array, _ = read_losses(array, name=name)
    else:
        _refuse_others(array, name)
    try:
        values = np.asanyarray(array)
        refuse_mask(values, name)
        values = np.asarray(values)
    except MixsolveTypeError:
        raise
    except (ValueError, TypeError) as error:
        raise MixsolveError(
            f"{name} cannot be read as an array: {error}; give every sample a rectangular "
            "(candidates, classifiers) table"
        ) from error
    if values.dtype == object and not values.ndim:
        raise MixsolveTypeError(
            f"{name} must be an array of numbers, got {type(array).__name__}; convert it to one"
        )
    return values


def _refuse_others(array: Any, name: str) -> None:
    """Refuse objects that are not arrays, which NumPy would wrap, and say how to convert them."""
    mend = None
    if isinstance(array, (str, bytes, os.PathLike)):
        mend = "read the file first, with numpy.load(path, mmap_mode='r') say"
    elif hasattr(array, "toarray") or hasattr(array, "todense"):
        mend = "it is sparse: pass its dense form, .toarray() or .todense()"
    elif isinstance(array, Iterator):
        mend = "it can be iterated only once: pass list(...) of it"
    elif isinstance(array, (dict, set, frozenset, MappingView)) or array is None:
        mend = "convert it to one"
    elif hasattr(array, "losses") and not hasattr(array, "__array__"):
        mend = "pass its .losses"
    if mend is not None:
        raise MixsolveTypeError(
            f"{name} must be an array of numbers, got {type(array).__name__}; {mend}"
        )


def _restore_like(array: Any) -> Callable[[np.ndarray], Any]:
    namespace = getattr(array, "__array_namespace__", None)
    if namespace is None:
        return _same
    return lambda weights: namespace().asarray(weights)


def to_numpy(array: Any, name: str) -> np.ndarray:
    """Read a small array (weights, masks, priors), of any kind `array_source` reads, into NumPy.

    Raises
    ------
    MixsolveTypeError
        If it does not hold real numbers or booleans.
    """
    source = array_source(array, name)
    values = source.to_numpy(source.data)
    check_dtype(values.dtype, name)
    return values


def check_dtype(dtype: Any, name: str) -> None:
    """Refuse a dtype, of NumPy or of another framework, but those of real numbers and booleans.

    Raises
    ------
    MixsolveTypeError
        For complex numbers, strings, objects, dates.
    """
    kind = getattr(dtype, "kind", None)
    if kind is None:  # a framework's own dtype object: judge by its name
        kind = "c" if "complex" in str(dtype) else "f"
    if kind in "fiub" or "float" in str(dtype):  # bfloat16 and its like are of kind V
        return
    mend = {
        "c": "complex losses have no order; pass their real part or modulus",
        "O": "an object array often hides rows of unequal length; pass a numeric array, or a "
        "list of (candidates, classifiers) arrays",
    }.get(kind, "convert it to a numeric array first")
    raise MixsolveTypeError(f"{name} must hold real numbers or booleans, got dtype {dtype}; {mend}")


def losses_source(losses: Any) -> ArraySource:
    """Read a `losses` argument of three axes, or of two, which is one candidate a sample."""
    source = array_source(losses)
    check_axes(source)
    if len(source.data.shape) == 2:
        source = replace(source, data=with_axis(source.data, 1))
    return source


def check_axes(source: ArraySource) -> None:
    """Refuse a `losses` argument that does not hold real numbers along three axes, or two."""
    shape = tuple(source.data.shape)
    check_dtype(source.data.dtype, "losses")
    if len(shape) not in (2, 3):
        raise MixsolveError(
            "losses must have three axes (samples, candidates, classifiers), got an array of "
            f"shape {shape}{_mend_axes(len(shape))}"
        )
    axes = TENSOR if len(shape) == 3 else (TENSOR[0], TENSOR[2])
    for axis, length in zip(axes, shape, strict=True):
        if not length:
            raise MixsolveError(
                f"losses has no {axis}: its shape is {shape}, and every axis needs at least one "
                "entry"
            )


def _mend_axes(n_axes: int) -> str:
    return {
        1: "; one loss a classifier needs losses[None, None, :]",
    }.get(n_axes, "; flatten or index the extra axes")
