"""Auto-PGD: gradient ascent with momentum that sets its own step size, image by image.

    z_{t+1} = P( x_t + eta d_t ),
    x_{t+1} = P( x_t + a (z_{t+1} - x_t) + (1 - a) (x_t - x_{t-1}) ),    a = 0.75 (1 in step one),

with d_t the unit direction of steepest ascent and eta = 2 eps at first. At the checkpoints
w_j = ceil(p_j T), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), an image's
step is halved and its search continues from its best point so far, if since w_{j-1}

    fewer than 0.75 of its steps raised the loss, or
    neither its step was halved at w_{j-1} nor its largest loss has risen.

Both use x_0 ... x_{w_j} alone, and the point of largest loss takes the place of x_{w_j}. For one
classifier this is the published attack. For a mixture the loss is the expectation
sum_k lam_k loss_k and "best point" has two meanings: restarts go by the loss, which is what is
ascended; the result goes by the exact expected 0/1 loss first.

L1 balls have an ascent of their own, `attacks.sparse`.

References
----------
Croce, Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks. ICML 2020, algorithm 1 and section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixsolve.base.arguments import as_count
from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.objective import HINGE, Objective, Score, ascended_loss
from mixsolve_torch.attacks.search import SearchAttack
from mixsolve_torch.attacks.sparse import sparse_ascent, sparse_visits
from mixsolve_torch.core.losses import LossFunction

MOMENTUM = 0.75
RISING = 0.75  # the share of steps that must raise the loss
_SHORT = {"cross-entropy": "CE", "dlr": "DLR"}


@dataclass(frozen=True)
class APGD(SearchAttack):
    """Auto-PGD with random restarts: no step size to choose.

    Parameters
    ----------
    loss : str or callable, default "cross-entropy"
        What is ascended, as for `PGD`. "dlr" needs at least 3 classes, and its gradient vanishes
        where the true class ranks third: never rely on it alone. "hinge" leaves out of the gradient
        the classifiers that err already.
    rival : int or sequence of int, optional
        Ascend towards one other class only, with the loss "hinge": 1 for the class of the largest
        expected logit at the image itself, the true one apart, 2 for the next, and so on. The
        restarts take those of a sequence in turn, all in one batch.
    steps : int, default 100
        Steps of each restart.
    **options
        Those of `SearchAttack`, norm, eps and name included.

    Raises
    ------
    MixsolveError
        A parameter that is out of its range; a rival with another loss than "hinge", or beyond the
        number of classes; "dlr" on classifiers of two classes.
    """

    _: KW_ONLY
    loss: str | LossFunction = "cross-entropy"
    steps: int = 100
    rival: int | Sequence[int] | None = None

    kind: ClassVar[str] = "APGD"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        loss = ascended_loss(self.loss)
        if self.rival is not None:
            if isinstance(self.rival, Sequence):
                rival: Any = tuple(as_count("rival", own) for own in self.rival)
            else:
                rival = as_count("rival", self.rival)
            object.__setattr__(self, "rival", rival)
            if loss is not HINGE:
                raise MixsolveError(
                    f"loss must be 'hinge' for an attack towards a rival; got {loss.name!r}; "
                    "write loss='hinge', or leave rival out"
                )

    def ascended(self) -> str | LossFunction:
        """Return the loss whose expectation is ascended and that breaks ties."""
        return self.loss

    def followed(self) -> str:
        """Return the name of the loss that is ascended."""
        return ascended_loss(self.loss).name

    def label(self, kind: str) -> str:
        """Return the attack's name, or one that includes its loss."""
        loss = ascended_loss(self.loss).name
        aim = "".join(f"-rival-{rival}" for rival in self._rivals)
        return super().label(f"{kind}-{_SHORT.get(loss, loss)}{aim}")

    def visits(self) -> int:
        """Return how many points `visit` yields: in L1 those of its own ball only."""
        return sparse_visits(self.steps) if self.norm == "L1" else super().visits()

    def visit(
        self, objective: Objective, start: Tensor, center: Tensor, y: Tensor
    ) -> Iterator[tuple[Tensor, Score]]:
        """Yield the points of the ascent and their scores."""
        if self.norm == "L1":
            yield from sparse_ascent(objective, start, center, y, self.ball, self.steps)
            return
        ball, marks, project = self.ball, checkpoints(self.steps), self.ball.projection(center)
        point = before = top = start
        score, gradient = objective.score_and_gradient(point, y)
        yield point, score
        value = top_value = last_top_value = score.value
        top_gradient = gradient
        step = torch.full_like(value, 2 * self.eps)
        halved = torch.zeros_like(value, dtype=torch.bool)
        risen = torch.zeros_like(value)
        last_mark = 0
        for t in range(1, self.steps + 1):
            ahead = point + _per_image(step, point) * ball.steepest(gradient)
            moved = project(ahead)
            if t > 1:
                mixed = point + MOMENTUM * (moved - point) + (1 - MOMENTUM) * (point - before)
                moved = project(mixed)
            before, point = point, moved
            if t == self.steps:
                yield point, objective.score(point, y)
                return
            score, gradient = objective.score_and_gradient(point, y)
            yield point, score
            risen = risen + (score.value > value)
            value = score.value
            better = value > top_value
            top = torch.where(_mask(better), point, top)
            top_gradient = torch.where(_mask(better), gradient, top_gradient)
            top_value = torch.where(better, value, top_value)
            if t in marks:
                halve = risen < RISING * (t - last_mark)
                halve |= ~halved & (top_value == last_top_value)
                step = torch.where(halve, step / 2, step)
                point = torch.where(_mask(halve), top, point)
                gradient = torch.where(_mask(halve), top_gradient, gradient)
                value = torch.where(halve, top_value, value)
                halved, last_top_value, last_mark = halve, top_value, t
                risen = torch.zeros_like(risen)

    @property
    def _rivals(self) -> tuple[int, ...]:
        return (self.rival,) if isinstance(self.rival, int) else tuple(self.rival or ())

    def aims(self) -> list[SearchAttack]:
        """Return the attacks towards each rival, where each has as many restarts as the others."""
        count = len(self._rivals)
        if count < 2 or self.restarts % count:
            return [self]
        return [replace(self, rival=r, restarts=self.restarts // count) for r in self._rivals]

    def aim(self, objective: Objective, center: Tensor, y: Tensor, restarts: Tensor) -> Objective:
        """Return the objective, or the hinge towards the rival that each row's restart is for."""
        if self.rival is None:
            return objective
        members, rivals = objective.members, self._rivals
        logits = [members.logits(i, center).T for i in range(len(members))]
        classes = min(len(own) for own in logits)
        if max(rivals) >= classes:
            raise MixsolveError(
                f"rival must be below the number of classes, {classes}; got {max(rivals)}: "
                "it counts the classes other than the true one"
            )
        expected = sum(
            (
                w * own[:classes].to(torch.float64)
                for w, own in zip(members.weights, logits, strict=True)
            ),
            start=torch.zeros((), dtype=torch.float64, device=y.device),
        )
        others = expected.T.scatter(1, y[:, None], -torch.inf)
        ranked = others.topk(max(rivals), dim=1).indices
        rank = torch.tensor(rivals, device=y.device)[restarts % len(rivals)] - 1
        return objective.towards(ranked.gather(1, rank[:, None]).squeeze(1))


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size is checked, at 0.22, 0.41, ... 0.99 of all.

    Examples
    --------
    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    # In hundredths, so that the shares are exact and none is rounded up a step too far.
    share, length = 22, 22
    marks = set()
    while share < 100:
        marks.add(-(-share * steps // 100))
        length = max(length - 3, 6)
        share += length
    return sorted(marks)


def _mask(chosen: Tensor) -> Tensor:
    return chosen[:, None, None, None]


def _per_image(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype)[:, None, None, None]
