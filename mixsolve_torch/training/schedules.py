"""Learning rates over a training run, as a factor of their peak at a share of all steps.

    "step"       1,  then 0.1 from 50 % on and 0.01 from 75 % on
    "cyclic"     up from 0 to 1 at 40 %, and down to 0 at 100 %, along straight lines
    "cosine"     (1 + cos(pi p)) / 2
    "onecycle"   up from 1/25 to 1 at 30 %, and down to 4e-6 at 100 %, along half cosines
    "constant"   1

With a warm-up over the share w of all steps, the factors of "step", "cosine" and "constant" begin
with p / w; the cosine falls over the rest, p -> (p - w) / (1 - w). "onecycle" turns at w.

A factor depends on the progress alone: a resumed run needs no state of the schedule.

References
----------
Rice, Wong, Kolter. Overfitting in Adversarially Robust Deep Learning. ICML 2020.
Wong, Rice, Kolter. Fast Is Better than Free: Revisiting Adversarial Training. ICLR 2020.
Loshchilov, Hutter. SGDR: Stochastic Gradient Descent with Warm Restarts. ICLR 2017.
Smith, Topin. Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates.
2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mixsolve.base.arguments import as_real
from mixsolve.base.errors import MixsolveError

_PEAK = 0.4  # of all steps, where "cyclic" turns
_ONE_CYCLE_PEAK = 0.3  # where "onecycle" turns without a warm-up of another length
_FIRST, _LAST = 1 / 25, 1 / 25e4  # factors of "onecycle" at its ends


def learning_rate_factor(schedule: str, progress: float, warmup: float = 0.0) -> float:
    """Return the learning rate as a factor of its peak.

    Parameters
    ----------
    schedule : {"step", "cyclic", "cosine", "onecycle", "constant"}
        How it changes.
    progress : float
        Share of all steps that are done, at least 0; beyond 1 as at 1.
    warmup : float, default 0
        Share of all steps in which it rises, in [0, 1).

    Raises
    ------
    MixsolveError
        An unknown schedule, a negative progress, or a warm-up that the schedule does not have.

    Examples
    --------
    >>> [learning_rate_factor("step", done) for done in (0.0, 0.5, 0.75)]
    [1.0, 0.1, 0.01]
    >>> [learning_rate_factor("cyclic", done) for done in (0.0, 0.2, 0.4, 1.0)]
    [0.0, 0.5, 1.0, 0.0]
    """
    if schedule not in _SCHEDULES:
        known = ", ".join(repr(name) for name in _SCHEDULES)
        raise MixsolveError(f"schedule must be one of {known}; got {schedule!r}")
    progress = min(as_real("progress", progress, at_least=0), 1.0)
    warmup = as_real("warmup", warmup, at_least=0, below=1)
    if schedule == "cyclic" and warmup:
        raise MixsolveError(
            f"warmup must be 0 with the schedule 'cyclic', which rises up to {_PEAK:.0%} of all "
            f"steps; got {warmup:g}; take 'onecycle'"
        )
    return _SCHEDULES[schedule](progress, warmup)


def _step(progress: float, warmup: float) -> float:
    if progress < warmup:
        return progress / warmup
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def _cyclic(progress: float, warmup: float) -> float:
    return min(progress / _PEAK, (1.0 - progress) / (1.0 - _PEAK))


def _cosine(progress: float, warmup: float) -> float:
    if progress < warmup:
        return progress / warmup
    return _half_cosine(1.0, 0.0, (progress - warmup) / (1 - warmup))


def _one_cycle(progress: float, warmup: float) -> float:
    peak = warmup or _ONE_CYCLE_PEAK
    if progress < peak:
        return _half_cosine(_FIRST, 1.0, progress / peak)
    return _half_cosine(1.0, _LAST, (progress - peak) / (1 - peak))


def _constant(progress: float, warmup: float) -> float:
    return progress / warmup if progress < warmup else 1.0


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


_SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "step": _step,
    "cyclic": _cyclic,
    "cosine": _cosine,
    "onecycle": _one_cycle,
    "constant": _constant,
}
