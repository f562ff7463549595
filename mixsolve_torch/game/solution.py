"""What a game came to: its rounds, and weights with both ends of their risk."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mixsolve.solver.solution import Solution
from mixsolve_torch.candidates.build import CandidateLosses


@dataclass(frozen=True)
class GameRound:
    """One round of the game: weights, and what attacks made of them.

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
        What the round took; of one that was interrupted, what the call took that ended it.
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
    """Weights, and how far apart what they promise and what attacks make of them are.

    Attributes
    ----------
    weights : torch.Tensor of shape (L,), float64
        Probability of each classifier: those that the last attacks could not hurt, or, if the game
        did not converge, those of the lowest `risk` among all that were attacked.
    value : float
        Lower end: the risk of the last solution's weights against the candidates it was found from.
        With alpha = 0 no weights do better, up to ``solution.gap``, whatever else is attacked; with
        alpha > 0 that holds for ``solution.risk_lower_bound``.
    risk : float
        Upper end, as far as the attacks can tell: the risk of `weights` against all candidates of
        all rounds, those of the last attacks on these weights among them.
    history : tuple of GameRound
        The rounds.
    losses : CandidateLosses
        The tensor of all candidates: those to begin with, then one column for each run of the
        attacks that hurt an image. Where it did not hurt image i, row i repeats the clean image.
    found : torch.Tensor of shape (N, m), bool
        Where a candidate is not such a repetition: the `candidate_mask` for alpha > 0.
    solution : Solution
        The last solve, with its certificate. Its weights are `weights` if the game converged.
    converged : bool
        Whether ``risk - value <= tol`` after the number of fresh runs asked for.
    message : str
        How the game ended, in words.
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
