"""A model of the time of a solve, fitted to runs, and what it says of machines nobody here has.

    time = passes x bytes / (workers x bandwidth) + rounds x latency

Bandwidth and latency are fitted for each place the tensor can be and each method, in relative least
squares, so that a run of a millisecond counts as much as one of a minute. What travels is fitted by
itself, ``sent = fixed + each x N``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls


@dataclass(frozen=True)
class Model:
    """Bandwidth of a worker in bytes a second, latency of a round in seconds, and the misfit.

    Attributes
    ----------
    bandwidth, latency : float
        Infinite and 0 where the runs do not show them.
    misfit : float
        Median of ``|model / measured - 1|``.
    fixed, each : float
        Bytes that travel in a solve, and for each sample.
    """

    bandwidth: float
    latency: float
    misfit: float
    fixed: float
    each: float

    def seconds(self, run: dict[str, Any]) -> float:
        """What the model says of a run."""
        return run["passes"] * run["bytes"] / run["workers"] / self.bandwidth + (
            run["rounds"] * self.latency
        )


def fit(runs: Sequence[dict[str, Any]]) -> Model:
    """Fit the model to the runs of one place."""
    read = np.array([run["passes"] * run["bytes"] / run["workers"] for run in runs])
    rounds = np.array([run["rounds"] for run in runs], dtype=np.float64)
    seconds = np.array([run["seconds"] for run in runs])
    slope, latency = _relative(read, rounds, seconds)
    sent = np.array([float(run["sent"]) for run in runs])
    each, fixed = 0.0, 0.0
    if sent.any():
        samples = np.array([float(run["N"]) for run in runs])
        each, fixed = _relative(samples, np.ones(len(runs)), sent)
    predicted = slope * read + latency * rounds
    return Model(
        1.0 / slope if slope else np.inf,
        latency,
        float(np.median(np.abs(predicted / seconds - 1.0))),
        fixed,
        each,
    )


def _relative(first: np.ndarray, second: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Non-negative a, b that minimise ``sum ((a first + b second) / target - 1)^2``."""
    columns = np.stack([first, second], axis=1)
    sizes = columns.max(axis=0)
    found = nnls(columns / sizes / target[:, None], np.ones(target.size))[0] / sizes
    return float(found[0]), float(found[1])


@dataclass(frozen=True)
class Prediction:
    """A solve on machines with disks of their own.

    Attributes
    ----------
    reading, waiting, sending : float
        Seconds: tensor off the disks, rounds, bytes over the busiest link.
    link : float
        Bytes over that link, the one to the process that solves.
    cores : float
        Of each machine, to compute as fast as its disks read.
    """

    reading: float
    waiting: float
    sending: float
    link: float
    cores: float

    @property
    def rules(self) -> str:
        """The term that is the largest."""
        terms = {"reading": self.reading, "waiting": self.waiting, "sending": self.sending}
        return max(terms, key=lambda name: terms[name])


def predict(
    model: Model,
    run: dict[str, Any],
    *,
    samples: float,
    bytes_per_sample: float,
    machines: int,
    disk: float,
    link: float,
) -> Prediction:
    """What the model says of a larger game on several machines.

    Parameters
    ----------
    model : Model
        Of a place with workers.
    run : dict
        The largest run measured there: its passes and rounds are taken over.
    samples, bytes_per_sample : float
        The game.
    machines : int
        Each with its share of the samples.
    disk, link : float
        Bytes a second of a machine's disks and of a link.
    """
    share = samples * bytes_per_sample / machines
    travels = model.fixed * machines + model.each * samples
    return Prediction(
        reading=run["passes"] * share / disk,
        waiting=run["rounds"] * model.latency,
        sending=travels / link,
        link=travels,
        cores=disk / model.bandwidth,
    )
