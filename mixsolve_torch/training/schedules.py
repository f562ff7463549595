"""Learning rates over a training run, as a factor of their peak at a share of all steps.

    "step"       1,  then 0.1 from 50 % on and 0.01 from 75 % on
    "cyclic"     up from 0 to 1 at 40 %, and down to 0 at 100 %, along straight lines
    "constant"   1

A factor depends on the progress alone: a resumed run needs no state of the schedule.

References
----------
Rice, Wong, Kolter. Overfitting in Adversarially Robust Deep Learning. ICML 2020.
Wong, Rice, Kolter. Fast Is Better than Free: Revisiting Adversarial Training. ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Callable

from mixsolve.base.arguments import as_real
from mixsolve.base.errors import MixsolveError

_PEAK = 0.4  # of all steps, where "cyclic" turns


def learning_rate_factor(schedule: str, progress: float) -> float:
    """Return the learning rate as a factor of its peak.

    Parameters
    ----------
    schedule : {"step", "cyclic", "constant"}
        How it changes.
    progress : float
        Share of all steps that are done, at least 0; beyond 1 as at 1.

    Raises
    ------
    MixsolveError
        An unknown schedule, or a negative progress.

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
    return _SCHEDULES[schedule](min(as_real("progress", progress, at_least=0), 1.0))


def _step(progress: float) -> float:
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def _cyclic(progress: float) -> float:
    return min(progress / _PEAK, (1.0 - progress) / (1.0 - _PEAK))


def _constant(progress: float) -> float:
    return 1.0


_SCHEDULES: dict[str, Callable[[float], float]] = {
    "step": _step,
    "cyclic": _cyclic,
    "constant": _constant,
}
