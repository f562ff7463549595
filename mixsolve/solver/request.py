"""The arguments of a solve, checked: a game with its engine, options, what is to be solved."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np

from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve.base.compilation import preparations, seconds_of_work
from mixsolve.base.threads import computed_once
from mixsolve.engines import Engine, MemoryLosses, open_losses
from mixsolve.engines.bookkeeping import finite_spread, unit_exponent
from mixsolve.engines.grouped import GroupedEngine
from mixsolve.feasible import FeasibleSet, Simplex, check_constraints, feasible_set
from mixsolve.kernels.constants import ROUNDING
from mixsolve.methods import Method
from mixsolve.methods.iteration_table import IterationTable
from mixsolve.methods.problem import Problem, blocks_of, within_reach
from mixsolve.methods.stopping import State, Stop
from mixsolve.solver import validation
from mixsolve.solver.grouping import Grouping, check_grouping
from mixsolve.uncompiled.choice import form_of

_FEW_BLOCKS = 20  # of samples: in NumPy each takes a pass


class Options:
    """Checked options of a solve that do not depend on the game."""

    def __init__(
        self,
        tol: float,
        max_iter: int | None,
        time_limit: float | None,
        callback: Callable[[State], object] | None,
        verbose: bool,
        presolve: bool,
    ) -> None:
        self.tol = as_real("tol", tol, above=0.0)
        self.max_iter = None if max_iter is None else as_count("max_iter", max_iter)
        self.time_limit = None
        if time_limit is not None:
            self.time_limit = as_real("time_limit", time_limit, above=0.0)
        validation.check_callable(callback, "callback", "a function of the state, or None")
        self.callback = callback
        check_flags(verbose=verbose, presolve=presolve)
        self.verbose = bool(verbose)
        self.presolve = bool(presolve)


class OpenGame:
    """Checked losses with their engine, which is made when a solve first needs it."""

    def __init__(
        self,
        losses: Any,
        sample_weight: Any,
        mask: Any,
        prior: Any,
        limits: tuple[Any, ...],
        names: Any = None,
        attacker: tuple[Any, ...] = (None, None, None, None),
    ) -> None:
        self.began: float | None = time.perf_counter()
        self.losses = open_losses(losses)
        self.labels = self.losses.labels
        if self.losses is losses:  # opened by the caller, who may solve them again
            self.labels = self.labels.fresh()
        self.labels = self.labels.calling(names, self.losses.n_classifiers)
        self.constraints = None
        self._feasible: FeasibleSet | None = Simplex()
        if any(limit is not None for limit in limits):
            self.constraints = check_constraints(limits, self.losses.n_classifiers, self.labels)
            self._feasible = None  # made for the method
        table = "samples", "candidates"
        self._given = (
            self.named(sample_weight, table[:1], "sample_weight"),
            self.named(mask, table, "candidate_mask"),
            self.named(prior, table, "candidate_prior"),
        )
        self._weights: np.ndarray | None = None
        labels = self.named(attacker[0], table[:1], "groups")
        self._attacker: tuple[Any, ...] = (labels, *attacker[1:])
        self.is_grouped = any(argument is not None for argument in attacker)
        self._engine: Engine | None = None
        self.exponent = 0  # of the engine's unit, a power of 2

    def named(self, given: Any, axes: tuple[str, ...], name: str) -> Any:
        """An argument of these axes, its entries in the order of the losses; None stays None."""
        return None if given is None else self.labels.aligned(given, axes, name)

    def feasible(self, method: str) -> FeasibleSet:
        """Weights that the mixture may have; for "cvxpy", as cvxpy sees them."""
        modelled = method == "cvxpy"
        if self._feasible is None:
            self._feasible = feasible_set(self.constraints, self.losses.n_classifiers, modelled)
        return self._feasible

    @property
    def weights(self) -> np.ndarray:
        """Weights (N,) of the samples as they were given, of sum 1."""
        if self._weights is None:
            self._weights = validation.check_sample_weight(self._given[0], self.losses.n_samples)
        return self._weights

    @computed_once
    def grouping(self) -> Grouping | None:
        """Whom the attacker may strike; None where he takes the samples as they are."""
        if not self.is_grouped:
            return None
        groups, group_weight, tail, alpha_groups = self._attacker
        return check_grouping(groups, group_weight, tail, alpha_groups, self.weights)

    @property
    def engine(self) -> Engine:
        """Passes over the losses, which are checked when it is made.

        Its unit is 2^`exponent`: 1, unless squares of the losses could over- or underflow.
        """
        if self._engine is None:
            _, mask, prior = self._given
            weights = self.weights
            grouping = self.grouping
            if grouping is not None:
                weights = grouping.sample_weight
            allowed = validation.check_candidate_mask(mask, self.losses)
            measure = validation.check_candidate_prior(prior, self.losses, allowed)
            self._engine = engine = self.losses.engine(weights, allowed, measure)
            used = None if self._feasible is None else self._feasible.used
            if used is not None:
                engine = engine.confined(used)
            finite_spread(engine.lowest, engine.highest)
            self.exponent = unit_exponent(engine.magnitude)
            if self.exponent:
                engine = engine.in_unit(self.exponent)
            self._engine = engine
            if grouping is not None and grouping.blocks is not None:
                blocks = grouping.blocks.in_unit(self.exponent)
                self._engine = cast(Engine, GroupedEngine(engine, blocks))
        return self._engine

    def form(self, alpha: Any, most_classifiers: float = np.inf) -> AbstractContextManager[None]:
        """A block in which the game is solved: by compiled kernels or, where it is small, NumPy.

        `alpha` as it was given; with more classifiers than `most_classifiers` it is compiled.
        """
        losses = self.losses
        exact = isinstance(alpha, int | float) and alpha == 0
        kind = "exact" if exact else "entropic"
        kind += "" if self.constraints is None else " constrained"
        possible = isinstance(losses, MemoryLosses) and losses.held
        if possible and self.grouping is not None:
            kind += " grouped"
            blocks = self.grouping.blocks
            possible = exact or blocks is None or blocks.n_blocks <= _FEW_BLOCKS
        possible = possible and losses.n_classifiers <= most_classifiers
        return form_of(kind, losses.n_entries, possible)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Release what an engine holds on workers or devices, however the solve ended."""
        close = getattr(self._engine, "close", None)
        if close is not None:
            close()


@dataclass
class Clock:
    """When the phases of a solve were over, by ``time.perf_counter``."""

    began: float
    ready: float = 0.0
    minimized: float = 0.0

    def timings(self, certifying: float, ended: float) -> dict[str, float]:
        """Seconds by phase, with those of a certificate made between two later moments."""
        spans = (self.began, self.minimized), (certifying, ended)
        return {
            "check": seconds_of_work(self.began, self.ready),
            "solve": seconds_of_work(self.ready, self.minimized),
            "certify": seconds_of_work(certifying, ended),
            **preparations(*spans),
            "total": sum(stop - start for start, stop in spans),
        }


@dataclass
class Request:
    """A game with the checked arguments of one solve, or why there is nothing to solve."""

    game: OpenGame
    options: Options
    method: str
    entry: Method
    alpha: np.ndarray | None
    feasible: FeasibleSet
    start: np.ndarray
    warm: bool
    clock: Clock

    @computed_once
    def problem(self) -> Problem:
        """What is solved, in the engine's unit."""
        engine, alpha = self.game.engine, self.alpha
        if alpha is not None:
            if self.game.exponent:
                with np.errstate(over="ignore", under="ignore"):
                    alpha = np.ldexp(alpha, -self.game.exponent)
            alpha = within_reach(alpha, engine)
        return Problem(engine, alpha, self.feasible, self.options.presolve, self.warm)

    def _table(self) -> IterationTable:
        """The table that ``verbose`` prints, with a line on what is solved."""
        losses, alpha = self.game.losses, self.alpha
        shape = losses.n_samples, losses.n_candidates, losses.n_classifiers
        regularised = "" if alpha is None else f", alpha {alpha.min():g}"
        if alpha is not None and alpha.min() < alpha.max():
            regularised += f" to {alpha.max():g}"
        return IterationTable(
            "{} samples x {} candidates x {} classifiers".format(*shape)
            + f", method {self.method}{regularised}, tol {self.options.tol:g}"
        )

    def smoothing_of_groups(self, weight: np.ndarray) -> float:
        """What a temperature of the groups takes at most from the objective, in the losses' unit.

        `weight` (N,) is that of the samples under the attacker's exact choice.
        """
        blocks = blocks_of(self.problem)
        if blocks is None or blocks.temperature == 0.0:
            return 0.0
        mass = np.bincount(blocks.block, weight, minlength=blocks.n_blocks)[blocks.active]
        struck = mass > 0.0
        surprise = mass[struck] @ np.log(mass[struck] / blocks.prior[struck])
        return float(np.ldexp(blocks.temperature * surprise, self.game.exponent))

    def stop(self) -> Stop:
        """When to stop, by this clock."""
        options, engine = self.options, self.game.engine
        tolerance = max(options.tol * engine.spread, ROUNDING * engine.magnitude)
        limits = options.max_iter, options.time_limit
        return Stop(
            tolerance,
            *limits,
            options.callback,
            self._table() if options.verbose else None,
            self.clock.began,
            self.game.exponent,
        )


def check(game: OpenGame, alpha: Any, method: str, warm_start: Any, options: Options) -> Request:
    """Check the arguments of `mixsolve.solve` besides the losses and the constraints."""
    began = time.perf_counter() if game.began is None else game.began
    game.began = None  # a later solve of the same game has its own clock
    alphas = None
    if type(alpha) is not float or alpha != 0.0:  # what the exact problem is called with
        alpha = game.labels.aligned(alpha, ("samples",), "alpha")
        alphas = validation.check_alpha(alpha, game.losses.n_samples)
    warm_start = game.named(warm_start, ("classifiers",), "warm_start")
    name, entry = validation.check_method(
        method, entropic=alphas is not None, modelled=callable(game.constraints)
    )
    if game.grouping is not None and game.grouping.blocks is not None:
        validation.check_grouped(
            name, entry, game.grouping.blocks.temperature, alphas is not None, game.constraints
        )
    start = validation.check_warm_start(warm_start, game.losses.n_classifiers)
    feasible = game.feasible(name)
    if feasible.infeasibility is None:
        start = feasible.project(start)
    warm = warm_start is not None
    return Request(game, options, name, entry, alphas, feasible, start, warm, Clock(began))
