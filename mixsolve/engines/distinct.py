"""The distinct candidates of each sample, and those that no other one dominates."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mixsolve.arrays.tensor import LossTensor
from mixsolve.base.tuning import tuning
from mixsolve.engines.memory import MemoryEngine
from mixsolve.engines.packed import narrow

_MAX_BIT_CLASSIFIERS = 1024
_SAMPLE_BYTES = 64  # for the counts, offsets, groups and weights of a sample
_BATCH_ROWS = 1 << 17
_SPARE, _SPARE_ROWS = 2, 64  # for rows that go once a later one dominates them


@dataclass(frozen=True)
class Kept:
    """Rows kept of each sample, and what makes two samples equal.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        First kept row of each sample.
    candidates : ndarray of int32, shape (R,)
        In the samples' own numbering.
    mass : ndarray of float64, shape (R,)
        Base measure gathered by each row.
    words : ndarray of uint64, shape (R, n_words)
        The losses, packed into bits or as they are.
    """

    offsets: np.ndarray
    candidates: np.ndarray
    mass: np.ndarray
    words: np.ndarray


def condense(
    engine: MemoryEngine, limit: int, dominance: bool
) -> tuple[MemoryEngine, np.ndarray] | None:
    """The same game with each sample's repeated candidates merged. See `Condensing.distinct`."""
    kept = keep_rows(engine, dominance, limit / engine.n_rows)
    if kept is None or kept.offsets[-1] > limit:
        return None
    tensor, _ = rows_of(engine, kept, np.arange(engine.n_samples))
    nothing = np.empty(0, dtype=np.uint8)
    return MemoryEngine(
        tensor, engine.sample_weight, nothing, kept.mass, engine.classifiers
    ), kept.candidates


def keep_rows(
    engine: MemoryEngine,
    dominance: bool,
    share: float,
    halted: Callable[[], bool] | None = None,
    two_valued: bool = True,
    a_sample: float = np.inf,
) -> Kept | None:
    """Rows kept of each sample; None if they exceed the share or the memory, or if halted.

    Nor may there be many more than `a_sample` times the samples.
    """
    from mixsolve.kernels import presolve as kernels

    bits = two_valued and engine.two_valued and engine.n_classifiers <= _MAX_BIT_CLASSIFIERS
    n_words = -(-engine.n_classifiers // 64)
    tensor = engine.tensor
    room = affordable(engine.n_samples, engine, n_words if bits else engine.n_classifiers)
    most = tensor.n_candidates
    code = np.min_scalar_type((1 << engine.n_classifiers) - 1) if bits and n_words == 1 else None
    counts = np.empty(engine.n_samples, dtype=np.int64)
    parts: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    failed: list[int] = []
    sizes: list[int] = []

    def work(chunk: int, start: int, stop: int, rows: np.ndarray) -> None:
        if failed or (halted is not None and halted()):
            failed.append(-1)
            return
        capacity = int(
            min(
                share * rows.shape[0] + tensor.n_candidates,
                _SPARE * a_sample * (stop - start) + _SPARE_ROWS,
            )
        )
        candidates = np.empty(capacity, dtype=np.int32)
        mass = np.empty(capacity)
        codes = np.empty((capacity if bits else 0, n_words), dtype=np.uint64)
        span = slice(int(tensor.offsets[start]), int(tensor.offsets[stop]))
        offsets = tensor.offsets[start : stop + 1]
        allowed, prior = engine.allowed[span], engine.prior[span]
        if bits:
            low, high = rows.dtype.type(engine.lowest), rows.dtype.type(engine.highest)
            used = kernels.reduce_bits(
                rows, offsets, allowed, prior, low, high, dominance,
                codes, candidates, mass, counts[start:stop],
            )  # fmt: skip
        else:
            used = kernels.reduce_values(
                rows, offsets, allowed, prior, dominance, candidates, mass, counts[start:stop]
            )
        sizes.append(used)
        if used < 0 or sum(sizes) > room:
            failed.append(used)
            return
        if not bits:
            first = np.repeat(offsets[:-1] - offsets[0], counts[start:stop])
            codes = rows[first + candidates[:used]].astype(np.float64).view(np.uint64)
        parts[start] = (
            narrow(candidates[:used], most),
            mass[:used].copy() if prior.size else narrow(mass[:used], most),
            codes[:used].astype(code or np.uint64),
        )

    engine.each_block(work)
    some = engine.idle is not None or engine.classifiers is not None
    if some and kernels.OTHER_VALUE in failed:  # perhaps only losses that do not count
        return keep_rows(engine, dominance, share, halted, False, a_sample)
    if failed:
        return None
    in_order = [parts[start] for start in sorted(parts)]
    return Kept(
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([part[0] for part in in_order], dtype=np.int32),
        np.concatenate([part[1] for part in in_order], dtype=np.float64),
        np.concatenate([part[2] for part in in_order], dtype=np.uint64),
    )


def rows_of(engine: MemoryEngine, kept: Kept, samples: np.ndarray) -> tuple[LossTensor, np.ndarray]:
    """Rows kept of some samples, ascending, in the tensor's own type; and their masses."""
    lengths = np.diff(kept.offsets)[samples]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.empty((offsets[-1], engine.n_classifiers), dtype=engine.tensor.dtype)
    mass = np.empty(offsets[-1])
    shifts = kept.offsets[samples] - offsets[:-1]
    pieces = np.searchsorted(offsets, np.arange(0, offsets[-1], _BATCH_ROWS))
    for begin, end in pairwise(np.unique([*pieces, samples.size]).tolist()):
        here = slice(*offsets[[begin, end]])
        owners = np.repeat(np.arange(begin, end), lengths[begin:end])
        chosen = np.arange(here.start, here.stop) + shifts[owners]
        candidates = kept.candidates[chosen].astype(np.int64)
        rows[here] = engine.tensor.take(samples[owners], candidates)
        mass[here] = kept.mass[chosen]
    return LossTensor.from_rows(rows, offsets), mass


def affordable(n_samples: int, engine: MemoryEngine, n_words: int) -> float:
    """How many rows may be kept for a number of samples.

    At first each row takes its words twice, packed narrowly and wide, later its losses in their
    place, and always candidate and mass.
    """
    losses = engine.tensor.dtype.itemsize * engine.n_classifiers
    return (tuning.distinct_bytes - _SAMPLE_BYTES * n_samples) / (20 + max(16 * n_words, losses))
