"""Values of a Dask array, and errors of its tasks as errors of this package."""

from typing import Any, NoReturn

import dask
import dask.base

from mixsolve.base import threads
from mixsolve.base.errors import MixsolveError


def computed(array: Any) -> Any:
    """A Dask array's values, computed by the scheduler in use for it.

    Raises
    ------
    MixsolveError
        If a task of its graph raises.
    """
    try:
        return compute_all([array])[0]
    except Exception as error:
        refuse(error)


def refuse(error: Exception, samples: tuple[int, int] | None = None) -> NoReturn:
    """Raise a task's error: those of this package unchanged, others as the cause of one.

    `samples` are the first and the last one of the block that failed.
    """
    original = getattr(error, "exception", None)  # of another process, in dask.multiprocessing
    if isinstance(original, Exception):
        error = original
    if isinstance(error, MixsolveError):
        raise error
    where = "a block" if samples is None else f"the block of samples {samples[0]} to {samples[1]}"
    mend = "compute the array by itself to see where in its graph that happens"
    if isinstance(error, ModuleNotFoundError):
        mend = "install the same packages for Dask's workers as for this process"
    elif type(error).__name__ in ("KilledWorker", "MemoryError"):
        mend = "give Dask's workers more memory, or the array smaller chunks along the samples"
    elif type(error).__name__.endswith("CancelledError"):
        mend = (
            "data that was scattered or persisted and then lost with its worker cannot be made "
            "again: read it in the array's graph, or scatter it with broadcast=True"
        )
    raise MixsolveError(
        f"losses: {where} of the Dask array could not be computed, "
        f"{type(error).__name__}: {error}; {mend}"
    ) from error


def compute_all(collections: list[Any], **options: Any) -> tuple[Any, ...]:
    """Call ``dask.compute``, which also works while the interpreter shuts down."""
    try:
        return dask.compute(*collections, **options)
    except RuntimeError:
        if threads.can_be_started():
            raise
        return dask.compute(*collections, scheduler="sync")
