"""Projected gradient ascent on the expected loss of a mixture.

    x_0 drawn in the ball,   x_{t+1} = P( x_t + eta d_t ),
    d_t the unit direction of steepest ascent of sum_k lam_k loss(f_k(x_t), y),

with P the return to the ball and the box. All points x_0 ... x_T of all restarts are judged by the
exact expected 0/1 loss, ties by the loss that is ascended, and the best one is the attack: what is
returned is never worse than the last iterate. The step 2.5 eps / T is Madry's.

References
----------
Madry, Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial
Attacks. ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from mixsolve.arguments import as_count, as_real
from mixsolve.errors import MixsolveError
from mixsolve_torch.attacks.ball import project, steepest, uniform_in_ball
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.objective import Objective, Score, keep_better
from mixsolve_torch.losses import LossFunction, get_loss
from mixsolve_torch.mixture import Mixture


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent with random restarts.

    Parameters
    ----------
    norm : {"Linf", "L2"}
        The norm of the ball, taken over one image.
    eps : float
        The radius, at least 0, in the unit of the images.
    steps : int, default 20
        Steps of each restart.
    step_size : float, optional
        Length of a step in `norm`; ``2.5 eps / steps`` by default.
    restarts : int, default 1
        Ascents from different starts.
    random_start : bool, default True
        Start uniformly in the ball; otherwise at the image itself, which allows one restart only.
    loss : {"cross-entropy", "margin"} or callable, default "cross-entropy"
        The loss whose expectation is ascended.
    weights : array-like of shape (L,), optional
        Attack this mixture of the same classifiers instead of the mixture's own weights.
    keep_restarts : bool, default False
        Return the best point of every restart as a candidate of its own, not only the best of all.
    images_per_pass : int, default 2048
        Restarts run together as long as the images in one forward pass do not exceed this number.
        It changes the memory taken and not the draws.
    name : str, optional
        How the candidates are called in tables.

    Raises
    ------
    MixsolveError
        A parameter that is out of its range.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    >>> attacked = PGD("Linf", 0.1, steps=5)(Mixture([model]), x, y)
    >>> attacked.shape
    torch.Size([1, 5, 1, 2, 2])
    """

    _: KW_ONLY
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    loss: str | LossFunction = "cross-entropy"
    weights: Any = None
    keep_restarts: bool = False
    images_per_pass: int = 2048

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        as_count("steps", self.steps)
        as_count("restarts", self.restarts)
        as_count("images_per_pass", self.images_per_pass)
        get_loss(self.loss)
        if self.step_size is not None:
            as_real("step_size", self.step_size, at_least=0)
        if not self.random_start and self.restarts > 1:
            raise MixsolveError(
                f"restarts must be 1 without a random start; got {self.restarts}: "
                "all of them would be the same"
            )

    def names(self, classifiers: int) -> list[str]:
        """Return one name, or one for each restart that is kept."""
        if not self.keep_restarts:
            return [self.label("PGD")]
        return [f"{self.label('PGD')} #{restart + 1}" for restart in range(self.restarts)]

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the best point, or that of each restart."""
        objective = Objective(mixture, self.loss, y, self.weights)
        points, scores = self.search(objective, x, y, generator)
        objective.check_finite()
        if self.keep_restarts:
            yield from points
            return
        best, best_score = points[0], scores[0]
        for point, score in zip(points[1:], scores[1:], strict=True):
            best, best_score = keep_better(best, best_score, point, score)
        yield best

    def search(
        self, objective: Objective, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], list[Score]]:
        """Return the best point (B, C, H, W) of each restart, and its score."""
        points: list[Tensor] = []
        scores: list[Score] = []
        together = max(1, self.images_per_pass // len(x))
        for first in range(0, self.restarts, together):
            count = min(together, self.restarts - first)
            starts = [self._start(x, generator) for _ in range(count)]
            best, score = self._ascend(
                objective, torch.cat(starts), x.repeat(count, 1, 1, 1), y.repeat(count)
            )
            points += best.chunk(count)
            scores += [Score(*part) for part in zip(*(s.chunk(count) for s in score), strict=True)]
        return points, scores

    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return uniform_in_ball(x, self.norm, self.eps, generator) if self.random_start else x

    def _ascend(
        self, objective: Objective, point: Tensor, center: Tensor, y: Tensor
    ) -> tuple[Tensor, Score]:
        step = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        best, best_score = point, None
        for _ in range(self.steps):
            score, gradient = objective.score_and_gradient(point, y)
            best, best_score = keep_better(best, best_score, point, score)
            ahead = point + step * steepest(gradient, self.norm)
            point = project(ahead, center, self.norm, self.eps)
        return keep_better(best, best_score, point, objective.score(point, y))
