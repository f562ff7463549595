"""When to stop: tolerance, iteration and time limits, the caller's callback; and the history."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from mixsolve.base.compilation import preparing, seconds_of_work
from mixsolve.engines.bookkeeping import in_losses_unit
from mixsolve.kernels.constants import ROUNDING
from mixsolve.methods.iteration_table import IterationTable

logger = logging.getLogger("mixsolve")


class Status(StrEnum):
    """How a solve ended.

    OPTIMAL: the certified gap is within the tolerance. MAX_ITER, TIME_LIMIT: a limit was hit, the
    best point so far is returned. STOPPED: by the callback. FAILED: the method could not close the
    gap, or its backend failed. INFEASIBLE: no weights meet the constraints.
    """

    OPTIMAL = "optimal"
    MAX_ITER = "max_iter"
    TIME_LIMIT = "time_limit"
    STOPPED = "stopped"
    FAILED = "failed"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True)
class Record:
    """One line of a solve's history.

    Attributes
    ----------
    nit : int
        Iterations done.
    value : float
        Best objective so far.
    lower_bound : float
        Best lower bound so far.
    gap : float
        ``value - lower_bound``.
    seconds : float
        Since the solve began, without those spent on imports and compilation. Not part of what is
        compared.
    """

    nit: int
    value: float
    lower_bound: float
    gap: float
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class State:
    """What a callback sees, once an iteration.

    Attributes
    ----------
    nit : int
        Iterations done.
    weights : ndarray of float64, shape (L,)
        The iterate just evaluated.
    value : float
        Objective at the best weights so far.
    lower_bound : float
        Best lower bound on the optimal objective so far.
    gap : float
        ``value - lower_bound``.
    seconds : float
        Since the solve began, without those spent on imports and compilation.
    """

    nit: int
    weights: np.ndarray
    value: float
    lower_bound: float
    gap: float
    seconds: float


class Stop:
    """Decides after each iteration whether to continue; keeps the best points and the history.

    `weights` are those of the best value so far (of values equal to rounding, those of the better
    bound), `proof` those that gave the best lower bound.

    Parameters
    ----------
    tolerance : float
        Absolute gap at which a point counts as optimal.
    max_iter : int or None
        Iterations allowed; None for the method's own default.
    time_limit : float or None
        Seconds allowed, imports and compilation not counted.
    callback : callable or None
        Called with a `State` once an iteration; returning True stops the solve.
    table : IterationTable or None
        Where each iteration is printed, besides the log at level DEBUG.
    began : float or None
        When the clock started, by ``time.perf_counter``; now by default.
    exponent : int
        Values and bounds are counted in units of 2^exponent; history and callback see them in that
        of the losses.
    """

    def __init__(
        self,
        tolerance: float,
        max_iter: int | None = None,
        time_limit: float | None = None,
        callback: Callable[[State], object] | None = None,
        table: IterationTable | None = None,
        began: float | None = None,
        exponent: int = 0,
    ) -> None:
        self.tolerance = tolerance
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.status: Status | None = None
        self.nit = 0
        self.value = np.inf
        self.lower_bound = -np.inf
        self.weights: np.ndarray | None = None
        self.proof: np.ndarray | None = None
        self._value_there = np.inf  # value and bound at `weights`
        self._bound_there = -np.inf
        self.history: list[Record] = []
        self._callback = callback
        self.table = table
        self._began = time.perf_counter() if began is None else began
        self._exponent = exponent
        self._smoothing = 0.0

    def less(self, smoothing: float) -> "Stop":
        """Itself, for a method whose bounds are that much above those of the problem."""
        self._smoothing = smoothing
        return self

    def part(self, tolerance: float, enough: Callable[[State], object] | None = None) -> "Stop":
        """One for a step of the same solve, without callback or log: same clock, own tolerance.

        `enough` is a callback that ends the step by returning True.
        """
        return Stop(tolerance, None, self.time_limit, enough, began=self._began)

    @property
    def gap(self) -> float:
        """Best value less best lower bound so far; infinite while either is unknown."""
        return self.value - self.lower_bound

    @property
    def seconds(self) -> float:
        """Seconds since the solve began, without those spent on imports and compilation."""
        return seconds_of_work(self._began)

    @property
    def seconds_prepared(self) -> float:
        """Seconds spent on imports and compilation since the solve began."""
        return preparing.seconds(self._began, time.perf_counter())

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the time limit (at least 0), or None without one."""
        return None if self.time_limit is None else max(0.0, self.time_limit - self.seconds)

    def is_late(self) -> bool:
        """Whether the time limit has passed."""
        return self.seconds_left == 0.0

    @property
    def halted(self) -> Callable[[], bool] | None:
        """`is_late`, for steps that look at the clock; None without a time limit."""
        return None if self.time_limit is None else self.is_late

    def iterations(self, default_max_iter: int) -> Iterator[int]:
        """Count iterations from 1 until the gap, a limit or the callback ends the solve.

        The default is used where the caller gave no ``max_iter``.
        """
        limit = default_max_iter if self.max_iter is None else self.max_iter
        while self.status is None:
            if self.nit >= limit:
                self.status = Status.MAX_ITER
            elif self.is_late():
                self.status = Status.TIME_LIMIT
            else:
                self.nit += 1
                yield self.nit

    def record(
        self,
        weights: np.ndarray,
        value: float,
        lower_bound: float,
        proof: np.ndarray | None = None,
    ) -> bool:
        """Record one evaluated point; return whether the solve is over.

        Parameters
        ----------
        weights : ndarray, shape (L,)
            On the simplex.
        value : float
            Objective there.
        lower_bound : float
            A lower bound on the optimal objective; ``-inf`` where none is known.
        proof : ndarray, shape (L,), optional
            The point that gave the bound, if it was another one than `weights`.

        A value or bound that is not finite is ignored.
        """
        value = float(value) if math.isfinite(value) else np.inf
        lower_bound = float(lower_bound) if math.isfinite(lower_bound) else -np.inf
        lower_bound -= self._smoothing
        tied = abs(value - self._value_there) <= ROUNDING * abs(value)
        if lower_bound > self._bound_there if tied else value < self._value_there:
            self.weights = weights.copy()
            self._value_there, self._bound_there = value, lower_bound
        self.value = min(self.value, value)
        if lower_bound > self.lower_bound:
            self.lower_bound = lower_bound
            self.proof = (weights if proof is None else proof).copy()
        seconds = self.seconds
        figures = self.value, self.lower_bound, self.gap
        if self._exponent:
            shown = [in_losses_unit(figure, self._exponent) for figure in figures]
            figures = shown[0], shown[1], shown[2]
        self.history.append(Record(self.nit, *figures, seconds))
        logger.debug(
            "iteration %d: value %.12g, lower bound %.12g, gap %.3g, %.3f s",
            self.nit,
            *figures,
            seconds,
        )
        if self.table is not None:
            self.table.add(self.nit, *figures, seconds)
        if self._callback is not None:
            state = State(self.nit, weights.copy(), *figures, seconds)
            if self._callback(state):
                self.status = Status.STOPPED
        if self.gap <= self.tolerance:
            self.status = Status.OPTIMAL
        return self.status is not None
