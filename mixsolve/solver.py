"""`solve` and `solve_path`: check the game, run a method, certify from the raw tensor."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixsolve import validation
from mixsolve.arguments import as_count, as_real
from mixsolve.compilation import compile_timer
from mixsolve.engines import Engine, open_losses
from mixsolve.errors import ConvergenceWarning
from mixsolve.feasible import FeasibleSet, Infeasibility, check_constraints, feasible_set
from mixsolve.methods import Method
from mixsolve.problem import Outcome, Problem
from mixsolve.solution import Attack, Solution, Status
from mixsolve.stopping import ROUNDING, State, Stop


def solve(
    losses: Any,
    alpha: Any = 0.0,
    *,
    method: str = "auto",
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    constraints: Any = None,
    A_ub: Any = None,
    b_ub: Any = None,
    A_eq: Any = None,
    b_eq: Any = None,
    max_models: int | None = None,
    tol: float = 1e-6,
    max_iter: int | None = None,
    time_limit: float | None = None,
    warm_start: Any = None,
    callback: Callable[[State], object] | None = None,
    verbose: bool = False,
    presolve: bool = True,
) -> Solution:
    r"""Find the random mixture of classifiers that an attacker can hurt least, with a certificate.

    With N samples, m candidates a sample and L classifiers, minimise over lam in the simplex

    .. math::
        \sum_i w_i \max_j \langle \lambda, l_{ij} \rangle  \quad (\alpha = 0), \qquad
        \sum_i w_i \alpha_i \log \sum_j p_{ij} e^{\langle \lambda, l_{ij} \rangle / \alpha_i}
        \quad (\alpha > 0).

    Parameters
    ----------
    losses : array_like of shape (N, m, L), or list of N arrays of shape (m_i, L)
        ``losses[i, j, k]`` is the loss of classifier k on attack candidate j of sample i: real or
        boolean, from NumPy (memory maps too), PyTorch, JAX, CuPy, Dask, Zarr, h5py, DLPack,
        ``__array__`` or nested lists. Never modified; copied whole only below 16 MB, where its
        layout or type is not one that the kernels read. A larger CUDA tensor is solved on its
        device. Also `Losses`, which bring an engine of their own:
        ``mixsolve_torch.TorchLosses(tensor)``.
    alpha : float or array_like of shape (N,), default 0
        Entropic regularisation, in the unit of the losses: 0 for the exact problem, or positive.
    method : str, default "auto"
        "lp", "interior-point" (all candidates at once), "oracle" (Algorithm 1) for alpha = 0;
        "newton" or "entropic", "apg" for alpha > 0; "cvxpy" for both. "auto" takes "lp" for
        alpha = 0, "newton" for alpha > 0, "cvxpy" where `constraints` is a function.
    sample_weight : array_like of shape (N,), optional
        Non-negative; divided by its sum. Uniform by default.
    candidate_mask : array_like of bool, shape (N, m), or list of N arrays (m_i,), optional
        False where a candidate may not be played; its losses are not looked at.
    candidate_prior : array_like of shape (N, m), or list of N arrays (m_i,), optional
        Base measure p of the entropic problem, positive; divided by each sample's sum. Uniform by
        default.
    constraints : LinearConstraints, list of them, or callable, optional
        Linear constraints on the weights (see `mixsolve.constraints`; SciPy's ``LinearConstraint``
        and ``Bounds`` too), or a function that takes the weights as a cvxpy variable and returns a
        list of cvxpy constraints.
    A_ub, A_eq : array_like of shape (p, L), (q, L), optional
        Linear constraints in SciPy's convention: ``A_ub @ weights <= b_ub``,
        ``A_eq @ weights == b_eq``.
    b_ub, b_eq : array_like of shape (p,), (q,), optional
        Their right-hand sides.
    max_models : int, optional
        How many classifiers may have a weight that is not 0. The best of all such mixtures is
        looked for by branch and bound: ``lower_bound`` holds for every choice of so many
        classifiers, ``attack`` is the one on mixtures of those chosen, iterations are nodes.
        Constraints must be linear. See `solve_cardinality_path` for all numbers at once.
    tol : float, default 1e-6
        Stop when the certified gap is at most ``tol * (max(losses) - min(losses))``.
    max_iter : int, optional
        Iterations of the method; its own default otherwise.
    time_limit : float, optional
        Seconds.
    warm_start : array_like of shape (L,) or Solution, optional
        Weights to start from.
    callback : callable, optional
        Called with a `State` once an iteration; a true answer stops the solve.
    verbose : bool, default False
        Log each iteration at level INFO (logger "mixsolve") rather than DEBUG.
    presolve : bool, default True
        Whether the method may first drop what cannot matter.

    Returns
    -------
    Solution
        Weights in the array type and on the device of `losses`, as float64 where the framework has
        it, and the certificate.

    Raises
    ------
    MixsolveError
        An argument's value is wrong; the message says which, where, and the mend.
    MixsolveTypeError
        An argument's type is wrong.

    Warns
    -----
    ConvergenceWarning
        The certified gap is above the tolerance; the solution is the best point found. Or no
        weights meet the constraints: the status is INFEASIBLE, ``solution.infeasibility`` says
        which of them clash, and the weights are NaN.

    References
    ----------
    Meunier, Scetbon, Pinot, Atif, Chevaleyre, Mixed Nash equilibria in the adversarial examples
    game, ICML 2021.

    Examples
    --------
    Rock, paper, scissors: one sample, three candidates, three classifiers.

    >>> import mixsolve
    >>> solution = mixsolve.solve([[[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]])
    >>> solution.weights.round(6)
    array([0.333333, 0.333333, 0.333333])
    >>> round(solution.value, 9), solution.gap < 1e-9
    (0.5, True)
    """
    options = _Options(tol, max_iter, time_limit, callback, verbose, presolve)
    limits = (constraints, A_ub, b_ub, A_eq, b_eq)
    game = _Game(losses, sample_weight, candidate_mask, candidate_prior, limits)
    try:
        if max_models is not None:
            most = as_count("max_models", max_models)
            if most < game.losses.n_classifiers:
                from mixsolve.cardinality.path import solve_few

                return solve_few(game, alpha, method, warm_start, options, [most], stacklevel=4)[0]
        return _solve(game, alpha, method, warm_start, options, stacklevel=3)
    finally:
        game.close()


def solve_path(
    losses: Any,
    alphas: Any,
    *,
    method: str = "auto",
    sample_weight: Any = None,
    candidate_mask: Any = None,
    candidate_prior: Any = None,
    constraints: Any = None,
    A_ub: Any = None,
    b_ub: Any = None,
    A_eq: Any = None,
    b_eq: Any = None,
    tol: float = 1e-6,
    max_iter: int | None = None,
    time_limit: float | None = None,
    verbose: bool = False,
    presolve: bool = True,
) -> tuple[Solution, ...]:
    """Solve the same game for several regularisations, each from the weights of a larger one.

    As alpha goes to 0 the values rise to the exact one (Proposition 3).

    Parameters
    ----------
    losses : array_like of shape (N, m, L), or list of N arrays of shape (m_i, L)
        See `solve`.
    alphas : array_like of shape (n,)
        Regularisations, one number for all samples each, in any order; 0 for the exact problem.
    method, sample_weight, candidate_mask, candidate_prior, constraints, tol, max_iter
        See `solve`.
    A_ub, b_ub, A_eq, b_eq
        See `solve`.
    time_limit : float, optional
        Seconds for each of the solves.
    verbose, presolve
        See `solve`.

    Returns
    -------
    tuple of Solution
        One for each alpha, in the order given.

    Raises
    ------
    MixsolveError
        As `solve` does, and if `alphas` is empty or not a list of numbers.

    References
    ----------
    Meunier et al., Mixed Nash equilibria in the adversarial examples game, ICML 2021, section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> import mixsolve
    >>> losses = np.random.default_rng(0).random((20, 5, 3))
    >>> path = mixsolve.solve_path(losses, [0.0, 0.01, 0.1])
    >>> path[0].value > path[1].value > path[2].value
    True
    """
    options = _Options(tol, max_iter, time_limit, None, verbose, presolve)
    limits = (constraints, A_ub, b_ub, A_eq, b_eq)
    values = validation.check_alphas(alphas)
    game = _Game(losses, sample_weight, candidate_mask, candidate_prior, limits)
    solutions: dict[int, Solution] = {}
    warm_start: Any = None
    try:
        for place in np.argsort(-values, kind="stable").tolist():
            solution = _solve(game, values[place], method, warm_start, options, stacklevel=3)
            solutions[place] = solution
            warm_start = solution.weights
    finally:
        game.close()
    return tuple(solutions[place] for place in range(values.size))


class _Options:
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
        self.verbose = verbose
        self.presolve = presolve


class _Game:
    """Checked losses with their engine, which is made when a solve first needs it."""

    def __init__(
        self, losses: Any, sample_weight: Any, mask: Any, prior: Any, limits: tuple[Any, ...]
    ) -> None:
        self.began: float | None = time.perf_counter()
        self.losses = open_losses(losses)
        self.constraints = check_constraints(limits, self.losses.n_classifiers)
        self._feasible: FeasibleSet | None = None
        self._given = (sample_weight, mask, prior)
        self._engine: Engine | None = None

    def feasible(self, method: str) -> FeasibleSet:
        """Weights that the mixture may have; for "cvxpy", as cvxpy sees them."""
        modelled = method == "cvxpy"
        if self._feasible is None:
            self._feasible = feasible_set(self.constraints, self.losses.n_classifiers, modelled)
        return self._feasible

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            sample_weight, mask, prior = self._given
            weights = validation.check_sample_weight(sample_weight, self.losses.n_samples)
            allowed = validation.check_candidate_mask(mask, self.losses)
            measure = validation.check_candidate_prior(prior, self.losses, allowed)
            self._engine = self.losses.engine(weights, allowed, measure)
        return self._engine

    def close(self) -> None:
        """Let an engine that holds something elsewhere give it back, however the solve ended."""
        close = getattr(self._engine, "close", None)
        if close is not None:
            close()


@dataclass
class _Clock:
    """When the phases of a solve were over, by ``time.perf_counter``; seconds spent compiling."""

    began: float
    ready: float = 0.0
    minimized: float = 0.0
    compiling: float = 0.0


@dataclass
class _Checked:
    """A game with the checked arguments of one solve, or why there is nothing to solve."""

    game: _Game
    options: _Options
    method: str
    entry: Method
    alpha: np.ndarray | None
    feasible: FeasibleSet
    start: np.ndarray
    warm: bool
    clock: _Clock

    @cached_property
    def problem(self) -> Problem:
        """What is solved."""
        return Problem(
            self.game.engine, self.alpha, self.feasible, self.options.presolve, self.warm
        )

    def stop(self) -> Stop:
        """When to stop, by this clock."""
        options, engine = self.options, self.game.engine
        tolerance = max(options.tol * engine.spread, ROUNDING * engine.magnitude)
        limits = options.max_iter, options.time_limit
        return Stop(tolerance, *limits, options.callback, options.verbose, self.clock.began)


def _check(game: _Game, alpha: Any, method: str, warm_start: Any, options: _Options) -> _Checked:
    began = time.perf_counter() if game.began is None else game.began
    game.began = None  # a later solve of the same game has its own clock
    alphas = validation.check_alpha(alpha, game.losses.n_samples)
    name, entry = validation.check_method(
        method, entropic=alphas is not None, modelled=callable(game.constraints)
    )
    start = validation.check_warm_start(warm_start, game.losses.n_classifiers)
    feasible = game.feasible(name)
    if feasible.infeasibility is None:
        start = feasible.project(start)
    warm = warm_start is not None
    return _Checked(game, options, name, entry, alphas, feasible, start, warm, _Clock(began))


def _solve(
    game: _Game, alpha: Any, method: str, warm_start: Any, options: _Options, stacklevel: int
) -> Solution:
    checked = _check(game, alpha, method, warm_start, options)
    if checked.feasible.infeasibility is not None:
        return _infeasible(checked, checked.feasible.infeasibility, stacklevel + 1)
    problem, clock = checked.problem, checked.clock
    clock.ready = time.perf_counter()
    stop = checked.stop()
    with compile_timer() as compiling:
        outcome = checked.entry.load()(problem, checked.start, stop)
    clock.minimized, clock.compiling = time.perf_counter(), compiling.seconds
    return _finish(checked, outcome, stop, clock, stacklevel + 1)


def _finish(
    checked: _Checked, outcome: Outcome, stop: Stop, clock: _Clock, stacklevel: int
) -> Solution:
    """Certify what a method found, and say where it fell short."""
    with compile_timer() as compiling:
        certifying = time.perf_counter()
        solution = _certify(
            checked.problem, outcome, stop, checked.method, checked.game.losses.restore
        )
    checked.problem.engine.n_passes = 0.0
    ended = time.perf_counter()
    solution.timings.update(
        check=clock.ready - clock.began,
        solve=clock.minimized - clock.ready,
        certify=ended - certifying,
        compile=clock.compiling + compiling.seconds,
        total=clock.minimized - clock.began + ended - certifying,
    )
    if not solution.success:
        warnings.warn(
            f"solve ended without reaching tol: {solution.message}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
    return solution


def _certify(
    problem: Problem,
    outcome: Outcome,
    stop: Stop,
    method: str,
    restore: Callable[[np.ndarray], Any],
) -> Solution:
    """Recompute both players' guarantees from the raw tensor."""
    engine, weights = problem.engine, outcome.weights
    feasible = problem.feasible if outcome.feasible is None else outcome.feasible
    response = engine.best_response(weights)
    every_sample = np.arange(engine.n_samples)
    smoothing = 0.0
    if problem.alpha is None:
        value = response.value
        attack = outcome.attack
        if attack is None:
            attack = engine.strategy(every_sample, response.candidates, np.ones(engine.n_samples))
        played = engine.expected_losses(attack)
        lower_bound = risk_lower_bound = feasible.lowest(played)
    else:
        soft = problem.soft_response(weights)
        value = soft.value
        proof = weights if outcome.proof is None else outcome.proof
        if not np.array_equal(proof, weights):
            soft = problem.soft_response(proof)
        attack = engine.gibbs(proof, problem.alpha)
        played = soft.gradient
        lowest = feasible.lowest(played)
        lower_bound = soft.lower_bound(proof, lowest)
        risk_lower_bound = lowest  # the gradient is the classifiers' losses under the attack
        surprise = -engine.log_prior(every_sample, response.candidates)
        smoothing = float((engine.sample_weight * problem.alpha) @ surprise)
    if outcome.lower_bound is not None:
        # The exact risk is no less than the entropic one.
        lower_bound = risk_lower_bound = min(outcome.lower_bound, value)
    gap = max(value - lower_bound, 0.0)
    status = _status(gap, stop, outcome.failed)
    return Solution(
        weights=restore(weights),
        value=value,
        risk=response.value,
        lower_bound=lower_bound,
        gap=gap,
        attack=attack,
        status=status,
        message=_message(status, gap, stop, outcome.message),
        nit=stop.nit,
        n_passes=engine.n_passes,
        history=tuple(stop.history),
        method=method,
        alpha=_as_given(problem.alpha),
        timings=dict(outcome.timings or {}),
        smoothing_bound=smoothing,
        risk_lower_bound=risk_lower_bound,
        spread=engine.spread,
        tolerance=stop.tolerance,
        sample_weight=engine.sample_weight,
        prices=feasible.prices(played),
        constraints=problem.feasible.linear,
        attacked_losses=played,
    )


def _infeasible(checked: _Checked, infeasibility: Infeasibility, stacklevel: int) -> Solution:
    """No solution, and why: the least value over no weights at all is infinite."""
    shape = checked.game.losses
    *others, last = infeasibility.clash
    words = f"{', '.join(others)} and {last} clash" if others else f"{last} alone cannot be met"
    message = f"no weights on the simplex meet the constraints: {words}; loosen or drop one"
    warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)
    nobody = np.empty(0, dtype=np.int64)
    return Solution(
        weights=shape.restore(np.full(shape.n_classifiers, np.nan)),
        value=np.inf,
        risk=np.inf,
        lower_bound=np.inf,
        gap=np.inf,
        attack=Attack(
            np.zeros(shape.n_samples + 1, dtype=np.int64), nobody, np.empty(0), shape.n_candidates
        ),
        status=Status.INFEASIBLE,
        message=message,
        nit=0,
        n_passes=0.0,
        history=(),
        method=checked.method,
        alpha=_as_given(checked.alpha),
        timings={"total": time.perf_counter() - checked.clock.began},
        smoothing_bound=0.0,
        risk_lower_bound=np.inf,
        spread=np.nan,
        tolerance=np.nan,
        sample_weight=np.full(shape.n_samples, np.nan),
        prices=None,
        infeasibility=infeasibility,
    )


def _status(gap: float, stop: Stop, failed: bool) -> Status:
    if gap <= stop.tolerance and not failed:  # never true of a NaN
        return Status.OPTIMAL
    if stop.status in (None, Status.OPTIMAL) or failed:
        return Status.FAILED
    return stop.status


def _message(status: Status, gap: float, stop: Stop, words: str) -> str:
    reason = {
        Status.OPTIMAL: "the certified gap is within the tolerance",
        Status.MAX_ITER: f"the limit of {stop.nit} iterations was reached",
        Status.TIME_LIMIT: f"the time limit of {stop.time_limit} s was reached",
        Status.STOPPED: "the callback stopped the solve",
        Status.FAILED: "the method could not close the gap",
    }[status]
    tail = f"; {words}" if words else ""
    return f"{reason} (gap {gap:.3g}, tolerance {stop.tolerance:.3g}){tail}"


def _as_given(alpha: np.ndarray | None) -> float | np.ndarray:
    if alpha is None:
        return 0.0
    return float(alpha[0]) if (alpha == alpha[0]).all() else alpha
