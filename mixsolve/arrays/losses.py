"""The `losses` argument of `mixsolve.solve` as a checked loss tensor."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixsolve.arrays.interop import ArraySource, array_source, check_dtype
from mixsolve.arrays.tensor import LossTensor
from mixsolve.base.errors import MixsolveError, MixsolveTypeError


def as_loss_tensor(losses: Any) -> tuple[LossTensor, ArraySource]:
    """Read the `losses` argument of `mixsolve.solve`.

    Returns
    -------
    LossTensor
    ArraySource
        Of the array given (of the first one, for a list): its `restore` returns results.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        If the type, the number of axes or an axis' length cannot be a loss tensor.
    """
    if isinstance(losses, (list, tuple)) and losses and _is_table(losses[0]):
        return _from_list(losses)
    if np.isscalar(losses) and not isinstance(losses, (str, bytes)):
        raise MixsolveTypeError(
            f"losses must be an array of numbers, got {type(losses).__name__}; pass one of shape "
            "(samples, candidates, classifiers)"
        )
    source = array_source(losses)
    check_axes(source)
    return LossTensor.from_source(source), source


def check_axes(source: ArraySource) -> None:
    """Refuse a `losses` argument that does not hold real numbers along three axes."""
    shape = tuple(source.data.shape)
    check_dtype(source.data.dtype, "losses")
    if len(shape) != 3:
        raise MixsolveError(
            "losses must have three axes (samples, candidates, classifiers), got an array of "
            f"shape {shape}{_mend_axes(len(shape))}"
        )
    for axis, length in zip(("samples", "candidates", "classifiers"), shape, strict=True):
        if not length:
            raise MixsolveError(
                f"losses has no {axis}: its shape is {shape}, and every axis needs at least one "
                "entry"
            )


def _mend_axes(n_axes: int) -> str:
    return {
        1: "; one loss a classifier needs losses[None, None, :]",
        2: "; for one sample (a matrix game of candidates x classifiers) pass losses[None], for "
        "one candidate a sample losses[:, None, :]",
    }.get(n_axes, "; flatten or index the extra axes")


def _is_table(item: Any) -> bool:
    """Whether an item of a list is one sample's array (or nested list of rows)."""
    if isinstance(item, (list, tuple)):
        return (bool(item) and isinstance(item[0], (list, tuple))) or _is_table_of_rows(item)
    return getattr(item, "ndim", None) is not None


def _is_table_of_rows(item: Sequence[Any]) -> bool:
    return bool(item) and getattr(item[0], "ndim", 0) == 1


def _from_list(losses: Sequence[Any]) -> tuple[LossTensor, ArraySource]:
    parts: list[np.ndarray] = []
    first = array_source(losses[0], "losses[0]")
    for i, item in enumerate(losses):
        name = f"losses[{i}]"
        source = array_source(item, name)
        part = source.to_numpy(source.data)
        check_dtype(part.dtype, name)
        if part.ndim != 2:
            raise MixsolveError(
                f"{name} must be a table (candidates, classifiers), got an array of shape "
                f"{part.shape}; a list holds one table per sample"
            )
        if part.shape[0] == 0 or part.shape[1] == 0:
            raise MixsolveError(
                f"{name} is empty: its shape is {part.shape}, and every sample needs at least "
                "one candidate and one classifier; leave the sample out, or add its clean point"
            )
        if parts and part.shape[1] != parts[0].shape[1]:
            raise MixsolveError(
                f"{name} has losses of {part.shape[1]} classifiers, but losses[0] of "
                f"{parts[0].shape[1]}; every sample needs the same classifiers, in the same order"
            )
        parts.append(part)
    if len({part.shape for part in parts}) == 1 and isinstance(losses[0], (list, tuple)):
        return LossTensor.from_source(array_source(np.array(parts))), first
    return LossTensor.from_tables(parts), first
