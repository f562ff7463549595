"""Solve drawn games in worker processes, judge each answer, and count.

A worker watches its own clock, which leaves out what is spent on compiling kernels: it reports a
game that does not end as hung and ends itself, and the parent starts another, so that no fault of
one game hides those of the others.
"""

import multiprocessing
import os
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks.fuzz.draw import Drawn, draw
from benchmarks.fuzz.entries import TOL, WAYS
from benchmarks.fuzz.judge import Truth, compare_with_descent, compare_with_highs, judge
from mixsolve.base.compilation import seconds_of_work

SLOW = 5.0  # seconds of work, and of the processor: other processes may be at work too
_HUNG = 300.0  # seconds after which a worker gives up; a compilation that goes on counts
_DEAF = 900.0  # seconds after which the parent gives a worker up
_COMPARED = 0.05  # share of the games that another solver solves too


@dataclass
class Result:
    """What became of one game.

    Attributes
    ----------
    number : int
        Of the game within its seed.
    kind, way, method : str
        Of its losses, how it was solved, by which method.
    traits : tuple of str
        What was done to its losses.
    statuses : tuple of str
        Of the solutions.
    faults : dict of str to str
        Kind of fault, "wrong", "crash", "slow" or "hung", and what was seen.
    share : float
        Largest recomputed gap over tolerance among successes.
    highs, descent : float or None
        Difference to another solver in units of the spread, where one was asked.
    """

    number: int
    kind: str = ""
    traits: tuple[str, ...] = ()
    way: str = ""
    method: str = ""
    statuses: tuple[str, ...] = ()
    faults: dict[str, str] = field(default_factory=dict)
    share: float = 0.0
    highs: float | None = None
    descent: float | None = None


def examine(seed: int, number: int, way: str | None = None) -> Result:
    """Draw a game, solve it, judge the answer.

    Parameters
    ----------
    seed, number : int
        Which game.
    way : str, optional
        How to solve it, a key of `WAYS`; drawn by default.
    """
    game = draw(seed, number)
    rng = np.random.default_rng([seed, number, 1])
    shares = np.array([share for _, share in WAYS.values()])
    drawn = str(rng.choice(list(WAYS), p=shares / shares.sum()))
    result = Result(number, game.kind, game.traits, way or drawn)
    compared = rng.random() < _COMPARED
    state = rng.bit_generator.state
    for _ in range(2):  # on a busy machine anything may take long once
        rng.bit_generator.state = state
        began, used = time.perf_counter(), time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers = list(WAYS[result.way][0](game, rng))
        except Exception:  # whatever comes out is a fault of this game
            result.faults["crash"] = traceback.format_exc(limit=-6)
            return result
        seconds = min(seconds_of_work(began), time.process_time() - used)
        if seconds <= SLOW:
            break
    else:
        result.faults["slow"] = f"{seconds:.1f} s"
    _judge(game, answers, compared, result)
    return result


def _judge(game: Drawn, answers: list, compared: bool, result: Result) -> None:
    truth = Truth(game)
    result.statuses = tuple(str(solution.status) for solution, _, _ in answers)
    result.method = answers[0][0].method
    for solution, alpha, lowest in answers:
        if not solution.success:
            continue
        verdict = judge(game, truth, solution, alpha, TOL, lowest)
        result.share = max(result.share, verdict.share)
        wrong = verdict.wrong
        if not wrong and compared and lowest is np.min:
            if not np.any(alpha):
                wrong, result.highs = compare_with_highs(truth, solution, TOL)
            elif np.array_equal(alpha, game.alpha):
                wrong, result.descent = compare_with_descent(truth, solution, TOL)
        if wrong:
            result.faults["wrong"] = wrong


def _work(seed: int, way: str | None, tasks, results) -> None:
    now: list[tuple[int, float]] = []  # the game at hand, and when it was begun

    def watch() -> None:
        while True:
            time.sleep(0.5)
            for number, began in tuple(now):
                if seconds_of_work(began) > _HUNG:
                    results.put(_lost(seed, number, way, "hung", f"no end after {_HUNG:g} s"))
                    os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    for number in iter(tasks.get, None):
        now[:] = [(number, time.perf_counter())]
        result = examine(seed, number, way)
        now.clear()
        results.put(result)


def _lost(seed: int, number: int, way: str | None, fault: str, words: str) -> Result:
    game = draw(seed, number)
    return Result(number, game.kind, game.traits, way or "", faults={fault: words})


class _Worker:
    """A process with queues of its own, so that ending it harms no other."""

    def __init__(self, seed: int, way: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.tasks, self.results = context.SimpleQueue(), context.SimpleQueue()
        self.process = context.Process(
            target=_work, args=(seed, way, self.tasks, self.results), daemon=True
        )
        self.process.start()
        self.began = 0.0
        self.number: int | None = None

    def give(self, number: int | None) -> None:
        self.tasks.put(number)
        self.number, self.began = number, time.monotonic()


def run(numbers: Iterator[int], seed: int, workers: int, way: str | None) -> Iterator[Result]:
    """Examine games on `workers` processes; results come in the order in which they are ready."""
    pool = [_Worker(seed, way) for _ in range(workers)]
    numbers = iter(numbers)
    try:
        for worker in pool:
            worker.give(next(numbers, None))
        while any(worker.number is not None for worker in pool):
            idle = True
            for place, worker in enumerate(pool):
                if worker.number is None:
                    continue
                alive = worker.process.is_alive()
                if not worker.results.empty():
                    idle = False
                    result = worker.results.get()
                    yield result
                    if "hung" in result.faults:  # it ends itself
                        pool[place] = worker = _Worker(seed, way)
                    worker.give(next(numbers, None))
                elif not alive or time.monotonic() - worker.began > _DEAF:
                    worker.process.kill()
                    fault, words = ("hung", "deaf") if alive else ("crash", "the process died")
                    yield _lost(seed, worker.number, way, fault, words)
                    pool[place] = worker = _Worker(seed, way)
                    worker.give(next(numbers, None))
            if idle:
                time.sleep(0.001)
    finally:
        for worker in pool:
            worker.process.kill()


def count(results: list[Result], by: str) -> dict[str, Counter]:
    """Numbers of games by kind, way, method or trait: all, statuses, faults, comparisons."""
    counted: dict[str, Counter] = {}
    for result in results:
        named = result.traits if by == "traits" else (getattr(result, by) or "-",)
        for name in named:
            row = counted.setdefault(name, Counter())
            row["games"] += 1
            row["solved"] += bool(result.statuses) and set(result.statuses) == {"optimal"}
            row["ended short"] += bool(set(result.statuses) - {"optimal"})
            row["by HiGHS"] += result.highs is not None
            row["by descent"] += result.descent is not None
            row.update(result.faults.keys())
    return counted
