"""The game over the whole ball, from both sides: `solve_ball`.

    min over lam of  mean_i  max over x' in the ball of x_i  of  sum_k lam_k 1[f_k errs at x'].

Attacks find points of the ball: the game against them alone has a value that is no larger.
Verification finds sets of classifiers that may err together: the game against them has a value that
is no smaller. Both are loss tensors, and `mixsolve.solve` solves both with certificates.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import mixsolve
from mixsolve.solver.solution import Solution
from mixsolve.uncompiled.choice import compiled_alone
from mixsolve_torch.attacks.registry import Attacks
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.batching import Data, gather
from mixsolve_torch.game.solution import GameSolution
from mixsolve_torch.game.solve import solve_game
from mixsolve_torch.verification.verify import Verification, verify


@dataclass(frozen=True)
class BallSolution:
    """Bounds of the value of the game over the whole ball, and weights.

    Attributes
    ----------
    weights : torch.Tensor of shape (L,), float64
        Probabilities that minimise the verified risk: no attack makes it exceed `verified`.
    attacked_weights : torch.Tensor of shape (L,), float64
        Those that minimise the risk against the attacks found.
    verified : float
        Upper end: the verified risk of `weights`.
    attacked : float
        Lower end: no weights have a lower risk against the attacks found.
    verified_solution, attacked_solution : Solution
        The two games that were solved.
    verification : Verification
        What is proven of each image.
    game : GameSolution
        What the attacks found, and how.
    """

    weights: Tensor
    attacked_weights: Tensor
    verified: float
    attacked: float
    verified_solution: Solution = field(repr=False)
    attacked_solution: Solution = field(repr=False)
    verification: Verification = field(repr=False)
    game: GameSolution = field(repr=False)

    @property
    def unknown(self) -> float:
        """What is not known of the value: ``verified - attacked``."""
        return self.verified - self.attacked

    def attacked_risk(self, weights: Tensor) -> float:
        """Return the risk (a lower bound) of given weights (L,) against all attacks found."""
        lam = weights.cpu().numpy()
        found = self.game.losses.worst(weights).cpu().numpy()
        known = [(rows @ lam).max() for rows in self.verification.fooled]
        return float(np.maximum(found, known).mean())


@compiled_alone()
def solve_ball(
    mixture: Mixture,
    data: Data,
    norm: str = "Linf",
    *,
    eps: float | str,
    attacks: Attacks = "standard",
    restarts: int | None = None,
    steps: int | None = None,
    exact_seconds: float = 0.0,
    slope_steps: int = 10,
    tol: float = 2e-3,
    max_rounds: int = 30,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> BallSolution:
    """Bound the value of the game over the whole ball, by attacks and by verification.

    ``attacked <= value <= verified``: the value is the least risk of any mixture of these
    classifiers against the best attack that there is in the ball. The images are verified first,
    and attacks then leave out those where it is proven that they gain nothing.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and the weights to attack first.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches
        Images (N, C, H, W) in [0, 1] and labels (N,). They are read once.
    norm : {"Linf", "L2"}, default "Linf"
        The norm of the ball.
    eps : float or str
        Its radius, such as 8 / 255 or "8/255".
    attacks, restarts, steps, tol, max_rounds, generator
        Of the attacks, as in `solve_game`.
    exact_seconds, slope_steps
        Of the verification, as in `verify`.
    batch_size : int, default 64
        Images attacked or verified at a time.
    out : str or path, optional
        A folder for finished parts. A call that was interrupted resumes when it is repeated.
    progress : bool, default False
        Show progress bars for what takes more than two seconds.

    Returns
    -------
    BallSolution
        Both ends, the weights of each, and what lies behind them.

    Raises
    ------
    MixsolveError, MixsolveTypeError
        As in `verify` and `solve_game`.

    Warns
    -----
    ConvergenceWarning
        The rounds of the attacks were used up: the lower end still holds.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> bounds = solve_ball(Mixture(models), data, eps=0.1)
    >>> bounds.attacked <= bounds.verified + 1e-9
    True
    """
    pair = gather(data)
    folder = None if out is None else Path(out)
    proven = verify(
        mixture,
        pair,
        norm,
        eps,
        exact_seconds=exact_seconds,
        slope_steps=slope_steps,
        batch_size=batch_size,
        out=folder,
        progress=progress,
    )
    reach = np.stack([rows.max(axis=0) for rows in proven.sets])
    game = solve_game(
        mixture,
        pair,
        attacks,
        norm=norm,
        eps=eps,
        steps=steps,
        restarts=restarts,
        tol=tol,
        max_rounds=max_rounds,
        batch_size=batch_size,
        generator=generator,
        ceiling=reach,
        out=None if folder is None else folder / "game",
        progress=progress,
    )
    found = game.losses.values.cpu().numpy()
    known = [np.concatenate(rows) for rows in zip(found, proven.fooled, strict=True)]
    above, below = mixsolve.solve(proven.sets), mixsolve.solve(known)
    return BallSolution(
        weights=torch.as_tensor(above.weights, device=mixture.device),
        attacked_weights=torch.as_tensor(below.weights, device=mixture.device),
        verified=above.risk,
        # Where both ends meet, their certificates may cross by the rounding of a sum.
        attacked=min(below.risk_lower_bound, above.risk),
        verified_solution=above,
        attacked_solution=below,
        verification=proven,
        game=game,
    )
