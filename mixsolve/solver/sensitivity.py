"""What a solution says about games a little different: other classifiers, samples, constraints.

Let q be the attacker's strategy, g_k the loss of classifier k under it, y >= 0 and v the
multipliers of the constraints. With the loss and what the constraints charge for it,

    c_k = g_k + y'(A_ub[:, k] - b_ub) + v'(A_eq[:, k] - b_eq),

the certificate is

    value  >=  lower bound  =  a + min_k c_k,

a being 0 for alpha = 0, and F(lam) - <lam, g> for alpha > 0, by convexity. Neither a nor q, y, v
asks how many classifiers there are: a further one of charge c_new leaves

    new value  >=  lower bound + min(0, c_new - min_k c_k).

Hence `reduced_costs`: c_new - min_k c_k. From 0 on, the classifier cannot help; below, it lowers
the value by its size at most (and by the gap). For alpha = 0 a negative one does help where the
optimal weights and multipliers are unique: mixing a little of it in lowers the value at that rate.

To first order, where they are unique, the value changes by -y and -v with b_ub and b_eq, and by
f_i(lam) - value with the weight of sample i (the envelope theorem), f_i being the sample's part of
the objective. As a function of the sample weights the value is concave, so these slopes bound it
from above: with weights w' of sum 1 it is at most sum_i w'_i f_i(lam).

References: Bertsimas and Tsitsiklis, Introduction to Linear Optimization, 1997, chapter 5; Milgrom
and Segal, Envelope theorems for arbitrary choice sets, 2002.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixsolve.arrays.compared import Compared
from mixsolve.arrays.interop import to_numpy
from mixsolve.base.errors import MixsolveError
from mixsolve.engines import Engine, Losses, open_losses
from mixsolve.engines.responses import MixedStrategy
from mixsolve.methods.stopping import ROUNDING, Status
from mixsolve.solver import validation

# `solution` is everywhere a `mixsolve.Solution`, whose module imports this one.

_SHOWN = 5  # lines of each kind in a table
_TAKEN_TOGETHER = 1 << 16  # samples
_SAME = 1e-6  # of the magnitude: by how much the value may differ from what it was in the solve


@dataclass(frozen=True, eq=False)
class Sensitivity(Compared):
    """Who and what carries the value of a game.

    ``print`` shows a table of the largest entries.

    Attributes
    ----------
    value : float
        Of the game.
    classifier_costs : ndarray of float64, shape (L,), or None
        By how much the loss of each classifier under the attack, with what the constraints charge
        for it, is above the least of all; 0 where that is within the gap, as for those that are
        played. By so much its losses would have to fall before it is worth a weight. None under
        constraints that were given as a function.
    price_ub, price_eq : ndarray of float64, shape (p,), (q,)
        By how much the value falls when an entry of ``b_ub``, of ``b_eq`` rises by 1, to first
        order.
    labels_ub, labels_eq : tuple of str
        How the constraints are called.
    candidates_played : ndarray of int64, shape (N,)
        On how many candidates of each sample the attacker relies. What is not played can be removed
        from the game at no loss to the attacker but the gap.
    candidate_mass : ndarray of float64, shape (n_entries,)
        Of each entry of ``solution.attack``, the sample's weight times its probability. Without
        that candidate the value is lower by at most its mass times the spread (and the gap).
    sample_values : ndarray of float64, shape (N,), or None
        What each sample adds per unit of its weight: its worst expected loss for alpha = 0. None
        unless the losses were given.
    sample_derivatives : ndarray of float64, shape (N,), or None
        By how much the value rises per unit of weight put on each sample, all weights being divided
        by their sum again: ``sample_values - value``.
    sample_shares : ndarray of float64, shape (N,), or None
        What each sample adds to the value: ``attack_weight * sample_values``, of sum `value`.
    """

    value: float
    classifier_costs: np.ndarray | None
    price_ub: np.ndarray
    price_eq: np.ndarray
    labels_ub: tuple[str, ...]
    labels_eq: tuple[str, ...]
    candidates_played: np.ndarray = field(repr=False)
    candidate_mass: np.ndarray = field(repr=False)
    sample_values: np.ndarray | None = field(default=None, repr=False)
    sample_derivatives: np.ndarray | None = field(default=None, repr=False)
    sample_shares: np.ndarray | None = field(default=None, repr=False)

    def __str__(self) -> str:
        mixed = int(np.count_nonzero(self.candidates_played > 1))
        lines = [
            f"value {self.value:.6g}",
            f"samples on which the attacker mixes candidates: {mixed} of "
            f"{self.candidates_played.size}",
        ]
        prices = [*self.price_ub, *self.price_eq]
        if prices:
            lines.append("constraints, and what one more unit of their limit takes off the value:")
            named = zip([*self.labels_ub, *self.labels_eq], prices, strict=True)
            lines += [f"  {label}: {price:.6g}" for label, price in named]
        if self.classifier_costs is not None:
            costs = self.classifier_costs
            order = np.argsort(costs, kind="stable")
            idle = order[costs[order] > 0.0]
            lines.append(
                f"classifiers that may be played: {costs.size - idle.size} of {costs.size}"
            )
            if idle.size:
                lines.append("the others, and how far their losses are from it:")
            lines += _listed(idle, costs)
        if self.sample_shares is not None:
            lines.append("samples, and what they add to the value:")
            order = np.argsort(-self.sample_shares, kind="stable")
            lines += _listed(order, self.sample_shares)
        return "\n".join(lines)


def _listed(order: np.ndarray, numbers: np.ndarray) -> list[str]:
    lines = [f"  {place}: {numbers[place]:.6g}" for place in order[:_SHOWN].tolist()]
    more = order.size - _SHOWN
    return [*lines, f"  and {more} more"] if more > 0 else lines


def reduced_costs(solution: Any, new_losses: Any, A_ub: Any, A_eq: Any) -> np.ndarray:
    """See `Solution.reduced_costs`."""
    _check_solved(solution)
    losses = open_losses(new_losses)
    _check_shape(losses, solution.attack, "new_losses")
    charges = _charges(solution)
    if charges is None:
        raise MixsolveError(
            "reduced_costs needs to know what constraints charge, and these were given as a "
            "function; give linear ones as arrays"
        )
    extra = np.zeros(losses.n_classifiers)
    linear = solution.constraints
    prices = solution.prices
    for name, rows, kind in (("A_ub", A_ub, "ub"), ("A_eq", A_eq, "eq")):
        limits = np.empty(0) if linear is None else getattr(linear, f"b_{kind}")
        columns = _columns(name, rows, limits.size, losses.n_classifiers)
        if limits.size and prices is not None:
            price = prices.upper if kind == "ub" else prices.equal
            extra += price @ (columns - limits[:, None])
    played = _entries(losses, solution.attack)
    with _engine(losses, solution.attack_weight, played, np.empty(0)) as engine:
        attacked = engine.expected_losses(solution.attack)
    return attacked + extra - charges.min()


def sensitivity(
    solution: Any, losses: Any, candidate_mask: Any, candidate_prior: Any
) -> Sensitivity:
    """See `Solution.sensitivity`."""
    _check_solved(solution)
    charges, linear = _charges(solution), solution.constraints
    price_ub, price_eq = clean_prices(solution)
    attack = solution.attack
    values = derivatives = shares = None
    if losses is not None:
        values = _sample_values(solution, losses, candidate_mask, candidate_prior)
        derivatives, shares = values - solution.value, values * solution.attack_weight
    costs = None
    if charges is not None:
        costs = charges - charges.min()
        costs[costs <= max(solution.gap, ROUNDING * float(np.abs(charges).max()))] = 0.0
    return Sensitivity(
        value=solution.value,
        classifier_costs=costs,
        price_ub=price_ub,
        price_eq=price_eq,
        labels_ub=() if linear is None else linear.labels_ub,
        labels_eq=() if linear is None else linear.labels_eq,
        candidates_played=np.diff(attack.indptr),
        candidate_mass=attack.probabilities * solution.attack_weight[attack.samples],
        sample_values=values,
        sample_derivatives=derivatives,
        sample_shares=shares,
    )


def clean_prices(solution: Any) -> tuple[np.ndarray, np.ndarray]:
    """Prices of ``b_ub`` and ``b_eq``, without what the gap leaves on limits that do not bind.

    A price times the slack is part of the gap, so of the two, in units of the problem, only one is
    more than rounding.
    """
    prices, linear = solution.prices, solution.constraints
    if prices is None or linear is None or solution.attacked_losses is None:
        return np.empty(0), np.empty(0)
    weights = np.asarray(to_numpy(solution.weights, "weights"), dtype=np.float64)
    room = linear.b_ub - linear.A_ub @ weights
    unit = np.abs(linear.A_ub - linear.b_ub[:, None]).max(axis=1, initial=0.0)
    binds = prices.upper * unit**2 > room * float(np.ptp(solution.attacked_losses))
    return np.where(binds, prices.upper, 0.0), prices.equal


def _charges(solution: Any) -> np.ndarray | None:
    """The c_k of all classifiers; None where the constraints are not known as numbers."""
    prices, linear = solution.prices, solution.constraints
    if prices is None or solution.attacked_losses is None:
        return None
    if linear is None:
        return solution.attacked_losses
    upper = prices.upper @ (linear.A_ub - linear.b_ub[:, None])
    equal = prices.equal @ (linear.A_eq - linear.b_eq[:, None])
    return solution.attacked_losses + upper + equal


def _sample_values(solution: Any, losses: Any, mask: Any, prior: Any) -> np.ndarray:
    """The f_i at the solution's weights, each from one candidate of the sample."""
    opened = open_losses(losses)
    _check_shape(opened, solution.attack, "losses")
    weights = np.asarray(to_numpy(solution.weights, "weights"), dtype=np.float64)
    if opened.n_classifiers != weights.size:
        raise MixsolveError(
            f"losses must be those that were solved, of {weights.size} classifiers; got "
            f"{opened.n_classifiers}"
        )
    labels, table = opened.labels.fresh(), ("samples", "candidates")
    mask = labels.aligned(mask, table, "candidate_mask")
    prior = labels.aligned(prior, table, "candidate_prior")
    allowed = validation.check_candidate_mask(mask, opened)
    measure = validation.check_candidate_prior(prior, opened, allowed)
    alpha = validation.check_alpha(solution.alpha, opened.n_samples)
    values = np.empty(opened.n_samples)
    with _engine(opened, solution.attack_weight, allowed, measure) as engine:
        if alpha is None:
            candidates = engine.best_response(weights).candidates
            extra = np.zeros(opened.n_samples)
        else:
            # Of any candidate, log q = log p + (score - f) / alpha; the likeliest is known best.
            gibbs = engine.gibbs(weights, alpha)
            order = np.lexsort((-gibbs.probabilities, gibbs.samples))
            likeliest = order[gibbs.indptr[:-1]]
            candidates = gibbs.candidates[likeliest]
            log_prior = engine.log_prior(np.arange(opened.n_samples), candidates)
            extra = alpha * (log_prior - np.log(gibbs.probabilities[likeliest]))
        for first in range(0, opened.n_samples, _TAKEN_TOGETHER):
            some = np.arange(first, min(first + _TAKEN_TOGETHER, opened.n_samples))
            values[some] = engine.gather(some, candidates[some]) @ weights + extra[some]
        tolerance = _SAME * max(engine.magnitude, abs(solution.value))
    if solution.group_labels is not None or solution.tail is not None:
        tolerance += solution.gap  # where the attacker's weights are not best to the last digit
    total = float(values @ solution.attack_weight)
    if not abs(total - solution.value) <= tolerance:
        raise MixsolveError(
            "losses must be those that were solved, with their candidate_mask and "
            f"candidate_prior: the value was {solution.value:.9g}, with these it is {total:.9g}"
        )
    return values


@contextmanager
def _engine(
    losses: Losses, sample_weight: np.ndarray, allowed: np.ndarray, prior: np.ndarray
) -> Iterator[Engine]:
    engine = losses.engine(sample_weight, allowed, prior)
    try:
        yield engine
    finally:
        close = getattr(engine, "close", None)
        if close is not None:
            close()


def _entries(losses: Losses, attack: MixedStrategy) -> np.ndarray:
    """Which rows the attack plays: the others' losses do not matter, and may be missing."""
    played = np.zeros(losses.n_rows, dtype=np.uint8)
    played[losses.offsets[attack.samples] + attack.candidates] = 1
    return played


def _columns(name: str, rows: Any, n_constraints: int, n_new: int) -> np.ndarray:
    """Coefficients of new classifiers in the constraints, (n_constraints, n_new)."""
    if rows is None and not n_constraints:
        return np.empty((0, n_new))
    if rows is None:
        raise MixsolveError(
            f"{name} must say what the new classifiers cost in the {n_constraints} constraint(s) "
            f"of the solution, shape ({n_constraints}, {n_new}); zeros where they cost nothing"
        )
    columns = np.asarray(to_numpy(rows, name), dtype=np.float64)
    if columns.ndim == 1 and n_constraints == 1:
        columns = columns[None]
    if columns.shape != (n_constraints, n_new) or not np.isfinite(columns).all():
        raise MixsolveError(
            f"{name} must be finite and of shape ({n_constraints}, {n_new}), one row per "
            "constraint of the solution and one column per new classifier; got shape "
            f"{columns.shape}"
        )
    return columns


def _check_solved(solution: Any) -> None:
    if solution.status is Status.INFEASIBLE:
        raise MixsolveError(f"nothing was solved: {solution.message}")
    if solution.max_models is not None:
        raise MixsolveError(
            "a solution of few models says nothing about other classifiers; solve with those it "
            "uses alone, losses[:, :, solution.weights > 0], without max_models, and ask that one"
        )


def _check_shape(losses: Losses, attack: MixedStrategy, name: str) -> None:
    counts = np.diff(losses.offsets)
    if losses.n_samples != len(attack):
        raise MixsolveError(
            f"{name} must have the {len(attack)} samples of the solution, got {losses.n_samples}"
        )
    beyond = attack.candidates >= counts[attack.samples]
    if beyond.any():
        sample = int(attack.samples[np.argmax(beyond)])
        raise MixsolveError(
            f"{name} must have the candidates of the solution, whose attack plays candidate "
            f"{int(attack.candidates[np.argmax(beyond)])} of sample {sample}; got {counts[sample]}"
        )
