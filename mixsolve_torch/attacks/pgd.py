"""Projected gradient ascent on the expected loss of a mixture.

    x_0 drawn in the ball,   x_{t+1} = P( x_t + eta d_t ),
    d_t the unit direction of steepest ascent of sum_k lam_k loss(f_k(x_t), y),

with P the return to the ball and the box; in L1, d_t is the direction from the image to the point
of the set where the linear model is largest. All points x_0 ... x_T of all restarts are judged by
the exact expected 0/1 loss, ties by the loss that is ascended, and the best one is the attack: what
is returned is never worse than the last iterate. The step 2.5 eps / T is Madry's.

References
----------
Madry, Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial
Attacks. ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from torch import Tensor

from mixsolve.base.arguments import as_length
from mixsolve_torch.attacks.objective import Objective, Score, ascended_loss
from mixsolve_torch.attacks.search import SearchAttack
from mixsolve_torch.core.losses import LossFunction


@dataclass(frozen=True)
class PGD(SearchAttack):
    """Projected gradient ascent with random restarts.

    Parameters
    ----------
    loss : str or callable, default "cross-entropy"
        What is ascended: the expectation of "cross-entropy", "margin", "dlr" or of a function of
        logits (B, classes) and labels (B,) that returns losses (B,); or "mean-probability", the
        cross-entropy of the classifiers' mean probability. The result is judged by the expected
        0/1 loss whatever is ascended.
    steps : int, default 20
        Steps of each restart.
    step_size : float, optional
        Length of a step in `norm`; ``2.5 eps / steps`` by default.
    **options
        Those of `SearchAttack`, norm, eps and name included.

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
    loss: str | LossFunction = "cross-entropy"
    step_size: float | None = None

    kind: ClassVar[str] = "PGD"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        ascended_loss(self.loss)
        if self.step_size is not None:
            object.__setattr__(self, "step_size", as_length("step_size", self.step_size))

    def ascended(self) -> str | LossFunction:
        """Return the loss whose expectation is ascended and that breaks ties."""
        return self.loss

    def followed(self) -> str:
        """Return the name of the loss that is ascended."""
        return ascended_loss(self.loss).name

    def visit(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> Iterator[tuple[Tensor, Score]]:
        """Yield the points of the ascent and their scores."""
        point = start
        for _ in range(self.steps):
            score, ahead = self.step(objective, point, center, y)
            yield point, score
            point = ahead
        yield point, objective.score(point, y)

    def step(
        self, objective: Objective, point: Tensor, center: Tensor, y: Tensor
    ) -> tuple[Score, Tensor]:
        """Return the score of a point and the next point, both of one pass of the classifiers."""
        score, gradient = objective.score_and_gradient(point, y)
        return score, self._mover(center)(point, gradient)

    def last(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> tuple[Tensor, Score]:
        """Return the last point of an ascent, and the score of the one before.

        The points are those of `visit`; the others are not judged.
        """
        move, point = self._mover(center), start
        for _ in range(self.steps - 1):
            point = move(point, objective.gradient(point, y))
        score, gradient = objective.score_and_gradient(point, y)
        return move(point, gradient), score

    def _mover(self, center: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function of a point and a gradient that makes one step around `center`."""
        length = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        return self.ball.mover(center, length)
