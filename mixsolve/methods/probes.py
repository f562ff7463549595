"""Cheap bounds on many sets of classifiers of one game held in memory: `mixsolve.kernels.probe`.

Where classifiers are alike, nothing but an attack of its own closes a choice of k of them, and
there are L! / (k! (L - k)!). A probe is a few passes over the columns of the choice, in compiled
code, on a copy of the game whose columns lie apart; choices are probed on all cores. What a probe
proves holds of the raw tensor: the copy is as exact as float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixsolve.base.threads import run_chunks
from mixsolve.base.tuning import tuning
from mixsolve.engines.memory import MemoryEngine
from mixsolve.methods.problem import Problem
from mixsolve.uncompiled.choice import runs_in_numpy

_PER_CHUNK = 4  # sets that a thread probes at a time


@dataclass(frozen=True)
class Probed:
    """A bound on the mixtures of some classifiers, and good weights (L,) among them."""

    bound: float
    value: float
    weights: np.ndarray


class Probes:
    """Probes of one exact game over the whole simplex."""

    def __init__(self, engine: MemoryEngine) -> None:
        from mixsolve.kernels import batch

        self._engine = engine
        tensor, size = engine.tensor, engine.n_classifiers
        counts = np.diff(tensor.offsets)
        samples = np.repeat(np.arange(counts.size), counts)
        candidates = np.arange(samples.size) - tensor.offsets[:-1][samples]
        rows = engine.gather(samples, candidates)
        allowed = np.require(engine.allowed, np.uint8, ["C", "W"])
        self._columns, self._groups, place, _, self._weight, _, _ = batch.load(
            np.require(rows, np.float64, ["C", "W"]), 0, np.asarray(tensor.offsets), allowed,
            np.empty(0), np.array(engine.sample_weight), np.zeros(counts.size),
        )  # fmt: skip
        self._n_rows = place.size
        self._size = size
        self._curvature = engine.spread

    @staticmethod
    def of(problem: Problem) -> "Probes | None":
        """Those of a problem; None where it is not an exact game, or too large to be copied."""
        engine = problem.engine
        if problem.alpha is not None or not isinstance(engine, MemoryEngine) or runs_in_numpy():
            return None
        held = engine.tensor.held and not engine.tensor.elsewhere
        copied = 8 * engine.tensor.offsets[-1] * engine.n_classifiers
        return Probes(engine) if held and copied <= tuning.copied_bytes else None

    def __call__(self, sets: Sequence[tuple[int, ...]], cutoff: float, most: int) -> list[Probed]:
        """Probe sets of classifiers, each until its bound is `cutoff` or for `most` passes."""
        from mixsolve.kernels.probe import probe

        if not sets:
            return []
        found: list[Probed | None] = [None] * len(sets)
        passes = np.zeros(len(sets))
        curvatures = np.empty(len(sets))

        def work(chunk: int) -> None:
            for place in range(chunk * _PER_CHUNK, min((chunk + 1) * _PER_CHUNK, len(sets))):
                members = np.array(sets[place], dtype=np.int64)
                point = np.full(members.size, 1.0 / members.size)
                bound, value, curvatures[place], passes[place] = probe(
                    self._columns, self._groups, self._weight, members, self._n_rows, cutoff, most,
                    self._curvature, point,
                )  # fmt: skip
                weights = np.zeros(self._size)
                weights[members] = point
                passes[place] *= members.size / self._size
                found[place] = Probed(bound, value, weights)

        run_chunks(work, -(-len(sets) // _PER_CHUNK))
        self._curvature = float(np.median(curvatures))
        self._engine.n_passes += float(passes.sum())
        return [probed for probed in found if probed is not None]
