"""Algorithm 1: projected subgradient on the exact adversarial risk.

    lam_t = P(lam_{t-1} - eta g_t),    eta = 2 / (M sqrt(L T)),

with P the projection onto the feasible weights and g_t the classifiers' losses under a best
response to lam_{t-1}. Proposition 6: min_t R(lam_t) - R* <= 2 delta + 2 M sqrt(L / T), with
delta = 0 here. M is the spread of the losses: what they have in common moves no weight. The best
responses played in equal shares are a mixed attack, hence a lower bound.

References: Meunier et al., Mixed Nash equilibria in the adversarial examples game, ICML 2021,
section 4.2; Boyd, Subgradient methods, 2003.
"""

import numpy as np

from mixsolve.engines.base import Engine
from mixsolve.engines.responses import MixedStrategy
from mixsolve.methods.problem import Outcome, Problem
from mixsolve.methods.stopping import Stop

DEFAULT_MAX_ITER = 1000


def minimize(problem: Problem, start: np.ndarray, stop: Stop) -> Outcome:
    """Run T = ``max_iter`` iterations from `start`, or fewer if the gap closes."""
    engine = problem.engine
    n_iter = DEFAULT_MAX_ITER if stop.max_iter is None else stop.max_iter
    step = 2.0 / (max(engine.spread, np.finfo(float).tiny) * np.sqrt(engine.n_classifiers * n_iter))
    weights = start
    played = PlayedResponses(engine)
    best_mixture = played.mixture()
    for nit in stop.iterations(n_iter):
        response = engine.best_response(weights)
        played.add(response.candidates, response.struck)
        mean_losses = played.losses + (response.gradient - played.losses) / nit
        played.losses = mean_losses
        bound = problem.feasible.lowest(mean_losses)
        if bound > stop.lower_bound:
            best_mixture = played.mixture()
        if stop.record(weights, response.value, bound):
            break
        weights = problem.feasible.project(weights - step * response.gradient)
    best = start if stop.weights is None else stop.weights
    return Outcome(best, best_mixture.attack())


class PlayedResponses:
    """Best responses played so far, in equal shares: counts of (sample, candidate) pairs.

    Attributes
    ----------
    losses : ndarray of float64, shape (L,)
        Loss of each classifier under the equal shares.
    """

    _MERGE_EVERY = 16

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._entries: list[tuple[np.ndarray, np.ndarray]] = []
        self._struck: np.ndarray | None = None
        self.losses = np.zeros(engine.n_classifiers)

    def add(self, candidates: np.ndarray, struck: np.ndarray | None = None) -> None:
        """Take in one more response: a candidate for each sample, int64 of shape (N,).

        `struck` is the weight (N,) of each sample, where the attacker chooses it.
        """
        counts = np.ones(candidates.size) if struck is None else struck
        if struck is not None:
            self._struck = struck if self._struck is None else self._struck + struck
        self._entries.append((self._keys(candidates), counts))
        if len(self._entries) > self._MERGE_EVERY:
            self._entries = [_merge(self._entries)]

    def _keys(self, candidates: np.ndarray) -> np.ndarray:
        return np.arange(candidates.size) * self._engine.n_rows + candidates

    def mixture(self) -> "PlayedResponses":
        """The shares as they stand now; costs nothing, since entries are never changed."""
        now = PlayedResponses(self._engine)
        now._entries = list(self._entries)
        now._struck = self._struck
        return now

    def attack(self) -> MixedStrategy | None:
        """The mixed strategy, or None if nothing was played."""
        if not self._entries:
            return None
        keys, counts = _merge(self._entries)
        samples, candidates = np.divmod(keys, self._engine.n_rows)
        attack = self._engine.strategy(samples, candidates, counts)
        if self._struck is None:
            return attack
        return attack.weighed(self._struck / self._struck.sum())


def _merge(entries: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    keys, inverse = np.unique(np.concatenate([keys for keys, _ in entries]), return_inverse=True)
    return keys, np.bincount(inverse, weights=np.concatenate([counts for _, counts in entries]))
