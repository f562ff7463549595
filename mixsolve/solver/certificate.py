"""The certificate of a method's outcome: both bounds, recomputed from the raw tensor."""

import time
import warnings
from typing import Any

import numpy as np

from mixsolve.base.compilation import preparations, seconds_of_work
from mixsolve.base.errors import ConvergenceWarning
from mixsolve.engines.bookkeeping import in_losses_unit, restart_count
from mixsolve.engines.grouped import inner_engine
from mixsolve.engines.responses import BestResponse, MixedStrategy
from mixsolve.feasible import Infeasibility, Prices
from mixsolve.kernels.constants import EPSILON
from mixsolve.methods.problem import Outcome
from mixsolve.methods.stopping import Status, Stop
from mixsolve.solver.request import Clock, Request
from mixsolve.solver.solution import Solution

_NOTICED = 0.05  # seconds


def finish(
    checked: Request, outcome: Outcome, stop: Stop, clock: Clock, stacklevel: int
) -> Solution:
    """Certify a method's outcome, and warn where the gap is above the tolerance."""
    certifying = time.perf_counter()
    solution = _certify(checked, outcome, stop)
    solution.timings.update(clock.timings(certifying, time.perf_counter()))
    if stop.table is not None:
        stop.table.end(f"{solution.status}: {solution.message}")
    if solution.status is not Status.OPTIMAL:
        warnings.warn(
            f"solve ended without reaching tol: {solution.message}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
    return solution


def _certify(checked: Request, outcome: Outcome, stop: Stop) -> Solution:
    """Recompute value and bound from the raw tensor."""
    problem, exponent = checked.problem, checked.game.exponent
    engine, weights = problem.engine, outcome.weights
    if problem.alpha is not None and outcome.attack is None and _at(outcome.proof, weights):
        engine.soft_answer(weights, problem.alpha)  # all of the certificate, in one pass
    feasible = problem.feasible if outcome.feasible is None else outcome.feasible
    response = engine.best_response(weights)
    every_sample = np.arange(engine.n_samples)
    smoothing = 0.0
    if problem.alpha is None:
        value = response.value
        attack = outcome.attack
        if attack is None:
            attack = engine.strategy(every_sample, response.candidates, np.ones(engine.n_samples))
            attack = attack if response.struck is None else attack.weighed(response.struck)
        played = engine.expected_losses(attack)
        lower_bound = lowest = feasible.lowest(played)
    else:
        soft = problem.soft_response(weights)
        value = soft.value
        surprise = -engine.log_prior(every_sample, response.candidates)
        assert checked.alpha is not None
        weight = engine.sample_weight if response.struck is None else response.struck
        smoothing = float((weight * checked.alpha) @ surprise) + checked.smoothing_of_groups(weight)
        if outcome.attack is not None:
            attack = outcome.attack
            played = engine.expected_losses(attack)
            lowest = feasible.lowest(played)
            lower_bound = lowest - problem.divergence(attack)
        else:
            proof = weights if outcome.proof is None else outcome.proof
            if not _at(outcome.proof, weights):
                soft = problem.soft_response(proof)
            attack = engine.gibbs(proof, problem.alpha)
            played = soft.gradient  # the classifiers' losses under the attack
            lowest = feasible.lowest(played)
            lower_bound = soft.lower_bound(proof, lowest)
    risk_lower_bound = lowest
    if outcome.lower_bound is not None:
        proven = outcome.lower_bound
        if proven == -np.inf:  # ended before any node was proven: this attack bounds all mixtures
            proven = problem.feasible.lowest(played) + lower_bound - lowest
        # The exact risk is no less than the entropic one.
        lower_bound = risk_lower_bound = min(proven, value)
    gap = value - lower_bound
    figures = value, response.value, lower_bound, risk_lower_bound, gap
    finite = bool(np.isfinite([*figures, *weights]).all())
    # Two sums over the samples may put the bound a little above the value: that is no gap.
    rounding = max(stop.tolerance, EPSILON * engine.n_samples * engine.magnitude)
    status = _status(gap, finite, rounding, stop)
    gap = max(gap, 0.0) if finite and gap >= -rounding else gap

    def real(value: float) -> float:
        return in_losses_unit(value, exponent) if exponent else float(value)

    groups = _groups(checked, response, attack, weights)
    prices = feasible.prices(played)
    if prices is not None and exponent:
        prices = Prices(*(np.ldexp(side, exponent) for side in (prices.upper, prices.equal)))
    return Solution(
        weights=checked.game.losses.restore(weights),
        value=real(value),
        risk=real(response.value),
        lower_bound=real(lower_bound),
        gap=real(gap),
        attack=attack,
        status=status,
        message=_message(status, real(gap), real(stop.tolerance), stop, outcome.message),
        nit=stop.nit,
        n_passes=restart_count(engine),
        history=tuple(stop.history),
        method=checked.method,
        alpha=_as_given(checked.alpha),
        timings=dict(outcome.timings or {}),
        smoothing_bound=min(smoothing, real(engine.spread)),
        risk_lower_bound=real(risk_lower_bound),
        spread=real(engine.spread),
        tolerance=real(stop.tolerance),
        sample_weight=checked.game.weights,
        prices=prices,
        constraints=problem.feasible.linear,
        **groups,
        attacked_losses=np.ldexp(played, exponent) if exponent else played,
        names=checked.game.labels.classifiers,
    )


def _at(proof: np.ndarray | None, weights: np.ndarray) -> bool:
    """Whether the bound is proven at the weights themselves."""
    return proof is None or np.array_equal(proof, weights)


def _groups(
    checked: Request, response: BestResponse, attack: MixedStrategy, weights: np.ndarray
) -> dict[str, Any]:
    """What the attacker may choose besides candidates, as fields of the solution."""
    grouping, engine = checked.game.grouping, checked.problem.engine
    weight = engine.sample_weight if attack.weight is None else attack.weight
    if grouping is None:
        return {"attack_weight": weight}
    risks = grouping.risks(inner_engine(engine), response.candidates, weights)
    if risks is not None:
        risks = np.ldexp(risks, checked.game.exponent)
    return {
        "attack_weight": weight,
        "group_labels": grouping.labels,
        "group_weights": grouping.weights(weight),
        "group_risks": risks,
        "tail": grouping.tail,
    }


def infeasible(checked: Request, infeasibility: Infeasibility, stacklevel: int) -> Solution:
    """The solution of an infeasible problem: the least value over no weights is infinite."""
    shape = checked.game.losses
    *others, last = infeasibility.clash
    words = f"{', '.join(others)} and {last} clash" if others else f"{last} alone cannot be met"
    message = f"no weights on the simplex meet the constraints: {words}; loosen or drop one"
    warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)
    empty = np.empty(0, dtype=np.int64)
    began, ended = checked.clock.began, time.perf_counter()
    return Solution(
        weights=shape.restore(np.full(shape.n_classifiers, np.nan)),
        value=np.inf,
        risk=np.inf,
        lower_bound=np.inf,
        gap=np.inf,
        attack=MixedStrategy(
            np.zeros(shape.n_samples + 1, dtype=np.int64), empty, np.empty(0), shape.n_candidates
        ),
        status=Status.INFEASIBLE,
        message=message,
        nit=0,
        n_passes=0.0,
        history=(),
        method=checked.method,
        alpha=_as_given(checked.alpha),
        timings={
            "check": seconds_of_work(began, ended),
            **preparations((began, ended)),
            "total": ended - began,
        },
        smoothing_bound=0.0,
        risk_lower_bound=np.inf,
        spread=np.nan,
        tolerance=np.nan,
        sample_weight=np.full(shape.n_samples, np.nan),
        prices=None,
        infeasibility=infeasibility,
        names=checked.game.labels.classifiers,
    )


def _status(gap: float, finite: bool, rounding: float, stop: Stop) -> Status:
    """OPTIMAL by the certificate alone; a bound further above the value than rounding is none."""
    if not finite or gap < -rounding:
        return Status.FAILED
    if gap <= stop.tolerance:
        return Status.OPTIMAL
    return Status.FAILED if stop.status in (None, Status.OPTIMAL) else stop.status


def _message(status: Status, gap: float, tolerance: float, stop: Stop, words: str) -> str:
    reason = {
        Status.OPTIMAL: "the certified gap is within the tolerance",
        Status.MAX_ITER: f"the limit of {stop.nit} iterations was reached",
        Status.TIME_LIMIT: f"the time limit of {stop.time_limit} s was reached{_besides(stop)}",
        Status.STOPPED: "the callback stopped the solve",
        Status.FAILED: "the method could not close the gap",
    }[status]
    tail = f"; {words}" if words else ""
    return f"{reason} (gap {gap:.3g}, tolerance {tolerance:.3g}){tail}"


def _besides(stop: Stop) -> str:
    """The seconds that the time limit does not count, where they are noticeable."""
    seconds = stop.seconds_prepared
    if seconds < _NOTICED:
        return ""
    return f", not counting {seconds:.1f} s of imports and compilation"


def _as_given(alpha: np.ndarray | None) -> float | np.ndarray:
    if alpha is None:
        return 0.0
    return float(alpha[0]) if (alpha == alpha[0]).all() else alpha
