"""Judge a solution from the raw losses in extended precision, and against other solvers.

Every sum of the certificate is taken again in ``numpy.longdouble`` (64 bits of mantissa and an
exponent of 15 on x86), from the losses, the weights and the attacker's strategy alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog, minimize
from scipy.special import logsumexp

from benchmarks.fuzz.draw import Drawn

_Real = np.longdouble
_ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of a sum of a game's losses, of their size


class Truth:
    """A game's rows that can be played, in extended precision.

    Parameters
    ----------
    game : Drawn
        The game as it was drawn.
    """

    def __init__(self, game: Drawn) -> None:
        mask = game.arguments.get("candidate_mask")
        tables = [np.asarray(table) for table in game.losses]
        self.kept = [
            np.arange(len(t)) if mask is None else np.flatnonzero(mask[i])
            for i, t in enumerate(tables)
        ]
        self.tables = [t[k].astype(_Real) for t, k in zip(tables, self.kept, strict=True)]
        weight = np.asarray(game.arguments.get("sample_weight", np.ones(len(tables))), dtype=_Real)
        self.weight = weight / weight.sum()
        prior = game.arguments.get("candidate_prior")
        self.base = []
        for i, kept in enumerate(self.kept):
            measure = np.ones(kept.size) if prior is None else np.asarray(prior[i])[kept]
            measure = measure.astype(_Real)
            self.base.append(measure / measure.sum())
        self.alpha = np.broadcast_to(np.asarray(game.alpha, dtype=_Real), len(tables))
        counted = [t for t, w in zip(self.tables, self.weight, strict=True) if w > 0]
        highest, lowest = max(t.max() for t in counted), min(t.min() for t in counted)
        self.spread = float(highest - lowest)
        self.magnitude = float(max(highest, -lowest))
        self.n_classifiers = self.tables[0].shape[1]

    def risk(self, weights: np.ndarray) -> _Real:
        """sum_i w_i max_j <lam, l_ij>."""
        worst = [(table @ weights).max() for table in self.tables]
        return self.weight @ np.array(worst, dtype=_Real)

    def entropic(self, weights: np.ndarray, alpha: np.ndarray) -> _Real:
        """sum_i w_i alpha_i log sum_j p_ij exp(<lam, l_ij> / alpha_i)."""
        total = _Real(0)
        for w, table, a, p in zip(self.weight, self.tables, alpha, self.base, strict=True):
            scores = table @ weights
            top = scores.max()
            exponents = (scores - top) / a
            # log1p and expm1 keep the digits where alpha is far above the losses, log and exp where
            # the highest score is rare.
            less = p @ np.expm1(exponents)
            soft = np.log1p(less) if less > -0.5 else np.log(p @ np.exp(exponents))
            total += w * (top + a * soft)
        return total

    def attacked(self, attack: Any) -> np.ndarray:
        """Losses of the classifiers under a mixed attack."""
        total = np.zeros(self.n_classifiers, dtype=_Real)
        for i, (candidates, q) in enumerate(attack):
            total += self.weight[i] * (q.astype(_Real) @ self._rows(i, candidates))
        return total

    def divergence(self, attack: Any, alpha: np.ndarray) -> _Real:
        """sum_i w_i alpha_i KL(q_i || p_i), what an attack costs in the entropic problem."""
        total = _Real(0)
        for i, (candidates, q) in enumerate(attack):
            q = q.astype(_Real) / q.astype(_Real).sum()
            p = self.base[i][np.searchsorted(self.kept[i], candidates)]
            # q log(q/p) - q + p >= 0 term by term: no digits are lost where q is nearly p.
            ratio = (q - p) / p
            surprise = np.where(ratio < -0.5, np.log(q / p), np.log1p(np.maximum(ratio, -0.5)))
            terms = q * surprise - (q - p)
            left_out = np.delete(self.base[i], np.searchsorted(self.kept[i], candidates))
            total += self.weight[i] * alpha[i] * (terms.sum() + left_out.sum())
        return total

    def _rows(self, sample: int, candidates: np.ndarray) -> np.ndarray:
        return self.tables[sample][np.searchsorted(self.kept[sample], candidates)]


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a solution that claims to be optimal; empty where nothing is.

    Attributes
    ----------
    wrong : str
        Why the answer may not be called optimal, with numbers.
    share : float
        The certified gap recomputed, over the tolerance that was due.
    """

    wrong: str = ""
    share: float = 0.0


def judge(
    game: Drawn, truth: Truth, solution: Any, alpha: Any, tol: float, lowest: Any = np.min
) -> Verdict:
    """Recompute the certificate of a solution that claims success.

    Parameters
    ----------
    game : Drawn
        What was solved.
    truth : Truth
        Its rows.
    solution : mixsolve.Solution
        What came back.
    alpha : float or ndarray
        What was solved for.
    tol : float
        What was asked for.
    lowest : callable
        Least value of a linear function, given by its coefficients, over the weights allowed.
    """
    weights = np.asarray(solution.weights)
    rounding = float(np.finfo(weights.dtype).eps)
    weights = weights.astype(_Real)
    if not np.isfinite(weights).all() or weights.min() < 0:
        return Verdict(f"weights {weights}")
    if abs(weights.sum() - 1) > max(1e-12, rounding * weights.size):
        return Verdict(f"weights sum to {weights.sum()}")
    for number in ("value", "risk", "lower_bound", "risk_lower_bound", "gap", "tolerance"):
        if not np.isfinite(getattr(solution, number)):
            return Verdict(f"{number} is {getattr(solution, number)}")
    for i, (candidates, q) in enumerate(solution.attack):
        allowed = np.isin(candidates, truth.kept[i]).all()
        if not allowed or not (q > 0).all() or abs(q.astype(_Real).sum() - 1) > 1e-9:
            return Verdict(f"attack on sample {i}: candidates {candidates}, probabilities {q}")

    alphas = np.broadcast_to(np.asarray(alpha, dtype=_Real), len(truth.tables))
    entropic = bool(alphas.any())
    digits = max(_ROUNDING, 4 * rounding if rounding > 1e-10 else 0.0) * truth.magnitude
    digits += 1e-11 * truth.spread + 1e-322
    due = max(tol * truth.spread, 16 * float(np.finfo(np.float64).eps) * truth.magnitude)
    risk = truth.risk(weights)
    value = truth.entropic(weights, alphas) if entropic else risk
    played = truth.attacked(solution.attack)
    exact_bound = _Real(lowest(played))
    bound = exact_bound - (truth.divergence(solution.attack, alphas) if entropic else 0)
    # Probabilities are doubles: their own rounding has a divergence, of the square of its size.
    drawn = float(truth.weight @ alphas) * float(np.finfo(np.float64).eps) ** 2
    checks = {
        "value": (abs(solution.value - value), digits),
        "risk": (abs(solution.risk - risk), digits),
        "lower bound above what the attack proves": (solution.lower_bound - bound, digits + drawn),
        "risk bound above what the attack proves": (
            solution.risk_lower_bound - exact_bound, digits,
        ),
        "gap": (value - bound, due + drawn + 2 * digits),
        "tolerance": (solution.tolerance, due * (1 + 1e-9) + 1e-322),
        "gap above tolerance": (solution.gap, solution.tolerance),
        "negative gap": (-solution.gap, 0.0),
    }  # fmt: skip
    for what, (came, most) in checks.items():
        if not came <= most:
            return Verdict(f"{what}: {float(came):.6g}, at most {float(most):.6g}")
    return Verdict(share=float((value - bound - drawn) / due) if due else 0.0)


def scaled(truth: Truth) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, float]:
    """Tables less their sample's middle over the spread, weights, what was taken off, the unit."""
    unit = truth.spread or 1.0
    middles = np.array([(t.max() + t.min()) / 2 for t in truth.tables])
    tables = [
        ((t - middle) / unit).astype(np.float64)
        for t, middle in zip(truth.tables, middles, strict=True)
    ]
    return tables, truth.weight.astype(np.float64), middles, unit


def compare_with_highs(truth: Truth, solution: Any, tol: float) -> tuple[str, float]:
    """Solve the exact game by HiGHS; what disagrees, and by how much in units of the spread."""
    tables, weight, middles, unit = scaled(truth)
    played = np.flatnonzero(weight > 0)
    rows = np.vstack([tables[i] for i in played])
    levels = np.zeros((len(rows), played.size))
    sizes = [len(tables[i]) for i in played]
    levels[np.arange(len(rows)), np.repeat(np.arange(played.size), sizes)] = -1.0
    n_classifiers = rows.shape[1]
    found = linprog(
        np.concatenate([np.zeros(n_classifiers), weight[played]]),
        A_ub=np.hstack([rows, levels]),
        b_ub=np.zeros(len(rows)),
        A_eq=np.concatenate([np.ones(n_classifiers), np.zeros(played.size)])[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n_classifiers + [(None, None)] * played.size,
        method="highs",
    )
    if found.status != 0:
        return "", 0.0
    # A wide range of scales is beyond HiGHS's own tolerance of 1e-7.
    other = _Real(found.fun) + (truth.weight @ middles) / unit
    difference = float(abs(_Real(solution.value) / unit - other))
    allowed = tol + 1e-6 + _ROUNDING * truth.magnitude / unit + float(_Real(5e-324) / unit)
    if difference > allowed:
        return f"HiGHS: value {float(other * unit):.12g}, ours {solution.value:.12g}", difference
    return "", difference


def compare_with_descent(truth: Truth, solution: Any, tol: float) -> tuple[str, float]:
    """Minimise eq. (7) by SLSQP: no value may fall below our bound, or far below our value."""
    tables, weight, _, unit = scaled(truth)
    ratio = (truth.alpha / unit).astype(np.float64)
    if ratio.min() < 1e-6 or ratio.max() > 1e6:
        return "", 0.0
    base = [np.log(p.astype(np.float64)) for p in truth.base]

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = 0.0, np.zeros(weights.size)
        for w, table, a, log_p in zip(weight, tables, ratio, base, strict=True):
            scores = table @ weights / a + log_p
            soft = logsumexp(scores)
            value += w * a * soft
            gradient += w * (np.exp(scores - soft) @ table)
        return value, gradient

    n_classifiers = truth.n_classifiers
    best = np.inf
    starts = [np.full(n_classifiers, 1 / n_classifiers), np.asarray(solution.weights, np.float64)]
    for start in starts:
        found = minimize(
            objective,
            start,
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * n_classifiers,
            constraints={"type": "eq", "fun": lambda lam: lam.sum() - 1},
            options={"maxiter": 300, "ftol": 1e-12},
        )
        point = np.maximum(found.x, 0.0)
        if np.isfinite(point).all() and point.sum() > 0:
            best = min(best, float(truth.entropic(point / point.sum(), truth.alpha)))
    digits = _ROUNDING * truth.magnitude + 1e-11 * truth.spread
    excess = (solution.value - best) / unit
    if solution.lower_bound > best + digits:
        return f"descent reached {best:.12g}, below our bound {solution.lower_bound:.12g}", excess
    if solution.value > best + solution.tolerance + digits:
        return f"descent reached {best:.12g}, ours {solution.value:.12g}", excess
    return "", max(excess, 0.0)
