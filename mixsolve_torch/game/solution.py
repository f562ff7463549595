"""The result of a game: its rounds, and weights with bounds of their risk."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mixsolve.solver.solution import Solution
from mixsolve_torch.candidates.build import CandidateLosses


@dataclass(frozen=True)
class GameRound:
    """One round of the game: weights, and their risk under attack.

    Attributes
    ----------
    number : int
        Counted from 1; 0 is the mixture as it was given.
    weights : torch.Tensor of shape (L,), float64
        The weights that were attacked.
    value : float
        Their risk against the candidates before the attacks.
    risk : float
        Their risk against those and the ones that the attacks of the round found.
    attacks : int
        How often the attacks were run, each time with other draws.
    candidates : int
        Columns of the tensor after the round.
    seconds : float
        Duration of the round, in the call that finished it.
    """

    number: int
    weights: Tensor
    value: float
    risk: float
    attacks: int
    candidates: int
    seconds: float


@dataclass(frozen=True)
class GameSolution:
    """Weights, and a lower and an upper end of their risk.

    Attributes
    ----------
    weights : torch.Tensor of shape (L,), float64
        Probability of each classifier: those of the last attacks, or, if the game did not converge,
        those of the lowest `risk` among all that were attacked.
    value : float
        Lower end: the risk of the last solution's weights against the candidates it was found from.
        With alpha = 0 no weights have a lower risk, up to ``solution.gap``; with alpha > 0 that
        holds for ``solution.risk_lower_bound``.
    risk : float
        Upper end, for these attacks: the risk of `weights` against all candidates of all rounds,
        those of the last attacks on these weights among them.
    history : tuple of GameRound
        The rounds.
    losses : CandidateLosses
        The tensor of all candidates: those to begin with, then one column for each run of the
        attacks that raised the risk of an image. In it, the other images repeat their clean one.
    found : torch.Tensor of shape (N, m), bool
        Where a candidate is not such a repetition: the `candidate_mask` for alpha > 0.
    solution : Solution
        The last solve, with its certificate. Its weights are `weights` if the game converged.
    converged : bool
        Whether ``risk - value <= tol`` after `confirmations` runs.
    message : str
        How the game ended, in words.
    passes : int
        Forward and backward runs of one classifier on one image that the attacks took.
    """

    weights: Tensor
    value: float
    risk: float
    history: tuple[GameRound, ...] = field(repr=False)
    losses: CandidateLosses = field(repr=False)
    found: Tensor = field(repr=False)
    solution: Solution = field(repr=False)
    converged: bool
    message: str
    passes: int = 0
