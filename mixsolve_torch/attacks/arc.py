"""ARC: one classifier after another, each moved over its nearest boundary without losing the rest.

The gradients of a mixture's classifiers can cancel, and then no ascent of their expected loss moves
although each classifier could be fooled. ARC takes them in turn. From the point x_t, with v the
move so far (at first none), eta the step size and classifier i at the signed distance z_i from x_t
and r_i from x_t + v (to first order, see `attacks.boundary`), g_i the direction to its boundary:

    v'  =  eta (v + beta g_i) / ||v + beta g_i||,
    beta = eta                               for the first classifier, or where z_i >= eta,
    beta = eta r_i / (eta - z_i) + rho       otherwise.

Since ||v + beta g_i|| <= eta + beta, this beta takes a linear classifier over its boundary at the
least turn of v that ensures it. An image takes the move if its expected accuracy does not rise; a
classifier that errs already needs none. The classifiers are ordered by weight, the heaviest first;
each further step begins with the next one, since otherwise the same moves would be rejected again.

A step of n classifiers costs n forward and n `rivals` backward passes for the boundaries and n^2
forward passes for the judgement.

References
----------
Dbouk, Shanbhag. Adversarial Vulnerability of Randomized Ensembles. ICML 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixsolve.base.arguments import as_count, as_length
from mixsolve_torch.attacks.boundary import nearest_boundary
from mixsolve_torch.attacks.objective import Objective, Score
from mixsolve_torch.attacks.search import SearchAttack

# How far beyond a boundary a move aims, as a share of the radius: the published 0.05.
_BEYOND = 0.05

# The least share of a step left for the turn: a longer turn would lose the move before it.
_LEAST = 1e-3


@dataclass(frozen=True)
class ARC(SearchAttack):
    """The attack of Dbouk and Shanbhag, for any number of classifiers.

    Parameters
    ----------
    steps : int, default 20
        Steps of each restart; each step processes all classifiers in turn.
    step_size : float, optional
        Length eta of a step in `norm`; `eps` by default.
    rivals : int, default 3
        Classes other than the true one whose boundaries are tried, those of the largest logits.
    **options
        Those of `SearchAttack`, norm, eps and name included.
    """

    _: KW_ONLY
    step_size: float | None = None
    rivals: int = 3

    kind: ClassVar[str] = "ARC"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        as_count("rivals", self.rivals)
        if self.step_size is not None:
            object.__setattr__(self, "step_size", as_length("step_size", self.step_size))

    def visit(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> Iterator[tuple[Tensor, Score]]:
        """Yield the points after each step and their scores."""
        weights = objective.members.weights
        order = sorted(range(len(weights)), key=lambda i: -weights[i])
        point, score = start, objective.score(start, y)
        yield point, score
        for _ in range(self.steps):
            point, score = self._step(objective, order, point, score, center, y)
            yield point, score
            order = order[1:] + order[:1]

    def _step(
        self,
        objective: Objective,
        order: list[int],
        base: Tensor,
        score: Score,
        center: Tensor,
        y: Tensor,
    ) -> tuple[Tensor, Score]:
        ball = self.ball
        length = self.eps if self.step_size is None else self.step_size
        tiny = torch.finfo(base.dtype).tiny
        point, move = base, torch.zeros_like(base)
        for turn, i in enumerate(order):
            near = nearest_boundary(objective.members, i, point, y, ball, self.rivals)
            beta = torch.full_like(near.distance, length)
            if turn:
                slope = ball.growth(near.gradient, point).clamp(min=tiny)
                along = (near.gradient * move).flatten(1).sum(dim=1) / slope
                # Where the classifier errs already the move is not taken; it stays finite.
                left = torch.where(near.wrong, 0, near.distance)
                room = length - left - along
                turned = length * left / room.clamp(min=_LEAST * length + tiny)
                beta = torch.where(room > 0, turned + _BEYOND * self.eps, beta)
            ahead = move + beta[:, None, None, None] * ball.direction(near.gradient, point)
            rescale = length / ball.lengths(ahead).clamp(min=tiny)
            ahead = ahead * rescale[:, None, None, None]
            trial = ball.project(base + ahead, center)
            judged = objective.score(trial, y)
            taken = (judged.errors >= score.errors) & ~near.wrong
            score = judged.where(taken, score)
            chosen = taken[:, None, None, None]
            point, move = torch.where(chosen, trial, point), torch.where(chosen, ahead, move)
        return point, score
