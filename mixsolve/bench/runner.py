"""Run one solver on one game in a process of its own, with a hard time limit, and certify it.

A process each, so that no solver inherits another's threads, memory or warm caches, and one that
does not return can be ended. Modules are imported and kernels compiled before the clock starts.
Runs of less than a second are repeated, and the fastest time counts.
"""

import json
import re
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mixsolve.base.errors import ConvergenceWarning
from mixsolve.base.tuning import tuning
from mixsolve.bench.peers import PEERS
from mixsolve.engines import as_loss_tensor
from mixsolve.engines.bookkeeping import finite_spread
from mixsolve.engines.memory import MemoryEngine
from mixsolve.methods import METHODS
from mixsolve.solver.solve import solve

_GRACE = 60.0  # seconds for imports, compilation and building a model, besides the time limit
_WARM_UP = 1.0  # seconds at most
_REPEAT_SECONDS = 1.0
_MAX_REPEATS = 7


@dataclass(frozen=True)
class SolverRow:
    """One line of a benchmark's table.

    Attributes
    ----------
    solver : str
        Name of the method or peer.
    seconds : float or None
        Fastest run; None if there was none.
    value, gap : float or None
        Objective and certified gap at the weights it returned.
    passes : float or None
        Passes over the tensor, for mixsolve's methods.
    pass_seconds : float or None
        One best response on the same tensor, as stored, in the same process.
    note : str
        An error, or how the run ended.
    history : list of (float, float)
        Seconds and certified gap of each iteration, for mixsolve's methods.
    """

    solver: str
    seconds: float | None = None
    value: float | None = None
    gap: float | None = None
    passes: float | None = None
    pass_seconds: float | None = None
    note: str = ""
    history: list[tuple[float, float]] = field(default_factory=list)


def solvers_for(alpha: float) -> list[str]:
    """Names of all methods, then all peers, that solve the problem at this alpha."""
    methods = [name for name, entry in METHODS.items() if _fits(entry, alpha)]
    return methods + [name for name, peer in PEERS.items() if _fits(peer, alpha)]


def _fits(entry: Any, alpha: float) -> bool:
    return bool(entry.entropic if alpha > 0 else entry.exact)


def run(solver: str, path: Path, alpha: float, tol: float, time_limit: float) -> SolverRow:
    """Run one solver on a tensor in a file.

    Parameters
    ----------
    solver : str
        One of `solvers_for`.
    path : Path
        A .npy file of shape (N, m, L).
    alpha : float
        Regularisation, in the unit of the losses.
    tol : float
        Relative to the spread of the losses.
    time_limit : float
        Seconds, given to the solver; its process is ended a minute after.

    Returns
    -------
    SolverRow
        With a note instead of figures where the solver failed or ran out of time.
    """
    if solver in PEERS and not PEERS[solver].installed:
        return SolverRow(solver, note=f"not installed (module {PEERS[solver].requires})")
    job = json.dumps([solver, str(path), alpha, tol, time_limit])
    command = [sys.executable, "-m", "mixsolve.bench.runner", job]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=time_limit + _GRACE, check=False
        )
    except subprocess.TimeoutExpired:
        return SolverRow(solver, note=f"ended after {time_limit:g} s without an answer")
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        words = re.sub(r"(/[\w.+-]+)+/", "", lines[-1])  # no paths of this machine
        return SolverRow(solver, note=f"failed: {words[:80]}")
    return SolverRow(**json.loads(done.stdout.splitlines()[-1]))


def _run_here(solver: str, path: str, alpha: float, tol: float, time_limit: float) -> SolverRow:
    tuning.uncompiled_entries = 0  # as in a process that solves many games
    stored = np.load(path)
    warnings.simplefilter("ignore", ConvergenceWarning)
    small = stored[: min(len(stored), 20), : min(stored.shape[1], 5)]
    if solver in METHODS:
        for some in (small, stored[:2000]):  # compiles every kernel the tensor's size calls for
            solve(some, alpha, method=solver, tol=tol, max_iter=3)
        seconds, solution = _fastest(
            lambda: solve(stored, alpha, method=solver, tol=tol, time_limit=time_limit)
        )
        return SolverRow(
            solver,
            seconds,
            solution.value,
            solution.gap,
            solution.n_passes,
            pass_seconds(stored),
            "" if solution.success else str(solution.status),
            [(record.seconds, record.gap) for record in solution.history],
        )
    losses = np.ascontiguousarray(stored, dtype=np.float64)
    peer = PEERS[solver]
    peer.run(np.ascontiguousarray(small, dtype=np.float64), alpha, tol, _WARM_UP)
    seconds, (weights, mass) = _fastest(lambda: peer.run(losses, alpha, tol, time_limit))
    value, gap = certificate_of(losses, alpha, weights, mass)
    note = "time limit" if seconds >= time_limit else ""
    return SolverRow(solver, seconds, value, gap, note=note)


def _fastest(work: Any) -> tuple[float, Any]:
    times: list[float] = []
    while True:
        began = time.perf_counter()
        answer = work()
        times.append(time.perf_counter() - began)
        if sum(times) > _REPEAT_SECONDS or len(times) == _MAX_REPEATS:
            return min(times), answer


def _engine(losses: np.ndarray) -> MemoryEngine:
    tensor, _ = as_loss_tensor(losses)
    uniform = np.full(len(losses), 1.0 / len(losses))
    return MemoryEngine(tensor, uniform, np.empty(0, dtype=np.uint8), np.empty(0))


def spread(losses: np.ndarray) -> float:
    """M, the largest of the losses (N, m, L) less the smallest; refuse one that is not finite."""
    engine = _engine(losses)
    return finite_spread(engine.lowest, engine.highest)


def pass_seconds(losses: np.ndarray) -> float:
    """Seconds of one best response to uniform weights, the fastest of a few."""
    engine = _engine(losses)
    uniform = np.full(engine.n_classifiers, 1.0 / engine.n_classifiers)
    engine.best_response(uniform)
    return min(_fastest(lambda: engine.best_response(uniform))[0] for _ in range(3))


def certificate_of(
    losses: np.ndarray, alpha: float, weights: np.ndarray, mass: np.ndarray | None
) -> tuple[float, float]:
    """Value and certified gap, from the raw tensor, of a peer's weights (L,) and attacker's masses.

    The masses (N, m) are those of the best response where None.
    """
    engine = _engine(losses)
    if alpha > 0:
        soft = engine.soft_response(weights, np.full(len(losses), alpha), hessian=False)
        return soft.value, float(weights @ soft.gradient - soft.gradient.min())
    response = engine.best_response(weights)
    gradient = response.gradient
    if mass is not None:
        samples, candidates = engine.every_candidate()
        attack = engine.strategy(samples, candidates, mass.reshape(-1))
        gradient = engine.expected_losses(attack)
    return response.value, max(response.value - float(gradient.min()), 0.0)


if __name__ == "__main__":
    print(json.dumps(asdict(_run_here(*json.loads(sys.argv[1])))))
